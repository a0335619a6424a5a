"""One vector file of the buildings of all tiles → a row for every building of every tile that it lies on."""

from pathlib import Path

import geopandas as gpd
import numpy as np
import pandas as pd
import pyogrio
import shapely

from footprint_pipeline.errors import LabelError, first_line

_WGS84 = "EPSG:4326"
_LEAST_SHARE = 1e-6
"""A building that ends at a tile's edge reaches over it by rounding; so small a part of one is none."""


def read_map(path: Path, outlines: gpd.GeoSeries) -> tuple[pd.DataFrame, set[str]]:
    """Every feature that lies on a tile, once for each of its tiles; those that lie on none are passed over.

    Args:
        path: a GeoJSON, GeoPackage or FlatGeobuf of one layer, or a GeoParquet, in any CRS.
        outlines: polygons of the tiles in EPSG:4326, by tile id.

    Returns:
        Rows as of `label_files.read_geojson`, whose row and building id are the number of the feature, from 1; and the
        ids of the tiles that reach into the bounding box of all features, so that one without a row has no building.

    Raises:
        LabelError: the file cannot be read, has no CRS, or has several layers.
    """
    try:
        features = gpd.read_parquet(path) if path.suffix.lower() == ".parquet" else _of_one_layer(path)
        geometry = features.geometry
        if geometry.crs is not None:
            geometry = geometry.to_crs(_WGS84)
    except LabelError:
        raise
    except Exception as error:  # GDAL, Arrow, GEOS and PROJ each have errors of their own
        raise LabelError(
            f"{path.name}: cannot be read as a vector file ({first_line(error)}).",
            fix="Give a GeoJSON, GeoPackage, FlatGeobuf or GeoParquet of the buildings, as QGIS or ogr2ogr writes it.",
        ) from error
    if geometry.crs is None:
        raise LabelError(
            f"{path.name}: has no coordinate system.",
            fix="Write it with one (ogr2ogr -a_srs EPSG:NUMBER OUT IN), the one that its coordinates are in.",
        )
    shapes = shapely.force_2d(geometry.to_numpy())
    tile, feature = shapely.STRtree(shapes).query(outlines.to_numpy(), predicate="intersects")
    order = np.lexsort((feature, tile))
    order = order[_lies_on(shapes[feature[order]], outlines.to_numpy()[tile[order]])]
    tile, feature = tile[order], feature[order]
    rows = pd.DataFrame(
        {
            "file": path.name,
            "row": feature + 1,
            "tile_id": outlines.index.to_numpy(object)[tile],
            "building_id": feature + 1.0,
            "text": "",
            "geometry": shapes[feature],
            "reason": "",
            "pixels": "",
        }
    )
    covered = outlines.intersects(shapely.box(*geometry.total_bounds)) if len(shapes) else np.zeros(len(outlines), bool)
    return rows, set(outlines.index[covered])


def _lies_on(shapes: np.ndarray, outlines: np.ndarray) -> np.ndarray:
    """Which shapes lie on the outline beside them, by more than rounding."""
    found = shapely.within(shapes, outlines)
    crossing = np.flatnonzero(~found)
    whole = shapely.make_valid(shapes[crossing])
    part = shapely.area(shapely.intersection(whole, outlines[crossing]))
    found[crossing] = part > _LEAST_SHARE * shapely.area(whole)
    return found


def _of_one_layer(path: Path) -> gpd.GeoDataFrame:
    layers = [name for name, kind in pyogrio.list_layers(path) if kind is not None]
    if len(layers) > 1:
        raise LabelError(
            f"{path.name}: holds several layers ({', '.join(layers)}).",
            fix="Write the one with the buildings into a file of its own (ogr2ogr OUT IN LAYER).",
        )
    return gpd.read_file(path, columns=[])

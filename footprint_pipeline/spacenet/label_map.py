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

_SMALL_DEG = 10.0
"""A box of this side is still a rectangle, about, in the layer's own CRS; of a wider one that is not said."""


def read_map(path: Path, outlines: gpd.GeoSeries) -> tuple[pd.DataFrame, set[str]]:
    """Every feature that lies on a tile, once for each of its tiles; those that lie on none are passed over.

    Args:
        path: a GeoJSON, GeoPackage or FlatGeobuf of one layer, or a GeoParquet, in any CRS.
        outlines: polygons of the tiles in EPSG:4326, by tile id.

    Returns:
        Rows as of `label_files.read_geojson`, whose row and building id are the number of the feature, from 1; and the
        ids of the tiles that reach into the bounding box of all features in the neighbourhood, so that one without a
        row has no building.

    Raises:
        LabelError: the file cannot be read, has no CRS, or has several layers.
    """
    try:
        around = _around(outlines)
        with np.errstate(invalid="ignore"):  # at a coordinate that is no number
            if path.suffix.lower() == ".parquet":
                geometry = gpd.read_parquet(path).geometry.reset_index(drop=True)
            else:
                geometry = _of_one_layer(path, around).geometry
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
    places = _finite(shapes)
    near = shapely.intersects(places, around.iloc[0])
    tile, feature = shapely.STRtree(places).query(outlines.to_numpy(), predicate="intersects")
    order = np.lexsort((feature, tile))
    order = order[_lies_on(places[feature[order]], outlines.to_numpy()[tile[order]])]
    tile, feature = tile[order], feature[order]
    number = geometry.index.to_numpy()[feature] + (path.suffix.lower() != ".gpkg")  # which counts from 1 itself
    rows = pd.DataFrame(
        {
            "file": path.name,
            "row": number,
            "tile_id": outlines.index.to_numpy(object)[tile],
            "building_id": number.astype(float),
            "text": "",
            "geometry": shapes[feature],
            "reason": "",
            "pixels": "",
        }
    )
    covered = outlines.intersects(shapely.envelope(shapely.multipoints(shapely.get_coordinates(places[near]))))
    return rows, set(outlines.index[covered])


def _around(outlines: gpd.GeoSeries) -> gpd.GeoSeries:
    """The box around all tiles, and as much again on each side: what lies beyond says nothing of them."""
    left, bottom, right, top = outlines.total_bounds
    width, height = right - left, top - bottom
    return gpd.GeoSeries([shapely.box(left - width, bottom - height, right + width, top + height)], crs=_WGS84)


def _finite(shapes: np.ndarray) -> np.ndarray:
    """The shapes; of those with coordinates that are no numbers the other ones, as points, to tell where they lie."""
    points, owner = shapely.get_coordinates(shapes, return_index=True)
    finite = np.isfinite(points).all(axis=1)
    broken = np.unique(owner[~finite])
    places = shapes.copy()
    for one in broken:
        places[one] = shapely.MultiPoint(points[finite & (owner == one)])
    return places


def _lies_on(shapes: np.ndarray, outlines: np.ndarray) -> np.ndarray:
    """Which shapes lie on the outline beside them, by more than rounding; what has no area is judged later."""
    found = shapely.within(shapes, outlines)
    crossing = np.flatnonzero(~found)
    whole = shapely.make_valid(shapes[crossing])
    part, area = shapely.area(shapely.intersection(whole, outlines[crossing])), shapely.area(whole)
    found[crossing] = (part > _LEAST_SHARE * area) | (area == 0)
    return found


def _of_one_layer(path: Path, around: gpd.GeoSeries) -> gpd.GeoDataFrame:
    """The features of a layer that reach into a box, by their number; all where it is no small part of the globe."""
    layers = [name for name, kind in pyogrio.list_layers(path) if kind is not None]
    if len(layers) > 1:
        raise LabelError(
            f"{path.name}: holds several layers ({', '.join(layers)}).",
            fix="Write the one with the buildings into a file of its own (ogr2ogr OUT IN LAYER).",
        )
    left, bottom, right, top = around.total_bounds
    small = max(right - left, top - bottom) < _SMALL_DEG
    return gpd.read_file(path, columns=[], bbox=around if small else None, fid_as_index=True)

"""The polygon table: every building label once, on the ground and on its tile's grid.

GeoParquet 1.1, one row a label. Columns:

- `geometry`: Polygon or MultiPolygon, EPSG:4326 (the primary geometry);
- `geometry_px`: the same on its tile's grid, pixels, x right, y down, clipped to the tile (no CRS);
- `aoi`, `tile_id`, `building_id`: tile ids are unique within an AOI, building ids within a tile;
- `area_m2`: geodesic area on WGS 84, square metres, and `area_sqft`, square feet.
"""

import logging
from dataclasses import dataclass
from pathlib import Path

import geopandas as gpd
import numpy as np
import pandas as pd
import shapely
from pyproj import Transformer

from footprint_pipeline.dataset.tiles import WGS84
from footprint_pipeline.errors import DatasetError
from footprint_pipeline.files import atomic_path

log = logging.getLogger(__name__)

SQUARE_FEET_A_SQUARE_METRE = 10.763910416709722


@dataclass(frozen=True)
class PolygonTable:
    """The table, and how many labels were clipped at a tile's edge or lay wholly outside it."""

    table: gpd.GeoDataFrame
    clipped: int
    outside: int


def build_polygon_table(labels: gpd.GeoDataFrame, tiles: gpd.GeoDataFrame) -> PolygonTable:
    """Place labels on their tiles and measure them.

    Args:
        labels: columns `tile_id`, `building_id`, geometry (EPSG:4326, valid).
        tiles: the tile index; labels of tiles that are not in it are left out.

    Returns:
        The table, sorted by tile and building.
    """
    labels = labels[labels["tile_id"].isin(tiles["tile_id"])].reset_index(drop=True)
    on_grid = np.empty(len(labels), object)
    grids = tiles.set_index("tile_id")
    rows_of = labels.groupby("tile_id").indices
    geometry = labels.geometry.to_numpy()
    for tile_id, rows in rows_of.items():
        tile = grids.loc[tile_id]
        on_grid[rows] = to_pixels(geometry[rows], crs=tile["crs"], transform=tile["transform"])
    # A label that touches itself can be valid in degrees and, by rounding, cross itself in pixels.
    crossing = ~shapely.is_valid(on_grid)
    on_grid[crossing] = _polygonal(shapely.make_valid(on_grid[crossing], method="structure", keep_collapsed=False))

    sizes = grids.loc[labels["tile_id"], ["width", "height"]].to_numpy(float)
    frames = shapely.box(0.0, 0.0, sizes[:, 0], sizes[:, 1]) if len(labels) else np.empty(0, object)
    reaching_out = ~shapely.covers(shapely.buffer(frames, 1e-3), on_grid)
    inside = on_grid.copy()
    inside[reaching_out] = _polygonal(shapely.intersection(on_grid[reaching_out], frames[reaching_out]))
    kept = ~shapely.is_empty(inside)
    outside = int((~kept).sum())
    if outside:
        log.warning("%d labels lie wholly outside their tile and are left out", outside)

    # pyproj adds up rings by the way they turn, and labels turn them as they like.
    turned = shapely.orient_polygons(geometry)
    area_m2 = np.array([abs(WGS84.geometry_area_perimeter(shape)[0]) for shape in turned], float)
    table = gpd.GeoDataFrame(
        {
            "aoi": grids.loc[labels["tile_id"], "aoi"].to_numpy(),
            "tile_id": labels["tile_id"].to_numpy(),
            "building_id": labels["building_id"].to_numpy(),
            "area_m2": area_m2,
            "area_sqft": area_m2 * SQUARE_FEET_A_SQUARE_METRE,
            "geometry_px": gpd.GeoSeries(inside, crs=None),
        },
        geometry=gpd.GeoSeries(geometry, crs="EPSG:4326"),
    )
    table = table[kept].sort_values(["tile_id", "building_id"], kind="stable", ignore_index=True)
    return PolygonTable(table, clipped=int(reaching_out.sum()) - outside, outside=outside)


def to_pixels(geometry: np.ndarray, *, crs: str, transform: list[float]) -> np.ndarray:
    """Geometries in EPSG:4326 → the grid of a tile (pixels, x right, y down).

    Args:
        geometry: shapely geometries, shape (N,).
        crs: the tile's CRS.
        transform: six numbers, pixel → CRS.
    """
    if crs != "EPSG:4326":
        to_crs = Transformer.from_crs("EPSG:4326", crs, always_xy=True)
        geometry = shapely.transform(geometry, lambda xy: np.column_stack(to_crs.transform(xy[:, 0], xy[:, 1])))
    a, b, c, d, e, f = list(transform)[:6]
    inverse = np.linalg.inv(np.array([[a, b], [d, e]]))
    return shapely.transform(geometry, lambda xy: (xy - (c, f)) @ inverse.T)


def write_polygon_table(table: gpd.GeoDataFrame, path: Path) -> None:
    """Write the table as GeoParquet 1.1 with a bbox column, atomically."""
    with atomic_path(path) as temporary:
        table.to_parquet(temporary, index=False, schema_version="1.1.0", write_covering_bbox=True)


def read_polygon_table(path: Path) -> gpd.GeoDataFrame:
    """The table written by `write_polygon_table`.

    Raises:
        DatasetError: there is none.
    """
    if not path.exists():
        raise DatasetError(
            f"{path}: there is no polygon table.", fix="Materialize building_polygons for this AOI first."
        )
    return gpd.read_parquet(path)


def buildings_per_tile(table: pd.DataFrame) -> pd.Series:
    """Number of labels by tile id; tiles without a label are not in it."""
    return table.groupby("tile_id").size()


def _polygonal(geometry: np.ndarray) -> np.ndarray:
    """Only the polygons of what an intersection or a repair left (they can leave lines and points as well)."""
    flat = np.isin(shapely.get_type_id(geometry), (shapely.GeometryType.POLYGON, shapely.GeometryType.MULTIPOLYGON))
    result = geometry.copy()
    for i in np.flatnonzero(~flat):
        parts = shapely.get_parts(geometry[i])
        result[i] = shapely.union_all(parts[shapely.get_type_id(parts) == shapely.GeometryType.POLYGON])
        if not isinstance(result[i], shapely.Polygon | shapely.MultiPolygon):
            result[i] = shapely.Polygon()
    return result

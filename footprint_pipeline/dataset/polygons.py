"""The polygon table: every building label once, on the ground and on its tile's grid.

GeoParquet 1.1, one row a label, along a Hilbert curve in groups of 8,192 rows, so that a reader of a window skips
the groups that lie elsewhere. Columns:

- `aoi`, `tile_id` (text), `building_id` (int64): tile ids are unique within an AOI, building ids within a tile;
- `area_m2`: geodesic area on WGS 84, square metres, and `area_sqft`, square feet (float64);
- `geometry_px`: the polygon on its tile's grid, pixels, x right, y down, clipped to the tile (no CRS);
- `geometry`: Polygon or MultiPolygon, EPSG:4326, as labelled (the primary geometry);
- `bbox`: xmin, ymin, xmax, ymax of `geometry`, degrees (the covering; only in the file).

How labels are read belongs to `spacenet.labels`, what is drawn from them to `dataset.masks`.
"""

import json
import logging
from dataclasses import dataclass
from pathlib import Path

import geopandas as gpd
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import shapely
from pyproj import Transformer

from footprint_pipeline.dataset.covered import covered_by_another
from footprint_pipeline.dataset.spec import PolygonSpec
from footprint_pipeline.errors import DatasetError
from footprint_pipeline.files import atomic_path
from footprint_pipeline.footprints.area import geodesic_area_m2
from footprint_pipeline.many import collector_paused, in_threads

log = logging.getLogger(__name__)

SQUARE_FEET_A_SQUARE_METRE = 10.763910416709722
ROW_GROUP = 8192
_KINDS = {3: "Polygon", 6: "MultiPolygon"}
_SIDES = ["xmin", "ymin", "xmax", "ymax"]

_EDGE_PX = 1e-3
"""How far a label may reach out of its tile before it is clipped."""
_OFF_PX = 2.0
_OFF_SHARE = 0.05
"""Real tables differ in some rows: where a label fell into parts, one column has the part and the other the whole."""


@dataclass(frozen=True)
class PixelShift:
    """How far the pixels of a summary table lie from its degrees, by the grids of the tiles.

    The shift of a label is the larger distance of the two corners of its bounding box, within the tile.

    Attributes:
        sampled: labels compared.
        median_px: median shift, pixels.
        p95_px: 95th percentile.
        share_off: share of the labels that are more than 2 pixels apart.
        worst_tile: the tile of the largest shift.
        worst_px: that shift.
    """

    sampled: int
    median_px: float
    p95_px: float
    share_off: float
    worst_tile: str
    worst_px: float


@dataclass(frozen=True)
class PolygonTable:
    """The table, and what became of the other labels.

    Attributes:
        table: as the module describes it.
        clipped: labels in it that were clipped at their tile's edge.
        outside: labels left out because they lie wholly outside their tile.
        too_small: labels left out because of `PolygonSpec.min_area_m2`.
        covered: labels left out because they lie within another one of their tile, or are one listed twice.
        pixel_shift: how well pixels and degrees of the labels agree; None where there was nothing to compare.
    """

    table: gpd.GeoDataFrame
    clipped: int
    outside: int
    too_small: int = 0
    covered: int = 0
    pixel_shift: PixelShift | None = None


def build_polygon_table(
    labels: gpd.GeoDataFrame,
    tiles: gpd.GeoDataFrame,
    *,
    spec: PolygonSpec = PolygonSpec(),
    pixel_sample: pd.DataFrame | None = None,
) -> PolygonTable:
    """Place labels on their tiles and measure them.

    Args:
        labels: columns `tile_id`, `building_id`, geometry (EPSG:4326, valid).
        tiles: the tile index; labels of tiles that are not in it are left out.
        spec: which labels become rows.
        pixel_sample: for `pixel_shift`, from `spacenet.labels`.

    Returns:
        The table, its rows along a Hilbert curve.
    """
    tile_of = _rows_of(labels["tile_id"], tiles)
    labels, tile_of = labels[tile_of >= 0], tile_of[tile_of >= 0]
    geometry = labels.geometry.to_numpy()
    area_m2 = in_threads(geodesic_area_m2, geometry)

    on_grid = to_pixels(geometry, tiles, tile_of)
    # A label that touches itself can be valid in degrees and, by rounding, cross itself in pixels.
    crossing = ~in_threads(shapely.is_valid, on_grid)
    on_grid[crossing] = _polygonal(shapely.make_valid(on_grid[crossing], method="structure", keep_collapsed=False))
    sizes = tiles[["width", "height"]].to_numpy(float)[tile_of]
    bounds = shapely.bounds(on_grid).reshape(-1, 4)
    reaching_out = ((bounds[:, :2] < -_EDGE_PX) | (bounds[:, 2:] > sizes + _EDGE_PX)).any(axis=1)
    frames = shapely.box(0.0, 0.0, sizes[reaching_out, 0], sizes[reaching_out, 1])
    on_grid[reaching_out] = _polygonal(shapely.intersection(on_grid[reaching_out], frames))

    outside = shapely.is_empty(on_grid)
    too_small = ~outside & ~(area_m2 > spec.min_area_m2)
    if outside.any():
        log.warning("%d labels lie wholly outside their tile and are left out", outside.sum())
    if too_small.any():
        log.info("%d labels of no more than %g m² are left out", too_small.sum(), spec.min_area_m2)

    building_id = labels["building_id"].to_numpy()
    at = np.flatnonzero(~outside & ~too_small)
    covered = covered_by_another(on_grid[at], tile_of[at], building_id[at])
    if covered.any():
        log.warning("%d labels lie within another one, or are one listed twice, and are left out", covered.sum())
    at = at[~covered]
    if len(at):
        curve = gpd.GeoSeries(geometry[at]).hilbert_distance().to_numpy()
        at = at[np.lexsort((building_id[at], tile_of[at], curve))]
    table = gpd.GeoDataFrame(
        {
            "aoi": tiles["aoi"].iloc[tile_of[at]].to_numpy(),
            "tile_id": labels["tile_id"].iloc[at].to_numpy(),
            "building_id": building_id[at],
            "area_m2": area_m2[at],
            "area_sqft": area_m2[at] * SQUARE_FEET_A_SQUARE_METRE,
            "geometry_px": gpd.GeoSeries(on_grid[at], crs=None),
        },
        geometry=gpd.GeoSeries(geometry[at], crs="EPSG:4326"),
    )
    return PolygonTable(
        table,
        clipped=int(reaching_out[at].sum()),
        outside=int(outside.sum()),
        too_small=int(too_small.sum()),
        covered=int(covered.sum()),
        pixel_shift=None if pixel_sample is None else pixel_shift(pixel_sample, tiles),
    )


def to_pixels(geometry: np.ndarray, tiles: pd.DataFrame, tile_of: np.ndarray) -> np.ndarray:
    """Geometries in EPSG:4326 → the grids of their tiles (pixels, x right, y down).

    Args:
        geometry: shapely geometries, shape (N,).
        tiles: columns `crs` and `transform` (six numbers, pixel → CRS).
        tile_of: int, shape (N,): the row of `tiles` that each geometry belongs to.
    """
    points, owner = shapely.get_coordinates(geometry, return_index=True)
    at = tile_of[owner]
    codes, names = pd.factorize(tiles["crs"])
    for code, crs in enumerate(names):
        if crs != "EPSG:4326":
            here = codes[at] == code
            to_crs = Transformer.from_crs("EPSG:4326", crs, always_xy=True)
            points[here] = np.column_stack(to_crs.transform(points[here, 0], points[here, 1]))
    grids = np.array(tiles["transform"].tolist(), float).reshape(-1, 2, 3)
    inverse = np.linalg.inv(grids[:, :, :2])
    points = np.einsum("nij,nj->ni", inverse[at], points - grids[at, :, 2])
    with collector_paused():
        return shapely.set_coordinates(geometry.copy(), points)


def pixel_shift(sample: pd.DataFrame, tiles: gpd.GeoDataFrame) -> PixelShift | None:
    """Compare labels in pixels with the same labels in degrees; a warning names the worst tiles when they disagree.

    Args:
        sample: columns `tile_id`, `geometry` (EPSG:4326) and `geometry_px`.
        tiles: the tile index; rows of tiles that are not in it are passed over.

    Returns:
        None when no row is left.
    """
    tile_of = _rows_of(sample["tile_id"], tiles)
    sample, tile_of = sample[tile_of >= 0], tile_of[tile_of >= 0]
    if sample.empty:
        return None
    sizes = np.tile(tiles[["width", "height"]].to_numpy(float)[tile_of], 2)
    placed = shapely.bounds(to_pixels(sample["geometry"].to_numpy(), tiles, tile_of)).clip(0, sizes)
    given = shapely.bounds(sample["geometry_px"].to_numpy()).clip(0, sizes)
    corners = (placed - given).reshape(-1, 2, 2)
    shift = pd.Series(np.hypot(corners[..., 0], corners[..., 1]).max(axis=1))
    by_tile = shift.groupby(sample["tile_id"].to_numpy()).max().sort_values(ascending=False, kind="stable")
    found = PixelShift(
        sampled=len(shift),
        median_px=float(shift.median()),
        p95_px=float(shift.quantile(0.95)),
        share_off=float((shift > _OFF_PX).mean()),
        worst_tile=str(by_tile.index[0]),
        worst_px=float(by_tile.iloc[0]),
    )
    if found.share_off > _OFF_SHARE:
        log.warning(
            "Pixels and degrees of %.0f %% of %d labels are more than %g pixels apart (median %.1f); the worst tiles "
            "are %s. Degrees are used: check that they belong to this imagery.",
            *(100 * found.share_off, found.sampled, _OFF_PX, found.median_px),
            ", ".join(f"{name} ({worst:.1f})" for name, worst in by_tile.head(3).items()),
        )
    return found


def write_polygon_table(table: gpd.GeoDataFrame, path: Path) -> None:
    """Write the table as GeoParquet 1.1, atomically."""
    bounds_wgs84 = shapely.bounds(table["geometry"].to_numpy()).reshape(-1, 4)
    # geopandas would say that bbox covers geometry_px as well, and a reader would filter pixels by degrees.
    geo = {
        "version": "1.1.0",
        "primary_column": "geometry",
        "columns": {
            "geometry": {
                **_described(table["geometry"].to_numpy()),
                "crs": None if table.crs is None else table.crs.to_json_dict(),
                "covering": {"bbox": {side: ["bbox", side] for side in _SIDES}},
            },
            "geometry_px": {**_described(table["geometry_px"].to_numpy()), "crs": None},
        },
    }
    columns = {
        name: shapely.to_wkb(table[name].to_numpy()) if name.startswith("geometry") else table[name] for name in table
    }
    columns["bbox"] = pa.StructArray.from_arrays(list(bounds_wgs84.T), names=_SIDES)
    wkb = {"geometry": pa.binary(), "geometry_px": pa.binary()}
    stored = pa.table({name: pa.array(column, wkb.get(name)) for name, column in columns.items()})
    with atomic_path(path) as temporary:
        pq.write_table(
            stored.replace_schema_metadata({"geo": json.dumps(geo)}),
            temporary,
            row_group_size=ROW_GROUP,
            use_dictionary=["aoi", "tile_id"],
        )


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


def _rows_of(tile_ids: pd.Series, tiles: pd.DataFrame) -> np.ndarray:
    """The row of the index that each tile id has; -1 for none."""
    return pd.Index(tiles["tile_id"]).get_indexer(tile_ids)


def _described(shapes: np.ndarray) -> dict[str, object]:
    """What GeoParquet says of a column of polygons, but for its CRS."""
    kinds = [_KINDS[kind] for kind in np.unique(shapely.get_type_id(shapes)).tolist()]
    return {
        "encoding": "WKB",
        "geometry_types": kinds,
        **({"bbox": shapely.total_bounds(shapes).tolist()} if kinds else {}),
    }


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

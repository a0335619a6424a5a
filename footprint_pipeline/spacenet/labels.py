"""Labels, a summary table, one GeoJSON a tile or one vector file of all, → one table of building polygons in WGS 84.

Knows every quirk of SpaceNet's labels, and says which row is wrong where one is. The files themselves are read in
`label_files` and `label_map`; areas, sizes and what makes a polygon a good label are the business of `dataset`.
"""

import logging
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import geopandas as gpd
import numpy as np
import pandas as pd
import rasterio
import shapely
from pyproj import Transformer

from footprint_pipeline.errors import LabelError, TileError
from footprint_pipeline.many import in_threads
from footprint_pipeline.spacenet.areas import MAPS
from footprint_pipeline.spacenet.label_files import GEOMETRY, NO_GEOJSON, NOT_DEGREES, PIX, read_csv, read_geojson
from footprint_pipeline.spacenet.label_map import read_map
from footprint_pipeline.spacenet.layout import Layout, TileFile, tile_of
from footprint_pipeline.spacenet.wkt import polygons_from_wkt

_log = logging.getLogger(__name__)

WGS84 = "EPSG:4326"
PIXEL_SAMPLE = 2000
_SEED = 1337
_NO_NUMBER = "has a coordinate that is no number"
_SKIP = "pass --skip-bad-labels to drop it and list it in labels_rejected.csv."
_SLIVER_M2 = 0.01
_OUTLINE_M2 = 1.0
_METRES_PER_DEGREE = 111_195.0
_POLYGONAL = (int(shapely.GeometryType.POLYGON), int(shapely.GeometryType.MULTIPOLYGON))
_FLAT = tuple(int(shapely.GeometryType[name]) for name in ("POINT", "LINESTRING", "MULTIPOINT", "MULTILINESTRING"))
_LINES = tuple(int(shapely.GeometryType[name]) for name in ("LINESTRING", "MULTILINESTRING"))
_NAMES = {int(kind): kind.name.capitalize() for kind in shapely.GeometryType}
_REJECTED = ["file", "row", "tile_id", "reason", "text"]
_TEXT_SHOWN, _TEXT_KEPT = 12, 200


@dataclass(frozen=True)
class Labels:
    """The buildings of the tiles of a layout.

    Attributes:
        table: GeoDataFrame in EPSG:4326 with tile_id (str), building_id (int64) and geometry (2D Polygon or
            MultiPolygon, valid, not empty), in the order of the source.
        rejected: DataFrame of file, row (1-based: line of a CSV, feature of a GeoJSON), tile_id, reason, text.
        rows: rows or features read for the tiles of the layout.
        empty: rows that say "no building here".
        repaired: polygons that were not valid and now are.
        slivers: polygons dropped because they have no area to speak of (under 0.01 m²).
        unlabelled: ids of tiles with no row and no label file, not even one that says "no building here".
        pixel_sample: at most 2,000 buildings, of as many tiles as can be, as both columns of a summary CSV draw them:
            tile_id, geometry (EPSG:4326) and geometry_px (pixels of the tile). Empty without both columns.
    """

    table: gpd.GeoDataFrame
    rejected: pd.DataFrame
    rows: int
    empty: int
    repaired: int
    slivers: int
    unlabelled: tuple[str, ...]
    pixel_sample: pd.DataFrame


def read_labels(layout: Layout, *, skip_bad: bool = False, outlines: gpd.GeoSeries | None = None) -> Labels:
    """Read the labels of the tiles of a layout, from its summary or else from its GeoJSON files.

    Args:
        layout: from `layout.discover` or `sources.fetch`; labels of tiles that `first` left out are passed over.
        skip_bad: drop what cannot be used and list it in `Labels.rejected`.
        outlines: polygons of the tiles in EPSG:4326, by tile id; a summary that is a vector file is shared out by them.

    Raises:
        LabelError: a file cannot be read or lacks columns; without `skip_bad` also: a row is no polygon, or
            belongs to a tile that the source does not have.
        TileError: labels are in pixels, and a tile that would place them cannot be read.
    """
    wanted = [tile.tile_id for tile in layout.tiles]
    if layout.summary is not None and layout.summary.suffix.lower() in MAPS:
        if outlines is None:
            raise ValueError("a vector file is shared out by the outlines of the tiles")
        rows, labelled = read_map(layout.summary, outlines)
        column = GEOMETRY
    elif layout.summary is not None:
        rows, column = read_csv(layout.summary)
        labelled = set(rows["tile_id"].unique())
    else:
        files = [(tile.tile_id, tile.geojson) for tile in layout.tiles if tile.geojson is not None]
        labelled = {name for name, _ in files}
        files += [(tile_of(path, layout.patterns), path) for path in layout.stray_geojson]
        rows, column = read_geojson(files), GEOMETRY
        labelled -= set(rows.loc[rows["reason"] == NO_GEOJSON, "tile_id"])

    stray = rows[~rows["tile_id"].isin(layout.tile_ids.union(wanted))] if layout.complete else rows.iloc[:0]
    stray = stray.assign(reason="belongs to a tile that the source does not have")
    if len(stray) and not skip_bad:
        raise _stray_error(stray)
    known = rows["tile_id"].isin(wanted)
    rows = (rows if known.all() else rows[known]).reset_index(drop=True)

    if column == GEOMETRY:
        geometry = shapely.force_2d(rows[GEOMETRY].to_numpy(object))
        _set_aside_no_numbers(rows, geometry)
        geometry = _closed_to_polygons(geometry)
    else:
        geometry = polygons_from_wkt(rows["text"])
    empty = _says_empty(rows, geometry)
    if column == PIX:
        geometry = _to_wgs84(geometry, rows["tile_id"].to_numpy(object), layout.tiles)
    _judge(rows, geometry, empty, column)
    bad = (rows["reason"] != "").to_numpy()
    if bad.any() and not skip_bad:
        raise _row_error(rows[bad], unit="feature" if column == GEOMETRY else "row")
    keep = ~(empty | bad)
    polygons, repaired, sliver = _clean(geometry[keep])

    kept, polygons = np.flatnonzero(keep)[~sliver], polygons[~sliver]
    named = rows[["tile_id", "building_id"]].iloc[kept].astype({"tile_id": str, "building_id": "int64"})
    table = gpd.GeoDataFrame(named, geometry=polygons, crs=WGS84).reset_index(drop=True)
    rejected = pd.concat([rows[bad], stray])[_REJECTED].reset_index(drop=True)
    rejected["text"] = rejected["text"].str.slice(0, _TEXT_KEPT)
    labels = Labels(
        table,
        rejected,
        rows=len(rows),
        empty=int(empty.sum()),
        repaired=int((repaired & ~sliver).sum()),
        slivers=int(sliver.sum()),
        unlabelled=tuple(name for name in wanted if name not in labelled),
        pixel_sample=_sample(rows, kept, polygons),
    )
    _log_summary(layout, labels)
    return labels


def _says_empty(rows: pd.DataFrame, geometry: np.ndarray) -> np.ndarray:
    """Which rows say that there is no building."""
    nowhere = (shapely.bounds(geometry).reshape(-1, 4) == 0).all(axis=1)  # POLYGON ((0 0, 0 0, 0 0, 0 0))
    empty = (rows["building_id"] == -1).to_numpy() | shapely.is_empty(geometry) | nowhere
    return empty & (rows["reason"] == "").to_numpy()


def _judge(rows: pd.DataFrame, geometry: np.ndarray, empty: np.ndarray, column: str) -> None:
    """Write the reason beside every row that cannot be used."""
    kinds = shapely.get_type_id(geometry)
    # What is left of a building cut at a tile's edge can be a straight line or a point: no area, dropped as a sliver.
    usable = (*_POLYGONAL, *_FLAT) if column == GEOMETRY else _POLYGONAL
    reasons = pd.Series("", index=rows.index, dtype=object)
    reasons[_outlines(geometry)] = f"{column} is an open line, or several, not a polygon"
    points, owner = shapely.get_coordinates(geometry, return_index=True)
    off_earth = ~((np.abs(points[:, 0]) <= 180) & (np.abs(points[:, 1]) <= 90))
    reasons.iloc[np.unique(owner[off_earth])] = f"{column} is {NOT_DEGREES}"
    reasons.iloc[np.unique(owner[~np.isfinite(points).all(axis=1)])] = f"{column} {_NO_NUMBER}"
    for kind in set(kinds.tolist()) - {*usable, -1}:
        reasons[kinds == kind] = f"{column} is a {_NAMES[kind]}, not a polygon"
    reasons[kinds == -1] = f"{column} is not {'GeoJSON' if column == GEOMETRY else 'WKT'}"
    new = (rows["reason"] == "").to_numpy() & ~empty
    rows.loc[new, "reason"] = reasons[new].astype(str)
    told = (rows["reason"] != "").to_numpy() & (rows["text"] == "").to_numpy() & (kinds != -1)
    rows.loc[told, "text"] = shapely.to_geojson(geometry[told])


def _set_aside_no_numbers(rows: pd.DataFrame, geometry: np.ndarray) -> None:
    """Take away what has a coordinate that is no number, with the reason beside it: GEOS fails on it."""
    points, owner = shapely.get_coordinates(geometry, return_index=True)
    broken = np.unique(owner[~np.isfinite(points).all(axis=1)])
    rows.loc[broken, "reason"] = f"{GEOMETRY} {_NO_NUMBER}"
    rows.loc[broken, "text"] = shapely.to_wkt(geometry[broken])
    geometry[broken] = None


def _closed_to_polygons(geometry: np.ndarray) -> np.ndarray:
    """Lines that close around some ground, made polygons: outlines that were drawn as lines."""
    closed = _outlines(geometry) & shapely.is_closed(geometry) & (shapely.get_type_id(geometry) == _LINES[0])
    points, owner = shapely.get_coordinates(geometry[closed], return_index=True)
    geometry[closed] = shapely.polygons(shapely.linearrings(points, indices=owner))
    return geometry


def _outlines(geometry: np.ndarray) -> np.ndarray:
    """Which are lines that bend around some ground, closed or not."""
    lines = np.isin(shapely.get_type_id(geometry), _LINES)
    lines[lines] = np.abs(_area_m2(shapely.convex_hull(geometry[lines]))) > _OUTLINE_M2
    return lines


def _to_wgs84(geometry: np.ndarray, tile_ids: np.ndarray, tiles: Iterable[TileFile]) -> np.ndarray:
    """Geometries in the pixels of their tiles (origin: upper left corner) → longitude and latitude."""
    at_tile, names = pd.factorize(tile_ids)
    images = {tile.tile_id: tile.image for tile in tiles}
    grids = [_grid(images[name]) for name in names]
    points, owner = shapely.get_coordinates(geometry, return_index=True)
    at = at_tile[owner]
    affine = np.array([list(transform)[:6] for transform, _ in grids], float).reshape(-1, 2, 3)
    points = np.einsum("nij,nj->ni", affine[at, :, :2], points) + affine[at, :, 2]
    codes, systems = pd.factorize(np.array([crs for _, crs in grids], object))
    for code, crs in enumerate(systems):
        here = codes[at] == code
        reproject = Transformer.from_crs(crs, WGS84, always_xy=True)
        points[here] = np.column_stack(reproject.transform(points[here, 0], points[here, 1]))
    return np.asarray(shapely.set_coordinates(geometry.copy(), points), object)


def _grid(image: Path) -> tuple[rasterio.Affine, str]:
    """Pixels → CRS, and that CRS."""
    try:
        with rasterio.open(image) as raster:
            transform, crs = raster.transform, raster.crs
    except rasterio.errors.RasterioIOError as error:
        raise TileError(f"{image}: cannot be read ({error}).", fix="Fetch the tile again.") from error
    if crs is None:
        raise TileError(f"{image}: has no coordinate system.", fix="Add a PolygonWKT_Geo column to the table.")
    return transform, crs.to_wkt()


def _sample(rows: pd.DataFrame, kept: np.ndarray, polygons: np.ndarray) -> pd.DataFrame:
    """Buildings whose pixels are given too: one of every tile, then a second, until there are enough.

    Args:
        rows: of the source.
        kept: which of them are buildings.
        polygons: those.
    """
    drawn = np.flatnonzero(rows["pixels"].str.contains("(", regex=False).to_numpy()[kept])
    order = np.random.default_rng(_SEED).permutation(drawn)
    tile_ids = rows["tile_id"].iloc[kept]
    turn = pd.Series(order).groupby(pd.factorize(tile_ids)[0][order]).cumcount().to_numpy()
    chosen = np.sort(order[np.argsort(turn, kind="stable")[:PIXEL_SAMPLE]])
    on_grid = polygons_from_wkt(rows["pixels"].iloc[kept[chosen]].str.strip(" \t\"'"))
    sample = pd.DataFrame(
        {"tile_id": tile_ids.to_numpy(object)[chosen], "geometry": polygons[chosen], "geometry_px": on_grid}
    )
    readable = np.isin(shapely.get_type_id(on_grid), _POLYGONAL) & ~shapely.is_empty(on_grid)
    return sample[readable].reset_index(drop=True)


def _clean(geometry: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Valid polygons, which of them were repaired, and which have no area to speak of."""
    invalid = ~in_threads(shapely.is_valid, geometry)
    polygons = geometry.copy()
    polygons[invalid] = shapely.make_valid(geometry[invalid], method="structure", keep_collapsed=False)
    return polygons, invalid, _area_m2(polygons) < _SLIVER_M2


def _area_m2(polygons: np.ndarray) -> np.ndarray:
    """Square metres, about, of polygons in degrees."""
    bounds_wgs84 = shapely.bounds(polygons).reshape(-1, 4)
    latitude = np.nan_to_num((bounds_wgs84[:, 1] + bounds_wgs84[:, 3]) / 2)
    return shapely.area(polygons) * _METRES_PER_DEGREE**2 * np.cos(np.radians(latitude))


def _row_error(bad: pd.DataFrame, *, unit: str) -> LabelError:
    first = bad.iloc[0]
    text = first["text"]
    shown = text if len(text) <= _TEXT_SHOWN else f"{text[:_TEXT_SHOWN]}…"
    more = f" So are {len(bad) - 1:,} more." if len(bad) > 1 else ""
    where = f"{first['file']}, {unit} {first['row']}"
    way = f"Fix the {unit}"
    if first["reason"].endswith(NOT_DEGREES):
        way = "Reproject the labels to EPSG:4326 (ogr2ogr -t_srs EPSG:4326 OUT IN)"
    return LabelError(f'{where}: {first["reason"]} ("{shown}").{more}', fix=f"{way}, or {_SKIP}")


def _stray_error(stray: pd.DataFrame) -> LabelError:
    names = stray["tile_id"].unique()
    files = stray["file"].unique()
    where = files[0] if len(files) == 1 else f"{len(files):,} label files"
    return LabelError(
        f"{where}: {len(stray):,} labels belong to {len(names):,} tiles that the source does not have "
        f"({_examples(names)}).",
        fix="Add the tiles, or pass --skip-bad-labels to drop them and list them in labels_rejected.csv.",
    )


def _examples(names: Iterable[str]) -> str:
    names = list(names)
    return ", ".join(names[:3]) + (", …" if len(names) > 3 else "")


def _log_summary(layout: Layout, labels: Labels) -> None:
    if labels.unlabelled:
        _log.warning("%d tiles have no label: %s", len(labels.unlabelled), _examples(labels.unlabelled))
    _log.info(
        "%s: %d buildings in %d tiles; %d empty rows, %d repaired, %d slivers dropped, %d rejected",
        *(layout.aoi, len(labels.table), len(layout.tiles), labels.empty, labels.repaired, labels.slivers),
        len(labels.rejected),
    )

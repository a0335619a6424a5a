"""SpaceNet's labels, a summary CSV or one GeoJSON a tile, → one table of building polygons in WGS 84.

Knows every quirk of those files, and says which row is wrong where one is. Areas, sizes and what makes a
polygon a good label are the business of `dataset`.
"""

import io
import json
import logging
import re
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
from footprint_pipeline.spacenet.layout import Layout, TileFile, tile_id

_log = logging.getLogger(__name__)

WGS84 = "EPSG:4326"
_GEO, _PIX, _GEOMETRY = "PolygonWKT_Geo", "PolygonWKT_Pix", "geometry"
_SKIP = "pass --skip-bad-labels to drop it and list it in labels_rejected.csv."
_SLIVER_M2 = 0.01
_METRES_PER_DEGREE = 111_195.0
_POLYGONAL = (int(shapely.GeometryType.POLYGON), int(shapely.GeometryType.MULTIPOLYGON))
_FLAT = tuple(int(shapely.GeometryType[name]) for name in ("POINT", "LINESTRING", "MULTIPOINT", "MULTILINESTRING"))
_NAMES = {int(kind): kind.name.capitalize() for kind in shapely.GeometryType}
_ROWS = ["file", "row", "tile_id", "building_id", "text", "reason"]
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
    """

    table: gpd.GeoDataFrame
    rejected: pd.DataFrame
    rows: int
    empty: int
    repaired: int
    slivers: int
    unlabelled: tuple[str, ...]


def read_labels(layout: Layout, *, skip_bad: bool = False) -> Labels:
    """Read the labels of the tiles of a layout, from its summary CSV or else from its GeoJSON files.

    Args:
        layout: from `layout.discover` or `sources.fetch`; labels of tiles that `first` left out are passed over.
        skip_bad: drop what cannot be used and list it in `Labels.rejected`.

    Raises:
        LabelError: a file cannot be read or lacks columns; without `skip_bad` also: a row is no polygon, or
            belongs to a tile that the source does not have.
        TileError: labels are in pixels, and a tile that would place them cannot be read.
    """
    wanted = [tile.tile_id for tile in layout.tiles]
    if layout.summary_csv is not None:
        rows, column = _read_csv(layout.summary_csv)
        labelled: set[str] = set(rows["tile_id"])
    else:
        rows, column = _read_geojson(layout), _GEOMETRY
        labelled = {tile.tile_id for tile in layout.tiles if tile.geojson is not None}

    stray = rows[~rows["tile_id"].isin(layout.tile_ids.union(wanted))] if layout.complete else rows.iloc[:0]
    stray = stray.assign(reason="belongs to a tile that the source does not have")
    rows = rows[rows["tile_id"].isin(wanted)].reset_index(drop=True)
    if len(stray) and not skip_bad:
        raise _stray_error(stray)

    geometry, empty = _parse(rows, column)
    if column == _PIX:
        geometry = _to_wgs84(geometry, rows["tile_id"].to_numpy(object), layout.tiles)
    _judge(rows, geometry, empty, column)
    bad = (rows["reason"] != "").to_numpy()
    if bad.any() and not skip_bad:
        raise _row_error(rows[bad], unit="feature" if column == _GEOMETRY else "row")
    keep = ~(empty | bad)
    polygons, repaired, sliver = _clean(geometry[keep])

    kept = rows[keep][~sliver]
    table = gpd.GeoDataFrame(
        {"tile_id": kept["tile_id"].astype(str), "building_id": kept["building_id"].astype("int64")},
        geometry=polygons[~sliver],
        crs=WGS84,
    ).reset_index(drop=True)
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
    )
    _log_summary(layout, labels)
    return labels


def _read_csv(path: Path) -> tuple[pd.DataFrame, str]:
    """Every row of a summary table, and the name of the column that `text` comes from."""
    fix = "The table needs the columns ImageId, BuildingId and PolygonWKT_Geo (or PolygonWKT_Pix)."
    try:
        content = path.read_bytes()
        # Some writers quote the WKT twice, which splits it at its commas.
        if b'""' in content:
            content = re.sub(rb'"{2,}(?=\s*(?:MULTI)?POLYGON)|(?<=[)Y])"{2,}', b'"', content)
        table = pd.read_csv(
            io.BytesIO(content),
            dtype=str,
            keep_default_na=False,
            skip_blank_lines=False,
            encoding="utf-8-sig",
            usecols=lambda name: name.strip() in {"ImageId", "BuildingId", _GEO, _PIX},
        ).fillna("")
        if not isinstance(table.index, pd.RangeIndex):  # pandas took the first columns for an index
            raise ValueError("its rows have more fields than its header")
    except (OSError, ValueError, pd.errors.ParserError) as error:  # ValueError: no columns, or not UTF-8
        reason = str(error).strip().replace("\n", " ")
        raise LabelError(f"{path.name}: cannot be read as CSV ({reason}).", fix=fix) from error
    table.columns = table.columns.str.strip()
    usable = [name for name in (_GEO, _PIX) if name in table and (table[name] != "").any()]
    column = usable[0] if usable else _GEO
    missing = [name for name in ("ImageId", "BuildingId", column) if name not in table]
    if missing:
        raise LabelError(f"{path.name}: has no column {', '.join(missing)}.", fix=fix)

    table = table[(table[["ImageId", "BuildingId", column]] != "").any(axis=1)]
    ids = {image: tile_id(image.strip()) for image in table["ImageId"].unique()}
    building_id = pd.to_numeric(table["BuildingId"], errors="coerce").astype("float64")
    rows = pd.DataFrame(
        {
            "file": path.name,
            "row": table.index + 2,
            "tile_id": table["ImageId"].map(ids),
            "building_id": building_id,
            "text": table[column].str.strip(" \t\"'"),
            "reason": "",
        }
    )
    no_number = (building_id % 1 != 0).to_numpy()
    rows.loc[no_number, "reason"] = "BuildingId is not a whole number"
    rows.loc[no_number, "text"] = table["BuildingId"][no_number]
    return rows, column


def _read_geojson(layout: Layout) -> pd.DataFrame:
    """Every feature of every label file; `text` is its geometry."""
    records: list[tuple[str, int, str, int, str, str]] = []
    files = [(tile.tile_id, tile.geojson) for tile in layout.tiles if tile.geojson is not None]
    files += [(tile_id(path.stem), path) for path in layout.stray_geojson]
    for name, path in files:
        try:
            content = path.read_bytes()
            features = json.loads(content)["features"] if content.strip() else []
            for number, feature in enumerate(features, 1):
                shape = feature["geometry"]
                given = (feature.get("properties") or {}).get("BuildingId")
                building_id = given if isinstance(given, int) else number
                empty = shape is None
                records.append((path.name, number, name, -1 if empty else building_id, json.dumps(shape), ""))
        except OSError as error:
            raise LabelError(f"{path}: cannot be read ({error.strerror}).", fix="Check the file.") from error
        except (ValueError, KeyError, TypeError, AttributeError):
            text = content[:_TEXT_KEPT].decode("utf-8", errors="replace")
            records.append((path.name, 1, name, 0, text, "the file is not GeoJSON with a list of features"))
    return pd.DataFrame.from_records(records, columns=_ROWS).astype({"row": "int64", "building_id": "float64"})


def _parse(rows: pd.DataFrame, column: str) -> tuple[np.ndarray, np.ndarray]:
    """Geometries (None where the text is none), and which rows say that there is no building."""
    read = shapely.from_geojson if column == _GEOMETRY else shapely.from_wkt
    texts = rows["text"].to_numpy(object)
    with np.errstate(invalid="ignore"):  # a coordinate that is NaN is told later, with its row
        geometry = shapely.force_2d(read(texts, on_invalid="ignore")) if len(texts) else np.empty(0, object)
    nowhere = (shapely.bounds(geometry).reshape(-1, 4) == 0).all(axis=1)  # POLYGON ((0 0, 0 0, 0 0, 0 0))
    empty = (rows["building_id"] == -1).to_numpy() | shapely.is_empty(geometry) | nowhere
    return geometry, empty & (rows["reason"] == "").to_numpy()


def _judge(rows: pd.DataFrame, geometry: np.ndarray, empty: np.ndarray, column: str) -> None:
    """Write the reason beside every row that cannot be used."""
    kinds = shapely.get_type_id(geometry)
    # What is left of a building cut at a tile's edge can be a line or a point: no area, dropped as a sliver.
    usable = (*_POLYGONAL, *_FLAT) if column == _GEOMETRY else _POLYGONAL
    reasons = pd.Series("", index=rows.index, dtype=object)
    points, owner = shapely.get_coordinates(geometry, return_index=True)
    off_earth = ~((np.abs(points[:, 0]) <= 180) & (np.abs(points[:, 1]) <= 90))
    reasons.iloc[np.unique(owner[off_earth])] = f"{column} is not in degrees of longitude and latitude"
    for kind in set(kinds.tolist()) - {*usable, -1}:
        reasons[kinds == kind] = f"{column} is a {_NAMES[kind]}, not a polygon"
    reasons[kinds == -1] = f"{column} is not {'GeoJSON' if column == _GEOMETRY else 'WKT'}"
    new = (rows["reason"] == "").to_numpy() & ~empty
    rows.loc[new, "reason"] = reasons[new].astype(str)


def _to_wgs84(geometry: np.ndarray, tile_ids: np.ndarray, tiles: Iterable[TileFile]) -> np.ndarray:
    """Geometries in the pixels of their tiles (origin: upper left corner) → longitude and latitude."""
    moved = geometry.copy()
    groups = pd.Series(range(len(tile_ids))).groupby(tile_ids).indices
    for tile in tiles:
        at = groups.get(tile.tile_id)
        if at is None:
            continue
        try:
            with rasterio.open(tile.image) as raster:
                transform, crs = raster.transform, raster.crs
        except rasterio.errors.RasterioIOError as error:
            raise TileError(f"{tile.image}: cannot be read ({error}).", fix="Fetch the tile again.") from error
        if crs is None:
            raise TileError(f"{tile.image}: has no coordinate system.", fix="Add a PolygonWKT_Geo column to the table.")
        reproject = Transformer.from_crs(crs, WGS84, always_xy=True)
        moved[at] = shapely.transform(
            geometry[at], lambda x, y, t=transform, r=reproject: r.transform(*(t @ (x, y))), interleaved=False
        )
    return moved


def _clean(geometry: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Valid polygons, which of them were repaired, and which have no area to speak of."""
    invalid = ~shapely.is_valid(geometry)
    polygons = geometry.copy()
    polygons[invalid] = shapely.make_valid(geometry[invalid], method="structure", keep_collapsed=False)
    bounds_wgs84 = shapely.bounds(polygons).reshape(-1, 4)
    latitude = np.nan_to_num((bounds_wgs84[:, 1] + bounds_wgs84[:, 3]) / 2)
    area_m2 = shapely.area(polygons) * _METRES_PER_DEGREE**2 * np.cos(np.radians(latitude))
    return polygons, invalid, area_m2 < _SLIVER_M2


def _row_error(bad: pd.DataFrame, *, unit: str) -> LabelError:
    first = bad.iloc[0]
    text = first["text"]
    shown = text if len(text) <= _TEXT_SHOWN else f"{text[:_TEXT_SHOWN]}…"
    more = f" So are {len(bad) - 1:,} more." if len(bad) > 1 else ""
    where = f"{first['file']}, {unit} {first['row']}"
    return LabelError(f'{where}: {first["reason"]} ("{shown}").{more}', fix=f"Fix the {unit}, or {_SKIP}")


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

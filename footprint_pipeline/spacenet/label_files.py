"""Label files, a summary CSV or one GeoJSON a tile, → a row for every label, as the file has it.

What a row may say, and which rows become buildings, is the business of `labels`.
"""

import csv
import io
import json
import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.csv
import shapely

from footprint_pipeline.errors import LabelError
from footprint_pipeline.spacenet.layout import tile_id

GEO, PIX, GEOMETRY = "PolygonWKT_Geo", "PolygonWKT_Pix", "geometry"
_IDS = ("ImageId", "BuildingId")
_COLUMNS_FIX = "The table needs the columns ImageId, BuildingId and PolygonWKT_Geo (or PolygonWKT_Pix)."
_QUOTED_TWICE = re.compile(rb'"{2,}(?=\s*(?:MULTI)?POLYGON)|(?<=[)Y])"{2,}')
_FILE_SUFFIX = re.compile(r"\.tiff?$", re.IGNORECASE)
_COORDINATES = re.compile(rb'"coordinates"\s*:\s*\[[^"{}]*\]')
_TEXT_KEPT = 200
NOT_DEGREES = "not in degrees of longitude and latitude on WGS 84"
NO_GEOJSON = "the file is not GeoJSON with a list of features"
_NOWHERE = "is no feature with a geometry"


def read_csv(path: Path) -> tuple[pd.DataFrame, str]:
    """Every row of a summary table.

    Returns:
        DataFrame of file, row (as an editor counts: the header is 1), tile_id, building_id (float64), text (WKT),
        pixels (WKT of the other column, or empty) and reason (why the row cannot be used, or empty); and the name
        of the column that text comes from.

    Raises:
        LabelError: it cannot be read, or lacks columns.
    """
    try:
        with path.open("rb") as file:
            header = next(csv.reader(io.StringIO(file.readline().decode("utf-8-sig"), newline=None)), [])
        name_of = {name.strip(): name for name in header if name.strip() in (*_IDS, GEO, PIX)}
        read, broken = _parse(pa.OSFile(str(path)), list(name_of.values()), threads=True)
        if broken:
            # Some writers quote the WKT twice, which splits it at its commas.
            content = _QUOTED_TWICE.sub(b'"', path.read_bytes())
            read, broken = _parse(pa.BufferReader(content), list(name_of.values()), threads=False)
    except (OSError, ValueError, csv.Error) as error:  # ValueError: empty, or not UTF-8
        reason = str(error).strip().replace("\n", " ")
        raise LabelError(f"{path.name}: cannot be read as CSV ({reason}).", fix=_COLUMNS_FIX) from error
    missing = [name for name in _IDS if name not in name_of]
    if not {GEO, PIX} & set(name_of):
        missing.append(GEO)
    if missing:
        raise LabelError(f"{path.name}: has no column {', '.join(missing)}.", fix=_COLUMNS_FIX)

    table = read.rename_columns([name.strip() for name in read.column_names]).to_pandas()
    column = GEO if GEO in table and (PIX not in table or (table[GEO] != "").any()) else PIX
    number = np.arange(2, len(table) + len(broken) + 2)
    if broken:
        number = np.setdiff1d(number, [row.number for row in broken])
    of_id, given_ids = pd.factorize(table["BuildingId"])
    building_id = pd.to_numeric(pd.Series(given_ids), errors="coerce").to_numpy("float64")[of_id]
    ids = {image: tile_id(_FILE_SUFFIX.sub("", image.strip())) for image in table["ImageId"].unique()}
    rows = pd.DataFrame(
        {
            "file": path.name,
            "row": number,
            "tile_id": table["ImageId"].map(ids),
            "building_id": building_id,
            "text": table[column].str.strip(" \t\"'"),
            "pixels": table[PIX] if column == GEO and PIX in table else "",
            "reason": "",
        }
    )
    no_number = building_id % 1 != 0
    rows.loc[no_number, "reason"] = "BuildingId is not a whole number"
    rows.loc[no_number, "text"] = table["BuildingId"][no_number]
    blank = (table[[*_IDS, column]] == "").all(axis=1)
    if blank.any():
        rows = rows[~blank]
    if broken:
        rows = pd.concat([rows, _broken_rows(path, broken)], ignore_index=True).sort_values("row", ignore_index=True)
    return rows, column


def read_geojson(files: Sequence[tuple[str, Path]]) -> pd.DataFrame:
    """Every feature of label files.

    Args:
        files: (tile id, path) pairs.

    Returns:
        DataFrame of file, row (feature, from 1), tile_id, building_id (float64), text (GeoJSON; empty where geometry
        is enough), geometry (shapely; None where the text is none) and reason, as `read_csv`.

    Raises:
        LabelError: a file cannot be read.
    """
    with ThreadPoolExecutor(16) as pool:
        contents = list(pool.map(_content, [path for _, path in files]))
    # GEOS reads the coordinates of a whole file much faster than Python does.
    collections = shapely.from_geojson(np.array(contents, object), on_invalid="ignore")
    records = [
        (path.name, number, name, *feature)
        for (name, path), content, collection in zip(files, contents, collections, strict=True)
        for number, feature in enumerate(_features(content, collection), 1)
    ]
    names = ["file", "row", "tile_id", "building_id", "text", GEOMETRY, "reason"]
    rows = pd.DataFrame.from_records(records, columns=names).assign(pixels="")
    return rows.astype({"row": "int64", "building_id": "float64"})


def _parse(
    source: pa.NativeFile, columns: list[str], *, threads: bool
) -> tuple[pa.Table, list[pyarrow.csv.InvalidRow]]:
    """Columns of a CSV as text, and the rows of another length than its header; those are numbered without threads."""
    broken: list[pyarrow.csv.InvalidRow] = []

    def set_aside(row: pyarrow.csv.InvalidRow) -> str:
        broken.append(row)
        return "skip"

    table = pyarrow.csv.read_csv(
        source,
        read_options=pyarrow.csv.ReadOptions(use_threads=threads),
        parse_options=pyarrow.csv.ParseOptions(ignore_empty_lines=False, invalid_row_handler=set_aside),
        convert_options=pyarrow.csv.ConvertOptions(
            include_columns=columns, column_types=dict.fromkeys(columns, pa.string())
        ),
    )
    return table, broken


def _broken_rows(path: Path, broken: list[pyarrow.csv.InvalidRow]) -> pd.DataFrame:
    """Rows of another number of fields than the header has."""
    return pd.DataFrame(
        {
            "file": path.name,
            "row": [row.number for row in broken],
            "tile_id": [tile_id(row.text.partition(",")[0].strip(' "')) for row in broken],
            "building_id": 0.0,
            "text": [row.text for row in broken],
            "pixels": "",
            "reason": [f"has {row.actual_columns} fields, not {row.expected_columns}" for row in broken],
        }
    )


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise LabelError(f"{path}: cannot be read ({error.strerror}).", fix="Check the file.") from error


def _features(
    content: bytes, collection: shapely.Geometry | None
) -> list[tuple[int, str, shapely.Geometry | None, str]]:
    """Building id (-1 where there is no geometry), text, geometry and reason of every feature of a file.

    Args:
        content: of the file.
        collection: what GEOS makes of it; None, or with parts missing, where it does not understand all of it.
    """
    if not content.strip():
        return []
    try:
        told = json.loads(_COORDINATES.sub(b'"coordinates":[]', content))
        if (system := _other_system(told)) is not None:
            return [(0, "", None, f"the file is in {system}, {NOT_DEGREES}")]
        features = list(told["features"])
        parts = shapely.get_parts(collection) if collection is not None else []
        texts = [""] * len(features)
        if len(parts) != len(features):
            features = [feature if isinstance(feature, dict) else {} for feature in json.loads(content)["features"]]
            texts = [json.dumps(feature.get("geometry")) for feature in features]
            parts = shapely.from_geojson(np.array(texts, object), on_invalid="ignore")
    except (ValueError, KeyError, TypeError):
        text = content[:_TEXT_KEPT].decode("utf-8", errors="replace")
        return [(0, text, None, NO_GEOJSON)]
    return [
        (-1 if feature.get("geometry", "") is None else number, text, part, "" if "geometry" in feature else _NOWHERE)
        for number, feature, text, part in zip(_numbers(features), features, texts, parts, strict=True)
    ]


def _other_system(collection: object) -> str | None:
    """The CRS that a file names, as GeoJSON did before RFC 7946, where it is another than WGS 84 in degrees."""
    crs = collection.get("crs") if isinstance(collection, dict) else None
    name = str(_properties(crs).get("name", "")) if isinstance(crs, dict) else ""
    return None if not name or name.endswith((":CRS84", ":4326")) else name


def _numbers(features: list[dict]) -> list[int]:
    """The ids of features that are buildings, as they are given; in order where they are not, or not told apart."""
    buildings = [feature for feature in features if feature.get("geometry") is not None]
    given = [_properties(feature).get("BuildingId") for feature in buildings]
    if all(type(number) is int and number >= 0 for number in given) and len(set(given)) == len(given):
        return [_properties(feature).get("BuildingId", 0) for feature in features]
    return list(range(1, len(features) + 1))


def _properties(feature: dict) -> dict:
    properties = feature.get("properties")
    return properties if isinstance(properties, dict) else {}

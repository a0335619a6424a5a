"""Footprints as files for databases and GIS: GeoParquet 1.1, FlatGeobuf, GeoPackage; with what GeoJSON says of them.

They are made of the GeoJSON collection, so that every form holds the same outlines, ids and properties. What belongs to
the collection, as the attribution, is metadata of the file. Footprints in pixels have no CRS there. pyarrow and pyogrio
are imported when they are first needed.
"""

import io
import json
import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import shapely
from shapely.geometry import shape

if TYPE_CHECKING:
    import pyarrow as pa

GEOPARQUET, FLATGEOBUF = "application/vnd.apache.parquet", "application/vnd.flatgeobuf"
GEOPACKAGE = "application/geopackage+sqlite3"
SUFFIXES = {GEOPARQUET: ".parquet", FLATGEOBUF: ".fgb", GEOPACKAGE: ".gpkg"}
"""The media types, and how their files' names end."""
BY_SUFFIX = {suffix: form for form, suffix in SUFFIXES.items()}
LAYER = "footprints"

_DRIVERS = {FLATGEOBUF: "FlatGeobuf", GEOPACKAGE: "GPKG"}
_TEXTS = ("id", "model", "model_version", "imagery", "imagery_date", "outline")
_NUMBERS = ("confidence", "area_m2", "tolerance", "gsd_m", "imagery_gsd_m", "out_of_domain")
_SIDES = ("xmin", "ymin", "xmax", "ymax")


def as_file(collection: Mapping[str, Any], form: str) -> bytes:
    """A GeoJSON FeatureCollection of footprints in another form.

    Args:
        collection: of `feature_collection` or `pixel_collection`.
        form: a media type, one of `SUFFIXES`.
    """
    polygons = np.array([shape(feature["geometry"]) for feature in collection["features"]], object)
    placed = "coordinate_system" not in collection
    table = _table(collection["features"], polygons)
    told = {name: str(value) for name, value in collection.items() if name not in ("type", "features")}
    if form == GEOPARQUET:
        return _geoparquet(table, polygons, told, placed=placed)
    return _by_gdal(table, told, driver=_DRIVERS[form], placed=placed)


def _table(features: list[dict[str, Any]], polygons: np.ndarray) -> "pa.Table":
    """A row a footprint: id, properties, and the outline as WKB; null for what is not known."""
    import pyarrow as pa

    rows = [{"id": feature["id"], **feature["properties"]} for feature in features]
    names = dict.fromkeys([*_TEXTS, *_NUMBERS, *(name for row in rows for name in row)])
    columns = {}
    for name in names:
        values = [row.get(name) for row in rows]
        is_text = name in _TEXTS or any(isinstance(value, str) for value in values)
        columns[name] = pa.array(values, pa.string() if is_text else pa.float64())
    return pa.table({**columns, "geometry": pa.array(shapely.to_wkb(polygons).tolist(), pa.binary())})


def _geoparquet(table: "pa.Table", polygons: np.ndarray, told: dict[str, str], *, placed: bool) -> bytes:
    import pyarrow as pa
    from pyarrow import parquet

    bounds = shapely.bounds(polygons).reshape(-1, 4)
    boxes = pa.StructArray.from_arrays([pa.array(side, pa.float64()) for side in bounds.T], names=list(_SIDES))
    column = {
        "encoding": "WKB",
        "geometry_types": ["Polygon"],
        **({"orientation": "counterclockwise"} if placed else {"crs": None}),  # longitude and latitude when not told
        **({"bbox": [*bounds[:, :2].min(axis=0), *bounds[:, 2:].max(axis=0)]} if len(bounds) else {}),
        "covering": {"bbox": {side: ["bbox", side] for side in _SIDES}},
    }
    geo = {"version": "1.1.0", "primary_column": "geometry", "columns": {"geometry": column}}
    table = table.append_column("bbox", boxes).replace_schema_metadata({**told, "geo": json.dumps(geo)})
    sink = io.BytesIO()
    parquet.write_table(table, sink, compression="zstd")
    return sink.getvalue()


def _by_gdal(table: "pa.Table", told: dict[str, str], *, driver: str, placed: bool) -> bytes:
    from pyogrio.raw import write_arrow

    sink = io.BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "'crs' was not provided")  # pixels have none
        write_arrow(
            table,
            sink,
            layer=LAYER,
            driver=driver,
            geometry_name="geometry",
            geometry_type="Polygon",
            crs="EPSG:4326" if placed else None,
            layer_metadata=told,
        )
    return sink.getvalue()

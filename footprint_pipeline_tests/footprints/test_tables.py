"""Footprints as GeoParquet, FlatGeobuf and GeoPackage, read back with other programs' readers."""

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import geopandas
import numpy as np
import pandas as pd
import pyogrio
import pytest
import shapely
from pyarrow import parquet
from shapely.geometry import mapping, shape

from footprint_pipeline.commands import places
from footprint_pipeline.footprints.mercator import tile_at, to_wgs84
from footprint_pipeline.footprints.tables import BY_SUFFIX, GEOPARQUET, SUFFIXES, as_file
from footprint_pipeline.settings import Settings
from footprint_pipeline_tests.footprints.red_city import roof, write_city

COURT = shapely.Polygon(
    shapely.box(10.1234567, 50.0, 10.2, 50.1, ccw=True).exterior,
    [shapely.box(10.15, 50.02, 10.16, 50.03, ccw=False).exterior],
)
SHED = shapely.box(-0.5, -0.25, -0.4, -0.2, ccw=True)


def collection(*polygons: shapely.Polygon, **told: object) -> dict[str, Any]:
    """Footprints as the GeoJSON writer makes them; of the first one it is known when its imagery was taken."""
    features = [
        {
            "type": "Feature",
            "id": f"{number:016x}",
            "geometry": mapping(polygon),
            "properties": {
                "confidence": 0.9 - number / 10,
                "area_m2": 123.46,
                "model": "red-roofs",
                "model_version": "7",
                "tolerance": 0.7,
                "gsd_m": 0.5,
                "imagery": "città",
                **({} if number else {"imagery_date": "2024-05-01"}),
            },
        }
        for number, polygon in enumerate(polygons)
    ]
    return {"type": "FeatureCollection", **told, "features": features}


def read_back(encoded: bytes, form: str, folder: Path) -> geopandas.GeoDataFrame:
    """A file as other programs read it."""
    path = folder / f"footprints{SUFFIXES[form]}"
    path.write_bytes(encoded)
    return geopandas.read_parquet(path) if form == GEOPARQUET else geopandas.read_file(path)


def assert_same(frame: geopandas.GeoDataFrame, answer: dict[str, Any]) -> None:
    """The rows are the features: outlines to the last digit, ids, properties and what is not known."""
    assert len(frame) == len(answer["features"])
    rows = frame.set_index("id")
    for feature in answer["features"]:
        row = rows.loc[feature["id"]]
        assert row.geometry.equals_exact(shape(feature["geometry"]), 0)
        told = {name: value for name, value in row.drop("geometry").items() if not pd.isna(value)}
        assert told == feature["properties"]


@pytest.mark.parametrize("form", SUFFIXES)
def test_rows_are_the_features(form: str, tmp_path: Path) -> None:
    answer = collection(COURT, SHED, attribution="© the sky")
    frame = read_back(as_file(answer, form), form, tmp_path)
    assert_same(frame, answer)
    assert frame.crs.equals("OGC:CRS84" if form == GEOPARQUET else "EPSG:4326")


@pytest.mark.parametrize("form", SUFFIXES)
def test_none_at_all_is_a_file_with_the_same_columns(form: str, tmp_path: Path) -> None:
    some = read_back(as_file(collection(COURT), form), form, tmp_path)
    none = read_back(as_file(collection(), form), form, tmp_path)
    assert len(none) == 0
    assert set(none.columns) == set(some.columns)


@pytest.mark.parametrize("form", SUFFIXES)
def test_pixels_have_no_crs(form: str, tmp_path: Path) -> None:
    answer = collection(SHED, coordinate_system="pixels")
    frame = read_back(as_file(answer, form), form, tmp_path)
    assert frame.crs is None
    assert_same(frame, answer)


@pytest.mark.parametrize("form", SUFFIXES)
def test_what_belongs_to_the_collection_is_metadata_of_the_file(form: str, tmp_path: Path) -> None:
    encoded = as_file(collection(COURT, attribution="© the sky", numberMatched=7), form)
    read_back(encoded, form, tmp_path)
    path = tmp_path / f"footprints{SUFFIXES[form]}"
    if form == GEOPARQUET:
        told = {name.decode(): value.decode() for name, value in parquet.read_schema(path).metadata.items()}
    else:
        told = pyogrio.read_info(path)["layer_metadata"]
        assert pyogrio.list_layers(path)[:, 0].tolist() == ["footprints"]
    assert (told["attribution"], told["numberMatched"]) == ("© the sky", "7")


def test_geoparquet_says_what_version_1_1_wants_and_can_be_read_by_bbox(tmp_path: Path) -> None:
    read_back(as_file(collection(COURT, SHED), GEOPARQUET), GEOPARQUET, tmp_path)
    path = tmp_path / "footprints.parquet"
    geo = json.loads(parquet.read_schema(path).metadata[b"geo"])
    assert (geo["version"], geo["primary_column"]) == ("1.1.0", "geometry")
    column = geo["columns"]["geometry"]
    assert (column["encoding"], column["geometry_types"]) == ("WKB", ["Polygon"])
    assert column["bbox"] == [SHED.bounds[0], SHED.bounds[1], *COURT.bounds[2:]]
    found = geopandas.read_parquet(path, bbox=(10, 49, 11, 51))
    assert found.geometry.iloc[0].equals(COURT)
    assert len(found) == 1


_INDEXED = """
import json, pathlib, sys
import geopandas, pyogrio
from footprint_pipeline.footprints.tables import as_file
told, form, path = json.loads(sys.argv[1]), sys.argv[2], pathlib.Path(sys.argv[3])
path.write_bytes(as_file(told, form))
assert pyogrio.read_info(path)["capabilities"]["fast_spatial_filter"]
assert len(geopandas.read_file(path, bbox=(10, 49, 11, 51))) == 1
"""


@pytest.mark.parametrize("form", sorted(set(SUFFIXES) - {GEOPARQUET}))
def test_flatgeobuf_and_geopackage_have_an_index_of_places(form: str, tmp_path: Path) -> None:
    """In a process of its own: beside TensorFlow, which has an SQLite without such indexes, GDAL takes that."""
    told = json.dumps(collection(COURT, SHED))
    command = [sys.executable, "-c", _INDEXED, told, form, str(tmp_path / f"footprints{SUFFIXES[form]}")]
    subprocess.run(command, check=True)


@pytest.mark.parametrize("suffix", [".geojson", *BY_SUFFIX, ".GPKG"])
def test_the_command_writes_the_form_that_the_file_is_named_for(
    suffix: str, model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class OneVersion:
        @classmethod
        def of(cls, settings: Settings) -> "OneVersion":
            return cls()

        def resolve(self, *, alias: str) -> SimpleNamespace:
            return SimpleNamespace(version="3")

        def pull(self, *, version: str, into: Path) -> Path:
            return model_folder

    monkeypatch.setattr(places, "Registry", OneVersion)
    area = to_wgs84(tile_at(-43.2, -22.9, 19).bounds_3857)
    city = write_city(tmp_path / "city.tif", area, [roof(*area.centre, 20, 12)])
    options = {"coordinate": "-22.9,-43.2", "zoom": 19, "tolerance": None, "outline": "raw", "alias": None}
    files = [tmp_path / "plain.json", tmp_path / f"out{suffix}"]
    for out in files:
        said = places.predict(Settings(home=tmp_path), imagery=str(city), out=out, picture=None, **options)
        assert said["footprints"] == 1
    answer = json.loads(files[0].read_text())
    frame = (geopandas.read_parquet if suffix == ".parquet" else geopandas.read_file)(files[1])
    if suffix == ".geojson":
        assert json.loads(files[1].read_text()) == answer
    else:
        assert_same(frame, answer)
    assert np.isclose(frame.area_m2.iloc[0], 240, rtol=0.05)

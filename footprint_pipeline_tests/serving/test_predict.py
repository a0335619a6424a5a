import json
import re
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import pytest
import shapely
from flask import Flask
from flask.testing import FlaskClient
from shapely.geometry import shape

from footprint_pipeline.footprints.geotiff import GeoTiffImagery
from footprint_pipeline.footprints.mercator import tile_at
from footprint_pipeline.settings import Settings
from footprint_pipeline_tests.footprints.red_city import DEGREE_M
from footprint_pipeline_tests.serving.conftest import AREA, LATITUDE, LONGITUDE, ROOF, ZOOM
from serving.app import create_app
from serving.model_store import ModelStore

QUESTION = {"coordinate": {"latitude": LATITUDE, "longitude": LONGITUDE}, "zoom": ZOOM}
FEATURES = "/predict/polygon?geometry=features"


def test_polygons_come_as_one_bare_multipolygon_as_the_originals_did(client: FlaskClient) -> None:
    posted = client.post("/predict/polygon", json=QUESTION)
    got = client.get(f"/predict/polygon?latitude={LATITUDE}&longitude={LONGITUDE}&zoom={ZOOM}")
    for answer in (posted, got, client.post("/predict/polygon?geometry=multipolygon", json=QUESTION)):
        assert answer.status_code == 200
        assert answer.mimetype == "application/geo+json"
        assert set(answer.json) == {"type", "attribution", "coordinates"}
        assert answer.json["type"] == "MultiPolygon"
        assert shape(answer.json).hausdorff_distance(shapely.box(*ROOF)) * DEGREE_M < 0.75
        assert answer.headers["X-Model-Version"] == "3"
        assert answer.json["attribution"] == answer.headers["X-Imagery-Attribution"] == "© the painter"


def test_features_that_say_what_they_are_are_there_for_the_asking(client: FlaskClient) -> None:
    answer = client.post(FEATURES, json=QUESTION)
    assert answer.status_code == 200
    assert answer.mimetype == "application/geo+json"
    (feature,) = answer.json["features"]
    assert shape(feature["geometry"]).hausdorff_distance(shapely.box(*ROOF)) * DEGREE_M < 0.75
    properties = feature["properties"]
    assert properties["area_m2"] == pytest.approx(24 * 15, rel=0.03)
    assert properties["model_version"] == answer.headers["X-Model-Version"] == "3"
    assert properties["model"] == "red-roofs"
    assert properties["imagery"] == "city.tif"
    assert 0.9 < properties["confidence"] <= 1
    assert len(feature["id"]) == 16
    assert answer.json["attribution"] == "© the painter"
    bare = client.post("/predict/polygon", json=QUESTION)
    assert bare.json["coordinates"] == [feature["geometry"]["coordinates"]]


def test_regularised_outlines_have_square_corners(client: FlaskClient) -> None:
    raw, regularised = (
        shape(client.post("/predict/polygon", json={**QUESTION, "outline": outline}).json)
        for outline in ("raw", "regularised")
    )
    assert shapely.get_num_coordinates(raw) > shapely.get_num_coordinates(regularised) == 5
    assert regularised.hausdorff_distance(shapely.box(*ROOF)) * DEGREE_M < 0.75


def test_stages_are_timed_in_the_header(store: ModelStore, city: GeoTiffImagery) -> None:
    client = create_app(Settings(prediction_cache_mb=0), store=store, imagery=city).test_client()
    timing = client.post("/predict/polygon", json=QUESTION).headers["Server-Timing"]
    assert re.fullmatch(r"imagery;dur=[\d.]+, predict;dur=[\d.]+, vectorize;dur=[\d.]+", timing)
    assert client.post("/predict/mask", json=QUESTION).headers["Server-Timing"].startswith("imagery;dur=")


def test_get_and_post_answer_the_same(client: FlaskClient) -> None:
    posted = client.post(FEATURES, json={**QUESTION, "tolerance": 0.6, "outline": "regularised"})
    asked = f"latitude={LATITUDE}&longitude={LONGITUDE}&zoom={ZOOM}&tolerance=0.6&outline=regularised"
    got = client.get(f"{FEATURES}&{asked}")
    assert got.json == posted.json
    assert got.json["features"][0]["properties"]["tolerance"] == 0.6
    assert got.json["features"][0]["properties"]["outline"] == "regularised"


def test_many_at_once_get_the_same_answer(app: Flask) -> None:
    def ask(_: int) -> str:
        return app.test_client().post("/predict/polygon", json=QUESTION).text

    with ThreadPoolExecutor(8) as pool:
        answers = set(pool.map(ask, range(24)))
    assert len(answers) == 1
    assert len(shape(json.loads(answers.pop())).geoms) == 1


def test_zoom_sixteen_is_what_is_meant_when_none_is_given(client: FlaskClient) -> None:
    question = {"coordinate": QUESTION["coordinate"]}
    tile = tile_at(LONGITUDE, LATITUDE, 16)
    assert tile == tile_at(AREA.left, AREA.top, 16)
    assert len(client.post("/predict/polygon", json=question).json["coordinates"]) == 1


def test_a_body_needs_no_content_type(client: FlaskClient) -> None:
    answer = client.post(
        "/predict/polygon", data=json.dumps(QUESTION), content_type="application/x-www-form-urlencoded"
    )
    assert answer.status_code == 200


def test_the_mask_is_the_tile_in_512_pixels(client: FlaskClient) -> None:
    answer = client.post("/predict/mask", json=QUESTION)
    assert answer.mimetype == "image/png"
    assert answer.headers["X-Model-Version"] == "3"
    mask = cv2.imdecode(np.frombuffer(answer.data, np.uint8), cv2.IMREAD_UNCHANGED)
    assert mask.shape == (512, 512)
    assert mask.dtype == np.uint8
    assert mask.max() == 255
    rows, columns = np.nonzero(mask > 127)
    expected = [
        (AREA.top - ROOF.top) / (AREA.top - AREA.bottom) * 512,
        (AREA.top - ROOF.bottom) / (AREA.top - AREA.bottom) * 512,
        (ROOF.left - AREA.left) / (AREA.right - AREA.left) * 512,
        (ROOF.right - AREA.left) / (AREA.right - AREA.left) * 512,
    ]
    assert (rows.min(), rows.max() + 1, columns.min(), columns.max() + 1) == pytest.approx(expected, abs=2)


def test_a_coarser_mask_has_the_same_size(client: FlaskClient) -> None:
    answer = client.post("/predict/mask", json={**QUESTION, "zoom": 16})
    mask = cv2.imdecode(np.frombuffer(answer.data, np.uint8), cv2.IMREAD_UNCHANGED)
    assert mask.shape == (512, 512)
    share = (ROOF.right - ROOF.left) * (ROOF.top - ROOF.bottom) / (AREA.right - AREA.left) / (AREA.top - AREA.bottom)
    assert (mask / 255).mean() == pytest.approx(share / 16, rel=0.1)


@pytest.mark.parametrize("path", ["/healthz", "/readyz"])
def test_health_names_model_and_imagery(client: FlaskClient, path: str) -> None:
    answer = client.get(path)
    assert answer.status_code == 200
    assert answer.json == {
        "status": "ok",
        "model": {"name": "red-roofs", "version": "3", "gsd_m": 0.5, "tolerance": 0.5},
        "imagery": "city.tif",
    }

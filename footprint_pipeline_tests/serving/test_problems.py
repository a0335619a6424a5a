import io
import json
import logging

import pytest
from flask.testing import FlaskClient

from footprint_pipeline.errors import ImageryError
from footprint_pipeline.footprints.mercator import Bounds
from footprint_pipeline.footprints.patch import Patch
from footprint_pipeline.settings import Settings
from footprint_pipeline_tests.serving.conftest import LATITUDE, LONGITUDE, ZOOM
from serving.app import create_app
from serving.model_store import ModelStore

PLACE = {"latitude": LATITUDE, "longitude": LONGITUDE}


class BrokenImagery:
    name, attribution, extent_wgs84 = "broken", "", None

    def __init__(self, error: Exception) -> None:
        self.error = error

    def read(self, bounds_3857: Bounds, height: int, width: int) -> Patch:
        raise self.error


def assert_problem(answer, status: int, *words: str) -> dict:
    assert answer.status_code == status
    assert answer.mimetype == "application/problem+json"
    body = answer.json
    assert {"type", "title", "status", "detail"} <= set(body)
    assert body["status"] == status
    for word in words:
        assert word in body["detail"]
    return body


@pytest.mark.parametrize("path", ["/predict/polygon", "/predict/mask"])
@pytest.mark.parametrize("body", ["", "{", "not json", '{"coordinate": {"latitude": 1,}}'])
def test_what_is_not_json_is_400(client: FlaskClient, path: str, body: str) -> None:
    assert_problem(client.post(path, data=body, content_type="application/json"), 400, "Invalid JSON")


@pytest.mark.parametrize("path", ["/predict/polygon", "/predict/mask"])
@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"coordinate": {**PLACE, "latitude": 91}}, "coordinate.latitude"),
        ({"coordinate": {**PLACE, "latitude": 86}}, "coordinate.latitude"),
        ({"coordinate": {**PLACE, "longitude": -181}}, "coordinate.longitude"),
        ({"coordinate": {**PLACE, "latitude": "12"}}, "coordinate.latitude"),
        ({"coordinate": {**PLACE, "latitude": True}}, "coordinate.latitude"),
        ({"coordinate": {"latitude": 1}}, "coordinate.longitude"),
        ({"coordinate": {**PLACE, "height": 3}}, "coordinate.height"),
        ({"coordinate": [1, 2]}, "coordinate"),
        ({"coordinate": PLACE, "tolerance": 2}, "tolerance"),
        ({"coordinate": PLACE, "tolerance": 0}, "tolerance"),
        ({"coordinate": PLACE, "zoom": 3}, "zoom"),
        ({"coordinate": PLACE, "zoom": 20}, "zoom"),
        ({"coordinate": PLACE, "zoom": 16.5}, "zoom"),
        ({"coordinate": PLACE, "zoom": "16"}, "zoom"),
        ({"coordinate": PLACE, "zooom": 16}, "zooom"),
    ],
)
def test_what_does_not_fit_is_422_and_names_the_field(client: FlaskClient, path: str, body: dict, field: str) -> None:
    problem = assert_problem(client.post(path, json=body), 422, field)
    assert problem["errors"][0]["field"] == field


@pytest.mark.parametrize("body", ["[]", "3", "null", "{}", '{"coordinate": {"latitude": NaN, "longitude": 1}}'])
def test_other_json_is_422(client: FlaskClient, body: str) -> None:
    for path in ("/predict/polygon", "/predict/mask"):
        assert_problem(client.post(path, data=body), 422)


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("latitude=1", "coordinate.longitude"),
        ("latitude=x&longitude=2", "coordinate.latitude"),
        ("latitude=nan&longitude=2", "coordinate.latitude"),
        ("latitude=1&longitude=2&zoom=9", "zoom"),
        ("latitude=1&longitude=2&colour=red", "colour"),
        ("latitude=1&longitude=2&geometry=point", "geometry"),
    ],
)
def test_query_strings_are_checked_alike(client: FlaskClient, query: str, field: str) -> None:
    assert_problem(client.get(f"/predict/polygon?{query}"), 422, field)


@pytest.mark.parametrize("path", ["/v1/footprints", "/predict/mask", "/predict/polygon", "/v1/footprints/image"])
def test_what_is_not_known_is_refused_beside_a_body_too(client: FlaskClient, path: str) -> None:
    assert_problem(client.post(f"{path}?limits=5", json={"coordinate": PLACE, "zoom": 18}), 422, "limits")


def test_an_error_is_no_larger_than_what_it_tells_of(client: FlaskClient) -> None:
    ring = {"polygon": {"type": "Polygon", "coordinates": [[0] * 100_000]}}
    first = assert_problem(client.post("/v1/footprints", json=ring), 422, "polygon.Polygon.coordinates.0.0")
    assert len(first["errors"]) == 1
    for kind, depth in (("Polygon", 1), ("MultiPolygon", 1), ("MultiPolygon", 2)):
        coordinates: list = [0] * 1000
        for _ in range(depth):
            coordinates = [coordinates] * 3
        answer = client.post("/v1/footprints", json={"polygon": {"type": kind, "coordinates": coordinates}})
        assert len(assert_problem(answer, 422)["errors"]) == 1
    unknown = {"coordinate": PLACE, **dict.fromkeys(map(str, range(1000)), 0)}
    told = assert_problem(client.post("/v1/footprints", json=unknown), 422, "0: Extra inputs", "… and 980 more")
    assert len(told["errors"]) == 20


def test_an_unknown_form_of_answer_is_422(client: FlaskClient) -> None:
    answer = client.post("/predict/polygon?geometry=point", json={"coordinate": PLACE})
    assert_problem(answer, 422, "geometry", "multipolygon")


def test_a_mask_is_of_a_place_or_of_an_image(client: FlaskClient) -> None:
    both = {"coordinate": PLACE, "image_url": "https://example.com/a.png"}
    assert_problem(client.post("/predict/mask", json=both), 422, "either coordinate or image_url")


def test_beyond_the_imagery_is_404_and_says_what_it_covers(client: FlaskClient) -> None:
    for path in ("/predict/polygon", "/predict/mask"):
        answer = client.post(path, json={"coordinate": {"latitude": 48.8, "longitude": 2.3}})
        problem = assert_problem(answer, 404, "city.tif", "no imagery", "latitude 48.8")
        assert "latitude -22.9" in problem["fix"]
        assert problem["type"] == "urn:footprint:no-imagery"


def test_too_coarse_a_zoom_is_422_and_names_one_that_works(client: FlaskClient) -> None:
    for path in ("/predict/polygon", "/predict/mask"):
        problem = assert_problem(client.post(path, json={"coordinate": PLACE, "zoom": 12}), 422, "0.5 m a pixel")
        assert problem["fix"] == "Ask for zoom 15 or finer."


def test_a_provider_that_fails_is_502(store: ModelStore) -> None:
    imagery = BrokenImagery(ImageryError("tiles.example.com answers HTTP 500.", fix="Try again later."))
    client = create_app(Settings(), store=store, imagery=imagery).test_client()
    problem = assert_problem(client.post("/predict/polygon", json={"coordinate": PLACE}), 502, "HTTP 500")
    assert problem["fix"] == "Try again later."


def test_the_unexpected_is_500_and_stays_in_the_log(store: ModelStore, caplog: pytest.LogCaptureFixture) -> None:
    client = create_app(Settings(), store=store, imagery=BrokenImagery(KeyError("the cellar"))).test_client()
    answer = client.post("/predict/polygon", json={"coordinate": PLACE})
    assert_problem(answer, 500)
    assert "cellar" not in answer.text
    assert "Traceback" not in answer.text
    assert any("cellar" in str(record.exc_info) for record in caplog.records if record.levelno == logging.ERROR)


def test_unknown_paths_and_wrong_methods_are_problems_too(client: FlaskClient) -> None:
    assert_problem(client.get("/nowhere"), 404)
    answer = client.delete("/predict/polygon")
    assert_problem(answer, 405)
    assert "POST" in answer.headers["Allow"]


def test_a_body_beyond_a_megabyte_is_413(client: FlaskClient) -> None:
    assert_problem(client.post("/predict/polygon", data=b" " * (2**20 + 1)), 413)


def test_a_body_in_chunks_is_413_where_it_goes_beyond_and_read_where_it_does_not(client: FlaskClient) -> None:
    question = json.dumps({"coordinate": PLACE, "zoom": ZOOM}).encode()
    chunked = {"environ_overrides": {"wsgi.input_terminated": True}, "content_type": "application/json"}
    for path, most, status in (("/v1/footprints", 2**20, 200), ("/v1/footprints/image", 32 * 2**20, 422)):
        whole = question + b" " * (most - len(question))
        assert client.post(path, input_stream=io.BytesIO(whole), **chunked).status_code == status
        assert_problem(client.post(path, input_stream=io.BytesIO(whole + b"x"), **chunked), 413)


def test_a_body_that_breaks_off_or_is_no_http_is_the_clients_fault(client: FlaskClient) -> None:
    class Broken(io.BytesIO):
        def read(self, size: int = -1) -> bytes:
            raise self.error

        readinto = readline = read

    for error in (BlockingIOError("nothing comes"), ValueError("a trailer that is none")):
        body = Broken()
        body.error = error
        chunked = {"environ_overrides": {"wsgi.input_terminated": True}, "content_type": "application/json"}
        assert_problem(client.post("/v1/footprints", input_stream=body, **chunked), 400)


def test_an_integer_may_be_written_with_a_point(client: FlaskClient) -> None:
    answer = client.post("/predict/polygon", json={"coordinate": PLACE, "zoom": 18.0})
    assert answer.status_code == 200

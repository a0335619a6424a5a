"""/v1/model, /metrics, health, and the front page."""

import re
from concurrent.futures import ThreadPoolExecutor, as_completed
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from flask.testing import FlaskClient

from footprint_pipeline.footprints.domain import DomainReference, brightness_counts
from footprint_pipeline.footprints.geotiff import GeoTiffImagery
from footprint_pipeline.settings import Settings
from footprint_pipeline_tests.footprints.red_city import write_model
from footprint_pipeline_tests.serving.conftest import LATITUDE, LONGITUDE, ZOOM, FakeRegistry, HangingRegistry, started
from footprint_pipeline_tests.serving.test_problems import assert_problem
from serving import model_store
from serving.app import create_app
from serving.metrics import Family, Requests
from serving.model_store import ModelStore

QUESTION = {"coordinate": {"latitude": LATITUDE, "longitude": LONGITUDE}, "zoom": ZOOM}
SAMPLE = re.compile(r'(footprint_\w+)(?:\{((?:\w+="(?:[^"\\]|\\.)*",?)*)\})? (\S+)')


def served(registry: FakeRegistry, city: GeoTiffImagery, cache: Path) -> FlaskClient:
    store = ModelStore(registry, alias="champion", cache=cache, threads=1)
    return create_app(Settings(), store=store, imagery=city).test_client()


def samples(client: FlaskClient) -> dict[tuple[str, str], float]:
    """(name, labels) → number, of a text that is checked line by line."""
    answer = client.get("/metrics")
    assert answer.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
    told: dict[tuple[str, str], float] = {}
    typed = set()
    for line in answer.text.splitlines():
        if line.startswith("# TYPE "):
            _, _, name, kind = line.split()
            assert kind in ("counter", "gauge", "histogram")
            assert name not in typed
            typed.add(name)
        elif not line.startswith("# HELP "):
            found = SAMPLE.fullmatch(line)
            assert found, line
            assert re.sub("_(bucket|sum|count)$", "", found[1]) in typed
            assert (found[1], found[2] or "") not in told
            told[found[1], found[2] or ""] = float(found[3])
    return told


def test_the_model_says_what_it_is(tmp_path: Path, city: GeoTiffImagery) -> None:
    model = write_model(tmp_path / "model", metrics={"test_building_f1": 0.71})
    client = served(FakeRegistry(model, "12"), city, tmp_path / "cache")
    before = client.get("/v1/model").json
    assert (before["version"], before["spec"], before["scores"]) == (None, None, {})
    assert before["problem"] == "The model is loading."
    asked = datetime.now(UTC)
    client.post("/v1/model/refresh")
    told = client.get("/v1/model").json
    assert (told["alias"], told["version"], told["origin"]) == ("champion", "12", "registry")
    assert told["scores"] == {"test_building_f1": 0.71}
    assert told["spec"]["gsd_m"] == 0.5
    assert asked <= datetime.fromisoformat(told["since"]) <= datetime.now(UTC)
    assert told["registry_answers"] is True
    assert told["problem"] is told["refused"] is None


def test_a_refresh_swaps_refuses_and_survives_a_registry_that_is_gone(
    model_folder: Path, tmp_path: Path, city: GeoTiffImagery
) -> None:
    registry = FakeRegistry(model_folder, "1")
    client = served(registry, city, tmp_path / "cache")
    assert client.post("/v1/model/refresh").json == {"outcome": "swapped", "version": "1"}
    assert client.post("/v1/model/refresh").json == {"outcome": "same", "version": "1"}

    registry.champion = None
    assert_problem(client.post("/v1/model/refresh"), 502, "There is no champion")
    broken = write_model(tmp_path / "broken")
    (broken / "model.xml").write_text("<")
    registry.model, registry.champion = broken, "2"
    problem = assert_problem(client.post("/v1/model/refresh"), 409, "OpenVINO cannot load")
    assert problem["type"] == "urn:footprint:version-refused"
    assert "POST /v1/model/refresh" in problem["fix"]
    told = client.get("/v1/model").json
    assert told["version"] == "1"
    assert told["refused"]["version"] == "2"
    assert "OpenVINO" in told["refused"]["reason"]
    assert samples(client)["footprint_model_refused_info", 'version="2"'] == 1
    assert client.post("/predict/polygon", json=QUESTION).headers["X-Model-Version"] == "1"

    registry.model = model_folder
    assert client.post("/v1/model/refresh").json == {"outcome": "swapped", "version": "2"}
    assert client.get("/v1/model").json["refused"] is None
    assert not any("refused_info" in name for name, _ in samples(client))


def test_a_refresh_does_not_wait_for_ever(
    model_folder: Path, tmp_path: Path, city: GeoTiffImagery, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry = HangingRegistry(model_folder)
    client = served(registry, city, tmp_path / "cache")
    monkeypatch.setattr(model_store, "_PATIENCE_S", 0.05)
    with ThreadPoolExecutor(2) as pool:
        try:
            first, second = (pool.submit(client.application.test_client().post, "/v1/model/refresh") for _ in range(2))
            busy = next(as_completed((first, second), timeout=20)).result()
        finally:
            registry.go_on.set()
        assert {first.result().status_code, second.result().status_code} == {200, 503}
    assert_problem(busy, 503, "Another look at the registry is under way.")
    assert int(busy.headers["Retry-After"]) >= 1


def test_alive_is_not_ready(model_folder: Path, tmp_path: Path, city: GeoTiffImagery) -> None:
    registry = FakeRegistry(model_folder, None)
    client = served(registry, city, tmp_path)
    client.post("/v1/model/refresh")
    alive, ready = client.get("/healthz"), client.get("/readyz")
    assert (alive.status_code, ready.status_code) == (200, 503)
    assert (
        alive.json
        == ready.json
        == {
            "status": "no model",
            "reason": "There is no champion.",
            "fix": "Promote a version.",
            "model": None,
            "imagery": "city.tif",
        }
    )
    assert samples(client)["footprint_model_loaded", ""] == 0
    registry.champion = "1"
    client.post("/v1/model/refresh")
    assert client.get("/readyz").status_code == 200


def test_metrics_count_requests_answers_and_imagery_that_is_unlike(tmp_path: Path, city: GeoTiffImagery) -> None:
    valid = np.ones((8, 8), bool)
    dark, darker = (brightness_counts(np.full((8, 8, 3), level, np.uint8), valid) for level in (60, 30))
    model = write_model(tmp_path / "model", domain=DomainReference.of([dark] * 19 + [darker]))
    store = started(FakeRegistry(model), tmp_path / "cache")
    client = create_app(Settings(), store=store, imagery=city).test_client()
    client.post("/predict/polygon", json=QUESTION)
    client.post("/v1/footprints", json=QUESTION)
    client.post("/v1/footprints", json={})
    client.get("/somewhere?secret=1")
    client.open("/v1/footprints", method="BREW")
    told = samples(client)
    requests = "footprint_requests_total"
    assert told[requests, 'endpoint="/v1/footprints",method="POST",status="200"'] == 1
    assert told[requests, 'endpoint="/v1/footprints",method="POST",status="422"'] == 1
    assert told[requests, 'endpoint="none",method="GET",status="404"'] == 1
    assert told[requests, 'endpoint="none",method="other",status="405"'] == 1
    buckets = [number for (name, labels), number in told.items() if name.endswith("_bucket") and "/v1/foot" in labels]
    assert buckets == sorted(buckets)
    assert buckets[-1] == told["footprint_request_seconds_count", 'endpoint="/v1/footprints"'] == 2
    assert told["footprint_request_seconds_sum", 'endpoint="/v1/footprints"'] > 0
    version = 'model="red-roofs",version="3"'
    assert told["footprint_answers_total", version] == told["footprint_out_of_domain_answers_total", version] == 2
    assert told["footprint_model_info", 'alias="champion",version="3",origin="registry"'] == 1
    assert told["footprint_predictions_waiting", ""] == told["footprint_predictions_making", ""] == 0
    assert "secret" not in client.get("/metrics").text


def test_labels_are_escaped_and_edges_count_to_the_bucket_below() -> None:
    text = str(Family("footprint_x", "gauge", "X.", [("", {"name": 'a "b"\\\n'}, 1)]))
    assert text.splitlines()[-1] == r'footprint_x{name="a \"b\"\\\n"} 1'
    requests = Requests()
    requests.count("/", method="GET", status=200, seconds=0.005)
    requests.count("/", method="GET", status=200, seconds=1e9)
    histogram = str(requests.families()[1])
    assert 'footprint_request_seconds_bucket{endpoint="/",le="0.005"} 1' in histogram
    assert 'footprint_request_seconds_bucket{endpoint="/",le="60"} 1' in histogram
    assert 'footprint_request_seconds_bucket{endpoint="/",le="+Inf"} 2' in histogram


def test_the_front_page_lists_endpoints_and_imagery(client: FlaskClient) -> None:
    front = client.get("/").json
    assert {"POST /predict/mask", "GET /v1/footprints", "GET /metrics"} <= set(front["endpoints"])
    assert front["imagery"] == ["city.tif"]


@pytest.mark.parametrize("path", ["/static/x", "/v1", "/v1/footprints/"])
def test_there_is_nothing_beside(client: FlaskClient, path: str) -> None:
    assert_problem(client.get(path), 404)

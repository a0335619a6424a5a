"""Keys, limits, other origins, headers, and where the service may not be bound."""

import json
import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest
from flask.testing import FlaskClient

from footprint_pipeline.errors import SettingsError
from footprint_pipeline.footprints.geotiff import GeoTiffImagery
from footprint_pipeline.local_service import start_service
from footprint_pipeline.settings import Settings
from footprint_pipeline_tests.serving.conftest import LATITUDE, LONGITUDE, ZOOM
from footprint_pipeline_tests.serving.test_problems import assert_problem
from serving.access import RateLimit, TooManyRequestsError
from serving.app import create_app
from serving.model_store import ModelStore

URL = f"/v1/footprints?latitude={LATITUDE}&longitude={LONGITUDE}&zoom={ZOOM}"
ROOT = Path(__file__).parents[2]
ALL = "0.0.0.0"  # noqa: S104 - it is refused


@pytest.fixture(scope="module")
def locked(store: ModelStore, city: GeoTiffImagery) -> FlaskClient:
    return create_app(Settings(api_keys="first-key,second-key"), store=store, imagery=city).test_client()


@pytest.mark.parametrize(
    "headers",
    [{"Authorization": "Bearer first-key"}, {"Authorization": "bearer second-key"}, {"X-API-Key": "second-key"}],
)
def test_any_of_the_keys_opens(locked: FlaskClient, headers: dict) -> None:
    assert locked.get(URL, headers=headers).status_code == 200
    assert locked.get("/metrics", headers=headers).status_code == 200
    assert locked.post("/v1/model/refresh", headers=headers).json == {"outcome": "same", "version": "3"}


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", URL),
        ("POST", "/v1/footprints/image"),
        ("POST", "/predict/polygon"),
        ("POST", "/predict/mask"),
        ("GET", "/v1/model"),
        ("GET", "/v1/imagery"),
        ("GET", "/v1/imagery/18/1/1"),
        ("POST", "/v1/model/refresh"),
        ("GET", "/metrics"),
        ("GET", "/nowhere"),
        ("OPTIONS", "/v1/model"),
    ],
)
def test_without_a_key_nothing_is_answered(locked: FlaskClient, method: str, path: str) -> None:
    answer = locked.open(path, method=method)
    problem = assert_problem(answer, 401, "A key is needed")
    assert "X-API-Key" in problem["fix"]
    assert answer.headers["WWW-Authenticate"] == "Bearer"


@pytest.mark.parametrize("key", ["wrong", "first-key2", "first-ke", "first-key,second-key", "schlüssel"])
def test_other_keys_do_not_open_and_are_told_nowhere(
    locked: FlaskClient, key: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    answer = locked.get(URL, headers={"X-API-Key": key})
    assert_problem(answer, 401, "not known")
    for secret in (key, "first-key", "second-key"):
        assert secret not in answer.text + str(answer.headers) + caplog.text


@pytest.mark.parametrize("path", ["/", "/map/main.js", "/healthz", "/readyz", "/docs", "/openapi.json"])
def test_what_there_is_to_ask_needs_no_key_and_counts_to_no_limit(
    store: ModelStore, city: GeoTiffImagery, path: str
) -> None:
    client = create_app(Settings(api_keys="first-key", rate_limit=1), store=store, imagery=city).test_client()
    answers = [client.get(path) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [200] * 3
    assert "first-key" not in answers[0].text


def test_each_key_has_its_own_limit(store: ModelStore, city: GeoTiffImagery) -> None:
    client = create_app(Settings(api_keys="one,two", rate_limit=2), store=store, imagery=city).test_client()

    def ask(key: str):
        return client.get("/v1/model", headers={"X-API-Key": key})

    assert [ask("one").status_code for _ in range(2)] == [200, 200]
    answer = ask("one")
    assert_problem(answer, 429, "2 requests a minute")
    assert 1 <= int(answer.headers["Retry-After"]) <= 30
    assert ask("two").status_code == 200
    assert ask("three").status_code == 401


def test_a_limit_lets_as_many_through_as_time_allows() -> None:
    now, pauses = 0.0, set()
    limit = RateLimit(6, clock=lambda: now)

    def passed() -> int:
        for count in range(100):
            try:
                limit.spend(0)
            except TooManyRequestsError as error:
                pauses.add(error.retry_after_s)
                return count
        raise AssertionError

    assert passed() == 6
    now += 10
    assert passed() == 1
    now += 3600
    assert passed() == 6
    assert pauses == {10}


def test_pages_of_listed_origins_may_ask(store: ModelStore, city: GeoTiffImagery) -> None:
    settings = Settings(api_keys="a-key", cors_origins="https://maps.example.org, http://localhost:3000/")
    client = create_app(settings, store=store, imagery=city).test_client()
    ours = {"Origin": "https://maps.example.org"}
    preflight = client.options(
        "/v1/footprints", headers={**ours, "Access-Control-Request-Method": "POST"}
    )  # brings no key, as browsers do
    assert preflight.status_code == 200
    assert preflight.headers["Access-Control-Allow-Origin"] == "https://maps.example.org"
    assert "POST" in preflight.headers["Access-Control-Allow-Methods"]
    assert {"X-API-Key", "If-None-Match"} <= set(preflight.headers["Access-Control-Allow-Headers"].split(", "))
    assert "ETag" in preflight.headers["Access-Control-Expose-Headers"]
    answer = client.get("/v1/model", headers={**ours, "X-API-Key": "a-key"})
    assert answer.headers["Access-Control-Allow-Origin"] == "https://maps.example.org"
    assert "X-Model-Version" in answer.headers["Access-Control-Expose-Headers"]
    assert "Access-Control-Allow-Origin" in client.get("/v1/model", headers=ours).headers  # the 401 is theirs to read
    other = client.get("/healthz", headers={"Origin": "https://example.com"})
    assert "Access-Control-Allow-Origin" not in other.headers
    assert "Origin" in other.headers["Vary"]


def test_no_origin_is_allowed_by_default_and_all_are_by_a_star(
    client: FlaskClient, store: ModelStore, city: GeoTiffImagery
) -> None:
    headers = {"Origin": "https://example.com"}
    assert not [name for name, _ in client.get("/healthz", headers=headers).headers if name.startswith("Access-")]
    everyone = create_app(Settings(cors_origins="*"), store=store, imagery=city).test_client()
    assert everyone.get("/healthz", headers=headers).headers["Access-Control-Allow-Origin"] == "*"


@pytest.mark.parametrize(
    ("host", "answered"),
    [
        ("localhost", True),
        ("localhost:8080", True),
        ("127.0.0.1:8080", True),
        ("[::1]:8080", True),
        ("service:8080", True),
        ("", True),
        ("maps.example.org", False),
        ("127.0.0.1.example.org:8080", False),
        ("localhost.:8080", False),
    ],
)
def test_without_keys_no_name_is_answered_that_anybody_can_register(
    client: FlaskClient, locked: FlaskClient, store: ModelStore, city: GeoTiffImagery, host: str, answered: bool
) -> None:
    for path in ("/", "/healthz", "/nowhere", URL):
        answer = client.get(path, headers={"Host": host})
        if answered:
            assert answer.status_code == (404 if path == "/nowhere" else 200)
        else:
            problem = assert_problem(answer, 421, host)
            assert problem["type"] == "urn:footprint:foreign-name"
            assert "FOOTPRINT_API_KEYS" in problem["fix"]
    assert locked.get(URL, headers={"Host": host, "X-API-Key": "first-key"}).status_code == 200
    proxied = create_app(Settings(open=True), store=store, imagery=city).test_client()
    assert proxied.get(URL, headers={"Host": host}).status_code == 200


def test_pages_of_other_sites_send_nothing_unless_they_are_listed(
    client: FlaskClient, store: ModelStore, city: GeoTiffImagery
) -> None:
    listed = create_app(Settings(cors_origins="https://maps.example.org"), store=store, imagery=city).test_client()
    everyone = create_app(Settings(cors_origins="*"), store=store, imagery=city).test_client()
    question = {"coordinate": {"latitude": LATITUDE, "longitude": LONGITUDE}, "zoom": ZOOM}
    ours, theirs = "https://maps.example.org", "https://example.com"

    def sent(client: FlaskClient, origin: str, site: str = "cross-site"):
        headers = {"Origin": origin, "Sec-Fetch-Site": site, "Content-Type": "text/plain"}
        return client.post("/v1/footprints", data=json.dumps(question), headers=headers)

    problem = assert_problem(sent(client, theirs), 403, theirs)
    assert "FOOTPRINT_CORS_ORIGINS" in problem["fix"]
    assert_problem(sent(listed, theirs), 403)
    assert sent(listed, ours).status_code == sent(everyone, theirs).status_code == 200
    for site in ("same-origin", "same-site", "none"):
        assert sent(client, "http://localhost:8080", site).status_code == 200
    assert client.get(URL, headers={"Sec-Fetch-Site": "cross-site"}).status_code == 200


def test_answers_are_what_they_say(client: FlaskClient) -> None:
    for path in ("/healthz", "/docs", "/nowhere", URL):
        assert client.get(path).headers["X-Content-Type-Options"] == "nosniff"


@pytest.mark.parametrize("settings", [{"host": ALL}, {"host": "127.0.0.1", "published": f"{ALL}:8080"}])
def test_no_service_is_started_that_others_reach_without_a_key(settings: dict) -> None:
    with pytest.raises(SettingsError, match="no key is set"):
        start_service(Settings(imagery="mapbox", **settings))


@pytest.mark.parametrize("key", ["clé", "a\tkey"])
def test_a_key_that_no_header_carries_is_refused_at_the_start(
    key: str, store: ModelStore, city: GeoTiffImagery
) -> None:
    settings = Settings(api_keys=f"first-key,{key}")
    for start in (settings.check_reach, lambda: create_app(settings, store=store, imagery=city)):
        with pytest.raises(SettingsError, match="FOOTPRINT_API_KEYS") as refused:
            start()
        assert key not in str(refused.value)


@pytest.mark.parametrize("host", ["::1", "[::1]"])
def test_addresses_of_ipv6_are_bound_with_brackets_or_without(host: str) -> None:
    code = "import runpy; print(runpy.run_path('serving/gunicorn.conf.py')['bind'])"
    environment = {**os.environ, "FOOTPRINT_HOST": host, "FOOTPRINT_PORT": "8081"}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert done.stdout.strip() == "[::1]:8081", done.stderr


@pytest.mark.skipif(sys.platform == "win32", reason="gunicorn runs on POSIX only")
def test_gunicorn_refuses_such_an_address_too_and_says_what_to_do() -> None:
    command = [sys.executable, "-m", "gunicorn", "--check-config", "-c", "serving/gunicorn.conf.py", "serving.app:x"]
    environment = {**os.environ, "FOOTPRINT_HOST": ALL}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode != 0
    assert "FOOTPRINT_API_KEYS" in done.stderr
    assert "Traceback" not in done.stderr


def test_who_is_told_to_wait_may_ask_when_that_is_over() -> None:
    now = 0.0
    limit = RateLimit(6, clock=lambda: now)
    for _ in range(6):
        limit.spend(0)
    now = 2.5
    with pytest.raises(TooManyRequestsError) as told:
        limit.spend(0)
    assert told.value.retry_after_s == 8
    now += told.value.retry_after_s
    limit.spend(0)


def test_no_page_may_frame_ours(client: FlaskClient) -> None:
    answer = client.get("/", headers={"Accept": "text/html"})
    assert answer.mimetype == "text/html"
    assert "frame-ancestors 'none'" in answer.headers["Content-Security-Policy"].split("; ")


def test_an_origin_may_be_listed_with_a_slash(store: ModelStore, city: GeoTiffImagery) -> None:
    client = create_app(Settings(cors_origins="http://localhost:3000/"), store=store, imagery=city).test_client()
    answer = client.get("/healthz", headers={"Origin": "http://localhost:3000"})
    assert answer.headers["Access-Control-Allow-Origin"] == "http://localhost:3000"

"""/v1/imagery and the page: which imagery there is, what a map tile looks like, and who gets the page."""

from pathlib import Path

import pytest
from flask.testing import FlaskClient

from footprint_pipeline.footprints.geotiff import GeoTiffImagery
from footprint_pipeline.footprints.mercator import tile_at
from footprint_pipeline.footprints.patch import decode_image
from footprint_pipeline.settings import Settings
from footprint_pipeline_tests.footprints.red_city import GREY, RED, TileServer, http_server, write_city
from footprint_pipeline_tests.serving.conftest import AREA, CITY, ROOF
from footprint_pipeline_tests.serving.test_problems import assert_problem
from serving.app import create_app
from serving.model_store import ModelStore

BROWSER = "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8"


def url(longitude: float, latitude: float, zoom: int) -> str:
    tile = tile_at(longitude, latitude, zoom)
    return f"/v1/imagery/{tile.z}/{tile.x}/{tile.y}"


def test_sources_are_told_with_where_they_are_and_no_secret(
    store: ModelStore, city_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TILES_KEY", "s3cret-token")
    (tmp_path / "sources.toml").write_text(
        f'[city]\npath = "{city_path}"\ndate = 2024-05-01\nattribution = "© the painter"\n'
        '[world]\ndefault = true\nurl = "http://127.0.0.1:9/{z}/{x}/{y}.png?key=${TILES_KEY}"\n'
        "min_zoom = 3\nmax_zoom = 20\ntile_px = 512\n"
    )
    client = create_app(Settings(imagery_sources=tmp_path / "sources.toml"), store=store).test_client()
    answer = client.get("/v1/imagery")
    assert "s3cret" not in answer.text
    world, city = answer.json["sources"]
    assert world == {
        "name": "world", "title": "world", "default": True, "attribution": "", "date": None, "bounds": None,
        "min_zoom": 3, "max_zoom": 21,
    }  # fmt: skip
    assert (city["name"], city["default"], city["date"], city["attribution"]) == (
        "city", False, "2024-05-01", "© the painter",
    )  # fmt: skip
    assert city["bounds"] == pytest.approx(CITY, abs=1e-5)
    assert_problem(client.get("/v1/imagery/5/1/1?imagery=moon"), 422, "'moon'")
    assert_problem(client.get("/v1/imagery/2/1/1"), 422, "zoom 2")


def test_a_tile_shows_the_imagery_and_is_transparent_beside_it(client: FlaskClient) -> None:
    inside = client.get(url(*ROOF.centre, 20))
    assert inside.mimetype == "image/jpeg"
    assert inside.headers["Cache-Control"] == "private, max-age=3600"
    pixels, _ = decode_image(inside.data)
    assert pixels.shape == (256, 256, 3)
    assert {tuple((colour // 32).tolist()) for colour in pixels[8::16, 8::16].reshape(-1, 3)} >= {
        tuple(value // 32 for value in RED),
        tuple(value // 32 for value in GREY),
    }
    edge = client.get(url(CITY.left, CITY.top, 18))
    assert edge.mimetype == "image/png"
    _, opaque = decode_image(edge.data)
    assert 0.05 < opaque.mean() < 0.95
    problem = assert_problem(client.get(url(2.3, 48.8, 18)), 404, "no imagery")
    assert "It covers latitude -22.9" in problem["fix"]


@pytest.mark.parametrize("path", ["25/1/1", "3/8/0", "3/0/8"])
def test_tiles_that_are_none_are_422(client: FlaskClient, path: str) -> None:
    assert_problem(client.get(f"/v1/imagery/{path}"), 422, "There is no tile")


def test_tiles_of_a_provider_are_handed_on(store: ModelStore, tmp_path: Path) -> None:
    with http_server(TileServer([ROOF], covered=AREA)) as provider:
        settings = Settings(
            imagery=provider.address + "/{z}/{x}/{y}.png?access_token=s3cret", home=tmp_path, imagery_max_zoom=18
        )
        client = create_app(settings, store=store).test_client()
        answer = client.get(url(*AREA.centre, 18))
        assert answer.status_code == 200
        assert "s3cret" not in str(answer.headers)
        assert_problem(client.get(url(2.3, 48.8, 18)), 404, "no imagery")
    broken = client.get(url(10, 10, 18))
    assert_problem(broken, 502, "cannot be fetched")
    assert "s3cret" not in broken.text


def test_browsers_get_the_page_and_others_what_there_is_to_ask(client: FlaskClient) -> None:
    page = client.get("/", headers={"Accept": BROWSER})
    assert page.mimetype == "text/html"
    assert "Accept" in page.headers["Vary"]
    policy = page.headers["Content-Security-Policy"]
    assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self'")
    assert "unsafe" not in policy
    assert "http" not in policy
    for accept in ("*/*", "application/json", None):
        answer = client.get("/", headers={"Accept": accept} if accept else {})
        assert answer.json["name"] == "footprint-pipeline"
        assert "GET /v1/imagery/{z}/{x}/{y}" in answer.json["endpoints"]
        assert "Accept" in answer.headers["Vary"]


def test_the_files_of_the_page_are_asked_for_again_only_when_they_change(client: FlaskClient) -> None:
    first = client.get("/map/main.js")
    assert first.mimetype == "text/javascript"
    again = client.get("/map/main.js", headers={"If-None-Match": first.headers["ETag"]})
    assert (again.status_code, again.data) == (304, b"")
    assert_problem(client.get("/map/page.py"), 404, "no such file")


def test_the_coarsest_zoom_of_a_large_file_without_overviews_reads_no_more_than_it_may(tmp_path: Path) -> None:
    flat = GeoTiffImagery(write_city(tmp_path / "flat.tif", CITY, [], gsd_m=0.05))
    coarsest, finest = flat.zooms
    assert (coarsest, finest) == (19, 22)
    assert GeoTiffImagery(write_city(tmp_path / "small.tif", CITY, [], gsd_m=0.5)).zooms == (0, 19)

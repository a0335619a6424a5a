"""The description and the service hold each other to their word: routes, examples, real answers."""

import base64
import hashlib
import re
from html.parser import HTMLParser
from typing import Any

import jsonschema
import pytest
from flask import Flask
from flask.testing import FlaskClient
from openapi_spec_validator import validate

from footprint_pipeline.footprints.mercator import tile_at
from footprint_pipeline.settings import Settings
from footprint_pipeline_tests.footprints.red_city import png
from footprint_pipeline_tests.serving.conftest import LATITUDE, LONGITUDE, ZOOM
from footprint_pipeline_tests.serving.test_upload import PICTURE
from serving.app import create_app
from serving.forms import FORMS
from serving.openapi import document, path_of

PLACE = {"coordinate": {"latitude": LATITUDE, "longitude": LONGITUDE}, "zoom": ZOOM}
Operation = tuple[str, str, dict[str, Any]]


@pytest.fixture(scope="module")
def described(app: Flask) -> dict[str, Any]:
    return app.test_client().get("/openapi.json").json


def operations(described: dict[str, Any]) -> list[Operation]:
    return [(path, method, it) for path, methods in described["paths"].items() for method, it in methods.items()]


def fits(value: object, schema: dict[str, Any], described: dict[str, Any]) -> None:
    whole = {**schema, "components": described["components"]}
    jsonschema.Draft202012Validator(whole).validate(value)


def test_the_description_is_openapi(described: dict[str, Any]) -> None:
    assert described["openapi"] == "3.1.0"
    validate(described)


def test_every_route_is_described_and_every_described_route_is_there(app: Flask, described: dict[str, Any]) -> None:
    routes = {(path_of(rule), method.lower()) for rule in app.url_map.iter_rules() for method in rule.methods}
    routes = {(path, method) for path, method in routes if method not in ("head", "options")}
    assert {(path, method) for path, method, _ in operations(described)} == routes
    names = [it["operationId"] for _, _, it in operations(described)]
    assert len(set(names)) == len(names) > 10
    assert all(it["summary"].endswith(".") for _, _, it in operations(described))


def test_a_route_that_says_nothing_of_itself_is_an_error() -> None:
    bare = Flask("bare", static_folder=None)
    bare.add_url_rule("/secret", view_func=lambda: "")
    with pytest.raises(LookupError, match="/secret is not documented"):
        document(bare, keys=False)


def test_examples_fit_their_schemas(described: dict[str, Any]) -> None:
    schemas = described["components"]["schemas"]
    examples = [(schema, example) for schema in schemas.values() for example in schema.get("examples", [])]
    assert len(examples) >= 6
    for schema, example in examples:
        fits(example, schema, described)


def test_keys_are_described_when_there_are_any(app: Flask, store, city) -> None:
    locked = create_app(Settings(api_keys="a-key"), store=store, imagery=city).test_client().get("/openapi.json").json
    validate(locked)
    free = {path for path, _, it in operations(locked) if "security" not in it}
    assert free == {path for path, _, it in operations(locked) if "401" not in it["responses"]}
    assert free == {"/", "/map/{name}", "/healthz", "/readyz", "/docs", "/openapi.json"}


def checked(answer, operation: dict[str, Any], described: dict[str, Any]) -> int:
    """The status of an answer, which must be documented with this media type and this schema."""
    assert str(answer.status_code) in operation["responses"], (answer.status_code, answer.text[:500])
    media = operation["responses"][str(answer.status_code)]["content"]
    assert answer.mimetype in media, (answer.status_code, answer.mimetype)
    schema = media[answer.mimetype]["schema"]
    if "json" in answer.mimetype and schema.get("type") != "string":
        fits(answer.json, schema, described)
    return answer.status_code


def test_real_answers_are_as_described(client: FlaskClient, described: dict[str, Any]) -> None:
    paths = described["paths"]
    place = f"latitude={LATITUDE}&longitude={LONGITUDE}&zoom={ZOOM}"
    for path in ("/", "/healthz", "/readyz", "/v1/imagery", "/v1/model", "/metrics", "/docs", "/openapi.json"):
        assert checked(client.get(path), paths[path]["get"], described) == 200
    assert checked(client.post("/v1/model/refresh"), paths["/v1/model/refresh"]["post"], described) == 200
    for accept in FORMS:
        answer = client.get(f"/v1/footprints?{place}", headers={"Accept": accept})
        assert checked(answer, paths["/v1/footprints"]["get"], described) == 200
    picture = client.post("/v1/footprints/image?gsd_m=0.5", data=png(PICTURE), content_type="image/png")
    assert checked(picture, paths["/v1/footprints/image"]["post"], described) == 200
    assert len(picture.json["features"]) == 1
    for form in ("", "?geometry=features"):
        answer = client.post(f"/predict/polygon{form}", json=PLACE)
        assert checked(answer, paths["/predict/polygon"]["post"], described) == 200
    assert checked(client.post("/predict/mask", json=PLACE), paths["/predict/mask"]["post"], described) == 200
    tile = tile_at(LONGITUDE, LATITUDE, ZOOM)
    picture = client.get(f"/v1/imagery/{tile.z}/{tile.x}/{tile.y}")
    assert checked(picture, paths["/v1/imagery/{z}/{x}/{y}"]["get"], described) == 200
    assert checked(client.get("/", headers={"Accept": "text/html"}), paths["/"]["get"], described) == 200
    for name in ("main.js", "map.css", "leaflet.js"):
        assert checked(client.get(f"/map/{name}"), paths["/map/{name}"]["get"], described) == 200
    z, x, y = tile_at(LONGITUDE, LATITUDE, ZOOM)
    for form in ("png", "geojson", "mvt"):
        operation = paths[f"/v1/tiles/{{z}}/{{x}}/{{y}}.{form}"]["get"]
        answer = client.get(f"/v1/tiles/{z}/{x}/{y}.{form}")
        assert checked(answer, operation, described) == 200
        known = client.get(f"/v1/tiles/{z}/{x}/{y}.{form}", headers={"If-None-Match": answer.headers["ETag"]})
        assert str(known.status_code) in operation["responses"]
        assert [it["name"] for it in operation["parameters"] if it["in"] == "path"] == ["z", "x", "y"]


# ---- the page ----


class Page(HTMLParser):
    """What a page loads, links to, and names."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.links: set[str] = set()
        self.names: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        given = dict(attrs)
        assert not {"src", "style", "onclick"} & set(given)
        if "href" in given:
            self.links.add(given["href"] or "")
        if "id" in given:
            self.names.add(given["id"] or "")


def test_the_page_tells_all_of_it_and_loads_nothing(client: FlaskClient, described: dict[str, Any]) -> None:
    answer = client.get("/docs")
    page = Page(answer.text)
    assert not {"script", "link", "img", "iframe"} & page.tags
    assert {link.removeprefix("#") for link in page.links if link.startswith("#")} <= page.names
    assert {link for link in page.links if not link.startswith("#")} == {"openapi.json"}
    assert {it["operationId"] for _, _, it in operations(described)} <= page.names
    (style,) = re.findall(r"<style>(.*?)</style>", answer.text, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    policy = answer.headers["Content-Security-Policy"]
    assert f"style-src 'sha256-{digest}'" in policy
    assert policy.startswith("default-src 'none'")
    assert answer.headers["X-Frame-Options"] == "DENY"

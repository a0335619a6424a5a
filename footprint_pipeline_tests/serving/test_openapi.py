"""The description and the service hold each other to their word: routes, examples, real answers, random requests."""

import base64
import hashlib
import json
import random
import re
from html.parser import HTMLParser
from typing import Any

import jsonschema
import pytest
from flask import Flask
from flask.testing import FlaskClient
from openapi_spec_validator import validate

from footprint_pipeline.footprints.geotiff import GeoTiffImagery
from footprint_pipeline.settings import Settings
from footprint_pipeline_tests.footprints.red_city import png, write_model
from footprint_pipeline_tests.serving.conftest import AREA, LATITUDE, LONGITUDE, ZOOM, FakeRegistry
from footprint_pipeline_tests.serving.test_upload import PICTURE
from serving.app import create_app
from serving.model_store import ModelStore
from serving.openapi import document

METHODS = ("get", "post")
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
    routes = {(rule.rule, method.lower()) for rule in app.url_map.iter_rules() for method in rule.methods}
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
    assert free == {"/", "/healthz", "/readyz", "/docs", "/openapi.json"}


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
    for path in ("/", "/healthz", "/readyz", "/v1/model", "/metrics", "/docs", "/openapi.json"):
        assert checked(client.get(path), paths[path]["get"], described) == 200
    assert checked(client.post("/v1/model/refresh"), paths["/v1/model/refresh"]["post"], described) == 200
    for accept in ("application/geo+json", "application/geo+json-seq", "application/x-ndjson"):
        answer = client.get(f"/v1/footprints?{place}", headers={"Accept": accept})
        assert checked(answer, paths["/v1/footprints"]["get"], described) == 200
    picture = client.post("/v1/footprints/image?gsd_m=0.5", data=png(PICTURE), content_type="image/png")
    assert checked(picture, paths["/v1/footprints/image"]["post"], described) == 200
    assert len(picture.json["features"]) == 1
    for form in ("", "?geometry=features"):
        answer = client.post(f"/predict/polygon{form}", json=PLACE)
        assert checked(answer, paths["/predict/polygon"]["post"], described) == 200
    assert checked(client.post("/predict/mask", json=PLACE), paths["/predict/mask"]["post"], described) == 200


# ---- random requests, made from the description ----

NASTY: list[Any] = [
    None, True, -1, 0, 1e308, -1e-308, "", "é\u0000", "1", [], {}, [[]], {"type": "Polygon"}, 2**70, "x" * 300,
    "../../etc/passwd", {"$ref": "#"}, [1, 2, 3, 4], "NaN",
]  # fmt: skip
NEAR = {
    "latitude": LATITUDE, "longitude": LONGITUDE, "zoom": ZOOM, "bbox": list(AREA),
    "coordinate": PLACE["coordinate"], "imagery": "city.tif",
}  # fmt: skip


class Maker:
    """Values of a schema, most of them right, some near it and some nothing of the kind."""

    def __init__(self, described: dict[str, Any], seed: int) -> None:
        self.schemas, self.random = described["components"]["schemas"], random.Random(seed)  # noqa: S311 - the same requests every time

    def value(self, schema: dict[str, Any], name: str = "") -> Any:
        chance = self.random.random()
        if chance < 0.04:
            return self.random.choice(NASTY)
        if chance < 0.6 and name in NEAR:
            return NEAR[name]
        if "$ref" in schema:
            return self.value(self.schemas[schema["$ref"].rpartition("/")[2]], name)
        for choice in ("anyOf", "oneOf"):
            if choice in schema:
                return self.value(self.random.choice(schema[choice]), name)
        if "const" in schema or "enum" in schema:
            return self.random.choice([schema.get("const"), *schema.get("enum", [])][0 if "const" in schema else 1 :])
        match schema.get("type"):
            case "integer" if name == "zoom":
                return self.random.choice([9, 10, 18, 19, 20])
            case "number" | "integer" as kind:
                low = schema.get("minimum", schema.get("exclusiveMinimum", -10))
                high = schema.get("maximum", schema.get("exclusiveMaximum", 1000))
                number = self.random.choice([low, high, self.random.uniform(low, high)])
                return int(number) if kind == "integer" else number
            case "string":
                return self.random.choice(["", "a", "city.tif", "http://127.0.0.1/x.png"])
            case "array":
                if "prefixItems" in schema:
                    return [self.value(each) for each in schema["prefixItems"]]
                count = self.random.randint(schema.get("minItems", 0), schema.get("minItems", 0) + 3)
                items = [self.value(schema["items"], name) for _ in range(count)]
                return [*items, items[0]] if items and self.random.random() < 0.7 else items  # rings are closed
            case "object":
                required = schema.get("required", [])
                made = {
                    part: self.value(its, part)
                    for part, its in schema.get("properties", {}).items()
                    if part in required or self.random.random() < 0.3
                }
                if self.random.random() < 0.05:
                    made["unheard_of"] = self.random.choice(NASTY)
                return made
        return None

    def query(self, operation: dict[str, Any]) -> dict[str, str]:
        made = {}
        for parameter in operation.get("parameters", []):
            if parameter["required"] or self.random.random() < 0.35:
                schema = parameter.get("schema") or parameter["content"]["application/json"]["schema"]
                value = self.value(schema, parameter["name"])
                comma_separated = isinstance(value, list) and "schema" in parameter
                made[parameter["name"]] = (
                    ",".join(map(str, value))
                    if comma_separated
                    else value
                    if isinstance(value, str)
                    else json.dumps(value)
                )
        return made

    def body(self, operation: dict[str, Any]) -> tuple[bytes, str] | None:
        content = operation.get("requestBody", {}).get("content")
        if content is None:
            return None
        media = self.random.choice([*content])
        if media == "application/json":
            text = json.dumps(self.value(content[media]["schema"]))
            return (text if self.random.random() < 0.95 else text[:-1]).encode(), media
        encoded = png(PICTURE)
        cut = self.random.randrange(len(encoded)) if self.random.random() < 0.5 else len(encoded)
        if media == "multipart/form-data":
            part = b'--x\r\nContent-Disposition: form-data; name="image"; filename="a.png"\r\n\r\n'
            return part + encoded[:cut] + b"\r\n--x--\r\n", f"{media}; boundary=x"
        return encoded[:cut], media


@pytest.fixture(scope="module")
def coarse_client(tmp_path_factory: pytest.TempPathFactory, city: GeoTiffImagery) -> FlaskClient:
    """A service whose model needs few pixels."""
    model = write_model(tmp_path_factory.mktemp("coarse"), gsd_m=2.0)
    cache = tmp_path_factory.mktemp("coarse-cache")
    store = ModelStore(FakeRegistry(model), alias="champion", cache=cache, threads=1)
    return create_app(Settings(), store=store, imagery=city).test_client()


@pytest.mark.parametrize("seed", range(3))
def test_random_requests_are_answered_as_described(
    coarse_client: FlaskClient, described: dict[str, Any], seed: int
) -> None:
    make = Maker(described, seed)
    seen: dict[str, set[int]] = {}
    for path, method, operation in operations(described):
        for _ in range(3 if "parameters" not in operation and "requestBody" not in operation else 20):
            body = make.body(operation)
            accept = make.random.choice([*operation["responses"]["200"]["content"], "*/*", "*/*", "text/csv", "é;q=x"])
            answer = coarse_client.open(
                path,
                method=method.upper(),
                query_string=make.query(operation),
                headers={"Accept": accept},
                **({"data": body[0], "content_type": body[1]} if body else {}),
            )
            status = checked(answer, operation, described)
            assert status < 500, (path, answer.text)
            seen.setdefault(path, set()).add(status)
    for path in ("/predict/polygon", "/v1/footprints", "/v1/footprints/image"):
        assert {200, 422} <= seen[path], "the requests have to be right now and then, and wrong"


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

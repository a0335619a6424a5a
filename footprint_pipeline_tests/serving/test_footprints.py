"""/v1/footprints: areas, forms of answers, options, limits."""

import json
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import numpy as np
import pytest
import shapely
from flask.testing import FlaskClient
from pyproj import Geod
from shapely.geometry import mapping, shape

from footprint_pipeline.footprints.extract import Extraction, extract
from footprint_pipeline.footprints.geotiff import GeoTiffImagery
from footprint_pipeline.footprints.tables import SUFFIXES
from footprint_pipeline.settings import Settings
from footprint_pipeline_tests.footprints.red_city import DEGREE_M, roof, write_city
from footprint_pipeline_tests.footprints.test_tables import assert_same, read_back
from footprint_pipeline_tests.serving.conftest import AREA, CITY, LATITUDE, LONGITUDE, ROOF, ZOOM, FakeRegistry, started
from footprint_pipeline_tests.serving.test_problems import assert_problem
from footprint_pipeline_tests.serving.test_tiles import CENTRE, url
from serving.app import create_app
from serving.model_store import ModelStore

URL = "/v1/footprints"
PLACE = {"coordinate": {"latitude": LATITUDE, "longitude": LONGITUDE}, "zoom": ZOOM}
X, Y = AREA.centre
SMALL = roof(X + 0.0003, Y, 8, 8)
BOX = [ROOF.left - 1e-4, ROOF.bottom - 1e-4, ROOF.right + 1e-4, ROOF.top + 1e-4]
TRIANGLE = shapely.Polygon([(X - 4e-4, Y - 3e-4), (X + 2e-4, Y - 3e-4), (X - 1e-4, Y + 5e-4)])


@pytest.fixture(scope="module")
def town(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two pictures of one place: before the small roof was built, and after, dated."""
    folder = tmp_path_factory.mktemp("town")
    write_city(folder / "before.tif", CITY, [ROOF])
    write_city(folder / "after.tif", CITY, [ROOF, SMALL])
    (folder / "sources.toml").write_text(
        '[before]\npath = "before.tif"\n'
        '[after]\npath = "after.tif"\ndate = "2024-05-01"\nattribution = "© the painter"\n'
    )
    return folder


@pytest.fixture(scope="module")
def town_client(store: ModelStore, town: Path) -> FlaskClient:
    return create_app(Settings(imagery_sources=town / "sources.toml"), store=store).test_client()


def roofs(answer) -> list[shapely.Polygon]:
    assert answer.status_code == 200, answer.text
    return [shape(feature["geometry"]) for feature in answer.json["features"]]


@pytest.mark.parametrize("area", [PLACE, {"bbox": BOX}, {"polygon": mapping(TRIANGLE)}])
def test_a_place_is_asked_for_by_coordinate_bbox_or_polygon(client: FlaskClient, area: dict) -> None:
    posted = client.post(URL, json=json.loads(json.dumps(area)))
    (found,) = roofs(posted)
    assert found.hausdorff_distance(shapely.box(*ROOF)) * DEGREE_M < 0.75
    assert posted.mimetype == "application/geo+json"
    assert (posted.json["numberMatched"], posted.json["numberReturned"]) == (1, 1)

    arguments = {**area.get("coordinate", {}), **{name: area[name] for name in ("zoom",) if name in area}}
    if "bbox" in area:
        arguments["bbox"] = ",".join(map(str, area["bbox"]))
    if "polygon" in area:
        arguments["polygon"] = json.dumps(area["polygon"])
    assert client.get(f"{URL}?{urlencode(arguments)}").json == posted.json


def test_heights_and_a_box_of_a_polygon_count_for_nothing(client: FlaskClient) -> None:
    flat = json.loads(json.dumps(mapping(TRIANGLE)))
    high = {"type": "Polygon", "bbox": [0, 0, 1, 1], "coordinates": [[[*at, 12.5] for at in flat["coordinates"][0]]]}
    (feature,) = client.post(URL, json={"polygon": flat}).json["features"]
    assert client.post(URL, json={"polygon": high}).json["features"] == [feature]
    assert client.get(URL, query_string={"polygon": json.dumps(high)}).json["features"] == [feature]


def test_a_building_counts_to_the_area_that_holds_its_centre(client: FlaskClient) -> None:
    west = {"bbox": [AREA.left, AREA.bottom, ROOF.left + 2e-5, AREA.top]}
    assert roofs(client.post(URL, json=west)) == []
    beside = shapely.Polygon([(X - 4e-4, Y), (X + 4e-4, Y + 1e-3), (X - 4e-4, Y + 1e-3)])  # its bbox holds the roof
    assert roofs(client.post(URL, json={"polygon": json.loads(json.dumps(mapping(beside)))})) == []


def test_areas_of_a_few_metres_are_answered(client: FlaskClient) -> None:
    tiny = 2e-6
    (found,) = roofs(client.post(URL, json={"bbox": [X - tiny, Y - tiny, X + tiny, Y + tiny]}))
    assert found.hausdorff_distance(shapely.box(*ROOF)) * DEGREE_M < 0.75
    assert roofs(client.post(URL, json={"bbox": [X + 2e-5, Y + 2e-5, X + 2.1e-5, Y + 2.1e-5]})) == []


def test_sources_are_chosen_by_name_and_tell_their_date(town_client: FlaskClient) -> None:
    assert len(roofs(town_client.post(URL, json=PLACE))) == 1
    after = town_client.post(URL, json={**PLACE, "imagery": "after"})
    assert len(roofs(after)) == 2
    properties = after.json["features"][0]["properties"]
    assert (properties["imagery"], properties["imagery_date"]) == ("after", "2024-05-01")
    assert properties["imagery_gsd_m"] == pytest.approx(0.5, rel=0.1)
    assert after.json["attribution"] == "© the painter"
    problem = assert_problem(town_client.post(URL, json={**PLACE, "imagery": "tomorrow"}), 422, "'tomorrow'")
    assert problem["fix"] == "Ask for one of: before, after."
    assert problem["type"] == "urn:footprint:unknown-imagery"


def test_small_buildings_and_more_than_the_limit_are_left_out(town_client: FlaskClient) -> None:
    question = {**PLACE, "imagery": "after"}
    (large,) = roofs(town_client.post(URL, json={**question, "min_area_m2": 100}))
    assert large.area > shapely.box(*SMALL).area
    limited = town_client.post(URL, json={**question, "limit": 1})
    assert len(roofs(limited)) == 1
    assert (limited.json["numberMatched"], limited.json["numberReturned"]) == (2, 1)
    both = [feature["properties"]["confidence"] for feature in town_client.post(URL, json=question).json["features"]]
    assert both == sorted(both, reverse=True)


def test_regularised_outlines_are_told_apart_from_raw_ones(client: FlaskClient) -> None:
    (raw,), (regularised,) = (
        client.post(URL, json={**PLACE, "outline": outline}).json["features"] for outline in ("raw", "regularised")
    )
    assert (raw["properties"]["outline"], regularised["properties"]["outline"]) == ("raw", "regularised")
    assert raw["id"] == regularised["id"]  # the same building
    assert raw["properties"]["confidence"] == regularised["properties"]["confidence"]
    found = shape(regularised["geometry"])
    assert shapely.get_num_coordinates(found) == 5
    area_m2 = abs(Geod(ellps="WGS84").geometry_area_perimeter(found)[0])
    assert regularised["properties"]["area_m2"] == pytest.approx(area_m2, rel=1e-3)
    assert regularised["properties"]["area_m2"] != raw["properties"]["area_m2"]
    (again,) = client.post(URL, json={"bbox": list(AREA), "outline": "regularised"}).json["features"]
    assert again["id"] == regularised["id"]


def test_ids_stay_over_runs_and_forms_of_asking(model_folder: Path, city: GeoTiffImagery, tmp_path: Path) -> None:
    ids = set()
    for run in ("one", "two"):
        fresh = started(FakeRegistry(model_folder), tmp_path / run)
        client = create_app(Settings(), store=fresh, imagery=city).test_client()
        for question in (PLACE, {**PLACE, "limit": 1}, {"bbox": list(AREA)}):
            (feature,) = client.post(URL, json=question).json["features"]
            ids.add(feature["id"])
    assert len(ids) == 1


def test_the_form_of_the_answer_is_chosen_by_accept(client: FlaskClient) -> None:
    def ask(accept: str):
        return client.post(URL, json=PLACE, headers={"Accept": accept})

    (feature,) = ask("application/geo+json").json["features"]
    for accept in ("*/*", "application/json", "text/html, */*;q=0.1", "application/geo+json; charset=utf-8",
                   "text/html, application/json; charset=utf-8; q=0.2"):  # fmt: skip
        assert ask(accept).mimetype == "application/geo+json", accept
    lines = ask("application/x-ndjson")
    assert (lines.mimetype, lines.text[-1]) == ("application/x-ndjson", "\n")
    assert [json.loads(line) for line in lines.text.splitlines()] == [feature]
    sequence = ask("application/x-ndjson;q=0.5, application/geo+json-seq")
    assert sequence.mimetype == "application/geo+json-seq"
    assert sequence.text[0] == "\x1e"
    assert json.loads(sequence.text[1:]) == feature
    assert "Accept" in sequence.headers["Vary"]


@pytest.mark.parametrize("accept", ["application/flatgeobuf", "text/html"])
def test_other_forms_are_406_and_say_which_there_are(client: FlaskClient, accept: str) -> None:
    problem = assert_problem(client.get(f"{URL}?bbox=1,2,3,4", headers={"Accept": accept}), 406, accept)
    assert "application/geo+json, application/geo+json-seq, application/x-ndjson" in problem["fix"]
    assert "application/vnd.apache.parquet" in problem["fix"]


def test_how_many_match_does_not_depend_on_the_limit(town_client: FlaskClient, monkeypatch: pytest.MonkeyPatch) -> None:
    def with_a_sliver(*given: Any, **how: Any) -> Extraction:
        found = extract(*given, **how)
        left, bottom, _, _ = np.round(found.polygons_wgs84[1].bounds, 7)
        found.polygons_wgs84[1] = shapely.box(left, bottom, left + 2e-8, bottom + 2e-4)  # too thin to be written down
        return found

    monkeypatch.setattr("serving.footprints.extract", with_a_sliver)
    for limit, told in ((None, 1), (1, 1), (2, 1)):
        answer = town_client.post(URL, json={**PLACE, "imagery": "after", "min_area_m2": 0, "limit": limit}).json
        assert (answer["numberMatched"], answer["numberReturned"]) == (1, told)


@pytest.mark.parametrize("form", SUFFIXES)
@pytest.mark.parametrize("limit", [1, 10])
def test_files_hold_what_geojson_says(town_client: FlaskClient, form: str, limit: int, tmp_path: Path) -> None:
    question = {**PLACE, "imagery": "after", "limit": limit}
    answer = town_client.post(URL, json=question, headers={"Accept": form})
    assert (answer.status_code, answer.mimetype) == (200, form)
    assert answer.headers["Content-Disposition"] == f"attachment; filename=footprints{SUFFIXES[form]}"
    assert answer.headers["X-Model-Version"] == "3"
    plain = town_client.post(URL, json=question)
    frame = read_back(answer.data, form, tmp_path)
    assert_same(frame, plain.json)
    assert len(frame) == min(limit, 2)
    assert "Content-Disposition" not in plain.headers


@pytest.mark.parametrize("form", SUFFIXES)
def test_files_can_be_empty(town_client: FlaskClient, form: str, tmp_path: Path) -> None:
    question = {**PLACE, "min_area_m2": 1e5}
    answer = town_client.post(URL, json=question, headers={"Accept": form})
    assert len(read_back(answer.data, form, tmp_path)) == 0


def test_areas_that_are_too_large_are_422_and_say_how_large_they_may_be(client: FlaskClient) -> None:
    for box in ([X, Y, X + 0.5, Y + 0.5], [X, Y, X + 1, Y + 1e-5], [-180, -85, 180, 85]):
        problem = assert_problem(client.post(URL, json={"bbox": box}), 422, "16,777,216 px at most")
        assert problem["type"] == "urn:footprint:area-too-large"
        assert "4.19 km² at most, 8.192 km to a side" in problem["fix"]


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({}, "exactly one of coordinate"),
        ({**PLACE, "bbox": BOX}, "exactly one of coordinate"),
        ({"bbox": BOX, "zoom": 17}, "zoom goes with a coordinate"),
        ({"bbox": BOX[:3]}, "bbox"),
        ({"bbox": [179, 1, -179, 2]}, "antimeridian"),
        ({"bbox": [1, 2, 2, 2]}, "south < north"),
        ({"bbox": [1, 2, 3, 86]}, "bbox.3"),
        ({"polygon": {"type": "Point", "coordinates": [1, 2]}}, "polygon"),
        ({"polygon": {"type": "Polygon", "coordinates": [[[0, 0], [0, 1], [1, 1], [1, 0]]]}}, "not closed"),
        ({"polygon": {"type": "Polygon", "coordinates": [[[0, 0], [1, 1], [0, 1], [1, 0], [0, 0]]]}}, "Self-inter"),
        ({"polygon": {"type": "Polygon", "coordinates": [[[0, 0], [1, 1], [0, 0]]]}}, "at least 4"),
        ({"polygon": {"type": "Polygon", "coordinates": [], "crs": "x"}}, "crs"),
        ({"polygon": {"type": "Polygon", "coordinates": [[[0, 0, True], [0, 1], [1, 1], [0, 0]]]}}, "coordinates.0.0"),
        ({"polygon": {"type": "Polygon", "coordinates": [[[0, 0, 1, 1], [0, 1], [1, 1], [0, 0]]]}}, "coordinates.0.0"),
        ({"polygon": {"type": "Polygon", "coordinates": [[[0, 91, 5], [0, 1], [1, 1], [0, 91]]]}}, "coordinates.0.0.1"),
        ({"polygon": {"type": "Polygon", "bbox": [1, 2], "coordinates": []}}, "bbox"),
        ({"polygon": {"type": "Polygon", "coordinates": [[[0, 0]] * 6000]}}, "6,000 positions; it may have 5,000"),
        ({**PLACE, "min_area_m2": -1}, "min_area_m2"),
        ({**PLACE, "limit": 0}, "limit"),
        ({**PLACE, "limit": 1.5}, "limit"),
        ({**PLACE, "imagery": ""}, "imagery"),
        ({**PLACE, "outline": "round"}, "outline"),
        ({**PLACE, "format": "csv"}, "format"),
    ],
)
def test_what_does_not_fit_is_422_and_says_why(client: FlaskClient, body: dict, words: str) -> None:
    problem = assert_problem(client.post(URL, json=body), 422, words)
    assert "Value error" not in problem["detail"]  # Pydantic's word for a rule of ours


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("bbox=1,2,3", "bbox"),
        ("bbox=1,2,3,x", "bbox.3"),
        ("bbox=1,2,3,4&bbox=1,2,3,4", "given 2 times"),
        ("latitude=1", "longitude"),
        ("latitude=1_0&longitude=2", "latitude: '1_0' holds a '_'"),
        ("latitude=1&longitude=2&zoom=1_7", "zoom: '1_7' holds a '_'"),
        ("latitude=1&longitude=2&imagery=no_1_such", "no_1_such"),
        ("latitude=1&longitude=2&colour=red", "colour"),
        ("polygon=Polygon", "not JSON"),
        ("polygon=" + "[" * 10_000, "not JSON"),
        ("", "exactly one of coordinate"),
    ],
)
def test_query_strings_are_checked_alike(client: FlaskClient, query: str, words: str) -> None:
    assert_problem(client.get(f"{URL}?{query}"), 422, words)


def test_a_credit_that_no_header_can_carry_is_told_as_far_as_it_can(store: ModelStore, city_path: Path) -> None:
    imagery = GeoTiffImagery(city_path, attribution="© Maxar 日本")
    answer = create_app(Settings(), store=store, imagery=imagery).test_client().get(url(CENTRE[0], "png"))
    assert answer.headers["X-Imagery-Attribution"] == "© Maxar ??"

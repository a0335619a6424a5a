"""/v1/tiles: what is on a tile, that neighbours share a prediction, and that nothing is sent twice."""

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import mapbox_vector_tile
import numpy as np
import pytest
import shapely
from flask.testing import FlaskClient
from shapely.geometry import shape

from footprint_pipeline.footprints.geotiff import GeoTiffImagery
from footprint_pipeline.footprints.map_tiles import EXTENT, block_of
from footprint_pipeline.footprints.mercator import Bounds, Tile, tile_at, to_wgs84
from footprint_pipeline.settings import Settings
from footprint_pipeline_tests.footprints.red_city import DEGREE_M, GSD_M, roof, write_city
from footprint_pipeline_tests.serving.conftest import AREA, CITY, ROOF, Counted, FakeRegistry, started
from footprint_pipeline_tests.serving.test_problems import assert_problem
from serving import tiles
from serving.app import create_app
from serving.model_store import ModelStore

ZOOM = 19
X, Y = AREA.centre  # four tiles of zoom 19 meet there, in the middle of the one roof


def at(longitude: float, latitude: float, zoom: int = ZOOM) -> Tile:
    return tile_at(longitude, latitude, zoom)


def url(tile: Tile, form: str, query: str = "") -> str:
    return f"/v1/tiles/{tile.z}/{tile.x}/{tile.y}.{form}{query}"


CENTRE = [at(X + dx, Y + dy) for dx in (-1e-6, 1e-6) for dy in (-1e-6, 1e-6)]


@pytest.fixture
def client(store: ModelStore, counted: Counted) -> FlaskClient:
    return create_app(Settings(), store=store, imagery=counted).test_client()


def alpha(answer) -> np.ndarray:
    assert (answer.status_code, answer.mimetype) == (200, "image/png")
    image = cv2.imdecode(np.frombuffer(answer.data, np.uint8), cv2.IMREAD_UNCHANGED)
    assert image.shape == (256, 256, 4)
    return image[..., 3]


def outlines(answer, tile: Tile) -> dict[str, shapely.Geometry]:
    """The polygons of a vector tile in degrees, by id."""
    assert (answer.status_code, answer.mimetype) == (200, "application/vnd.mapbox-vector-tile")
    area = to_wgs84(tile.bounds_3857)
    scale = np.array([(area.right - area.left) / EXTENT, (area.bottom - area.top) / EXTENT])
    layer = mapbox_vector_tile.decode(answer.data, default_options={"y_coord_down": True})["footprints"]
    return {
        each["properties"]["id"]: shapely.transform(
            shape(each["geometry"]), lambda points: points * scale + [area.left, area.top]
        )
        for each in layer["features"]
    }


def test_four_tiles_meet_in_the_roof() -> None:
    assert len(set(CENTRE)) == 4
    assert all(shapely.box(*to_wgs84(tile.bounds_3857)).intersects(shapely.box(*ROOF)) for tile in CENTRE)
    assert len({block_of(tile, GSD_M) for tile in CENTRE}) == 1


@pytest.mark.parametrize("zoom", [17, 18, 19, 21])
def test_a_png_is_as_opaque_as_a_building_is_probable(client: FlaskClient, zoom: int) -> None:
    for dx in (-1e-6, 1e-6):
        tile = at(X + dx, Y + 1e-6, zoom)
        found = alpha(client.get(url(tile, "png")))
        area = to_wgs84(tile.bounds_3857)
        rows, columns = np.mgrid[0.5:256, 0.5:256] / 256
        x, y = area.left + columns * (area.right - area.left), area.top + rows * (area.bottom - area.top)
        pixel_m = (area.top - area.bottom) / 256 * DEGREE_M
        hair = (GSD_M + max(GSD_M, pixel_m)) / DEGREE_M  # at the edge imagery and probability are resampled
        inside = (x > ROOF.left + hair) & (x < ROOF.right - hair) & (y > ROOF.bottom + hair) & (y < ROOF.top - hair)
        outside = (x < ROOF.left - hair) | (x > ROOF.right + hair) | (y < ROOF.bottom - hair) | (y > ROOF.top + hair)
        assert inside.any()
        sure = 255 / (1 + np.exp(-10.0))  # what the model says of red and of grey
        assert (found[inside] == round(sure)).all()
        assert (found[outside] == 0).all()
        binary = alpha(client.get(url(tile, "png", "?tolerance=0.5")))
        assert set(np.unique(binary)) <= {0, 255}
        assert (binary == np.where(found > 127, 255, 0)).mean() > 0.999


def test_tiles_take_the_turns_and_the_answers_that_others_take(client: FlaskClient) -> None:
    answer = client.get(url(CENTRE[0], "png"))
    assert answer.headers["X-Model-Version"] == "3"
    assert answer.headers["X-Imagery-Attribution"] == "© the painter"
    assert "predict;dur=" in answer.headers["Server-Timing"]


def test_a_building_is_whole_and_in_one_geojson_tile_only(client: FlaskClient) -> None:
    found = [feature for tile in CENTRE for feature in client.get(url(tile, "geojson")).json["features"]]
    (feature,) = found
    assert shape(feature["geometry"]).hausdorff_distance(shapely.box(*ROOF)) * DEGREE_M < 0.75
    assert feature["properties"]["model_version"] == "3"
    assert client.get(url(CENTRE[0], "geojson")).json["attribution"] == "© the painter"
    assert [client.get(url(tile, "geojson", "?min_area_m2=1000")).json["features"] for tile in CENTRE] == [[]] * 4


def test_outlines_are_squared_for_the_asking(client: FlaskClient) -> None:
    kinds = {}
    for query in ("", "?outline=regularised", "?outline=raw"):
        answers = [client.get(url(tile, "geojson", query)) for tile in CENTRE]
        ((feature,),) = (answer.json["features"] for answer in answers if answer.json["features"])
        kinds[query] = feature["properties"]["outline"], answers[0].headers["ETag"]
    assert [kind for kind, _ in kinds.values()] == ["raw", "regularised", "raw"]
    assert kinds[""] == kinds["?outline=raw"] != kinds["?outline=regularised"]


def test_a_building_is_on_every_vector_tile_it_reaches_and_the_same_there(client: FlaskClient) -> None:
    answers = [client.get(url(tile, "geojson")).json["features"] for tile in CENTRE]
    ((feature,),) = (features for features in answers if features)
    parts = []
    for tile in CENTRE:
        found = outlines(client.get(url(tile, "mvt")), tile)
        assert list(found) == [feature["id"]]
        parts.append(found[feature["id"]].intersection(shapely.box(*to_wgs84(tile.bounds_3857))))
    whole = shape(feature["geometry"])
    assert shapely.union_all(parts).symmetric_difference(whole).area < 0.005 * whole.area


@pytest.fixture(scope="module")
def seam(tmp_path_factory: pytest.TempPathFactory) -> tuple[GeoTiffImagery, Bounds, Tile, Tile]:
    """A roof across the edge of two blocks; most of it lies in the western one."""
    west = block_of(at(X, Y), GSD_M)
    east = Tile(west.z, west.x + 1, west.y)
    edge = to_wgs84(east.bounds_3857)
    across = roof(edge.left - 2e-5, edge.centre[1] + 2e-4, 20, 12)
    area = Bounds(edge.left - 1e-3, edge.centre[1] - 1e-3, edge.left + 1e-3, edge.centre[1] + 1e-3)
    path = write_city(tmp_path_factory.mktemp("seam") / "seam.tif", area, [across])
    tiles = [at(edge.left + dx, edge.centre[1] + 2e-4) for dx in (-1e-6, 1e-6)]
    assert [block_of(tile, GSD_M) for tile in tiles] == [west, east]
    return GeoTiffImagery(path), across, *tiles


def test_a_building_across_two_blocks_is_drawn_in_both(store: ModelStore, seam) -> None:
    imagery, across, west, east = seam
    client = create_app(Settings(), store=store, imagery=imagery).test_client()
    parts = []
    for tile in (west, east):
        (outline,) = outlines(client.get(url(tile, "mvt")), tile).values()
        parts.append(outline.intersection(shapely.box(*to_wgs84(tile.bounds_3857))))
    assert shapely.union_all(parts).hausdorff_distance(shapely.box(*across)) * DEGREE_M < 0.75
    assert [len(client.get(url(tile, "geojson")).json["features"]) for tile in (west, east)] == [1, 0]


def test_the_tiles_of_a_block_share_one_prediction(client: FlaskClient, counted: Counted) -> None:
    block = block_of(at(X, Y), GSD_M)
    count = 2 ** (18 - block.z)
    tiles = [Tile(18, block.x * count + i, block.y * count + j) for i in range(count) for j in range(count)]
    assert len(tiles) >= 16

    def ask(tile: Tile) -> int:
        one = client.application.test_client()
        return max(one.get(url(tile, form)).status_code for form in ("png", "geojson", "mvt"))

    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(ask, tiles)) == {200}
    assert counted.read_times == 1
    answers = client.get("/metrics").text
    assert 'footprint_answers_total{model="red-roofs",version="3"} 1' in answers  # one look at the imagery
    told = dict(line.split() for line in answers.splitlines() if line.startswith("footprint_prediction_cache_"))
    assert told["footprint_prediction_cache_misses_total"] == "2"  # of the raster, and of what is drawn on it
    assert int(told["footprint_prediction_cache_hits_total"]) == 3 * len(tiles) - 1
    assert int(told["footprint_prediction_cache_bytes"]) > 1e6


def test_without_a_cache_a_tile_is_predicted_alone(store: ModelStore, counted: Counted) -> None:
    client = create_app(Settings(prediction_cache_mb=0), store=store, imagery=counted).test_client()
    for tile in CENTRE[:2]:
        assert alpha(client.get(url(tile, "png"))).any()
        assert len(outlines(client.get(url(tile, "mvt")), tile)) == 1
    assert counted.read_times == 4


@pytest.mark.parametrize("form", ["png", "geojson", "mvt"])
def test_who_has_a_tile_is_told_so_without_a_prediction(
    client: FlaskClient, counted: Counted, model_folder: Path, tmp_path: Path, form: str
) -> None:
    first = client.get(url(CENTRE[0], form))
    assert first.headers["Cache-Control"] == "private, max-age=600"
    etag, reads = first.headers["ETag"], counted.read_times
    for known in (etag, f"W/{etag}", f'"other", {etag}'):
        again = client.get(url(CENTRE[0], form), headers={"If-None-Match": known})
        assert (again.status_code, again.data, again.headers["ETag"]) == (304, b"", etag)
        assert "Cache-Control" in again.headers
    assert counted.read_times == reads
    assert client.get("/v1/tiles/2/0/0.png", headers={"If-None-Match": "*"}).status_code == 422
    others = [url(CENTRE[1], form), url(CENTRE[0], form, "?tolerance=0.9"), url(CENTRE[0], form, "?min_area_m2=9")]
    for other in others:
        answer = client.get(other, headers={"If-None-Match": etag})
        assert answer.status_code == 200
        assert answer.headers["ETag"] != etag
    next_store = started(FakeRegistry(model_folder, "4"), tmp_path)
    swapped = create_app(Settings(), store=next_store, imagery=counted).test_client()
    answer = swapped.get(url(CENTRE[0], form), headers={"If-None-Match": etag})
    assert answer.status_code == 200


def test_sources_are_chosen_by_name(store: ModelStore, tmp_path: Path) -> None:
    write_city(tmp_path / "before.tif", CITY, [])
    write_city(tmp_path / "after.tif", CITY, [ROOF])
    (tmp_path / "sources.toml").write_text('[before]\npath = "before.tif"\n[after]\npath = "after.tif"\n')
    client = create_app(Settings(imagery_sources=tmp_path / "sources.toml"), store=store).test_client()
    before, after = (client.get(url(CENTRE[0], "png", f"?imagery={name}")) for name in ("before", "after"))
    assert not alpha(before).any()
    assert alpha(after).any()
    assert before.headers["ETag"] != after.headers["ETag"]
    assert_problem(client.get(url(CENTRE[0], "png", "?imagery=never")), 422, "'never'")


@pytest.mark.parametrize("form", ["png", "geojson", "mvt"])
def test_what_cannot_be_drawn_is_a_problem(client: FlaskClient, form: str) -> None:
    large = assert_problem(client.get(url(at(X, Y, 13), form)), 422, "16,777,216 px at most")
    assert large["type"] == "urn:footprint:area-too-large"
    assert_problem(client.get(url(at(X + 1, Y), form)), 404, "no imagery")
    for path in ("25/0/0", "3/8/0", "3/0/8", f"18/{10**30}/0", f"{10**30}/0/0"):
        assert_problem(client.get(f"/v1/tiles/{path}.{form}"), 422, "There is no tile")
    assert_problem(client.get(f"/v1/tiles/18/-1/0.{form}"), 404)
    assert_problem(client.get(url(CENTRE[0], form, "?colour=red")), 422, "colour")
    assert_problem(client.get(url(CENTRE[0], form, "?tolerance=2")), 422, "tolerance")


@pytest.mark.parametrize("form", ["png", "geojson", "mvt"])
def test_a_tile_of_yesterday_is_drawn_anew(client: FlaskClient, monkeypatch: pytest.MonkeyPatch, form: str) -> None:
    etag = client.get(url(CENTRE[0], form)).headers["ETag"]
    now = time.time()
    monkeypatch.setattr(tiles.time, "time", lambda: now + 86_400)
    answer = client.get(url(CENTRE[0], form), headers={"If-None-Match": etag})
    assert answer.status_code == 200
    assert answer.headers["ETag"] != etag


def test_a_png_of_a_tolerance_is_opaque_where_a_building_is_at_that_tolerance(client: FlaskClient) -> None:
    probability = alpha(client.get(url(CENTRE[0], "png"))) / 255
    strict, lax = (alpha(client.get(url(CENTRE[0], "png", f"?tolerance={each}"))) for each in (0.1, 0.9))
    sure = np.abs(probability - 0.9) > 0.01, np.abs(probability - 0.1) > 0.01
    assert np.array_equal((strict > 0)[sure[0]], (probability > 0.9)[sure[0]])
    assert np.array_equal((lax > 0)[sure[1]], (probability > 0.1)[sure[1]])
    assert 0 < (strict > 0).sum() < (lax > 0).sum()


def test_where_nothing_is_remembered_no_more_than_the_tile_is_predicted(
    store: ModelStore, counted: Counted, monkeypatch: pytest.MonkeyPatch
) -> None:
    widths: list[int] = []
    monkeypatch.setattr(counted, "read", lambda *at: widths.append(at[2]) or counted.imagery.read(*at))
    for megabytes in (64, 0):
        settings = Settings(prediction_cache_mb=megabytes)
        create_app(settings, store=store, imagery=counted).test_client().get(url(CENTRE[0], "png"))
    assert widths[0] > 1.5 * widths[1]

"""Map tiles: which block they are cut from, and what is on them, decoded again."""

import cv2
import mapbox_vector_tile
import numpy as np
import pytest
import shapely
from shapely.geometry import mapping, shape

from footprint_pipeline.footprints.domain import LEVELS, InputProfile
from footprint_pipeline.footprints.extract import Raster, Stages
from footprint_pipeline.footprints.map_tiles import (
    BLOCK_PX,
    BUFFER,
    COLOUR,
    EXTENT,
    _areas,
    block_of,
    centred_in,
    png,
    probability_of,
    vector_tile,
)
from footprint_pipeline.footprints.mercator import Bounds, Tile, ground_scale, tile_at, tile_side, to_wgs84

TILE = tile_at(-43.2, -22.9, 18)
AREA = to_wgs84(TILE.bounds_3857)


def side_px(tile: Tile, gsd_m: float) -> float:
    return tile_side(tile.z) * ground_scale(tile.bounds_3857) / gsd_m


@pytest.mark.parametrize("gsd_m", [0.3, 0.5, 2.0])
@pytest.mark.parametrize("latitude", [0.0, 51.0, -77.0])
def test_every_tile_of_a_block_has_that_block(gsd_m: float, latitude: float) -> None:
    block = block_of(tile_at(10.0, latitude, 19), gsd_m)
    assert side_px(block, gsd_m) <= BLOCK_PX
    above = Tile(block.z - 1, block.x // 2, block.y // 2)
    assert side_px(above, gsd_m) > BLOCK_PX
    for deeper in (1, 2, 3):
        first, count = Tile(block.z + deeper, block.x << deeper, block.y << deeper), 2**deeper
        tiles = [Tile(first.z, first.x + i, first.y + j) for i in (0, count - 1) for j in (0, count - 1)]
        assert {block_of(tile, gsd_m) for tile in tiles} == {block}
        assert block_of(Tile(first.z, first.x + count, first.y), gsd_m) != block


def test_a_coarse_tile_and_one_by_itself_are_their_own_block() -> None:
    coarse = tile_at(10.0, 0.0, 14)
    assert side_px(coarse, 0.5) > BLOCK_PX
    assert block_of(coarse, 0.5) == coarse
    assert block_of(TILE, 0.5, most_px=0) == TILE


def raster(padded: np.ndarray, block: Tile, halo_px: int) -> Raster:
    profile = InputProfile(np.zeros((3, LEVELS), int))
    left, bottom, right, top = block.bounds_3857
    margin = halo_px * (right - left) / (len(padded) - 2 * halo_px)
    covered = Bounds(left - margin, bottom - margin, right + margin, top + margin)
    return Raster(padded[..., None], covered, block.bounds_3857, "painted", Stages(), profile)


def test_probabilities_of_the_same_grid_stay_as_they_are() -> None:
    drawn = np.random.default_rng(1).random((2 * 256 + 16, 2 * 256 + 16), np.float32)
    block = Tile(17, TILE.x // 2, TILE.y // 2)
    for tile in (Tile(18, 2 * block.x + 1, 2 * block.y), Tile(18, 2 * block.x, 2 * block.y + 1)):
        top, left = 8 + 256 * (tile.y % 2), 8 + 256 * (tile.x % 2)
        found = probability_of(raster(drawn, block, 8), tile.bounds_3857)
        assert np.abs(found - drawn[top : top + 256, left : left + 256]).max() < 1e-5


def test_neighbouring_tiles_continue_each_other_at_any_scale() -> None:
    rows, columns = np.mgrid[0:333, 0:333] / 333
    drawn = ((rows + columns) / 2).astype(np.float32)  # a slope that every scale shows alike
    block = Tile(16, TILE.x // 4, TILE.y // 4)
    for zoom in (16, 17, 18, 20):
        scale = 2 ** (zoom - 16)
        whole = [
            probability_of(raster(drawn, block, 10), Tile(zoom, block.x * scale + i, block.y * scale).bounds_3857)
            for i in range(min(2, scale))
        ]
        pixel = 313 / 256 / scale  # of the tile, in those of the raster, whose halo is 10 wide
        steps = np.diff(np.hstack(whole), axis=1)
        assert np.allclose(steps, pixel / 333 / 2, rtol=0.1 if pixel > 1 else 1e-3, atol=1e-6)
        assert whole[0][0, 0] == pytest.approx((10 + pixel / 2 - 0.5) / 333, abs=3e-4)


def test_a_png_is_as_opaque_as_it_is_told() -> None:
    opacity = np.linspace(0, 1, 256 * 256, dtype=np.float32).reshape(256, 256)
    image = cv2.imdecode(np.frombuffer(png(opacity), np.uint8), cv2.IMREAD_UNCHANGED)
    assert (image.shape, image.dtype) == ((256, 256, 4), np.uint8)
    assert (image[..., 3] == np.rint(opacity * 255)).all()
    assert (image[..., :3] == COLOUR[::-1]).all()


def feature(number: int, polygon: shapely.Polygon) -> dict:
    properties = {"confidence": 0.5 + number / 100, "model": "red-roofs", "tolerance": 0.5}
    return {"type": "Feature", "id": f"{number:016x}", "geometry": mapping(polygon), "properties": properties}


def decoded(tile: Tile, polygons: list[shapely.Polygon]) -> dict[str, tuple[shapely.Geometry, dict]]:
    """What a vector tile says: id → outline in degrees and properties."""
    features = [feature(number, polygon) for number, polygon in enumerate(polygons)]
    encoded = vector_tile(features, np.array(polygons, object), tile)
    layers = mapbox_vector_tile.decode(encoded, default_options={"y_coord_down": True})
    assert set(layers) == {"footprints"}
    assert layers["footprints"]["extent"] == EXTENT
    area, found = to_wgs84(tile.bounds_3857), {}
    scale = np.array([(area.right - area.left) / EXTENT, (area.bottom - area.top) / EXTENT])
    for each in layers["footprints"]["features"]:
        outline = shapely.transform(shape(each["geometry"]), lambda points: points * scale + [area.left, area.top])
        found[each["properties"].pop("id")] = outline, each["properties"]
    return found


def test_a_vector_tile_holds_outlines_with_their_holes_and_properties() -> None:
    x, y = AREA.centre
    court = shapely.box(x, y, x + 2e-4, y + 1e-4).difference(shapely.box(x + 5e-5, y + 2e-5, x + 1e-4, y + 5e-5))
    shed = shapely.box(x - 2e-4, y - 2e-4, x - 1e-4, y - 1e-4)
    found = decoded(TILE, [court, shed])
    for number, polygon in enumerate((court, shed)):
        outline, properties = found[f"{number:016x}"]
        assert outline.hausdorff_distance(polygon) < (AREA.right - AREA.left) / EXTENT
        assert outline.symmetric_difference(polygon).area < 0.005 * polygon.area
        assert properties == feature(number, polygon)["properties"]


def test_what_crosses_an_edge_is_drawn_on_every_tile_it_reaches_and_joins_there() -> None:
    corner = np.array([AREA.right, AREA.bottom])
    across = shapely.box(*(corner - 1e-4), *(corner + 7e-5))
    four = [Tile(18, TILE.x + i, TILE.y + j) for i in (0, 1) for j in (0, 1)]
    parts = []
    for tile in four:
        outline, _ = decoded(tile, [across])[f"{0:016x}"]
        area = to_wgs84(tile.bounds_3857)
        margin = BUFFER / EXTENT * (area.right - area.left)
        assert shapely.box(*area).buffer(1.01 * margin, join_style="mitre").contains(outline)
        parts.append(outline.intersection(shapely.box(*area)))
    assert shapely.union_all(parts).symmetric_difference(across).area < 0.005 * across.area
    assert decoded(Tile(18, TILE.x - 1, TILE.y), [across]) == {}


def test_what_lies_across_the_antimeridian_is_drawn_on_the_tiles_of_both_sides() -> None:
    west, east = Tile(18, 2**18 - 1, TILE.y), Tile(18, 0, TILE.y)
    y = AREA.centre[1]
    for turn in (-360.0, 0.0):  # a polygon lies on one side of the map or on the other
        across = shapely.box(180 + turn - 2e-4, y, 180 + turn + 1e-4, y + 1e-4)
        widths = [
            shapely.box(*to_wgs84(tile.bounds_3857)).intersection(decoded(tile, [across])[f"{0:016x}"][0]).bounds
            for tile in (west, east)
        ]
        assert [right - left for left, _, right, _ in widths] == pytest.approx([2e-4, 1e-4], rel=0.02)


def test_what_is_smaller_than_a_unit_and_what_there_is_not_are_left_out() -> None:
    x, y = AREA.centre
    assert decoded(tile_at(x, y, 10), [shapely.box(x, y, x + 1e-6, y + 1e-6)]) == {}
    assert decoded(TILE, []) == {}
    assert centred_in(np.empty(0, object), TILE).tolist() == []


def test_a_polygon_is_centred_in_exactly_one_tile() -> None:
    around = [Tile(18, TILE.x + i, TILE.y + j) for i in (-1, 0, 1) for j in (-1, 0, 1)]
    for x, y in [AREA.centre, (AREA.left, AREA.top), (AREA.right, AREA.bottom), (AREA.left, AREA.centre[1])]:
        polygon = np.array([shapely.Point(x, y).buffer(1e-5)], object)
        assert sum(bool(centred_in(polygon, tile)[0]) for tile in around) == 1


def test_a_polygon_on_the_antimeridian_is_centred_in_exactly_one_tile() -> None:
    leg = np.array([(-12, 0), (-12, 1), (0, 1), (0, 10), (11.9, 10), (11.9, 0)]) * 1e-5  # its box's middle is west
    for turn in (-360.0, 0.0):
        place = np.array([180 + turn, AREA.centre[1]])
        polygon = np.array([shapely.Polygon(leg + place)], object)
        tiles = [Tile(18, x, TILE.y + j) for x in (0, 2**18 - 1) for j in (-1, 0, 1)]
        assert [tile.x for tile in tiles if centred_in(polygon, tile)[0]] == [0]


def test_an_outline_that_is_not_valid_in_the_map_is_drawn_as_far_as_it_is() -> None:
    x, y = AREA.centre
    bow_tie = shapely.Polygon([(x, y), (x + 1e-4, y + 1e-4), (x + 1e-4, y), (x, y + 1e-4)])
    spike = shapely.Polygon([(x, y), (x + 1e-4, y), (x + 1e-4, y + 1e-4), (x + 1e-4, y - 1e-4)])
    house = shapely.box(x + 2e-4, y, x + 3e-4, y + 1e-4)
    found = decoded(TILE, [bow_tie, spike, house])
    assert found[f"{0:016x}"][0].area == pytest.approx(5e-9, rel=0.05)
    assert found[f"{2:016x}"][0].area == pytest.approx(1e-8, rel=0.05)
    line = shapely.LineString([(0, 0), (9, 9)])
    assert _areas(shapely.GeometryCollection([line, shapely.box(0, 0, 1, 1)])).area == 1.0
    assert _areas(line).is_empty


def test_a_centroid_on_an_edge_is_on_one_tile() -> None:
    tiles = [Tile(1, x, y) for x in (0, 1) for y in (0, 1)]
    around = np.array([shapely.box(-1, -1, 1, 1)])  # its centroid is where the four meet
    assert sum(bool(centred_in(around, tile)[0]) for tile in tiles) == 1


def test_what_lies_just_beyond_a_tile_is_drawn_on_its_margin() -> None:
    left, top = AREA.right + 1e-6, AREA.centre[1]
    margin = BUFFER / EXTENT * (AREA.right - AREA.left)
    beside = shapely.box(left, top - 1e-4, left + margin / 2, top)
    outline, _ = decoded(TILE, [beside])[f"{0:016x}"]
    assert outline.symmetric_difference(beside).area < 0.1 * beside.area
    beyond = shapely.box(left + 1.1 * margin, top - 1e-4, left + 2 * margin, top)
    assert decoded(TILE, [beyond]) == {}

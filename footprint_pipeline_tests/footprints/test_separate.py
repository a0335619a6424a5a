import cv2
import numpy as np
import pytest
import shapely

from footprint_pipeline.footprints.separate import interior_of, separate
from footprint_pipeline.footprints.vectorize import vectorize

HEADS = ("building", "border", "contact")
SHAPE = (60, 80)


def told(*buildings: np.ndarray, blur: float = 0.0) -> np.ndarray:
    """What a network that knows says of buildings given as masks: rims are two pixels wide, contacts too."""
    heads = np.zeros((*SHAPE, 3), np.float32)
    near = np.zeros(SHAPE, np.uint8)
    for mask in buildings:
        heads[mask > 0, 0] = 1
        heads[(mask > 0) & (cv2.erode(mask, np.ones((5, 5), np.uint8), borderValue=1) == 0), 1] = 1
        near += cv2.dilate(mask, np.ones((3, 3), np.uint8))
    heads[near > 1, 2] = 1
    return cv2.GaussianBlur(heads, (0, 0), blur) if blur else heads


def box(top: int, left: int, bottom: int, right: int) -> np.ndarray:
    mask = np.zeros(SHAPE, np.uint8)
    mask[top:bottom, left:right] = 1
    return mask


def found(heads: np.ndarray, *, seed_level: float | None = 0.5, tolerance: float = 0.5) -> np.ndarray:
    building = np.ascontiguousarray(heads[..., 0])
    return vectorize(building, tolerance=tolerance, interior=interior_of(heads, HEADS), seed_level=seed_level).polygons


def cut(whole: shapely.Polygon, interior: np.ndarray, held: np.ndarray | None = None) -> np.ndarray:
    """Of a raster that is built up all over."""
    held = np.ones(interior.shape, np.int32) if held is None else held
    built_up = np.ones(interior.shape, bool)
    return separate(np.array([whole], object), interior, built_up=built_up, held=held, seed_level=0.5)


def assert_cut(pieces: np.ndarray, whole: np.ndarray, *, lost: float = 0.0) -> None:
    """The pieces are polygons, do not overlap, and are what they were cut from."""
    assert shapely.is_valid(pieces).all()
    assert set(shapely.get_type_id(pieces)) == {shapely.GeometryType.POLYGON}
    together, before = shapely.union_all(pieces), shapely.union_all(whole)
    assert together.area == pytest.approx(shapely.area(pieces).sum())
    assert before.difference(together).area <= lost * before.area + 1e-6
    assert together.difference(before).area < 1e-6


@pytest.mark.parametrize("blur", [0.0, 1.0])
def test_two_rectangles_that_touch_are_two_buildings(blur: float) -> None:
    heads = told(box(10, 10, 40, 30), box(10, 30, 40, 60), blur=blur)
    joined = found(heads, seed_level=None)
    assert len(joined) == 1
    pieces = sorted(found(heads), key=lambda piece: piece.bounds)
    assert_cut(np.array(pieces), joined)
    assert pieces[0].bounds == pytest.approx((10, 10, 30, 40), abs=1.01)
    assert pieces[1].bounds == pytest.approx((30, 10, 60, 40), abs=1.01)


def test_four_that_meet_in_a_corner_are_four() -> None:
    heads = told(box(5, 5, 25, 30), box(5, 30, 25, 60), box(25, 5, 50, 30), box(25, 30, 50, 60))
    pieces = found(heads)
    assert_cut(pieces, found(heads, seed_level=None))
    assert sorted(shapely.area(pieces)) == pytest.approx([500, 600, 625, 750], rel=0.08)


def test_the_cut_follows_the_valley_and_not_the_middle_between_seeds() -> None:
    building, inside = np.maximum(box(10, 10, 40, 70), np.float32(0.2)), np.full(SHAPE, 0.8, np.float32)
    inside[:, 14:20], inside[:, 62:68] = 0.95, 0.95  # the seeds
    inside[:, 25] = 0.3  # and between them the valley
    pieces = vectorize(building, tolerance=0.5, interior=inside, seed_level=0.9).polygons
    assert sorted(shapely.area(pieces)) == pytest.approx([30 * 15.5, 30 * 44.5], abs=35)


def test_the_cut_along_a_slanting_joint_is_smooth_and_strays_by_a_pixel() -> None:
    building, (y, x) = box(10, 10, 50, 70).astype(np.float32), np.mgrid[: SHAPE[0], : SHAPE[1]] + 0.5
    inside = building * np.minimum(np.abs(x - 30 - y / 3) / 10, 1).astype(np.float32)
    pieces = vectorize(building, tolerance=0.5, interior=inside, seed_level=0.5).polygons
    assert len(pieces) == 2
    assert shapely.get_num_coordinates(pieces).max() < 15  # the pixels' steps are 33
    joint = shapely.LineString([(30 + 10 / 3, 10), (30 + 50 / 3, 50)])
    assert shapely.intersection(*pieces).hausdorff_distance(joint) < 1.5


def test_a_joint_reaches_the_outline_across_a_gap_that_a_neighbour_has_taken() -> None:
    building = box(10, 10, 50, 70).astype(np.float32)
    building[30] *= np.float32(0.45)
    inside = np.where(building > 0.5, np.float32(0.9), 0)
    inside[10:30, 38:40] = 0.1
    inside[[10, 29]] = np.minimum(inside[[10, 29]], 0.6)  # so that the gap's pixels go to the building below
    assert len(vectorize(building, tolerance=0.5, interior=inside, seed_level=0.5)) == 3


def test_a_courtyard_stays_open_beside_a_neighbour_that_touches() -> None:
    house = box(5, 5, 45, 45) - box(15, 15, 35, 35)
    heads = told(house, box(5, 45, 45, 70))
    pieces = found(heads)
    assert_cut(pieces, found(heads, seed_level=None))
    assert sorted(len(piece.interiors) for piece in pieces) == [0, 1]
    with_yard = next(piece for piece in pieces if piece.interiors)
    assert shapely.Polygon(with_yard.interiors[0]).area == pytest.approx(400, rel=0.05)


def test_a_building_within_another_is_cut_out_of_it() -> None:
    heads = told(box(5, 5, 55, 55) - box(20, 20, 40, 40), box(20, 20, 40, 40))
    pieces = sorted(found(heads), key=shapely.area)
    assert_cut(np.array(pieces), found(heads, seed_level=None))
    assert [len(piece.interiors) for piece in pieces] == [0, 1]
    assert pieces[0].area == pytest.approx(400, rel=0.15)


def test_what_holds_one_seed_or_none_stays_as_it_is_to_the_last_bit() -> None:
    heads = told(box(3, 3, 20, 20), box(3, 20, 20, 40), box(30, 5, 55, 30), box(30, 50, 33, 70), blur=0.7)
    joined, pieces = found(heads, seed_level=None), found(heads)
    assert (len(joined), len(pieces)) == (3, 4)
    untouched = {shapely.to_wkb(polygon) for polygon in joined} & {shapely.to_wkb(polygon) for polygon in pieces}
    assert len(untouched) == 2


def test_a_network_that_tells_of_buildings_alone_separates_nothing() -> None:
    heads = told(box(10, 10, 40, 30), box(10, 30, 40, 60))
    assert interior_of(heads[..., :1], ("building",)) is None
    alone = vectorize(np.ascontiguousarray(heads[..., 0]), tolerance=0.5, interior=None, seed_level=0.5)
    assert len(alone) == 1


@pytest.mark.parametrize("names", [("building", "border"), ("building", "contact"), HEADS])
def test_any_other_head_takes_away_from_the_interior(names: tuple[str, ...]) -> None:
    heads = np.random.default_rng(0).random((4, 5, len(names)), np.float32)
    inside = interior_of(heads, names)
    assert inside is not None
    assert inside == pytest.approx(heads[..., 0] * (1 - heads[..., 1:]).prod(axis=-1))
    assert (inside <= heads[..., 0]).all()


def noise(seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    heads = np.stack([cv2.GaussianBlur(rng.random((200, 150), np.float32), (0, 0), 2.0) for _ in range(3)], axis=-1)
    return (heads - heads.min()) / (heads.max() - heads.min())


@pytest.mark.parametrize("seed", range(3))
def test_noise_gives_valid_pieces_that_lie_in_what_was_built_up(seed: int) -> None:
    heads = noise(seed)
    joined = found(heads, seed_level=None, tolerance=0.6)
    pieces = found(heads, seed_level=0.15, tolerance=0.6)
    assert len(pieces) > len(joined) + 10
    assert_cut(pieces, joined, lost=1.5e-4)


@pytest.mark.parametrize("seed", range(3))
def test_whichever_area_asks_a_building_is_cut_alike(seed: int) -> None:
    heads = noise(seed)
    inside = interior_of(heads, HEADS)

    def places(reaching_into: tuple[float, float, float, float] | None) -> set[tuple[float, ...]]:
        found = vectorize(
            cv2.extractChannel(heads, 0), tolerance=0.5, interior=inside, seed_level=0.15, reaching_into=reaching_into
        )
        told = np.column_stack([shapely.bounds(found.polygons), shapely.area(found.polygons), found.confidence])
        return set(map(tuple, np.round(told, 5).tolist()))

    every = places(None)
    for box in ((30, 30, 90, 100), (70.5, 90.5, 120.5, 150.5), (0, 0, 40, 50)):
        asked = places(box)
        assert asked <= every
        assert {it for it in every if it[0] < box[2] and it[2] > box[0] and it[1] < box[3] and it[3] > box[1]} <= asked


def test_on_the_edge_of_the_raster_buildings_are_cut_too() -> None:
    heads = told(box(0, 0, 30, 40), box(0, 40, 30, 80))
    heads[..., 0] *= np.float32(0.9)
    heads[0, 0, 0] = 1.0  # the surest pixel lies in the corner
    pieces = sorted(found(heads), key=lambda piece: piece.bounds)
    assert_cut(np.array(pieces), found(heads, seed_level=None))
    assert pieces[0].bounds == pytest.approx((0, 0, 40, 30), abs=1.01)
    assert pieces[1].bounds == pytest.approx((40, 0, 80, 30), abs=1.01)


def test_two_seeds_that_a_third_one_outside_the_outline_keeps_apart_are_left_together() -> None:
    interior, held = np.full((9, 32), 0.1, np.float32), np.ones((9, 32), np.int32)
    for left in (2, 13, 24):
        interior[2:7, left : left + 6] = 0.8
    held[2:7, 13:19] = 0
    whole = shapely.box(0, 0, 32, 9) - shapely.box(13, 2, 19, 7)
    pieces = cut(whole, interior, held)
    assert_cut(pieces, np.array([whole], object))
    assert len(pieces) == 1


def test_roofs_that_meet_in_a_corner_are_two_seeds() -> None:
    interior = np.full((24, 24), 0.1, np.float32)
    interior[2:12, 2:12] = interior[12:22, 12:22] = 0.9
    assert len(cut(shapely.box(0, 0, 24, 24), interior)) == 2


@pytest.mark.parametrize(("side", "pieces"), [((4, 4), 2), ((3, 5), 1)])
def test_seeds_of_sixteen_pixels_count(side: tuple[int, int], pieces: int) -> None:
    interior = np.full((12, 30), 0.1, np.float32)
    interior[3 : 3 + side[0], 4 : 4 + side[1]] = interior[3:9, 18:26] = 0.9
    assert len(cut(shapely.box(0, 0, 30, 12), interior)) == pieces


def test_a_piece_that_is_too_small_is_dropped() -> None:
    heads = told(box(10, 10, 40, 30), box(10, 30, 40, 42))  # 600 and 360 pixels
    building, interior = np.ascontiguousarray(heads[..., 0]), interior_of(heads, HEADS)
    kept = [
        shapely.area(vectorize(building, tolerance=0.5, interior=interior, seed_level=0.5, min_area_px=least).polygons)
        for least in (300.0, 450.0)
    ]
    assert sorted(kept[0]) == pytest.approx([360, 600], rel=0.1)
    assert kept[1] == pytest.approx([600], rel=0.1)


def test_what_a_cut_leaves_of_less_than_a_seed_is_no_building() -> None:
    interior = np.zeros((20, 40), np.float32)
    interior[:, :19] = interior[:, 21:] = 1.0
    whole = shapely.box(17, 4, 30, 8)  # of its two pieces one has some twelve square pixels
    held = np.ones(interior.shape, np.int32)
    pieces = separate(
        np.array([whole], object), interior, built_up=np.ones(interior.shape, bool), held=held, seed_level=0.5
    )
    assert shapely.area(pieces) == pytest.approx([40], abs=6)


def test_a_piece_is_what_most_of_its_pixels_are() -> None:
    """A line that is smoothed leaves pixels of the neighbour on this side of it, here under the middle of a piece."""
    of_500 = """
        208 210 222 275 353 363 302 259 251 263 282 292 284 229 141  88  75  61  39  22   8
        137 139 149 198 275 298 265 241 241 269 314 339 335 284 202 151 139 114  63  25   8
         75  69  65  86 129 151 147 145 161 210 282 327 331 304 255 225 227 198 106  35  10
        151 125  86  67  69  69  63  78 118 165 214 241 245 237 210 184 194 192 114  41  14
        318 276 208 167 151 120  78  96 171 225 247 253 253 247 220 178 169 169 120  55  20
        427 402 361 333 312 239 135 131 222 284 298 300 300 296 278 253 239 227 173  86  29
        455 451 441 431 404 306 180 169 249 302 312 314 314 312 310 302 298 282 216 106  33
        459 459 457 449 402 288 190 212 278 308 314 316 316 314 314 314 312 292 220 104  31
    """
    interior = np.array([line.split() for line in of_500.strip().splitlines()], np.float32) / 500
    building = np.ones_like(interior)
    building[:4, 20] = 0.0
    pieces = vectorize(building, tolerance=0.5, interior=interior, seed_level=0.5).polygons
    assert sorted(shapely.area(pieces)) == pytest.approx([30, 63, 71], abs=1)

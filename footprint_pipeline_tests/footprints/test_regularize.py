"""Outlines are drawn as a raster shows them, regularised, and held against what was drawn."""

import cv2
import numpy as np
import pytest
import shapely
from shapely import affinity

from footprint_pipeline.footprints import sides
from footprint_pipeline.footprints.regularize import FARTHEST_PX, LEAST_IOU, _meeting, regularize
from footprint_pipeline.footprints.squares import boxed
from footprint_pipeline.footprints.vectorize import vectorize

BOX = shapely.box
RECTANGLE = BOX(0, 0, 34, 20)
L_SHAPE = BOX(0, 0, 36, 36) - BOX(16, 16, 36, 36)
U_SHAPE = BOX(0, 0, 44, 36) - BOX(14, 12, 30, 36)
COURT = BOX(0, 0, 50, 40) - BOX(15, 12, 35, 28)
TRAPEZOID = shapely.Polygon([(0, 0), (44, 0), (32, 22), (0, 22)])
TWO_WINGS = BOX(0, 0, 44, 14) | affinity.rotate(BOX(0, 0, 14, 44), 30, origin=(0, 0))
SHAPES = {
    "rectangle": (RECTANGLE, 4),
    "L": (L_SHAPE, 6),
    "U": (U_SHAPE, 8),
    "courtyard": (COURT, 8),
    "trapezoid": (TRAPEZOID, 4),
    "two wings": (TWO_WINGS, 6),
    "triangle": (shapely.Polygon([(0, 0), (44, 4), (14, 38)]), 3),
    "thin": (BOX(0, 0, 40, 5), 4),
    "small": (BOX(0, 0, 7, 6), 4),
}


def worn(polygon: shapely.Polygon, *, degrees: float = 0.0, seed: int = 0) -> shapely.Polygon:
    """Turned, and as it comes back from a raster that is blurred and not quite sure."""
    turned = affinity.rotate(polygon, degrees, origin=(0, 0))
    left, top, right, bottom = turned.bounds
    shape = int(bottom - top) + 21, int(right - left) + 21
    fine = np.zeros((4 * shape[0], 4 * shape[1]), np.float32)
    rings = [shapely.get_coordinates(ring) for ring in (turned.exterior, *turned.interiors)]
    cv2.fillPoly(fine, [np.rint((xy - (left - 10, top - 10)) * 4 - 0.5).astype(np.int32) for xy in rings], 1.0)
    probability = cv2.GaussianBlur(cv2.resize(fine, shape[::-1], interpolation=cv2.INTER_AREA), (0, 0), 1.0)
    doubt = cv2.GaussianBlur(np.random.default_rng(seed).normal(0, 1, shape).astype(np.float32), (0, 0), 2.0)
    found = vectorize(np.clip(probability + 0.05 * doubt / doubt.std(), 0, 1), tolerance=0.5).polygons
    return affinity.translate(max(found, key=shapely.area), left - 10, top - 10)


def one(polygon: shapely.Polygon) -> tuple[shapely.Polygon, bool]:
    found = regularize(np.array([polygon], object))
    return found.polygons[0], bool(found.changed[0])


def iou(one: shapely.Geometry, other: shapely.Geometry) -> float:
    return one.intersection(other).area / one.union(other).area


def corners(polygon: shapely.Polygon) -> np.ndarray:
    """The turn at every vertex, degrees."""
    turns = []
    for ring in (polygon.exterior, *polygon.interiors):
        xy = shapely.get_coordinates(ring)[:-1]
        heading = np.arctan2(*(np.roll(xy, -1, axis=0) - xy).T[::-1])
        turns.append((np.roll(heading, -1) - heading + np.pi) % (2 * np.pi) - np.pi)
    return np.abs(np.degrees(np.concatenate(turns)))


@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize("degrees", [0.0, 17.0, 45.0, 80.0])
def test_a_worn_outline_gets_the_corners_of_the_building_back(name: str, degrees: float) -> None:
    shape, count = SHAPES[name]
    raw = worn(shape, degrees=degrees)
    found, changed = one(raw)
    assert changed
    assert len(corners(found)) == count
    assert len(found.interiors) == len(shape.interiors)
    true = affinity.rotate(shape, degrees, origin=(0, 0))
    assert iou(found, true) > iou(raw, true) - 0.01
    assert found.hausdorff_distance(true) < 2.5
    assert found.area == pytest.approx(raw.area, rel=0.08)


@pytest.mark.parametrize("name", ["rectangle", "L", "U", "courtyard", "thin", "small"])
def test_corners_are_square_and_walls_lie_along_them(name: str) -> None:
    found, _ = one(worn(SHAPES[name][0], degrees=23.0))
    assert corners(found) == pytest.approx(90.0, abs=1e-6)


def test_a_jagged_wall_becomes_a_straight_one_where_it_was_on_average() -> None:
    x = np.arange(41.0)
    teeth = np.column_stack([x, np.where(x % 2, 1.0, -1.0)])
    found, changed = one(shapely.Polygon([*teeth, (40, 25), (0, 25)]))
    assert changed
    assert shapely.equals_exact(found.normalize(), BOX(0, 0, 40, 25).normalize(), tolerance=0.15)


def test_a_step_of_a_wall_goes_when_it_is_short_and_stays_when_it_is_long() -> None:
    def stepped(height: float) -> shapely.Polygon:
        return shapely.Polygon([(0, 0), (60, 0), (60, 30), (30, 30), (30, 30 - height), (0, 30 - height)])

    low, high = one(stepped(1.5))[0], one(stepped(9.0))[0]
    assert len(corners(low)) == 4
    assert low.area == pytest.approx(stepped(1.5).area, rel=1e-3)
    assert len(corners(high)) == 6
    assert high.area == pytest.approx(stepped(9.0).area, rel=1e-3)


@pytest.mark.parametrize("radius", [5.0, 9.0, 15.0, 40.0])
def test_what_is_round_stays_as_it_is(radius: float) -> None:
    disc = shapely.Point(50.3, 49.8).buffer(radius, quad_segs=round(radius))
    found, changed = one(disc)
    assert not changed
    assert found is disc
    assert not one(disc - shapely.Point(50.3, 49.8).buffer(radius / 3))[1]


def test_a_blunt_octagon_and_a_star_stay_too() -> None:
    angle = np.arange(10) * np.pi / 5
    radius = np.where(np.arange(10) % 2, 8, 20)
    star = shapely.Polygon(np.column_stack([np.cos(angle), np.sin(angle)]) * radius[:, None])
    found, _ = one(star)
    assert iou(found, star) >= LEAST_IOU
    octagon = shapely.Polygon(20 * np.column_stack([np.cos(angle[:8] * 1.25), np.sin(angle[:8] * 1.25)]))
    assert not one(octagon)[1]


def terrace(shift: float) -> np.ndarray:
    """Houses that share walls which are not square to the street, each turned a little its own way."""
    raw, left = [], 0.0
    for number in range(6):
        lean = (-1) ** number * 1.5
        raw.append(shapely.Polygon([(left, 0), (left + 14, 0), (left + 14 + lean, 24), (left + shift, 24)]))
        left, shift = left + 14, lean
    return np.array(raw, object)


def overlaps(polygons: np.ndarray) -> np.ndarray:
    i, j = np.triu_indices(len(polygons), 1)
    return shapely.area(shapely.intersection(polygons[i], polygons[j]))


def test_neighbours_that_touch_do_not_come_to_overlap() -> None:
    raw = terrace(0.0)
    found = regularize(raw)
    alone = np.array([one(polygon)[0] for polygon in raw], object)
    assert overlaps(alone).max() > 1, "each by itself would reach into the next"
    assert found.changed.any()
    assert overlaps(found.polygons).max() <= overlaps(raw).max() + 2e-3
    assert all(iou(a, b) >= LEAST_IOU for a, b in zip(found.polygons, raw, strict=True))


def test_a_building_in_the_way_is_left_alone_and_cut_around() -> None:
    """A disc stays raw; the house beside it, whose rounded corner would come to lie in it, gives way."""
    disc = shapely.Point(0, 0).buffer(10, quad_segs=16)
    house = BOX(2, 2, 40, 30) - shapely.Point(0, 0).buffer(10.0, quad_segs=16)
    for order in ([disc, house], [house, disc]):
        found = regularize(np.array(order, object))
        assert overlaps(found.polygons)[0] <= 2e-3
        assert disc in found.polygons.tolist()


def test_what_is_no_polygon_to_work_with_stays_as_it_is() -> None:
    bow = shapely.Polygon([(0, 0), (10, 10), (10, 0), (0, 10)])
    needle = shapely.Polygon([(0, 0), (30, 0.01), (15, 0.02)])
    speck = BOX(0, 0, 1e-6, 1e-6)
    doubled = shapely.Polygon([(50, 50), (50, 50), (70, 50), (70, 50), (70, 60), (50, 60), (50, 60)])
    given = np.array([bow, shapely.Polygon(), worn(RECTANGLE), needle, speck, doubled], object)
    found = regularize(given)
    assert found.changed.tolist()[:3] == [False, False, True]
    assert found.polygons[0] is bow
    assert found.polygons[1].is_empty
    assert shapely.is_valid(found.polygons[2:]).all()
    assert found.polygons[5].equals(doubled)
    none = regularize(np.empty(0, object))
    assert (len(none.polygons), len(none.changed)) == (0, 0)


def test_corners_that_are_nearly_one_do_no_harm() -> None:
    outline = [
        (20.5, 11), (21.5, 11), (22.5, 11), (23.5, 11), (24.5, 11), (25.5, 11), (26, 10.5), (26, 9.5), (26, 8.5),
        (26, 7.5), (26, 6.5), (26, 5.5), (26, 4.5), (25.5, 4.5), (25.5, 3.5), (26, 3.5), (26, 2.5), (26, 1.5),
        (26, 0.5), (26, 0), (25.5, 0), (24.5, 0), (23.5, 0), (12.5, 0.5), (12.5, np.nextafter(0.5, 0)), (11, 3.5),
        (12, 6),
    ]  # fmt: skip
    made = regularize(np.array([shapely.Polygon(outline), RECTANGLE], object)).polygons
    assert shapely.is_valid(made).all()


def test_a_comb_and_a_giant_among_many_are_squared_in_few_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    teeth = [(4 * n + dx, y) for n in range(200) for dx, y in ((0, 0), (0, -3), (2, -3), (2, 0))]
    comb = shapely.Polygon([*teeth, (800, 0), (800, 10), (0, 10)])
    rounds: list[int] = []
    whole = sides.merged
    monkeypatch.setattr(sides, "merged", lambda some: rounds.append(1) or whole(some))
    assert regularize(np.array([comb], object)).polygons[0].is_valid
    assert len(rounds) < 100


def test_outlines_that_meet_are_found_once_each() -> None:
    rng = np.random.default_rng(3)
    boxes = shapely.box(*(edge := rng.uniform(0, 40, (60, 2)).T), *(edge + rng.uniform(1, 9, (60, 2)).T))
    boxes[7] = shapely.box(0, 0, 50, 50).difference(shapely.union_all(boxes[::2]))
    meets = np.triu(shapely.intersects(boxes[:, None], boxes), 1).astype(bool)
    for some in (np.arange(60), np.array([3, 7, 20])):
        one, other = _meeting(boxes, some)
        of_them = np.isin(np.arange(60), some)
        expected = np.argwhere(meets & (of_them[:, None] | of_them))
        assert sorted(np.column_stack([one, other]).tolist()) == expected.tolist()


def test_no_outline_leaves_the_frame() -> None:
    frame = BOX(0, 0, 60, 60)
    raw = worn(BOX(-20, -20, 30, 22), degrees=12) & frame
    free, kept = regularize(np.array([raw], object)), regularize(np.array([raw], object), frame=frame)
    assert not frame.covers(free.polygons[0])
    assert kept.changed[0]
    assert frame.buffer(1e-9).covers(kept.polygons[0])


def test_what_is_round_or_small_is_no_other_for_lying_in_a_frame() -> None:
    polygons = np.array([shapely.Point(30, 30).buffer(9), BOX(40, 40, 40.5, 40.5), worn(BOX(2, 2, 22, 18))], object)
    free, kept = regularize(polygons), regularize(polygons, frame=BOX(0, 0, 60, 60))
    assert free.changed.tolist() == kept.changed.tolist() == [False, False, True]


# ---- random outlines ----


def random_town(seed: int) -> np.ndarray:
    """Boxes with wings, bites, courts and round ends, turned and worn; some touch, some overlap."""
    rng = np.random.default_rng(seed)
    town = []
    for number in range(40):
        width, height = rng.uniform(4, 50, 2)
        shape = BOX(0, 0, width, height)
        for _ in range(rng.integers(0, 4)):
            x, y = rng.uniform(0, [width, height])
            part = BOX(x, y, x + rng.uniform(2, 25), y + rng.uniform(2, 25))
            if rng.random() < 0.2:
                part = shapely.Point(x, y).buffer(rng.uniform(3, 12))
            shape = shape - part if rng.random() < 0.5 and (shape - part).area > 30 else shape | part
        raw = worn(max(shapely.get_parts(shape), key=shapely.area), degrees=rng.uniform(0, 360), seed=number)
        town.append(affinity.translate(raw, *rng.uniform(0, 420, 2)))
    return np.array(town, object)


@pytest.mark.parametrize("seed", range(8))
def test_whatever_comes_out_is_a_building_near_the_raw_one(seed: int) -> None:
    raw = random_town(seed)
    found = regularize(raw)
    new = found.polygons
    assert (shapely.get_type_id(new) == 3).all()
    assert shapely.is_valid(new).all()
    assert found.changed.mean() > 0.4
    assert [a is b for a, b in zip(new, raw, strict=True)] == (~found.changed).tolist()
    common = shapely.area(shapely.intersection(new, raw))
    assert (common / (shapely.area(new) + shapely.area(raw) - common) >= LEAST_IOU - 1e-9).all()
    assert FARTHEST_PX == 5.0
    assert (shapely.hausdorff_distance(new, raw) <= 5.0 + 1e-9).all()
    assert (overlaps(new) <= overlaps(raw) + 2e-3).all()
    again = regularize(raw)
    assert shapely.equals_exact(again.polygons, new).all()


@pytest.mark.parametrize("seed", range(4))
def test_turning_and_moving_a_town_turns_and_moves_its_outlines(seed: int) -> None:
    """Only where a choice hangs by a thread may it go the other way."""
    raw = random_town(seed)
    angle, move = np.radians(31.7), np.array([3017.3, -911.9])
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    found = regularize(raw).polygons
    moved = regularize(shapely.transform(raw, lambda xy: xy @ turn + move)).polygons
    back = shapely.transform(moved, lambda xy: (xy - move) @ turn.T)
    apart = shapely.hausdorff_distance(back, found)
    assert np.mean(apart < 1e-6) >= 0.8
    assert np.median(apart) < 1e-9


def test_a_box_is_as_large_as_what_it_stands_for() -> None:
    outlines = np.array([shapely.Polygon([(0, 0), (20, 1), (19, 9), (1, 11)]), shapely.Point(0, 0).buffer(5)], object)
    made = boxed(outlines)
    assert shapely.area(made) == pytest.approx(shapely.area(outlines))
    assert shapely.equals_exact(
        shapely.centroid(shapely.minimum_rotated_rectangle(outlines)), shapely.centroid(made), 1e-9
    ).all()

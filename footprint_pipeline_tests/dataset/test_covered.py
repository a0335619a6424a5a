"""Labels that lie over one another: which of them stay, and that no other is touched."""

import itertools
from pathlib import Path

import numpy as np
import pytest
import shapely
from shapely import affinity

from footprint_pipeline.dataset.covered import COVERED_SHARE, covered_by_another
from footprint_pipeline.dataset.masks import draw_mask
from footprint_pipeline.dataset.polygons import build_polygon_table
from footprint_pipeline.dataset.spec import MaskSpec
from footprint_pipeline_tests.dataset.conftest import degrees, labels, on_ground
from footprint_pipeline_tests.dataset.test_masks import scattered
from footprint_pipeline_tests.dataset.test_polygons import tile_index

HOUSE = shapely.box(10, 10, 30, 30)
YARD = shapely.Polygon(HOUSE.exterior, [shapely.box(14, 14, 26, 26).exterior])
WINGS = shapely.MultiPolygon([shapely.box(10, 10, 16, 30), shapely.box(24, 10, 30, 30)])


def covered(*shapes: shapely.Geometry) -> list[int]:
    """Which of the shapes of a tile go, by number; the same in whatever order they come."""
    found = set()
    for order in itertools.permutations(range(len(shapes))):
        drawn, ids = np.array(shapes, object)[list(order)], np.array(order)
        found.add(tuple(sorted(ids[covered_by_another(drawn, np.zeros(len(ids), int), ids)].tolist())))
    (always,) = found
    return list(always)


@pytest.mark.parametrize(
    ("shapes", "gone"),
    [
        ([HOUSE, HOUSE], [1]),
        ([HOUSE, HOUSE, HOUSE], [1, 2]),
        ([HOUSE, HOUSE.reverse().normalize()], [1]),
        ([HOUSE, affinity.scale(HOUSE, 1.01, 1.01)], [0]),
        ([affinity.translate(HOUSE, 0.4, 0), HOUSE], [1]),
        ([shapely.box(12, 12, 18, 18), HOUSE], [0]),
        ([HOUSE, shapely.box(12, 12, 18, 18), shapely.box(20, 20, 30, 30)], [1, 2]),
        ([HOUSE, shapely.box(10.1, 20, 30.5, 25)], [1]),
        ([YARD, HOUSE], [0]),
        ([shapely.box(10, 10, 30, 13), YARD], [0]),
        ([WINGS, shapely.box(24, 12, 30, 29)], [1]),
        ([HOUSE, WINGS, YARD], [1, 2]),
    ],
    ids=[
        "twice",
        "thrice",
        "turned",
        "larger",
        "moved",
        "part",
        "parts",
        "rim",
        "filled",
        "in a ring",
        "in a wing",
        "wings",
    ],
)
def test_of_labels_that_are_the_same_or_lie_within_one_another_one_stays(
    shapes: list[shapely.Geometry], gone: list[int]
) -> None:
    assert covered(*shapes) == gone


@pytest.mark.parametrize(
    "shapes",
    [
        [],
        [HOUSE],
        [HOUSE, shapely.box(30, 10, 50, 30)],
        [HOUSE, affinity.translate(HOUSE, 1.2, 0)],
        [HOUSE, shapely.box(20, 20, 30.6, 30)],
        [YARD, shapely.box(14, 14, 26, 26)],
        [WINGS, shapely.box(16, 10, 24, 30)],
        [shapely.Polygon([(0, 0), (40, 0), (0, 40)]), shapely.box(25, 25, 38, 38)],
        [shapely.box(10, 10, 20, 30), shapely.box(20, 10, 30, 30), shapely.box(12, 10, 28, 30)],
    ],
    ids=["none", "one", "beside", "moved far", "reaches out", "courtyard", "between", "only its box", "over two"],
)
def test_labels_that_share_less_all_stay(shapes: list[shapely.Geometry]) -> None:
    assert covered(*shapes) == []


def test_what_lies_within_a_label_that_goes_stays_where_it_reaches_beyond_what_stays() -> None:
    house, longer, porch = shapely.box(0, 0, 100, 10), shapely.box(4, 0, 102, 10), shapely.box(100, 2, 102, 6)
    assert covered(house, longer) == [1]
    assert covered(longer, porch) == [1]
    assert covered(house, longer, porch) == [1]


@pytest.mark.parametrize("pairs_at_once", [7, 4_000_000])
def test_it_is_what_every_pair_by_itself_would_say(monkeypatch: pytest.MonkeyPatch, pairs_at_once: int) -> None:
    monkeypatch.setattr("footprint_pipeline.dataset.covered._PAIRS_AT_ONCE", pairs_at_once)
    shapes, tile_of = [], []
    for tile in range(6):
        of_tile = scattered(tile, count=60)
        shapes += of_tile + [affinity.scale(shape, 0.5, 0.5) for shape in of_tile[::7]] + of_tile[::9]
        tile_of += [tile] * (len(shapes) - len(tile_of))
    drawn, tiles, ids = np.array(shapes, object), np.array(tile_of), np.arange(len(shapes))
    gone: set[int] = set()
    for i in sorted(ids, key=lambda i: (-drawn[i].area, i)):
        ahead = [j for j in ids if tiles[j] == tiles[i] and (-drawn[j].area, j) < (-drawn[i].area, i)]
        if any(drawn[i].intersection(drawn[j]).area > COVERED_SHARE * drawn[i].area for j in ahead if j not in gone):
            gone.add(int(i))
    assert len(gone) > 60
    assert set(np.flatnonzero(covered_by_another(drawn, tiles, ids)).tolist()) == gone


def test_labels_that_are_left_out_are_counted_and_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    tiles = tile_index(tmp_path, "a", "b")
    plain = [("a", 1, HOUSE), ("a", 4, shapely.box(31, 10, 45, 30)), ("b", 2, shapely.box(-9, 10, 20, 30))]
    more = [("a", 2, HOUSE), ("a", 3, shapely.box(12, 12, 18, 18)), ("b", 1, shapely.box(-4, 10, 9, 20))]

    def placed(rows: list) -> list:
        return [(name, number, on_ground(shape, degrees("ab".index(name)))) for name, number, shape in rows]

    once = build_polygon_table(labels(placed(plain)), tiles)
    assert (once.covered, once.clipped) == (0, 1)
    assert not caplog.text
    over = build_polygon_table(labels(placed(more + plain)), tiles)
    assert (over.covered, over.clipped, over.outside, over.too_small) == (3, 1, 0, 0)
    assert "3 labels lie within another one, or are one listed twice, and are left out" in caplog.text
    assert over.table.equals(once.table)
    tile = next(tiles.itertuples())
    on_grid = over.table.loc[over.table["tile_id"] == "a", "geometry_px"].to_numpy()
    contact = draw_mask(on_grid, tile, spec=MaskSpec(border_m=0))[1]
    assert set(np.flatnonzero(contact.any(axis=0))) <= set(range(28, 33))

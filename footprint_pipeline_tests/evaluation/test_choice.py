from dataclasses import replace

import numpy as np
import pytest
import shapely

from footprint_pipeline.errors import DatasetError, SettingsError
from footprint_pipeline.evaluation.building_sweep import Labelled, mean_f1, measure_buildings
from footprint_pipeline.evaluation.choice import settle
from footprint_pipeline.evaluation.scoring import Answer
from footprint_pipeline.evaluation.spec import RULES, SweepSpec
from footprint_pipeline.evaluation.tolerance import SweepTable, harmless, highest_pooled, sweep, sweep_stream

SIZE = (40, 80)
LEFT, RIGHT = shapely.box(10, 10, 38, 30), shapely.box(38, 10, 70, 30)


def table(f1: list[list[float]], tolerances: list[float]) -> SweepTable:
    """A table whose tiles have these F1s, by 1,000 building pixels each."""
    tp = np.rint(np.asarray(f1) * 1000).astype(np.int64)
    return SweepTable(np.array(tolerances), tp, 1000 - tp, 1000 - tp)


def two_that_touch(*, yard: float, seam: float, aoi: str = "Town", heads: bool = True) -> Labelled:
    """Two houses side by side: sure roofs, a `yard` around them, and a `seam` in the interior where they meet."""
    probability = np.zeros(SIZE, np.float32)
    probability[:] = yard
    probability[10:30, 10:70] = 0.95
    interior = np.zeros(SIZE, np.float32)
    interior[12:28, 12:68] = 0.9
    interior[:, 36:40] = np.minimum(interior[:, 36:40], seam)
    return Labelled(aoi, Answer(probability, interior if heads else None, SIZE, 0.5), np.array([LEFT, RIGHT], object))


def swept(*tiles: Labelled) -> SweepTable:
    truth = np.zeros(SIZE, np.uint8)
    truth[10:30, 10:70] = 1
    return sweep_stream((tile.answer.probability, truth) for tile in tiles)


def test_the_highest_pooled_f1_is_not_the_highest_median() -> None:
    swept = table([[0.9, 0.5], [0.9, 0.5], [0.0, 0.5], [0.0, 0.6], [0.9, 0.6]], [0.1, 0.2])
    assert highest_pooled(swept).tolerance == 0.1
    assert highest_pooled(table([[0.9, 0.8], [0.1, 0.4]], [0.1, 0.2])).tolerance == 0.2
    assert highest_pooled(table([[0.5, 0.5]], [0.1, 0.2])).tolerance == 0.1


def test_harmless_tolerances_cost_neither_the_median_nor_the_whole() -> None:
    #      medians .800 .799 .797 .790, pooled .80 .799 .797 .790
    flat = table([[0.800, 0.799, 0.797, 0.790]] * 3, [0.1, 0.2, 0.3, 0.4])
    assert harmless(flat, slack=0.0031).tolist() == [0, 1, 2]
    assert harmless(flat, slack=0.0).tolist() == [0]
    # the median likes the first, the whole the second: the nearest to both is all there is
    torn = table([[0.8, 0.7, 0.1], [0.8, 0.7, 0.1], [0.0, 0.6, 0.1]], [0.1, 0.2, 0.3])
    assert harmless(torn, slack=0.003).tolist() == [1]


def test_an_area_of_few_buildings_has_a_say_but_less() -> None:
    """Pixels found of a hundred a tile: many tiles like the first tolerance, one tile of another city the last."""
    steps = np.array([0.2, 0.4, 0.6])
    for tiles, few, best in ((4, [20, 70, 90], 1), (144, [20, 70, 90], 0), (1, [20, 60, 99], 2), (4, [20, 20, 21], 0)):
        hits = np.array([[90, 80, 60]] * tiles + [few])
        table = SweepTable(steps, hits, np.zeros_like(hits), 100 - hits, ("A",) * tiles + ("B",))
        assert harmless(table, slack=0.0).tolist() == [best]
    empty = np.zeros((1, 3), int)
    with_a_desert = SweepTable(
        steps, np.vstack([hits[:4], empty]), np.vstack([0 * hits[:4], empty]), np.vstack([100 - hits[:4], empty]),
        ("A",) * 4 + ("Desert",),
    )  # fmt: skip
    assert harmless(with_a_desert, slack=0.0).tolist() == [0]


def test_the_seed_level_is_the_one_that_finds_most_buildings() -> None:
    tiles = [two_that_touch(yard=0.1, seam=0.45)]
    settled = settle(swept(*tiles), tiles, SweepSpec(seed_levels=(0.2, 0.4, 0.6, 0.8)))
    assert settled.seed_level == 0.6
    assert settled.building_f1 == 1.0
    joined = settled.measured[settled.measured["seed_level"].isna()]
    assert len(joined) == len(SweepSpec().min_areas_m2)
    assert (joined["f1"] < 0.7).all()


def test_without_interiors_nothing_is_separated() -> None:
    tiles = [two_that_touch(yard=0.1, seam=0.45, heads=False)]
    settled = settle(swept(*tiles), tiles, SweepSpec())
    assert settled.seed_level is None
    assert settled.measured["seed_level"].isna().all()


def test_not_separating_and_the_smallest_tolerance_win_a_draw() -> None:
    alone = Labelled("Town", two_that_touch(yard=0.1, seam=0.9).answer, np.array([LEFT.union(RIGHT)], object))
    draw = table([[0.8] * 3], [0.2, 0.4, 0.6])
    settled = settle(draw, [alone], SweepSpec(slack=1.0))
    assert (settled.seed_level, settled.choice.tolerance) == (None, 0.2)


@pytest.mark.parametrize(
    ("rule", "lowest", "highest"),
    [
        ("median_then_std", 0.5, 0.6),
        ("pooled_pixel_f1", 0.5, 0.6),
        ("building_f1", 0.06, 0.46),
    ],
)
def test_rules_by_what_they_look_at(rule: str, lowest: float, highest: float) -> None:
    """Labels that include most of the yards: pixels like them, houses are then too large."""
    tile = two_that_touch(yard=0.5, seam=0.4)
    truth = np.zeros(SIZE, np.uint8)
    truth[3:37, 3:77] = 1
    settled = settle(
        sweep(tile.answer.probability[None], truth[None]), [tile], SweepSpec(rule=rule, slack=1.0, tolerances=12)
    )
    assert lowest <= settled.choice.tolerance <= highest
    assert 0.5 <= settled.article.tolerance <= 0.6


def test_the_median_and_the_whole_may_choose_otherwise() -> None:
    torn, tile = table([[0.75, 0.7], [0.75, 0.7], [0.75, 1.0]], [0.1, 0.2]), two_that_touch(yard=0.1, seam=0.45)
    for rule, tolerance in (("median_then_std", 0.1), ("pooled_pixel_f1", 0.2)):
        assert settle(torn, [tile], SweepSpec(rule=rule)).choice.tolerance == tolerance


def test_pixels_lose_no_more_than_the_slack() -> None:
    tile = two_that_touch(yard=0.5, seam=0.4)
    truth = np.zeros(SIZE, np.uint8)
    truth[3:37, 3:77] = 1
    counts = sweep(tile.answer.probability[None], truth[None])
    settled = settle(counts, [tile], SweepSpec(slack=0.003))
    assert settled.choice.median_f1 == pytest.approx(counts.f1.max(), abs=0.003)
    assert settled.building_f1 < settle(counts, [tile], SweepSpec(slack=1.0)).building_f1


def test_levels_are_compared_at_the_middle_candidate() -> None:
    tile = two_that_touch(yard=0.5, seam=0.4)
    measured = settle(swept(tile), [tile], SweepSpec(slack=1.0, tolerances=5)).measured
    levels = measured.groupby(measured["tolerance"].round(2))["seed_level"].nunique(dropna=False)
    assert levels[levels > 1].index.tolist() == [0.5]


def shed_beside(tile: Labelled, sure: float = 0.99) -> Labelled:
    """The same with a shed of 5 × 6 pixels, half a metre each, that is no building."""
    probability = tile.answer.probability.copy()
    probability[33:38, 3:9] = sure
    return Labelled(tile.aoi, Answer(probability, tile.answer.interior, SIZE, 0.5), tile.buildings)


def test_the_smallest_area_that_leaves_out_what_is_none() -> None:
    tile = shed_beside(two_that_touch(yard=0.1, seam=0.4))
    settled = settle(swept(tile), [tile], SweepSpec(min_areas_m2=(32.0, 0.0, 16.0, 2.0)))
    assert settled.min_area_m2 == 16.0
    assert settled.building_f1 == 1.0
    with_shed = settled.measured[settled.measured["min_area_m2"] == 2.0]
    assert with_shed["f1"].max() == pytest.approx(4 / 5)
    assert settle(swept(tile), [tile], SweepSpec(min_areas_m2=(2.0,))).min_area_m2 == 2.0
    alone = two_that_touch(yard=0.1, seam=0.4)
    assert settle(swept(alone), [alone], SweepSpec()).min_area_m2 == 0.0


def test_the_curve_is_of_the_footprints_that_were_chosen() -> None:
    """Of each tile two are buildings and one, less sure, is none."""
    tiles = [shed_beside(two_that_touch(yard=0.1, seam=0.45), sure=0.7)] * 12
    one, few = table([[0.8]], [0.5]), table([[0.8] * 3], [0.2, 0.5, 0.8])
    settled = settle(one, tiles, SweepSpec(min_areas_m2=(0.0,)))
    assert np.array(settled.calibration) == pytest.approx(np.array([(0.7, 1 / 38), (0.95, 37 / 38)]))
    assert settle(one, tiles, SweepSpec()).calibration == ()  # the shed is too small to count
    at_least = settle(few, tiles, SweepSpec(min_areas_m2=(0.0,), slack=1.0))
    assert (at_least.choice.tolerance, at_least.calibration) == (0.2, ())  # it is not found


def test_buildings_are_measured_by_area_and_where_nothing_is_chosen() -> None:
    right, wrong = two_that_touch(yard=0.1, seam=0.4), two_that_touch(yard=0.1, seam=0.9, aoi="Rio")
    settled = settle(swept(right, wrong), [right, wrong], SweepSpec())
    assert set(settled.measured["aoi"]) == {"Town", "Rio"}
    assert {0.1, 0.5, 0.9} <= set(settled.measured["tolerance"].round(2))
    assert not settled.measured.duplicated(["aoi", "tolerance", "seed_level", "min_area_m2"]).any()
    of_setting = settled.measured[settled.measured["tolerance"] == settled.choice.tolerance]
    assert (of_setting["tp"] + of_setting["fn"] == 2).all()


def test_building_f1_is_the_mean_over_cities_by_the_root_of_their_buildings() -> None:
    right, wrong = two_that_touch(yard=0.1, seam=0.4), two_that_touch(yard=0.1, seam=0.9, aoi="Rio")
    at = {"tolerances": [0.3, 0.5], "seed_levels": [None, 0.5], "min_areas_m2": [0.0]}
    f1 = mean_f1(measure_buildings([right] * 4 + [wrong], **at))
    whole = measure_buildings([wrong], tolerances=[0.3], seed_levels=[None], min_areas_m2=[0.0])["f1"][0]
    assert len(f1) == 4
    assert f1[f1["seed_level"] == 0.5]["f1"].tolist() == pytest.approx([(2 + whole) / 3] * 2)
    assert f1[f1["seed_level"].isna()]["f1"].tolist() == pytest.approx([whole] * 2)
    assert mean_f1(measure_buildings([replace(right, buildings=right.buildings[:0])], **at))["f1"].tolist() == [0.0] * 4


@pytest.mark.parametrize("size", [SIZE, (60, 100)])
def test_a_minimum_area_leaves_out_what_the_service_leaves_out(size: tuple[int, int]) -> None:
    tile = shed_beside(two_that_touch(yard=0.1, seam=0.4))
    answer = Answer(tile.answer.probability, tile.answer.interior, size, 0.5)
    every = answer.footprints(tolerance=0.5, seed_level=0.5)
    for least in (0.0, 4.0, 8.0, 150.0):
        kept = answer.footprints(tolerance=0.5, seed_level=0.5, min_area_m2=least)
        assert (answer.area_m2(every) > least).sum() == len(kept)


def test_no_building_no_choice() -> None:
    empty = SweepTable(np.array([0.5]), *(np.zeros((2, 1), np.int64) for _ in range(3)))
    for rule in RULES:
        with pytest.raises(DatasetError, match="No tile of the validation split has a building"):
            settle(empty, [], SweepSpec(rule=rule))


@pytest.mark.parametrize(
    "wrong",
    [
        {"rule": "best"},
        {"slack": -0.1},
        {"tolerances": 0},
        {"tiles": 0},
        {"min_areas_m2": (-1.0,)},
        {"min_areas_m2": ()},
        {"seed_levels": (0.5, 1.0)},
        {"flips": 3},
    ],
)
def test_what_cannot_be_done_is_said(wrong: dict[str, object]) -> None:
    with pytest.raises(SettingsError):
        SweepSpec(**wrong)


def _two_cities(ones: int, others: int = 1) -> tuple[SweepTable, list[Labelled]]:
    """Tiles of a city that is best at 0.2, and of another that is best at 0.6; two buildings a tile."""
    hits = np.array([[90, 70, 40]] * ones + [[20, 60, 90]] * others)
    aois = ("A",) * ones + ("B",) * others
    swept = SweepTable(np.array([0.2, 0.4, 0.6]), hits, np.zeros_like(hits), 100 - hits, aois)
    return swept, [two_that_touch(yard=0.1, seam=0.45, aoi=aoi) for aoi in aois]


def test_each_city_has_its_own_tolerance_and_the_more_so_the_more_it_was_measured_on() -> None:
    swept, tiles = _two_cities(50)
    one_for_all = settle(swept, tiles, SweepSpec(half_say=0, slack=0.0))
    assert (one_for_all.choice.tolerance, one_for_all.own) == (0.2, {})
    for half_say, own in ((1, 0.6), (4, 0.4), (1000, 0.2)):
        settled = settle(swept, tiles, SweepSpec(half_say=half_say, slack=0.0))
        assert settled.choice == one_for_all.choice
        assert settled.own == {"A": 0.2, "B": own}, half_say


def test_a_city_has_no_tolerance_of_its_own_without_others_without_buildings_or_by_other_rules() -> None:
    swept, tiles = _two_cities(50)
    alone = swept.by_aoi()[0]
    assert settle(alone, tiles[:-1], SweepSpec()).own == {}
    for rule in ("median_then_std", "pooled_pixel_f1"):
        assert settle(swept, tiles, SweepSpec(rule=rule)).own == {}
    desert = replace(tiles[-1], buildings=tiles[-1].buildings[:0])
    assert settle(swept, [*tiles[:-1], desert], SweepSpec()).own == {}


def test_among_tolerances_that_pixels_do_not_tell_apart_buildings_decide_for_each_city() -> None:
    """In one city roofs are surer than their yards, in the other the roof's edge is as unsure as the yard is here."""
    here, there = two_that_touch(yard=0.5, seam=0.45), two_that_touch(yard=0.1, seam=0.45, aoi="Rio")
    there.answer.probability[there.answer.probability > 0.9] = 0.4
    tiles = [here, there]
    alike = np.full((2, 2), 50)
    swept = SweepTable(np.array([0.4, 0.8]), alike, alike, alike, ("Town", "Rio"))
    settled = settle(swept, tiles, SweepSpec(half_say=1, slack=0.0))
    assert settled.own == {"Rio": 0.8, "Town": 0.4}


def test_the_curve_is_of_the_footprints_at_each_city_s_own_tolerance() -> None:
    """Sheds, no buildings, are too unsure to be found where 0.2 is right; 0.4 and 0.6 find them."""
    swept, _ = _two_cities(12, 12)
    tiles = [shed_beside(two_that_touch(yard=0.1, seam=0.45, aoi=aoi), sure=0.7) for aoi in swept.aois]
    spec = SweepSpec(half_say=1, slack=0.0, min_areas_m2=(0.0,))
    own, one_for_all = (settle(swept, tiles, replace(spec, half_say=half_say)) for half_say in (1, 0))
    assert own.own == {"A": 0.2, "B": 0.6}
    assert one_for_all.choice.tolerance == 0.4
    assert np.array(own.calibration) == pytest.approx(np.array([(0.7, 1 / 62), (0.95, 61 / 62)]))
    assert np.array(one_for_all.calibration) == pytest.approx(np.array([(0.7, 1 / 74), (0.95, 73 / 74)]))


def test_an_area_counts_by_the_root_of_its_building_pixels() -> None:
    few, many = (100, 0), (10_000, 10_000)  # what is found of 100 and of 10,000 pixels at two tolerances
    found = np.array([few, many])
    table = SweepTable(
        np.array([0.3, 0.6]), found, np.array([(0, 0), (1053, 0)]), np.array([[100], [10_000]]) - found, ("A", "B")
    )
    # Roots of 10 and 100: (10 · 1 + 100 · 0.95) / 110 at the first, 100 / 110 at the second.
    assert harmless(table, slack=0.0).tolist() == [0]
    assert harmless(table, slack=0.0, say={"A": 0.0, "B": 1.0}).tolist() == [1]

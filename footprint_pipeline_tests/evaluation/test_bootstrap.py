import numpy as np
import pandas as pd
import pytest

from footprint_pipeline.errors import ShapeMismatchError
from footprint_pipeline.evaluation.bootstrap import (
    FIGURES,
    Interval,
    _median,
    differences,
    interval,
    intervals,
    resampled,
)
from footprint_pipeline.evaluation.scoring import summarize
from footprint_pipeline.evaluation.tolerance import pixel_f1


def scored(seed: int, *, tiles: int = 40, better: float = 0.0) -> pd.DataFrame:
    """Scores of tiles of two areas, some of which hold no building."""
    rng = np.random.default_rng(seed)
    ease = rng.uniform(0.3, 0.8, tiles)
    there = rng.integers(0, 30, tiles) * (rng.random(tiles) > 0.2)
    hits = rng.binomial(there, np.clip(ease + better, 0, 1))
    wrong = rng.binomial(20, np.clip(0.6 - ease - better, 0.02, 1))
    table = pd.DataFrame({"tile_id": [f"t{n}" for n in range(tiles)], "aoi": np.where(np.arange(tiles) < 30, "A", "B")})
    for what, size in (("building", 1), ("pixel", 100)):
        table[f"{what}_tp"], table[f"{what}_fp"], table[f"{what}_fn"] = (
            size * hits, size * wrong, size * (there - hits),
        )  # fmt: skip
    table["tolerance"], table["pixels"] = 0.5, 10_000
    table["pixel_f1"] = pixel_f1(*(table[f"pixel_{kind}"].to_numpy() for kind in ("tp", "fp", "fn")))
    return table


def test_a_draw_scores_what_the_drawn_tiles_score() -> None:
    tiles = scored(1)
    rng = np.random.default_rng(7)
    figures = resampled(tiles, draws=3, seed=7)
    times = np.hstack([rng.multinomial(30, np.full(30, 1 / 30), 3), rng.multinomial(10, np.full(10, 1 / 10), 3)])
    for draw in range(3):
        drawn = summarize(tiles.loc[np.repeat(tiles.index, times[draw])])
        assert {name: figures[name][draw] for name in FIGURES} == pytest.approx(drawn.metrics())


def test_an_area_with_nothing_in_it_changes_no_draw_of_buildings() -> None:
    tiles = scored(8)
    nothing = tiles[tiles["aoi"] == "B"].index
    for kind in ("tp", "fp", "fn"):
        tiles.loc[nothing, f"building_{kind}"] = 0
    assert intervals(tiles)["building_f1"].median == pytest.approx(summarize(tiles).building_f1, abs=0.02)
    assert summarize(tiles).building_f1 == summarize(tiles.drop(nothing)).building_f1 > 0.3


def test_the_interval_holds_the_figure_and_narrows_with_tiles() -> None:
    few, many = scored(2), scored(2, tiles=640)
    for name, value in summarize(few).metrics().items():
        assert intervals(few)[name].low < value < intervals(few)[name].high
        assert (
            intervals(many)[name].high - intervals(many)[name].low
            < intervals(few)[name].high - intervals(few)[name].low
        )


@pytest.mark.parametrize("areas", [["A", "B", "C"], ["A", "A", "B"], ["A", *"BBBBBBBB"]])
def test_areas_of_few_tiles_are_no_surer_than_others(areas: list[str]) -> None:
    table = scored(2, tiles=40)
    tiles = table[table["building_tp"] > 0].head(len(areas))
    many, one = (intervals(tiles.assign(aoi=names))["building_f1"] for names in (areas, "A"))
    assert many.high - many.low > (one.high - one.low) / 2 > 0.02


def test_areas_of_more_tiles_are_drawn_each_on_its_own() -> None:
    tiles = scored(3).assign(aoi=["A"] * 20 + ["B"] * 15 + ["C"] * 3 + ["D"] * 2)
    apart = tiles.assign(aoi=["A"] * 20 + ["B"] * 15 + ["C"] * 5)
    for name in ("median_tile_f1", "pooled_pixel_f1"):
        assert resampled(tiles)[name].tolist() == resampled(apart)[name].tolist()


def test_an_interval_holds_nineteen_of_twenty_draws() -> None:
    assert interval(np.random.default_rng(0).permutation(1001).astype(float)) == Interval(500.0, 25.0, 975.0)


def test_the_same_seed_draws_the_same() -> None:
    once, again, otherwise = (resampled(scored(3), seed=seed)["building_f1"].tolist() for seed in (1, 1, 2))
    assert once == again != otherwise


def test_a_difference_is_sharper_than_the_scores_it_is_made_of() -> None:
    tiles = scored(4)
    better = tiles.assign(
        building_tp=tiles["building_tp"] + (tiles["building_fn"] > 0), building_fn=(tiles["building_fn"] - 1).clip(0)
    )
    apart = differences(better.sample(frac=1, random_state=0), tiles)["building_f1"]
    assert apart.low > 0
    assert apart.high - apart.low < (intervals(tiles)["building_f1"].high - intervals(tiles)["building_f1"].low) / 2
    same = differences(tiles, tiles)["building_f1"]
    assert (same.low, same.median, same.high) == (0, 0, 0)


def test_other_tiles_are_not_compared() -> None:
    with pytest.raises(ShapeMismatchError, match="not the same"):
        differences(scored(5), scored(5).assign(tile_id="x"))


def test_nothing_anywhere_scores_as_the_summary_does() -> None:
    tiles = scored(6).assign(**{f"{what}_{kind}": 0 for what in ("pixel", "building") for kind in ("tp", "fp", "fn")})
    assert intervals(tiles)["median_tile_f1"].median == summarize(tiles).median_tile_f1 == 0
    assert intervals(tiles)["building_f1"].high == 0


def test_few_tiles_beside_an_area_of_many_are_drawn_with_the_smallest_of_these() -> None:
    tiles = scored(3).assign(aoi=["A"] * 25 + ["B"] * 12 + ["C"] * 3)
    one = tiles.assign(**{f"building_{kind}": 0 for kind in ("tp", "fp", "fn")})
    lonely = tiles.index[-1]
    one = one.assign(aoi=["A"] * 25 + ["B"] * 14 + ["C"])
    one.loc[lonely, ["building_tp", "building_fn"]] = 5, 5
    found = intervals(one)["building_f1"]
    assert found.low < found.high  # drawn each time it would be as if there could be no other


def test_the_median_of_an_even_number_of_tiles_is_the_mean_of_the_middle_two() -> None:
    f1, times = np.array([0.1, 0.4, 0.8]), np.array([[1, 1, 0], [1, 1, 1], [0, 2, 2], [2, 0, 2]])
    assert _median(f1, times) == pytest.approx([np.median(np.repeat(f1, each)) for each in times])

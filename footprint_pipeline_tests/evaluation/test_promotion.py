from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from footprint_pipeline.errors import SettingsError
from footprint_pipeline.evaluation import scoring
from footprint_pipeline.evaluation.promotion import decide
from footprint_pipeline.evaluation.spec import PromotionSpec

SPEC = PromotionSpec()


def scores(hits: list[int]) -> scoring.TestScores:
    """Of tiles with twenty buildings each, of which so many were found."""
    found = np.array(hits)
    tiles = pd.DataFrame({"tile_id": [f"t{n}" for n in range(len(hits))], "aoi": "A", "tolerance": 0.5, "pixels": 99})
    for what in ("building", "pixel"):
        tiles[f"{what}_tp"], tiles[f"{what}_fp"], tiles[f"{what}_fn"] = found, 2, 20 - found
    return scoring.summarize(tiles.assign(pixel_f1=2 * found / (found + 22)))


GOOD = scores([8, 11, 9, 12, 14, 10] * 4)


def test_the_first_model_is_the_champion() -> None:
    verdict = decide(scores([0, 0]), None, SPEC)
    assert verdict.promote
    assert "no champion" in verdict.reason
    assert verdict.differences is None


def test_a_better_model_takes_its_place_and_says_by_how_much() -> None:
    verdict = decide(scores([10, 12, 10, 14, 15, 11] * 4), GOOD, SPEC)
    assert verdict.promote
    assert verdict.differences["building_f1"].low > 0
    assert f"by {verdict.differences['building_f1']} on 24 tiles" in verdict.reason


def test_a_worse_one_and_the_same_one_do_not() -> None:
    for hits in ([7, 11, 9, 12, 13, 10] * 4, [8, 11, 9, 12, 14, 10] * 4):
        verdict = decide(scores(hits), GOOD, SPEC)
        assert not verdict.promote
        assert "not better" in verdict.reason


def test_one_that_may_be_worse_as_well_does_not() -> None:
    mixed = scores([1, 18, 3, 18, 19, 9] * 4)
    verdict = decide(mixed, GOOD, SPEC)
    assert verdict.differences["building_f1"].median > 0
    assert not verdict.promote
    assert "lower end may be -0.0020 at least" in verdict.reason
    assert decide(mixed, GOOD, PromotionSpec(margin=1.0)).promote
    low = verdict.differences["building_f1"].low
    assert not decide(mixed, GOOD, PromotionSpec(margin=-low / 1.5)).promote


def test_on_too_few_tiles_nothing_is_better() -> None:
    few, better = scores([8] * (SPEC.min_tiles - 1)), scores([18] * (SPEC.min_tiles - 1))
    verdict = decide(better, few, SPEC)
    assert not verdict.promote
    assert "cannot tell" in verdict.reason
    assert decide(scores([18] * SPEC.min_tiles), scores([8] * SPEC.min_tiles), SPEC).promote


@pytest.mark.parametrize("champion", [None, scores([0] * 24)])
def test_floors_hold_whoever_the_champion_is(champion: scoring.TestScores | None) -> None:
    assert decide(GOOD, champion, PromotionSpec(min_building_f1=0.5, min_pooled_pixel_f1=0.5)).promote
    for floor in ("min_building_f1", "min_pooled_pixel_f1"):
        verdict = decide(GOOD, champion, PromotionSpec(**{floor: 0.9}))
        assert not verdict.promote
        assert "below the floor of 0.9000" in verdict.reason


def test_a_rule_by_which_nothing_can_be_decided_is_refused() -> None:
    for wrong in ({"margin": -0.1}, {"draws": 0}, {"min_building_f1": 1.1}):
        with pytest.raises(SettingsError, match="Nothing can be decided"):
            PromotionSpec(**wrong)


def test_each_floor_is_of_its_own_figure() -> None:
    good = replace(GOOD, building_f1=0.7, pooled_pixel_f1=0.5, median_tile_f1=0.9)
    for floors, kept in (
        ({"min_building_f1": 0.7, "min_pooled_pixel_f1": 0.5}, True),
        ({"min_building_f1": 0.71}, False),
        ({"min_pooled_pixel_f1": 0.51}, False),
    ):
        assert decide(good, None, PromotionSpec(**floors)).promote is kept

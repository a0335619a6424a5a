import pytest

from footprint_pipeline.evaluation.promotion import decide


def figures(building: float, pixel: float) -> dict[str, float]:
    return {"building_f1": building, "pooled_pixel_f1": pixel, "median_tile_f1": 0.9}


def test_the_first_model_is_the_champion() -> None:
    verdict = decide(figures(0.0, 0.0), None)
    assert verdict.promote
    assert "no champion" in verdict.reason


@pytest.mark.parametrize(
    ("candidate", "champion", "promote", "said"),
    [
        ((0.62, 0.1), (0.61, 0.9), True, "building_f1 0.6200 beats the champion's 0.6100"),
        ((0.60, 0.9), (0.61, 0.1), False, "building_f1 0.6000 is below the champion's 0.6100"),
        ((0.61, 0.8), (0.61, 0.7), True, "pooled_pixel_f1 0.8000 beats"),
        ((0.61, 0.6), (0.61, 0.7), False, "pooled_pixel_f1 0.6000 is below"),
        ((0.61, 0.7), (0.61, 0.7), False, "equal the champion's"),
    ],
)
def test_buildings_decide_and_pixels_break_the_tie(
    candidate: tuple[float, float], champion: tuple[float, float], promote: bool, said: str
) -> None:
    verdict = decide(figures(*candidate), figures(*champion))
    assert verdict.promote is promote
    assert said in verdict.reason

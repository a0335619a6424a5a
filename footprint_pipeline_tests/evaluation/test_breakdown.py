import numpy as np
import pandas as pd
import pytest

from footprint_pipeline.evaluation import scoring
from footprint_pipeline.evaluation.breakdown import average_precision, by_coverage, by_size, precision_recall


def scored(
    buildings: list[tuple[float, bool]], proposals: list[tuple[float, float, bool]], tiles: list[tuple[int, int, int]]
) -> scoring.TestScores:
    """Of buildings (area, found), footprints (confidence, area, right) and tiles (pixel tp, fp, fn)."""
    table = pd.DataFrame(tiles, columns=["pixel_tp", "pixel_fp", "pixel_fn"])
    table["pixel_f1"] = 2 * table["pixel_tp"] / (2 * table["pixel_tp"] + table["pixel_fp"] + table["pixel_fn"])
    return scoring.TestScores(
        tiles=table.assign(pixels=100, aoi="A", tolerance=0.5, building_tp=1, building_fp=0, building_fn=1),
        by_aoi=pd.DataFrame(),
        median_tile_f1=0,
        pooled_pixel_f1=0,
        building_f1=0,
        buildings=pd.DataFrame(buildings, columns=["area_m2", "found"]),
        proposals=pd.DataFrame(proposals, columns=["confidence", "area_m2", "right"]),
    )


SOME = scored(
    [(20, True), (49, False), (50, True), (800, False)],
    [(0.9, 60, True), (0.8, 30, False), (0.8, 20, True), (0.3, 9000, False)],
    [(1, 0, 0), (2, 0, 2), (10, 10, 50), (40, 10, 10)],
)


def test_a_building_counts_where_its_size_puts_it() -> None:
    table = by_size(SOME)
    assert table[["from_m2", "buildings", "found", "false"]].to_numpy().tolist() == [
        [0, 2, 1, 1], [50, 1, 1, 0], [150, 0, 0, 0], [500, 1, 0, 1],
    ]  # fmt: skip
    assert table["f1"].tolist() == pytest.approx([0.5, 1.0, 0.0, 0.0])


def test_tiles_are_told_apart_by_what_is_built_up() -> None:
    table = by_coverage(SOME)
    assert table[["from", "tiles"]].to_numpy().tolist() == [[0, 1], [0.02, 1], [0.3, 2]]
    assert table["median_tile_f1"].tolist() == pytest.approx([1.0, 4 / 6, np.mean([20 / 80, 80 / 100])])


def test_the_curve_takes_equal_confidences_together() -> None:
    curve = precision_recall(SOME)
    assert curve["confidence"].tolist() == [0.9, 0.8, 0.3]
    assert curve["precision"].tolist() == pytest.approx([1, 2 / 3, 1 / 2])
    assert curve["recall"].tolist() == pytest.approx([1 / 4, 2 / 4, 2 / 4])
    assert average_precision(curve) == pytest.approx(1 / 4 + 1 / 4 * 2 / 3)


def test_without_footprints_there_is_no_curve() -> None:
    nothing = scored([(20, False)], [], [(0, 0, 1)])
    assert len(precision_recall(nothing)) == 0
    assert average_precision(precision_recall(nothing)) == 0
    assert by_size(nothing)["buildings"].sum() == 1

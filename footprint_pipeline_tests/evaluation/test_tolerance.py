from collections.abc import Iterator

import numpy as np
import pytest

from footprint_pipeline.errors import DatasetError, ShapeMismatchError
from footprint_pipeline.evaluation.tolerance import (
    THRESHOLDS,
    TOLERANCES,
    SweepTable,
    Tiles,
    median_then_std,
    pixel_f1,
    stack,
    sweep,
    sweep_stream,
)


def plainly(probability: np.ndarray, truth: np.ndarray, tolerances: np.ndarray) -> list[list[list[int]]]:
    """TP, FP, FN by thresholding, one tile and tolerance at a time."""
    counts: list[list[list[int]]] = [[], [], []]
    for p, t in zip(probability, truth.astype(bool), strict=True):
        claims = [p > np.float32(1 - tolerance) for tolerance in tolerances]
        counts[0].append([int((c & t).sum()) for c in claims])
        counts[1].append([int((c & ~t).sum()) for c in claims])
        counts[2].append([int((~c & t).sum()) for c in claims])
    return counts


def table(f1: list[list[float]], tolerances: list[float]) -> SweepTable:
    """A table whose tiles have these F1s, by 1,000 building pixels each."""
    whole = np.asarray(f1)
    tp = np.rint(whole * 1000).astype(np.int64)
    return SweepTable(np.array(tolerances), tp, 1000 - tp, 1000 - tp)


def test_the_tolerances_are_the_articles() -> None:
    assert TOLERANCES.tolist() == pytest.approx([0.02 * step for step in range(1, 51)])
    assert TOLERANCES[34] == 0.70  # exactly, so that it reads well and can be looked up


@pytest.mark.parametrize("seed", range(5))
def test_the_sweep_counts_what_fifty_thresholdings_count(seed: int) -> None:
    rng = np.random.default_rng(seed)
    probability = rng.random((4, 37, 41), np.float32)
    on_a_threshold = rng.random(probability.shape) < 0.3
    probability[on_a_threshold] = rng.choice((1 - TOLERANCES).astype(np.float32), on_a_threshold.sum())
    probability[0, :3], probability[0, 3:6] = 0.0, 1.0
    truth = (rng.random(probability.shape) < 0.2).astype(np.uint8)
    truth[3] = 0
    swept = sweep(probability, truth)
    tp, fp, fn = plainly(probability, truth, TOLERANCES)
    assert swept.true_positives.tolist() == tp
    assert swept.false_positives.tolist() == fp
    assert swept.false_negatives.tolist() == fn
    assert swept.with_buildings.tolist() == [True, True, True, False]
    for counts in (swept.true_positives, swept.false_positives, swept.false_negatives):
        assert (counts.dtype, counts.shape) == (np.int64, (4, 50))


@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (513, 700), (3, 2**18 + 1)])
@pytest.mark.parametrize("kind", ["noise", "sure", "near", "nothing"])
def test_no_pixel_is_counted_on_the_wrong_side(shape: tuple[int, int], kind: str) -> None:
    rng = np.random.default_rng(sum(shape))
    probability = {
        "noise": lambda: rng.random(shape, np.float32),
        "sure": lambda: (1 / (1 + np.exp(-rng.normal(-6, 12, shape)))).astype(np.float32),
        "near": lambda: np.nextafter(
            rng.choice(THRESHOLDS, shape), rng.integers(0, 2, shape).astype(np.float32), dtype=np.float32
        ),
        "nothing": lambda: np.zeros(shape, np.float32),
    }[kind]()
    truth = (rng.random(shape) < 0.2).astype(np.uint8)
    swept = sweep(probability[None], truth[None])
    claims = [probability > threshold for threshold in THRESHOLDS]
    assert swept.true_positives[0].tolist() == [np.count_nonzero(claim & (truth > 0)) for claim in claims]
    assert swept.false_positives[0].tolist() == [np.count_nonzero(claim & (truth == 0)) for claim in claims]


def test_a_tile_of_many_like_pixels_is_counted_to_the_last() -> None:
    probability = np.full((1, 4097, 4099), 0.5, np.float32)  # more than float32 can count one by one
    swept = sweep(probability, np.zeros(probability.shape, np.uint8))
    assert swept.false_positives[0, -1] == probability.size


def test_any_number_that_is_not_zero_is_a_building() -> None:
    probability = np.full((1, 2, 3), 0.5, np.float32)
    swept = sweep(probability, np.array([[[0, 1, 2], [255, 0, 128]]], np.uint8))
    assert swept.true_positives[0, -1] == 4
    assert sweep(probability.transpose(0, 2, 1), np.eye(3, 2, dtype=np.uint8)[None]).true_positives[0, -1] == 2


def test_at_full_tolerance_only_a_probability_of_zero_is_ground() -> None:
    probability = np.array([[[0.0, 1e-30, 0.5, 1.0]]], np.float32)
    swept = sweep(probability, np.ones((1, 1, 4), np.uint8))
    assert swept.true_positives[0, -1] == 3
    assert swept.true_positives[0, 0] == 1


def test_truth_and_probability_must_match() -> None:
    with pytest.raises(ShapeMismatchError, match=r"\(2, 3, 4\), truth is \(2, 3, 5\)"):
        sweep(np.zeros((2, 3, 4), np.float32), np.zeros((2, 3, 5), np.uint8))
    with pytest.raises(ShapeMismatchError):
        sweep_stream([(np.zeros((3, 4), np.float32), np.zeros((4, 3), np.uint8))])


def test_nothing_to_sweep_is_an_error() -> None:
    with pytest.raises(DatasetError, match="no tile to sweep"):
        sweep_stream([])


def test_a_stream_of_tiles_of_any_size_is_counted_in_its_order_and_little_of_it_is_kept() -> None:
    rng = np.random.default_rng(0)
    sides = [(2048, 2048)] * 5 + [(7, 9), (2048, 2048), (9, 7), (9, 7)]
    tiles = [
        (rng.random(side, np.float32), (rng.random(side, np.float32) < share).astype(np.uint8))
        for side, share in zip(sides, np.linspace(0.1, 0.9, len(sides)), strict=True)
    ]
    asked, swept_at = 0, []

    def coming() -> Iterator[tuple[np.ndarray, np.ndarray]]:
        nonlocal asked
        for tile in tiles:
            asked += 1
            yield tile

    def noted(probability: Tiles, truth: Tiles) -> SweepTable:
        swept_at.append((asked, len(probability)))
        return sweep(probability, truth)

    swept = sweep_stream(coming(), noted)
    alone = stack([sweep(probability[None], truth[None]) for probability, truth in tiles])
    assert np.array_equal(swept.true_positives, alone.true_positives)
    assert np.array_equal(swept.false_positives, alone.false_positives)
    assert np.array_equal(swept.false_negatives, alone.false_negatives)
    assert [tiles for _, tiles in swept_at] == [2, 2, 1, 1, 1, 2]
    assert [asked for asked, _ in swept_at] == [2, 4, 6, 7, 8, 9]


def test_pixel_f1_by_hand() -> None:
    tp, fp, fn = np.array([3, 0, 0, 0, 5]), np.array([1, 0, 4, 0, 0]), np.array([2, 0, 0, 7, 0])
    assert pixel_f1(tp, fp, fn).tolist() == pytest.approx([6 / 9, 1.0, 0.0, 0.0, 1.0])


def test_pooled_f1_counts_pixels_not_tiles() -> None:
    swept = SweepTable(np.array([0.5]), np.array([[10], [1]]), np.array([[0], [9]]), np.array([[0], [9]]))
    assert swept.f1.ravel().tolist() == pytest.approx([1.0, 0.1])
    assert swept.pooled_f1.tolist() == pytest.approx([22 / 40])


def test_a_frame_has_one_row_a_tile_and_tolerance() -> None:
    frame = table([[0.5, 0.6], [0.7, 0.8]], [0.1, 0.2]).frame(["a", "b"])
    assert frame["tile_id"].tolist() == ["a", "a", "b", "b"]
    assert frame["tolerance"].tolist() == [0.1, 0.2, 0.1, 0.2]
    assert frame["tp"].tolist() == [500, 600, 700, 800]
    assert frame["f1"].tolist() == pytest.approx([0.5, 0.6, 0.7, 0.8])


def test_of_the_highest_medians_the_steadiest_wins() -> None:
    #            median  .80  .79  .78  .77  .76  .75; the last is the steadiest of all, but comes sixth
    centre = np.array([0.80, 0.79, 0.78, 0.77, 0.76, 0.75])
    spread = np.array([0.10, 0.09, 0.02, 0.05, 0.06, 0.00])
    choice = median_then_std(
        table([list(centre - spread), list(centre), list(centre + spread)], [0.1, 0.2, 0.3, 0.4, 0.5, 0.6])
    )
    assert choice.tolerance == 0.3
    assert choice.median_f1 == pytest.approx(0.78)
    assert choice.std_f1 == pytest.approx(np.std([0.76, 0.78, 0.80]))
    assert choice.pooled_f1 == pytest.approx(0.78)
    widest = median_then_std(
        table([list(centre - spread), list(centre), list(centre + spread)], [0.1, 0.2, 0.3, 0.4, 0.5, 0.6]),
        candidates=6,
    )
    assert widest.tolerance == 0.6


def test_of_equals_the_smaller_tolerance_wins() -> None:
    assert median_then_std(table([[0.5] * 8, [0.7] * 8], [step / 10 for step in range(1, 9)])).tolerance == 0.1


def test_tiles_without_buildings_have_no_say() -> None:
    swept = table([[0.5, 0.6], [0.5, 0.6]], [0.1, 0.2])
    empty = SweepTable(
        swept.tolerances, np.zeros((3, 2), np.int64), np.array([[0, 50]] * 3), np.zeros((3, 2), np.int64)
    )
    choice = median_then_std(stack([swept, empty]))
    assert (choice.tolerance, choice.median_f1) == (0.2, pytest.approx(0.6))
    assert choice.pooled_f1 == pytest.approx(2400 / (2400 + 1600 + 150))
    with pytest.raises(DatasetError, match="No tile of the validation split has a building"):
        median_then_std(empty)

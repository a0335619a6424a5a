"""How far scores would differ on other tiles of the same places: tiles drawn anew, with putting back, area by area.

Two networks are compared on the same draws: what a tile is worth to both does not blur the difference.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from footprint_pipeline.errors import ShapeMismatchError
from footprint_pipeline.evaluation.spec import DRAWS
from footprint_pipeline.evaluation.tolerance import pixel_f1

FIGURES = ("median_tile_f1", "pooled_pixel_f1", "building_f1")
_AT_ONCE = 250
_FEWEST = 5
"""Areas of fewer tiles are drawn with others: one tile alone would be drawn each time, as if it could be no other."""
_KINDS = ("tp", "fp", "fn")


@dataclass(frozen=True)
class Interval:
    """A figure, and where 95 % of the draws lie.

    Attributes:
        median: of the draws.
        low: 2.5 % of the draws lie below.
        high: 2.5 % lie above.
    """

    median: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.median:.4f} ({self.low:.4f} to {self.high:.4f})"


def intervals(tiles: pd.DataFrame) -> dict[str, Interval]:
    """The three figures of a set of scored tiles, as of `TestScores.tiles`, each with its interval."""
    return {name: interval(values) for name, values in resampled(tiles).items()}


def differences(tiles: pd.DataFrame, others: pd.DataFrame, *, draws: int = DRAWS) -> dict[str, Interval]:
    """By how much the first scores lie above the second, on the same tiles.

    Args:
        tiles: scores of one network, as of `TestScores.tiles`.
        others: scores of another.
        draws: how many.

    Raises:
        ShapeMismatchError: they are not of the same tiles.
    """
    keys = ["aoi", "tile_id"]
    one, other = (table.sort_values(keys, ignore_index=True) for table in (tiles, others))
    if not one[keys].equals(other[keys]):
        raise ShapeMismatchError(f"{len(one)} tiles are compared with {len(other)} tiles that are not the same.")
    ours, theirs = (resampled(table, draws=draws) for table in (one, other))
    return {name: interval(ours[name] - theirs[name]) for name in FIGURES}


def interval(values: np.ndarray) -> Interval:
    """Of draws, float64, shape (draws,)."""
    low, median, high = np.quantile(values, [0.025, 0.5, 0.975])
    return Interval(float(median), float(low), float(high))


def resampled(tiles: pd.DataFrame, *, draws: int = DRAWS, seed: int = 0) -> dict[str, np.ndarray]:
    """The three figures of every draw, float64, shape (draws,); the same rows and seed are the same draws.

    A draw takes as many tiles of an AOI as there are, some more than once and some not at all; of AOIs of few tiles as
    many as they have together.
    """
    rng = np.random.default_rng(seed)
    areas = [np.flatnonzero(tiles["aoi"] == aoi) for aoi in sorted(tiles["aoi"].unique())]
    together = _together(areas)
    pixels = tiles[[f"pixel_{kind}" for kind in _KINDS]].to_numpy(np.int64)
    buildings = tiles[[f"building_{kind}" for kind in _KINDS]].to_numpy(np.int64)
    f1 = tiles["pixel_f1"].to_numpy(float)
    order = np.argsort(f1, kind="stable")
    order = order[(pixels[order, 0] + pixels[order, 2]) > 0]
    found: dict[str, list[np.ndarray]] = {name: [] for name in FIGURES}
    for start in range(0, draws, _AT_ONCE):
        times = np.zeros((min(_AT_ONCE, draws - start), len(tiles)), np.int64)
        for members in together:
            times[:, members] = rng.multinomial(len(members), np.full(len(members), 1 / len(members)), len(times))
        counts = np.stack([times[:, members] @ buildings[members] for members in areas])
        found["building_f1"].append(_building_f1(counts))
        found["pooled_pixel_f1"].append(pixel_f1(*(times @ pixels).T))
        found["median_tile_f1"].append(_median(f1[order], times[:, order]))
    return {name: np.concatenate(parts) for name, parts in found.items()}


def _together(areas: list[np.ndarray]) -> list[np.ndarray]:
    """Positions of tiles that are drawn from together: those of an AOI, or of all that have few."""
    many = [members for members in areas if len(members) >= _FEWEST]
    few = [members for members in areas if len(members) < _FEWEST]
    if few and many and sum(map(len, few)) < _FEWEST:
        least = min(range(len(many)), key=lambda number: len(many[number]))
        few.append(many.pop(least))
    return [*many, np.concatenate(few)] if few else many


def _building_f1(counts: np.ndarray) -> np.ndarray:
    """Mean over AOIs of the F1 of counts, shape (AOIs, draws, 3); shape (draws,).

    As `scoring.summarize` has it, an AOI with nothing at all does not count; where all are such it is 0.
    """
    tp, fp, fn = np.moveaxis(counts, -1, 0)
    f1 = 2 * tp / np.maximum(2 * tp + fp + fn, 1)
    return f1.sum(axis=0) / np.maximum((tp + fp + fn > 0).sum(axis=0), 1)


def _median(ascending: np.ndarray, times: np.ndarray) -> np.ndarray:
    """Medians of ascending values, shape (N,), each taken so many times, shape (draws, N); 0 where none is taken."""
    if not len(ascending):
        return np.zeros(len(times))
    upto = times.cumsum(axis=1)
    taken = upto[:, -1]
    middle = [ascending[(upto > rank[:, None]).argmax(axis=1)] for rank in ((taken - 1) // 2, taken // 2)]
    return np.where(taken > 0, (middle[0] + middle[1]) / 2, 0.0)

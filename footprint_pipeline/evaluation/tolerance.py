"""The tolerance sweep: at which probability does a pixel count as a building?

A pixel is a building where ``probability > 1 - tolerance``. The sweep measures pixel F1 at 50 tolerances in
one pass over the pixels, tile by tile. What belongs here: the sweep, and the rules that ask pixels alone; `choice` asks
buildings too.
"""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import cv2
import numpy as np
import pandas as pd

from footprint_pipeline.errors import DatasetError, ShapeMismatchError

TOLERANCES = np.round(np.arange(1, 51) * 0.02, 2)
"""0.02 … 1.00, ascending, shape (50,)."""

THRESHOLDS = (1.0 - TOLERANCES).astype(np.float32)
"""What a probability must exceed, descending, shape (50,)."""

_NEAR = 2e-5
"""In fiftieths: more than what rounding can do to 50 times a float32 below 1."""
_BLOCK_PX = 2**18
"""What is worked on at once, so that it stays in a core's cache."""


@dataclass(frozen=True)
class SweepTable:
    """Counts of every tile at every tolerance.

    Attributes:
        tolerances: ascending, shape (T,).
        true_positives: int64, shape (tiles, T).
        false_positives: the same.
        false_negatives: the same.
        aois: the AOI of every tile; all are of one when empty.
    """

    tolerances: np.ndarray
    true_positives: np.ndarray
    false_positives: np.ndarray
    false_negatives: np.ndarray
    aois: tuple[str, ...] = ()

    @property
    def f1(self) -> np.ndarray:
        """Pixel F1, shape (tiles, T); a tile without building pixels and without a claim has F1 = 1."""
        return pixel_f1(self.true_positives, self.false_positives, self.false_negatives)

    @property
    def pooled_f1(self) -> np.ndarray:
        """Pixel F1 of all tiles taken as one, shape (T,)."""
        return pixel_f1(self.true_positives.sum(0), self.false_positives.sum(0), self.false_negatives.sum(0))

    @property
    def with_buildings(self) -> np.ndarray:
        """bool, shape (tiles,): tiles that hold a building pixel."""
        return (self.true_positives[:, 0] + self.false_negatives[:, 0]) > 0

    def by_aoi(self) -> "list[SweepTable]":
        """A table of each AOI."""
        if not self.aois:
            return [self]
        of_tile = np.array(self.aois)
        return [
            SweepTable(
                self.tolerances, self.true_positives[members], self.false_positives[members],
                self.false_negatives[members], (aoi,) * int(members.sum()),
            )
            for aoi in sorted(set(self.aois))
            for members in [of_tile == aoi]
        ]  # fmt: skip

    def frame(self, tile_ids: list[str]) -> pd.DataFrame:
        """One row a tile and tolerance: `aoi` where it is known, `tile_id`, `tolerance`, `tp`, `fp`, `fn`, `f1`."""
        tiles, steps = self.true_positives.shape
        return pd.DataFrame(
            {
                **({"aoi": np.repeat(self.aois, steps)} if self.aois else {}),
                "tile_id": np.repeat(tile_ids, steps),
                "tolerance": np.tile(self.tolerances, tiles),
                "tp": self.true_positives.ravel(),
                "fp": self.false_positives.ravel(),
                "fn": self.false_negatives.ravel(),
                "f1": self.f1.ravel(),
            }
        )


@dataclass(frozen=True)
class Choice:
    """The tolerance picked, and the pixel F1 there: median and deviation over the tiles with buildings, and of all."""

    tolerance: float
    median_f1: float
    std_f1: float
    pooled_f1: float


def sweep(probability: np.ndarray, truth: np.ndarray) -> SweepTable:
    """Counts of every tile at every tolerance, in one pass over the pixels, tiles in threads.

    Args:
        probability: float32 in [0, 1], shape (tiles, H, W).
        truth: uint8 0/1, same shape.

    Raises:
        ShapeMismatchError: the two arrays differ in shape.
    """
    if probability.shape != truth.shape:
        raise ShapeMismatchError(f"Probabilities are {probability.shape}, truth is {truth.shape}.")
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return stack(list(pool.map(sweep_tile, probability, truth)))


def sweep_tile(probability: np.ndarray, truth: np.ndarray) -> SweepTable:
    """`sweep` of one tile, shape (H, W) both; the table has one row."""
    if probability.shape != truth.shape:
        raise ShapeMismatchError(f"Probability is {probability.shape}, truth is {truth.shape}.")
    rows = max(1, _BLOCK_PX // max(1, probability.shape[1]))
    counts = np.zeros((2, len(TOLERANCES) + 1), np.int64)
    for top in range(0, probability.shape[0], rows):
        block = slice(top, top + rows)
        counts += _levels(np.ascontiguousarray(probability[block], np.float32), truth[block])
    # Pixels that pass at least k thresholds are claimed at tolerance T - k.
    return from_claims(counts[:, ::-1].cumsum(axis=1)[None, :, :-1], counts[None, 1].sum(axis=1))


def from_claims(claimed: np.ndarray, buildings: np.ndarray) -> SweepTable:
    """The table of tiles whose claimed pixels are counted.

    Args:
        claimed: int64, shape (tiles, 2, T): ground and building pixels that are claimed at every tolerance.
        buildings: building pixels of every tile, shape (tiles,).
    """
    return SweepTable(TOLERANCES, claimed[:, 1], claimed[:, 0], buildings[:, None] - claimed[:, 1])


def _levels(probability: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """How many pixels pass so many thresholds, shape (2, T + 1): ground, then buildings.

    Thresholds are a fiftieth apart, so 50 times the probability, rounded up, is what a pixel passes. It is rounded
    twice, a little low and a little high; the few pixels that are so near a threshold that this makes a difference
    are looked up one by one. A probability of exactly zero is the only one that passes none.
    """
    steps = len(TOLERANCES)
    low, high = (cv2.convertScaleAbs(probability, alpha=steps, beta=0.5 + sign * _NEAR) for sign in (-1, 1))
    low += (low == 0).view(np.uint8)
    _, high = cv2.threshold(high, steps, 0, cv2.THRESH_TRUNC)  # a network that is sure is near no threshold
    # Truth is the seventh bit. The eighth differs between neighbours, which are often alike: counters that are
    # written again and again wait for themselves.
    codes = (truth != 0).view(np.uint8) * np.uint8(64)
    codes |= low
    every = codes.reshape(-1)
    every[: len(every) & ~1].view(np.uint16)[:] |= 0x8000
    counts = cv2.calcHist([every], [0], None, [256], [0, 256]).reshape(2, 2, 64).sum(axis=0).astype(np.int64)
    near = np.flatnonzero(low != high)
    if len(near):
        of, rounded = np.divmod(every[near] & 127, 64)
        np.subtract.at(counts, (of, rounded), 1)
        np.add.at(counts, (of, np.searchsorted(THRESHOLDS[::-1], probability.reshape(-1)[near], side="left")), 1)
    if probability.min() <= 0:
        for of, zeros in enumerate(np.bincount(truth[probability <= 0] != 0, minlength=2)):
            counts[of, 0] += zeros
            counts[of, 1] -= zeros
    return counts[:, : steps + 1]


def stack(tables: list[SweepTable], aois: Sequence[str] = ()) -> SweepTable:
    """Several tables, one below the other.

    Args:
        tables: of one tile each where AOIs are given.
        aois: the AOI of each.

    Raises:
        DatasetError: there is none.
    """
    if not tables:
        raise DatasetError("There is no tile to sweep.", fix="Prepare tiles of the validation split.")
    return SweepTable(
        tables[0].tolerances,
        np.concatenate([table.true_positives for table in tables]),
        np.concatenate([table.false_positives for table in tables]),
        np.concatenate([table.false_negatives for table in tables]),
        tuple(aois),
    )


def median_then_std(table: SweepTable, *, candidates: int = 5) -> Choice:
    """The article's rule: of the five highest median F1s over tiles, the one with the lowest deviation.

    Only tiles with buildings have a say. Of equals the smaller tolerance wins.

    Raises:
        DatasetError: no tile has a building.
    """
    median, deviation = _median_and_std(table)
    best = np.argsort(-median, kind="stable")[:candidates]
    return choice_at(table, int(best[np.argmin(deviation[best])]))


def highest_pooled(table: SweepTable) -> Choice:
    """The tolerance of the highest pixel F1 of all tiles taken as one; of equals the smaller.

    Raises:
        DatasetError: no tile has a building.
    """
    return choice_at(table, int(np.argmax(table.pooled_f1)))


def harmless(table: SweepTable, *, slack: float) -> np.ndarray:
    """Positions of the tolerances whose median and pooled F1 are both at most `slack` below the highest there is.

    Both are means over AOIs, so that an AOI of few tiles counts as much as one of many; those without a building have
    no say. Where there is no such tolerance, those nearest to it. Ascending, never empty.

    Raises:
        DatasetError: no tile has a building.
    """
    areas = [area for area in table.by_aoi() if area.with_buildings.any()] or [table]
    median = np.mean([_median_and_std(area)[0] for area in areas], axis=0)
    pooled = np.mean([area.pooled_f1 for area in areas], axis=0)
    loss = np.maximum(median.max() - median, pooled.max() - pooled)
    return np.flatnonzero(loss <= max(slack, loss.min()))


def choice_at(table: SweepTable, position: int) -> Choice:
    """The choice of the tolerance at a position.

    Raises:
        DatasetError: no tile has a building.
    """
    median, deviation = _median_and_std(table)
    return Choice(
        tolerance=float(table.tolerances[position]),
        median_f1=float(median[position]),
        std_f1=float(deviation[position]),
        pooled_f1=float(table.pooled_f1[position]),
    )


def _median_and_std(table: SweepTable) -> tuple[np.ndarray, np.ndarray]:
    if not table.with_buildings.any():
        raise DatasetError(
            "No tile of the validation split has a building; a tolerance cannot be chosen.",
            fix="Prepare more tiles, or split with another seed.",
        )
    f1 = table.f1[table.with_buildings]
    return np.median(f1, axis=0), f1.std(axis=0)


def pixel_f1(tp: np.ndarray, fp: np.ndarray, fn: np.ndarray) -> np.ndarray:
    """2 TP / (2 TP + FP + FN), 1 where nothing is there and nothing is claimed."""
    whole = 2 * tp + fp + fn
    return np.where(whole > 0, 2 * tp / np.maximum(whole, 1), 1.0)

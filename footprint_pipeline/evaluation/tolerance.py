"""The tolerance sweep: at which probability does a pixel count as a building?

A pixel is a building where ``probability > 1 - tolerance``. The sweep measures pixel F1 at 50 tolerances in
one pass over the pixels. What belongs here: the sweep, and the rules that ask pixels alone; `choice` asks
buildings too.
"""

import math
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import groupby, islice

import cv2
import numpy as np
import pandas as pd

from footprint_pipeline.errors import DatasetError, ShapeMismatchError

TOLERANCES = np.round(np.arange(1, 51) * 0.02, 2)
"""0.02 … 1.00, ascending, shape (50,)."""

THRESHOLDS = (1.0 - TOLERANCES).astype(np.float32)
"""What a probability must exceed, descending, shape (50,)."""

_NEAR = 6e-5
"""In fiftieths: more than what rounding does to 50 times a probability, raised to the codes, in float32."""
_FLOOR = 255 - len(TOLERANCES)
"""Code of a pixel that passes no threshold; what passes all has the highest that a byte holds, so it is cut there."""
_FEW = 0.01
"""Share of the pixels that may be looked up one by one."""
_BUILDING = 64
"""How much lower the codes of building pixels are."""
_BATCH_PX = 2**20
"""What a thread works on at once: little enough for the cache, and so much that threads do not wait for each other's
hold on Python."""
_GATHERED_PX = 2**23
"""How many pixels of a stream wait to be swept at once: 40 MB."""


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


Tiles = np.ndarray | Sequence[np.ndarray]
"""Tiles of one shape: an array, shape (tiles, H, W), or as many of shape (H, W)."""


def sweep(probability: Tiles, truth: Tiles) -> SweepTable:
    """Counts of every tile at every tolerance, in one pass over the pixels, tiles in threads.

    Args:
        probability: float32 in [0, 1].
        truth: uint8 0/1, as many tiles of the same shape.

    Raises:
        ShapeMismatchError: the two differ in shape.
    """
    if not len(probability):
        return stack([])
    shapes = [(len(tiles), *tiles[0].shape) for tiles in (probability, truth)]
    if shapes[0] != shapes[1]:
        raise ShapeMismatchError(f"Probabilities are {shapes[0]}, truth is {shapes[1]}.")
    at_once = max(1, _BATCH_PX // probability[0].size)
    starts = iter(range(0, len(probability), at_once))
    histograms = np.zeros((len(probability), 256), np.int64)

    def work() -> None:
        scratch = _scratch(at_once * probability[0].size)
        for start in starts:  # the threads share it
            batch = slice(start, start + at_once)
            histograms[batch] = _histograms(probability[batch], truth[batch], scratch)

    threads = os.cpu_count() or 1
    with ThreadPoolExecutor(threads) as pool:
        for done in [pool.submit(work) for _ in range(threads)]:
            done.result()
    return _from_histograms(histograms)


def sweep_stream(
    tiles: Iterable[tuple[np.ndarray, np.ndarray]], sweep: Callable[[Tiles, Tiles], SweepTable] = sweep
) -> SweepTable:
    """Sweep tiles that come one by one: those of one shape that follow each other are swept together.

    Args:
        tiles: probability and truth of each, shape (H, W) both, of any size; read once, and few are kept.
        sweep: counts tiles of one shape.

    Returns:
        The table, tiles in the order in which they came.

    Raises:
        ShapeMismatchError: probability and truth of a tile differ in shape.
        DatasetError: there is no tile.
    """
    tables = []
    for shapes, alike in groupby(tiles, lambda tile: (tile[0].shape, tile[1].shape)):
        at_once = max(1, _GATHERED_PX // int(np.prod(shapes[0])))
        while gathered := list(islice(alike, at_once)):
            probability, truth = zip(*gathered, strict=True)
            tables.append(sweep(probability, truth))
    return stack(tables)


def _from_histograms(histograms: np.ndarray) -> SweepTable:
    """The table of `_histograms`: who passes at least k thresholds is claimed at tolerance T - k."""
    folded = histograms.reshape(-1, 2, 128).sum(axis=1)
    levels = np.arange(255, _FLOOR - 1, -1) - 128
    passing = np.stack([folded[:, levels], folded[:, levels - _BUILDING]], axis=1)
    return from_claims(passing.cumsum(axis=2)[:, :, :-1], passing[:, 1].sum(axis=1))


def from_claims(claimed: np.ndarray, buildings: np.ndarray) -> SweepTable:
    """The table of tiles whose claimed pixels are counted.

    Args:
        claimed: int64, shape (tiles, 2, T): ground and building pixels that are claimed at every tolerance.
        buildings: building pixels of every tile, shape (tiles,).
    """
    return SweepTable(TOLERANCES, claimed[:, 1], claimed[:, 0], buildings[:, None] - claimed[:, 1])


def _scratch(pixels: int) -> np.ndarray:
    """Room for `_histograms`, to be used again: fresh memory costs more than the work that is done in it."""
    return np.empty((2, min(pixels, _BATCH_PX)), np.uint8)


def _histograms(probability: Tiles, truth: Tiles, scratch: np.ndarray) -> np.ndarray:
    """How many pixels of each tile have which code, int64, shape (tiles, 256); a large tile is taken in pieces."""
    tiles = len(probability)
    probability = np.ascontiguousarray(probability, np.float32).reshape(tiles, -1)
    truth = np.ascontiguousarray(truth).reshape(tiles, -1)
    total = np.zeros((tiles, 256), np.int64)
    for start in range(0, probability.shape[1], _BATCH_PX):
        piece = slice(start, start + _BATCH_PX)
        codes = _codes(probability[:, piece], truth[:, piece], scratch)
        total += np.array([cv2.calcHist([tile], [0], None, [256], [0, 256]) for tile in codes], np.int64)
    return total


def _codes(probability: np.ndarray, truth: np.ndarray, scratch: np.ndarray) -> np.ndarray:
    """Codes of pixels, uint8 of the same shape, in the scratch.

    The code tells how many thresholds a pixel passes. They are a fiftieth apart, so that is 50 times the probability,
    rounded up. It is rounded twice, a little low and a little high; the few pixels that are so near a threshold that
    this makes a difference are looked up one by one. A probability of exactly zero is the only one that passes none.
    """
    steps = len(TOLERANCES)
    codes, spare = (room.reshape(probability.shape) for room in scratch[:, : probability.size])
    cv2.convertScaleAbs(probability, codes, steps, _FLOOR + 0.5 - _NEAR)
    cv2.convertScaleAbs(probability, spare, steps, _FLOOR + 0.5 + _NEAR)
    unsure = np.not_equal(codes, spare, out=spare.view(bool))
    near = np.flatnonzero(unsure)
    if len(near) > _FEW * codes.size:  # a network that is sure of the ground is near zero everywhere
        floor = codes == _FLOOR
        codes += floor & (probability > 0)
        near = np.flatnonzero(unsure & ~floor)
    every = codes.reshape(-1)
    every[near] = _FLOOR + np.searchsorted(THRESHOLDS[::-1], probability.reshape(-1)[near])
    codes -= cv2.threshold(truth, 0, _BUILDING, cv2.THRESH_BINARY, spare)[1]
    # Neighbours, which are often alike, differ in the eighth bit: counters that are written again and again wait for
    # themselves.
    every[: len(every) & ~1].view(np.uint16)[:] ^= 0x8000
    return codes


def stack(tables: list[SweepTable]) -> SweepTable:
    """Several tables, one below the other.

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


def harmless(table: SweepTable, *, slack: float, say: Mapping[str, float] | None = None) -> np.ndarray:
    """Positions of the tolerances whose median and pooled F1 are both at most `slack` below the highest there is.

    Both are means over AOIs. Where there is no such tolerance, those nearest to it. Ascending, never empty.

    Args:
        table: the sweep of all tiles.
        slack: at most so far below.
        say: how much an AOI counts. When None, the root of its building pixels: an AOI of few tiles has a say, but no
            more than it can know.

    Raises:
        DatasetError: no tile has a building.
    """
    areas = [area for area in table.by_aoi() if area.with_buildings.any()] or [table]
    weights = [
        math.sqrt((area.true_positives[:, 0] + area.false_negatives[:, 0]).sum())
        if say is None
        else say.get(area.aois[0], 0.0)
        for area in areas
    ]
    median = np.average([_median_and_std(area)[0] for area in areas], axis=0, weights=weights)
    pooled = np.average([area.pooled_f1 for area in areas], axis=0, weights=weights)
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

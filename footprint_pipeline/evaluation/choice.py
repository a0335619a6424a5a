"""The tolerance and the seed level that footprints are made with, chosen on the validation split.

The tolerance says how far buildings reach, the seed level where those that touch are told apart. What belongs here:
the rules, and measuring building F1 at a coarse grid of both. The sweep over pixels is `tolerance`'s business.
"""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import pandas as pd

from footprint_pipeline.evaluation.buildings import BuildingScore, match_buildings
from footprint_pipeline.evaluation.calibration import Curve, fit_curve
from footprint_pipeline.evaluation.scoring import Answer
from footprint_pipeline.evaluation.spec import SweepSpec
from footprint_pipeline.evaluation.tolerance import (
    Choice,
    SweepTable,
    choice_at,
    harmless,
    highest_pooled,
    median_then_std,
)
from footprint_pipeline.many import spread


@dataclass(frozen=True)
class Labelled:
    """What the network says of a tile, and the truth.

    Attributes:
        aoi: its AOI.
        answer: the network's.
        buildings: valid shapely polygons on the tile's grid, shape (N,).
    """

    aoi: str
    answer: Answer
    buildings: np.ndarray


@dataclass(frozen=True)
class Settled:
    """What was chosen, and why.

    Attributes:
        choice: the tolerance, and pixel F1 there.
        seed_level: buildings that touch are told apart by interiors above it; None: they are not.
        building_f1: SpaceNet's there, on the tiles measured, mean over AOIs.
        measured: one row a candidate: `tolerance`, `seed_level` (NaN: not separated), `building_f1`.
        calibration: the curve from a footprint's confidence to the share of such footprints that are buildings.
    """

    choice: Choice
    seed_level: float | None
    building_f1: float
    measured: pd.DataFrame
    calibration: Curve


def settle(table: SweepTable, tiles: Sequence[Labelled], spec: SweepSpec) -> Settled:
    """Choose by the spec's rule; of equals the smaller tolerance, and not separating, wins.

    Whatever the rule for the tolerance, the seed level is the one of the highest building F1: at the tolerance, or at
    the middle one of several candidates, which are then measured at this level alone.

    Args:
        table: the sweep of all tiles.
        tiles: those to measure building F1 on.
        spec: the rule and the candidates.

    Raises:
        DatasetError: no tile has a building.
    """
    if spec.rule == "median_then_std":
        candidates = [median_then_std(table)]
    elif spec.rule == "pooled_pixel_f1":
        candidates = [highest_pooled(table)]
    else:
        allowed = harmless(table, slack=spec.slack if spec.rule == "balanced" else 1.0)
        tried = allowed[spread(len(allowed), spec.tolerances)]
        candidates = [choice_at(table, int(position)) for position in tried]
    separable = any(tile.answer.interior is not None for tile in tiles)
    levels = (None, *(spec.seed_levels if separable else ()))
    middle = candidates[(len(candidates) - 1) // 2]
    at_levels = building_f1(tiles, tolerances=[middle.tolerance], seed_levels=levels, min_area_m2=spec.min_area_m2)
    level = levels[int(np.argmax(at_levels))]
    tolerances = [choice.tolerance for choice in candidates]
    at_tolerances = building_f1(tiles, tolerances=tolerances, seed_levels=[level], min_area_m2=spec.min_area_m2)
    best = int(np.argmax(at_tolerances))
    measured = pd.DataFrame(
        {
            "tolerance": [middle.tolerance] * len(levels) + tolerances,
            "seed_level": np.array([*levels, *[level] * len(tolerances)], float),
            "building_f1": np.concatenate([at_levels.ravel(), at_tolerances.ravel()]),
        }
    ).drop_duplicates(["tolerance", "seed_level"])
    said, true = _came_true(tiles, tolerance=tolerances[best], seed_level=level, min_area_m2=spec.min_area_m2)
    return Settled(candidates[best], level, float(at_tolerances.ravel()[best]), measured, fit_curve(said, true))


def _came_true(
    tiles: Sequence[Labelled], *, tolerance: float, seed_level: float | None, min_area_m2: float
) -> tuple[np.ndarray, np.ndarray]:
    """The confidence of every footprint that counts, and whether it is a building."""
    said, true = [np.empty(0, np.float32)], [np.empty(0, bool)]
    for tile in tiles:
        found = tile.answer.footprints(tolerance=tolerance, seed_level=seed_level, min_area_m2=min_area_m2)
        matches = match_buildings(found.polygons, found.confidence, tile.buildings)
        said.append(found.confidence[matches.proposed])
        true.append(matches.right[matches.proposed])
    return np.concatenate(said), np.concatenate(true)


def building_f1(
    tiles: Sequence[Labelled],
    *,
    tolerances: Sequence[float],
    seed_levels: Sequence[float | None],
    min_area_m2: float = 0.0,
) -> np.ndarray:
    """SpaceNet's building F1, mean over AOIs, at every tolerance and seed level; tiles are measured in threads.

    Returns:
        float64, shape (tolerances, seed levels); 0 where there is no tile.
    """

    def score(tile: Labelled) -> list[BuildingScore]:
        found = (
            tile.answer.footprints(tolerance=tolerance, seed_level=level, min_area_m2=min_area_m2)
            for tolerance in tolerances
            for level in seed_levels
        )
        return [match_buildings(each.polygons, each.confidence, tile.buildings).score for each in found]

    aois = sorted({tile.aoi for tile in tiles})
    sums = {aoi: [BuildingScore()] * (len(tolerances) * len(seed_levels)) for aoi in aois}
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for tile, scores in zip(tiles, pool.map(score, tiles), strict=True):
            sums[tile.aoi] = [one + other for one, other in zip(sums[tile.aoi], scores, strict=True)]
    f1 = np.array([[score.f1 for score in sums[aoi]] for aoi in aois]).reshape(len(aois), len(tolerances), -1)
    return f1.mean(axis=0) if aois else np.zeros((len(tolerances), len(seed_levels)))

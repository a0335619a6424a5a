"""The tolerance, the seed level and the minimum area that footprints are made with, chosen on the validation split.

The tolerance says how far buildings reach, the seed level where those that touch are told apart. What belongs here:
the rules. What they ask is measured by `tolerance` (pixels) and `building_sweep`.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from footprint_pipeline.evaluation.building_sweep import Labelled, match_at, mean_f1, measure_buildings
from footprint_pipeline.evaluation.calibration import Curve, fit_curve
from footprint_pipeline.evaluation.spec import SweepSpec
from footprint_pipeline.evaluation.tolerance import (
    TOLERANCES,
    Choice,
    SweepTable,
    choice_at,
    harmless,
    highest_pooled,
    median_then_std,
)
from footprint_pipeline.many import spread

_SHOWN = tuple(TOLERANCES[4:49:5].tolist())
"""0.1 … 0.9: building F1 is measured here whatever the rule, so that one sees what was not chosen."""


@dataclass(frozen=True)
class Settled:
    """What was chosen, and why.

    Attributes:
        choice: the tolerance, and pixel F1 there.
        article: what the article's rule would choose.
        own: the tolerances of AOIs for themselves; empty where one serves all.
        seed_level: buildings that touch are told apart by interiors above it; None: they are not.
        min_area_m2: smaller footprints are no buildings.
        building_f1: SpaceNet's there, on the tiles measured, as `building_sweep.mean_f1` has it.
        measured: what `building_sweep.measure_buildings` measured.
        calibration: the curve from a footprint's confidence to the share of such footprints that are buildings.
    """

    choice: Choice
    article: Choice
    seed_level: float | None
    min_area_m2: float
    building_f1: float
    measured: pd.DataFrame
    calibration: Curve
    own: dict[str, float] = field(default_factory=dict)


def settle(table: SweepTable, tiles: Sequence[Labelled], spec: SweepSpec) -> Settled:
    """Choose by the spec's rule; of equals the smaller tolerance, the smaller area, and not separating, wins.

    Whatever the rule for the tolerance, seed level and minimum area are those of the highest building F1: the level at
    the tolerance, or at the middle one of several candidates, which are then measured at this level alone. They serve
    all AOIs alike; `SweepSpec.half_say` tells when an AOI has a tolerance of its own.

    Args:
        table: the sweep of all tiles.
        tiles: those to measure building F1 on, at least one.
        spec: the rule and the candidates.

    Raises:
        DatasetError: no tile has a building.
    """
    article = median_then_std(table)
    if spec.rule == "median_then_std":
        candidates = [article]
    elif spec.rule == "pooled_pixel_f1":
        candidates = [highest_pooled(table)]
    else:
        candidates = [choice_at(table, at) for at in _candidates(table, spec)]
    separable = any(tile.answer.interior is not None for tile in tiles)
    levels = (None, *(spec.seed_levels if separable else ()))
    areas = sorted(spec.min_areas_m2)
    middle = candidates[(len(candidates) - 1) // 2].tolerance
    at_levels = measure_buildings(tiles, tolerances=[middle], seed_levels=levels, min_areas_m2=areas)
    best = _best(mean_f1(at_levels))
    level = None if np.isnan(best["seed_level"]) else float(best["seed_level"])
    tolerances = [choice.tolerance for choice in candidates]
    at_tolerances = measure_buildings(
        tiles,
        tolerances=sorted({*tolerances, *_SHOWN} - {middle}),
        seed_levels=[level],
        min_areas_m2=areas,
    )
    measured = pd.concat([at_levels, at_tolerances], ignore_index=True)
    of_level = measured["seed_level"].isna() if level is None else measured["seed_level"] == level
    eligible = mean_f1(measured[of_level & measured["tolerance"].isin(tolerances)])
    best = _best(eligible.sort_values(["tolerance", "min_area_m2"], kind="stable"))
    choice, min_area_m2 = candidates[tolerances.index(best["tolerance"])], float(best["min_area_m2"])
    chosen = measured[of_level & (measured["min_area_m2"] == min_area_m2)]
    own = _own_tolerances(table, tiles, spec, chosen, seed_level=level, min_area_m2=min_area_m2)
    at = {tile.aoi: own.get(tile.aoi, choice.tolerance) for tile in tiles}
    said, true = _came_true(tiles, at, seed_level=level, min_area_m2=min_area_m2)
    return Settled(choice, article, level, min_area_m2, float(best["f1"]), measured, fit_curve(said, true), own)


def _candidates(table: SweepTable, spec: SweepSpec, say: Mapping[str, float] | None = None) -> list[int]:
    """Positions of the tolerances that building F1 decides between."""
    allowed = harmless(table, slack=spec.slack, say=say)
    return allowed[spread(len(allowed), spec.tolerances)].tolist()


def _own_tolerances(
    table: SweepTable,
    tiles: Sequence[Labelled],
    spec: SweepSpec,
    measured: pd.DataFrame,
    *,
    seed_level: float | None,
    min_area_m2: float,
) -> dict[str, float]:
    """The tolerance of every AOI that has a building, by the same rule but with more say of its own figures.

    What is measured on few buildings is chance, so the figures of all AOIs count as well, and the less an AOI is
    measured on, the more: with `half_say` buildings half. `measured` is what is known already at this seed level and
    minimum area.
    """
    counts = (measured["tp"] + measured["fn"]).groupby(measured["aoi"]).first()
    buildings = {str(aoi): int(count) for aoi, count in counts.items() if count}
    if spec.rule != "building_f1" or not spec.half_say or len(buildings) < 2 or not table.aois:
        return {}
    roots = {aoi: math.sqrt(count) for aoi, count in buildings.items()}
    says = {
        aoi: {other: (1 - alone) * root / sum(roots.values()) + alone * (other == aoi) for other, root in roots.items()}
        for aoi, count in buildings.items()
        for alone in [count / (count + spec.half_say)]
    }
    candidates = {aoi: table.tolerances[_candidates(table, spec, say)].tolist() for aoi, say in says.items()}
    more = measure_buildings(
        tiles,
        tolerances=sorted(set().union(*candidates.values()) - set(measured["tolerance"])),
        seed_levels=[seed_level],
        min_areas_m2=[min_area_m2],
    )
    measured = pd.concat([measured, more]).sort_values("tolerance", kind="stable", ignore_index=True)
    return {
        aoi: float(_best(mean_f1(measured[measured["tolerance"].isin(candidates[aoi])], say=say))["tolerance"])
        for aoi, say in says.items()
    }


def _best(f1: pd.DataFrame) -> pd.Series:
    """The first row of the highest F1."""
    return f1.loc[f1["f1"].idxmax()]


def _came_true(
    tiles: Sequence[Labelled], tolerances: Mapping[str, float], *, seed_level: float | None, min_area_m2: float
) -> tuple[np.ndarray, np.ndarray]:
    """The confidence of every footprint that counts, and whether it is a building, at the tolerance of its AOI."""
    said, true = [], []
    for tile in tiles:
        (((found, matches),),) = match_at(tile, [(tolerances[tile.aoi], seed_level)], min_areas_m2=[min_area_m2])
        said.append(found.confidence[matches.proposed])
        true.append(matches.right[matches.proposed])
    return np.concatenate(said), np.concatenate(true)

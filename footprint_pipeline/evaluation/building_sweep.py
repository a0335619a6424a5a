"""Building F1 over tolerance, seed level and minimum area. Which of them to take is `choice`'s business."""

import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import pandas as pd

from footprint_pipeline.evaluation.buildings import BuildingScore, Matches, Scene, assign, pair_up
from footprint_pipeline.evaluation.scoring import Answer
from footprint_pipeline.footprints.vectorize import Footprints

SETTING = ["tolerance", "seed_level", "min_area_m2"]


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


def measure_buildings(
    tiles: Sequence[Labelled],
    *,
    tolerances: Sequence[float],
    seed_levels: Sequence[float | None],
    min_areas_m2: Sequence[float],
) -> pd.DataFrame:
    """SpaceNet's score of every AOI at every setting; tiles are measured in threads.

    Returns:
        One row an AOI and setting: `aoi`, `tolerance`, `seed_level` (NaN: not separated), `min_area_m2`, and the counts
        and ratios of `BuildingScore.row`.
    """
    settings = [(tolerance, level) for tolerance in tolerances for level in seed_levels]

    def score(tile: Labelled) -> list[BuildingScore]:
        return [
            matches.score
            for at_setting in match_at(tile, settings, min_areas_m2=min_areas_m2)
            for _, matches in at_setting
        ]

    sums: dict[str, list[BuildingScore]] = {}
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for tile, scores in zip(tiles, pool.map(score, tiles), strict=True):
            former = sums.get(tile.aoi, [BuildingScore()] * len(scores))
            sums[tile.aoi] = [one + other for one, other in zip(former, scores, strict=True)]
    at = [(*setting, area) for setting in settings for area in min_areas_m2]
    rows = [
        {"aoi": aoi, **dict(zip(SETTING, setting, strict=True)), **score.row()}
        for aoi in sorted(sums)
        for setting, score in zip(at, sums[aoi], strict=True)
    ]
    return pd.DataFrame(rows, columns=["aoi", *SETTING, *BuildingScore().row()]).astype({"seed_level": float})


def match_at(
    tile: Labelled, settings: Sequence[tuple[float, float | None]], *, min_areas_m2: Sequence[float]
) -> list[list[tuple[Footprints, Matches]]]:
    """The footprints of a tile and what they find, at every setting and every minimum area.

    Args:
        tile: the tile.
        settings: tolerance and seed level.
        min_areas_m2: footprints that are no larger are no proposals, square metres.
    """
    found = [tile.answer.footprints(tolerance=tolerance, seed_level=level) for tolerance, level in settings]
    pairs = pair_up([Scene(each.polygons, each.confidence, tile.buildings) for each in found])
    return [
        [(each, assign(may, each.confidence, counts=area_m2 > least)) for least in min_areas_m2]
        for each, may in zip(found, pairs, strict=True)
        for area_m2 in [tile.answer.area_m2(each)]
    ]


def mean_f1(measured: pd.DataFrame, *, say: Mapping[str, float] | None = None) -> pd.DataFrame:
    """Building F1, mean over AOIs.

    Args:
        measured: what `measure_buildings` measured.
        say: how much an AOI counts. When None, the root of its buildings: what is measured on few is chance.

    Returns:
        One row a setting, in the order measured: `tolerance`, …, `f1`; 0 where no AOI has a building.
    """
    weight = np.sqrt(measured["tp"] + measured["fn"]) if say is None else measured["aoi"].map(say).fillna(0.0)
    weighed = measured.assign(weight=weight, f1=weight * measured["f1"])
    total = weighed.groupby(SETTING, sort=False, dropna=False)[["f1", "weight"]].sum()
    return (total["f1"] / total["weight"].replace(0, 1)).rename("f1").reset_index()

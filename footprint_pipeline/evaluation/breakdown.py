"""Where a network does well and where it does not: by size of building, by coverage of the tile, by confidence."""

from itertools import pairwise

import numpy as np
import pandas as pd

from footprint_pipeline.evaluation import buildings
from footprint_pipeline.evaluation.scoring import TestScores, summarize

SIZES_M2 = (0.0, 50.0, 150.0, 500.0, np.inf)
"""Bounds of the size classes, square metres: sheds, houses, large houses, halls and blocks."""
COVERAGE = (0.0, 0.02, 0.1, 0.3, 1.0)
"""Bounds of the classes of tiles by their share of building pixels."""


def by_size(scores: TestScores) -> pd.DataFrame:
    """Scores by size class; see `buildings.by_size`.

    Returns:
        One row a class: `from_m2`, `to_m2`, `buildings`, `found`, `false`, `precision`, `recall`, `f1`.
    """
    found = scores.buildings["found"].to_numpy(bool)
    area = scores.buildings["area_m2"].to_numpy(float)
    false = scores.proposals["area_m2"].to_numpy(float)[~scores.proposals["right"].to_numpy(bool)]
    table = buildings.by_size(area[found], false, area[~found], bounds=SIZES_M2)
    table.insert(2, "buildings", table["tp"] + table["fn"])
    return table.drop(columns="fn").rename(columns={"from": "from_m2", "to": "to_m2", "tp": "found", "fp": "false"})


def by_coverage(scores: TestScores) -> pd.DataFrame:
    """Scores by how much of a tile is built up.

    Returns:
        One row a class that has tiles: `from`, `to` (shares of the pixels with imagery), `tiles` and the three figures.
    """
    tiles = scores.tiles
    share = (tiles["pixel_tp"] + tiles["pixel_fn"]) / tiles["pixels"].clip(lower=1)
    rows = []
    for low, high in pairwise(COVERAGE):
        members = tiles[(share >= low) & ((share < high) | (high == COVERAGE[-1]))]
        if len(members):
            rows.append({"from": low, "to": high, "tiles": len(members), **summarize(members).metrics()})
    return pd.DataFrame(rows)


def precision_recall(scores: TestScores) -> pd.DataFrame:
    """What remains of precision and recall when only footprints of at least some confidence are taken.

    Returns:
        One row a distinct confidence, falling: `confidence`, `precision`, `recall`.
    """
    proposals = scores.proposals.sort_values("confidence", ascending=False, kind="stable", ignore_index=True)
    hits = proposals["right"].to_numpy(bool).cumsum()
    curve = pd.DataFrame(
        {
            "confidence": proposals["confidence"],
            "precision": hits / np.arange(1, len(hits) + 1),
            "recall": hits / max(len(scores.buildings), 1),
        }
    )
    return curve.drop_duplicates("confidence", keep="last", ignore_index=True)


def average_precision(curve: pd.DataFrame) -> float:
    """The area below a curve of `precision_recall`: mean precision over the recall that is reached."""
    recall = curve["recall"].to_numpy(float)
    return float(np.sum(np.diff(recall, prepend=0.0) * curve["precision"].to_numpy(float)))

"""SpaceNet's building metric: polygons against polygons, image by image, many images at once.

Proposals are taken by falling confidence; each takes the still unmatched truth of highest IoU, and is a true
positive when that IoU is at least one half. Counts are summed over an AOI; several AOIs count the same each.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pandas as pd
import shapely

from footprint_pipeline.evaluation.overlap import geos_overlap_area, overlap_area
from footprint_pipeline.evaluation.spec import IOU_THRESHOLD, MIN_AREA_PX

_ROUNDING = 1e-9
"""IoUs that are so near the threshold, or each other, are those of GEOS's intersections."""
_AT_ONCE = 512
"""Images that are worked on at once."""


@dataclass(frozen=True)
class BuildingScore:
    """Counts of matched and unmatched buildings."""

    true_positives: int = 0
    false_positives: int = 0
    false_negatives: int = 0

    def __add__(self, other: "BuildingScore") -> "BuildingScore":
        return BuildingScore(
            self.true_positives + other.true_positives,
            self.false_positives + other.false_positives,
            self.false_negatives + other.false_negatives,
        )

    @property
    def precision(self) -> float:
        """Share of the proposals that are buildings; 0 when there are none."""
        return self.true_positives / max(self.true_positives + self.false_positives, 1)

    @property
    def recall(self) -> float:
        """Share of the buildings that were found; 0 when there are none."""
        return self.true_positives / max(self.true_positives + self.false_negatives, 1)

    @property
    def f1(self) -> float:
        """2 TP / (2 TP + FP + FN); 0 when there is nothing at all."""
        whole = 2 * self.true_positives + self.false_positives + self.false_negatives
        return 2 * self.true_positives / max(whole, 1)

    def row(self) -> dict[str, float]:
        """Counts and ratios as a row of a table: `tp`, `fp`, `fn`, `precision`, `recall`, `f1`."""
        return {
            "tp": self.true_positives,
            "fp": self.false_positives,
            "fn": self.false_negatives,
            "precision": self.precision,
            "recall": self.recall,
            "f1": self.f1,
        }


@dataclass(frozen=True)
class Scene:
    """An image: what is claimed to be there, and what is.

    Attributes:
        proposals: valid shapely polygons in pixels, shape (P,).
        confidence: of them, float, shape (P,); of equals the earlier proposal goes first.
        truth: valid shapely polygons in pixels, shape (N,).
    """

    proposals: np.ndarray
    confidence: np.ndarray
    truth: np.ndarray


@dataclass(frozen=True)
class Matches:
    """Which proposal of an image found which building.

    Attributes:
        partner: position of the building that a proposal found, int64, shape (P,); -1: none.
        iou: intersection over union with it, float64, shape (P,); 0: none.
        proposed: bool, shape (P,): the proposals that count, being large enough.
        there: bool, shape (N,): the buildings that count.
    """

    partner: np.ndarray
    iou: np.ndarray
    proposed: np.ndarray
    there: np.ndarray

    @property
    def right(self) -> np.ndarray:
        """bool, shape (P,): proposals that found a building."""
        return self.partner >= 0

    @property
    def found(self) -> np.ndarray:
        """bool, shape (N,): buildings that were found."""
        found = np.zeros(len(self.there), bool)
        found[self.partner[self.right]] = True
        return found

    @property
    def score(self) -> BuildingScore:
        """The counts."""
        hits, proposed, there = (int(np.count_nonzero(each)) for each in (self.right, self.proposed, self.there))
        return BuildingScore(hits, proposed - hits, there - hits)


@dataclass(frozen=True)
class Pairs:
    """Proposals of an image with the buildings that they may find: their IoU is high enough.

    Attributes:
        proposal: positions, int64, shape (K,).
        building: positions, the same.
        iou: intersection over union, float64, shape (K,).
        large: bool, shape (P,): the proposals that are large enough to count.
        there: bool, shape (N,): the buildings that are.
    """

    proposal: np.ndarray
    building: np.ndarray
    iou: np.ndarray
    large: np.ndarray
    there: np.ndarray


def match_buildings(scenes: Sequence[Scene], *, min_area_px: float = MIN_AREA_PX) -> list[Matches]:
    """Match the proposals of every image with its buildings.

    Args:
        scenes: the images.
        min_area_px: smaller polygons on either side are left out.
    """
    pairs = pair_up(scenes, min_area_px=min_area_px)
    return [assign(each, scene.confidence) for each, scene in zip(pairs, scenes, strict=True)]


def pair_up(scenes: Sequence[Scene], *, min_area_px: float = MIN_AREA_PX) -> list[Pairs]:
    """The pairs that could be matches, of every image; arguments as of `match_buildings`."""
    return [
        pairs
        for first in range(0, len(scenes), _AT_ONCE)
        for pairs in _pair_up(scenes[first : first + _AT_ONCE], min_area_px)
    ]


def _pair_up(scenes: Sequence[Scene], min_area_px: float) -> list[Pairs]:
    """`pair_up` of so few images that their polygons may stand in one row."""
    first = np.cumsum([0, *(len(scene.proposals) for scene in scenes)])
    first_true = np.cumsum([0, *(len(scene.truth) for scene in scenes)])
    proposals = np.concatenate([scene.proposals for scene in scenes])
    truth = np.concatenate([scene.truth for scene in scenes])
    starts = np.stack([first, first_true], axis=1)[:-1, :, None]
    met = (shapely.STRtree(scene.truth).query(scene.proposals) for scene in scenes)
    left, right = np.hstack([pairs + start for pairs, start in zip(met, starts, strict=True)])
    area, true_area = shapely.area(proposals), shapely.area(truth)
    large, there = area >= min_area_px, true_area >= min_area_px
    counted = large[left] & there[right]
    left, right = left[counted], right[counted]
    most = _most_iou(shapely.bounds(proposals)[left], shapely.bounds(truth)[right], area[left], true_area[right])
    likely = most >= IOU_THRESHOLD - _ROUNDING
    left, right = left[likely], right[likely]
    either = area[left], true_area[right]
    iou = _iou(overlap_area(proposals[left], truth[right]), *either)
    close = _close(left, iou)
    iou[close] = _iou(geos_overlap_area(proposals[left[close]], truth[right[close]]), *(each[close] for each in either))
    enough = iou >= IOU_THRESHOLD
    left, right, iou = left[enough], right[enough], iou[enough]
    ends = np.searchsorted(left, first)
    return [
        Pairs(left[a:b] - start, right[a:b] - start_true, iou[a:b], large[start:end], there[start_true:end_true])
        for (a, b), (start, end), (start_true, end_true) in zip(
            pairwise(ends), pairwise(first), pairwise(first_true), strict=True
        )
    ]


def assign(pairs: Pairs, confidence: np.ndarray, *, counts: np.ndarray | None = None) -> Matches:
    """Match by falling confidence, each proposal with the free building of highest IoU.

    Args:
        pairs: of one image.
        confidence: of its proposals, float, shape (P,); of equals the earlier goes first.
        counts: bool, shape (P,): proposals that are not left out; all when None.
    """
    proposed = pairs.large if counts is None else pairs.large & counts
    order = np.lexsort((pairs.building, -pairs.iou, pairs.proposal, -confidence[pairs.proposal]))
    order = order[proposed[pairs.proposal[order]]]
    pair_of: dict[int, int] = {}
    taken: set[int] = set()
    for pair, proposal, building in np.stack([order, pairs.proposal[order], pairs.building[order]], axis=1).tolist():
        if proposal not in pair_of and building not in taken:
            pair_of[proposal] = pair
            taken.add(building)
    right, matched = list(pair_of), list(pair_of.values())
    partner, iou = np.full(len(proposed), -1), np.zeros(len(proposed))
    partner[right], iou[right] = pairs.building[matched], pairs.iou[matched]
    return Matches(partner, iou, proposed, pairs.there)


def _close(left: np.ndarray, iou: np.ndarray) -> np.ndarray:
    """bool, shape (K,): pairs whose IoU is the threshold, or that of another pair of the proposal, but for rounding.

    Args:
        left: the proposal of every pair, shape (K,).
        iou: of the pairs, the same.
    """
    close = np.abs(iou - IOU_THRESHOLD) <= _ROUNDING
    order = np.lexsort((iou, left))
    alike = (np.diff(left[order]) == 0) & (np.diff(iou[order]) <= _ROUNDING)
    close[order[1:][alike]] = close[order[:-1][alike]] = True
    return close


def _iou(overlap: np.ndarray, area: np.ndarray, other_area: np.ndarray) -> np.ndarray:
    """Intersection over union."""
    return overlap / (area + other_area - overlap)


def _most_iou(bounds: np.ndarray, others: np.ndarray, area: np.ndarray, other_area: np.ndarray) -> np.ndarray:
    """What the IoU of polygons cannot exceed, by their bounding boxes, shape (N, 4), and areas, shape (N,)."""
    sides = np.minimum(bounds[:, 2:], others[:, 2:]) - np.maximum(bounds[:, :2], others[:, :2])
    overlap = np.minimum(np.prod(np.maximum(sides, 0.0), axis=1), np.minimum(area, other_area))
    return _iou(overlap, area, other_area)


def by_size(found: np.ndarray, false: np.ndarray, missed: np.ndarray, *, bounds: Sequence[float]) -> pd.DataFrame:
    """Scores by size class; a building counts where its area puts it, a false proposal where its own does.

    Args:
        found: areas of the buildings that were found, shape (TP,).
        false: of the proposals that are none, shape (FP,).
        missed: of the buildings that were not found, shape (FN,).
        bounds: of the classes, ascending, in the unit of the areas.

    Returns:
        One row a class: `from`, `to`, and the counts and ratios of `BuildingScore.row`.
    """
    counts = zip(*(np.histogram(area, bounds)[0].tolist() for area in (found, false, missed)), strict=True)
    return pd.DataFrame(
        [
            {"from": low, "to": high, **BuildingScore(*each).row()}
            for (low, high), each in zip(pairwise(bounds), counts, strict=True)
        ]
    )

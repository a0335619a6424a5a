"""SpaceNet's building metric: polygons against polygons, one image at a time.

Proposals are taken by falling confidence; each takes the still unmatched truth of highest IoU, and is a true
positive when that IoU is at least one half. Counts are summed over an AOI; several AOIs count the same each.
"""

from dataclasses import dataclass

import numpy as np
import shapely

IOU_THRESHOLD = 0.5
MIN_AREA_PX = 20.0
"""Smaller polygons are no buildings, square pixels; as in CosmiQ's solaris."""


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


def score_buildings(
    proposals: np.ndarray,
    confidence: np.ndarray,
    truth: np.ndarray,
    *,
    iou_threshold: float = IOU_THRESHOLD,
    min_area_px: float = MIN_AREA_PX,
) -> BuildingScore:
    """Match the proposals of one image with its buildings.

    Args:
        proposals: valid shapely polygons in pixels, shape (P,).
        confidence: float, shape (P,); of equals the earlier proposal goes first.
        truth: valid shapely polygons in pixels, shape (N,).
        iou_threshold: least intersection over union of a match.
        min_area_px: smaller polygons on either side are left out.
    """
    keep = shapely.area(proposals) >= min_area_px
    proposals, confidence = proposals[keep], confidence[keep]
    truth = truth[shapely.area(truth) >= min_area_px]
    if not len(proposals) or not len(truth):
        return BuildingScore(0, len(proposals), len(truth))

    proposals = proposals[np.argsort(-confidence, kind="stable")]
    tree = shapely.STRtree(truth)
    left, right = tree.query(proposals, predicate="intersects")
    overlap = shapely.area(shapely.intersection(proposals[left], truth[right]))
    iou = overlap / (shapely.area(proposals[left]) + shapely.area(truth[right]) - overlap)

    pairs = (iou >= iou_threshold).nonzero()[0]
    pairs = pairs[np.lexsort((right[pairs], -iou[pairs], left[pairs]))]
    taken = np.zeros(len(truth), bool)
    matched = np.zeros(len(proposals), bool)
    for pair in pairs:
        if not matched[left[pair]] and not taken[right[pair]]:
            matched[left[pair]] = taken[right[pair]] = True
    hits = int(matched.sum())
    return BuildingScore(hits, len(proposals) - hits, len(truth) - hits)

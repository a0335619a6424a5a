"""Raw outlines → outlines as a cartographer draws them: straight walls and square corners, where that is the building.

Here belongs what an outline must be to stand for a raw one: valid, near it, on the same ground, on no neighbour's.
Where none is, the raw one stays. How corners are made square is the business of `squares`.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import shapely

from footprint_pipeline.footprints.squares import Grain, boxed, squared

Outline = Literal["raw", "regularised"]
"""How footprints are drawn; regularised ones where that may be."""

COARSE, FINE = Grain(stray=2.0, slack=3.0, step=4.0), Grain(stray=1.0, slack=1.5, step=3.0)
LEAST_IOU = 0.85
"""With the raw outline. A square has 0.83 with the disc on the same middle that is as large, so what is round stays."""
FARTHEST_PX = 5.0
"""How far an outline may be from the raw one anywhere."""
WORTH = 0.04
"""What the finer outline must have more of IoU to be taken."""

_ROUNDS = 2
_TOUCH_PX2 = 1e-3


@dataclass(frozen=True)
class Regularized:
    """Outlines, and which of them are regularised.

    Attributes:
        polygons: shapely Polygons, shape (N,), dtype object.
        changed: False where it is the raw outline, bool, shape (N,).
    """

    polygons: np.ndarray
    changed: np.ndarray


def regularize(polygons: np.ndarray, *, frame: shapely.Polygon | None = None) -> Regularized:
    """Outlines with straight walls and square corners, of buildings that may be drawn so; the others as they are.

    No two overlap more than they did: where they would, the later one ends at the wall of the earlier one.

    Args:
        polygons: shapely Polygons in pixels, shape (N,), dtype object. One that is not valid or smaller than a pixel
            stays as it is.
        frame: what no outline may leave, convex; the raw ones lie in it.
    """
    usable = np.flatnonzero(shapely.is_valid(polygons) & ~shapely.is_empty(polygons))
    if not len(usable):
        return Regularized(polygons.copy(), np.zeros(len(polygons), bool))
    raw = polygons[usable]
    made, seen = raw.copy(), shapely.area(raw) >= 1
    made[seen] = _chosen(raw[seen])
    if frame is not None:
        beyond = ~(shapely.covers(frame, made) | shapely.equals_exact(made, raw))
        cut = shapely.intersection(made[beyond], frame)
        made[beyond] = np.where(shapely.get_type_id(cut) == shapely.GeometryType.POLYGON, cut, raw[beyond])
    made = _apart(made, raw)
    changed = ~shapely.equals_exact(made, raw)
    answer, is_changed = polygons.copy(), np.zeros(len(polygons), bool)
    answer[usable[changed]] = made[changed]
    is_changed[usable[changed]] = True
    return Regularized(answer, is_changed)


def _chosen(raw: np.ndarray) -> np.ndarray:
    """Of each the coarse outline, the fine one where that is worth it, the rectangle where neither will do, or raw."""
    made = squared(raw, COARSE)
    iou = _iou(made, raw)
    open_ = np.flatnonzero(iou < 1 - WORTH)
    fine = squared(raw[open_], FINE)
    fine_iou = _iou(fine, raw[open_])
    better = fine_iou > iou[open_] + WORTH
    made[open_[better]], iou[open_[better]] = fine[better], fine_iou[better]
    left = np.flatnonzero(iou == 0)
    boxes = boxed(raw[left])
    made[left] = np.where(_iou(boxes, raw[left]) > 0, boxes, raw[left])
    return made


def _iou(candidates: np.ndarray, raw: np.ndarray) -> np.ndarray:
    """IoU of each with the raw outline; 0 where it may not stand for it."""
    may = (shapely.get_type_id(candidates) == shapely.GeometryType.POLYGON) & shapely.is_valid(candidates)
    one, other = candidates[may], raw[may]
    common = shapely.area(shapely.intersection(one, other))
    iou = common / (shapely.area(one) + shapely.area(other) - common)
    near = shapely.hausdorff_distance(one, other) <= FARTHEST_PX
    answer = np.zeros(len(raw))
    answer[may] = np.where(near & (iou >= LEAST_IOU), iou, 0.0)
    return answer


def _meeting(made: np.ndarray, some: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Which outlines meet some of them, each pair once, in its order.

    The larger of two is prepared for it: a long one may lie among thousands of small ones.
    """
    found, other = shapely.STRtree(made).query(made[some])
    one = some[found]
    told_once = (one < other) | ((one != other) & ~np.isin(other, some))
    one, other = np.minimum(one, other)[told_once], np.maximum(one, other)[told_once]
    is_larger = shapely.get_num_coordinates(made[one]) > shapely.get_num_coordinates(made[other])
    large, small = np.where(is_larger, one, other), np.where(is_larger, other, one)
    shapely.prepare(made[np.unique(large)])
    meets = shapely.intersects(made[large], made[small])
    return one[meets], other[meets]


def _apart(made: np.ndarray, raw: np.ndarray) -> np.ndarray:
    """Outlines of which no two overlap more than the raw ones: cut where that is enough, else raw."""
    made, attempt, changed = made.copy(), 0, np.arange(len(made))
    while True:
        one, other = _meeting(made, changed)
        common = shapely.area(shapely.intersection(made[one], made[other]))
        one, other, common = (each[common > _TOUCH_PX2] for each in (one, other, common))
        more = common - shapely.area(shapely.intersection(raw[one], raw[other])) > _TOUCH_PX2
        one, other = one[more], other[more]
        if not len(one):
            return made
        attempt += 1
        if attempt > _ROUNDS:
            changed = np.union1d(one, other)
            made[changed] = raw[changed]
            continue
        other_is_raw = shapely.equals_exact(made[other], raw[other])
        cut, stays = np.where(other_is_raw, one, other), np.where(other_is_raw, other, one)
        changed = np.unique(cut)
        for number in changed:
            rest = shapely.difference(made[number], shapely.union_all(made[stays[cut == number]]))
            fits = _iou(np.array([rest], object), raw[[number]])[0] > 0
            made[number] = rest if fits else raw[number]

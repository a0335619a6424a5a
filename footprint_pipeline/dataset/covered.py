"""Which labels of a tile say nothing new: buildings listed twice, and parts of a building listed beside the whole.

Drawn, they would be neighbours that touch all over. Placing labels is `polygons`' business, drawing them `masks`'.
"""

from collections.abc import Iterator

import numpy as np
import shapely

COVERED_SHARE = 0.95
"""A polygon is covered when more than this share of its area lies within another one."""
_PAIRS_AT_ONCE = 4_000_000


def covered_by_another(polygons_px: np.ndarray, tile_of: np.ndarray, building_id: np.ndarray) -> np.ndarray:
    """Which polygons lie, but for a rim, within a larger one of their tile, or one as large and of a lower id.

    Only what stays covers: a polygon that goes takes nothing with it that reaches beyond those that stay.

    Args:
        polygons_px: valid polygons on the grids of their tiles, shape (N,); a hole is no part of one.
        tile_of: int, shape (N,): which tile each belongs to.
        building_id: int, shape (N,): unique within a tile.

    Returns:
        bool, shape (N,).
    """
    area = shapely.area(polygons_px)
    rank = np.empty(len(area), int)
    rank[np.lexsort((building_id, -area))] = np.arange(len(area))
    inner, outer = _boxes_that_meet(polygons_px, tile_of, COVERED_SHARE * area)
    later = rank[outer] < rank[inner]
    inner, outer = inner[later], outer[later]
    shared = shapely.area(shapely.intersection(polygons_px[inner], polygons_px[outer]))
    within = shared > COVERED_SHARE * area[inner]
    inner, outer = inner[within], outer[within]

    covered = np.zeros(len(area), bool)
    from_the_largest = np.argsort(rank[inner])
    for one, by in zip(inner[from_the_largest], outer[from_the_largest], strict=True):
        covered[one] |= not covered[by]
    return covered


def _boxes_that_meet(polygons_px: np.ndarray, tile_of: np.ndarray, least_px: np.ndarray) -> tuple[np.ndarray, ...]:
    """Pairs of polygons of a tile whose bounding boxes share more area than `least_px` of the first."""
    if not len(polygons_px):
        return np.empty(0, int), np.empty(0, int)
    bounds = shapely.bounds(polygons_px)
    stride = bounds[:, 2].max() - bounds[:, 0].min() + 1.0
    bounds += np.outer(tile_of, [stride, 0.0, stride, 0.0])  # tiles side by side
    from_the_left = np.argsort(bounds[:, 0], kind="stable")
    bounds, least_px = bounds[from_the_left], least_px[from_the_left]
    # Of each, how many that begin further to the right begin before it ends.
    ahead = np.maximum(np.searchsorted(bounds[:, 0], bounds[:, 2]) - np.arange(len(bounds)) - 1, 0)
    found = []
    for first, second in _in_parts(ahead):
        shared = np.minimum(bounds[first, 2:], bounds[second, 2:]) - np.maximum(bounds[first, :2], bounds[second, :2])
        area = np.maximum(shared, 0.0).prod(axis=1)
        found += [(first[area > least_px[first]], second[area > least_px[first]])]
        found += [(second[area > least_px[second]], first[area > least_px[second]])]
    first, second = (np.concatenate(each) for each in zip(*found, strict=True))
    return from_the_left[first], from_the_left[second]


def _in_parts(ahead: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Pairs of each number with so many that follow it, some millions at a time."""
    before = np.append(0, np.cumsum(ahead))
    start = 0
    while start < len(ahead):
        end = max(start + 1, int(np.searchsorted(before, before[start] + _PAIRS_AT_ONCE, side="right")) - 1)
        first = np.repeat(np.arange(start, end), ahead[start:end])
        yield first, first + 1 + before[start] + np.arange(len(first)) - before[first]
        start = end

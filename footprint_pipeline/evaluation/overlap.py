"""Areas of intersections of polygons, very many at once, without the intersections.

At an x, a polygon is what lies between its edges there: the sum over edges i of s_i · [y < a_i(x)], where a_i(x) is the
edge's height and s_i = ±1 its direction in x, seen with the ring's. The signs add up to zero. A point is in A and B
where it is below an edge of each, so at an x the length of A ∩ B is the sum over pairs of s_i t_j · min(a_i, b_j).
As min(a, b) = (a + b)/2 - |a - b|/2, and the first part adds up to zero with the signs,

    area(A ∩ B) = -½ Σ_i Σ_j s_i t_j ∫ |a_i(x) - b_j(x)| dx   over the x that both edges cover.

The difference is linear. Where it is m in the middle of an interval of width w and m ± h at its ends, its integral is
w/2 · (M + m²/M) with M = max(|m|, |h|): some twenty operations a pair of edges, whatever the polygons are like.

What belongs here: this sum, and what is left to GEOS: polygons with courtyards, of several parts or of many corners.
"""

from collections.abc import Iterator

import numpy as np
import shapely

_POLYGON = 3
_MOST_EDGE_PAIRS = 256
"""Of a pair of polygons: from about here on GEOS is faster, for it does not look at all of them."""
_AT_ONCE = 2**15
"""Pairs of edges that are worked on at once, so that they stay in a core's cache."""
_UPRIGHT = 1e100
"""An edge that is so much higher than wide covers no x."""


def overlap_area(polygons: np.ndarray, others: np.ndarray) -> np.ndarray:
    """What `shapely.area(shapely.intersection(polygons, others))` is, but for rounding: some 1e-13 of it.

    Args:
        polygons: valid shapely polygons or multipolygons, shape (K,).
        others: the same.

    Returns:
        float64, shape (K,).
    """
    corners = np.stack([shapely.get_num_coordinates(each) for each in (polygons, others)])
    simple = (corners - 1).prod(axis=0) <= _MOST_EDGE_PAIRS
    for each in (polygons, others):
        simple &= (shapely.get_type_id(each) == _POLYGON) & (shapely.get_num_interior_rings(each) == 0)
    simple &= corners.min(axis=0) > 0
    area = np.empty(len(polygons))
    area[~simple] = geos_overlap_area(polygons[~simple], others[~simple])
    for chunk in _chunks(np.flatnonzero(simple), corners - 1):
        area[chunk] = _add_up(*map(_corners, (polygons[chunk], others[chunk]), corners[:, chunk]))
    return area


def geos_overlap_area(polygons: np.ndarray, others: np.ndarray) -> np.ndarray:
    """The same by intersecting them."""
    return shapely.area(shapely.intersection(polygons, others))


def _chunks(pairs: np.ndarray, edges: np.ndarray) -> Iterator[np.ndarray]:
    """Pairs of polygons of alike many edges, as many as may be worked on at once.

    Args:
        pairs: positions, shape (K,).
        edges: of either polygon of all pairs, shape (2, N).
    """
    pairs = pairs[np.lexsort(edges[:, pairs])]
    while len(pairs):
        window = edges[:, pairs[: 1 + _AT_ONCE // edges[:, pairs[0]].prod()]]
        padded = np.maximum.accumulate(window, axis=1).prod(axis=0) * np.arange(1, window.shape[1] + 1)
        count = max(1, int(np.searchsorted(padded, _AT_ONCE, side="right")))
        yield pairs[:count]
        pairs = pairs[count:]


def _add_up(corners: np.ndarray, other_corners: np.ndarray) -> np.ndarray:
    """The sum of the formula, shape (K,), for polygons of one ring, from what `_corners` says of them."""
    origin = corners[:, :1]
    low, high, level, slope, sign = (each[:, None] for each in _edges(*(corners - origin)))
    other_low, other_high, other_level, other_slope, other_sign = _edges(*(other_corners - origin))
    start, end = np.maximum(low, other_low), np.minimum(high, other_high)
    width = np.maximum(end - start, 0.0)
    steeper = slope - other_slope
    # Twice m and twice h of the formula.
    middle = np.abs(2.0 * (level - other_level) + steeper * (start + end))
    largest = np.maximum(np.maximum(middle, np.abs(steeper * width)), np.finfo(float).tiny)
    terms = width * (largest + middle * (middle / largest))
    return -np.einsum("ik,jk,ijk->k", sign[:, 0], other_sign, terms) / 8.0


def _corners(polygons: np.ndarray, count: np.ndarray) -> np.ndarray:
    """So many corners as x and y, float64, shape (2, most corners, K); the last is repeated where there are fewer."""
    first = np.cumsum(count) - count
    return shapely.get_coordinates(polygons).T[:, first + np.minimum(np.arange(count.max())[:, None], count - 1)]


def _edges(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, ...]:
    """Low and high end in x, height at x = 0, slope and sign of all edges, shape (corners - 1, K) each."""
    wide, high = np.diff(x, axis=0), np.diff(y, axis=0)
    upright = np.abs(wide) * _UPRIGHT <= np.abs(high)
    turn = np.sign(np.sum(x[:-1] * high - y[:-1] * wide, axis=0))
    slope = high / np.where(upright, 1.0, wide)
    sign = np.where(upright, 0.0, np.sign(wide)) * turn
    return np.minimum(x[:-1], x[1:]), np.maximum(x[:-1], x[1:]), y[:-1] - slope * x[:-1], slope, sign

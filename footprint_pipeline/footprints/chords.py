"""Rings cut into chords where they turn, and the direction that most chords of a building have."""

from dataclasses import dataclass

import numpy as np
import shapely

from footprint_pipeline.footprints.ring_rows import around, begun_at

QUARTER = np.pi / 2
_BINS = 60
_NEAR = np.radians(15.0)


@dataclass(frozen=True)
class Chords:
    """What an outline does from one turn to the next.

    Attributes:
        ring: number of its ring, ascending, shape (N,).
        vector: from end to end, shape (N, 2).
        end: where it turns into the next one, shape (N, 2).
        scatter: Σ xx, xy and yy of the outline about its mean, shape (N, 3).
        first: position of its first edge in `edges`.
        edges: start and vector of the outline's own edges, shape (M, 4).
    """

    ring: np.ndarray
    vector: np.ndarray
    end: np.ndarray
    scatter: np.ndarray
    first: np.ndarray
    edges: np.ndarray

    @property
    def angle(self) -> np.ndarray:
        """Radians in [-π, π], shape (N,)."""
        return np.arctan2(self.vector[:, 1], self.vector[:, 0])

    @property
    def length(self) -> np.ndarray:
        """Pixels, shape (N,)."""
        return np.hypot(self.vector[:, 0], self.vector[:, 1])


def cut(rings: np.ndarray, middle: np.ndarray, stray: float) -> Chords:
    """The chords of all rings, places from the middle of each on."""
    xy, ring = shapely.get_coordinates(rings, return_index=True)
    xy = xy - middle[ring]  # which may make one of two places that are next to each other
    open_ = np.append((ring[1:] == ring[:-1]) & (xy[1:] != xy[:-1]).any(axis=1), False)
    xy, ring = xy[open_], ring[open_]
    # A ring is to start at a corner: what is farthest from its middle is one.
    size = np.bincount(ring)
    begin = np.cumsum(size) - size
    away = np.hypot(*(xy - (np.add.reduceat(xy, begin) / size[:, None])[ring]).T)
    farthest = np.lexsort((away, ring))[begin + size - 1]
    xy = xy[begun_at(ring, farthest)]

    numbered = shapely.linearrings(np.column_stack([xy, np.arange(len(xy))]), indices=ring)
    turns = shapely.get_coordinates(shapely.simplify(numbered, stray, preserve_topology=False), include_z=True)[:, 2]
    first = np.union1d(begin, turns.astype(int))
    vector = xy[around(ring)[1]] - xy
    length, place = np.hypot(*vector.T)[:, None], xy + vector / 2
    (x, y), (dx, dy) = place.T, vector.T
    second = np.column_stack([x * x + dx * dx / 12, x * y + dx * dy / 12, y * y + dy * dy / 12])
    sums = np.add.reduceat(np.column_stack([vector, length, length * place, length * second]), first)
    x, y = (sums[:, 3:5] / sums[:, 2:3]).T
    scatter = sums[:, 5:] - sums[:, 2:3] * np.column_stack([x * x, x * y, y * y])
    end = xy[first[around(ring[first])[1]]]
    return Chords(ring[first], sums[:, :2], end, scatter, first, np.column_stack([xy, vector]))


def common_direction(chords: Chords, building: np.ndarray, counts: np.ndarray, buildings: int) -> np.ndarray:
    """The direction of the chords that count of each building: the most common one, fitted to those near it.

    What is square on it is turned into it. Radians, shape (buildings,).
    """
    bins = np.floor(chords.angle % QUARTER / QUARTER * _BINS).astype(int) % _BINS
    lengths = np.bincount(building * _BINS + bins, chords.length * counts, buildings * _BINS).reshape(-1, _BINS)
    smooth = np.sum([(5 - abs(shift)) * np.roll(lengths, shift, axis=1) for shift in range(-4, 5)], axis=0)
    common = (smooth.argmax(axis=1) + 0.5) / _BINS * QUARTER

    off = off_square(chords.angle, common[building])
    square_on = np.rint((chords.angle - off - common[building]) / QUARTER).astype(int) % 2 == 1
    xx, xy, yy = chords.scatter.T * (counts & (np.abs(off) <= _NEAR))
    xx, xy, yy = np.where(square_on, (yy, -xy, xx), (xx, xy, yy))
    xx, xy, yy = (np.bincount(building, each, buildings) for each in (xx, xy, yy))
    return common + off_square(np.arctan2(2 * xy, xx - yy) / 2, common)


def off_square(angle: np.ndarray, direction: np.ndarray) -> np.ndarray:
    """By how much an angle is off a direction and what is square on it, radians in [-π/4, π/4]."""
    return angle - direction - np.rint((angle - direction) / QUARTER) * QUARTER

"""Chords laid along directions as the sides of a new outline: joined, rid of steps, and met at corners."""

from dataclasses import dataclass, fields, replace

import numpy as np
import shapely

from footprint_pipeline.footprints.chords import Chords
from footprint_pipeline.footprints.ring_rows import around, begun_at

_REACH_PX = 6.0
"""How far from where the outline turns two sides may meet."""

FREE = 8
"""The direction of sides that follow none: 0 to 3 are the first one and what is square on it, 4 to 7 the second."""


@dataclass(frozen=True)
class Sides:
    """Sides of the new outline.

    Attributes:
        ring: number of its ring, ascending, shape (N,).
        kind: which direction, shape (N,).
        along: unit vector, shape (N, 2).
        weight: how much of the raw outline it stands for, pixels.
        moment: the sum of that outline's places, shape (N, 2).
        end: where the raw outline turns into the next one, shape (N, 2).
    """

    ring: np.ndarray
    kind: np.ndarray
    along: np.ndarray
    weight: np.ndarray
    moment: np.ndarray
    end: np.ndarray

    def __getitem__(self, which: np.ndarray) -> "Sides":
        return Sides(*(getattr(self, field.name)[which] for field in fields(self)))


def laid_along(chords: Chords, angle: np.ndarray, kind: np.ndarray) -> Sides:
    """A side of each; what runs askew, as at rounded corners, counts less, and nothing from 45° on."""
    along = np.column_stack([np.cos(angle), np.sin(angle)])
    start, vector = chords.edges[:, :2], chords.edges[:, 2:]
    ahead = (vector * np.repeat(along, np.diff(np.append(chords.first, len(vector))), axis=0)).sum(axis=1)
    length = np.hypot(*vector.T)
    weight = np.maximum(2 * ahead**2 / length - length, 1e-3 * length)  # length × cos 2δ
    moment = np.add.reduceat(weight[:, None] * (start + vector / 2), chords.first)
    return Sides(chords.ring, kind, along, np.add.reduceat(weight, chords.first), moment, chords.end)


def merged(sides: Sides) -> Sides:
    """Sides that follow one another in the same direction as one."""
    starts = (sides.kind != sides.kind[around(sides.ring)[0]]) | (sides.kind == FREE)
    closes = np.isin(sides.ring, sides.ring[starts])
    sides, starts = sides[closes], starts[closes]
    if starts.all():
        return sides
    begin = np.zeros(sides.ring[-1] + 1, int)
    begin[sides.ring[starts][::-1]] = np.flatnonzero(starts)[::-1]
    order = begun_at(sides.ring, begin)
    sides, first = sides[order], np.flatnonzero(starts[order])
    return replace(
        sides[first],
        weight=np.add.reduceat(sides.weight, first),
        moment=np.add.reduceat(sides.moment, first),
        end=sides.end[np.append(first[1:], len(order)) - 1],
    )


def without_steps(sides: Sides, step: float) -> Sides:
    """Sides without short ones that lead from one wall to the next, the shortest first."""
    while len(sides.ring):
        before, after = around(sides.ring)
        ends, begins = _met(sides, after)
        length = ((ends - begins[before]) * sides.along).sum(axis=1)
        turn = _cross(sides.along, sides.along[after])
        is_step = (turn * turn[before] < 0) & (length < step)
        goes = (is_step | (length <= 0)) & (np.bincount(sides.ring)[sides.ring] > 4)
        if not goes.any():
            break
        rank = np.empty(len(goes), int)
        along = np.arange(len(goes)) - np.searchsorted(sides.ring, sides.ring)
        mixed = along * 2654435761 % 2**32  # else of many equal ones in a row one would go a round
        rank[np.lexsort((mixed, length, ~goes))] = np.arange(len(goes))
        near = np.minimum.reduce([rank[each] for each in (before, after, before[before], after[after])])
        goes &= rank < near
        end = sides.end.copy()
        end[before[goes]] = (end[before[goes]] + end[goes]) / 2
        sides = merged(replace(sides, end=end)[~goes])
    return sides


def _met(sides: Sides, after: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where each side ends and where the next begins: one place, or two where they would meet too far away."""
    place, along = sides.moment / sides.weight[:, None], sides.along
    cross = _cross(along, along[after])
    cross = np.where(np.abs(cross) < 1e-6, 1e-6, cross)
    meeting = place + (_cross(place[after] - place, along[after]) / cross)[:, None] * along
    meets = np.hypot(*(meeting - sides.end).T) <= _REACH_PX

    def nearest(place: np.ndarray, along: np.ndarray) -> np.ndarray:
        foot = place + ((sides.end - place) * along).sum(axis=1, keepdims=True) * along
        return np.where(meets[:, None], meeting, foot)

    return nearest(place, along), nearest(place[after], along[after])


def polygons_of(sides: Sides, owner: np.ndarray, middle: np.ndarray) -> np.ndarray:
    """The polygon of each building; None where the exterior has fewer than three corners; such holes are left out."""
    made = np.full(len(middle), None, object)
    if not len(sides.ring):
        return made
    xy = np.stack(_met(sides, around(sides.ring)[1]), axis=1).reshape(-1, 2)
    ring = np.repeat(sides.ring, 2)
    kept = np.append(True, (xy[1:] != xy[:-1]).any(axis=1)) | (np.arange(len(xy)) % 2 == 0)
    kept &= np.bincount(ring, kept)[ring] >= 3
    xy, ring = xy[kept], ring[kept]
    numbers, position = np.unique(ring, return_inverse=True)
    rings = shapely.linearrings(xy + middle[owner[ring]], indices=position)
    outer = np.append(True, owner[1:] != owner[:-1])[numbers]
    made[owner[numbers[outer]]] = shapely.polygons(rings[outer])
    for building in np.unique(owner[numbers[~outer]]):
        if made[building] is not None:
            made[building] = shapely.Polygon(made[building].exterior, rings[~outer & (owner[numbers] == building)])
    return made


def _cross(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    return one[:, 0] * other[:, 1] - one[:, 1] * other[:, 0]

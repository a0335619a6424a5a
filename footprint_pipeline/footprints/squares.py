"""Raw outlines → the same with straight sides and square corners. Which of it may be used is `regularize`'s business.

An outline is cut into chords where it turns. Most buildings have one direction, some a second one: chords that
follow a direction, or stand square on it, become sides that are laid along it at their mean distance, so that the area
stays. Any other chord keeps its own direction. Steps that are too short to be seen go, and the sides left are met.

All outlines are worked on at once: a row is a chord or a side, and those of a ring follow one another.
"""

from dataclasses import dataclass, fields, replace

import numpy as np
import shapely

REACH_PX = 6.0
"""How far from where the outline turns two sides may meet."""
SECOND = 0.25
"""What part of an outline must follow a second direction for it to be one."""
ROUND, UNDIRECTED = 0.88, 0.3
"""An outline that is closer to a circle than the first (which has 1, a square 0.79), and whose chords follow its
direction by less than the second (a rectangle's have 1, a circle's 0), has none."""

_FREE = 8
"""The direction of sides that follow none: 0 to 3 are the first one and what is square on it, 4 to 7 the second."""
_QUARTER = np.pi / 2
_BINS = 60
_NEAR = np.radians(15.0)


@dataclass(frozen=True)
class Grain:
    """What counts as detail, pixels.

    Attributes:
        stray: how far an outline may stray from a chord.
        slack: how far the ends of a chord may move when it is turned into a direction.
        step: shorter steps of a wall are none.
    """

    stray: float
    slack: float
    step: float


def squared(polygons: np.ndarray, grain: Grain) -> np.ndarray:
    """The outlines with straight sides and square corners.

    Args:
        polygons: valid shapely Polygons in pixels, none of them empty, shape (N,), dtype object.
        grain: what counts as detail.

    Returns:
        A polygon of each, perhaps not valid; None where it has no direction or nothing is left; shape (N,), dtype
        object.
    """
    if not len(polygons):
        return np.empty(0, object)
    rings, owner = shapely.get_rings(shapely.orient_polygons(polygons), return_index=True)
    corners = shapely.bounds(polygons)
    middle = (corners[:, :2] + corners[:, 2:]) / 2
    chords = _chords(rings, middle[owner], grain.stray)
    building, count = owner[chords.ring], len(polygons)

    first = _direction(chords, building, np.ones(len(building), bool), count)
    off = _off(chords.angle, first[building])
    loose = chords.length / 2 * np.abs(np.sin(off)) > grain.slack
    second = _direction(chords, building, loose, count)
    off_second = _off(chords.angle, second[building])
    fits_second = chords.length / 2 * np.abs(np.sin(off_second)) <= grain.slack
    perimeter = np.bincount(building, chords.length, count)
    has_second = np.bincount(building, chords.length * (loose & fits_second), count) >= SECOND * perimeter
    takes_second = has_second[building] & fits_second & (loose | (np.abs(off_second) < np.abs(off) / 2))

    direction = np.where(takes_second, second[building], first[building])
    quarter = np.rint((chords.angle - direction) / _QUARTER).astype(int)
    follows = takes_second | ~loose
    angle = np.where(follows, direction + quarter * _QUARTER, chords.angle)
    kind = np.where(follows, quarter % 4 + 4 * takes_second, _FREE)
    made = _polygons(_without_steps(_merged(chords.laid_along(angle, kind)), grain.step), owner, middle)

    directed = np.bincount(building, chords.length * np.cos(4 * off), count) / np.maximum(perimeter, 1e-9)
    made[(directed < UNDIRECTED) & (_roundness(polygons) > ROUND)] = None
    return made


def boxed(polygons: np.ndarray) -> np.ndarray:
    """The least rectangle around each polygon, drawn in on all sides until it is as large as the polygon.

    Those with holes have none (None).
    """
    if not len(polygons):
        return np.empty(0, object)
    corners = shapely.get_coordinates(shapely.minimum_rotated_rectangle(polygons)).reshape(-1, 5, 2)[:, :4]
    across, down = corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 1]
    width, height = np.hypot(*across.T), np.hypot(*down.T)
    # (width - margin) (height - margin) = area
    margin = (width + height - np.sqrt((width - height) ** 2 + 4 * shapely.area(polygons))) / 2
    u, v = across * (0.5 - margin / width / 2)[:, None], down * (0.5 - margin / height / 2)[:, None]
    made = shapely.polygons(corners.mean(axis=1, keepdims=True) + np.stack([-u - v, u - v, u + v, v - u], axis=1))
    made[shapely.get_num_interior_rings(polygons) > 0] = None
    return made


@dataclass(frozen=True)
class _Chords:
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
        return np.arctan2(self.vector[:, 1], self.vector[:, 0])

    @property
    def length(self) -> np.ndarray:
        return np.hypot(self.vector[:, 0], self.vector[:, 1])

    def laid_along(self, angle: np.ndarray, kind: np.ndarray) -> "_Sides":
        """A side of each; what runs askew, as at rounded corners, counts less, and nothing from 45° on."""
        along = np.column_stack([np.cos(angle), np.sin(angle)])
        start, vector = self.edges[:, :2], self.edges[:, 2:]
        ahead = (vector * np.repeat(along, np.diff(np.append(self.first, len(vector))), axis=0)).sum(axis=1)
        length = np.hypot(*vector.T)
        weight = np.maximum(2 * ahead**2 / length - length, 1e-3 * length)  # length × cos 2δ
        moment = np.add.reduceat(weight[:, None] * (start + vector / 2), self.first)
        return _Sides(self.ring, kind, along, np.add.reduceat(weight, self.first), moment, self.end)


@dataclass(frozen=True)
class _Sides:
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

    def __getitem__(self, which: np.ndarray) -> "_Sides":
        return _Sides(*(getattr(self, field.name)[which] for field in fields(self)))


def _chords(rings: np.ndarray, middle: np.ndarray, stray: float) -> _Chords:
    """The chords of all rings, places from the middle of each on."""
    xy, ring = shapely.get_coordinates(shapely.remove_repeated_points(rings), return_index=True)
    open_ = np.append(ring[1:] == ring[:-1], False)
    xy, ring = xy[open_] - middle[ring[open_]], ring[open_]
    # A ring is to start at a corner: what is farthest from its middle is one.
    size = np.bincount(ring)
    begin = np.cumsum(size) - size
    away = np.hypot(*(xy - (np.add.reduceat(xy, begin) / size[:, None])[ring]).T)
    farthest = np.lexsort((away, ring))[begin + size - 1]
    xy = xy[_from(ring, farthest)]

    numbered = shapely.linearrings(np.column_stack([xy, np.arange(len(xy))]), indices=ring)
    turns = shapely.get_coordinates(shapely.simplify(numbered, stray, preserve_topology=False), include_z=True)[:, 2]
    first = np.union1d(begin, turns.astype(int))
    vector = xy[_around(ring)[1]] - xy
    length, place = np.hypot(*vector.T)[:, None], xy + vector / 2
    (x, y), (dx, dy) = place.T, vector.T
    second = np.column_stack([x * x + dx * dx / 12, x * y + dx * dy / 12, y * y + dy * dy / 12])
    sums = np.add.reduceat(np.column_stack([vector, length, length * place, length * second]), first)
    x, y = (sums[:, 3:5] / sums[:, 2:3]).T
    scatter = sums[:, 5:] - sums[:, 2:3] * np.column_stack([x * x, x * y, y * y])
    end = xy[first[_around(ring[first])[1]]]
    return _Chords(ring[first], sums[:, :2], end, scatter, first, np.column_stack([xy, vector]))


def _direction(chords: _Chords, building: np.ndarray, counts: np.ndarray, buildings: int) -> np.ndarray:
    """The direction of the chords that count of each building: the most common one, fitted to those near it.

    What is square on it is turned into it. Radians, shape (buildings,).
    """
    bins = np.floor(chords.angle % _QUARTER / _QUARTER * _BINS).astype(int) % _BINS
    lengths = np.bincount(building * _BINS + bins, chords.length * counts, buildings * _BINS).reshape(-1, _BINS)
    smooth = np.sum([(5 - abs(shift)) * np.roll(lengths, shift, axis=1) for shift in range(-4, 5)], axis=0)
    common = (smooth.argmax(axis=1) + 0.5) / _BINS * _QUARTER

    off = _off(chords.angle, common[building])
    square_on = np.rint((chords.angle - off - common[building]) / _QUARTER).astype(int) % 2 == 1
    xx, xy, yy = chords.scatter.T * (counts & (np.abs(off) <= _NEAR))
    xx, xy, yy = np.where(square_on, (yy, -xy, xx), (xx, xy, yy))
    xx, xy, yy = (np.bincount(building, each, buildings) for each in (xx, xy, yy))
    return common + _off(np.arctan2(2 * xy, xx - yy) / 2, common)


def _off(angle: np.ndarray, direction: np.ndarray) -> np.ndarray:
    """By how much an angle is off a direction and what is square on it, radians in [-π/4, π/4]."""
    return angle - direction - np.rint((angle - direction) / _QUARTER) * _QUARTER


def _merged(sides: _Sides) -> _Sides:
    """Sides that follow one another in the same direction as one."""
    starts = (sides.kind != sides.kind[_around(sides.ring)[0]]) | (sides.kind == _FREE)
    closes = np.isin(sides.ring, sides.ring[starts])
    sides, starts = sides[closes], starts[closes]
    if starts.all():
        return sides
    begin = np.zeros(sides.ring[-1] + 1, int)
    begin[sides.ring[starts][::-1]] = np.flatnonzero(starts)[::-1]
    order = _from(sides.ring, begin)
    sides, first = sides[order], np.flatnonzero(starts[order])
    return replace(
        sides[first],
        weight=np.add.reduceat(sides.weight, first),
        moment=np.add.reduceat(sides.moment, first),
        end=sides.end[np.append(first[1:], len(order)) - 1],
    )


def _without_steps(sides: _Sides, step: float) -> _Sides:
    """Sides without short ones that lead from one wall to the next, the shortest first."""
    while len(sides.ring):
        before, after = _around(sides.ring)
        ends, begins = _met(sides, after)
        length = ((ends - begins[before]) * sides.along).sum(axis=1)
        turn = _cross(sides.along, sides.along[after])
        is_step = (turn * turn[before] < 0) & (length < step)
        goes = (is_step | (length <= 0)) & (np.bincount(sides.ring)[sides.ring] > 4)
        if not goes.any():
            break
        rank = np.empty(len(goes), int)
        rank[np.lexsort((length, ~goes))] = np.arange(len(goes))
        near = np.minimum.reduce([rank[each] for each in (before, after, before[before], after[after])])
        goes &= rank < near
        end = sides.end.copy()
        end[before[goes]] = (end[before[goes]] + end[goes]) / 2
        sides = _merged(replace(sides, end=end)[~goes])
    return sides


def _met(sides: _Sides, after: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where each side ends and where the next begins: one place, or two where they would meet too far away."""
    place, along = sides.moment / sides.weight[:, None], sides.along
    cross = _cross(along, along[after])
    cross = np.where(np.abs(cross) < 1e-6, 1e-6, cross)
    meeting = place + (_cross(place[after] - place, along[after]) / cross)[:, None] * along
    meets = np.hypot(*(meeting - sides.end).T) <= REACH_PX

    def nearest(place: np.ndarray, along: np.ndarray) -> np.ndarray:
        foot = place + ((sides.end - place) * along).sum(axis=1, keepdims=True) * along
        return np.where(meets[:, None], meeting, foot)

    return nearest(place, along), nearest(place[after], along[after])


def _polygons(sides: _Sides, owner: np.ndarray, middle: np.ndarray) -> np.ndarray:
    """The polygon of each building; None where the exterior has fewer than three corners; such holes are left out."""
    made = np.full(len(middle), None, object)
    if not len(sides.ring):
        return made
    xy = np.stack(_met(sides, _around(sides.ring)[1]), axis=1).reshape(-1, 2)
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


def _roundness(polygons: np.ndarray) -> np.ndarray:
    """How close each is to a disc, holes left out: 1 for a disc, in [0, 1]."""
    exteriors = shapely.get_exterior_ring(polygons)
    return 4 * np.pi * shapely.area(shapely.polygons(exteriors)) / shapely.length(exteriors) ** 2


def _around(ring: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Positions of the row before and of the row after each, within its ring."""
    position = np.arange(len(ring))
    begin, end = np.searchsorted(ring, ring), np.searchsorted(ring, ring, side="right") - 1
    return np.where(position == begin, end, position - 1), np.where(position == end, begin, position + 1)


def _from(ring: np.ndarray, start: np.ndarray) -> np.ndarray:
    """An order of the rows in which each ring begins at its `start`, a position, shape (rings,)."""
    size = np.bincount(ring)
    begin = (np.cumsum(size) - size)[ring]
    return begin + (np.arange(len(ring)) - begin + start[ring] - begin) % size[ring]


def _cross(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    return one[:, 0] * other[:, 1] - one[:, 1] * other[:, 0]

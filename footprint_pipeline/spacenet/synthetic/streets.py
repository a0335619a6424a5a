"""Streets and blocks of the synthetic city: convex pieces of land, cut in two again and again.

Here belong the street network, the districts and the plane geometry of convex rings. What stands on a block
is in `blocks`, what it looks like in `render`.

Coordinates are metres on the ground, x east, y south, the upper left corner of the image is (0, 0). A ring is
a float64 array, shape (K, 2), convex, not closed, with a positive shoelace area.
"""

from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import shapely

District = Literal["suburb", "dense", "courtyard", "industrial", "village", "green"]

# In this order where the city is small, shuffled where it is large.
_DECK: tuple[District, ...] = (
    "suburb",
    "dense",
    "courtyard",
    "industrial",
    "suburb",
    "village",
    "suburb",
    "courtyard",
    "suburb",
    "industrial",
    "green",
)
_QUARTER_M2 = 55_000.0
_MAIN_STREET_M = 13.0


class Grain(NamedTuple):
    """How a district is divided: block size from street axis to street axis, street width (metres), surfaces."""

    depth_m: float
    length_m: float
    street_m: float
    surfaces: tuple[str, ...]


GRAIN: dict[District, Grain] = {
    "suburb": Grain(62.0, 125.0, 9.0, ("asphalt", "asphalt_old")),
    "dense": Grain(40.0, 85.0, 6.5, ("asphalt_old", "dirt", "concrete")),
    "courtyard": Grain(64.0, 78.0, 14.0, ("asphalt", "asphalt_old")),
    "industrial": Grain(95.0, 150.0, 13.0, ("asphalt", "asphalt_old")),
    "village": Grain(80.0, 110.0, 5.0, ("dirt",)),
    "green": Grain(1e9, 1e9, 4.0, ("dirt",)),
}


@dataclass(frozen=True)
class Block:
    """Land between streets, without the street itself."""

    ring: np.ndarray
    district: District


@dataclass(frozen=True)
class Street:
    """The axis of a street, from one end to the other, its width in metres and its surface."""

    start: np.ndarray
    end: np.ndarray
    width_m: float
    surface: str


@dataclass(frozen=True)
class Box:
    """The smallest rectangle around a ring: centre, unit vectors and full lengths along and across."""

    centre: np.ndarray
    along: np.ndarray
    across: np.ndarray
    length_m: float
    depth_m: float

    def point(self, u: float, v: float) -> np.ndarray:
        """The place `u` metres along and `v` metres across from the centre, shape (2,)."""
        return self.centre + u * self.along + v * self.across

    def rectangle(self, u0: float, v0: float, u1: float, v1: float) -> np.ndarray:
        """The ring from (u0, v0) to (u1, v1); its edges 0 and 2 run along, 1 and 3 across."""
        return np.array([self.point(u, v) for u, v in ((u0, v0), (u1, v0), (u1, v1), (u0, v1))])


@dataclass(frozen=True)
class _Land:
    """A ring, and for each of its edges half the width of the street that runs on it."""

    ring: np.ndarray
    halves: np.ndarray

    @property
    def area_m2(self) -> float:
        return area(self.ring)


def area(ring: np.ndarray) -> float:
    """Area of a ring, square metres."""
    x, y = ring.T
    return 0.5 * float(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1))) if len(ring) > 2 else 0.0


def outward_normals(ring: np.ndarray) -> np.ndarray:
    """Unit vectors that point out of each edge (vertex i to i + 1), shape (K, 2)."""
    edges = np.roll(ring, -1, axis=0) - ring
    return np.column_stack([edges[:, 1], -edges[:, 0]]) / np.hypot(*edges.T)[:, None]


def signed_distance(ring: np.ndarray, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """How far places lie beyond each edge of a convex ring, metres, and the outward unit normals.

    Args:
        ring: shape (K, 2).
        x: shape (H, W), or what broadcasts to it with `y`.
        y: likewise.

    Returns:
        Distances, shape (K, H, W), negative within; normals, shape (K, 2).
    """
    normals = outward_normals(ring)
    offsets = np.sum(normals * ring, axis=1)
    return normals[:, 0, None, None] * x + normals[:, 1, None, None] * y - offsets[:, None, None], normals


def bounding_box(ring: np.ndarray) -> Box:
    """The smallest rectangle around a ring, its longer side along; (along, across) is right-handed."""
    corners = np.asarray(shapely.oriented_envelope(shapely.Polygon(ring)).exterior.coords)
    first, second = corners[1] - corners[0], corners[2] - corners[1]
    longer, shorter = sorted((first, second), key=lambda side: -float(np.hypot(*side)))
    length, depth = float(np.hypot(*longer)), float(np.hypot(*shorter))
    along = longer / length
    return Box(corners[:4].mean(axis=0), along, np.array([-along[1], along[0]]), length, depth)


def inset(ring: np.ndarray, distance_m: float | np.ndarray) -> np.ndarray:
    """The ring with every edge moved inwards; shape (0, 2) where nothing is left.

    Args:
        ring: shape (K, 2).
        distance_m: one for all edges, or one for each, shape (K,).
    """
    kept = _Land(ring, np.zeros(len(ring)))
    distances = np.broadcast_to(distance_m, len(ring))
    for corner, normal, distance in zip(ring, outward_normals(ring), distances, strict=True):
        kept = _cut(kept, corner - normal * distance, normal, 0.0)
    lengths = np.hypot(*(np.roll(kept.ring, -1, axis=0) - kept.ring).T)
    cleaned = kept.ring[lengths > 0.05]
    return cleaned if len(cleaned) > 2 else np.empty((0, 2))


def divide(
    width_m: float, height_m: float, open_land: list[np.ndarray], rng: np.random.Generator
) -> tuple[list[Block], list[Street]]:
    """Streets and blocks that cover a rectangle and reach a little beyond its edges.

    Args:
        width_m: of the rectangle, whose upper left corner is (0, 0).
        height_m: of the rectangle.
        open_land: rings on which no district but "green" may lie.
        rng: where chance comes from.
    """
    frame = shapely.box(0, 0, width_m, height_m)
    streets: list[Street] = []
    pending, quarters = [_land_around(width_m, height_m, np.radians(rng.uniform(8, 20)))], []
    quarter_m2 = min(_QUARTER_M2, width_m * height_m / 5)
    while pending:
        land = pending.pop()
        if not shapely.Polygon(land.ring).intersects(frame):
            continue
        held = [ring for ring in open_land if _overlap(land.ring, ring)]
        line = _line_beside(land, held, rng) if held else _line_across(land, quarter_m2, rng)
        if line is None:
            quarters.append((land, bool(held)))
        else:
            pending += _split(land, *line, _MAIN_STREET_M, "asphalt", streets)

    deck = list(_DECK)
    if len(quarters) > len(deck):
        deck = [deck[i] for i in rng.permutation(len(deck))]
    blocks, dealt = [], 0
    for quarter, is_open in quarters:
        district: District = "green" if is_open else deck[dealt % len(deck)]
        dealt += not is_open
        blocks += _blocks(quarter, district, rng, streets)
    return [block for block in blocks if shapely.Polygon(block.ring).intersects(frame)], streets


def _blocks(quarter: _Land, district: District, rng: np.random.Generator, streets: list[Street]) -> list[Block]:
    grain, pending, blocks = GRAIN[district], [quarter], []
    surface = str(rng.choice(grain.surfaces))
    while pending:
        land = pending.pop()
        box = bounding_box(land.ring)
        parts = {"along": box.length_m / grain.length_m, "across": box.depth_m / grain.depth_m}
        side = max(parts, key=lambda name: parts[name])
        count = round(parts[side])
        if count < 2:
            ring = inset(land.ring, land.halves)
            if area(ring) > 150.0:
                blocks.append(Block(ring, district))
            continue
        normal, extent = (box.along, box.length_m) if side == "along" else (box.across, box.depth_m)
        point = box.centre + normal * extent * ((count // 2) / count - 0.5)
        pending += _split(land, point, _turned(normal, rng.normal(0, 1.0)), grain.street_m, surface, streets)
    return blocks


def _land_around(width_m: float, height_m: float, angle: float) -> _Land:
    along = np.array([np.cos(angle), np.sin(angle)])
    across = np.array([-along[1], along[0]])
    half_length = (width_m * along[0] + height_m * along[1]) / 2 + 40.0
    half_depth = (width_m * along[1] + height_m * along[0]) / 2 + 40.0
    box = Box(np.array([width_m, height_m]) / 2, along, across, 2 * half_length, 2 * half_depth)
    return _Land(box.rectangle(-half_length, -half_depth, half_length, half_depth), np.full(4, _MAIN_STREET_M / 2))


def _line_across(land: _Land, largest_m2: float, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray] | None:
    """A line (point, unit normal) that halves the land across its longer side, or None if it is small enough."""
    if land.area_m2 < 1.5 * largest_m2:
        return None
    box = bounding_box(land.ring)
    point = box.point(box.length_m * rng.uniform(-0.12, 0.12), 0.0)
    return point, _turned(box.along, rng.normal(0, 6.0))


def _line_beside(land: _Land, held: list[np.ndarray], rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray] | None:
    """The line along a side of one held ring that splits the land most evenly and crosses none of them."""
    best, line = 0.15 * area(held[0]), None
    for ring in held:
        for normal in outward_normals(ring):
            normal = _turned(normal, rng.uniform(-7, 7))
            point = ring[np.argmax(ring @ normal)]
            sides = [(other - point) @ normal for other in held]
            if any(side.min() < -1e-6 and side.max() > 1e-6 for side in sides):
                continue
            smaller = min(_cut(land, point, sign * normal, 0.0).area_m2 for sign in (1, -1))
            if smaller > best:
                best, line = smaller, (point, normal)
    return line


def _overlap(ring: np.ndarray, other: np.ndarray) -> bool:
    return bool(shapely.Polygon(ring).intersection(shapely.Polygon(other)).area > 1e-3)


def _turned(vector: np.ndarray, degrees: float) -> np.ndarray:
    angle = np.radians(degrees)
    rotation = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    return rotation @ vector


def _split(
    land: _Land, point: np.ndarray, normal: np.ndarray, width_m: float, surface: str, streets: list[Street]
) -> list[_Land]:
    """Both sides of a line through the land, with a new street on it."""
    sides = [_cut(land, point, sign * normal, width_m / 2) for sign in (1, -1)]
    on_line = sides[0].ring[np.abs((sides[0].ring - point) @ normal) < 1e-6]
    if len(on_line) > 1:
        streets.append(Street(on_line[0], on_line[-1], width_m, surface))
    return [side for side in sides if side.area_m2 > 100.0]


def _cut(land: _Land, point: np.ndarray, normal: np.ndarray, half_m: float) -> _Land:
    """The part of the land behind a line: where ``(place - point) @ normal <= 0``."""
    beyond = (land.ring - point) @ normal
    corners, halves = [], []
    for i in range(len(land.ring)):
        j = (i + 1) % len(land.ring)
        inside, next_inside = beyond[i] <= 0, beyond[j] <= 0
        if inside:
            corners.append(land.ring[i])
            halves.append(land.halves[i])
        if inside != next_inside:
            share = beyond[i] / (beyond[i] - beyond[j])
            corners.append(land.ring[i] + share * (land.ring[j] - land.ring[i]))
            halves.append(half_m if inside else land.halves[i])
    return _Land(np.array(corners).reshape(-1, 2), np.array(halves))

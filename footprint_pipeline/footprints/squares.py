"""Raw outlines → the same with straight sides and square corners. Which of it may be used is `regularize`'s business.

An outline is cut into chords where it turns. Most buildings have one direction, some a second one: chords that
follow a direction, or stand square on it, become sides that are laid along it at their mean distance, so that the area
stays. Any other chord keeps its own direction. Steps that are too short to be seen go, and the sides left are met.

All outlines are worked on at once: a row is a chord or a side, and those of a ring follow one another.
"""

from dataclasses import dataclass

import numpy as np
import shapely

from footprint_pipeline.footprints.chords import QUARTER, common_direction, cut, off_square
from footprint_pipeline.footprints.sides import FREE, laid_along, merged, polygons_of, without_steps

SECOND = 0.25
"""What part of an outline must follow a second direction for it to be one."""
ROUND, UNDIRECTED = 0.88, 0.3
"""An outline that is closer to a circle than the first (which has 1, a square 0.79), and whose chords follow its
direction by less than the second (a rectangle's have 1, a circle's 0), has none."""


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
    chords = cut(rings, middle[owner], grain.stray)
    building, count = owner[chords.ring], len(polygons)

    first = common_direction(chords, building, np.ones(len(building), bool), count)
    off = off_square(chords.angle, first[building])
    loose = chords.length / 2 * np.abs(np.sin(off)) > grain.slack
    second = common_direction(chords, building, loose, count)
    off_second = off_square(chords.angle, second[building])
    fits_second = chords.length / 2 * np.abs(np.sin(off_second)) <= grain.slack
    perimeter = np.bincount(building, chords.length, count)
    has_second = np.bincount(building, chords.length * (loose & fits_second), count) >= SECOND * perimeter
    takes_second = has_second[building] & fits_second & (loose | (np.abs(off_second) < np.abs(off) / 2))

    direction = np.where(takes_second, second[building], first[building])
    quarter = np.rint((chords.angle - direction) / QUARTER).astype(int)
    follows = takes_second | ~loose
    angle = np.where(follows, direction + quarter * QUARTER, chords.angle)
    kind = np.where(follows, quarter % 4 + 4 * takes_second, FREE)
    made = polygons_of(without_steps(merged(laid_along(chords, angle, kind)), grain.step), owner, middle)

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


def _roundness(polygons: np.ndarray) -> np.ndarray:
    """How close each is to a disc, holes left out: 1 for a disc, in [0, 1]."""
    exteriors = shapely.get_exterior_ring(polygons)
    return 4 * np.pi * shapely.area(shapely.polygons(exteriors)) / shapely.length(exteriors) ** 2

"""Where the AOIs lie that a model learned from, a few boxes each, and which of them a place belongs to."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
import shapely

from footprint_pipeline.footprints.area import METRES_PER_DEGREE

Box = tuple[float, float, float, float]
"""West, south, east, north, degrees of EPSG:4326."""

NEAR_M = 10_000.0
"""Ground no farther from the tiles of an AOI belongs to it: a city is larger than what of it is labelled."""
MOST_BOXES = 64

_DECIMALS = 4


def boxes_around(bounds_wgs84: np.ndarray) -> tuple[Box, ...]:
    """One box for all tiles that are near each other; tiles that lie all over the world share `MOST_BOXES` at most.

    Args:
        bounds_wgs84: west, south, east, north of every tile, degrees, shape (N, 4).
    """
    if not len(bounds_wgs84):
        return ()
    west, south, east, north = np.asarray(bounds_wgs84, float).T
    narrowing = np.cos(np.radians(np.minimum(np.abs(south + north) / 2, 89.0)))
    up, parts = NEAR_M / 2 / METRES_PER_DEGREE, np.empty(0)
    while not 0 < len(parts) <= MOST_BOXES:
        along = up / narrowing
        parts = shapely.get_parts(shapely.union_all(shapely.box(west - along, south - up, east + along, north + up)))
        up *= 2
    _, part_of = shapely.STRtree(parts).query(shapely.points((west + east) / 2, (south + north) / 2), "intersects")

    def box(near: np.ndarray) -> Box:
        ends = west[near].min(), south[near].min(), east[near].max(), north[near].max()
        left, bottom, right, top = (round(float(degrees), _DECIMALS) for degrees in ends)
        return left, bottom, right, top

    return tuple(sorted(box(part_of == part) for part in range(len(parts))))


def place_of(places: Mapping[str, Sequence[Box]], longitude: float, latitude: float) -> str | None:
    """The AOI that a place belongs to, the nearest of several; None where it is far from all.

    Args:
        places: boxes of every AOI.
        longitude: degrees.
        latitude: degrees.
    """
    away = {aoi: min(_metres(box, longitude, latitude) for box in boxes) for aoi, boxes in places.items() if boxes}
    nearest = min(away, key=lambda aoi: away[aoi], default=None)
    return nearest if nearest is not None and away[nearest] <= NEAR_M else None


def _metres(box: Box, longitude: float, latitude: float) -> float:
    """How far a place lies from a box, about; 0 within it."""
    west, south, east, north = box
    up = max(south - latitude, 0.0, latitude - north)
    beside = abs((longitude - (west + east) / 2 + 180.0) % 360.0 - 180.0) - (east - west) / 2
    return METRES_PER_DEGREE * math.hypot(up, max(beside, 0.0) * math.cos(math.radians(latitude)))

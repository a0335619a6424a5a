"""Web Mercator (EPSG:3857) and its slippy tiles: pure arithmetic, no imagery and no network.

Names end in `_3857` (projected metres) or `_wgs84` (degrees) where the two frames meet.
"""

import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from footprint_pipeline.errors import RequestError

RADIUS = 6_378_137.0
HALF_WORLD = math.pi * RADIUS
MAX_LATITUDE = math.degrees(math.atan(math.sinh(math.pi)))
"""Where Web Mercator ends, degrees: 85.0511…"""
MAX_ZOOM = 24
"""Of the tiles that are handed out."""


class Bounds(NamedTuple):
    """A rectangle in one frame: projected metres (EPSG:3857) or degrees (WGS 84)."""

    left: float
    bottom: float
    right: float
    top: float

    @property
    def centre(self) -> tuple[float, float]:
        """(x, y) of the middle."""
        return (self.left + self.right) / 2, (self.bottom + self.top) / 2

    def overlaps(self, other: "Bounds") -> bool:
        """Whether the two share more than an edge."""
        return (
            self.left < other.right and other.left < self.right and self.bottom < other.top and other.bottom < self.top
        )


class Tile(NamedTuple):
    """A slippy tile: zoom, column from the west, row from the north."""

    z: int
    x: int
    y: int

    @property
    def bounds_3857(self) -> Bounds:
        """The tile's extent."""
        side = tile_side(self.z)
        left, top = self.x * side - HALF_WORLD, HALF_WORLD - self.y * side
        return Bounds(left, top - side, left + side, top)

    def check(self) -> None:
        """Make sure that there is such a tile.

        Raises:
            RequestError: there is none.
        """
        if not (0 <= self.z <= MAX_ZOOM and 0 <= self.x < 2**self.z and 0 <= self.y < 2**self.z):
            raise RequestError(
                f"There is no tile {self.z}/{self.x}/{self.y}.",
                fix=f"Ask for zoom 0 to {MAX_ZOOM}, columns and rows below 2 to the power of it.",
            )


def project(points_wgs84: np.ndarray) -> np.ndarray:
    """Longitude and latitude in degrees → EPSG:3857 metres, both of shape (N, 2)."""
    longitude, latitude = np.radians(points_wgs84).T
    return RADIUS * np.column_stack([longitude, np.arcsinh(np.tan(latitude))])


def unproject(points_3857: np.ndarray) -> np.ndarray:
    """EPSG:3857 metres → longitude and latitude in degrees, both of shape (N, 2)."""
    longitude, latitude = points_3857[:, 0] / RADIUS, np.arctan(np.sinh(points_3857[:, 1] / RADIUS))
    return np.degrees(np.column_stack([longitude, latitude]))


def to_wgs84(bounds_3857: Bounds) -> Bounds:
    """The same rectangle in degrees."""
    corners = unproject(np.array(bounds_3857, float).reshape(2, 2))
    return Bounds(*corners.ravel().tolist())


def to_3857(bounds_wgs84: Bounds) -> Bounds:
    """The same rectangle in projected metres."""
    corners = project(np.array(bounds_wgs84, float).reshape(2, 2))
    return Bounds(*corners.ravel().tolist())


def ground_scale(bounds_3857: Bounds) -> float:
    """Metres on the ground a projected metre, at the middle of the rectangle: the cosine of its latitude."""
    return 1.0 / math.cosh(bounds_3857.centre[1] / RADIUS)


def tile_side(zoom: int) -> float:
    """Side of a tile, projected metres."""
    return 2.0 * HALF_WORLD / 2**zoom


def tile_at(longitude: float, latitude: float, zoom: int) -> Tile:
    """The tile that contains a coordinate, of whichever turn; what lies beyond the map's edge counts to the edge."""
    if not -180.0 <= longitude <= 180.0:
        longitude = (longitude + 180.0) % 360.0 - 180.0
    x, y = project(np.array([[longitude, max(-MAX_LATITUDE, min(latitude, MAX_LATITUDE))]]))[0].tolist()
    return tile_at_3857(x, y, zoom)


def tile_at_3857(x_3857: float, y_3857: float, zoom: int) -> Tile:
    """The same of projected metres."""
    side, last = tile_side(zoom), 2**zoom - 1
    column, row = math.floor((x_3857 + HALF_WORLD) / side), math.floor((HALF_WORLD - y_3857) / side)
    return Tile(zoom, min(max(column, 0), last), min(max(row, 0), last))


def tiles_covering(bounds_3857: Bounds, zoom: int) -> Iterator[Tile]:
    """Every tile of a zoom that overlaps a rectangle, row by row; columns run on across the antimeridian."""
    side = tile_side(zoom)
    hair = max(1e-9 * side, 1e-7)  # an edge on a tile's edge, but for rounding, does not touch the next tile
    columns = range(
        math.floor((bounds_3857.left + HALF_WORLD + hair) / side),
        math.floor((bounds_3857.right + HALF_WORLD - hair) / side) + 1,
    )
    rows = range(
        math.floor((HALF_WORLD - bounds_3857.top + hair) / side),
        math.floor((HALF_WORLD - bounds_3857.bottom - hair) / side) + 1,
    )
    return (Tile(zoom, x, y) for y in rows for x in columns)

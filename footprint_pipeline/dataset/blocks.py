"""Square blocks of ground, anchored to the globe: they never move, whatever data lies on them.

What belongs here: which block a place lies in, and which blocks a tile reaches. Which split a block goes to is
`assignment`'s business.
"""

import math
from dataclasses import dataclass

import numpy as np

from footprint_pipeline.footprints.area import METRES_PER_DEGREE

HAIR_M = 1.0
"""Tiles less than this apart, in longitude and in latitude, are neighbours."""


@dataclass(frozen=True)
class Blocks:
    """A grid of blocks; a block is named by its row, its column and its side: `r12540c14836@1000`.

    Rows are bands of latitude `side_m` high, counted from the south pole. Columns are counted from 180° W; a
    band holds as many as fit at its middle latitude, so they are `side_m` wide within a hair.

    Attributes:
        side_m: metres.
    """

    side_m: float

    def at(self, lon: float, lat: float) -> str:
        """The block that holds a place, in degrees of EPSG:4326."""
        row = self._row(lat)
        return self._name(row, self._column(lon, row))

    def reached(self, bounds_wgs84: np.ndarray) -> frozenset[str]:
        """The blocks that a tile reaches into: every block that holds a point of its extent, widened by a hair.

        The extent is widened to the east and to the north only. That is enough: of two tiles less than a hair
        apart, the widened extents meet in a point, so both tiles reach the block that holds it.

        Args:
            bounds_wgs84: west, south, east, north in degrees.
        """
        west, south, east, north = map(float, bounds_wgs84)
        hair = HAIR_M / METRES_PER_DEGREE
        east += hair / max(math.cos(math.radians(max(abs(south), abs(north)))), 1e-9)
        return frozenset(
            self._name(row, column)
            for row in range(self._row(south), self._row(north + hair) + 1)
            for column in range(self._column(west, row), self._column(east, row) + 1)
        )

    def _row(self, lat: float) -> int:
        return math.floor((lat + 90) * METRES_PER_DEGREE / self.side_m)

    def _column(self, lon: float, row: int) -> int:
        return math.floor((lon + 180) / 360 * self._columns(row))

    def _columns(self, row: int) -> int:
        middle = math.radians((row + 0.5) * self.side_m / METRES_PER_DEGREE - 90)
        return max(1, round(360 * METRES_PER_DEGREE * math.cos(middle) / self.side_m))

    def _name(self, row: int, column: int) -> str:
        return f"r{row}c{column % self._columns(row)}@{self.side_m:g}"

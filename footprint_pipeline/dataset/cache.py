"""The cache as training reads it: every tile once as uint8, on one ground sample distance, memory-mapped.

What belongs here: the arrays and what is where in them. How they are made is `caching`'s business, what is cut
from them `batches`'. Nothing but NumPy is imported, so that training needs neither pandas nor GDAL.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

BUILDING = 1
"""Bit of the label raster: a building."""
VALID = 2
"""Bit of the label raster: there is imagery."""
BORDER = 4
"""Bit of the label raster: the rim of a building."""
CONTACT = 8
"""Bit of the label raster: where buildings nearly touch."""
CHANNELS = {"building": BUILDING, "border": BORDER, "contact": CONTACT}
"""The bands of a mask file, by name, and their bits in the label raster."""


@dataclass(frozen=True, eq=False)
class TileCache:
    """Tiles in two flat memory-mapped arrays, and one entry a tile in each of the others.

    Attributes:
        images: uint8, shape (sum of pixels, 3).
        labels: uint8, shape (sum of pixels,), bits `BUILDING`, `VALID`, `BORDER` and `CONTACT`; 0 where there is
            no imagery, whatever the labels say. The last two come from masks with such bands.
        gsd_m: metres a pixel.
        tile_ids: str, unique within an AOI.
        aois: str.
        splits: str.
        heights: rows, pixels.
        widths: columns, pixels.
        offsets: where a tile starts in `images` and `labels`, pixels.
        valid_share: share of its pixels that have imagery.
    """

    images: np.ndarray
    labels: np.ndarray
    gsd_m: float
    tile_ids: np.ndarray
    aois: np.ndarray
    splits: np.ndarray
    heights: np.ndarray
    widths: np.ndarray
    offsets: np.ndarray
    valid_share: np.ndarray

    def tile(self, position: int) -> tuple[np.ndarray, np.ndarray]:
        """Image (H, W, 3) and labels (H, W) of a tile, without copying."""
        height, width, start = self._places[position]
        stop = start + height * width
        return self.images[start:stop].reshape(height, width, 3), self.labels[start:stop].reshape(height, width)

    def members(self, split: str) -> np.ndarray:
        """Positions of the tiles of a split, in order."""
        return np.flatnonzero(self.splits == split)

    @cached_property
    def ground_px(self) -> np.ndarray:
        """Pixels of each tile that have imagery: float64."""
        return self.heights * self.widths * self.valid_share.astype(np.float64)

    def __len__(self) -> int:
        return len(self.tile_ids)

    @cached_property
    def _places(self) -> list[tuple[int, int, int]]:
        return list(zip(self.heights.tolist(), self.widths.tolist(), self.offsets.tolist(), strict=True))

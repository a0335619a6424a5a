"""TIFF images whose place does not matter: their pixels and masks as GeoTIFFs have them, turned as they say.

OpenCV tells neither what the bands are nor a mask, and makes 16 bits of 12.
"""

import math
import struct
import warnings
from collections.abc import Collection, Iterator

import numpy as np
import rasterio
from rasterio.errors import NotGeoreferencedWarning, RasterioError

from footprint_pipeline.footprints.bands import read_rgb, rgb_bands

STARTS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
"""The first bytes of a TIFF."""
ALONE = {"driver": "GTiff", "OVERVIEW_LEVEL": "NONE"}
"""Whatever a file says, GDAL opens no other one then."""
BROKEN = (LookupError, OverflowError, ValueError, struct.error)
"""What `directories` raises."""

_ORIENTATION = 274
_MOST_PX = 2**30
_WHOLE = {1: "B", 3: "H", 4: "I", 6: "B", 8: "H", 9: "I", 13: "I", 16: "Q", 17: "Q", 18: "Q"}
"""TIFF's types of whole numbers, as `struct` calls them."""
_SUB_DIRECTORIES = 330
_MOST_DIRECTORIES = 100
_MOST_ENTRIES = 1000


def decode_tiff(encoded: bytes) -> tuple[np.ndarray, np.ndarray] | None:
    """A TIFF → pixels (H, W, 3) RGB and valid (H, W), as its mask, alpha band or nodata value says.

    None if it is broken, or has neither three bands of colour nor one, which is grey.
    """
    try:
        orientation = next(directories(encoded, {_ORIENTATION})).get(_ORIENTATION, [1])[0]
        with warnings.catch_warnings(), rasterio.MemoryFile(encoded) as memory:
            warnings.simplefilter("ignore", NotGeoreferencedWarning)
            with memory.open(**ALONE) as source:
                if math.prod(source.shape) > _MOST_PX or len(rgb_bands(source.colorinterp)) not in (1, 3):
                    return None
                pixels, valid = np.moveaxis(read_rgb(source), 0, -1), source.dataset_mask() > 0
                pixels[~valid] = 0
    except (RasterioError, *BROKEN):
        return None
    return _turned(pixels, orientation), _turned(valid, orientation)


def directories(encoded: bytes, tags: Collection[int]) -> Iterator[dict[int, list[int]]]:
    """Whole numbers that every directory of a TIFF has under some tags; that of the image comes first.

    Raises:
        ValueError: its directories go in circles, are too many or too long.
        LookupError: a number is of no such type.
        OverflowError, struct.error: it is cut off.
    """
    order, is_big = "<" if encoded.startswith(b"II") else ">", 43 in encoded[2:4]
    forms = ("Q", "HHQ8s", "Q") if is_big else ("H", "HHI4s", "I")
    count, entry, offset = (struct.Struct(order + form) for form in forms)
    ahead = [*offset.unpack_from(encoded, 8 if is_big else 4)]
    seen: set[int] = set()
    while ahead:
        at = ahead.pop()
        (entries,) = count.unpack_from(encoded, at)
        if at in seen or len(seen) == _MOST_DIRECTORIES or entries > _MOST_ENTRIES:
            raise ValueError(at)
        seen.add(at)
        first = at + count.size
        end = first + entries * entry.size
        found: dict[int, list[int]] = {}
        for place in range(first, end, entry.size):
            tag, kind, number, _ = entry.unpack_from(encoded, place)
            if tag not in tags and tag != _SUB_DIRECTORIES:
                continue
            if number > _MOST_DIRECTORIES:
                raise ValueError(number)
            numbers = struct.Struct(f"{order}{number}{_WHOLE[kind]}")
            where = place + entry.size - offset.size
            if numbers.size > offset.size:
                (where,) = offset.unpack_from(encoded, where)
            found.setdefault(tag, []).extend(numbers.unpack_from(encoded, where))
        yield found
        ahead += filter(None, [*offset.unpack_from(encoded, end), *found.get(_SUB_DIRECTORIES, ())])


def _turned(image: np.ndarray, orientation: int) -> np.ndarray:
    """The image as it is meant to be seen; TIFF numbers the ways to store it from 1, as it is, to 8."""
    if orientation in (5, 6, 7, 8):
        image = image.swapaxes(0, 1)
    down, across = (-1 if orientation in ways else 1 for ways in ((3, 4, 7, 8), (2, 3, 6, 7)))
    return np.ascontiguousarray(image[::down, ::across])

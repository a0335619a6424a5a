"""Encoded images from outside: what they are is told by how they are built, before anything is decoded.

What belongs here: the limits, the checks, and what is left out of an image. Where images come from is `remote_image`'s
and `uploads`' business.
"""

import math
import struct
import warnings
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import rasterio
from rasterio.errors import NotGeoreferencedWarning, RasterioError

from footprint_pipeline.errors import RequestError
from footprint_pipeline.footprints.patch import Patch, decode_image

MAX_BYTES = 32 * 2**20
MAX_PIXELS = 4096**2
_MAX_DECODED_BYTES = 16 * MAX_PIXELS
"""Of all bands together, and of one block of them: eight bands of 16 bits."""

_DRIVERS = {
    b"\x89PNG": "PNG",
    b"\xff\xd8\xff": "JPEG",
    b"RIFF": "WEBP",
    b"II*\0": "GTiff",
    b"MM\0*": "GTiff",
    b"II+\0": "GTiff",
    b"MM\0+": "GTiff",
}
"""By the first bytes: the only drivers that may look at what comes."""

_PNG_SIGNATURE_BYTES = 8
_PNG_CHUNKS = frozenset({b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND"})
_SLICE_BYTES = 2**14
_SCAN = b"\xff\xda"
_MOST_SCANS = 100
"""Of a progressive JPEG, each of which goes over all of its pixels; usual ones have ten."""
_TILE_WIDTH, _TILE_LENGTH, _SUB_DIRECTORIES = 322, 323, 330
_WHOLE = {1: "B", 3: "H", 4: "I", 6: "B", 8: "H", 9: "I", 13: "I", 16: "Q", 17: "Q", 18: "Q"}
"""TIFF's types of whole numbers, as `struct` calls them."""
_MOST_DIRECTORIES = 100
_MOST_ENTRIES = 1000


@dataclass(frozen=True)
class Checked:
    """An image that may be decoded.

    Attributes:
        encoded: the image; a PNG without what is not its pixels.
        placed: whether it is a TIFF that says where on earth it lies.
    """

    encoded: bytes
    placed: bool


def check_image(encoded: bytes, *, name: str) -> Checked:
    """Refuse beforehand what is no image, or would take too much memory or time to decode.

    Args:
        encoded: the image.
        name: what to call it in errors.

    Raises:
        RequestError: it is no PNG, JPEG, WebP or TIFF image, or too large.
    """
    driver = next((driver for start, driver in _DRIVERS.items() if encoded.startswith(start)), None)
    if driver is None:
        raise _not_an_image(name)
    if driver == "PNG":
        encoded = _pixels_alone(encoded)
    if driver == "JPEG" and (scans := encoded.count(_SCAN)) > _MOST_SCANS:
        raise RequestError(
            f"{name}: the image comes in {scans:,} scans, more than {_MOST_SCANS}.", fix="Give a baseline JPEG."
        )
    try:
        with warnings.catch_warnings(), rasterio.MemoryFile(encoded) as memory:
            warnings.simplefilter("ignore", NotGeoreferencedWarning)
            with memory.open(driver=driver) as image:
                bands = image.count
                pixels = image.width * image.height
                dtypes = [np.dtype(dtype) for dtype in image.dtypes if "complex" not in dtype]
                block = max(height * width for height, width in image.block_shapes)
                placed = driver == "GTiff" and _is_on_earth(image.crs)
        if driver == "GTiff":
            block = max(block, _largest_tile(encoded))
        inflated = _inflated(encoded) if driver == "PNG" else 0
    except (RasterioError, TypeError, ValueError, LookupError, OverflowError, struct.error, zlib.error):
        raise _not_an_image(name) from None
    if len(dtypes) < bands or not set(dtypes) <= {np.dtype(np.uint8), np.dtype(np.uint16)}:
        raise RequestError(
            f"{name}: its pixels are not unsigned, of 8 or 16 bits.", fix="Give bands of type uint8 or uint16."
        )
    if pixels > MAX_PIXELS:
        raise RequestError(
            f"{name}: the image has {pixels:,} px, more than {MAX_PIXELS:,}.", fix="Give a smaller image."
        )
    if max(max(pixels, block) * sum(dtype.itemsize for dtype in dtypes), inflated) > _MAX_DECODED_BYTES:
        raise RequestError(
            f"{name}: the image takes more than {_MAX_DECODED_BYTES // 2**20} MiB once it is decoded.",
            fix="Give its red, green and blue bands only, in blocks of usual size.",
        )
    return Checked(encoded, placed)


def _pixels_alone(png: bytes) -> bytes:
    """A PNG without its other chunks: texts and profiles are compressed too, and no header says to what size."""
    return png[:_PNG_SIGNATURE_BYTES] + b"".join(chunk for kind, chunk in _chunks(png) if kind in _PNG_CHUNKS)


def _inflated(png: bytes) -> int:
    """Bytes of a PNG's pixels, which may be more than its header says; counted until they are too many.

    Raises:
        zlib.error: they are broken.
    """
    pixels = b"".join(chunk[8:-4] for kind, chunk in _chunks(png) if kind == b"IDAT")
    inflater, size = zlib.decompressobj(), 0
    for at in range(0, len(pixels), _SLICE_BYTES):
        size += len(inflater.decompress(pixels[at : at + _SLICE_BYTES]))
        if inflater.eof or size > _MAX_DECODED_BYTES:
            break
    return size


def _chunks(png: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Kind and whole of each chunk."""
    at = _PNG_SIGNATURE_BYTES
    while at + 8 <= len(png):
        size, kind = struct.unpack_from(">I4s", png, at)
        end = at + 12 + size
        yield kind, png[at:end]
        at = end


def _largest_tile(encoded: bytes) -> int:
    """Pixels of the largest tile of any image in a TIFF, of its masks too; 0 where there are only strips.

    Raises:
        ValueError: its directories go in circles, are too many or too long.
        LookupError: a number is of no such type.
        OverflowError, struct.error: it is cut off.
    """
    order, is_big = "<" if encoded.startswith(b"II") else ">", 43 in encoded[2:4]
    forms = ("Q", "HHQ8s", "Q") if is_big else ("H", "HHI4s", "I")
    count, entry, offset = (struct.Struct(order + form) for form in forms)
    largest, ahead = 0, [*offset.unpack_from(encoded, 8 if is_big else 4)]
    seen: set[int] = set()
    while ahead:
        at = ahead.pop()
        (entries,) = count.unpack_from(encoded, at)
        if at in seen or len(seen) == _MOST_DIRECTORIES or entries > _MOST_ENTRIES:
            raise ValueError(at)
        seen.add(at)
        first, sides = at + count.size, {_TILE_WIDTH: 0, _TILE_LENGTH: 0}
        end = first + entries * entry.size
        found = list(offset.unpack_from(encoded, end))
        for place in range(first, end, entry.size):
            tag, kind, number, _ = entry.unpack_from(encoded, place)
            if tag not in (*sides, _SUB_DIRECTORIES):
                continue
            if number > _MOST_DIRECTORIES:
                raise ValueError(number)
            numbers = struct.Struct(f"{order}{number}{_WHOLE[kind]}")
            where = place + entry.size - offset.size
            if numbers.size > offset.size:
                (where,) = offset.unpack_from(encoded, where)
            values = numbers.unpack_from(encoded, where)
            if tag == _SUB_DIRECTORIES:
                found += values
            else:
                sides[tag] = max(sides[tag], *values)
        largest = max(largest, math.prod(sides.values()))
        ahead += filter(None, found)
    return largest


def _is_on_earth(crs: rasterio.crs.CRS | None) -> bool:
    return crs is not None and (crs.is_geographic or crs.is_projected)


def decode(image: Checked, *, name: str, source: str) -> Patch:
    """The pixels of an image.

    Args:
        image: the image.
        name: what to call it in errors.
        source: where it comes from, for people.

    Raises:
        RequestError: it is broken.
    """
    decoded = decode_image(image.encoded)
    if decoded is None:
        raise _not_an_image(name)
    return Patch(*decoded, source=source)


def _not_an_image(name: str) -> RequestError:
    return RequestError(
        f"{name}: what comes is not an image.",
        fix="Give a PNG, JPEG, WebP or TIFF image; a TIFF plain, or packed by LZW or Deflate.",
    )

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
from footprint_pipeline.footprints.bands import is_palette, rgb_bands
from footprint_pipeline.footprints.patch import Patch, decode_image
from footprint_pipeline.footprints.tiff import BROKEN, STARTS, directories

MAX_BYTES = 32 * 2**20
MAX_PIXELS = 4096**2
_MAX_DECODED_BYTES = 16 * MAX_PIXELS
"""Of all bands together, and of one block of them: eight bands of 16 bits."""

_DRIVERS = {
    b"\x89PNG": "PNG",
    b"\xff\xd8\xff": "JPEG",
    b"RIFF": "WEBP",
    **dict.fromkeys(STARTS, "GTiff"),
}
"""By the first bytes: the only drivers that may look at what comes."""

_PNG_SIGNATURE_BYTES = 8
_PNG_CHUNKS = frozenset({b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND"})
_SLICE_BYTES = 2**14
_SCAN = b"\xff\xda"
_MOST_SCANS = 100
"""Of a progressive JPEG, each of which goes over all of its pixels; usual ones have ten."""
_TILE_WIDTH, _TILE_LENGTH = 322, 323


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
                    _check_bands(image, name)
        if driver == "GTiff":
            block = max(block, _largest_tile(encoded))
        inflated = _inflated(encoded) if driver == "PNG" else 0
    except (RasterioError, TypeError, *BROKEN, zlib.error):
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


def _check_bands(tiff: rasterio.DatasetReader, name: str) -> None:
    colours = len(rgb_bands(tiff.colorinterp))
    if colours not in (1, 3):
        raise RequestError(f"{name}: has {colours} bands of colour, not three.", fix="Give red, green and blue.")
    if int(tiff.tags(1, ns="IMAGE_STRUCTURE").get("NBITS", 8)) < 8 and not is_palette(tiff):
        raise RequestError(f"{name}: its pixels have fewer than 8 bits.", fix="Give bands of type uint8 or uint16.")


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
        ValueError, LookupError, OverflowError, struct.error: its directories are broken.
    """
    sides = (_TILE_WIDTH, _TILE_LENGTH)
    return max(
        math.prod(max(found.get(side, ()), default=0) for side in sides) for found in directories(encoded, sides)
    )


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

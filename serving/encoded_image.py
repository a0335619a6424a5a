"""Encoded images from outside: what they are is told by their header, before anything is decoded.

What belongs here: the limits, and the checks. Where images come from is `remote_image`'s and `uploads`' business.
"""

import warnings
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


@dataclass(frozen=True)
class Header:
    """What the header of an image says.

    Attributes:
        driver: GDAL's name of the format.
        placed: whether it is a TIFF that says where on earth it lies.
    """

    driver: str
    placed: bool


def check_image(encoded: bytes, *, name: str) -> Header:
    """Refuse by the header what is no image, or would take too much memory to decode.

    Args:
        encoded: the image.
        name: what to call it in errors.

    Raises:
        RequestError: it is no PNG, JPEG, WebP or TIFF image, or too large.
    """
    driver = next((driver for start, driver in _DRIVERS.items() if encoded.startswith(start)), None)
    if driver is None:
        raise _not_an_image(name)
    try:
        with warnings.catch_warnings(), rasterio.MemoryFile(encoded) as memory:
            warnings.simplefilter("ignore", NotGeoreferencedWarning)
            with memory.open(driver=driver) as image:
                bands = image.count
                pixels = image.width * image.height
                dtypes = [np.dtype(dtype) for dtype in image.dtypes if "complex" not in dtype]
                block = max(height * width for height, width in image.block_shapes)
                header = Header(driver, placed=driver == "GTiff" and _is_on_earth(image.crs))
    except (RasterioError, TypeError, ValueError):
        raise _not_an_image(name) from None
    if len(dtypes) < bands or not set(dtypes) <= {np.dtype(np.uint8), np.dtype(np.uint16)}:
        raise RequestError(f"{name}: its pixels are not of 8 or 16 bits.", fix="Give bands of type uint8 or uint16.")
    if pixels > MAX_PIXELS:
        raise RequestError(
            f"{name}: the image has {pixels:,} px, more than {MAX_PIXELS:,}.", fix="Give a smaller image."
        )
    if max(pixels, block) * sum(dtype.itemsize for dtype in dtypes) > _MAX_DECODED_BYTES:
        raise RequestError(
            f"{name}: the image takes more than {_MAX_DECODED_BYTES // 2**20} MiB once it is decoded.",
            fix="Give its red, green and blue bands only, in blocks of usual size.",
        )
    return header


def _is_on_earth(crs: rasterio.crs.CRS | None) -> bool:
    return crs is not None and (crs.is_geographic or crs.is_projected)


def decode(encoded: bytes, *, name: str, source: str) -> Patch:
    """The image, which was checked.

    Args:
        encoded: the image.
        name: what to call it in errors.
        source: where it comes from, for people.

    Raises:
        RequestError: it is broken, or has bands that are no colours.
    """
    decoded = decode_image(encoded)
    if decoded is None or decoded[0].ndim != 3 or decoded[0].shape[2] != 3:
        raise _not_an_image(name)
    return Patch(*decoded, source=source)


def _not_an_image(name: str) -> RequestError:
    return RequestError(f"{name}: what comes is not an image.", fix="Give a PNG, JPEG, WebP or TIFF image.")

"""An uploaded image → its pixels, or imagery when it says where on earth it lies."""

from collections.abc import Iterator
from contextlib import contextmanager

from affine import TransformNotInvertibleError
from flask import Request
from rasterio import MemoryFile
from rasterio.errors import CRSError

from footprint_pipeline.errors import RequestError, SettingsError
from footprint_pipeline.footprints.geotiff import GdalError, GeoTiffImagery
from footprint_pipeline.footprints.mercator import MAX_LATITUDE
from footprint_pipeline.footprints.patch import Patch
from serving.encoded_image import check_image, decode
from serving.queries import read_body

NAME = "image"
"""What it is called in answers and errors, and which part of a form it is."""


def read_upload(request: Request) -> bytes:
    """The bytes of the image: the part `image` of a form, or the whole body.

    Raises:
        RequestError: there is none.
    """
    if request.mimetype == "multipart/form-data":
        if set(request.files) != {NAME} or request.form or len(request.files.getlist(NAME)) != 1:
            raise RequestError("The form has not exactly one file, called image.", fix="Send it as -F image=@FILE.")
        encoded = request.files[NAME].read()
    else:
        encoded = read_body(request)
    if not encoded:
        raise RequestError("There is no image.", fix="Send a GeoTIFF, PNG or JPEG as the body.")
    return encoded


@contextmanager
def opened(encoded: bytes) -> Iterator[Patch | GeoTiffImagery]:
    """Imagery when the image has a place, else its pixels.

    Raises:
        RequestError: it is no image, too large, or of bands that are not red, green and blue.
    """
    checked = check_image(encoded, name=NAME)
    if not checked.placed:
        yield decode(checked, name=NAME, source="uploaded image")
        return
    with MemoryFile(checked.encoded) as memory, _placed():
        try:
            imagery = GeoTiffImagery(memory.name, name="uploaded image", untrusted=True)
        except SettingsError as error:
            raise RequestError(error.problem, fix="Send a GeoTIFF with red, green and blue.") from None
        left, bottom, right, top = imagery.extent_wgs84
        if not (-180 <= left < right <= left + 360 and left <= 180 and -MAX_LATITUDE <= bottom < top <= MAX_LATITUDE):
            raise _nowhere()
        yield imagery


@contextmanager
def _placed() -> Iterator[None]:
    """Whatever GDAL and PROJ find wrong with a georeference is the sender's to put right."""
    try:
        yield
    except (GdalError, CRSError, TransformNotInvertibleError):
        raise _nowhere() from None


def _nowhere() -> RequestError:
    return RequestError(
        "uploaded image: its georeference is no place on the map.", fix="Send it in a projected CRS or in WGS 84."
    )

"""What every provider of imagery answers with, and what all of them share. No provider lives here."""

from dataclasses import dataclass
from typing import Protocol

import cv2
import numpy as np

from footprint_pipeline.errors import NoImageryError, RequestError
from footprint_pipeline.footprints.mercator import Bounds, to_wgs84
from footprint_pipeline.footprints.tiff import STARTS as TIFF_STARTS
from footprint_pipeline.footprints.tiff import decode_tiff

_JPEG = b"\xff\xd8\xff"
COARSEST = 2.0
"""How many times as wide as the model's pixels those of the imagery may be. Beyond that, what the network was trained
to see is not in them."""


class TooCoarseError(RequestError):
    """The imagery of a place is too coarse for the model."""


@dataclass(frozen=True)
class Patch:
    """Pixels of one place.

    Attributes:
        pixels: red, green, blue in the provider's own dtype, shape (H, W, 3); the lowest number of it, and so black to
            the network as in training, where there is no imagery. Beyond the edge of a raster they mirror it.
        valid: where there is imagery, bool, shape (H, W).
        source: where the pixels come from, for people; holds no secret.
        gsd_m: ground sample distance of what was read, before it was resampled, metres a pixel, the geometric mean of
            both axes as of training tiles; None where not known.
        date: when the imagery was taken, as the source says it; None where it does not.
    """

    pixels: np.ndarray
    valid: np.ndarray
    source: str
    gsd_m: float | None = None
    date: str | None = None


class Imagery(Protocol):
    """Where the pixels of a place come from."""

    @property
    def name(self) -> str:
        """What to call it in answers and errors; holds no secret."""

    @property
    def attribution(self) -> str:
        """Whom to credit wherever the imagery or what was made of it is shown."""

    @property
    def date(self) -> str | None:
        """When it was taken, as the source says it; None where it does not."""

    @property
    def extent_wgs84(self) -> Bounds | None:
        """What it covers, degrees; None where unknown."""

    @property
    def zooms(self) -> tuple[int, int]:
        """Coarsest and finest zoom of 256-px map tiles: reading one takes a bounded amount, and shows all there is."""

    def read(self, bounds_3857: Bounds, height: int, width: int) -> Patch:
        """Pixels of a Web Mercator rectangle, resampled to a grid of `height` × `width`.

        Raises:
            NoImageryError: there is none anywhere in the rectangle.
            ImageryError: the provider failed.
        """


def no_imagery(imagery: Imagery, bounds_3857: Bounds) -> NoImageryError:
    """The error for a rectangle without imagery, naming its middle and what the imagery covers."""
    area, extent = to_wgs84(bounds_3857), imagery.extent_wgs84
    longitude, latitude = area.centre
    covers = (
        f"It covers latitude {extent.bottom:.5f} to {extent.top:.5f}, "
        f"longitude {extent.left:.5f} to {extent.right:.5f}."
        if extent
        else "Ask for another place, or point FOOTPRINT_IMAGERY at imagery that covers this one."
    )
    return NoImageryError(
        f"{imagery.name}: no imagery around latitude {latitude:.5f}, longitude {longitude:.5f}.", fix=covers
    )


def check_resolution(source: str, seen_m: float | None, gsd_m: float) -> None:
    """Make sure that imagery shows what a model needs to see.

    Args:
        source: what the imagery is called.
        seen_m: what a pixel of the finest that it has measures on the ground, metres; None where nobody knows.
        gsd_m: the model's ground sample distance, metres a pixel.

    Raises:
        TooCoarseError: its pixels are more than `COARSEST` times as wide as the model's.
    """
    if seen_m is not None and seen_m > COARSEST * gsd_m:
        raise TooCoarseError(
            f"{source}: pixels of {seen_m:.2f} m on the ground are too coarse for this model, which works "
            f"at {gsd_m:.3g} m and takes up to {COARSEST * gsd_m:.3g} m.",
            fix="Ask a source with finer imagery, or raise its finest zoom (max_zoom, FOOTPRINT_IMAGERY_MAX_ZOOM) if "
            "it has finer tiles.",
        )


def decode_image(encoded: bytes) -> tuple[np.ndarray, np.ndarray] | None:
    """An encoded image (PNG, JPEG, WebP, TIFF) → pixels (H, W, 3) RGB and valid (H, W); None if it is none.

    Wholly transparent pixels are not valid. A picture is turned as its orientation says, and as browsers show it.
    """
    if not encoded:
        return None
    if encoded.startswith(TIFF_STARTS):
        return decode_tiff(encoded)
    how = cv2.IMREAD_COLOR if encoded.startswith(_JPEG) else cv2.IMREAD_UNCHANGED  # which turns all but JPEG
    try:
        image = cv2.imdecode(np.frombuffer(encoded, np.uint8), how)
    except cv2.error:
        return None
    if image is None:
        return None
    if image.ndim == 2:
        image = cv2.cvtColor(image, cv2.COLOR_GRAY2BGR)
    pixels = np.ascontiguousarray(image[..., 2::-1])
    if image.shape[2] != 4:
        return pixels, np.ones(image.shape[:2], bool)
    opaque = image[..., 3] > 0
    pixels[~opaque] = 0
    return pixels, opaque

"""Buildings on their imagery: a crop around each, its outline bright, its neighbours' thin."""

import io
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import PIL.Image
import shapely
from matplotlib.figure import Figure

from footprint_pipeline.dataset.report.figures import INK, WIDEST

OWN, NEIGHBOUR, CASING = (255, 214, 10), (255, 255, 255), (20, 24, 30)
NO_IMAGERY = 232
LEAST_M, AROUND = 24.0, 2.4
"""A crop is so many metres wide, or so many times its building."""
_BEYOND = 0.15
"""Share of a crop that may lie outside its tile, so that a building on the edge can be seen."""
_SMALL_PX, _RING_PX = 10, 16
_TITLE_PX, _GAP_PX = 46, 8
_FINE = 4  # binary digits of sub-pixel precision that OpenCV draws with


@dataclass(frozen=True)
class Crop:
    """A picture of one building.

    Attributes:
        image: uint8 RGB, shape (S, S, 3).
        title: what is said above it.
        width_m: ground that it shows, metres across.
    """

    image: np.ndarray
    title: str
    width_m: float


def crop_building(
    image: np.ndarray,
    valid: np.ndarray,
    polygons_px: np.ndarray,
    own: int,
    *,
    gsd_m: float,
    title: str,
    size: int,
) -> Crop:
    """Cut a building out of its tile and draw the labels on it; one too small to see gets a ring around it.

    Args:
        image: the tile, uint8, shape (H, W, 3).
        valid: bool, shape (H, W); elsewhere, and outside the tile, the crop is light grey.
        polygons_px: all labels of the tile on its grid, shape (N,).
        own: position of the building in them.
        gsd_m: metres a pixel.
        title: what to say above the crop.
        size: of the crop, pixels.
    """
    left, top, right, bottom = shapely.bounds(polygons_px[own])
    height, width = image.shape[:2]
    extent = max(right - left, bottom - top)
    side = int(np.clip(max(AROUND * extent, LEAST_M / gsd_m), 8, max(height, width)))
    beyond = int(_BEYOND * side)
    x0 = int(np.clip((left + right - side) / 2, -beyond, max(width + beyond - side, -beyond)))
    y0 = int(np.clip((top + bottom - side) / 2, -beyond, max(height + beyond - side, -beyond)))
    pixels = np.full((side, side, 3), NO_IMAGERY, np.uint8)
    rows, columns = slice(max(y0, 0), max(y0 + side, 0)), slice(max(x0, 0), max(x0 + side, 0))
    seen = np.where(valid[rows, columns, None], image[rows, columns], np.uint8(NO_IMAGERY))
    pixels[rows.start - y0 :, columns.start - x0 :][: seen.shape[0], : seen.shape[1]] = seen
    scale = size / side
    picture = cv2.resize(pixels, (size, size), interpolation=cv2.INTER_CUBIC if scale > 1 else cv2.INTER_AREA)

    near = np.flatnonzero(shapely.intersects(polygons_px, shapely.box(x0, y0, x0 + side, y0 + side)))
    strokes = [(near[near != own], NEIGHBOUR, 1), (np.array([own]), CASING, 4), (np.array([own]), OWN, 2)]
    for which, colour, thickness in strokes:
        for ring in shapely.get_rings(polygons_px[which]):
            points = ((shapely.get_coordinates(ring) - (x0, y0)) * scale - 0.5) * 2**_FINE
            cv2.polylines(picture, [np.rint(points).astype(np.int32)], True, colour, thickness, cv2.LINE_AA, _FINE)
    if extent * scale < _SMALL_PX:
        centre = (np.array([left + right, top + bottom]) / 2 - (x0, y0)) * scale
        for colour, thickness in ((CASING, 4), (OWN, 2)):
            cv2.circle(picture, np.rint(centre).astype(int).tolist(), _RING_PX, colour, thickness, cv2.LINE_AA)
    return Crop(picture, title, side * gsd_m)


def crop_size(columns: int) -> int:
    """Pixels across of a crop in a row of so many."""
    return WIDEST // columns - _GAP_PX


def crop_row(crops: Sequence[Crop], *, columns: int) -> bytes:
    """Crops of `crop_size(columns)` side by side; fewer leave the rest of the row free. PNG of 256 colours."""
    size = crop_size(columns)
    height, dpi = size + _TITLE_PX, 100
    figure = Figure(figsize=(WIDEST / dpi, height / dpi), dpi=dpi, facecolor="white")
    for column, crop in enumerate(crops[:columns]):
        x = column * (size + _GAP_PX) + _GAP_PX // 2
        figure.figimage(crop.image, x, 0, origin="upper")
        figure.text((x + size / 2) / WIDEST, 1, f"{crop.title}\n{crop.width_m:.0f} m across", fontsize=9.5,
                    color=INK, ha="center", va="top", linespacing=1.3)  # fmt: skip
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    # Photographs as full PNG would be too heavy for a page, and for Dagster's event log.
    packed = io.BytesIO()
    PIL.Image.open(buffer).convert("RGB").quantize(256).save(packed, format="png")
    return packed.getvalue()

"""Footprints drawn on their imagery, for people who look."""

import cv2
import numpy as np
import shapely

from footprint_pipeline.footprints.mercator import Bounds, project
from footprint_pipeline.footprints.normalization import UINT8, Normalization
from footprint_pipeline.footprints.patch import Imagery

_SURE, _UNSURE = np.array([60, 230, 90]), np.array([255, 170, 30])
_SMOOTH = 4  # binary digits of sub-pixel precision that OpenCV draws with


def draw(
    imagery: Imagery,
    bounds_3857: Bounds,
    polygons_wgs84: np.ndarray,
    confidence: np.ndarray,
    *,
    height: int = 1024,
    width: int = 1024,
) -> np.ndarray:
    """A place and its footprints, outlined: green where sure, orange where not.

    Args:
        imagery: where the pixels come from; of more than eight bits they are stretched by what is there.
        bounds_3857: the place, Web Mercator.
        polygons_wgs84: shapely Polygons in degrees, shape (N,).
        confidence: of each, in [0, 1], shape (N,).
        height: of the picture, pixels.
        width: of the picture, pixels.

    Returns:
        uint8, shape (H, W, 3); black where there is no imagery.
    """
    patch = imagery.read(bounds_3857, height, width)
    stretch = UINT8 if patch.pixels.dtype == np.uint8 else Normalization.of(patch.pixels[patch.valid])
    picture = np.ascontiguousarray(stretch.to_uint8(patch.pixels))
    picture[~patch.valid] = 0
    left, bottom, right, top = bounds_3857
    for polygon, certainty in zip(polygons_wgs84, confidence, strict=True):
        share = float(np.clip((certainty - 0.5) / 0.45, 0, 1))
        colour = tuple(int(value) for value in _UNSURE + share * (_SURE - _UNSURE))
        for ring in (polygon.exterior, *polygon.interiors):
            x, y = project(shapely.get_coordinates(ring)).T
            column, row = (x - left) / (right - left) * width, (top - y) / (top - bottom) * height
            points = np.rint((np.column_stack([column, row]) - 0.5) * 2**_SMOOTH).astype(np.int32)
            cv2.polylines(picture, [points], True, colour, 1, cv2.LINE_AA, _SMOOTH)
    return picture


def encode_png(image: np.ndarray) -> bytes:
    """PNG bytes of uint8 RGB, shape (H, W, 3)."""
    return cv2.imencode(".png", image[..., ::-1])[1].tobytes()

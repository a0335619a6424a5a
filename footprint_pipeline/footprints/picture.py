"""Footprints drawn on their imagery, for people who look."""

import cv2
import numpy as np
import shapely

from footprint_pipeline.footprints.extract import Extraction
from footprint_pipeline.footprints.mercator import project
from footprint_pipeline.footprints.patch import Imagery

_SURE, _UNSURE = np.array([60, 230, 90]), np.array([255, 170, 30])
_SMOOTH = 4  # binary digits of sub-pixel precision that OpenCV draws with


def draw(extraction: Extraction, imagery: Imagery, *, scale: int = 1) -> np.ndarray:
    """The area that was asked for, its footprints outlined: green where sure, orange where not.

    Args:
        extraction: from `extract`.
        imagery: what it was extracted from; 8-bit.
        scale: pixels of the picture a pixel of the model's grid.

    Returns:
        uint8, shape (scale x H, scale x W, 3).
    """
    bounds, (height, width) = extraction.raster.bounds_3857, extraction.raster.shape
    picture = np.ascontiguousarray(imagery.read(bounds, height * scale, width * scale).pixels.astype(np.uint8))
    for polygon, confidence in zip(extraction.polygons_wgs84, extraction.confidence, strict=True):
        share = float(np.clip((confidence - 0.5) / 0.45, 0, 1))
        colour = tuple(int(value) for value in _UNSURE + share * (_SURE - _UNSURE))
        for ring in (polygon.exterior, *polygon.interiors):
            x, y = np.array([project(*point) for point in shapely.get_coordinates(ring)]).T
            column = (x - bounds.left) / (bounds.right - bounds.left) * width * scale
            row = (bounds.top - y) / (bounds.top - bounds.bottom) * height * scale
            points = np.rint((np.column_stack([column, row]) - 0.5) * 2**_SMOOTH).astype(np.int32)
            cv2.polylines(picture, [points], True, colour, 1, cv2.LINE_AA, _SMOOTH)
    return picture

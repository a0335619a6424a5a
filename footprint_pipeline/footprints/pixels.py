"""Which pixels a polygon holds, and what they say on average. Polygons and pixels are of one raster, in pixels."""

from itertools import pairwise

import cv2
import numpy as np
import shapely


def pixels_of(polygons: np.ndarray, *, among: np.ndarray) -> np.ndarray:
    """Which polygon holds each pixel: its number, from 1, or 0 for none, int32, shape (H, W).

    Args:
        polygons: shapely Polygons in pixels that do not overlap, shape (N,).
        among: which pixels count, bool, shape (H, W). OpenCV fills a polygon's rim as well, so this is what keeps to
            the inside of an outline that was drawn around these pixels.

    Where polygons share a pixel of their outlines, the later one has it.
    """
    rings, polygon_of = shapely.get_rings(polygons, return_index=True)
    xy, ring_of = shapely.get_coordinates(rings, return_index=True)
    bounds = shapely.bounds(polygons).reshape(-1, 4)
    middles = (bounds[:, :2] + bounds[:, 2:])[polygon_of[ring_of]] / 2
    # An outline that runs between two pixels goes to the inner one.
    pixels = np.rint(xy - 0.5 - 0.01 * np.sign(xy - middles)).astype(np.int32)
    each = [pixels[start:end] for start, end in pairwise(np.searchsorted(ring_of, np.arange(len(rings) + 1)).tolist())]
    first = np.searchsorted(polygon_of, np.arange(len(polygons) + 1)).tolist()
    held = np.zeros(among.shape, np.int32)
    for number, (start, end) in enumerate(pairwise(first), 1):
        cv2.fillPoly(held, each[start:end], number)
    return cv2.copyTo(held, among.view(np.uint8))


def mean_inside(values: np.ndarray, polygons: np.ndarray, held: np.ndarray) -> np.ndarray:
    """Mean of the pixels that each polygon holds, float32, shape (N,).

    Args:
        values: of the pixels, shape (H, W).
        polygons: shapely Polygons in pixels, shape (N,).
        held: by which of them; see `pixels_of`. A polygon that holds none takes the pixel under it.
    """
    inside = np.flatnonzero(held)
    whose = held.ravel()[inside]
    count = np.bincount(whose, minlength=len(polygons) + 1)[1:]
    mean = np.bincount(whose, values.ravel()[inside], minlength=len(polygons) + 1)[1:] / np.maximum(count, 1)
    empty = count == 0
    x, y = shapely.get_coordinates(shapely.point_on_surface(polygons[empty])).astype(int).T
    mean[empty] = values[y.clip(0, values.shape[0] - 1), x.clip(0, values.shape[1] - 1)]
    return mean.astype(np.float32)

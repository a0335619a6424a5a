"""Probability raster → footprint polygons with holes and a confidence each, in pixel coordinates.

The outline is the level line of the probability itself (contourpy), not a chain of pixel centres, so a
building keeps its full size. Buildings that touch are cut apart by `separate`. Geographic coordinates are the
caller's business.
"""

from dataclasses import dataclass
from itertools import pairwise

import cv2
import numpy as np
import shapely
from contourpy import FillType, contour_generator

from footprint_pipeline.footprints.separate import separate

_EDGE = 1e-6


@dataclass(frozen=True)
class Footprints:
    """Footprints in pixel coordinates: x to the right, y down, the upper left corner of the raster is (0, 0).

    Attributes:
        polygons: valid, non-empty shapely Polygons, shape (N,), dtype object.
        confidence: mean probability inside each, float32, shape (N,).
    """

    polygons: np.ndarray
    confidence: np.ndarray

    def __len__(self) -> int:
        return len(self.polygons)


def vectorize(
    probability: np.ndarray,
    *,
    tolerance: float,
    interior: np.ndarray | None = None,
    seed_level: float | None = None,
    min_area_px: float = 0.0,
    simplify_px: float = 0.35,
) -> Footprints:
    """Footprints where ``probability > 1 - tolerance``, those that touch cut apart where the interior tells them apart.

    Args:
        probability: of a building, float32 in [0, 1], shape (H, W).
        tolerance: in (0, 1].
        interior: how sure each pixel lies inside one building, float32 in [0, 1], shape (H, W); see `separate`.
        seed_level: what is connected where the interior is above it is one building; None: nothing is cut, and
            the interior is not looked at.
        min_area_px: smaller footprints are dropped, square pixels.
        simplify_px: largest distance an outline may move when it is simplified, pixels; 0 keeps every vertex.
            From 0.5 on the corners' chamfers go askew, which costs buildings some 3 % of their area.

    Returns:
        Footprints that do not overlap before simplification, largest confidence first.
    """
    level = np.float32(1.0 - tolerance)
    if probability.size == 0 or not (probability > level).any():
        return Footprints(np.empty(0, object), np.empty(0, np.float32))

    # Two rings around the raster, both on its edge: the first repeats the edge, the second is "no building".
    # So a building that the raster cuts ends exactly on the edge.
    height, width = probability.shape
    field = np.pad(np.pad(probability, 1, mode="edge"), 1, constant_values=-1e6)
    x = np.concatenate([[-_EDGE, 0.0], np.arange(width) + 0.5, [width, width + _EDGE]])
    y = np.concatenate([[-_EDGE, 0.0], np.arange(height) + 0.5, [height, height + _EDGE]])
    generator = contour_generator(x, y, field, fill_type=FillType.OuterOffset)
    points, offsets = generator.filled(float(level), np.inf)
    points = [np.clip(ring, 0.0, (width, height)) for ring in points]
    polygons = np.array(
        [
            shapely.Polygon(ring[cuts[0] : cuts[1]], [ring[a:b] for a, b in pairwise(cuts[1:])])
            for ring, cuts in zip(points, offsets, strict=True)
            if cuts[1] - cuts[0] >= 4
        ],
        object,
    )
    if simplify_px > 0:
        polygons = shapely.simplify(polygons, simplify_px, preserve_topology=False)
    polygons = _valid_parts(polygons)
    if interior is not None and seed_level is not None:
        polygons = separate(polygons, interior, built_up=probability > level, seed_level=seed_level)
    polygons = polygons[shapely.area(polygons) > max(min_area_px, 0.0)]

    confidence = _mean_inside(probability, polygons)
    order = np.argsort(-confidence, kind="stable")
    return Footprints(polygons[order], confidence[order])


def _valid_parts(polygons: np.ndarray) -> np.ndarray:
    broken = ~shapely.is_valid(polygons)
    if broken.any():
        polygons = polygons.copy()
        polygons[broken] = shapely.make_valid(polygons[broken], method="structure", keep_collapsed=False)
    parts = shapely.get_parts(polygons)
    return parts[(shapely.get_type_id(parts) == shapely.GeometryType.POLYGON) & ~shapely.is_empty(parts)]


def _mean_inside(probability: np.ndarray, polygons: np.ndarray) -> np.ndarray:
    """Mean probability of the pixels whose centres each polygon holds, float32, shape (N,).

    Where polygons share a pixel of their outlines, the later one has it. One that holds no pixel's centre takes the
    pixel under it.
    """
    owner = np.zeros(probability.shape, np.int32)
    bounds = shapely.bounds(polygons)
    middles = (bounds[:, :2] + bounds[:, 2:]) / 2
    for number, (polygon, middle) in enumerate(zip(polygons, middles, strict=True), 1):
        rings = [shapely.get_coordinates(ring) for ring in (polygon.exterior, *polygon.interiors)]
        # An outline that runs between two pixels goes to the inner one.
        pixels = [np.rint(xy - 0.5 - 0.01 * np.sign(xy - middle)).astype(np.int32) for xy in rings]
        cv2.fillPoly(owner, pixels, number)
    held = np.bincount(owner.ravel(), minlength=len(polygons) + 1)[1:]
    total = np.bincount(owner.ravel(), probability.ravel(), minlength=len(polygons) + 1)[1:]
    x, y = shapely.get_coordinates(shapely.point_on_surface(polygons)).astype(int).T
    return np.where(held > 0, total / np.maximum(held, 1), probability[y, x]).astype(np.float32)

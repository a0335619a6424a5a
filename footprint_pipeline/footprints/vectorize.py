"""Probability raster → footprint polygons with holes and a confidence each, in pixel coordinates.

The outline is the level line of the probability itself (contourpy), not a chain of pixel centres, so a
building keeps its full size. Buildings that touch are cut apart by `separate`. Geographic coordinates are the
caller's business.
"""

from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np
import shapely
from contourpy import FillType, LineType, SerialContourGenerator, ZInterp

from footprint_pipeline.footprints.pixels import mean_inside, pixels_of
from footprint_pipeline.footprints.separate import separate

_EDGE = 1e-6
_GRID = 2.0**20
_MOST_KEPT_PX = 2**19


@dataclass(frozen=True)
class Footprints:
    """Footprints in pixel coordinates: x to the right, y down, the upper left corner of the raster is (0, 0).

    Attributes:
        polygons: valid, non-empty shapely Polygons, shape (N,), dtype object.
        confidence: mean probability of the pixels of each, float32, shape (N,).
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
    reaching_into: tuple[float, float, float, float] | None = None,
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
        reaching_into: left, top, right, bottom, pixels: what lies wholly outside may be left out; None: all is wanted.

    Returns:
        Footprints that do not overlap before simplification, largest confidence first.
    """
    level = np.float32(1.0 - tolerance)
    built_up = probability > level
    rows, columns = (slice(0, side) for side in built_up.shape)
    if reaching_into is not None and built_up.any():
        rows, columns = _around_what_reaches(built_up, reaching_into)
    built_up, probability = built_up[rows, columns], np.ascontiguousarray(probability[rows, columns])
    if not built_up.any():
        return Footprints(np.empty(0, object), np.empty(0, np.float32))
    corner = np.array([columns.start, rows.start])

    outlines = _outlined(probability, level)
    if reaching_into is not None:
        outlines = outlines.of(reach_into(outlines.bounds + np.tile(corner, 2), reaching_into))
    polygons = _valid_parts(outlines, simplify_px)
    polygons = polygons[shapely.area(polygons) > max(min_area_px, 0.0)]
    held = pixels_of(polygons, among=built_up)
    if interior is not None and seed_level is not None:
        whole = polygons
        polygons = separate(whole, interior[rows, columns], built_up=built_up, held=held, seed_level=seed_level)
        if polygons is not whole:
            polygons = polygons[shapely.area(polygons) > max(min_area_px, 0.0)]
            held = pixels_of(polygons, among=built_up)

    confidence = mean_inside(probability, polygons, held)
    order = np.argsort(-confidence, kind="stable")
    return Footprints(shapely.transform(polygons[order], lambda points: points + corner), confidence[order])


def _around_what_reaches(built_up: np.ndarray, box: tuple[float, float, float, float]) -> tuple[slice, slice]:
    """Rows and columns that hold every building that reaches into a box, whole, and the pixels next to it."""
    parts, _ = cv2.findContours(built_up.view(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    left, top, width, height = np.array([cv2.boundingRect(part) for part in parts]).reshape(-1, 4).T
    bounds = np.column_stack([left - 1, top - 1, left + width + 1, top + height + 1])
    bounds = bounds[reach_into(bounds, box)]
    if not len(bounds):
        return slice(0, 0), slice(0, 0)
    left, top = np.maximum(bounds[:, :2].min(axis=0), 0).tolist()
    right, bottom = bounds[:, 2:].max(axis=0).tolist()
    return slice(top, bottom), slice(left, right)


def reach_into(bounds: np.ndarray, box: tuple[float, float, float, float]) -> np.ndarray:
    """Which bounds, of shape (N, 4), reach into a box, both left, top, right, bottom: bool, shape (N,)."""
    left, top, right, bottom = bounds.T
    return (left < box[2]) & (right > box[0]) & (top < box[3]) & (bottom > box[1])


@dataclass(frozen=True)
class _Outlines:
    """Closed rings of polygons, one after another; not all of them need be valid.

    Attributes:
        points: of all rings, float64, shape (P, 2).
        rings: where each ring begins in the points, and the end.
        firsts: where each polygon begins in the rings, its outline first, and the end.
    """

    points: np.ndarray
    rings: np.ndarray
    firsts: np.ndarray

    @property
    def drawn(self) -> np.ndarray:
        """Which polygons have an outline with an area, bool, shape (N,)."""
        return np.diff(self.rings)[self.firsts[:-1]] >= 4

    def with_area(self) -> "_Outlines":
        """Those polygons, and of their holes those that have an area."""
        return self._of_rings((np.diff(self.rings) >= 4) & np.repeat(self.drawn, np.diff(self.firsts)))

    def of(self, which: np.ndarray) -> "_Outlines":
        """Some of the polygons, bool, shape (N,)."""
        return self._of_rings(np.repeat(which, np.diff(self.firsts)))

    def _of_rings(self, kept: np.ndarray) -> "_Outlines":
        if kept.all():
            return self
        length, count = np.diff(self.rings), np.add.reduceat(kept.astype(int), self.firsts[:-1])
        return _Outlines(self.points[np.repeat(kept, length)], _starts(length[kept]), _starts(count[count > 0]))

    @property
    def bounds(self) -> np.ndarray:
        """Left, top, right, bottom of each polygon, shape (N, 4)."""
        outline = self.rings[self.firsts[:-1]]
        if not len(outline):
            return np.empty((0, 4))
        # From one outline to the next: the holes between them lie inside.
        return np.hstack([np.minimum.reduceat(self.points, outline), np.maximum.reduceat(self.points, outline)])

    @property
    def polygons(self) -> np.ndarray:
        """As shapely Polygons, shape (N,), dtype object."""
        return shapely.from_ragged_array(shapely.GeometryType.POLYGON, self.points, (self.rings, self.firsts))

    def simplified(self, most_px: float) -> "_Outlines":
        """The same with no ring moved by more; one that is left without area has fewer than 4 points.

        GEOS simplifies polygons too and mends them, but needs minutes for one of thousands of holes.
        """
        lines = shapely.linestrings(self.points, indices=np.repeat(np.arange(len(self.rings) - 1), np.diff(self.rings)))
        lines = shapely.simplify(lines, most_px, preserve_topology=False)
        return _Outlines(shapely.get_coordinates(lines), _starts(shapely.get_num_coordinates(lines)), self.firsts)


def _starts(lengths: np.ndarray) -> np.ndarray:
    return np.append(0, np.cumsum(lengths))


def _outlined(probability: np.ndarray, level: np.float32) -> _Outlines:
    """Of what is above a level."""
    # Two rings around the raster, both on its edge: the first repeats the edge, the second is "no building".
    # So a building that the raster cuts ends exactly on the edge.
    height, width = probability.shape
    field = cv2.copyMakeBorder(probability, 1, 1, 1, 1, cv2.BORDER_REPLICATE)
    field = cv2.copyMakeBorder(field, 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=-1e6)
    kept = height * width <= _MOST_KEPT_PX
    x, y = _places(height, width) if kept else _places.__wrapped__(height, width)
    # Not `contour_generator`, which looks for what is masked or no number, and takes longer than the outlines.
    generator = SerialContourGenerator(
        x, y, field.astype(np.float64), np.ma.nomask, corner_mask=False, line_type=LineType.Separate,
        fill_type=FillType.ChunkCombinedOffsetOffset, quad_as_tri=False, z_interp=ZInterp.Linear,
    )  # fmt: skip
    (points,), (rings,), (firsts,) = generator.filled(float(level), np.inf)
    # Places count from the raster's corner, so each raster that holds a building rounds them otherwise. As multiples of
    # a power of two they are the same in all, and so is what is simplified or squared.
    points = np.clip(np.rint(points * _GRID) / _GRID, 0.0, (width, height))
    return _Outlines(points, rings.astype(int), firsts.astype(int)).with_area()


@lru_cache(maxsize=4)
def _places(height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Where a raster's pixels and the two rings around it lie: x and y, float64, shape (height + 4, width + 4) each."""
    x, y = (np.concatenate([[-_EDGE, 0.0], np.arange(size) + 0.5, [size, size + _EDGE]]) for size in (width, height))
    grids = np.meshgrid(x, y)
    for grid in grids:
        grid.flags.writeable = False
    return grids[0], grids[1]


def _valid_parts(outlines: _Outlines, simplify_px: float) -> np.ndarray:
    """Simplified and valid polygons: one that this would break stays as it was, mended if that was broken already."""
    simplified = outlines.simplified(simplify_px) if simplify_px > 0 else outlines
    polygons = simplified.with_area().polygons
    broken = ~shapely.is_valid(polygons)
    if not broken.any():
        return polygons
    before = outlines.of(simplified.drawn).of(broken).polygons
    mended = shapely.make_valid(before, method="structure", keep_collapsed=False)
    polygons[broken] = np.where(shapely.is_valid(before), before, mended)
    parts = shapely.get_parts(polygons)
    return parts[(shapely.get_type_id(parts) == shapely.GeometryType.POLYGON) & ~shapely.is_empty(parts)]

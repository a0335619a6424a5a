"""A place → its building footprints: imagery, network and outlines tied together.

The grid is Web Mercator, its pixels as large on the ground as those the model was trained on, and the same whatever
is asked for: a network's answer depends on where its pixels lie, so that a building would look another in every area
that holds it. More than what was asked for is read and predicted (the halo), so that a building on the edge comes out
whole; it belongs to whichever area holds its centre, so that neighbouring areas tell it once.
"""

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import cv2
import numpy as np
import shapely

from footprint_pipeline.errors import ImageryError, ModelError, RequestError
from footprint_pipeline.footprints.area import geodesic_area_m2
from footprint_pipeline.footprints.domain import InputProfile, brightness_counts
from footprint_pipeline.footprints.mercator import HALF_WORLD, Bounds, ground_scale, tile_at_3857, tile_side, unproject
from footprint_pipeline.footprints.normalization import UINT8, Normalization
from footprint_pipeline.footprints.patch import Imagery, Patch, check_resolution, no_imagery
from footprint_pipeline.footprints.predict import predict_probability
from footprint_pipeline.footprints.regularize import Outline, regularize
from footprint_pipeline.footprints.runtime import Runtime
from footprint_pipeline.footprints.separate import interior_of
from footprint_pipeline.footprints.spec import ModelSpec, calibrated
from footprint_pipeline.footprints.vectorize import Footprints, reach_into, vectorize

MAX_PIXELS = 4096**2
MAX_SIDE_PX = 4 * 4096
"""A strip that is longer takes more than its pixels: its halo does."""
HALOS_PX = (64, 256)
_BAND_ZOOM = 9
"""Pixels are alike in a row of tiles of this zoom: the ground in it differs by half a percent at 60° of latitude."""


class AreaTooLargeError(RequestError):
    """An area has more pixels than one request may ask for."""


class Stages(dict[str, float]):
    """Seconds spent in each stage, added up."""

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Count the block's time to `stage`."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self[stage] = self.get(stage, 0.0) + time.perf_counter() - start


@dataclass(frozen=True)
class Raster:
    """What the network tells of an area and of the halo around it.

    Attributes:
        padded: float32 in [0, 1], halo included, shape (H, W, heads); 0 where there is no imagery.
        padded_3857: what that covers.
        bounds_3857: the area, without the halo; its edges need not be those of pixels.
        source: where the pixels come from.
        stages: seconds spent.
        profile: what the imagery of the area looks like, without the halo.
        date: when the imagery was taken, as its source says it; None where it does not.
    """

    padded: np.ndarray
    padded_3857: Bounds
    bounds_3857: Bounds
    source: str
    stages: Stages
    profile: InputProfile
    date: str | None = None

    @property
    def inside(self) -> tuple[float, float, float, float]:
        """Left, top, right, bottom of the area alone, pixels of `padded`."""
        return self.to_pixels(self.bounds_3857)

    def to_pixels(self, bounds_3857: Bounds) -> tuple[float, float, float, float]:
        """Left, top, right, bottom of a rectangle, pixels of `padded`."""
        covered, (height, width) = self.padded_3857, self.padded.shape[:2]
        x, y = width / (covered.right - covered.left), height / (covered.top - covered.bottom)
        return (
            (bounds_3857.left - covered.left) * x,
            (covered.top - bounds_3857.top) * y,
            (bounds_3857.right - covered.left) * x,
            (covered.top - bounds_3857.bottom) * y,
        )


@dataclass(frozen=True)
class Extraction:
    """The footprints of an area, and what they were made from.

    Attributes:
        raster: the probabilities they were drawn from.
        polygons_wgs84: shapely Polygons, degrees, exteriors counter-clockwise, shape (N,), dtype object.
        confidence: how sure it is that each is a building, calibrated, float32, shape (N,).
        area_m2: geodesic area of each, float64, shape (N,).
        tolerance: a pixel is a building where probability > 1 - tolerance.
        regularised: which outlines are, bool, shape (N,).
    """

    raster: Raster
    polygons_wgs84: np.ndarray
    confidence: np.ndarray
    area_m2: np.ndarray
    tolerance: float
    regularised: np.ndarray

    def __len__(self) -> int:
        return len(self.polygons_wgs84)


def extract(
    runtime: Runtime,
    imagery: Imagery,
    bounds_3857: Bounds,
    *,
    tolerance: float | None = None,
    min_area_m2: float | None = None,
    outline: Outline = "raw",
    halos_px: tuple[int, ...] = HALOS_PX,
    within_wgs84: shapely.Geometry | None = None,
    reaching: bool = False,
    predict: Callable[..., "Raster"] | None = None,
    stages: Stages | None = None,
) -> Extraction:
    """Every building whose centroid lies in a Web Mercator rectangle, uncut by its edges, the surest first.

    Args:
        runtime: the model.
        imagery: where the pixels come from.
        bounds_3857: what is asked for.
        tolerance: in (0, 1]; the model's at the middle of the rectangle when None.
        min_area_m2: smaller footprints are dropped; the model's own when None.
        outline: how buildings are drawn; which area one belongs to is told by its raw outline either way.
        halos_px: how far to look around, pixels, ascending: the next one is tried when a building reaches
            beyond; one that reaches beyond the last is cut there.
        within_wgs84: a (Multi)Polygon in degrees that centroids must lie in as well; anywhere when None.
        reaching: whether buildings count too that only reach into the rectangle, whole.
        predict: what stands in for `predict_raster`, as one that remembers does.
        stages: seconds spent so far.

    Raises:
        AreaTooLargeError: the area has too many pixels at the model's resolution.
        TooCoarseError: the imagery does not show what the model needs to see.
        NoImageryError: there is no imagery in the area.
        ImageryError: the provider failed, or its bit depth is not what the model was trained on.
    """
    if tolerance is None:
        ((longitude, latitude),) = unproject(np.array([bounds_3857.centre]))
        tolerance = runtime.spec.tolerance_at(longitude, latitude)
    min_area_m2 = runtime.spec.min_area_m2 if min_area_m2 is None else min_area_m2
    stages = Stages() if stages is None else stages
    for halo_px in halos_px:
        raster = (predict or predict_raster)(runtime, imagery, bounds_3857, halo_px=halo_px, stages=stages)
        with stages.timed("vectorize"):
            footprints = vectorize(
                cv2.extractChannel(raster.padded, 0),
                tolerance=tolerance,
                interior=interior_of(raster.padded, runtime.spec.heads),
                seed_level=runtime.spec.seed_level,
                min_area_px=0.9 * min_area_m2 / runtime.spec.gsd_m**2,
                # A regularised outline gives way to its neighbours, wherever they are.
                reaching_into=None if outline == "regularised" else raster.inside,
            )
            whole = not _cut(footprints, raster)
        if whole:
            break
    drawn, regularised = footprints.polygons, np.zeros(len(footprints), bool)
    if outline == "regularised":
        with stages.timed("regularize"):
            regular = regularize(drawn)
            drawn, regularised = regular.polygons, regular.changed
    with stages.timed("vectorize"):
        middles = shapely.centroid(footprints.polygons)
        owned = _owned(middles, raster)
        if reaching:
            owned |= reach_into(shapely.bounds(footprints.polygons).reshape(-1, 4), raster.inside)
        polygons = shapely.orient_polygons(of_turn(_to_wgs84(drawn[owned], raster)))
        area_m2 = geodesic_area_m2(polygons)
        kept = (area_m2 >= min_area_m2) & (area_m2 > 0)
        if within_wgs84 is not None:
            shapely.prepare(within_wgs84)
            kept &= shapely.contains(within_wgs84, _to_wgs84(middles[owned], raster))
        confidence = calibrated(footprints.confidence[owned][kept], runtime.spec.calibration)
    return Extraction(raster, polygons[kept], confidence, area_m2[kept], tolerance, regularised[owned][kept])


def predict_raster(
    runtime: Runtime, imagery: Imagery, bounds_3857: Bounds, *, halo_px: int = HALOS_PX[0], stages: Stages | None = None
) -> Raster:
    """What the network tells of a Web Mercator rectangle, at the model's own ground resolution.

    The halo is as wide as it is told, or narrower by less than the network's stride: what is read begins and ends where
    a multiple of it does.

    Raises:
        AreaTooLargeError, TooCoarseError, NoImageryError, ImageryError: as `extract`.
    """
    stages = Stages() if stages is None else stages
    padded_3857, height, width, inside = _grid(bounds_3857, runtime.spec, halo_px)
    with stages.timed("imagery"):
        patch = imagery.read(padded_3857, height, width)
        if not patch.valid[inside].any():
            raise no_imagery(imagery, bounds_3857)
        check_resolution(patch.source, patch.gsd_m, runtime.spec.gsd_m)
    with stages.timed("predict"):
        profile = profile_patch(runtime.spec, replace(patch, pixels=patch.pixels[inside], valid=patch.valid[inside]))
        padded = predict_patch(runtime, patch)
    return Raster(padded, padded_3857, bounds_3857, patch.source, stages, profile, patch.date)


def predict_patch(runtime: Runtime, patch: Patch) -> np.ndarray:
    """What the network tells of every pixel of a patch, float32, shape (H, W, heads); 0 where it has no imagery.

    Raises:
        ImageryError: its bit depth is not what the model was trained on.
    """
    spec = runtime.spec
    image = stretch_of(spec, patch).apply(patch.pixels)
    probability = predict_probability(image, runtime, stride=spec.stride, flips=spec.flips)
    if not np.isfinite(probability).all():
        raise ModelError("The model answers with values that are not numbers.", fix="Promote another version.")
    if not patch.valid.all():
        probability[~patch.valid] = 0.0
    return probability


def profile_patch(spec: ModelSpec, patch: Patch) -> InputProfile:
    """What a patch looks like to a model, and how much of what that was trained on is closer to the rest of it.

    Raises:
        ImageryError: its bit depth is not what the model was trained on.
    """
    counts = brightness_counts(stretch_of(spec, patch).to_uint8(patch.pixels), patch.valid)
    return InputProfile(
        brightness=counts,
        gsd_m=patch.gsd_m,
        out_of_domain=spec.domain.out_of_domain(counts) if spec.domain else None,
    )


def stretch_of(spec: ModelSpec, patch: Patch) -> Normalization:
    """How the pixels of a patch become what a model sees.

    Raises:
        ImageryError: their bit depth is not what the model was trained on.
    """
    if patch.pixels.dtype == np.uint8:
        return UINT8
    deep = spec.deep_stretches
    if len(deep) == 1:
        return deep.pop()
    known = f"was trained with {len(deep)} different stretches of such" if deep else "was trained on 8-bit"
    raise ImageryError(
        f"{patch.source}: {patch.pixels.dtype} imagery, but model {spec.model_name} {known} imagery.",
        fix="Give it imagery of 8-bit red, green and blue.",
    )


def _grid(bounds_3857: Bounds, spec: ModelSpec, halo_px: int) -> tuple[Bounds, int, int, tuple[slice, slice]]:
    """An area with its halo on the grid that all areas share.

    Returns:
        What it covers, its height and width in pixels, and rows and columns of those with their centres in the area.

    Raises:
        AreaTooLargeError: these are too many.
    """
    row = tile_at_3857(*bounds_3857.centre, _BAND_ZOOM)
    pixel = spec.gsd_m / ground_scale(row.bounds_3857)
    _check_size(bounds_3857, pixel, spec.gsd_m)
    block = spec.stride * pixel
    halo = max(halo_px - spec.stride, 0) * pixel

    def along(start: float, stop: float) -> tuple[float, float, int, slice]:
        first, end = math.floor((start - halo) / block), math.ceil((stop + halo) / block)
        begins = round((start - first * block) / pixel)
        inside = slice(begins, max(begins + 1, round((stop - first * block) / pixel)))
        return first * block, end * block, (end - first) * spec.stride, inside

    left, right, width, columns = along(bounds_3857.left, bounds_3857.right)
    # Rows count downwards from the upper edge of the world, columns from the meridian of Greenwich.
    up, down, height, rows = along(HALF_WORLD - bounds_3857.top, HALF_WORLD - bounds_3857.bottom)
    return Bounds(left, HALF_WORLD - down, right, HALF_WORLD - up), height, width, (rows, columns)


def _check_size(bounds_3857: Bounds, pixel: float, gsd_m: float) -> None:
    width = max(1, round((bounds_3857.right - bounds_3857.left) / pixel))
    height = max(1, round((bounds_3857.top - bounds_3857.bottom) / pixel))
    if height * width > MAX_PIXELS or max(height, width) > MAX_SIDE_PX:
        side = math.sqrt(MAX_PIXELS) * pixel
        coarsest = math.ceil(math.log2(tile_side(0) / side))
        largest_km2 = math.floor(MAX_PIXELS * gsd_m**2 / 1e4) / 100
        raise AreaTooLargeError(
            f"The area is {width:,} × {height:,} px at the model's {gsd_m:.3g} m a pixel; one request may ask for "
            f"{MAX_PIXELS:,} px at most, {MAX_SIDE_PX:,} px to a side.",
            fix=f"Ask for zoom {coarsest} or finer."
            if _is_tile(bounds_3857)
            else f"Ask for a rectangle of {largest_km2:g} km² at most, {MAX_SIDE_PX * gsd_m / 1000:g} km to a side.",
        )


def _is_tile(bounds_3857: Bounds) -> bool:
    """Whether an area is a map tile, so that whoever asked for it gave a zoom."""
    zoom = round(math.log2(tile_side(0) / (bounds_3857.right - bounds_3857.left)))
    tile = tile_at_3857(*bounds_3857.centre, max(zoom, 0)).bounds_3857
    return np.allclose(tile, bounds_3857, rtol=0, atol=1e-3)


def _cut(footprints: Footprints, raster: Raster) -> bool:
    """Whether a footprint that reaches into the area is cut by the halo's outer edge."""
    if not len(footprints):
        return False
    height, width = raster.padded.shape[:2]
    bounds = shapely.bounds(footprints.polygons)
    left, top, right, bottom = bounds.T
    touches = (left <= 0) | (top <= 0) | (right >= width) | (bottom >= height)
    return bool((touches & reach_into(bounds, raster.inside)).any())


def _owned(middles: np.ndarray, raster: Raster) -> np.ndarray:
    """Which points lie in the area, bool; of its edges only the left and the upper one count to it."""
    left, top, right, bottom = raster.inside
    x, y = shapely.get_coordinates(middles).T
    return (x >= left) & (x < right) & (y >= top) & (y < bottom)


def _to_wgs84(geometries: np.ndarray, raster: Raster) -> np.ndarray:
    covered, (height, width) = raster.padded_3857, raster.padded.shape[:2]

    def place(points_px: np.ndarray) -> np.ndarray:
        x = covered.left + points_px[:, 0] * (covered.right - covered.left) / width
        y = covered.top - points_px[:, 1] * (covered.top - covered.bottom) / height
        return unproject(np.column_stack([x, y]))

    return shapely.transform(geometries, place)


def of_turn(polygons_wgs84: np.ndarray, longitude: float = 0.0) -> np.ndarray:
    """The polygons, each of the turn of the globe that brings its middle closest to a longitude."""
    left, _, right, _ = shapely.bounds(polygons_wgs84).reshape(-1, 4).T
    turns = 360.0 * np.floor(((left + right) / 2 - longitude + 180.0) / 360.0)
    if not turns.any():
        return polygons_wgs84
    turned = polygons_wgs84.copy()
    for turn in np.unique(turns[turns != 0.0]):
        there = turns == turn
        turned[there] = shapely.transform(turned[there], lambda points: points - (turn, 0.0))  # noqa: B023
    return turned

"""An image that nobody knows the place of → its footprints in its own pixels. What has a place is `extract`'s."""

from dataclasses import dataclass, replace

import cv2
import numpy as np
import shapely

from footprint_pipeline.errors import RequestError
from footprint_pipeline.footprints.domain import InputProfile
from footprint_pipeline.footprints.extract import MAX_PIXELS, Stages, predict_patch, profile_patch
from footprint_pipeline.footprints.patch import Patch, check_resolution
from footprint_pipeline.footprints.regularize import Outline, regularize
from footprint_pipeline.footprints.runtime import Runtime
from footprint_pipeline.footprints.separate import interior_of
from footprint_pipeline.footprints.spec import calibrated
from footprint_pipeline.footprints.vectorize import vectorize


@dataclass(frozen=True)
class UnplacedExtraction:
    """The footprints of an image, the surest first.

    Attributes:
        polygons_px: shapely Polygons, x to the right, y down from the upper left corner, shape (N,), dtype object.
        confidence: how sure it is that each is a building, calibrated, float32, shape (N,).
        area_px: area of each, square pixels, float64, shape (N,).
        gsd_m: what a pixel measures on the ground, metres; None where nobody said.
        tolerance: a pixel is a building where probability > 1 - tolerance.
        source: where the pixels come from.
        stages: seconds spent.
        profile: what the imagery looks like.
        regularised: which outlines are, bool, shape (N,).
    """

    polygons_px: np.ndarray
    confidence: np.ndarray
    area_px: np.ndarray
    gsd_m: float | None
    tolerance: float
    source: str
    stages: Stages
    profile: InputProfile
    regularised: np.ndarray

    def __len__(self) -> int:
        return len(self.polygons_px)


def extract_unplaced(
    runtime: Runtime,
    patch: Patch,
    *,
    gsd_m: float | None = None,
    tolerance: float | None = None,
    min_area_m2: float | None = None,
    outline: Outline = "raw",
) -> UnplacedExtraction:
    """Every building of an image.

    Args:
        runtime: the model.
        patch: the image.
        gsd_m: what a pixel measures on the ground, metres; the image is resampled from it to the model's. When None
            it is taken for the model's own.
        tolerance: in (0, 1]; the model's own when None.
        min_area_m2: smaller footprints are dropped; the model's own when None.
        outline: how buildings are drawn.

    Raises:
        RequestError: the image would have too many pixels at the model's resolution.
        TooCoarseError: its pixels do not show what the model needs to see.
        ImageryError: its bit depth is not what the model was trained on.
    """
    spec, stages = runtime.spec, Stages()
    tolerance = spec.tolerance if tolerance is None else tolerance
    min_area_m2 = spec.min_area_m2 if min_area_m2 is None else min_area_m2
    min_area_px = min_area_m2 / spec.gsd_m**2
    height, width = patch.valid.shape
    with stages.timed("predict"):
        seen = _resampled(replace(patch, gsd_m=gsd_m), spec.gsd_m)
        profile = profile_patch(spec, seen)
        told = predict_patch(runtime, seen)
    with stages.timed("vectorize"):
        found = vectorize(
            cv2.extractChannel(told, 0),
            tolerance=tolerance,
            interior=interior_of(told, spec.heads),
            seed_level=spec.seed_level,
            min_area_px=0.9 * min_area_px,
        )
    drawn, regularised = found.polygons, np.zeros(len(found), bool)
    if outline == "regularised":
        with stages.timed("regularize"):
            regular = regularize(drawn, frame=shapely.box(0, 0, told.shape[1], told.shape[0]))
            drawn, regularised = regular.polygons, regular.changed
    with stages.timed("vectorize"):
        back = np.array([width / told.shape[1], height / told.shape[0]])
        kept = shapely.area(drawn) >= min_area_px
        polygons = shapely.transform(drawn[kept], lambda points: points * back)
        return UnplacedExtraction(
            polygons,
            calibrated(found.confidence[kept], spec.calibration),
            shapely.area(polygons),
            gsd_m,
            tolerance,
            patch.source,
            stages,
            profile,
            regularised[kept],
        )


def _resampled(patch: Patch, gsd_m: float) -> Patch:
    """The patch in pixels of `gsd_m`; as it is where it does not say what its own are."""
    if patch.gsd_m is None:
        return patch
    check_resolution(patch.source, patch.gsd_m, gsd_m)
    height, width = (max(1, round(side * patch.gsd_m / gsd_m)) for side in patch.valid.shape)
    if height * width > MAX_PIXELS:
        raise RequestError(
            f"The image is {width:,} × {height:,} px at the model's {gsd_m:.3g} m a pixel; {MAX_PIXELS:,} px are the "
            "most that one request may ask for.",
            fix="Give a part of it.",
        )
    if (height, width) == patch.valid.shape:
        return patch
    shrinks = height < patch.valid.shape[0]
    pixels = cv2.resize(patch.pixels, (width, height), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
    valid = cv2.resize(patch.valid.view(np.uint8), (width, height), interpolation=cv2.INTER_NEAREST)
    return replace(patch, pixels=pixels, valid=valid.astype(bool))

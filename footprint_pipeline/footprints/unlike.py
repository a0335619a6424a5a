"""What people are told of imagery that is far from all that a model was trained on."""

import numpy as np

from footprint_pipeline.footprints.extract import profile_patch, stretch_of
from footprint_pipeline.footprints.normalization import PERCENTILES, Normalization
from footprint_pipeline.footprints.patch import Patch
from footprint_pipeline.footprints.spec import ModelSpec


def unlike(
    spec: ModelSpec, name: str, counts: np.ndarray, *, values: tuple[float, float], stretch: Normalization
) -> str | None:
    """What to say of imagery; None where it is not far out of the model's domain, or the model does not know that.

    Args:
        spec: of the model.
        name: what to call the imagery.
        counts: `brightness_counts` of what the network saw of it.
        values: its lowest and highest value, about.
        stretch: how they became what the network saw.
    """
    if spec.domain is None or not spec.domain.is_far(counts):
        return None
    low, high = values
    return (
        f"{name}: is unlike all that {spec.model_name} was trained on, so what it finds there, or does not find, says "
        f"little. Its values lie from {low:.5g} to {high:.5g}; the model sees {stretch.describe()} (red, green, blue) "
        "from black to white. Where it is the range that differs, bring the imagery to that one "
        "(gdal_translate -scale); else train on tiles of its kind."
    )


def unlike_patch(spec: ModelSpec, patch: Patch) -> str | None:
    """`unlike` of pixels of a place.

    Raises:
        ImageryError: their bit depth is not what the model was trained on.
    """
    lowest, _, highest = np.percentile(patch.pixels[patch.valid], PERCENTILES)
    return unlike(
        spec,
        patch.source,
        profile_patch(spec, patch).brightness,
        values=(float(lowest), float(highest)),
        stretch=stretch_of(spec, patch),
    )

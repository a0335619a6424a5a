"""What is said of imagery that is far from what was learned."""

import re

import numpy as np

from footprint_pipeline.footprints.domain import DomainReference, brightness_counts
from footprint_pipeline.footprints.normalization import Normalization
from footprint_pipeline.footprints.patch import Patch
from footprint_pipeline.footprints.spec import ModelSpec
from footprint_pipeline.footprints.unlike import unlike_patch

DEEP = Normalization(low=(100.0,) * 3, high=(2000.0,) * 3)


def patch(dtype: str, low: float, high: float) -> Patch:
    """Values that lie evenly between two; where there is no imagery, they are higher."""
    pixels = np.linspace(low, 2 * high - low, 128 * 64 * 3).reshape(128, 64, 3).astype(dtype)
    valid = np.arange(128)[:, None].repeat(64, axis=1) < 64
    return Patch(pixels, valid, "roofs.tif")


def model(**changes: object) -> ModelSpec:
    learned = patch("uint16", 100, 2000)
    return ModelSpec(
        **{
            "model_name": "m", "network": "", "tolerance": 0.5, "gsd_m": 0.5, "chip_size": 64, "stride": 1,
            "aois": ("Rio",), "normalization": {"Rio": DEEP},
            "domain": DomainReference.of([brightness_counts(DEEP.to_uint8(learned.pixels), learned.valid)] * 3),
        } | changes
    )  # fmt: skip


def test_values_of_another_range_are_named_beside_those_that_the_model_sees() -> None:
    told = unlike_patch(model(), patch("float32", 0, 1))
    assert told is not None
    assert told.startswith("roofs.tif: is unlike all that m was trained on")
    assert re.search(r"Its values lie from 0\.0\d* to 0\.9\d*; the model sees", told)
    assert f"{DEEP.describe()} (red, green, blue) from black to white" in told
    assert "gdal_translate -scale" in told
    deeper = unlike_patch(model(), patch("uint16", 1600, 32000))
    assert deeper is not None
    assert re.search(r"lie from 19\d\d(\.\d)? to 31[67]\d\d(\.\d)?; the", deeper)


def test_imagery_like_that_of_training_or_of_a_model_that_does_not_know_is_not_told_of() -> None:
    assert unlike_patch(model(), patch("uint16", 100, 2000)) is None
    assert unlike_patch(model(), patch("uint16", 300, 1500)) is None
    assert unlike_patch(model(domain=None), patch("float32", 0, 1)) is None

"""What an exported model says about itself: everything the service needs to know beside the weights."""

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from footprint_pipeline.errors import ModelError, field_problems
from footprint_pipeline.files import atomic_path
from footprint_pipeline.footprints.domain import DomainReference
from footprint_pipeline.footprints.normalization import UINT8, Normalization
from footprint_pipeline.footprints.places import Box, place_of

SPEC_FILE = "spec.json"
ONNX_FILE = "model.onnx"
"""Beside it: the network for ONNX Runtime, where it could be made."""

Precision = Literal["f32", "bf16", "int8"]
"""Arithmetic of an exported model. `bf16` is f32 where the CPU has no bfloat16; `int8` is a file of its own."""


class ModelSpec(BaseModel):
    """The exported model's own description, written beside it as `spec.json`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model_name: str
    network: str = Field(description="for people: 'U-Net, width 16, 1,945,313 parameters'")
    tolerance: float = Field(gt=0, le=1, description="a pixel is a building where probability > 1 - tolerance")
    gsd_m: float = Field(gt=0, description="ground sample distance of the imagery trained on, metres a pixel")
    chip_size: int = Field(gt=0, description="side of the training chips, pixels")
    stride: int = Field(gt=0, description="inputs must be multiples of this, pixels")
    heads: tuple[str, ...] = Field(("building",), description="what the network tells of each pixel, in order")
    min_area_m2: float = Field(0.0, ge=0, description="smaller footprints are dropped")
    seed_level: float | None = Field(
        None, gt=0, lt=1, description="touching buildings are separated between interiors above it; None: they are not"
    )
    flips: Literal[1, 2, 4, 8] = Field(1, description="orientations that the network's answer is the mean of")
    precision: Precision = Field(
        "bf16", description="arithmetic that the service runs it in; what it always was before it was written down"
    )
    calibration: tuple[tuple[float, float], ...] = Field(
        (), description="knots of the curve from a footprint's confidence to how many such footprints are buildings"
    )
    aois: tuple[str, ...] = Field(description="AOIs trained on")
    own_tolerances: dict[str, Annotated[float, Field(gt=0, le=1)]] = Field(
        default_factory=dict, description="of AOIs where another tolerance serves better, by name"
    )
    places: dict[str, tuple[Box, ...]] = Field(
        default_factory=dict, description="where the AOIs lie: boxes of west, south, east, north, degrees"
    )
    normalization: dict[str, Normalization] = Field(
        description="by AOI and pixel type: how sensor values became [0, 1]; 8-bit imagery is always divided by 255"
    )
    domain: DomainReference | None = Field(
        None, description="what the training tiles look like; None for models of before it was written down"
    )
    metrics: dict[str, float] = Field(default_factory=dict, description="scores on the test split")
    run_id: str = Field("", description="MLflow run that trained it")
    created: datetime | None = None

    @property
    def deep_stretches(self) -> set[Normalization]:
        """How imagery of more than 8 bits became [0, 1]; the service can take such imagery where it is one way."""
        return set(self.normalization.values()) - {UINT8}

    def tolerance_at(self, longitude: float, latitude: float) -> float:
        """The tolerance at a place, degrees: that of the AOI that it belongs to, where it has its own."""
        return self.tolerance_of(place_of(self.places, longitude, latitude))

    def tolerance_of(self, aoi: str | None) -> float:
        """The tolerance of an AOI: its own, where it has one."""
        return self.tolerance if aoi is None else self.own_tolerances.get(aoi, self.tolerance)

    def write(self, folder: Path) -> Path:
        """Write `spec.json` into `folder`, atomically."""
        path = folder / SPEC_FILE
        with atomic_path(path) as temporary:
            temporary.write_text(self.model_dump_json(indent=2) + "\n", "utf-8")
        return path

    @classmethod
    def read(cls, folder: Path) -> "ModelSpec":
        """The spec in `folder`.

        Raises:
            ModelError: the file is missing or not a spec.
        """
        path = folder / SPEC_FILE
        try:
            return cls.model_validate_json(path.read_text("utf-8"))
        except FileNotFoundError:
            raise ModelError(f"{path}: missing.", fix="Export the model again: footprint export.") from None
        except ValidationError as error:
            wrong = ": ".join(filter(None, field_problems(error)[0]))
            raise ModelError(f"{path}: {wrong}.", fix="Export the model again.") from None


def calibrated(confidence: np.ndarray, curve: Sequence[tuple[float, float]]) -> np.ndarray:
    """What comes true of what is said, by a curve of knots; the same where there is no curve.

    Args:
        confidence: float, shape (N,).
        curve: (said, true), ascending in both; straight in between, level beyond.
    """
    if not curve:
        return confidence
    said, true = np.array(curve).T
    return np.interp(confidence, said, true).astype(confidence.dtype)

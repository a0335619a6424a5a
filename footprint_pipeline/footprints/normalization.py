"""Sensor values of any bit depth → float32 in [0, 1], the same way in training and in the service.

Imagery of eight bits was made for the eye: its values go with the root of the light, about, as screens expect it.
Imagery of more bits tends to be proportional to the light, and so is darker. What is stretched is therefore brightened
as well, until its middle is about as bright as that of the former.
"""

import math
from typing import Annotated

import cv2
import numpy as np
from pydantic import BaseModel, ConfigDict, Field

PERCENTILES = (1.0, 50.0, 99.0)
"""What imagery of more than eight bits is stretched by: becomes 0, about `_MIDDLE`, and 1."""
_MIDDLE = 0.4
_MOST_GAMMA = 2.2
"""That of screens: light which is told as it is needs no more."""

Band3 = Annotated[tuple[float, float, float], Field(description="red, green, blue")]


class Normalization(BaseModel):
    """A stretch per band: `low` becomes 0, `high` becomes 1, values beyond are clipped; then the root `gamma`."""

    model_config = ConfigDict(frozen=True)

    low: Band3 = (0.0, 0.0, 0.0)
    high: Band3 = (255.0, 255.0, 255.0)
    gamma: float = Field(1.0, ge=1.0, description="1: as it is; 2: the square root, which brightens what is dark")

    @classmethod
    def from_percentiles(cls, values: np.ndarray) -> "Normalization":
        """Of imagery whose `PERCENTILES` are these, shape (3 percentiles, 3 bands), ascending.

        A band of one value becomes 0 throughout (`high` is `low` + 1).
        """
        low, middle, high = np.asarray(values, float)
        told = high > low
        high = np.where(told, high, low + 1)
        share = np.mean(((middle - low) / (high - low))[told]) if told.any() else _MIDDLE
        gamma = min(math.log(np.clip(share, 1e-6, _MIDDLE)) / math.log(_MIDDLE), _MOST_GAMMA)
        return cls.model_validate({"low": tuple(low.tolist()), "high": tuple(high.tolist()), "gamma": round(gamma, 3)})

    @classmethod
    def of(cls, pixels: np.ndarray) -> "Normalization":
        """Of imagery that has these pixels, any real dtype, shape (N, 3); as it is when none of them is a number."""
        known = pixels[np.isfinite(pixels).all(axis=1)].astype(np.float64)
        return cls.from_percentiles(np.percentile(known, PERCENTILES, axis=0)) if len(known) else cls()

    def describe(self) -> str:
        """For people: '114–1201 · 274–1334 · 245–875, gamma 1.97'."""
        bands = " · ".join(f"{low:g}–{high:g}" for low, high in zip(self.low, self.high, strict=True))
        return bands if self.gamma == 1.0 else f"{bands}, gamma {self.gamma:g}"

    def apply(self, image: np.ndarray) -> np.ndarray:
        """float32 in [0, 1], shape (H, W, 3), of an image of any real dtype, shape (H, W, 3); NaN becomes 0."""
        if image.dtype == np.uint8:
            levels = np.arange(256, dtype=np.float32)[None, :, None].repeat(3, axis=2)
            return cv2.LUT(image, self.apply(levels))
        if np.issubdtype(image.dtype, np.floating):
            image = np.clip(np.where(np.isnan(image), -np.inf, image), self.low, self.high)
        low = np.asarray(self.low, np.float32)
        span = np.maximum(np.asarray(self.high, np.float32) - low, 1e-6)
        stretched = np.clip((image.astype(np.float32) - low) / span, 0.0, 1.0)
        return stretched if self.gamma == 1.0 else cv2.pow(stretched, 1.0 / self.gamma)

    def to_uint8(self, image: np.ndarray) -> np.ndarray:
        """uint8, shape (H, W, 3): what is cached for training and shown to people."""
        if image.dtype == np.uint8 and self == UINT8:
            return image
        return np.rint(self.apply(image) * 255.0).astype(np.uint8)


UINT8 = Normalization()

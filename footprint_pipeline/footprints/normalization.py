"""Sensor values of any bit depth → float32 in [0, 1], the same way in training and in the service."""

from typing import Annotated

import cv2
import numpy as np
from pydantic import BaseModel, ConfigDict, Field

Band3 = Annotated[tuple[float, float, float], Field(description="red, green, blue")]


class Normalization(BaseModel):
    """A linear stretch per band: `low` becomes 0, `high` becomes 1, values beyond are clipped."""

    model_config = ConfigDict(frozen=True)

    low: Band3 = (0.0, 0.0, 0.0)
    high: Band3 = (255.0, 255.0, 255.0)

    def apply(self, image: np.ndarray) -> np.ndarray:
        """float32 in [0, 1], shape (H, W, 3), of an image of any real dtype, shape (H, W, 3); NaN becomes 0."""
        if image.dtype == np.uint8:
            levels = np.arange(256, dtype=np.float32)[None, :, None].repeat(3, axis=2)
            return cv2.LUT(image, self.apply(levels))
        if np.issubdtype(image.dtype, np.floating):
            image = np.clip(np.where(np.isnan(image), -np.inf, image), self.low, self.high)
        low = np.asarray(self.low, np.float32)
        span = np.maximum(np.asarray(self.high, np.float32) - low, 1e-6)
        return np.clip((image.astype(np.float32) - low) / span, 0.0, 1.0)

    def to_uint8(self, image: np.ndarray) -> np.ndarray:
        """uint8, shape (H, W, 3): what is cached for training and shown to people."""
        if image.dtype == np.uint8 and self == UINT8:
            return image
        return np.rint(self.apply(image) * 255.0).astype(np.uint8)


UINT8 = Normalization()

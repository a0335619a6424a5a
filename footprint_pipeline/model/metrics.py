"""Metrics that Keras follows during training. What decides is measured in `evaluation`."""

from typing import Any

import keras
from keras import ops


class PixelF1(keras.metrics.Metric):  # type: ignore[misc]  # keras has no types
    """F1 of the first head's pixels, the buildings', over all seen since the last reset, at probability > 0.5."""

    def __init__(self, name: str = "f1") -> None:
        super().__init__(name=name, dtype="float32")
        self.hit = self.add_variable((), initializer="zeros", name="hit")
        self.said = self.add_variable((), initializer="zeros", name="said")
        self.true = self.add_variable((), initializer="zeros", name="true")

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        """Add a batch: both (B, H, W, heads)."""
        truth = ops.cast(y_true[..., 0], "float32")
        said = ops.cast(ops.greater(y_pred[..., 0], 0.5), "float32")
        self.hit.assign_add(ops.sum(truth * said))
        self.said.assign_add(ops.sum(said))
        self.true.assign_add(ops.sum(truth))

    def result(self) -> object:
        """2 TP / (2 TP + FP + FN)."""
        return 2.0 * self.hit / ops.maximum(self.said + self.true, 1.0)

"""Counting on the accelerator how many pixels are claimed at every tolerance, in one compiled pass.

What belongs here: the counting alone, in Keras's operations. What is counted, and what the counts mean, is
`evaluation.tolerance`'s business, which counts on the CPU.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from keras import ops

from footprint_pipeline.model.devices import compiled

_WHOLE_PX = 2**16
"""Tiles are padded to a multiple of this, so that few sizes are compiled; a probability of zero is never claimed."""

Count = Callable[[Any, Any], tuple[np.ndarray, np.ndarray]]


def build_count(thresholds: np.ndarray) -> Count:
    """A function that counts, compiled where the backend can.

    Args:
        thresholds: what a probability must exceed, float32, shape (T,).

    Returns:
        (probability, truth), float32 and uint8 of shape (tiles, H, W), arrays of NumPy or of the backend → int64 of
        shape (tiles, 2, T), ground and building pixels that are claimed at every threshold, and (tiles,), building
        pixels.
    """

    def counts(probability: Any, truth: Any) -> Any:
        tiles = ops.shape(probability)[0]
        building = ops.cast(ops.reshape(truth, (tiles, -1, 1)) > 0, "int32")
        over = ops.reshape(probability, (tiles, -1, 1)) > ops.convert_to_tensor(thresholds, "float32")
        claimed = ops.cast(over, "int32")
        return ops.sum(claimed, axis=1), ops.sum(claimed * building, axis=1), ops.sum(building, axis=(1, 2))

    run = compiled(counts)

    def count(probability: Any, truth: Any) -> tuple[np.ndarray, np.ndarray]:
        claimed, right, buildings = (
            np.asarray(ops.convert_to_numpy(each), np.int64) for each in run(_padded(probability), _padded(truth))
        )
        return np.stack([claimed - right, right], axis=1), buildings

    return count


def _padded(tiles: Any) -> Any:
    """Tiles as rows of pixels, on the device, shape (tiles, N)."""
    flat = ops.reshape(ops.convert_to_tensor(tiles), (len(tiles), -1))
    return ops.pad(flat, ((0, 0), (0, -flat.shape[1] % _WHOLE_PX)))

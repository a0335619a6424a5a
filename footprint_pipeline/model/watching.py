"""Who watches a training: what it is told, and what it may do with it.

A watcher decides nothing. Where its news go - a bar, a log, MLflow, TensorBoard - is for others to say.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from footprint_pipeline.dataset.batches import FixedChips
from footprint_pipeline.many import spread

_SHOWN = 4


@dataclass(frozen=True)
class Shown:
    """Some chips of the validation split, and what the network makes of them.

    Attributes:
        images: uint8, shape (B, H, W, 3).
        truth: uint8 0/1, shape (B, H, W): buildings.
        probability: float32, shape (B, H, W): of a building.
    """

    images: np.ndarray
    truth: np.ndarray
    probability: np.ndarray


class Watcher:
    """Hears of a training. Each method may be left out; epochs and steps count from 0."""

    def on_begin(self, history: Sequence[dict[str, float]], *, epochs: int, steps: int) -> None:
        """The first step is near; `history` holds the epochs done before an interruption."""

    def on_step(self, epoch: int, step: int, loss: float) -> None:
        """Every second or so: this step is done; the epoch's mean loss so far."""

    def on_epoch(self, epoch: int, entry: dict[str, float]) -> None:
        """An epoch is done, and is kept whatever comes."""

    def on_pictures(self, epoch: int, shown: Shown) -> None:
        """Every few epochs: what the network that would be kept makes of some chips."""


def chips_to_show(chips: FixedChips) -> tuple[np.ndarray, np.ndarray]:
    """A few chips with buildings from all over the split; any chips when there are no buildings.

    Returns:
        Images, uint8 (B, H, W, 3), and buildings, uint8 0/1 (B, H, W).
    """
    batches = [chips.batch(step) for step in range(len(chips))]
    images = np.concatenate([images for images, _ in batches])
    truth = np.concatenate([truth[..., 0] for _, truth in batches])
    candidates = np.flatnonzero(truth.any(axis=(1, 2)))
    if len(candidates) == 0:
        candidates = np.arange(len(truth))
    picked = spread(len(candidates), _SHOWN)
    return images[candidates[picked]], truth[candidates[picked]]

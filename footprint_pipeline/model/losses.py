"""Losses by name, so that a spec in YAML or in the UI can name them.

What belongs here: functions of truth and probability, both (B, H, W, heads), that end in a scalar. They reduce in
float32 and run on every backend.
"""

from collections.abc import Callable

import keras
from keras import ops

from footprint_pipeline.errors import SettingsError
from footprint_pipeline.model.spec import LOSSES

Loss = Callable[[keras.KerasTensor, keras.KerasTensor], keras.KerasTensor]
_FOCUS = 2.0
_EPSILON = 1e-7


def build_loss(name: str, *, head_weights: tuple[float, ...] = (1.0,)) -> Loss:
    """The loss called `name`, of each head on its own, added up by weight.

    `bce` is the article's binary cross-entropy; `bce_dice` adds soft Dice over the batch, `bce_chip_dice` the mean of
    soft Dice over each chip; `focal_dice` is soft Dice and a cross-entropy that looks away from pixels which are right
    already.

    Args:
        name: one of `LOSSES`.
        head_weights: how much each head counts; the last one counts for all heads that are left.

    Raises:
        SettingsError: no such loss.
    """
    losses: dict[str, Loss] = {
        "bce": _cross_entropy,
        "bce_dice": lambda truth, said: _cross_entropy(truth, said) + _soft_dice(truth, said),
        "bce_chip_dice": lambda truth, said: _cross_entropy(truth, said) + _chip_dice(truth, said),
        "focal_dice": lambda truth, said: 4.0 * _focal(truth, said) + _soft_dice(truth, said),
    }
    if name not in losses:
        raise SettingsError(f"No loss is called {name!r}.", fix=f"Choose one of {', '.join(LOSSES)}.")
    of_heads = losses[name]

    def loss(truth: keras.KerasTensor, said: keras.KerasTensor) -> keras.KerasTensor:
        truth, said = ops.cast(truth, "float32"), ops.cast(said, "float32")
        heads = said.shape[-1]
        weights = (list(head_weights) + [head_weights[-1]] * heads)[:heads]
        return ops.sum(of_heads(truth, said) * ops.convert_to_tensor(weights, "float32"))

    return loss


def _cross_entropy(truth: keras.KerasTensor, said: keras.KerasTensor) -> keras.KerasTensor:
    """Mean over batch and pixels, one a head."""
    return ops.mean(-ops.log(_right(truth, said)), axis=(0, 1, 2))


def _focal(truth: keras.KerasTensor, said: keras.KerasTensor) -> keras.KerasTensor:
    right = _right(truth, said)
    return ops.mean(-((1.0 - right) ** _FOCUS) * ops.log(right), axis=(0, 1, 2))


def _soft_dice(truth: keras.KerasTensor, said: keras.KerasTensor) -> keras.KerasTensor:
    """Over the batch, so that few buildings count as much as many; one a head."""
    overlap = ops.sum(truth * said, axis=(0, 1, 2))
    both = ops.sum(truth, axis=(0, 1, 2)) + ops.sum(said, axis=(0, 1, 2))
    return 1.0 - (2.0 * overlap + 1.0) / (both + 1.0)


def _chip_dice(truth: keras.KerasTensor, said: keras.KerasTensor) -> keras.KerasTensor:
    """Over each chip, so that one of few buildings is not outvoted by those of many; one a head.

    A hundredth of the chip's pixels on either side keeps the fall even where there is no building.
    """
    overlap = ops.sum(truth * said, axis=(1, 2))
    both = ops.sum(truth, axis=(1, 2)) + ops.sum(said, axis=(1, 2))
    some = 0.01 * said.shape[1] * said.shape[2]
    return ops.mean(1.0 - (2.0 * overlap + some) / (both + some), axis=0)


def _right(truth: keras.KerasTensor, said: keras.KerasTensor) -> keras.KerasTensor:
    """The probability given to what is true, away from 0 and 1."""
    return ops.clip(truth * said + (1.0 - truth) * (1.0 - said), _EPSILON, 1.0 - _EPSILON)

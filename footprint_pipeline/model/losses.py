"""Losses by name, so that a spec in YAML or in the UI can name them."""

from collections.abc import Callable

import keras
from keras import ops

from footprint_pipeline.errors import SettingsError
from footprint_pipeline.model.spec import LOSSES


def build_loss(name: str) -> Callable[[keras.KerasTensor, keras.KerasTensor], keras.KerasTensor]:
    """The loss called `name`: `bce` (the article's) or `bce_dice`.

    Raises:
        SettingsError: no such loss.
    """
    if name == "bce":
        return keras.losses.BinaryCrossentropy()
    if name == "bce_dice":
        return bce_dice
    raise SettingsError(f"No loss is called {name!r}.", fix=f"Choose one of {', '.join(LOSSES)}.")


def bce_dice(truth: keras.KerasTensor, probability: keras.KerasTensor) -> keras.KerasTensor:
    """Binary cross-entropy plus soft Dice over the batch; both (B, H, W, 1), a scalar out.

    Dice looks at the overlap, so that a tile of few buildings counts as much as one of many.
    """
    truth = ops.cast(truth, "float32")
    overlap = ops.sum(truth * probability)
    dice = 1.0 - (2.0 * overlap + 1.0) / (ops.sum(truth) + ops.sum(probability) + 1.0)
    return ops.mean(keras.losses.binary_crossentropy(truth, probability)) + dice

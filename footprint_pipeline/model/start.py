"""Where weights start from when not at random: a file of another training's."""

import logging
import warnings
import zipfile
from pathlib import Path

import keras
import numpy as np

from footprint_pipeline.errors import TrainingError, first_line

log = logging.getLogger(__name__)


def take_weights(network: keras.Model, path: Path) -> tuple[int, int]:
    """Take the weights of layers that fit; the others stay as they are.

    Layers are the same when they are of one kind, the same one of that kind in order, and of one shape. No code that
    the file may hold is run.

    Args:
        network: of Keras's own layers.
        path: a `.keras` or `.weights.h5` file.

    Returns:
        How many layers fit, of how many that have weights.

    Raises:
        TrainingError: the file cannot be read, or nothing in it fits.
    """
    layers = [layer for layer in network.layers if layer.weights]
    former = [layer.get_weights() for layer in layers]
    # What is not a number after loading has not been loaded.
    for layer, values in zip(layers, former, strict=True):
        layer.set_weights([np.full_like(v, np.nan) if v.dtype.kind == "f" else v for v in values])
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # one for each layer that does not fit
            network.load_weights(path, skip_mismatch=True)
    except (OSError, ValueError, KeyError, TypeError, zipfile.BadZipFile) as error:
        for layer, values in zip(layers, former, strict=True):
            layer.set_weights(values)
        raise TrainingError(
            f"{path} holds no weights that can be read ({first_line(error)}).", fix="Give a .keras or .weights.h5 file."
        ) from None
    fitting = 0
    for layer, values in zip(layers, former, strict=True):
        if any(np.isnan(value).any() for value in layer.get_weights() if value.dtype.kind == "f"):
            layer.set_weights(values)
        else:
            fitting += 1
    if not fitting:
        raise TrainingError(
            f"No layer of {path.name} fits the network.", fix="Choose the width and depth that it was trained with."
        )
    log.info("%d of %d layers start from %s, the others at random", fitting, len(layers), path.name)
    return fitting, len(layers)

"""Encoders by name: any of `keras.applications` as the way down of a U-Net."""

import sys
import warnings
from types import FunctionType, ModuleType
from typing import Any

import keras
import numpy as np
from keras import layers

from footprint_pipeline.errors import SettingsError, first_line
from footprint_pipeline.model.spec import UNetSpec

_PROBE = 256
_STRIDES = (2, 4, 8, 16, 32)


def encode(spec: UNetSpec, image: keras.KerasTensor) -> tuple[keras.KerasTensor, list[keras.KerasTensor | None]]:
    """What the spec's encoder makes of an image in [0, 1].

    Returns:
        Its output at a stride of 32, and the last outputs at strides of 2, 4, 8 and 16, the finest first;
        None where it has none.

    Raises:
        SettingsError: no such encoder, it does not get down to a stride of 32, it is another network for images of
            another size, or its weights cannot be fetched.
    """
    name = spec.encoder or ""
    application = _application(name)
    x = as_it_knows_images(application, image)
    network = _network(application, name, spec.encoder_weights, input_tensor=x)
    # Which layer ends each resolution can be told of a fixed size only; `image` may be of any. Layers are counted from
    # the end, for they are the same there, but not their names.
    ends: dict[int, int] = {}
    sides: dict[int | None, int] = {_PROBE // stride: stride for stride in _STRIDES}
    probe = _network(application, name, "random", input_shape=(_PROBE, _PROBE, 3)).layers
    for from_end, layer in enumerate(probe, start=-len(probe)):
        shape: tuple[int | None, ...] = getattr(layer.output, "shape", ())
        if len(shape) == 4 and (stride := sides.get(shape[1])):
            ends[stride] = from_end
    first = min(ends.values(), default=-1)
    if [type(layer) for layer in network.layers[first:]] != [type(layer) for layer in probe[first:]]:
        raise SettingsError(
            f"{name} is not the same network for images of every size.",
            fix="Choose another encoder, EfficientNetV2B0 or ResNet50V2 for example.",
        )
    *finer, deepest = (network.layers[ends[stride]].output if stride in ends else None for stride in _STRIDES)
    if deepest is None:
        raise SettingsError(
            f"{name} has no layer at a stride of {_STRIDES[-1]} pixels.",
            fix="Choose another encoder, EfficientNetV2B0 or ResNet50V2 for example.",
        )
    return deepest, finer


def as_it_knows_images(application: ModuleType, image: keras.KerasTensor) -> keras.KerasTensor:
    """An image in [0, 1] as the network takes it, without a weight, for those that are fetched are counted off.

    `preprocess_input` scales and shifts, each application in its own way: one layer here, whose kind every export
    knows, unless it reverses the channels, too.
    """
    black, *primaries = application.preprocess_input(255 * np.vstack([np.zeros(3), np.eye(3)]).astype(np.float32))
    by_channel = np.array(primaries) - black
    if not np.array_equal(by_channel, np.diag(np.diag(by_channel))):
        # In float32 whatever the policy is, for the means that are taken off become constants of the graph.
        return application.preprocess_input(layers.Rescaling(255.0, dtype="float32")(image))
    return layers.Rescaling(np.diag(by_channel).tolist(), black.tolist())(image)


def _application(name: str) -> ModuleType:
    """The module that defines a network of `keras.applications`, and how images are handed to it."""
    build = getattr(keras.applications, name, None)
    if not isinstance(build, FunctionType):
        raise SettingsError(
            f"keras.applications has no network called {name!r}.",
            fix="Choose one from Keras's list, EfficientNetV2B0 or ResNet50V2 for example.",
        )
    return sys.modules[build.__module__]


def _network(application: ModuleType, name: str, weights: str, **where: Any) -> keras.Model:
    build = getattr(application, name)
    if weights == "random":
        return build(include_top=False, weights=None, **where)
    try:
        with warnings.catch_warnings():  # MobileNets say that the weights are of images of 224 pixels, which do for all
            warnings.filterwarnings("ignore", message="`input_shape` is undefined", category=UserWarning)
            return build(include_top=False, weights="imagenet", **where)
    except Exception as error:  # Keras raises a bare Exception when a download fails
        raise SettingsError(
            f"{name}'s ImageNet weights cannot be fetched ({first_line(error)}).",
            fix="Connect to the internet, put the file into ~/.keras/models, or choose encoder_weights: random.",
        ) from None

"""The U-Net family: one builder, from a frozen spec.

What belongs here: layers. Specs, losses, training and export have modules of their own.
"""

import dataclasses

import keras
from keras import layers

from footprint_pipeline.errors import SettingsError
from footprint_pipeline.model.spec import UNetSpec


def build_unet(spec: UNetSpec, *, chip_size: int | None = None) -> keras.Model:
    """A U-Net as the spec says, fully convolutional.

    Args:
        spec: what to build.
        chip_size: fix the input at this many pixels a side; any multiple of the stride when None.

    Returns:
        Keras model: float32 (B, H, W, 3) in [0, 1] → float32 (B, H, W, 1), building probability.

    Raises:
        SettingsError: the chip size is no multiple of the stride, or the spec makes no network.
    """
    if spec.width < 1 or spec.depth < 1 or not 0 <= spec.dropout < 1:
        raise SettingsError(
            f"No network can be built from {dataclasses.asdict(spec)}.",
            fix="Width and depth are at least 1, dropout is in [0, 1).",
        )
    if chip_size is not None and chip_size % spec.stride:
        raise SettingsError(
            f"Chip size {chip_size} is no multiple of the network's stride {spec.stride}.",
            fix=f"Choose {max(spec.stride, chip_size // spec.stride * spec.stride)}, for example.",
        )

    image = keras.Input((chip_size, chip_size, 3), name="image")
    x = image
    skips = []
    for level in range(spec.depth):
        x = _block(x, spec.width * 2**level, spec)
        if level > 0:
            x = layers.Dropout(spec.dropout)(x)
        skips.append(x)
        x = layers.MaxPooling2D(2)(x)
    x = _block(x, spec.width * 2**spec.depth, spec)
    x = layers.Dropout(spec.dropout)(x)

    for level in reversed(range(spec.depth)):
        filters = spec.width * 2**level
        x = layers.UpSampling2D(2, interpolation="nearest")(x)
        x = _conv(x, filters, 2)
        x = layers.Concatenate()([skips[level], x])
        x = _block(x, filters, spec)
    x = _conv(x, 2, 3)
    probability = layers.Conv2D(1, 1, activation="sigmoid", dtype="float32", name="building")(x)
    return keras.Model(image, probability, name="unet")


def describe(spec: UNetSpec, parameters: int) -> str:
    """One line for people: 'U-Net, width 16, depth 4, batch norm, 1,945,313 parameters'."""
    norm = ", batch norm" if spec.batch_norm else ""
    return f"U-Net, width {spec.width}, depth {spec.depth}{norm}, {parameters:,} parameters"


def _block(x: keras.KerasTensor, filters: int, spec: UNetSpec) -> keras.KerasTensor:
    for _ in range(2):
        x = _conv(x, filters, 3, batch_norm=spec.batch_norm)
    return x


def _conv(x: keras.KerasTensor, filters: int, size: int, *, batch_norm: bool = False) -> keras.KerasTensor:
    x = layers.Conv2D(filters, size, padding="same", kernel_initializer="he_normal", use_bias=not batch_norm)(x)
    if batch_norm:
        x = layers.BatchNormalization(momentum=0.9)(x)
    return layers.Activation("relu")(x)

"""The U-Net family: one builder, from a frozen spec.

What belongs here: layers of our own. Encoders with a name are `encoders`' business; specs, losses, training and
export have modules of their own.
"""

import math
from dataclasses import replace

import keras
from keras import layers

from footprint_pipeline.model.encoders import encode
from footprint_pipeline.model.normalization import FusedBatchNormalization
from footprint_pipeline.model.spec import UNetSpec
from footprint_pipeline.model.transposed import PlainConv2DTranspose

_GROUPS = 8
_HALF_OF_A_HEAD = 16
"""Filters at full resolution behind a stem of 2."""
_KEPT_AS: dict[type[layers.Layer], type[layers.Layer]] = {
    FusedBatchNormalization: layers.BatchNormalization,
    PlainConv2DTranspose: layers.Conv2DTranspose,
}
"""What trains faster, and Keras's own layer of the same weights."""


def build_unet(spec: UNetSpec, *, chip_size: int | None = None, for_training: bool = False) -> keras.Model:
    """A U-Net as the spec says, fully convolutional.

    Args:
        spec: what to build.
        chip_size: fix the input at this many pixels a side; any multiple of the stride when None.
        for_training: take layers that train faster than Keras's own; such a network takes and gives the same weights,
            but only this project can load it from a file.

    Returns:
        Keras model: float32 (B, H, W, 3) in [0, 1] → float32 (B, H, W, heads), probabilities in the order of the
        spec's heads.

    Raises:
        SettingsError: the chip size is no multiple of the stride, or the spec's encoder cannot be had.
    """
    if chip_size is not None:
        spec.check_chip_size(chip_size)
    build = _Builder(spec, for_training=for_training)
    image = keras.Input((chip_size, chip_size, 3), name="image")
    x, skips = encode(spec, image) if spec.encoder else build.down(image)
    x = build.up(x, skips)
    return keras.Model(image, build.heads(x), name="unet")


def as_kept(network: keras.Model) -> keras.Model:
    """The same layers in float32 and all of them Keras's own, with random weights; it takes those of `network`.

    Args:
        network: from `build_unet`. It is copied and not built anew, for what an encoder is made of may depend on where
            its weights came from.
    """

    def own(layer: keras.Operation) -> keras.Operation:
        if isinstance(layer, keras.Sequential):  # whose own input would stay of the arithmetic that it was built in
            return keras.Sequential([own(inner) for inner in layer.layers], name=layer.name)
        kind = _KEPT_AS.get(type(layer), type(layer))
        return kind.from_config(layer.get_config() | ({"dtype": "float32"} if isinstance(layer, layers.Layer) else {}))

    return keras.models.clone_model(network, clone_function=own)


def describe(spec: UNetSpec, parameters: int) -> str:
    """One line for people: 'U-Net, width 16, depth 4, batch norm, 1,945,313 parameters'."""
    parts = [f"width {spec.width}", f"depth {spec.depth}", *[f"stem {spec.stem}"] * (spec.stem > 1)]
    if spec.encoder:
        parts = [spec.encoder, f"width {spec.width}"]
    if spec.residual:
        parts.append("residual")
    if spec.norm != "none":
        parts.append(f"{spec.norm} norm")
    if len(spec.heads) > 1:
        parts.append(f"heads {'+'.join(spec.heads)}")
    return f"U-Net, {', '.join(parts)}, {parameters:,} parameters"


def gflop(spec: UNetSpec, size: int) -> float:
    """Floating-point operations of one forward pass over an image of size × size, 10⁹; a multiply-add is two.

    Convolutions count; what else there is takes time but few operations.
    """
    total = 0
    for layer in build_unet(replace(spec, encoder_weights="random"), chip_size=size).layers:
        if isinstance(layer, layers.Conv2DTranspose):
            total += math.prod(layer.kernel.shape) * math.prod(layer.input.shape[1:3])
        elif isinstance(layer, layers.Conv2D | layers.DepthwiseConv2D):
            total += math.prod(layer.kernel.shape) * math.prod(layer.output.shape[1:3])
    return 2 * total / 1e9


class _Builder:
    """The blocks of one spec."""

    def __init__(self, spec: UNetSpec, *, for_training: bool) -> None:
        self.spec = spec
        self.batch_norm, self.transposed = (
            faster if for_training else _KEPT_AS[faster] for faster in (FusedBatchNormalization, PlainConv2DTranspose)
        )

    def down(self, image: keras.KerasTensor) -> tuple[keras.KerasTensor, list[keras.KerasTensor | None]]:
        """The bottleneck's output, and the blocks' outputs to be joined on the way up, the finest first."""
        spec, x = self.spec, image
        if spec.stem == 2:
            x = self._conv(x, spec.width, 3, strides=2, norm=True)
        skips: list[keras.KerasTensor | None] = []
        for level in range(spec.depth):
            x = self._block(x, spec.width * 2**level)
            if level > 0:
                x = layers.Dropout(spec.dropout)(x)
            skips.append(x)
            x = layers.MaxPooling2D(2)(x)
        x = self._block(x, spec.width * 2**spec.depth)
        return layers.Dropout(spec.dropout)(x), skips

    def up(self, x: keras.KerasTensor, skips: list[keras.KerasTensor | None]) -> keras.KerasTensor:
        """From the bottleneck to the finest skip."""
        for level in reversed(range(len(skips))):
            filters = self.spec.width * 2**level
            x = self._double(x, filters)
            if (skip := skips[level]) is not None:
                x = layers.Concatenate()([skip, x])
            x = self._block(x, filters)
        return x

    def heads(self, x: keras.KerasTensor) -> keras.KerasTensor:
        """Probabilities at the image's resolution."""
        spec = self.spec
        if spec.stem == 1 and spec.encoder is None:
            x = self._conv(x, 2 * len(spec.heads), 3)  # the article's two channels before its one
            return layers.Conv2D(len(spec.heads), 1, activation="sigmoid", dtype="float32", name=spec.heads[0])(x)
        x = self._conv(x, _HALF_OF_A_HEAD * 4, 3)
        x = self.transposed(len(spec.heads), 4, strides=2, padding="same", name="doubled")(x)
        return layers.Activation("sigmoid", dtype="float32", name=spec.heads[0])(x)

    def _double(self, x: keras.KerasTensor, filters: int) -> keras.KerasTensor:
        if self.spec.upsampling == "transpose":
            return self.transposed(filters, 2, strides=2, kernel_initializer="he_normal", activation="relu")(x)
        x = layers.UpSampling2D(2, interpolation=self.spec.upsampling)(x)
        return self._conv(x, filters, 2)

    def _block(self, x: keras.KerasTensor, filters: int) -> keras.KerasTensor:
        if not self.spec.residual:
            return self._conv(self._conv(x, filters, 3, norm=True), filters, 3, norm=True)
        inner = self._conv(self._conv(x, filters, 3, norm=True), filters, 3, norm=True, relu=False)
        if x.shape[-1] != filters:
            x = self._conv(x, filters, 1, norm=True, relu=False)
        return layers.Activation("relu")(layers.Add()([inner, x]))

    def _conv(
        self,
        x: keras.KerasTensor,
        filters: int,
        size: int,
        *,
        strides: int = 1,
        norm: bool = False,
        relu: bool = True,
    ) -> keras.KerasTensor:
        kind = self.spec.norm if norm else "none"
        x = layers.Conv2D(
            filters, size, strides, padding="same", kernel_initializer="he_normal", use_bias=kind == "none"
        )(x)
        if kind == "batch":
            x = self.batch_norm(momentum=0.9)(x)
        elif kind == "group":
            x = layers.GroupNormalization(math.gcd(_GROUPS, filters))(x)
        return layers.Activation("relu")(x) if relu else x

"""A plain convolution does what Keras's transposed one does."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from footprint_pipeline.model.transposed import PlainConv2DTranspose

SHAPE = (2, 5, 7, 6)


def step(kind: type[keras.layers.Layer], size: int, dtype: str, **options: object) -> list[np.ndarray]:
    """Output, and gradients of input and weights."""
    rng = np.random.default_rng(2)
    layer = kind(3, size, strides=2, padding="same", dtype=dtype, **options)
    layer.build(SHAPE)
    layer.set_weights([rng.normal(size=weight.shape) for weight in layer.weights])
    x = tf.constant(rng.normal(size=SHAPE), layer.compute_dtype)
    towards = tf.constant(rng.normal(size=(2, 10, 14, 3)), layer.compute_dtype)
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = layer(x)
        aim = tf.reduce_sum(tf.cast(y * towards, tf.float32))
    told = [y, *tape.gradient(aim, [x, *(weight.value for weight in layer.trainable_weights)])]
    return [np.asarray(tf.cast(tf.convert_to_tensor(part), tf.float32)) for part in told]


@pytest.mark.parametrize("options", [{}, {"activation": "relu"}, {"use_bias": False}], ids=str)
@pytest.mark.parametrize("size", [2, 4])
@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-4), ("mixed_bfloat16", 0.2)])
def test_the_plain_convolution_is_keras_transposed_one_in_all_respects(
    dtype: str, tolerance: float, size: int, options: dict
) -> None:
    ours, theirs = (step(kind, size, dtype, **options) for kind in (PlainConv2DTranspose, keras.layers.Conv2DTranspose))
    assert len(ours) == len(theirs) == 4 - ("use_bias" in options)
    for one, other in zip(ours, theirs, strict=True):
        assert np.allclose(one, other, rtol=tolerance, atol=tolerance)


def test_it_takes_images_of_any_size() -> None:
    image = keras.Input((None, None, 4))
    kinds = (PlainConv2DTranspose, keras.layers.Conv2DTranspose)
    ours, theirs = (keras.Model(image, kind(2, 4, strides=2, padding="same")(image)) for kind in kinds)
    ours.set_weights(theirs.get_weights())
    for shape in ((1, 6, 8, 4), (2, 3, 1, 4)):
        x = np.random.default_rng(0).normal(size=shape).astype(np.float32)
        assert np.allclose(ours(x), theirs(x), atol=1e-5)

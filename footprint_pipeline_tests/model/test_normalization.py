"""TensorFlow's fused kernel does what Keras's layer does."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from footprint_pipeline.model.normalization import FusedBatchNormalization

SHAPE = (3, 6, 5, 4)


def step(kind: type[keras.layers.Layer], dtype: str, *, xla: bool) -> list[np.ndarray]:
    """Output, gradients of input and weights, moving statistics, and the answer in inference, after one step."""
    rng = np.random.default_rng(2)
    layer = kind(momentum=0.9, dtype=dtype)
    layer.build(SHAPE)
    layer.set_weights([rng.uniform(0.5, 1.5, 4), rng.normal(size=4), rng.normal(size=4), rng.uniform(0.5, 2, 4)])
    x = tf.constant(rng.normal(2.0, 3.0, SHAPE), layer.compute_dtype)
    towards = tf.constant(rng.normal(size=SHAPE), layer.compute_dtype)

    def run() -> list[tf.Tensor]:
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = layer(x, training=True)
            aim = tf.reduce_sum(tf.cast(y * towards, tf.float32))
        return [y, *tape.gradient(aim, [x, *(weight.value for weight in layer.trainable_weights)])]

    told = tf.function(run, jit_compile=xla)()
    told += [*layer.non_trainable_weights, layer(x, training=False)]
    return [np.asarray(tf.cast(tf.convert_to_tensor(part), tf.float32)) for part in told]


@pytest.mark.parametrize("xla", [False, True], ids=["graph", "XLA"])
@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-4), ("mixed_bfloat16", 0.05)])
def test_the_fused_layer_is_keras_own_in_all_respects(dtype: str, tolerance: float, xla: bool) -> None:
    ours, theirs = (
        step(FusedBatchNormalization, dtype, xla=xla),
        step(keras.layers.BatchNormalization, dtype, xla=False),
    )
    assert len(ours) == len(theirs) == 7
    for one, other in zip(ours, theirs, strict=True):
        assert np.allclose(one, other, rtol=tolerance, atol=tolerance)


def test_a_frozen_layer_keeps_its_statistics() -> None:
    layer = FusedBatchNormalization()
    layer.build(SHAPE)
    layer.trainable = False
    x = np.full(SHAPE, 7.0, np.float32)
    assert np.allclose(layer(x, training=True), 7.0, atol=0.01)
    assert not np.any(layer.moving_mean)

"""Layer by layer, in the forms in which an encoder may have them: the whole networks are `test_export`'s business."""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import onnxruntime
import pytest
from keras import layers, ops

from footprint_pipeline.model.onnx_graph import onnx_model

LAYERS = [
    layers.Conv2D(4, 3, strides=2, padding="same", activation="silu"),
    layers.Conv2D(6, (1, 3), groups=3, dilation_rate=2, use_bias=False),
    layers.DepthwiseConv2D(3, depth_multiplier=2, strides=2, padding="same", activation="relu"),
    layers.SeparableConv2D(5, 3, depth_multiplier=2, dilation_rate=2, activation="hard_silu"),
    layers.Conv2DTranspose(4, 3, strides=2, padding="same", activation="sigmoid"),
    layers.Conv2DTranspose(4, (2, 3), strides=(1, 2), use_bias=False),
    layers.Dense(5, activation="gelu"),
    layers.BatchNormalization(epsilon=0.1),
    layers.BatchNormalization(center=False, scale=False),
    layers.LayerNormalization(epsilon=0.1),
    layers.ReLU(max_value=0.5),
    layers.MaxPooling2D(3, strides=2, padding="same"),
    layers.AveragePooling2D(3, strides=2, padding="same"),
    layers.UpSampling2D((2, 3)),
    layers.UpSampling2D((2, 3), interpolation="bilinear"),
    layers.ZeroPadding2D(((0, 1), (2, 3))),
    layers.Rescaling([1.0, 2.0, 3.0, 4.0, 5.0, 6.0], offset=0.5),
    layers.Normalization(mean=[0.0, 1.0, 2.0, 3.0, 4.0, 5.0], variance=[1.0, 2.0, 3.0, 4.0, 5.0, 0.0]),
    lambda x: ops.stack([x[..., 2], x[..., 0]], axis=-1) * ops.convert_to_tensor([2.0, 3.0]),
]


@pytest.mark.parametrize("layer", LAYERS, ids=lambda layer: type(layer).__name__)
def test_a_layer_answers_as_keras_does(layer: Callable[[Any], Any]) -> None:
    rng, image = np.random.default_rng(0), keras.Input((None, None, 6))
    network = keras.Model(image, layer(image))
    for weight in network.weights:
        weight.assign(rng.uniform(0.5, 1.5, weight.shape))
    batch = rng.normal(0, 1, (2, 8, 12, 6)).astype(np.float32)
    (ours,) = onnxruntime.InferenceSession(onnx_model(network).SerializeToString()).run(None, {"image": batch})
    theirs = ops.convert_to_numpy(network(batch, training=False))
    assert ours.shape == theirs.shape
    assert np.allclose(ours, theirs, rtol=1e-4, atol=1e-5)

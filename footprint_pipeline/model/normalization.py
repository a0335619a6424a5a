"""Batch normalisation in one pass over memory, where the backend has a kernel for it."""

from typing import Any

import keras
from keras import ops


class FusedBatchNormalization(keras.layers.BatchNormalization):  # type: ignore[misc]  # keras has no types
    """`keras.layers.BatchNormalization` of the last axis, its weights and its results, by TensorFlow's fused kernel.

    Keras writes it as some ten operations, each of which reads and writes the whole tensor. Made for training: a
    network that is kept has Keras's own layers, which take the same weights. On other backends it is Keras's own in all
    respects.
    """

    def call(self, inputs: Any, training: bool | None = None, mask: Any = None) -> Any:
        """Normalise a tensor (B, H, W, C) of the compute dtype."""
        if keras.config.backend() != "tensorflow" or not training or not self.trainable:
            return super().call(inputs, training=training, mask=mask)
        import tensorflow as tf

        empty = tf.zeros([0], tf.float32)
        # The variables themselves, not what mixed precision would cast them to: the kernel wants them in float32.
        scale, offset = (getattr(v, "value", v) for v in (self.gamma, self.beta))
        answer = tf.raw_ops.FusedBatchNormV3(
            x=inputs,
            scale=tf.cast(scale, tf.float32),
            offset=tf.cast(offset, tf.float32),
            mean=empty,
            variance=empty,
            epsilon=self.epsilon,
            is_training=True,
        )
        pixels = tf.cast(tf.size(inputs) // tf.shape(inputs)[-1], tf.float32)
        biased = answer.batch_variance * (pixels - 1.0) / pixels  # Keras keeps the biased one
        for kept, new in ((self.moving_mean, answer.batch_mean), (self.moving_variance, biased)):
            kept.assign(ops.cast(kept, "float32") * self.momentum + new * (1.0 - self.momentum))
        return answer.y

"""Transposed convolution as a plain one, whose gradients every backend has a fast kernel for."""

from typing import Any

import keras
from keras import ops

_NONE = 4
"""The tap behind the last: zero."""
_TAPS = {2: ((0,), (1,)), 4: ((3, 1, _NONE), (_NONE, 2, 0))}
"""By kernel size: which taps of the transposed kernel the even and the odd outputs of an axis are made with."""


class PlainConv2DTranspose(keras.layers.Conv2DTranspose):  # type: ignore[misc]  # keras has no types
    """`keras.layers.Conv2DTranspose` that doubles, its weights and its results, without a transposed convolution.

    The four outputs of a pixel are channels of a plain convolution, and are put side by side after it. XLA makes of a
    transposed kernel's gradient a convolution with a window as large as the image. Made for training: a network that
    is kept has Keras's own layer, which takes the same weights.

    Takes kernels of 2 and of 4 pixels in strides of 2, with padding to the same size.
    """

    def call(self, inputs: Any) -> Any:
        """Double a tensor (B, H, W, C)."""
        taps = _TAPS[self.kernel_size[0]]
        size, filters = len(taps[0]), self.filters
        kernel = ops.pad(self.kernel, [(0, _NONE + 1 - side) for side in self.kernel_size] + [(0, 0), (0, 0)])
        for axis in (0, 1):
            kernel = ops.take(kernel, [tap for phase in taps for tap in phase], axis=axis)
        kernel = ops.reshape(kernel, (2, size, 2, size, filters, -1))
        kernel = ops.reshape(ops.transpose(kernel, (1, 3, 5, 0, 2, 4)), (size, size, -1, 4 * filters))
        x = ops.depth_to_space(ops.conv(inputs, kernel, padding="same"), 2)
        return self.activation(x + self.bias if self.use_bias else x)

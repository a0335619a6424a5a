"""A Keras network as an ONNX graph, written layer by layer from what Keras tells of it.

What belongs here: what each kind of layer is in ONNX. Nothing is folded, so the graph reads as the network does; a
runtime folds by itself. Tensors are (B, C, H, W) inside and (B, H, W, C) at both ends. Files, and whether the graph
answers as Keras does, are `export`'s business.
"""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import onnx
from keras import layers
from onnx import TensorProto, helper, numpy_helper

from footprint_pipeline.errors import ModelError

OPSET = 21
_IR_VERSION = 10
"""Of the file format that came with the opset."""
IMAGE, PROBABILITY = "image", "probability"


class UnknownLayerError(ModelError):
    """A network has a layer that cannot be written as ONNX."""


def onnx_model(model: keras.Model) -> onnx.ModelProto:
    """The network as ONNX, of any batch, height and width.

    Args:
        model: float32 (B, H, W, 3) → float32 (B, H, W, heads), from `build_unet`; its height and width are multiples
            of its stride.

    Raises:
        UnknownLayerError: it has a layer that is not known here; names it.
    """
    graph = _Graph()
    names = {id(model.inputs[0]): graph.add("Transpose", IMAGE, perm=[0, 3, 1, 2])}
    for layer in model.operations:
        if isinstance(layer, layers.InputLayer):
            continue
        write = _WRITERS.get(type(layer))
        if write is None:
            raise _unknown(layer)
        inputs = layer.input if isinstance(layer.input, list) else [layer.input]
        names[id(layer.output)] = write(graph, layer, *(names[id(tensor)] for tensor in inputs))
    graph.nodes.append(
        helper.make_node("Transpose", [names[id(model.outputs[0])]], [PROBABILITY], PROBABILITY, perm=[0, 2, 3, 1])
    )
    ends = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", "height", "width", tensor.shape[-1]])
        for name, tensor in ((IMAGE, model.inputs[0]), (PROBABILITY, model.outputs[0]))
    ]
    made = helper.make_model(
        helper.make_graph(graph.nodes, model.name, ends[:1], ends[1:], graph.constants),
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=_IR_VERSION,
        producer_name="footprint-pipeline",
    )
    onnx.checker.check_model(made)
    return made


class _Graph:
    """Nodes in order, and the constants that they take."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    def add(self, kind: str, *inputs: str, **attributes: Any) -> str:
        """Another node; returns the name of its output."""
        name = f"{kind}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, list(inputs), [name], name, **attributes))
        return name

    def constant(self, value: object, dtype: type = np.float32) -> str:
        """Weights, or anything else that does not change; returns its name."""
        name = f"constant_{len(self.constants)}"
        array: np.ndarray = np.ascontiguousarray(keras.ops.convert_to_numpy(value), dtype)
        self.constants.append(numpy_helper.from_array(array, name))
        return name


def _unknown(layer: keras.Operation) -> UnknownLayerError:
    return UnknownLayerError(
        f"Layer {layer.name!r} ({type(layer).__name__}) cannot be written as ONNX.",
        fix="Take OpenVINO, which any network is exported to, or a network whose blocks are our own.",
    )


def _activated(graph: _Graph, layer: keras.Layer, x: str) -> str:
    match layer.activation.__name__:
        case "linear":
            return x
        case "relu":
            return graph.add("Relu", x)
        case "sigmoid":
            return graph.add("Sigmoid", x)
        case "silu":
            return graph.add("Mul", x, graph.add("Sigmoid", x))
    raise _unknown(layer)


def _conv(graph: _Graph, layer: keras.Layer, x: str) -> str:
    kernel = keras.ops.convert_to_numpy(layer.kernel)
    groups = getattr(layer, "groups", 1)
    if isinstance(layer, layers.DepthwiseConv2D):  # (H, W, channels, multiplier)
        height, width, groups, multiplier = kernel.shape
        kernel = kernel.reshape(height, width, 1, groups * multiplier)
    weights = [kernel.transpose(3, 2, 0, 1), *([layer.bias] if layer.use_bias else [])]
    y = graph.add(
        "Conv", x, *map(graph.constant, weights),
        strides=layer.strides, dilations=layer.dilation_rate, group=groups, pads=_pads(layer),
    )  # fmt: skip
    return _activated(graph, layer, y)


def _conv_transpose(graph: _Graph, layer: keras.Layer, x: str) -> str:
    kernel = keras.ops.convert_to_numpy(layer.kernel).transpose(3, 2, 0, 1)
    weights = [kernel, *([layer.bias] if layer.use_bias else [])]
    y = graph.add("ConvTranspose", x, *map(graph.constant, weights), strides=layer.strides, pads=_pads(layer))
    return _activated(graph, layer, y)


def _pads(layer: keras.Layer) -> list[int]:
    """Pixels above, left, below and right, of an input whose sides are multiples of the strides."""
    if layer.padding != "same":
        return [0, 0, 0, 0]
    reach = [(size - 1) * rate for size, rate in zip(layer.kernel_size, layer.dilation_rate, strict=True)]
    total = [max(0, far + 1 - stride) for far, stride in zip(reach, layer.strides, strict=True)]
    return [size // 2 for size in total] + [size - size // 2 for size in total]


def _batch_norm(graph: _Graph, layer: keras.Layer, x: str) -> str:
    mean = layer.moving_mean
    gamma = layer.gamma if layer.scale else keras.ops.ones_like(mean)
    beta = layer.beta if layer.center else keras.ops.zeros_like(mean)
    weights = map(graph.constant, (gamma, beta, mean, layer.moving_variance))
    return graph.add("BatchNormalization", x, *weights, epsilon=layer.epsilon)


def _group_norm(graph: _Graph, layer: keras.Layer, x: str) -> str:
    weights = map(graph.constant, (layer.gamma, layer.beta))
    return graph.add("GroupNormalization", x, *weights, num_groups=layer.groups, epsilon=layer.epsilon)


def _relu(graph: _Graph, layer: keras.Layer, x: str) -> str:
    if layer.negative_slope or layer.threshold:
        raise _unknown(layer)
    x = graph.add("Relu", x)
    return x if layer.max_value is None else graph.add("Min", x, graph.constant(layer.max_value))


def _pool(graph: _Graph, layer: keras.Layer, x: str) -> str:
    if layer.padding != "valid":
        raise _unknown(layer)
    kind = "MaxPool" if isinstance(layer, layers.MaxPooling2D) else "AveragePool"
    return graph.add(kind, x, kernel_shape=layer.pool_size, strides=layer.strides)


def _up_sampling(graph: _Graph, layer: keras.Layer, x: str) -> str:
    scales = graph.constant([1, 1, *layer.size])
    if layer.interpolation == "nearest":
        return graph.add(
            "Resize", x, "", scales,
            mode="nearest", nearest_mode="floor", coordinate_transformation_mode="asymmetric",
        )  # fmt: skip
    if layer.interpolation == "bilinear":
        return graph.add("Resize", x, "", scales, mode="linear", coordinate_transformation_mode="half_pixel")
    raise _unknown(layer)


def _zero_padding(graph: _Graph, layer: keras.Layer, x: str) -> str:
    (top, bottom), (left, right) = layer.padding
    return graph.add("Pad", x, graph.constant([0, 0, top, left, 0, 0, bottom, right], np.int64))


def _by_channel(value: object) -> np.ndarray:
    """One number, or one a channel, so that it spreads over (B, C, H, W)."""
    return keras.ops.convert_to_numpy(value).reshape(1, -1, 1, 1)


def _rescaling(graph: _Graph, layer: keras.Layer, x: str) -> str:
    scaled = graph.add("Mul", x, graph.constant(_by_channel(layer.scale)))
    return graph.add("Add", scaled, graph.constant(_by_channel(layer.offset)))


def _normalization(graph: _Graph, layer: keras.Layer, x: str) -> str:
    if layer.invert:
        raise _unknown(layer)
    deviation = np.maximum(np.sqrt(_by_channel(layer.variance)), keras.config.epsilon())
    centred = graph.add("Sub", x, graph.constant(_by_channel(layer.mean)))
    return graph.add("Div", centred, graph.constant(deviation))


def _reshape(graph: _Graph, layer: keras.Layer, x: str) -> str:
    """Only of what was averaged over the image: (B, C) → (B, 1, 1, C), which is (B, C, 1, 1) here all along."""
    if len(layer.input.shape) != 2 or tuple(layer.target_shape) != (1, 1, layer.input.shape[-1]):
        raise _unknown(layer)
    return x


_WRITERS: dict[type, Callable[..., str]] = {
    layers.Conv2D: _conv,
    layers.DepthwiseConv2D: _conv,
    layers.Conv2DTranspose: _conv_transpose,
    layers.BatchNormalization: _batch_norm,
    layers.GroupNormalization: _group_norm,
    layers.ReLU: _relu,
    layers.MaxPooling2D: _pool,
    layers.AveragePooling2D: _pool,
    layers.UpSampling2D: _up_sampling,
    layers.ZeroPadding2D: _zero_padding,
    layers.Rescaling: _rescaling,
    layers.Normalization: _normalization,
    layers.Reshape: _reshape,
    layers.Activation: _activated,
    layers.Dropout: lambda graph, layer, x: x,
    layers.GlobalAveragePooling2D: lambda graph, layer, x: graph.add("GlobalAveragePool", x),
    layers.Add: lambda graph, layer, *xs: graph.add("Sum", *xs),
    layers.Multiply: lambda graph, layer, first, second: graph.add("Mul", first, second),
    layers.Concatenate: lambda graph, layer, *xs: graph.add("Concat", *xs, axis=1),
}

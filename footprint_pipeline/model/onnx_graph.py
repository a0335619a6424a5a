"""A Keras network as an ONNX graph, written layer by layer from what Keras tells of it.

What belongs here: what each kind of layer is in ONNX. Nothing is folded, so the graph reads as the network does; a
runtime folds by itself. Tensors are (B, C, H, W) inside and (B, H, W, C) at both ends. Files, and whether the graph
answers as Keras does, are `export`'s business.
"""

import functools
from collections.abc import Callable, Iterator
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
    """A network has a layer that cannot be exported."""


def onnx_model(model: keras.Model) -> onnx.ModelProto:
    """The network as ONNX, of any batch, height and width.

    Args:
        model: float32 (B, H, W, 3) → float32 (B, H, W, heads), from `build_unet`; its height and width are multiples
            of its stride.

    Raises:
        UnknownLayerError: it has a layer that is not known here, or is called more than once; names it.
    """
    graph = _Graph()
    names: dict[str, str] = {}
    for layer, told in zip(model.operations, model.get_config()["layers"], strict=True):
        if isinstance(layer, layers.InputLayer):
            names[layer.name] = graph.add("Transpose", IMAGE, perm=[0, 3, 1, 2])
        else:
            if len(told["inbound_nodes"]) != 1:  # it is called again, so that its name is no tensor's
                raise _unknown(layer)
            names[layer.name] = _written(graph, layer, *_arguments(told["inbound_nodes"][0]["args"], names))
    last = names[model.operations[-1].name]
    graph.nodes.append(helper.make_node("Transpose", [last], [PROBABILITY], PROBABILITY, perm=[0, 2, 3, 1]))
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

    def operand(self, value: object) -> str:
        """A tensor by its name; a number, or one a channel, becomes a constant that spreads over (B, C, H, W)."""
        return value if isinstance(value, str) else self.constant(_by_channel(value))

    def conv(self, x: str, kernel: np.ndarray, bias: object = None, **attributes: Any) -> str:
        """A convolution; the kernel is (H, W, channels, filters)."""
        weights = [kernel.transpose(3, 2, 0, 1), *([] if bias is None else [bias])]
        return self.add("Conv", x, *map(self.constant, weights), **attributes)


def _arguments(told: Any, names: dict[str, str]) -> Iterator[Any]:
    """What an operation was called with: tensors by their name in the graph, constants as arrays, the rest as it is."""
    for argument in told:
        match argument:
            case {"class_name": "__keras_tensor__", "config": {"keras_history": [layer, *_]}}:
                yield names[layer]
            case {"class_name": "__tensor__", "config": {"value": value}}:
                yield np.array(value)
            case list() | tuple():
                yield from _arguments(argument, names)
            case _:
                yield argument


def _written(graph: _Graph, layer: keras.Operation, *arguments: Any) -> str:
    write = _WRITERS.get(type(layer).__name__)
    if write is None:
        raise _unknown(layer)
    return write(graph, layer, *arguments)


def _unknown(layer: keras.Operation) -> UnknownLayerError:
    return UnknownLayerError(
        f"Layer {layer.name!r} ({type(layer).__name__}) cannot be exported.",
        fix="Train a network whose layers are our own or those of keras.applications.",
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
        case "hard_silu":
            return graph.add("HardSwish", x)
        case "gelu":
            return graph.add("Gelu", x)
    raise _unknown(layer)


def _conv(graph: _Graph, layer: keras.Layer, x: str) -> str:
    kernel = keras.ops.convert_to_numpy(layer.kernel)
    y = graph.conv(x, kernel, layer.bias, group=layer.groups, dilations=layer.dilation_rate, **_window(layer))
    return _activated(graph, layer, y)


def _depthwise_conv(graph: _Graph, layer: keras.Layer, x: str) -> str:
    kernel, channels = _of_each_channel(layer.kernel)
    y = graph.conv(x, kernel, layer.bias, group=channels, dilations=layer.dilation_rate, **_window(layer))
    return _activated(graph, layer, y)


def _separable_conv(graph: _Graph, layer: keras.Layer, x: str) -> str:
    kernel, channels = _of_each_channel(layer.depthwise_kernel)
    y = graph.conv(x, kernel, group=channels, dilations=layer.dilation_rate, **_window(layer))
    return _activated(graph, layer, graph.conv(y, keras.ops.convert_to_numpy(layer.pointwise_kernel), layer.bias))


def _of_each_channel(kernel: Any) -> tuple[np.ndarray, int]:
    """(H, W, channels, multiplier) → (H, W, 1, channels × multiplier), and the channels."""
    height, width, channels, multiplier = kernel.shape
    return keras.ops.convert_to_numpy(kernel).reshape(height, width, 1, channels * multiplier), channels


def _dense(graph: _Graph, layer: keras.Layer, x: str) -> str:
    """Of every pixel's channels, which is a convolution that sees one pixel."""
    if len(layer.input.shape) != 4:
        raise _unknown(layer)
    y = graph.conv(x, keras.ops.convert_to_numpy(layer.kernel)[None, None], layer.bias)
    return _activated(graph, layer, y)


def _conv_transpose(graph: _Graph, layer: keras.Layer, x: str) -> str:
    kernel = keras.ops.convert_to_numpy(layer.kernel).transpose(3, 2, 0, 1)
    weights = [kernel, *([layer.bias] if layer.use_bias else [])]
    beyond = [0, 0]
    if layer.padding == "same":
        beyond = [max(0, size - step) for size, step in zip(layer.kernel_size, layer.strides, strict=True)]
    pads = [size // 2 for size in beyond] + [size - size // 2 for size in beyond]
    y = graph.add("ConvTranspose", x, *map(graph.constant, weights), strides=layer.strides, pads=pads)
    return _activated(graph, layer, y)


def _window(layer: keras.Layer) -> dict[str, Any]:
    """How a window goes over the image, and whether beyond its edges."""
    if layer.padding == "same" and max(getattr(layer, "dilation_rate", (1, 1))) > 1:  # ONNX Runtime has no such thing
        raise _unknown(layer)
    return {"strides": layer.strides, "auto_pad": "SAME_UPPER" if layer.padding == "same" else "VALID"}


def _batch_norm(graph: _Graph, layer: keras.Layer, x: str) -> str:
    mean = layer.moving_mean
    gamma = layer.gamma if layer.scale else keras.ops.ones_like(mean)
    beta = layer.beta if layer.center else keras.ops.zeros_like(mean)
    weights = map(graph.constant, (gamma, beta, mean, layer.moving_variance))
    return graph.add("BatchNormalization", x, *weights, epsilon=layer.epsilon)


def _group_norm(graph: _Graph, layer: keras.Layer, x: str) -> str:
    weights = map(graph.constant, (layer.gamma, layer.beta))
    return graph.add("GroupNormalization", x, *weights, num_groups=layer.groups, epsilon=layer.epsilon)


def _layer_norm(graph: _Graph, layer: keras.Layer, x: str) -> str:
    weights = map(graph.constant, (layer.gamma, layer.beta))
    x = graph.add("Transpose", x, perm=[0, 2, 3, 1])
    y = graph.add("LayerNormalization", x, *weights, epsilon=layer.epsilon)
    return graph.add("Transpose", y, perm=[0, 3, 1, 2])


def _relu(graph: _Graph, layer: keras.Layer, x: str) -> str:
    if layer.negative_slope or layer.threshold:
        raise _unknown(layer)
    x = graph.add("Relu", x)
    return x if layer.max_value is None else graph.add("Min", x, graph.constant(layer.max_value))


def _pool(graph: _Graph, layer: keras.Layer, x: str) -> str:
    kind = "MaxPool" if isinstance(layer, layers.MaxPooling2D) else "AveragePool"
    return graph.add(kind, x, kernel_shape=layer.pool_size, **_window(layer))


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


def _by(kind: str) -> Callable[..., str]:
    def write(graph: _Graph, layer: keras.Operation, *values: Any) -> str:
        return functools.reduce(lambda one, other: graph.add(kind, one, other), map(graph.operand, values))

    return write


def _band(graph: _Graph, layer: keras.Operation, x: str, *key: Any) -> str:
    """`x[..., number]`; here the band stays a dimension, so that bands are stacked along it."""
    match key:
        case ({"class_name": "__ellipsis__"}, int(number)):
            return graph.add("Gather", x, graph.constant([number], np.int64), axis=1)
    raise _unknown(layer)


def _sequence(graph: _Graph, layer: keras.Sequential, x: str) -> str:
    return functools.reduce(lambda y, inner: _written(graph, inner, y), layer.layers, x)


_WRITERS: dict[str, Callable[..., str]] = {
    "Conv2D": _conv,
    "DepthwiseConv2D": _depthwise_conv,
    "SeparableConv2D": _separable_conv,
    "Conv2DTranspose": _conv_transpose,
    "Dense": _dense,
    "BatchNormalization": _batch_norm,
    "GroupNormalization": _group_norm,
    "LayerNormalization": _layer_norm,
    "LayerScale": lambda graph, layer, x: graph.add("Mul", x, graph.operand(layer.gamma)),
    "ReLU": _relu,
    "Activation": _activated,
    "MaxPooling2D": _pool,
    "AveragePooling2D": _pool,
    "GlobalAveragePooling2D": lambda graph, layer, x: graph.add("GlobalAveragePool", x),
    "UpSampling2D": _up_sampling,
    "ZeroPadding2D": _zero_padding,
    "Rescaling": _rescaling,
    "Normalization": _normalization,
    "Reshape": _reshape,
    "Dropout": lambda graph, layer, x: x,
    "Add": _by("Add"),
    "Multiply": _by("Mul"),
    "GetItem": _band,
    "Stack": lambda graph, layer, *xs: graph.add("Concat", *xs, axis=1),
    "Concatenate": lambda graph, layer, *xs: graph.add("Concat", *xs, axis=1),
    "Sequential": _sequence,
}
"""By the name of the class, for `keras.layers.Add` and `keras.ops.add` are one thing here."""

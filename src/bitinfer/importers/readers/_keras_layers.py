"""The layers of Keras 2 and Larq, each in the words of foreign.OPERATIONS.

Source: tf_keras/src/layers, larq/layers.py, larq/layers_base.py.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from bitinfer.bits import Floats
from bitinfer.errors import CheckpointError, ConversionError
from bitinfer.files import one_line
from bitinfer.importers.readers import _larq_quantizers as quantizers
from bitinfer.importers.readers import _larq_zoo
from bitinfer.importers.readers._graph_draft import Shape
from bitinfer.importers.readers._keras_graph import KerasGraph, Layer
from bitinfer.importers.readers._keras_lambda import is_identity
from bitinfer.importers.readers._tensorflow import window

Handler = Callable[[KerasGraph, Layer, str, tuple[str, ...]], str]


def write(graph: KerasGraph, layer: Layer, name: str, inputs: tuple[str, ...]) -> tuple[str, ...]:
    """Write a layer; returns the names of its values, of which nearly all layers have one."""
    if not inputs:
        raise CheckpointError("it reads nothing")
    if layer.kind == "Lambda" and (found := _larq_zoo.write(graph, layer, name, inputs)):
        return found
    handler = _HANDLERS.get(layer.kind)
    if handler is None:
        raise ConversionError("there is no such layer here")
    if layer.config.get("data_format", "channels_last") != "channels_last":
        raise ConversionError("channels_first: only channels_last is read")
    return (handler(graph, layer, name, inputs),)


# --- Layers with weights -------------------------------------------------------------------------


def _quantised(graph: KerasGraph, layer: Layer, name: str, x: str) -> str:
    """Apply the layer's input quantizer."""
    return _quantise(graph, quantizers.require(layer.config.get("input_quantizer")), name, x)


def _quantise(graph: KerasGraph, quantizer: quantizers.Quantizer, name: str, x: str) -> str:
    if quantizer.is_nothing:
        return x
    step, shape = quantizers.activation(quantizer), graph.shapes[x]
    if step.threshold:
        shift = graph.make_constant(f"{name}/threshold", np.float32(step.threshold))
        x = graph.add(f"{name}/margin", "subtract", (x, shift), shape)
    levels = {"at_zero": step.at_zero, "low": step.low, "high": step.high}
    return graph.add(f"{name}/sign", "sign", (x,), shape, **levels)


def _kernel(graph: KerasGraph, layer: Layer, part: str, position: int, shape: Shape) -> Floats:
    quantizer = quantizers.require(layer.config.get(f"{part}_quantizer"))
    weight = graph.weight(
        layer, "kernel" if part == "kernel" else f"{part}_kernel", position, shape
    )
    return quantizers.kernel(quantizer, weight)


def _bias(graph: KerasGraph, layer: Layer, name: str, position: int, count: int) -> tuple[str, ...]:
    if not layer.config.get("use_bias", True):
        return ()
    return (graph.make_constant(f"{name}/bias", graph.weight(layer, "bias", position, (count,))),)


def _map(graph: KerasGraph, x: str) -> Shape:
    shape = graph.shapes[x]
    if len(shape) != 3:
        raise CheckpointError(f"an input of shape {shape}, wanted (H, W, C)")
    return shape


def _convolve(
    graph: KerasGraph,
    layer: Layer,
    name: str,
    x: str,
    weight: Floats,
    bias: tuple[str, ...],
    *,
    groups: int,
    is_first: bool = True,
) -> str:
    """Write a convolution with ``weight`` (kh, kw, Cin / groups, Cout)."""
    height, width, _ = _map(graph, x)
    kernel = (weight.shape[0], weight.shape[1])
    strides = layer.pair("strides") if is_first else (1, 1)
    dilation = layer.pair("dilation_rate") if is_first else (1, 1)
    how = layer.config.get("padding", "valid") if is_first else "valid"
    pads, out = window((height, width), kernel, strides, dilation, str(how))
    return graph.add(
        name,
        "conv",
        (x, graph.make_constant(f"{name}/kernel", weight), *bias),
        (*out, weight.shape[3]),
        axes="HWIO",
        strides=strides,
        pads=pads,
        dilations=dilation,
        groups=groups,
        pad_value=float(layer.config.get("pad_values", 0.0)),
        counts="sums",
    )


def _conv(graph: KerasGraph, layer: Layer, name: str, inputs: tuple[str, ...]) -> str:
    x = _quantised(graph, layer, name, inputs[0])
    channels, filters, groups = _map(graph, x)[2], layer.number("filters"), layer.number("groups")
    if groups < 1 or channels % groups:
        raise CheckpointError(f"{groups} groups of {channels} channels")
    shape = (*layer.pair("kernel_size"), channels // groups, filters)
    weight = _kernel(graph, layer, "kernel", 0, shape)
    bias = _bias(graph, layer, name, 1, filters)
    return _activate(graph, layer, _convolve(graph, layer, name, x, weight, bias, groups=groups))


def _depthwise_weight(graph: KerasGraph, layer: Layer, channels: int) -> Floats:
    """Return a depthwise kernel (kh, kw, C, multiplier) as one of C groups."""
    shape = (*layer.pair("kernel_size"), channels, layer.number("depth_multiplier"))
    weight = _kernel(graph, layer, "depthwise", 0, shape)
    return weight.reshape(shape[0], shape[1], 1, channels * shape[3])


def _depthwise(graph: KerasGraph, layer: Layer, name: str, inputs: tuple[str, ...]) -> str:
    x = _quantised(graph, layer, name, inputs[0])
    channels = _map(graph, x)[2]
    weight = _depthwise_weight(graph, layer, channels)
    bias = _bias(graph, layer, name, 1, weight.shape[3])
    return _activate(graph, layer, _convolve(graph, layer, name, x, weight, bias, groups=channels))


def _separable(graph: KerasGraph, layer: Layer, name: str, inputs: tuple[str, ...]) -> str:
    x = _quantised(graph, layer, name, inputs[0])
    channels, filters = _map(graph, x)[2], layer.number("filters")
    weight = _depthwise_weight(graph, layer, channels)
    x = _convolve(graph, layer, f"{name}/depthwise", x, weight, (), groups=channels)
    point = _kernel(graph, layer, "pointwise", 1, (1, 1, weight.shape[3], filters))
    bias = _bias(graph, layer, name, 2, filters)
    x = _convolve(graph, layer, name, x, point, bias, groups=1, is_first=False)
    return _activate(graph, layer, x)


def _dense(graph: KerasGraph, layer: Layer, name: str, inputs: tuple[str, ...]) -> str:
    x = _quantised(graph, layer, name, inputs[0])
    shape, units = graph.shapes[x], layer.number("units")
    weight = _kernel(graph, layer, "kernel", 0, (shape[-1], units))
    bias = _bias(graph, layer, name, 1, units)
    if len(shape) == 3:
        weight = weight.reshape(1, 1, *weight.shape)
        value = _convolve(graph, layer, name, x, weight, bias, groups=1, is_first=False)
    else:
        constant = graph.make_constant(f"{name}/kernel", weight)
        value = graph.add(name, "dense", (x, constant, *bias), (units,), axes="IO", counts="sums")
    return _activate(graph, layer, value)


def _batch_norm(graph: KerasGraph, layer: Layer, name: str, inputs: tuple[str, ...]) -> str:
    shape = graph.shapes[inputs[0]]
    axis = layer.config.get("axis", -1)
    axis = axis[0] if isinstance(axis, list) and len(axis) == 1 else axis
    if not isinstance(axis, int) or axis % (len(shape) + 1) != len(shape):
        raise ConversionError(
            f"along the axis {one_line(axis)}, wanted the channels, which are last"
        )
    parts, position = {}, 0
    for part, flag in (
        ("gamma", "scale"),
        ("beta", "center"),
        ("moving_mean", ""),
        ("moving_variance", ""),
    ):
        parts[part] = ""
        if not flag or layer.config.get(flag, True):
            value = graph.weight(layer, part, position, shape[-1:])
            parts[part] = graph.make_constant(f"{name}/{part}", value)
            position += 1
    epsilon = float(layer.config.get("epsilon", 1e-3))
    return graph.add(name, "batch_norm", (inputs[0], *parts.values()), shape, epsilon=epsilon)


def _prelu(graph: KerasGraph, layer: Layer, name: str, inputs: tuple[str, ...]) -> str:
    slope = graph.make_constant(f"{name}/alpha", graph.weight(layer, "alpha", 0))
    return graph.add(name, "prelu", (inputs[0], slope), graph.shapes[inputs[0]])


# --- Activations ---------------------------------------------------------------------------------


def _activate(graph: KerasGraph, layer: Layer, x: str) -> str:
    """Apply the activation of a layer with weights."""
    return _activation(graph, layer.config.get("activation"), f"{x}/activation", x)


def _activation(graph: KerasGraph, value: Any, name: str, x: str) -> str:
    quantizer = quantizers.find(value)
    if quantizer is not None:
        return _quantise(graph, quantizer, name, x)
    word = value.get("class_name") if isinstance(value, dict) else value
    shape = graph.shapes[x]
    match word:
        case "relu" | "sigmoid" | "tanh":
            return graph.add(name, word, (x,), shape)
        case "softmax" if len(shape) == 1:
            return graph.add(name, "softmax", (x,), shape)
        case "relu6":
            return graph.add(name, "clip", (x,), shape, low=0.0, high=6.0)
        case "hard_tanh":
            return graph.add(name, "clip", (x,), shape, low=-1.0, high=1.0)
        case "hard_sigmoid":
            slope = graph.make_constant(f"{name}/slope", np.float32(0.2))
            half = graph.make_constant(f"{name}/half", np.float32(0.5))
            x = graph.add(f"{name}/scaled", "multiply", (x, slope), shape)
            x = graph.add(f"{name}/shifted", "add", (x, half), shape)
            return graph.add(name, "clip", (x,), shape, low=0.0, high=1.0)
    raise ConversionError(f"the activation {one_line(word)} is not there")


def _activation_layer(graph: KerasGraph, layer: Layer, name: str, inputs: tuple[str, ...]) -> str:
    return _activation(graph, layer.config.get("activation"), name, inputs[0])


def _quantizer_layer(graph: KerasGraph, layer: Layer, name: str, inputs: tuple[str, ...]) -> str:
    value = {"class_name": layer.kind, "config": layer.config}
    return _quantise(graph, quantizers.require(value), name, inputs[0])


def _softmax_layer(graph: KerasGraph, layer: Layer, name: str, inputs: tuple[str, ...]) -> str:
    return _activation(graph, "softmax", name, inputs[0])


def _relu(graph: KerasGraph, layer: Layer, name: str, inputs: tuple[str, ...]) -> str:
    x, shape, config = inputs[0], graph.shapes[inputs[0]], layer.config
    highest, slope = config.get("max_value"), config.get("negative_slope") or 0.0
    if config.get("threshold") or (slope and highest is not None):
        raise ConversionError("a ReLU with a threshold, or a slope and a maximum")
    if slope:
        return _leaky(graph, name, x, slope)
    high = math.inf if highest is None else float(highest)
    return graph.add(name, "clip", (x,), shape, low=0.0, high=high)


def _leaky_relu(graph: KerasGraph, layer: Layer, name: str, inputs: tuple[str, ...]) -> str:
    slope = layer.config.get("alpha", layer.config.get("negative_slope", 0.3))
    return _leaky(graph, name, inputs[0], slope)


def _leaky(graph: KerasGraph, name: str, x: str, slope: Any) -> str:
    constant = graph.make_constant(f"{name}/slope", np.float32(slope))
    return graph.add(name, "prelu", (x, constant), graph.shapes[x])


# --- Maps ----------------------------------------------------------------------------------------


def _pool(word: str) -> Handler:
    def handler(graph: KerasGraph, layer: Layer, name: str, inputs: tuple[str, ...]) -> str:
        height, width, channels = _map(graph, inputs[0])
        kernel = layer.pair("pool_size", (2, 2))
        strides = kernel if layer.config.get("strides") is None else layer.pair("strides")
        how = str(layer.config.get("padding", "valid"))
        pads, out = window((height, width), kernel, strides, (1, 1), how)
        more = {"count_include_pad": 0} if word == "avg_pool" else {}
        shape = (*out, channels)
        return graph.add(
            name, word, inputs, shape, kernel=kernel, strides=strides, pads=pads, **more
        )

    return handler


def _global_pool(word: str) -> Handler:
    def handler(graph: KerasGraph, layer: Layer, name: str, inputs: tuple[str, ...]) -> str:
        channels = _map(graph, inputs[0])[2]
        if layer.config.get("keepdims"):
            return graph.add(name, word, inputs, (1, 1, channels))
        x = graph.add(f"{name}/map", word, inputs, (1, 1, channels))
        return graph.add(name, "flatten", (x,), (channels,))

    return handler


def _flatten(graph: KerasGraph, layer: Layer, name: str, inputs: tuple[str, ...]) -> str:
    return graph.add(name, "flatten", inputs, (math.prod(graph.shapes[inputs[0]]),))


def _reshape(graph: KerasGraph, layer: Layer, name: str, inputs: tuple[str, ...]) -> str:
    size = math.prod(graph.shapes[inputs[0]])
    shape = tuple(int(n) for n in layer.config.get("target_shape", ()))
    known = math.prod(n for n in shape if n != -1)
    shape = tuple(size // known if n == -1 else n for n in shape)
    return graph.add(name, "reshape", inputs, shape, shape=shape)


def _zero_padding(graph: KerasGraph, layer: Layer, name: str, inputs: tuple[str, ...]) -> str:
    height, width, channels = _map(graph, inputs[0])
    (top, bottom), (left, right) = layer.config.get("padding", ((1, 1), (1, 1)))
    shape = (height + top + bottom, width + left + right, channels)
    pads = (top, bottom, left, right)
    return graph.add(name, "pad", inputs, shape, axes=(0, 1), pads=pads, value=0.0)


def _concatenate(graph: KerasGraph, layer: Layer, name: str, inputs: tuple[str, ...]) -> str:
    axis = layer.number("axis", -1)
    if axis not in (-1, len(graph.shapes[inputs[0]])):
        raise ConversionError(f"along the axis {axis}, wanted the channels, which are last")
    return graph.join(name, inputs)


# --- Element by element --------------------------------------------------------------------------


def _pairwise(word: str) -> Handler:
    def handler(graph: KerasGraph, layer: Layer, name: str, inputs: tuple[str, ...]) -> str:
        first, *others = inputs
        for i, other in enumerate(others):
            result = name if i == len(others) - 1 else f"{name}/{i}"
            shape = np.broadcast_shapes(graph.shapes[first], graph.shapes[other])
            first = graph.add(result, word, (first, other), shape)
        return first

    return handler


_OPERATORS = {
    **dict.fromkeys(("__operators__.add", "math.add"), "add"),
    **dict.fromkeys(("__operators__.sub", "math.subtract"), "subtract"),
    **dict.fromkeys(("__operators__.mul", "math.multiply"), "multiply"),
}
"""TensorFlow's functions of two values, as Keras names them where Python's + joins layers."""


def _operator(graph: KerasGraph, layer: Layer, name: str, inputs: tuple[str, ...]) -> str:
    function = layer.config.get("function")
    word = _OPERATORS.get(function) if isinstance(function, str) else None
    if word is None or len(inputs) != 2:
        raise ConversionError(f"the function {one_line(function)} is not read, or not of numbers")
    return _pairwise(word)(graph, layer, name, inputs)


def _rescaling(graph: KerasGraph, layer: Layer, name: str, inputs: tuple[str, ...]) -> str:
    shape = graph.shapes[inputs[0]]
    scale = graph.make_constant(f"{name}/scale", np.float32(layer.config.get("scale", 1.0)))
    offset = graph.make_constant(f"{name}/offset", np.float32(layer.config.get("offset", 0.0)))
    x = graph.add(f"{name}/scaled", "multiply", (inputs[0], scale), shape)
    return graph.add(name, "add", (x, offset), shape)


def _same(graph: KerasGraph, layer: Layer, name: str, inputs: tuple[str, ...]) -> str:
    """Leave out what changes nothing when a network runs."""
    return inputs[0]


def _lambda(graph: KerasGraph, layer: Layer, name: str, inputs: tuple[str, ...]) -> str:
    if not is_identity(layer.config):
        raise ConversionError(
            "it is Python code, which is not run: lambda x: x is read, and those of Larq Zoo"
        )
    return inputs[0]


_HANDLERS: Mapping[str, Handler] = {
    "QuantConv2D": _conv,
    "Conv2D": _conv,
    "QuantDepthwiseConv2D": _depthwise,
    "DepthwiseConv2D": _depthwise,
    "QuantSeparableConv2D": _separable,
    "SeparableConv2D": _separable,
    "QuantDense": _dense,
    "Dense": _dense,
    "BatchNormalization": _batch_norm,
    "BatchNormalizationV1": _batch_norm,
    "PReLU": _prelu,
    "Activation": _activation_layer,
    "Softmax": _softmax_layer,
    "ReLU": _relu,
    "LeakyReLU": _leaky_relu,
    "SteSign": _quantizer_layer,
    "ApproxSign": _quantizer_layer,
    "SwishSign": _quantizer_layer,
    "SteHeaviside": _quantizer_layer,
    "SteTern": _quantizer_layer,
    "DoReFa": _quantizer_layer,
    "NoOp": _quantizer_layer,
    "MaxPooling2D": _pool("max_pool"),
    "AveragePooling2D": _pool("avg_pool"),
    "GlobalMaxPooling2D": _global_pool("global_max_pool"),
    "GlobalAveragePooling2D": _global_pool("global_avg_pool"),
    "Flatten": _flatten,
    "Reshape": _reshape,
    "ZeroPadding2D": _zero_padding,
    "Concatenate": _concatenate,
    "Add": _pairwise("add"),
    "Subtract": _pairwise("subtract"),
    "Multiply": _pairwise("multiply"),
    "Maximum": _pairwise("maximum"),
    "Rescaling": _rescaling,
    "Lambda": _lambda,
    "TFOpLambda": _operator,
    "Dropout": _same,
    "SpatialDropout2D": _same,
    "GaussianNoise": _same,
    "GaussianDropout": _same,
    "ActivityRegularization": _same,
}
"""By class, what writes it."""

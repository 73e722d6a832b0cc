"""The shape rule of every node: what it wants of its inputs and tensors, and what value it makes.

What is not checked here is not checked at all: backends rely on it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from bitinfer import numerics
from bitinfer.errors import GraphError, ShapeError
from bitinfer.graph import checks, nodes
from bitinfer.graph.checks import Tensors, Value
from bitinfer.graph.nodes import Layer, Node

Values = Mapping[str, Value]


def infer_node(node: Node, values: Values, tensors: Tensors) -> tuple[Value, ...]:
    """Return the values that ``node`` makes, in the order of nodes.node_values.

    Raises:
        GraphError, ShapeError: something does not fit; the message names the node.
    """
    try:
        if isinstance(node, Layer):
            return _layer(node, values, tensors)
        return (_other(node, values, tensors),)
    except ShapeError as error:
        raise ShapeError(f"node {node.name!r} ({node.__struct_config__.tag}): {error}") from None
    except GraphError as error:
        raise GraphError(f"node {node.name!r} ({node.__struct_config__.tag}): {error}") from None


def _layer(node: Layer, values: Values, tensors: Tensors) -> tuple[Value, ...]:
    source = values[node.input]
    if isinstance(node, nodes.Conv2d | nodes.BinaryConv2d):
        shape = _conv(node, source, values, tensors)
    else:
        shape = _dense(node, source, values, tensors)
    checks.check_floats(tensors, node.alpha, (shape[-1],))
    checks.check_floats(tensors, node.bias, (shape[-1],))
    return _epilogue(node, source, shape, values, tensors)


def _conv(
    node: nodes.Conv2d | nodes.BinaryConv2d, source: Value, values: Values, tensors: Tensors
) -> tuple[int, ...]:
    is_binary = isinstance(node, nodes.BinaryConv2d)
    checks.want_kind(source, *(("sign",) if is_binary else ("float", "uint8", "int8")))
    checks.want_rank(source, 3)
    height, width, channels = source.shape
    weight = tensors[node.weight]
    if weight.ndim != 4:
        raise ShapeError(f"weight has shape {weight.shape}, wanted (Cout, kh, kw, ...)")
    cout, kh, kw, _ = weight.shape
    if node.groups < 1 or channels % node.groups or cout % node.groups:
        raise ShapeError(
            f"{node.groups} groups do not divide {channels} input and {cout} output channels"
        )
    _check_weight(node, source, weight, (cout, kh, kw), channels // node.groups)
    out = checks.window_output((height, width), (kh, kw), node.stride, node.padding, node.dilation)
    checks.check_padded(source.shape, node.padding)
    if isinstance(node, nodes.BinaryConv2d):
        if node.pad_value not in (-1, 0, 1):
            raise ShapeError(f"pad_value is {node.pad_value}, wanted -1, 0 or 1")
        _check_beta(node.beta, values, (*out, node.groups))
    elif node.offset is not None:
        if not source.is_integer or weight.dtype == np.float32:
            raise GraphError("an offset wants uint8 or int8 values and weights that are not float")
        checks.check_floats(tensors, node.offset, (channels,))
        checks.check_floats(tensors, node.alpha, (cout,))
        alpha = None if node.alpha is None else tensors[node.alpha]
        checks.check_offset(weight, channels // node.groups, tensors[node.offset], alpha)
    return (*out, cout)


def _dense(
    node: nodes.Dense | nodes.BinaryDense, source: Value, values: Values, tensors: Tensors
) -> tuple[int, ...]:
    is_binary = isinstance(node, nodes.BinaryDense)
    checks.want_kind(source, *(("sign",) if is_binary else ("float", "uint8", "int8")))
    checks.want_rank(source, 1)
    weight = tensors[node.weight]
    if weight.ndim != 2:
        raise ShapeError(f"weight has shape {weight.shape}, wanted two axes, (Cout, ...)")
    _check_weight(node, source, weight, weight.shape[:1], source.shape[0])
    if isinstance(node, nodes.BinaryDense):
        _check_beta(node.beta, values, (1,))
    return weight.shape[:1]


def _check_weight(
    node: Layer, source: Value, weight: np.ndarray, leading: tuple[int, ...], channels: int
) -> None:
    length = math.prod(leading[1:]) * channels
    if isinstance(node, nodes.BinaryConv2d | nodes.BinaryDense):
        checks.check_signs(node.weight, weight, leading, channels)
        checks.check_reduction(length)
    elif weight.dtype == np.uint64:
        checks.check_signs(node.weight, weight, leading, channels)
    else:
        checks.check_numbers(node.weight, weight, (*leading, channels))
    if source.is_integer:
        if weight.dtype == np.float32:
            raise GraphError(f"a {source.kind} value wants weights that are not float32")
        checks.check_sums(node.weight, weight, length, source.kind)


def _check_beta(name: str | None, values: Values, shape: tuple[int, ...]) -> None:
    if name is not None:
        checks.want_value("beta map", name, values[name], Value("float", shape))


def _epilogue(
    node: Layer, source: Value, shape: tuple[int, ...], values: Values, tensors: Tensors
) -> tuple[Value, ...]:
    e = node.epilogue
    if e is None:
        return (Value("float", shape),)
    channels = shape[-1:]
    checks.check_floats(tensors, e.floor, channels)
    if e.residual is not None:
        checks.want_value("residual", e.residual, values[e.residual], Value("float", shape))
    if e.activation is not None:
        _check_activation(e.activation, channels, tensors)
    checks.check_flags(tensors, e.flip, channels)
    if e.threshold is None:
        if e.flip is not None or e.signs is not None:
            raise GraphError("the epilogue has flip or signs, but no threshold")
        return (Value("float", shape),)
    if tensors[e.threshold].dtype == np.int32:
        if source.kind == "float":
            raise GraphError("an integer threshold wants an integer sum, but the input is float")
        if isinstance(node, nodes.Conv2d) and node.offset is not None:
            raise GraphError("an integer threshold cannot be compared where there is an offset")
        others = (node.alpha, node.bias, e.floor, e.residual, e.activation, e.signs)
        beta = node.beta if isinstance(node, nodes.BinaryConv2d | nodes.BinaryDense) else None
        if any(part is not None for part in (*others, beta)):
            raise GraphError("an integer threshold leaves no room for anything else but flip")
        checks.check_floats(tensors, e.threshold, channels, np.int32)
        return (Value("sign", shape),)
    threshold = tensors[e.threshold]
    if threshold.dtype != np.float32 or threshold.shape != channels or np.isnan(threshold).any():
        raise ShapeError(
            f"threshold {e.threshold!r} is {threshold.dtype} of shape {threshold.shape}, wanted "
            f"float32 or int32 of {channels}, without NaN"
        )
    sign = Value("sign", shape)
    return (sign,) if e.signs is None else (Value("float", shape), sign)


def _check_activation(a: nodes.Activation, shape: tuple[int, ...], tensors: Tensors) -> None:
    wanted = {
        "prelu": (False, True, False),
        "rprelu": (True, True, True),
    }.get(a.kind, (False, False, False))
    if tuple(part is not None for part in (a.shift_in, a.slope, a.shift_out)) != wanted:
        raise GraphError(f"the activation {a.kind} has other tensors than it wants")
    for name in (a.shift_in, a.slope, a.shift_out):
        checks.check_floats(tensors, name, shape)
    if a.kind == "clip":
        _check_range(a.low, a.high)


def _check_range(low: float, high: float) -> None:
    if not (math.isfinite(low) and math.isfinite(high) and low <= high):
        raise ShapeError(f"clip between {low} and {high}: wanted finite numbers in this order")
    if max(abs(low), abs(high)) > float(np.finfo(np.float32).max):
        raise ShapeError(f"clip between {low} and {high}: too large for float32")


def _other(node: Node, values: Values, tensors: Tensors) -> Value:
    source = values[node.input]
    match node:
        case nodes.MaxPool2d() | nodes.AvgPool2d():
            return _pool(node, source, tensors)
        case nodes.Flatten():
            checks.want_kind(source, "float", "sign")
            return Value(source.kind, (math.prod(source.shape),))
        case nodes.Sign():
            if node.threshold is not None and np.isnan(tensors[node.threshold]).any():
                raise ShapeError(f"threshold {node.threshold!r} holds NaN")
            _check_threshold(node, source, tensors)
            return Value("sign", source.shape)
        case nodes.Pad2d():
            return _pad(node, source)
        case _:
            checks.want_kind(source, "float")
            return _float_node(node, source, values, tensors)


def _check_threshold(node: nodes.Sign, source: Value, tensors: Tensors) -> None:
    checks.want_kind(source, "float", "uint8", "int8")
    channels = source.shape[-1:]
    if node.threshold is not None:
        threshold = tensors[node.threshold]
        if threshold.dtype != np.float32 or threshold.shape != channels:
            raise ShapeError(
                f"threshold {node.threshold!r} is {threshold.dtype} of shape {threshold.shape}, "
                f"wanted float32 of {channels}"
            )
    checks.check_flags(tensors, node.flip, channels)


def _float_node(node: Node, source: Value, values: Values, tensors: Tensors) -> Value:
    """Return the value of a node that reads a float value."""
    channels = source.shape[-1]
    match node:
        case nodes.BetaMap():
            return _beta_map(node, source)
        case nodes.Quantize():
            if not 1e-30 <= node.scale <= 1e30:
                raise ShapeError(f"scale is {node.scale}, wanted 1e-30 to 1e30")
            return Value("int8", source.shape)
        case nodes.BatchNorm():
            _check_batch_norm(node, channels, tensors)
        case nodes.Clip():
            _check_range(node.low, node.high)
        case nodes.PRelu():
            checks.check_floats(tensors, node.slope, (channels,))
        case nodes.RPRelu():
            for name in (node.shift_in, node.slope, node.shift_out):
                checks.check_floats(tensors, name, (channels,))
        case nodes.Add() | nodes.Multiply():
            if values[node.other] != Value("float", (channels,)):
                checks.want_value("other", node.other, values[node.other], source)
        case nodes.Concat():
            return _concat(node, source, values)
        case nodes.SliceChannels():
            if not 0 <= node.begin < node.end <= channels:
                raise ShapeError(f"channels {node.begin} to {node.end} of {channels}")
            return Value("float", (*source.shape[:-1], node.end - node.begin))
        case nodes.ShuffleChannels():
            if node.groups < 1 or channels % node.groups:
                raise ShapeError(f"{node.groups} groups do not divide {channels} channels")
        case nodes.GlobalPool2d():
            checks.want_rank(source, 3)
            return Value("float", (channels,))
        case nodes.Reshape():
            if len(node.shape) not in (1, 3) or math.prod(node.shape) != math.prod(source.shape):
                raise ShapeError(
                    f"{source.shape} cannot become {node.shape}: wanted (H, W, C) or (C,) with as "
                    "many elements"
                )
            return Value("float", node.shape)
        case nodes.Softmax():
            checks.want_rank(source, 1)
    return source


def _beta_map(node: nodes.BetaMap, source: Value) -> Value:
    if node.groups < 1 or source.shape[-1] % node.groups:
        raise ShapeError(f"{node.groups} groups do not divide {source.shape[-1]} channels")
    if len(source.shape) == 1:
        if node != nodes.BetaMap(name=node.name, input=node.input):
            raise ShapeError("a vector has one scale: kernel, stride and the rest must be default")
        return Value("float", (1,))
    height, width, _ = source.shape
    out = checks.window_output(
        (height, width), node.kernel, node.stride, node.padding, node.dilation
    )
    checks.check_padded(source.shape, node.padding)
    return Value("float", (*out, node.groups))


def _pool(node: nodes.MaxPool2d | nodes.AvgPool2d, source: Value, tensors: Tensors) -> Value:
    is_max = isinstance(node, nodes.MaxPool2d)
    checks.want_kind(source, *(("float", "sign") if is_max else ("float",)))
    checks.want_rank(source, 3)
    height, width, channels = source.shape
    out = checks.window_output((height, width), node.kernel, node.stride, node.padding)
    checks.check_padded(source.shape, node.padding)
    for index, pad in enumerate(node.padding):
        if pad >= node.kernel[index // 2]:
            raise ShapeError(
                f"padding {node.padding} is not smaller than kernel {node.kernel}: "
                "a window would lie outside the map"
            )
    if isinstance(node, nodes.MaxPool2d) and node.minimum is not None:
        checks.want_kind(source, "sign")
        checks.check_flags(tensors, node.minimum, (channels,))
    return Value(source.kind, (*out, channels))


def _pad(node: nodes.Pad2d, source: Value) -> Value:
    checks.want_kind(source, "float", "sign")
    checks.want_rank(source, 3)
    if source.kind == "sign" and node.value not in (-1, 1):
        raise ShapeError(f"signs cannot be padded with {node.value}, wanted -1 or 1")
    if not abs(node.value) <= float(np.finfo(np.float32).max):
        raise ShapeError(f"value is {node.value}, wanted a finite float32 number")
    if not all(0 <= v <= checks.MAX_EXTENT for v in node.padding):
        raise ShapeError(f"padding {node.padding} is not within 0 to {checks.MAX_EXTENT}")
    checks.check_padded(source.shape, node.padding)
    top, bottom, left, right = node.padding
    height, width, channels = source.shape
    return Value(source.kind, (height + top + bottom, width + left + right, channels))


def _concat(node: nodes.Concat, source: Value, values: Values) -> Value:
    channels = source.shape[-1]
    for name in node.others:
        other = values[name]
        if other.kind != "float" or other.shape[:-1] != source.shape[:-1]:
            raise ShapeError(
                f"{name!r} is {other.kind} of shape {other.shape}, wanted float with the height "
                f"and width of {source.shape}"
            )
        channels += other.shape[-1]
    return Value("float", (*source.shape[:-1], channels))


def _check_batch_norm(node: nodes.BatchNorm, channels: int, tensors: Tensors) -> None:
    for name in (node.mean, node.variance, node.gamma, node.beta):
        checks.check_floats(tensors, name, (channels,))
    if not (math.isfinite(node.epsilon) and node.epsilon >= 0):
        raise ShapeError(f"epsilon is {node.epsilon}, wanted a finite number of at least 0")
    smallest = float(np.min(tensors[node.variance])) + node.epsilon
    if not smallest >= 1e-30:
        raise ShapeError(f"variance + epsilon is {smallest} in some channel, wanted above 1e-30")
    affine = numerics.batch_norm_affine(
        tensors[node.mean],
        tensors[node.variance],
        None if node.gamma is None else tensors[node.gamma],
        None if node.beta is None else tensors[node.beta],
        node.epsilon,
    )
    if not all(np.isfinite(part).all() for part in affine):
        raise ShapeError("the scale or shift of some channel is too large for float32")

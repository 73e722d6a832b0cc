"""The nodes that have weights, and the epilogue that passes fuse into them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Literal

import numpy as np

from bitinfer.errors import GraphError, ShapeError
from bitinfer.graph import checks
from bitinfer.graph.checks import Kind, Known, Tensors, Value
from bitinfer.graph.nodes.activations import Activation
from bitinfer.graph.nodes.base import (
    NO_PADDING,
    BaseNode,
    ChannelFlags,
    ChannelFloats,
    MadeName,
    Padding,
    Pair,
    Record,
    TensorName,
    ValueName,
    check_channel_tensors,
)

_NUMBERS: tuple[Kind, ...] = ("float", "uint8", "int8")
_SIGNS: tuple[Kind, ...] = ("sign",)


class Epilogue(Record, frozen=True):
    """What becomes of the scaled sums of a layer, fused into it by passes; each where given.

        y = max(sum, floor)
        y = y * alpha * beta + bias + residual        (alpha, beta, bias: of the layer itself)
        y = activation(y)
        sign = -1 where (y < threshold) != flip, else +1

    All tensors are (Cout,): floor float32, flip uint8 (0 or 1).  An int32 ``threshold`` compares
    the integer sum, and nothing else of the above may then be there; a float32 one compares y.
    With a threshold the value of the node is the sign, unless ``signs`` names a second value for
    it.
    """

    floor: ChannelFloats | None = None
    residual: ValueName | None = None
    activation: Activation | None = None
    threshold: TensorName | None = None
    flip: ChannelFlags | None = None
    signs: MadeName | None = None


class Conv2d(BaseNode, frozen=True, tag="conv2d"):
    """Convolution that is not binary on both sides; padded taps contribute 0.

    weight (Cout, kh, kw, Cin / groups) float32, int16 or int8, or signs packed to (Cout, kh, kw,
    words_for(Cin / groups)) uint64; alpha, bias (Cout,) float32.  ``y = sum * alpha + bias``.

    The sum of a float value is float32.  The sum of a uint8 or int8 value, whose weight is not
    float32, is an exact integer; from every element inside the map the float32 ``offset`` (Cin,) of
    its channel is subtracted, which is how a mean is taken off pixels.
    """

    weight: TensorName
    bias: ChannelFloats | None = None
    stride: Pair = (1, 1)
    padding: Padding = NO_PADDING
    dilation: Pair = (1, 1)
    groups: int = 1
    alpha: ChannelFloats | None = None
    offset: TensorName | None = None
    epilogue: Epilogue | None = None

    takes = _NUMBERS

    def infer(self, known: Known) -> tuple[Value, ...]:
        """Check the layer with its epilogue."""
        source = known.values[self.input]
        shape = _conv_shape(self, source, known)
        made = _check_layer(self, source, shape, known)
        if self.offset is not None:
            if not source.is_integer or known.tensors[self.weight].dtype == np.float32:
                raise GraphError(
                    "an offset wants uint8 or int8 values and weights that are not float"
                )
            checks.check_channels(known, self.offset, source.shape[-1])
            length = math.prod(known.tensors[self.weight].shape[1:-1])
            length *= source.shape[-1] // self.groups
            checks.check_offset(known, self.weight, length, self.offset, self.alpha)
        return made

    def operations(self, values: Mapping[str, Value], tensors: Tensors) -> int:
        """Return the nominal multiply-accumulates."""
        return _conv_operations(self, values, tensors)


class Dense(BaseNode, frozen=True, tag="dense"):
    """Matrix product with a vector.  weight (Cout, Cin) or (Cout, words_for(Cin)).

    Types, sums, alpha and bias as of :class:`Conv2d`.
    """

    weight: TensorName
    bias: ChannelFloats | None = None
    alpha: ChannelFloats | None = None
    epilogue: Epilogue | None = None

    takes = _NUMBERS

    def infer(self, known: Known) -> tuple[Value, ...]:
        """Check the layer with its epilogue."""
        source = known.values[self.input]
        return _check_layer(self, source, _dense_shape(self, source, known), known)

    def operations(self, values: Mapping[str, Value], tensors: Tensors) -> int:
        """Return the nominal multiply-accumulates."""
        return _dense_operations(self, values)


class BinaryConv2d(BaseNode, frozen=True, tag="bconv2d"):
    """Convolution of signs with signs; an exact integer, then scaled to float (numerics.py).

    weight (Cout, kh, kw, words_for(Cin / groups)) uint64; alpha, bias (Cout,) float32;
    beta names a :class:`BetaMap` value.  ``pad_value`` is what a padded tap holds: -1, 0 or +1.
    """

    weight: TensorName
    alpha: ChannelFloats | None = None
    bias: ChannelFloats | None = None
    beta: ValueName | None = None
    stride: Pair = (1, 1)
    padding: Padding = NO_PADDING
    dilation: Pair = (1, 1)
    groups: int = 1
    pad_value: Literal[-1, 0, 1] = 0
    epilogue: Epilogue | None = None

    takes = _SIGNS

    def infer(self, known: Known) -> tuple[Value, ...]:
        """Check the layer with its epilogue."""
        source = known.values[self.input]
        shape = _conv_shape(self, source, known)
        if self.pad_value not in (-1, 0, 1):
            raise ShapeError(f"pad_value is {self.pad_value}, wanted -1, 0 or 1")
        _check_beta(self.beta, (*shape[:-1], self.groups), known)
        return _check_layer(self, source, shape, known)

    def operations(self, values: Mapping[str, Value], tensors: Tensors) -> int:
        """Return the nominal multiply-accumulates."""
        return _conv_operations(self, values, tensors)


class BinaryDense(BaseNode, frozen=True, tag="bdense"):
    """Matrix product of signs with signs.  weight (Cout, words_for(Cin)) uint64.

    alpha, bias (Cout,) float32; beta names a :class:`BetaMap` value of shape (1,).
    """

    weight: TensorName
    alpha: ChannelFloats | None = None
    bias: ChannelFloats | None = None
    beta: ValueName | None = None
    epilogue: Epilogue | None = None

    takes = _SIGNS

    def infer(self, known: Known) -> tuple[Value, ...]:
        """Check the layer with its epilogue."""
        source = known.values[self.input]
        shape = _dense_shape(self, source, known)
        _check_beta(self.beta, (1,), known)
        return _check_layer(self, source, shape, known)

    def operations(self, values: Mapping[str, Value], tensors: Tensors) -> int:
        """Return the nominal multiply-accumulates."""
        return _dense_operations(self, values)


Layer = Conv2d | Dense | BinaryConv2d | BinaryDense
"""The nodes that have weights, and may have an :class:`Epilogue`."""


def has_integer_sums(node: BaseNode, source: Value) -> bool:
    """Tell whether a node is a layer whose result depends on an integer sum and nothing else."""
    if not isinstance(node, Layer) or node.epilogue is not None or source.kind == "float":
        return False
    return _beta(node) is None and _offset(node) is None


def _beta(node: Layer) -> str | None:
    return node.beta if isinstance(node, BinaryConv2d | BinaryDense) else None


def _offset(node: Layer) -> str | None:
    return node.offset if isinstance(node, Conv2d) else None


def _conv_shape(node: Conv2d | BinaryConv2d, source: Value, known: Known) -> tuple[int, ...]:
    checks.want_kind(source, *node.takes)
    checks.want_rank(source, 3)
    height, width, channels = source.shape
    weight = known.tensors[node.weight]
    if weight.ndim != 4:
        raise ShapeError(f"weight has shape {weight.shape}, wanted (Cout, kh, kw, ...)")
    cout, kh, kw, _ = weight.shape
    if node.groups < 1 or channels % node.groups or cout % node.groups:
        raise ShapeError(
            f"{node.groups} groups do not divide {channels} input and {cout} output channels"
        )
    _check_weight(node, source, (cout, kh, kw), channels // node.groups, known)
    out = checks.window_output((height, width), (kh, kw), node.stride, node.padding, node.dilation)
    checks.check_padded(source.shape, node.padding)
    return (*out, cout)


def _dense_shape(node: Dense | BinaryDense, source: Value, known: Known) -> tuple[int, ...]:
    checks.want_kind(source, *node.takes)
    checks.want_rank(source, 1)
    weight = known.tensors[node.weight]
    if weight.ndim != 2:
        raise ShapeError(f"weight has shape {weight.shape}, wanted two axes, (Cout, ...)")
    _check_weight(node, source, weight.shape[:1], source.shape[0], known)
    return weight.shape[:1]


def _check_weight(
    node: Layer, source: Value, leading: tuple[int, ...], channels: int, known: Known
) -> None:
    length = math.prod(leading[1:]) * channels
    dtype = known.tensors[node.weight].dtype
    if node.takes is _SIGNS:
        checks.check_signs(known, node.weight, leading, channels)
        checks.check_reduction(length)
    elif dtype == np.uint64:
        checks.check_signs(known, node.weight, leading, channels)
    else:
        checks.check_numbers(known, node.weight, (*leading, channels))
    if source.is_integer:
        if dtype == np.float32:
            raise GraphError(f"a {source.kind} value wants weights that are not float32")
        checks.check_sums(known, node.weight, length, source.kind)


def _check_beta(name: str | None, shape: tuple[int, ...], known: Known) -> None:
    if name is not None:
        checks.want_value("beta map", name, known.values[name], Value("float", shape))


def _check_layer(
    node: Layer, source: Value, shape: tuple[int, ...], known: Known
) -> tuple[Value, ...]:
    """Check what is done to the sums; return the values that the layer makes."""
    check_channel_tensors(node, shape[-1], known)
    result, e = Value("float", shape), node.epilogue
    if e is None:
        return (result,)
    if e.residual is not None:
        checks.want_value("residual", e.residual, known.values[e.residual], result)
    if e.activation is not None:
        e.activation.check()
    if e.threshold is None:
        if e.flip is not None or e.signs is not None:
            raise GraphError("the epilogue has flip or signs, but no threshold")
        return (result,)
    sign = Value("sign", shape)
    if known.tensors[e.threshold].dtype == np.int32:
        _check_integer_threshold(node, e, source)
        checks.check_channels(known, e.threshold, shape[-1], np.int32)
        return (sign,)
    checks.check_thresholds(known, e.threshold, shape[-1])
    return (sign,) if e.signs is None else (result, sign)


def _check_integer_threshold(node: Layer, e: Epilogue, source: Value) -> None:
    if source.kind == "float":
        raise GraphError("an integer threshold wants an integer sum, but the input is float")
    if _offset(node) is not None:
        raise GraphError("an integer threshold cannot be compared where there is an offset")
    others = (node.alpha, node.bias, e.floor, e.residual, e.activation, e.signs, _beta(node))
    if any(part is not None for part in others):
        raise GraphError("an integer threshold leaves no room for anything else but flip")


def _conv_operations(
    node: Conv2d | BinaryConv2d, values: Mapping[str, Value], tensors: Tensors
) -> int:
    _, kh, kw, _ = tensors[node.weight].shape
    channels = values[node.input].shape[-1] // node.groups
    return math.prod(values[node.name].shape) * int(kh) * int(kw) * channels


def _dense_operations(node: Dense | BinaryDense, values: Mapping[str, Value]) -> int:
    return math.prod(values[node.name].shape) * values[node.input].shape[-1]

"""The nodes that have weights, and what passes fuse into them."""

from __future__ import annotations

import math
from typing import Literal

import numpy as np

from bitinfer.errors import GraphError, ShapeError
from bitinfer.graph import checks
from bitinfer.graph.nodes.base import MadeName, Node, Record, TensorName, ValueName
from bitinfer.graph.values import NO_PADDING, Padding, Pair, Tensors, Value, Values

_ACTIVATION_TENSORS = {"prelu": (False, True, False), "rprelu": (True, True, True)}
"""Which of shift_in, slope and shift_out a kind of activation has; the others have none."""


class Activation(Record, frozen=True):
    """What is applied last to a float result, per channel (numerics.activate)."""

    kind: Literal["relu", "prelu", "rprelu", "clip", "sigmoid"]
    shift_in: TensorName | None = None
    slope: TensorName | None = None
    shift_out: TensorName | None = None
    low: float = 0.0
    high: float = 0.0

    def check(self, channels: tuple[int], tensors: Tensors) -> None:
        """Raise GraphError or ShapeError unless the tensors and numbers are what the kind wants."""
        parts = (self.shift_in, self.slope, self.shift_out)
        wanted = _ACTIVATION_TENSORS.get(self.kind, (False, False, False))
        if tuple(part is not None for part in parts) != wanted:
            raise GraphError(f"the activation {self.kind} has other tensors than it wants")
        for name in parts:
            checks.check_floats(tensors, name, channels)
        if self.kind == "clip":
            checks.check_range(self.low, self.high)


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

    floor: TensorName | None = None
    residual: ValueName | None = None
    activation: Activation | None = None
    threshold: TensorName | None = None
    flip: TensorName | None = None
    signs: MadeName | None = None


class Conv2d(Node, frozen=True, tag="conv2d"):
    """Convolution that is not binary on both sides; padded taps contribute 0.

    weight (Cout, kh, kw, Cin / groups) float32, int16 or int8, or signs packed to (Cout, kh, kw,
    words_for(Cin / groups)) uint64; alpha, bias (Cout,) float32.  ``y = sum * alpha + bias``.

    The sum of a float value is float32.  The sum of a uint8 or int8 value, whose weight is not
    float32, is an exact integer; from every element inside the map the float32 ``offset`` (Cin,) of
    its channel is subtracted, which is how a mean is taken off pixels.
    """

    weight: TensorName
    bias: TensorName | None = None
    stride: Pair = (1, 1)
    padding: Padding = NO_PADDING
    dilation: Pair = (1, 1)
    groups: int = 1
    alpha: TensorName | None = None
    offset: TensorName | None = None
    epilogue: Epilogue | None = None

    def make(self, values: Values, tensors: Tensors) -> tuple[Value, ...]:
        """See :meth:`Node.make`."""
        shape = _conv_shape(self, values, tensors)
        if self.offset is not None:
            source, channels = values[self.input], values[self.input].shape[-1]
            if not source.is_integer or tensors[self.weight].dtype == np.float32:
                raise GraphError(
                    "an offset wants uint8 or int8 values and weights that are not float"
                )
            checks.check_floats(tensors, self.offset, (channels,))
            checks.check_floats(tensors, self.alpha, shape[-1:])
            alpha = None if self.alpha is None else tensors[self.alpha]
            per_group = channels // self.groups
            checks.check_offset(tensors, self.weight, per_group, tensors[self.offset], alpha)
        return _layer_values(self, shape, values, tensors)

    def operations(self, source: Value, result: Value, tensors: Tensors) -> int:
        """See :meth:`Node.operations`."""
        return _conv_operations(self, source, result, tensors)


class Dense(Node, frozen=True, tag="dense"):
    """Matrix product with a vector.  weight (Cout, Cin) or (Cout, words_for(Cin)).

    Types, sums, alpha and bias as of :class:`Conv2d`.
    """

    weight: TensorName
    bias: TensorName | None = None
    alpha: TensorName | None = None
    epilogue: Epilogue | None = None

    def make(self, values: Values, tensors: Tensors) -> tuple[Value, ...]:
        """See :meth:`Node.make`."""
        return _layer_values(self, _dense_shape(self, values, tensors), values, tensors)

    def operations(self, source: Value, result: Value, tensors: Tensors) -> int:
        """See :meth:`Node.operations`."""
        return math.prod(result.shape) * source.shape[-1]


class BinaryConv2d(Node, frozen=True, tag="bconv2d"):
    """Convolution of signs with signs; an exact integer, then scaled to float (numerics.py).

    weight (Cout, kh, kw, words_for(Cin / groups)) uint64; alpha, bias (Cout,) float32;
    beta names a :class:`BetaMap` value.  ``pad_value`` is what a padded tap holds: -1, 0 or +1.
    """

    weight: TensorName
    alpha: TensorName | None = None
    bias: TensorName | None = None
    beta: ValueName | None = None
    stride: Pair = (1, 1)
    padding: Padding = NO_PADDING
    dilation: Pair = (1, 1)
    groups: int = 1
    pad_value: Literal[-1, 0, 1] = 0
    epilogue: Epilogue | None = None

    def make(self, values: Values, tensors: Tensors) -> tuple[Value, ...]:
        """See :meth:`Node.make`."""
        shape = _conv_shape(self, values, tensors)
        if self.pad_value not in (-1, 0, 1):
            raise ShapeError(f"pad_value is {self.pad_value}, wanted -1, 0 or 1")
        _check_beta(self.beta, values, (*shape[:2], self.groups))
        return _layer_values(self, shape, values, tensors)

    def operations(self, source: Value, result: Value, tensors: Tensors) -> int:
        """See :meth:`Node.operations`."""
        return _conv_operations(self, source, result, tensors)


class BinaryDense(Node, frozen=True, tag="bdense"):
    """Matrix product of signs with signs.  weight (Cout, words_for(Cin)) uint64.

    alpha, bias (Cout,) float32; beta names a :class:`BetaMap` value of shape (1,).
    """

    weight: TensorName
    alpha: TensorName | None = None
    bias: TensorName | None = None
    beta: ValueName | None = None
    epilogue: Epilogue | None = None

    def make(self, values: Values, tensors: Tensors) -> tuple[Value, ...]:
        """See :meth:`Node.make`."""
        shape = _dense_shape(self, values, tensors)
        _check_beta(self.beta, values, (1,))
        return _layer_values(self, shape, values, tensors)

    def operations(self, source: Value, result: Value, tensors: Tensors) -> int:
        """See :meth:`Node.operations`."""
        return math.prod(result.shape) * source.shape[-1]


BinaryLayer = BinaryConv2d | BinaryDense
Layer = Conv2d | Dense | BinaryConv2d | BinaryDense
"""The nodes that have weights, and may have an :class:`Epilogue`."""


def _conv_operations(
    node: Conv2d | BinaryConv2d, source: Value, result: Value, tensors: Tensors
) -> int:
    # Padded taps count: this is the nominal number that engines are compared by.
    _, kh, kw, _ = tensors[node.weight].shape
    return math.prod(result.shape) * int(kh) * int(kw) * (source.shape[-1] // node.groups)


def _conv_shape(
    node: Conv2d | BinaryConv2d, values: Values, tensors: Tensors
) -> tuple[int, int, int]:
    source = values[node.input]
    _check_source(node, source, 3)
    height, width, channels = source.shape
    weight = tensors[node.weight]
    if weight.ndim != 4:
        raise ShapeError(f"weight has shape {weight.shape}, wanted (Cout, kh, kw, ...)")
    cout, kh, kw, _ = weight.shape
    if node.groups < 1 or channels % node.groups or cout % node.groups:
        raise ShapeError(
            f"{node.groups} groups do not divide {channels} input and {cout} output channels"
        )
    _check_weight(node, source, tensors, (cout, kh, kw), channels // node.groups)
    out = checks.window_output((height, width), (kh, kw), node.stride, node.padding, node.dilation)
    checks.check_padded(source.shape, node.padding)
    return (*out, cout)


def _dense_shape(node: Dense | BinaryDense, values: Values, tensors: Tensors) -> tuple[int]:
    source = values[node.input]
    _check_source(node, source, 1)
    weight = tensors[node.weight]
    if weight.ndim != 2:
        raise ShapeError(f"weight has shape {weight.shape}, wanted two axes, (Cout, ...)")
    _check_weight(node, source, tensors, weight.shape[:1], source.shape[0])
    return (weight.shape[0],)


def _check_source(node: Layer, source: Value, rank: int) -> None:
    if isinstance(node, BinaryLayer):
        checks.want_kind(source, "sign")
    else:
        checks.want_kind(source, "float", "uint8", "int8")
    checks.want_rank(source, rank)


def _check_weight(
    node: Layer, source: Value, tensors: Tensors, leading: tuple[int, ...], channels: int
) -> None:
    name, weight = node.weight, tensors[node.weight]
    length = math.prod(leading[1:]) * channels
    if isinstance(node, BinaryLayer):
        checks.check_signs(tensors, name, leading, channels)
        checks.check_reduction(length)
    elif weight.dtype == np.uint64:
        checks.check_signs(tensors, name, leading, channels)
    else:
        checks.check_numbers(tensors, name, (*leading, channels))
    if source.is_integer:
        if weight.dtype == np.float32:
            raise GraphError(f"a {source.kind} value wants weights that are not float32")
        checks.check_sums(tensors, name, length, source.kind)


def _check_beta(name: str | None, values: Values, shape: tuple[int, ...]) -> None:
    if name is not None:
        checks.want_value("beta map", name, values[name], Value("float", shape))


def _layer_values(
    node: Layer, shape: tuple[int, ...], values: Values, tensors: Tensors
) -> tuple[Value, ...]:
    """Check scales and epilogue; return the values of a layer whose sums have ``shape``."""
    channels, result, sign = (shape[-1],), Value("float", shape), Value("sign", shape)
    checks.check_floats(tensors, node.alpha, channels)
    checks.check_floats(tensors, node.bias, channels)
    e = node.epilogue
    if e is None:
        return (result,)
    checks.check_floats(tensors, e.floor, channels)
    if e.residual is not None:
        checks.want_value("residual", e.residual, values[e.residual], result)
    if e.activation is not None:
        e.activation.check(channels, tensors)
    checks.check_flags(tensors, e.flip, channels)
    if e.threshold is None:
        if e.flip is not None or e.signs is not None:
            raise GraphError("the epilogue has flip or signs, but no threshold")
        return (result,)
    threshold = tensors[e.threshold]
    if threshold.dtype == np.int32:
        _check_integer_threshold(node, e, values[node.input])
        checks.check_floats(tensors, e.threshold, channels, np.int32)
        return (sign,)
    if (
        threshold.dtype != np.float32
        or threshold.shape != channels
        or checks.has_nan(tensors, e.threshold)
    ):
        raise ShapeError(
            f"threshold {e.threshold!r} is {threshold.dtype} of shape {threshold.shape}, wanted "
            f"float32 or int32 of {channels}, without NaN"
        )
    return (sign,) if e.signs is None else (result, sign)


def _check_integer_threshold(node: Layer, e: Epilogue, source: Value) -> None:
    if source.kind == "float":
        raise GraphError("an integer threshold wants an integer sum, but the input is float")
    if isinstance(node, Conv2d) and node.offset is not None:
        raise GraphError("an integer threshold cannot be compared where there is an offset")
    others = (node.alpha, node.bias, e.floor, e.residual, e.activation, e.signs)
    beta = node.beta if isinstance(node, BinaryLayer) else None
    if any(part is not None for part in (*others, beta)):
        raise GraphError("an integer threshold leaves no room for anything else but flip")

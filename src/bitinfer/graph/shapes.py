"""Shape inference, which is also the check that a graph and its tensors fit together.

Whoever holds the result of :func:`infer` may rely on it: every name resolves, every tensor has the
type and shape that its node wants, packed weights have no stray bits, and nothing is larger than
the limits below.  The limits keep a hostile file from asking for unbounded memory or time.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from bitinfer import numerics
from bitinfer.bits import has_stray_bits, words_for
from bitinfer.errors import GraphError, ShapeError
from bitinfer.graph.nodes import (
    AvgPool2d,
    BatchNorm,
    BetaMap,
    BinaryConv2d,
    BinaryDense,
    Conv2d,
    Dense,
    Flatten,
    Graph,
    MaxPool2d,
    Node,
    Padding,
    Pair,
    Relu,
    Sign,
    Softmax,
    node_inputs,
    node_tensors,
)

Tensors = Mapping[str, NDArray[Any]]
Kind = Literal["float", "sign"]

MAX_EXTENT = 1 << 14
"""Largest height, width, kernel extent, stride or padding."""
MAX_CHANNELS = 1 << 20
"""Largest number of channels, or length of a vector."""
MAX_VALUE_BYTES = 1 << 28
"""Largest value of one sample, as float32; also the largest padded map."""
MAX_TOTAL_BYTES = 1 << 31
"""All values of one sample together, as float32: all may live at once."""
MAX_REDUCTION = 1 << 24
"""Largest K of a binary layer: integers up to here are exact in float32."""
MAX_OPERATIONS = 1 << 38
"""Largest number of multiply-accumulates (or window taps) of one inference."""
MAX_NODES = 1 << 11


@dataclasses.dataclass(frozen=True)
class Value:
    """Kind and shape of one value of one sample."""

    kind: Kind
    shape: tuple[int, ...]


def infer(graph: Graph, tensors: Tensors) -> dict[str, Value]:
    """Check ``graph`` against its ``tensors`` and return the kind and shape of every value.

    Raises:
        GraphError: a name is unknown or taken twice, a kind does not fit, a tensor is unused.
        ShapeError: a shape, parameter or tensor does not fit, or exceeds a limit.
    """
    if not 1 <= len(graph.nodes) <= MAX_NODES:
        raise GraphError(f"graph: {len(graph.nodes)} nodes, wanted 1 to {MAX_NODES}")
    if len(graph.input.shape) not in (1, 3):
        raise ShapeError(
            f"input {graph.input.name!r}: shape {graph.input.shape}, wanted (H, W, C) or (C,)"
        )
    if not graph.input.name:
        raise GraphError("graph: the input has an empty name")
    values = {graph.input.name: Value("float", graph.input.shape)}
    total_bytes = _check_value(graph.input.name, values[graph.input.name])
    used: set[str] = set()
    total = 0
    for node in graph.nodes:
        if not node.name or node.name in values:
            raise GraphError(f"node {node.name!r}: the name is empty or taken by an earlier value")
        for name in node_inputs(node):
            if name not in values:
                raise GraphError(f"node {node.name!r}: input {name!r} is no earlier value")
        for name in node_tensors(node):
            if name not in tensors:
                raise GraphError(f"node {node.name!r}: there is no tensor {name!r}")
        value = _infer_node(node, values, tensors)
        for name in node_tensors(node):
            # Kernels re-lay weights per node: shared, a small file could ask for any memory.
            if name in used:
                raise GraphError(f"node {node.name!r}: tensor {name!r} is in use already")
            used.add(name)
        total_bytes += _check_value(node.name, value)
        if total_bytes > MAX_TOTAL_BYTES:
            raise ShapeError(
                f"node {node.name!r}: all values together take over {MAX_TOTAL_BYTES} bytes"
            )
        values[node.name] = value
        total += operations(node, values, tensors)
        if total > MAX_OPERATIONS:
            raise ShapeError(
                f"node {node.name!r}: the network takes more than {MAX_OPERATIONS} operations"
            )
    if unused := sorted(set(tensors) - used):
        raise GraphError(f"graph: tensor {unused[0]!r} is used by no node")
    if not graph.outputs or len(set(graph.outputs)) != len(graph.outputs):
        raise GraphError("graph: outputs are empty or name a value twice")
    for name in graph.outputs:
        if name not in values or name == graph.input.name:
            raise GraphError(f"graph: output {name!r} is no node")
        if values[name].kind != "float":
            raise GraphError(f"graph: output {name!r} is a sign value, wanted float")
    return values


def operations(node: Node, values: Mapping[str, Value], tensors: Tensors) -> int:
    """Return the multiply-accumulates of a node (window taps of a pooling node, else elements).

    Padded taps count: this is the nominal number that engines are compared by.
    """
    source, result = values[node.input].shape, values[node.name].shape
    size = math.prod(result)
    match node:
        case Conv2d() | BinaryConv2d():
            _, kh, kw, _ = tensors[node.weight].shape
            return size * int(kh) * int(kw) * (source[-1] // node.groups)
        case Dense() | BinaryDense():
            return size * source[-1]
        case MaxPool2d() | AvgPool2d():
            return size * math.prod(node.kernel)
        case BetaMap():
            return math.prod(source) + size * math.prod(node.kernel)
        case _:
            return size


def window_output(
    extent: Pair, kernel: Pair, stride: Pair, padding: Padding, dilation: Pair = (1, 1)
) -> Pair:
    """Return (Hout, Wout) of a window that slides over a padded map of ``extent`` (H, W).

    Raises:
        ShapeError: a parameter is out of range, or the window is larger than the padded map.
    """
    for what, pair in (("kernel", kernel), ("stride", stride), ("dilation", dilation)):
        if not all(1 <= v <= MAX_EXTENT for v in pair):
            raise ShapeError(f"{what} {pair} is not within 1 to {MAX_EXTENT}")
    if not all(0 <= v <= MAX_EXTENT for v in padding):
        raise ShapeError(f"padding {padding} is not within 0 to {MAX_EXTENT}")
    result = []
    for axis in (0, 1):
        padded = extent[axis] + padding[2 * axis] + padding[2 * axis + 1]
        reach = dilation[axis] * (kernel[axis] - 1) + 1
        if reach > padded:
            raise ShapeError(
                f"the window reaches over {reach} pixels along axis {axis}, "
                f"but the padded map has only {padded}"
            )
        result.append((padded - reach) // stride[axis] + 1)
    return result[0], result[1]


def _infer_node(node: Node, values: Mapping[str, Value], tensors: Tensors) -> Value:
    source = values[node.input]
    try:
        match node:
            case Conv2d() | BinaryConv2d():
                return _infer_conv(node, source, values, tensors)
            case Dense() | BinaryDense():
                return _infer_dense(node, source, values, tensors)
            case BetaMap():
                return _infer_beta_map(node, source)
            case MaxPool2d() | AvgPool2d():
                return _infer_pool(node, source)
            case Flatten():
                return Value(source.kind, (math.prod(source.shape),))
            case Sign():
                _want_kind(source, "float")
                return Value("sign", source.shape)
            case BatchNorm():
                _want_kind(source, "float")
                _check_batch_norm(node, source.shape[-1], tensors)
                return source
            case Relu():
                _want_kind(source, "float")
                return source
            case Softmax():
                _want_kind(source, "float")
                _want_rank(source, 1)
                return source
    except ShapeError as error:
        raise ShapeError(f"node {node.name!r} ({node.__struct_config__.tag}): {error}") from None
    except GraphError as error:
        raise GraphError(f"node {node.name!r} ({node.__struct_config__.tag}): {error}") from None


def _infer_conv(
    node: Conv2d | BinaryConv2d, source: Value, values: Mapping[str, Value], tensors: Tensors
) -> Value:
    _want_kind(source, "sign" if isinstance(node, BinaryConv2d) else "float")
    _want_rank(source, 3)
    height, width, channels = source.shape
    weight = tensors[node.weight]
    if weight.ndim != 4:
        raise ShapeError(f"weight has shape {weight.shape}, wanted (Cout, kh, kw, ...)")
    cout, kh, kw, _ = weight.shape
    if node.groups < 1 or channels % node.groups or cout % node.groups:
        raise ShapeError(
            f"{node.groups} groups do not divide {channels} input and {cout} output channels"
        )
    per_group = channels // node.groups
    if isinstance(node, BinaryConv2d):
        _check_bits(node.weight, weight, (cout, kh, kw), per_group)
        _check_reduction(kh * kw * per_group)
        _check_floats(tensors, node.alpha, (cout,))
    else:
        _check_floats(tensors, node.weight, (cout, kh, kw, per_group))
    _check_floats(tensors, node.bias, (cout,))
    out = window_output((height, width), (kh, kw), node.stride, node.padding, node.dilation)
    _check_padded(source.shape, node.padding)
    if isinstance(node, BinaryConv2d):
        if node.pad_value not in (-1, 0, 1):
            raise ShapeError(f"pad_value is {node.pad_value}, wanted -1, 0 or 1")
        _check_beta(node.beta, values, (*out, node.groups))
    return Value("float", (*out, cout))


def _infer_dense(
    node: Dense | BinaryDense, source: Value, values: Mapping[str, Value], tensors: Tensors
) -> Value:
    _want_kind(source, "sign" if isinstance(node, BinaryDense) else "float")
    _want_rank(source, 1)
    weight = tensors[node.weight]
    if weight.ndim != 2:
        raise ShapeError(f"weight has shape {weight.shape}, wanted two axes, (Cout, ...)")
    cout, cin = weight.shape[0], source.shape[0]
    if isinstance(node, BinaryDense):
        _check_bits(node.weight, weight, (cout,), cin)
        _check_reduction(cin)
        _check_floats(tensors, node.alpha, (cout,))
        _check_beta(node.beta, values, (1,))
    else:
        _check_floats(tensors, node.weight, (cout, cin))
    _check_floats(tensors, node.bias, (cout,))
    return Value("float", (cout,))


def _infer_beta_map(node: BetaMap, source: Value) -> Value:
    _want_kind(source, "float")
    if node.groups < 1 or source.shape[-1] % node.groups:
        raise ShapeError(f"{node.groups} groups do not divide {source.shape[-1]} channels")
    if len(source.shape) == 1:
        if node != BetaMap(name=node.name, input=node.input):
            raise ShapeError("a vector has one scale: kernel, stride and the rest must be default")
        return Value("float", (1,))
    height, width, _ = source.shape
    out = window_output((height, width), node.kernel, node.stride, node.padding, node.dilation)
    _check_padded(source.shape, node.padding)
    return Value("float", (*out, node.groups))


def _infer_pool(node: MaxPool2d | AvgPool2d, source: Value) -> Value:
    if isinstance(node, AvgPool2d):
        _want_kind(source, "float")
    _want_rank(source, 3)
    height, width, channels = source.shape
    out = window_output((height, width), node.kernel, node.stride, node.padding)
    _check_padded(source.shape, node.padding)
    for index, pad in enumerate(node.padding):
        if pad >= node.kernel[index // 2]:
            raise ShapeError(
                f"padding {node.padding} is not smaller than kernel {node.kernel}: "
                "a window would lie outside the map"
            )
    return Value(source.kind, (*out, channels))


def _check_batch_norm(node: BatchNorm, channels: int, tensors: Tensors) -> None:
    for name in (node.mean, node.variance, node.gamma, node.beta):
        _check_floats(tensors, name, (channels,))
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


def _check_value(name: str, value: Value) -> int:
    """Return the bytes of a value, as float32."""
    *extents, channels = value.shape
    if not 1 <= channels <= MAX_CHANNELS or not all(1 <= e <= MAX_EXTENT for e in extents):
        raise ShapeError(
            f"value {name!r}: shape {value.shape} has an axis of 0, above {MAX_EXTENT} pixels "
            f"or above {MAX_CHANNELS} channels"
        )
    size = 4 * math.prod(value.shape)
    if size > MAX_VALUE_BYTES:
        raise ShapeError(f"value {name!r}: shape {value.shape} takes over {MAX_VALUE_BYTES} bytes")
    return size


def _check_padded(shape: tuple[int, ...], padding: Padding) -> None:
    """Refuse a padded map that is too large to be made, as some backends do."""
    height, width = shape[0] + padding[0] + padding[1], shape[1] + padding[2] + padding[3]
    if 4 * height * width * shape[-1] > MAX_VALUE_BYTES:
        raise ShapeError(f"the padded map takes over {MAX_VALUE_BYTES} bytes")


def _check_bits(name: str, weight: NDArray[Any], leading: tuple[int, ...], length: int) -> None:
    wanted = (*leading, words_for(length))
    if weight.dtype != np.uint64 or weight.shape != wanted or 0 in wanted:
        raise ShapeError(
            f"weight {name!r} is {weight.dtype} of shape {weight.shape}, wanted uint64 of shape "
            f"{wanted} for {length} signs"
        )
    if has_stray_bits(weight, length):
        raise ShapeError(f"weight {name!r} has bits set past its {length} signs")


def _check_floats(tensors: Tensors, name: str | None, shape: tuple[int, ...]) -> None:
    if name is None:
        return
    tensor = tensors[name]
    if tensor.dtype != np.float32 or tensor.shape != shape or 0 in shape:
        raise ShapeError(
            f"tensor {name!r} is {tensor.dtype} of shape {tensor.shape}, wanted float32 of {shape}"
        )
    if not np.isfinite(tensor).all():
        raise ShapeError(f"tensor {name!r} holds NaN or infinity")


def _check_reduction(length: int) -> None:
    if length > MAX_REDUCTION:
        raise ShapeError(f"K = {length} exceeds {MAX_REDUCTION}, above which float32 is inexact")


def _check_beta(name: str | None, values: Mapping[str, Value], shape: tuple[int, ...]) -> None:
    if name is not None and values[name] != Value("float", shape):
        raise ShapeError(
            f"beta map {name!r} is {values[name].kind} of shape {values[name].shape}, "
            f"wanted float of shape {shape}"
        )


def _want_kind(source: Value, kind: Kind) -> None:
    if source.kind != kind:
        raise GraphError(f"the input is a {source.kind} value, wanted {kind}")


def _want_rank(source: Value, rank: int) -> None:
    if len(source.shape) != rank:
        wanted = "(H, W, C)" if rank == 3 else "(C,)"
        raise ShapeError(f"the input has shape {source.shape}, wanted {wanted}")

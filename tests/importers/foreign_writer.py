"""Writes graphs of bitinfer in the terms of other frameworks: NCHW or NHWC, weights as +-alpha."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bitinfer import bits
from bitinfer.graph import Graph, nodes
from bitinfer.importers.foreign import Foreign, ForeignNode, Layout
from bitinfer.model import Model

Array = NDArray[Any]
SIGN = {"at_zero": 1, "low": -1.0, "high": 1.0}
WINDOW = {"strides": (1, 1), "pads": (0, 0, 0, 0), "dilations": (1, 1), "groups": 1}
CONV = {**WINDOW, "pad_value": 0.0, "counts": "sums"}


class Writer:
    """Collects nodes and constants; every method returns the name of what it makes."""

    def __init__(self, layout: Layout = "NCHW") -> None:
        self.layout = layout
        self.nodes: list[ForeignNode] = []
        self.constants: dict[str, Array] = {}

    def add(self, name: str, operation: str, *inputs: str, **attributes: Any) -> str:
        self.nodes.append(ForeignNode(name, operation, inputs, attributes))
        return name

    def constant(self, name: str, value: Any) -> str:
        array = np.asarray(value)
        self.constants[name] = array.astype(np.float32) if array.dtype == np.float64 else array
        return name

    def channels(self, name: str, value: Array, rank: int) -> str:
        """A constant with a number per channel, in the shape that broadcasts."""
        is_first = self.layout == "NCHW" and rank == 3
        return self.constant(name, value.reshape(-1, 1, 1) if is_first else value)

    def weight(self, name: str, value: Array) -> tuple[str, str]:
        """A weight in our order, in the order of the layout; returns its name and axes."""
        if value.ndim == 2:
            axes = "OI" if self.layout == "NCHW" else "IO"
            return self.constant(name, value if axes == "OI" else value.T), axes
        axes = "OIHW" if self.layout == "NCHW" else "HWIO"
        return self.constant(name, value.transpose(["OHWI".index(a) for a in axes])), axes

    def finish(self, shape: tuple[int, ...], *outputs: str, name: str = "net") -> Foreign:
        """``shape`` is (H, W, C) or (C,)."""
        if len(shape) == 3 and self.layout == "NCHW":
            shape = (shape[2], *shape[:2])
        return Foreign(
            name, self.layout, "input", shape, tuple(self.nodes), self.constants, outputs
        )


Spelling = Callable[[Writer, str, str], str]


def by_name(w: Writer, name: str, x: str) -> str:
    return w.add(name, "sign", x, **SIGN)


def by_where(w: Writer, name: str, x: str) -> str:
    zero = w.constant(f"{name}.zero", np.float32(0))
    one, minus = w.constant(f"{name}.one", np.float32(1)), w.constant(f"{name}.-1", np.float32(-1))
    at_least = w.add(f"{name}.ge", "greater_or_equal", x, zero)
    return w.add(name, "where", at_least, one, minus)


def by_sign_of_sign(w: Writer, name: str, x: str) -> str:
    """tf.sign(tf.sign(x) + 0.1), as Larq writes it and tf2onnx exports it."""
    zeroed = {**SIGN, "at_zero": 0}
    tenth = w.constant(f"{name}.tenth", np.float32(0.1))
    x = w.add(f"{name}.inner", "sign", x, **zeroed)
    return w.add(name, "sign", w.add(f"{name}.sum", "add", x, tenth), **zeroed)


def by_polynomial(w: Writer, name: str, x: str, at_zero: int = 1) -> str:
    """Bi-Real-Net's ``sign(x).detach() - p(x).detach() + p(x)`` behind a hardtanh."""
    one, two = w.constant(f"{name}.1", np.float32(1)), w.constant(f"{name}.2", np.float32(2))
    zero, minus = w.constant(f"{name}.0", np.float32(0)), w.constant(f"{name}.-1", np.float32(-1))

    def op(part: str, operation: str, *inputs: str, **attributes: Any) -> str:
        return w.add(f"{name}.{part}", operation, *inputs, **attributes)

    def mask(part: str, limit: str) -> tuple[str, str]:
        inside = op(part, "to_float", op(f"{part}.lt", "less", x, limit))
        return inside, op(f"{part}.not", "subtract", one, inside)

    (m1, n1), (m2, n2), (m3, n3) = mask("m1", minus), mask("m2", zero), mask("m3", one)
    square, twice = op("xx", "multiply", x, x), op("2x", "multiply", x, two)
    up, down = op("up", "add", square, twice), op("down", "subtract", twice, square)
    p1 = op("p1", "add", op("p1a", "multiply", minus, m1), op("p1b", "multiply", up, n1))
    p2 = op("p2", "add", op("p2a", "multiply", p1, m2), op("p2b", "multiply", down, n2))
    p3 = op("p3", "add", op("p3a", "multiply", p2, m3), op("p3b", "multiply", one, n3))
    sign = op("sign", "sign", x, **{**SIGN, "at_zero": at_zero})
    return w.add(name, "add", op("minus", "subtract", sign, p3), p3)


def write(graph: Graph, tensors: Mapping[str, Array], layout: Layout, sign: Spelling) -> Foreign:
    """Return ``graph``, as imported, as a foreign graph whose values bear the same names."""
    w = Writer(layout)
    values = Model(graph=graph, tensors=tensors).checked.values
    for node in graph.nodes:
        _write(w, node, tensors, values[node.input].shape, sign)
    return w.finish(graph.input.shape, *graph.outputs, name=graph.name)


def _write(
    w: Writer,
    node: nodes.Node,
    tensors: Mapping[str, Array],
    shape: tuple[int, ...],
    sign: Spelling,
) -> None:
    """Write one node, whose input has ``shape``."""
    n, x, rank = node.name, node.input, len(shape)
    match node:
        case nodes.Conv2d() | nodes.BinaryConv2d() | nodes.Dense() | nodes.BinaryDense():
            _layer(w, node, tensors, shape[-1])
        case nodes.BatchNorm():
            parts = [
                "" if part is None else w.constant(part, tensors[part])
                for part in (node.gamma, node.beta, node.mean, node.variance)
            ]
            w.add(n, "batch_norm", x, *parts, epsilon=node.epsilon)
        case nodes.Sign():
            if node.threshold is not None:
                threshold = w.channels(node.threshold, tensors[node.threshold], rank)
                x = w.add(f"{n}.shifted", "subtract", x, threshold)
            sign(w, n, x)
        case nodes.Clip():
            w.add(n, "clip", x, low=node.low, high=node.high)
        case nodes.PRelu():
            w.add(n, "prelu", x, w.channels(node.slope, tensors[node.slope], rank))
        case nodes.RPRelu():
            one, slope, two = (
                w.channels(part, tensors[part], rank)
                for part in (node.shift_in, node.slope, node.shift_out)
            )
            x = w.add(f"{n}.prelu", "prelu", w.add(f"{n}.in", "add", x, one), slope)
            w.add(n, "add", x, two)
        case nodes.Add() | nodes.Multiply():
            w.add(n, "add" if isinstance(node, nodes.Add) else "multiply", x, node.other)
        case nodes.Concat():
            w.add(n, "concat", x, *node.others, axis=-rank if w.layout == "NCHW" else -1)
        case nodes.SliceChannels():
            axis = -rank if w.layout == "NCHW" else -1
            w.add(n, "slice", x, axis=axis, begin=node.begin, end=node.end)
        case nodes.Pad2d():
            axes = (1, 2) if w.layout == "NCHW" else (0, 1)
            w.add(n, "pad", x, axes=axes, pads=node.padding, value=node.value)
        case nodes.MaxPool2d():
            w.add(n, "max_pool", x, kernel=node.kernel, strides=node.stride, pads=node.padding)
        case nodes.AvgPool2d():
            window = {"kernel": node.kernel, "strides": node.stride, "pads": node.padding}
            w.add(n, "avg_pool", x, **window, count_include_pad=int(node.count_include_pad))
        case nodes.GlobalPool2d():
            pooled = w.add(f"{n}.map", f"global_{'max' if node.mode == 'max' else 'avg'}_pool", x)
            w.add(n, "flatten", pooled)
        case nodes.Flatten():
            wanted = "channels_first" if w.layout == "NCHW" else "channels_last"
            assert node.order == wanted
            w.add(n, "reshape", x, shape=(-1,))
        case nodes.Relu() | nodes.Sigmoid() | nodes.Softmax():
            w.add(n, type(node).__name__.lower(), x)
        case _:
            raise TypeError(f"{node} has no foreign spelling")


def _layer(w: Writer, node: nodes.Layer, tensors: Mapping[str, Array], channels: int) -> None:
    weight = tensors[node.weight]
    if weight.dtype == np.uint64:
        weight = bits.unpack(weight, channels // getattr(node, "groups", 1))
    if node.alpha is not None:
        weight = weight * tensors[node.alpha].reshape(-1, *[1] * (weight.ndim - 1))
    name, axes = w.weight(node.weight, weight)
    bias = () if node.bias is None else (w.constant(node.bias, tensors[node.bias]),)
    if isinstance(node, nodes.Dense | nodes.BinaryDense):
        w.add(node.name, "dense", node.input, name, *bias, axes=axes, counts="sums")
        return
    w.add(
        node.name,
        "conv",
        node.input,
        name,
        *bias,
        axes=axes,
        strides=node.stride,
        pads=node.padding,
        dilations=node.dilation,
        groups=node.groups,
        pad_value=float(getattr(node, "pad_value", 0)),
        counts="sums",
    )

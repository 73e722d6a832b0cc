"""Builds a graph and its tensors together: what importers, zoo and training write networks with."""

from __future__ import annotations

from collections.abc import Sequence
from operator import index
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bitinfer import bits
from bitinfer.bits import BitTensor
from bitinfer.errors import ShapeError
from bitinfer.graph import nodes
from bitinfer.graph.checked import CheckedGraph, check
from bitinfer.graph.nodes import Graph, Padding, Pair

PairLike = int | Pair
PaddingLike = int | Pair | Padding


def as_pair(value: PairLike) -> Pair:
    """Return (vertical, horizontal) from one number for both or from a pair.

    Raises:
        ShapeError: it is neither.
    """
    numbers = _integers(value, (1, 2))
    return (numbers[0], numbers[-1])


def as_padding(value: PaddingLike) -> Padding:
    """Return (top, bottom, left, right) from one number, (vertical, horizontal), or all four.

    Raises:
        ShapeError: it is none of these.
    """
    sides = _integers(value, (1, 2, 4))
    if len(sides) == 4:
        return (sides[0], sides[1], sides[2], sides[3])
    return (sides[0], sides[0], sides[-1], sides[-1])


def _integers(value: object, lengths: tuple[int, ...]) -> list[int]:
    try:
        numbers = [index(v) for v in (value if isinstance(value, tuple | list) else (value,))]
    except TypeError:
        numbers = []
    if len(numbers) not in lengths:
        wanted = " or ".join(str(n) for n in lengths)
        raise ShapeError(f"{value!r} is not {wanted} whole numbers")
    return numbers


class GraphBuilder:
    """Appends nodes one by one; every method returns the name of the value that it makes.

    Weights are plain arrays: float weights are stored as float32, binary weights are packed by
    their signs (bits.py).  Names are made from the operation and a counter unless given.

        b = GraphBuilder("tiny", input_shape=(28, 28, 1))
        x = b.conv2d(b.input, weight, bias)
        x = b.bconv2d(b.sign(x), binary_weight, alpha=alpha, padding=1)
        graph, tensors = b.build(x)
    """

    def __init__(
        self,
        name: str,
        input_shape: Sequence[int],
        input_name: str = "input",
        input_kind: Literal["float", "uint8"] = "float",
    ) -> None:
        self.name = name
        self.input = input_name
        self.tensors: dict[str, NDArray[Any]] = {}
        shape = tuple(int(v) for v in input_shape)
        self._input = nodes.Input(name=input_name, shape=shape, kind=input_kind)
        self._nodes: list[nodes.Node] = []

    def build(self, *outputs: str) -> tuple[Graph, dict[str, NDArray[Any]]]:
        """Return the graph, which is known to be right, and its tensors.

        Raises:
            GraphError, ShapeError: the parts do not fit together (checked.check).
        """
        return self.check(*outputs).graph, self.tensors

    def check(self, *outputs: str) -> CheckedGraph:
        """Return the graph and its tensors as what passes and plans are made of.

        Raises:
            GraphError, ShapeError: the parts do not fit together (checked.check).
        """
        graph = Graph(self.name, self._input, tuple(self._nodes), outputs)
        return check(graph, self.tensors)

    def conv2d(
        self,
        x: str,
        weight: ArrayLike | BitTensor,
        bias: ArrayLike | None = None,
        *,
        alpha: ArrayLike | None = None,
        offset: ArrayLike | None = None,
        stride: PairLike = 1,
        padding: PaddingLike = 0,
        dilation: PairLike = 1,
        groups: int = 1,
        name: str | None = None,
    ) -> str:
        """Convolution of numbers; weight (Cout, kh, kw, Cin / groups), alpha and bias (Cout,).

        int16, int8 and BitTensor weights are kept as they are, all others become float32.
        """
        name = self._name("conv2d", name)
        return self._add(
            nodes.Conv2d(
                name=name,
                input=x,
                weight=self._weight(f"{name}.weight", weight),
                bias=self._optional(f"{name}.bias", bias),
                stride=as_pair(stride),
                padding=as_padding(padding),
                dilation=as_pair(dilation),
                groups=groups,
                alpha=self._optional(f"{name}.alpha", alpha),
                offset=self._optional(f"{name}.offset", offset),
            )
        )

    def dense(
        self,
        x: str,
        weight: ArrayLike | BitTensor,
        bias: ArrayLike | None = None,
        *,
        alpha: ArrayLike | None = None,
        name: str | None = None,
    ) -> str:
        """Dense layer of numbers; weight (Cout, Cin), as of :meth:`conv2d`."""
        name = self._name("dense", name)
        return self._add(
            nodes.Dense(
                name=name,
                input=x,
                weight=self._weight(f"{name}.weight", weight),
                bias=self._optional(f"{name}.bias", bias),
                alpha=self._optional(f"{name}.alpha", alpha),
            )
        )

    def bconv2d(
        self,
        x: str,
        weight: NDArray[Any],
        *,
        alpha: ArrayLike | None = None,
        bias: ArrayLike | None = None,
        beta: str | None = None,
        stride: PairLike = 1,
        padding: PaddingLike = 0,
        dilation: PairLike = 1,
        groups: int = 1,
        pad_value: Literal[-1, 0, 1] = 0,
        name: str | None = None,
    ) -> str:
        """Binary convolution of a sign value; weight (Cout, kh, kw, Cin / groups) by its signs."""
        name = self._name("bconv2d", name)
        return self._add(
            nodes.BinaryConv2d(
                name=name,
                input=x,
                weight=self._signs(f"{name}.weight", weight),
                alpha=self._optional(f"{name}.alpha", alpha),
                bias=self._optional(f"{name}.bias", bias),
                beta=beta,
                stride=as_pair(stride),
                padding=as_padding(padding),
                dilation=as_pair(dilation),
                groups=groups,
                pad_value=pad_value,
            )
        )

    def bdense(
        self,
        x: str,
        weight: NDArray[Any],
        *,
        alpha: ArrayLike | None = None,
        bias: ArrayLike | None = None,
        beta: str | None = None,
        name: str | None = None,
    ) -> str:
        """Binary dense layer of a sign vector; weight (Cout, Cin) by its signs."""
        name = self._name("bdense", name)
        return self._add(
            nodes.BinaryDense(
                name=name,
                input=x,
                weight=self._signs(f"{name}.weight", weight),
                alpha=self._optional(f"{name}.alpha", alpha),
                bias=self._optional(f"{name}.bias", bias),
                beta=beta,
            )
        )

    def beta_map(
        self,
        x: str,
        *,
        kernel: PairLike = 1,
        stride: PairLike = 1,
        padding: PaddingLike = 0,
        dilation: PairLike = 1,
        groups: int = 1,
        name: str | None = None,
    ) -> str:
        """XNOR-Net's activation scale, from the float value that is binarised."""
        return self._add(
            nodes.BetaMap(
                name=self._name("beta_map", name),
                input=x,
                kernel=as_pair(kernel),
                stride=as_pair(stride),
                padding=as_padding(padding),
                dilation=as_pair(dilation),
                groups=groups,
            )
        )

    def batch_norm(
        self,
        x: str,
        mean: ArrayLike,
        variance: ArrayLike,
        gamma: ArrayLike | None = None,
        beta: ArrayLike | None = None,
        *,
        epsilon: float = 1e-5,
        name: str | None = None,
    ) -> str:
        """BatchNorm at inference; every parameter (C,)."""
        name = self._name("batch_norm", name)
        return self._add(
            nodes.BatchNorm(
                name=name,
                input=x,
                mean=self._floats(f"{name}.mean", mean),
                variance=self._floats(f"{name}.variance", variance),
                gamma=self._optional(f"{name}.gamma", gamma),
                beta=self._optional(f"{name}.beta", beta),
                epsilon=float(epsilon),
            )
        )

    def sign(self, x: str, *, threshold: ArrayLike | None = None, name: str | None = None) -> str:
        """Make -1 where x < threshold (C,; 0 unless given), else +1."""
        name = self._name("sign", name)
        threshold = self._optional(f"{name}.threshold", threshold)
        return self._add(nodes.Sign(name=name, input=x, threshold=threshold))

    def quantize(self, x: str, scale: float, *, name: str | None = None) -> str:
        """Float to int8: x / scale, rounded half to even, between -128 and 127."""
        name = self._name("quantize", name)
        return self._add(nodes.Quantize(name=name, input=x, scale=float(scale)))

    def relu(self, x: str, *, name: str | None = None) -> str:
        """Maximum of x and 0."""
        return self._add(nodes.Relu(name=self._name("relu", name), input=x))

    def clip(self, x: str, low: float, high: float, *, name: str | None = None) -> str:
        """Between low and high; hardtanh has -1 and 1."""
        name = self._name("clip", name)
        return self._add(nodes.Clip(name=name, input=x, low=float(low), high=float(high)))

    def prelu(self, x: str, slope: ArrayLike, *, name: str | None = None) -> str:
        """``x if x >= 0 else x * slope``; slope (C,)."""
        name = self._name("prelu", name)
        slope = self._floats(f"{name}.slope", slope)
        return self._add(nodes.PRelu(name=name, input=x, slope=slope))

    def rprelu(
        self,
        x: str,
        shift_in: ArrayLike,
        slope: ArrayLike,
        shift_out: ArrayLike,
        *,
        name: str | None = None,
    ) -> str:
        """``prelu(x + shift_in) + shift_out``; each (C,)."""
        name = self._name("rprelu", name)
        return self._add(
            nodes.RPRelu(
                name=name,
                input=x,
                shift_in=self._floats(f"{name}.shift_in", shift_in),
                slope=self._floats(f"{name}.slope", slope),
                shift_out=self._floats(f"{name}.shift_out", shift_out),
            )
        )

    def sigmoid(self, x: str, *, name: str | None = None) -> str:
        """``1 / (1 + exp(-x))``."""
        return self._add(nodes.Sigmoid(name=self._name("sigmoid", name), input=x))

    def add(self, x: str, other: str, *, name: str | None = None) -> str:
        """Sum of two values of one shape; ``other`` may be a vector (C,)."""
        return self._add(nodes.Add(name=self._name("add", name), input=x, other=other))

    def multiply(self, x: str, other: str, *, name: str | None = None) -> str:
        """Product of two values of one shape; ``other`` may be a vector (C,)."""
        return self._add(nodes.Multiply(name=self._name("multiply", name), input=x, other=other))

    def concat(self, x: str, *others: str, name: str | None = None) -> str:
        """Join the channels of several maps, one after the other."""
        return self._add(nodes.Concat(name=self._name("concat", name), input=x, others=others))

    def slice_channels(self, x: str, begin: int, end: int, *, name: str | None = None) -> str:
        """Take the channels from ``begin`` up to ``end``."""
        name = self._name("slice_channels", name)
        return self._add(nodes.SliceChannels(name=name, input=x, begin=begin, end=end))

    def shuffle_channels(self, x: str, groups: int, *, name: str | None = None) -> str:
        """Channel g * (C / groups) + i becomes channel i * groups + g."""
        name = self._name("shuffle_channels", name)
        return self._add(nodes.ShuffleChannels(name=name, input=x, groups=groups))

    def pad2d(
        self, x: str, padding: PaddingLike, value: float = 0.0, *, name: str | None = None
    ) -> str:
        """Put a border of ``value`` around a map of floats or signs."""
        name = self._name("pad2d", name)
        sides = as_padding(padding)
        return self._add(nodes.Pad2d(name=name, input=x, padding=sides, value=float(value)))

    def max_pool2d(
        self,
        x: str,
        kernel: PairLike,
        stride: PairLike | None = None,
        *,
        padding: PaddingLike = 0,
        name: str | None = None,
    ) -> str:
        """Maximum over a window; ``stride`` is the kernel unless given."""
        return self._add(
            nodes.MaxPool2d(
                name=self._name("max_pool2d", name),
                input=x,
                kernel=as_pair(kernel),
                stride=as_pair(kernel if stride is None else stride),
                padding=as_padding(padding),
            )
        )

    def avg_pool2d(
        self,
        x: str,
        kernel: PairLike,
        stride: PairLike | None = None,
        *,
        padding: PaddingLike = 0,
        count_include_pad: bool = True,
        name: str | None = None,
    ) -> str:
        """Mean over a window; ``stride`` is the kernel unless given."""
        return self._add(
            nodes.AvgPool2d(
                name=self._name("avg_pool2d", name),
                input=x,
                kernel=as_pair(kernel),
                stride=as_pair(kernel if stride is None else stride),
                padding=as_padding(padding),
                count_include_pad=count_include_pad,
            )
        )

    def global_pool2d(
        self, x: str, mode: Literal["mean", "max"] = "mean", *, name: str | None = None
    ) -> str:
        """Mean or maximum of every channel: (H, W, C) -> (C,)."""
        name = self._name("global_pool2d", name)
        return self._add(nodes.GlobalPool2d(name=name, input=x, mode=mode))

    def flatten(
        self,
        x: str,
        order: Literal["channels_first", "channels_last"],
        *,
        name: str | None = None,
    ) -> str:
        """(H, W, C) -> (H * W * C,) in the order of the framework that trained the network."""
        return self._add(nodes.Flatten(name=self._name("flatten", name), input=x, order=order))

    def reshape(self, x: str, shape: Sequence[int], *, name: str | None = None) -> str:
        """Another shape for the same elements in the same order."""
        name = self._name("reshape", name)
        return self._add(nodes.Reshape(name=name, input=x, shape=tuple(int(v) for v in shape)))

    def softmax(self, x: str, *, name: str | None = None) -> str:
        """Softmax of a vector."""
        return self._add(nodes.Softmax(name=self._name("softmax", name), input=x))

    def _name(self, operation: str, name: str | None) -> str:
        if name is not None:
            return name
        taken = sum(n.__struct_config__.tag == operation for n in self._nodes)
        return f"{operation}_{taken}"

    def _add(self, node: nodes.Node) -> str:
        self._nodes.append(node)
        return node.name

    def _weight(self, name: str, value: ArrayLike | BitTensor) -> str:
        if isinstance(value, BitTensor):
            self.tensors[name] = value.words
        elif isinstance(value, np.ndarray) and value.dtype in (np.int16, np.int8):
            self.tensors[name] = np.ascontiguousarray(value)
        else:
            return self._floats(name, value)
        return name

    def _floats(self, name: str, value: ArrayLike) -> str:
        try:
            self.tensors[name] = np.ascontiguousarray(value, dtype=np.float32)
        except (TypeError, ValueError) as error:
            raise ShapeError(f"{name}: not an array of numbers: {error}") from error
        return name

    def _optional(self, name: str, value: ArrayLike | None) -> str | None:
        return None if value is None else self._floats(name, value)

    def _signs(self, name: str, value: NDArray[Any]) -> str:
        self.tensors[name] = bits.pack(value).words
        return name

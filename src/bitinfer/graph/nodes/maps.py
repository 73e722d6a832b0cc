"""The nodes that move elements about, or look at several of a map at once."""

from __future__ import annotations

import math
from typing import Literal

import numpy as np

from bitinfer.errors import ShapeError
from bitinfer.graph import checks
from bitinfer.graph.nodes.base import Node, TensorName, ValueName
from bitinfer.graph.nodes.elementwise import FloatNode
from bitinfer.graph.values import NO_PADDING, Padding, Pair, Tensors, Value, Values


class BetaMap(Node, frozen=True, tag="beta_map"):
    """XNOR-Net's activation scale K (Rastegari et al. 2016, section 3.2), from the float input.

    The mean of |x| over the channels of each group, box-filtered with the kernel, stride, padding
    and dilation of the convolution that it scales; padded taps are 0 and the divisor is the full
    kh * kw at the borders too.  (H, W, C) -> (Hout, Wout, groups); a vector (C,) -> (1,).
    """

    kernel: Pair = (1, 1)
    stride: Pair = (1, 1)
    padding: Padding = NO_PADDING
    dilation: Pair = (1, 1)
    groups: int = 1

    def rule(self, values: Values, tensors: Tensors) -> Value:
        """See :meth:`Node.rule`."""
        source = values[self.input]
        checks.want_kind(source, "float")
        if self.groups < 1 or source.shape[-1] % self.groups:
            raise ShapeError(f"{self.groups} groups do not divide {source.shape[-1]} channels")
        if len(source.shape) == 1:
            if self != BetaMap(name=self.name, input=self.input):
                raise ShapeError(
                    "a vector has one scale: kernel, stride and the rest must be default"
                )
            return Value("float", (1,))
        height, width, _ = source.shape
        out = checks.window_output(
            (height, width), self.kernel, self.stride, self.padding, self.dilation
        )
        checks.check_padded(source.shape, self.padding)
        return Value("float", (*out, self.groups))

    def operations(self, source: Value, result: Value, tensors: Tensors) -> int:
        """See :meth:`Node.operations`."""
        return math.prod(source.shape) + math.prod(result.shape) * math.prod(self.kernel)


class Concat(Node, frozen=True, tag="concat"):
    """The channels of several float values of the same height and width, one after the other."""

    others: tuple[ValueName, ...]

    def rule(self, values: Values, tensors: Tensors) -> Value:
        """See :meth:`Node.rule`."""
        source = values[self.input]
        checks.want_kind(source, "float")
        channels = source.shape[-1]
        for name in self.others:
            other = values[name]
            if other.kind != "float" or other.shape[:-1] != source.shape[:-1]:
                raise ShapeError(
                    f"{name!r} is {other.kind} of shape {other.shape}, wanted float with the "
                    f"height and width of {source.shape}"
                )
            channels += other.shape[-1]
        return Value("float", (*source.shape[:-1], channels))

    def is_identity(self, source: Value) -> bool:
        """See :meth:`Node.is_identity`."""
        return not self.others


class SliceChannels(Node, frozen=True, tag="slice_channels"):
    """The channels of a float value from ``begin`` up to ``end``."""

    begin: int
    end: int

    def rule(self, values: Values, tensors: Tensors) -> Value:
        """See :meth:`Node.rule`."""
        source = values[self.input]
        checks.want_kind(source, "float")
        channels = source.shape[-1]
        if not 0 <= self.begin < self.end <= channels:
            raise ShapeError(f"channels {self.begin} to {self.end} of {channels}")
        return Value("float", (*source.shape[:-1], self.end - self.begin))

    def is_identity(self, source: Value) -> bool:
        """See :meth:`Node.is_identity`."""
        return self.end - self.begin == source.shape[-1]


class ShuffleChannels(FloatNode, frozen=True, tag="shuffle_channels"):
    """Channel g * (C / groups) + i of a float value becomes channel i * groups + g (ShuffleNet)."""

    groups: int

    def check(self, source: Value, values: Values, tensors: Tensors) -> None:
        """See :meth:`FloatNode.check`."""
        if self.groups < 1 or source.shape[-1] % self.groups:
            raise ShapeError(f"{self.groups} groups do not divide {source.shape[-1]} channels")

    def is_identity(self, source: Value) -> bool:
        """See :meth:`Node.is_identity`."""
        return self.groups in (1, source.shape[-1])


class Pad2d(Node, frozen=True, tag="pad2d"):
    """A border of ``value`` around a map, of floats, or of signs (``value`` -1 or +1)."""

    padding: Padding
    value: float = 0.0

    def rule(self, values: Values, tensors: Tensors) -> Value:
        """See :meth:`Node.rule`."""
        source = values[self.input]
        checks.want_kind(source, "float", "sign")
        checks.want_rank(source, 3)
        if source.kind == "sign" and self.value not in (-1, 1):
            raise ShapeError(f"signs cannot be padded with {self.value}, wanted -1 or 1")
        if not abs(self.value) <= float(np.finfo(np.float32).max):
            raise ShapeError(f"value is {self.value}, wanted a finite float32 number")
        if not all(0 <= v <= checks.MAX_EXTENT for v in self.padding):
            raise ShapeError(f"padding {self.padding} is not within 0 to {checks.MAX_EXTENT}")
        checks.check_padded(source.shape, self.padding)
        top, bottom, left, right = self.padding
        height, width, channels = source.shape
        return Value(source.kind, (height + top + bottom, width + left + right, channels))

    def is_identity(self, source: Value) -> bool:
        """See :meth:`Node.is_identity`."""
        return not any(self.padding)


class MaxPool2d(Node, frozen=True, tag="max_pool2d"):
    """Maximum over a window, of floats or signs; padded taps never win.

    ``minimum`` (C,) uint8: where it is 1, the minimum of the signs is taken instead.  Passes make
    such channels when they move a pool behind a comparison that falls as its input rises.
    """

    kernel: Pair
    stride: Pair
    padding: Padding = NO_PADDING
    minimum: TensorName | None = None

    def rule(self, values: Values, tensors: Tensors) -> Value:
        """See :meth:`Node.rule`."""
        source = values[self.input]
        checks.want_kind(source, "float", "sign")
        result = _pooled(self, source)
        if self.minimum is not None:
            checks.want_kind(source, "sign")
            checks.check_flags(tensors, self.minimum, source.shape[-1:])
        return result

    def operations(self, source: Value, result: Value, tensors: Tensors) -> int:
        """See :meth:`Node.operations`."""
        return math.prod(result.shape) * math.prod(self.kernel)

    def is_identity(self, source: Value) -> bool:
        """See :meth:`Node.is_identity`."""
        return self.kernel == self.stride == (1, 1)

    def is_never_negative(self) -> bool | None:
        """See :meth:`Node.is_never_negative`."""
        return None


class AvgPool2d(Node, frozen=True, tag="avg_pool2d"):
    """Mean over a window.

    ``count_include_pad``: the divisor is the whole window (padded taps are 0), as PyTorch's
    default; otherwise only the taps inside the map count, as TensorFlow's.
    """

    kernel: Pair
    stride: Pair
    padding: Padding = NO_PADDING
    count_include_pad: bool = True

    def rule(self, values: Values, tensors: Tensors) -> Value:
        """See :meth:`Node.rule`."""
        source = values[self.input]
        checks.want_kind(source, "float")
        return _pooled(self, source)

    def operations(self, source: Value, result: Value, tensors: Tensors) -> int:
        """See :meth:`Node.operations`."""
        return math.prod(result.shape) * math.prod(self.kernel)

    def is_identity(self, source: Value) -> bool:
        """See :meth:`Node.is_identity`."""
        return self.kernel == self.stride == (1, 1)


class GlobalPool2d(Node, frozen=True, tag="global_pool2d"):
    """Mean or maximum of every channel of a float map: (H, W, C) -> (C,)."""

    mode: Literal["mean", "max"] = "mean"

    def rule(self, values: Values, tensors: Tensors) -> Value:
        """See :meth:`Node.rule`."""
        source = values[self.input]
        checks.want_kind(source, "float")
        checks.want_rank(source, 3)
        return Value("float", source.shape[-1:])

    def operations(self, source: Value, result: Value, tensors: Tensors) -> int:
        """See :meth:`Node.operations`."""
        return math.prod(source.shape)


class Flatten(Node, frozen=True, tag="flatten"):
    """(H, W, C) -> (H * W * C,), of floats or signs.

    ``channels_last``: index (y * W + x) * C + c, as TensorFlow's; ``channels_first``:
    (c * H + y) * W + x, as PyTorch's.
    """

    order: Literal["channels_first", "channels_last"]

    def rule(self, values: Values, tensors: Tensors) -> Value:
        """See :meth:`Node.rule`."""
        source = values[self.input]
        checks.want_kind(source, "float", "sign")
        return Value(source.kind, (math.prod(source.shape),))

    def is_identity(self, source: Value) -> bool:
        """See :meth:`Node.is_identity`."""
        return len(source.shape) == 1

    def is_never_negative(self) -> bool | None:
        """See :meth:`Node.is_never_negative`."""
        return None


class Reshape(Node, frozen=True, tag="reshape"):
    """Another shape for the same float elements in the same order, channels last."""

    shape: tuple[int, ...]

    def rule(self, values: Values, tensors: Tensors) -> Value:
        """See :meth:`Node.rule`."""
        source = values[self.input]
        checks.want_kind(source, "float")
        if len(self.shape) not in (1, 3) or math.prod(self.shape) != math.prod(source.shape):
            raise ShapeError(
                f"{source.shape} cannot become {self.shape}: wanted (H, W, C) or (C,) with as many "
                "elements"
            )
        return Value("float", self.shape)

    def is_identity(self, source: Value) -> bool:
        """See :meth:`Node.is_identity`."""
        return self.shape == source.shape

    def is_never_negative(self) -> bool | None:
        """See :meth:`Node.is_never_negative`."""
        return None


def _pooled(node: MaxPool2d | AvgPool2d, source: Value) -> Value:
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
    return Value(source.kind, (*out, channels))

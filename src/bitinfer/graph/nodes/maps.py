"""Nodes with a window or a border: pools, padding, and XNOR-Net's activation scale."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Literal

import numpy as np

from bitinfer.errors import ShapeError
from bitinfer.graph import checks
from bitinfer.graph.checks import Known, Tensors, Value
from bitinfer.graph.nodes.base import NO_PADDING, BaseNode, ChannelFlags, Padding, Pair


class BetaMap(BaseNode, frozen=True, tag="beta_map"):
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

    def rule(self, source: Value, known: Known) -> Value:
        """Make a map with a channel for each group."""
        if self.groups < 1 or source.shape[-1] % self.groups:
            raise ShapeError(f"{self.groups} groups do not divide {source.shape[-1]} channels")
        if len(source.shape) == 1:
            if self != BetaMap(name=self.name, input=self.input):
                raise ShapeError(
                    "a vector has one scale: kernel, stride and the rest must be default"
                )
            return Value("float", (1,))
        height, width, _ = source.shape
        extent = (height, width)
        out = checks.window_output(extent, self.kernel, self.stride, self.padding, self.dilation)
        checks.check_padded(source.shape, self.padding)
        return Value("float", (*out, self.groups))

    def operations(self, values: Mapping[str, Value], tensors: Tensors) -> int:
        """Return the elements that are summed over channels, and the taps of the box filter."""
        taps = math.prod(values[self.name].shape) * math.prod(self.kernel)
        return math.prod(values[self.input].shape) + taps


class Pad2d(BaseNode, frozen=True, tag="pad2d"):
    """A border of ``value`` around a map, of floats, or of signs (``value`` -1 or +1)."""

    padding: Padding
    value: float = 0.0

    takes = ("float", "sign")

    def rule(self, source: Value, known: Known) -> Value:
        """Make a larger map of the same kind."""
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

    def is_identity(self, source: Value, is_never_negative: Callable[[], bool]) -> bool:
        """No border changes nothing."""
        return not any(self.padding)


class _Pool(BaseNode, frozen=True):
    """A window that slides over a map; it must not lie outside."""

    kernel: Pair
    stride: Pair
    padding: Padding = NO_PADDING

    def rule(self, source: Value, known: Known) -> Value:
        """Make a map of the same kind and channels."""
        checks.want_rank(source, 3)
        height, width, channels = source.shape
        out = checks.window_output((height, width), self.kernel, self.stride, self.padding)
        checks.check_padded(source.shape, self.padding)
        for index, pad in enumerate(self.padding):
            if pad >= self.kernel[index // 2]:
                raise ShapeError(
                    f"padding {self.padding} is not smaller than kernel {self.kernel}: "
                    "a window would lie outside the map"
                )
        return Value(source.kind, (*out, channels))

    def operations(self, values: Mapping[str, Value], tensors: Tensors) -> int:
        """Return the taps of all windows."""
        return math.prod(values[self.name].shape) * math.prod(self.kernel)

    def is_identity(self, source: Value, is_never_negative: Callable[[], bool]) -> bool:
        """Change nothing with a window of one element."""
        return self.kernel == self.stride == (1, 1)


class MaxPool2d(_Pool, frozen=True, tag="max_pool2d"):
    """Maximum over a window, of floats or signs; padded taps never win.

    ``minimum`` (C,) uint8: where it is 1, the minimum of the signs is taken instead.  Passes make
    such channels when they move a pool behind a comparison that falls as its input rises.
    """

    minimum: ChannelFlags | None = None

    takes = ("float", "sign")

    def infer(self, known: Known) -> tuple[Value, ...]:
        """Check the node; only signs have a minimum."""
        if self.minimum is not None:
            checks.want_kind(known.values[self.input], "sign")
        return super().infer(known)

    def never_negative(self) -> None:
        """As its input is."""


class AvgPool2d(_Pool, frozen=True, tag="avg_pool2d"):
    """Mean over a window.

    ``count_include_pad``: the divisor is the whole window (padded taps are 0), as PyTorch's
    default; otherwise only the taps inside the map count, as TensorFlow's.
    """

    count_include_pad: bool = True


class GlobalPool2d(BaseNode, frozen=True, tag="global_pool2d"):
    """Mean or maximum of every channel of a float map: (H, W, C) -> (C,)."""

    mode: Literal["mean", "max"] = "mean"

    def rule(self, source: Value, known: Known) -> Value:
        """Make a vector of one element per channel."""
        checks.want_rank(source, 3)
        return Value("float", source.shape[-1:])

    def operations(self, values: Mapping[str, Value], tensors: Tensors) -> int:
        """Return the elements that are read."""
        return math.prod(values[self.input].shape)

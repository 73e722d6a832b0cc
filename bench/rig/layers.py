"""The layers that are measured, and their data and right answers."""

from __future__ import annotations

import dataclasses
import functools
import zlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


@dataclasses.dataclass(frozen=True)
class Layer:
    """A convolution with square maps and windows, or (``kernel`` 0) a dense layer."""

    name: str
    channels: int
    size: int
    outputs: int
    kernel: int
    pad: int = 0
    stride: int = 1

    @property
    def is_dense(self) -> bool:
        """Whether this is a dense layer."""
        return self.kernel == 0

    @property
    def window(self) -> int:
        """Width of the window; 1 for a dense layer, which is a 1x1 convolution of one pixel."""
        return max(self.kernel, 1)

    @property
    def out_size(self) -> int:
        """Height and width of the output."""
        return (self.size + 2 * self.pad - self.window) // self.stride + 1

    @property
    def macs(self) -> int:
        """Multiply-accumulates of a direct convolution, those with padding included."""
        return self.out_size**2 * self.outputs * self.window**2 * self.channels

    @property
    def facts(self) -> dict[str, Any]:
        """What is recorded of it."""
        return {
            "layer": self.name,
            "shape": self.text,
            "channels": self.channels,
            "kernel_size": self.window,
            "macs": self.macs,
            "input_elements": self.size**2 * self.channels,
            "weight_elements": self.outputs * self.window**2 * self.channels,
            "output_elements": self.out_size**2 * self.outputs,
        }

    @property
    def text(self) -> str:
        """What the layer is, in words."""
        if self.is_dense:
            return f"dense {self.channels} -> {self.outputs}"
        stride = f", stride {self.stride}" if self.stride != 1 else ""
        return (
            f"{self.channels} x {self.size} x {self.size} -> {self.outputs}, "
            f"{self.kernel}x{self.kernel}{stride}"
        )


LAYERS = (
    Layer("R1", 64, 56, 64, 3, 1),
    Layer("R2", 128, 28, 128, 3, 1),
    Layer("R3", 256, 14, 256, 3, 1),
    Layer("R4", 512, 7, 512, 3, 1),
    Layer("P1", 256, 14, 256, 1),
    Layer("A2", 96, 27, 256, 5, 2),
    Layer("A3", 256, 13, 384, 3, 1),
    Layer("F1", 4096, 1, 4096, 0),
    Layer("N1", 192, 32, 160, 1),
    Layer("N2", 96, 16, 192, 5, 2),
    Layer("S2", 128, 28, 256, 3, 1, 2),
    Layer("D1", 100, 20, 100, 3, 1),
)
"""R: the stages of ResNet-18; P: pointwise; A: AlexNet; F: its dense layer; N: network in network;
S: stride 2; D: a channel count that is no multiple of anything."""

NARROW = tuple(
    Layer(f"n{c}x{size}", c, size, c, 3, 1)
    for c in (8, 16, 24, 32, 48, 64, 96)
    for size in (4, 8, 16, 32, 56, 112)
)
"""Few channels, as in networks for small pictures, on maps of all sizes."""

FIGURE4_CHANNELS = tuple(
    Layer(f"c{c}", c, 14, 256, 3, 1) for c in (8, 16, 32, 64, 128, 256, 512, 1024)
)
FIGURE4_KERNELS = tuple(Layer(f"k{k}", 256, 14, 256, k, k // 2) for k in (1, 3, 5, 7, 9, 11))
"""XNOR-Net, figure 4: c = 256, a 14x14 map and 3x3 windows, with one of them varied."""


class Problem:
    """Input, weights and right answers of one layer; maps are (H, W, C), without a batch axis.

    Binary engines get scales that are powers of two and small integer biases, so that their float
    result is exact and can be compared with ``==``.  So are shortcut and RPReLU.
    """

    def __init__(self, layer: Layer) -> None:
        rng = np.random.default_rng(zlib.crc32(layer.name.encode()))
        self.layer = layer
        n, k = layer.size, layer.window
        self.x: Array = rng.standard_normal((n, n, layer.channels), np.float32)
        weight_shape = (layer.outputs, k, k, layer.channels)
        self.weight: Array = rng.standard_normal(weight_shape, np.float32)
        self.bias: Array = rng.integers(-9, 10, layer.outputs).astype(np.float32)
        self.alpha: Array = rng.choice(np.float32([0.25, 0.5, 1, 2]), layer.outputs)
        deviation = (k * k * layer.channels) ** 0.5
        self.threshold: Array = np.rint(rng.normal(0, deviation / 2, layer.outputs)).astype(
            np.int32
        )
        self.flip: Array = rng.random(layer.outputs) < 0.3
        out_shape = (layer.out_size, layer.out_size, layer.outputs)
        self.shortcut: Array = rng.integers(-40, 41, out_shape).astype(np.float32)
        self.shift_in, self.shift_out = rng.integers(-9, 10, (2, layer.outputs)).astype(np.float32)
        self.slope: Array = rng.choice(np.float32([0.125, 0.25, 0.5]), layer.outputs)

    @functools.cached_property
    def expected_float(self) -> Array:
        """The float convolution plus bias, in float64."""
        return _convolve(self.x, self.weight, self.layer) + self.bias

    @functools.cached_property
    def dot(self) -> Array:
        """The convolution of the signs, zero-padded: integers."""
        x = np.where(self.x < 0, -1.0, 1.0)
        return _convolve(x, np.where(self.weight < 0, -1.0, 1.0), self.layer)

    @property
    def expected_binary(self) -> Array:
        """What a binary layer with scales and biases returns."""
        return self.dot * self.alpha + self.bias

    @property
    def expected_shortcut(self) -> Array:
        """What the shortcut and an RPReLU make of it: floats, and then their signs as 0 and 1."""
        y = self.expected_binary + self.shortcut + self.shift_in
        y = np.where(y < 0, y * self.slope, y) + self.shift_out
        return np.stack([y, y < 0])

    @property
    def expected_bits(self) -> Array:
        """What a binary layer with thresholds returns: whether the sign is negative."""
        return (self.dot < self.threshold) != self.flip

    def nchw(self) -> Array:
        """Return the input as (1, C, H, W)."""
        return np.ascontiguousarray(self.x.transpose(2, 0, 1)[None])

    def oihw(self) -> Array:
        """Return the weights as (Cout, Cin, kh, kw)."""
        return np.ascontiguousarray(self.weight.transpose(0, 3, 1, 2))


def _convolve(x: Array, weight: Array, layer: Layer) -> Array:
    """Add up the maps of all taps, in float64."""
    pad, stride, size = layer.pad, layer.stride, layer.out_size
    padded = np.pad(x.astype(np.float64), ((pad, pad), (pad, pad), (0, 0)))
    result = np.zeros((size, size, layer.outputs))
    reach = (size - 1) * stride + 1
    for i in range(layer.window):
        for j in range(layer.window):
            tap = padded[i : i + reach : stride, j : j + reach : stride]
            result += tap @ weight[:, i, j].astype(np.float64).T
    return result

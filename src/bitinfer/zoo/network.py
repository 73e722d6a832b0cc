"""What the builders of all families share: layers with parameters from a source, and sizes."""

from __future__ import annotations

import math
from typing import Literal

from bitinfer import bits
from bitinfer.graph import GraphBuilder
from bitinfer.graph.nodes import Padding
from bitinfer.zoo.parameters import BEHIND_RELU, Expected, ParameterSource, Shape

Size = tuple[int, int]


def strided(size: Size, stride: int = 2) -> Size:
    """Return (H, W) of what a stride leaves where padding keeps the borders."""
    return (-(-size[0] // stride), -(-size[1] // stride))


def same(size: Size, kernel: int, stride: int = 1) -> Padding:
    """Return TensorFlow's padding ``same`` of a map of (H, W): the odd one out goes below, right.

    As many pixels as make ceil(H / stride) windows fit, none where they fit already.
    """
    rows, columns = (
        max((out - 1) * stride + kernel - side, 0)
        for out, side in zip(strided(size, stride), size, strict=True)
    )
    return (rows // 2, rows - rows // 2, columns // 2, columns - columns // 2)


class Network:
    """Appends layers to a graph; each method returns the name of the value it makes.

    Layers and BatchNorms bear the name by which their parameters are asked for.
    """

    def __init__(
        self, name: str, input_shape: Shape, source: ParameterSource, *, epsilon: float
    ) -> None:
        self.b = GraphBuilder(name, input_shape)
        self.source = source
        self.epsilon = epsilon

    def conv(
        self,
        x: str,
        name: str,
        cin: int,
        cout: int,
        kernel: int,
        *,
        stride: int = 1,
        padding: int | Padding = 0,
        groups: int = 1,
        has_bias: bool = True,
    ) -> str:
        """Float convolution."""
        shape = (cout, kernel, kernel, cin // groups)
        p = self.source.layer(name, shape, is_binary=False, has_bias=has_bias)
        return self.b.conv2d(
            x, p.weight, p.bias, stride=stride, padding=padding, groups=groups, name=name
        )

    def dense(self, x: str, name: str, cin: int, cout: int, *, has_bias: bool = True) -> str:
        """Float dense layer."""
        p = self.source.layer(name, (cout, cin), is_binary=False, has_bias=has_bias)
        return self.b.dense(x, p.weight, p.bias, name=name)

    def sign_conv(
        self,
        x: str,
        name: str,
        cin: int,
        cout: int,
        kernel: int,
        *,
        stride: int = 1,
        padding: int | Padding = 0,
        pad_value: Literal[-1, 0, 1] = 0,
        has_bias: bool = False,
        has_alpha: bool = False,
    ) -> str:
        """Binary convolution of signs."""
        shape = (cout, kernel, kernel, cin)
        p = self.source.layer(name, shape, is_binary=True, has_bias=has_bias, has_alpha=has_alpha)
        return self.b.bconv2d(
            x,
            p.weight,
            alpha=p.alpha,
            bias=p.bias,
            stride=stride,
            padding=padding,
            pad_value=pad_value,
            name=name,
        )

    def sign_dense(
        self,
        x: str,
        name: str,
        cin: int,
        cout: int,
        *,
        flattened: Size | None = None,
        has_bias: bool = False,
        has_alpha: bool = False,
    ) -> str:
        """Binary dense layer of signs."""
        p = self.source.layer(
            name,
            (cout, cin),
            is_binary=True,
            flattened=flattened,
            has_bias=has_bias,
            has_alpha=has_alpha,
        )
        return self.b.bdense(x, p.weight, alpha=p.alpha, bias=p.bias, name=name)

    def binary_weight_conv(
        self,
        x: str,
        name: str,
        cin: int,
        cout: int,
        kernel: int,
        *,
        padding: int = 0,
        scale: float | None = None,
        has_bias: bool = False,
    ) -> str:
        """Convolution of numbers with binary weights; sums are multiplied with ``scale``."""
        shape = (cout, kernel, kernel, cin)
        p = self.source.layer(name, shape, is_binary=True, has_bias=has_bias, has_alpha=False)
        alpha = None if scale is None else [scale] * cout
        weight = bits.pack(p.weight)
        return self.b.conv2d(x, weight, p.bias, alpha=alpha, padding=padding, name=name)

    def norm(
        self,
        x: str,
        name: str,
        channels: int,
        *,
        is_affine: bool = True,
        epsilon: float | None = None,
        flattened: Size | None = None,
        expected: Expected = BEHIND_RELU,
    ) -> str:
        """BatchNorm over the channels."""
        epsilon = self.epsilon if epsilon is None else epsilon
        p = self.source.norm(
            name,
            channels,
            is_affine=is_affine,
            epsilon=epsilon,
            flattened=flattened,
            expected=expected,
        )
        return self.b.batch_norm(x, p.mean, p.variance, p.gamma, p.beta, epsilon=epsilon, name=name)


def sums(length: int, *, after_relu: bool = False) -> Expected:
    """Return what a BatchNorm expects of sums of ``length`` signs, gamma of either sign."""
    return Expected(0.4 if after_relu else 0.0, math.sqrt(length), signed=True)


CENTRED = Expected(0.0, signed=True)
"""Values near 1 of mean 0, gamma of either sign."""

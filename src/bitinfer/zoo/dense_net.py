"""Networks that append what a binary convolution makes: BinaryDenseNet-28 and MeliusNet-22.

Papers: Bethge et al. 2019 and 2020.  Source: github.com/larq/zoo, larq_zoo/literature/densenet.py
and meliusnet.py.

    dense block         BatchNorm -> sign -> binary 3x3 convolution of 64 outputs, joined to x
    improvement block   the same, added to the last 64 channels of x
    transition          BatchNorm, then in either order ReLU and 2x2 maximum, then a 1x1 convolution

Binary convolutions have neither bias nor scale; padding contributes 0, where TensorFlow puts it.
The output is the logits; the softmax of the source is left to the caller.
"""

from __future__ import annotations

import numpy as np

from bitinfer.bits import Floats
from bitinfer.zoo.network import CENTRED, Network, Size, same, strided
from bitinfer.zoo.parameters import Architecture, Built, Expected, ParameterSource, Shape

GROWTH = 64
"""Channels that a block makes."""

DENSE_EPSILON = 1e-5
MELIUS_EPSILON = 1e-3
"""Keras' own, which the source leaves as it is."""


class _Network(Network):
    """``deviations`` are those of the channels that the next block reads."""

    deviations: Floats

    def binary_conv(self, x: str, name: str) -> str:
        """BatchNorm, sign and convolution, whose sums are integers."""
        x = self.block_norm(x, f"{name}.bn")
        x = self.b.sign(x, name=f"{name}.sign")
        return self.sign_conv(x, f"{name}.conv", len(self.deviations), GROWTH, 3, padding=1)

    def block_norm(self, x: str, name: str) -> str:
        expected = Expected(0.0, self.deviations, signed=True)
        return self.norm(x, name, len(self.deviations), expected=expected)

    def dense_block(self, x: str, name: str) -> str:
        y = self.binary_conv(x, name)
        made = np.full(GROWTH, self.sum_deviation, np.float32)
        self.deviations = np.concatenate([self.deviations, made])
        return self.b.concat(x, y, name=f"{name}.concat")

    def improvement_block(self, x: str, name: str) -> str:
        y = self.binary_conv(x, name)
        rest = len(self.deviations) - GROWTH
        last = self.b.slice_channels(x, rest, rest + GROWTH, name=f"{name}.last")
        first = self.b.slice_channels(x, 0, rest, name=f"{name}.first")
        deviations = self.deviations.copy()
        deviations[rest:] = np.hypot(deviations[rest:], self.sum_deviation)
        self.deviations = deviations
        added = self.b.add(last, y, name=f"{name}.add")
        return self.b.concat(first, added, name=f"{name}.concat")

    @property
    def sum_deviation(self) -> float:
        return float((9 * len(self.deviations)) ** 0.5)

    def reset(self, channels: int) -> None:
        self.deviations = np.ones(channels, np.float32)

    def top(self, x: str, classes: int) -> Built:
        x = self.b.relu(self.block_norm(x, "top.bn"), name="top.relu")
        x = self.b.global_pool2d(x, name="top.pool")
        return self.b.build(self.dense(x, "top.dense", len(self.deviations), classes))


DENSE28_BLOCKS = (6, 6, 6, 5)
DENSE28_REDUCTIONS = (2.7, 2.7, 2.2)
"""What the channels are divided by between sections, before they are rounded to 32."""


def binary_densenet28(source: ParameterSource, classes: int, input_shape: Shape) -> Built:
    """BinaryDenseNet-28 for ImageNet: (224, 224, 3) -> (classes,)."""
    net = _Network("binary-densenet28", input_shape, source, epsilon=DENSE_EPSILON)
    b = net.b
    size: Size = input_shape[:2]
    padding = same(size, 7, 2)
    x = net.conv(
        b.input, "stem.conv", input_shape[2], 64, 7, stride=2, padding=padding, has_bias=False
    )
    size = strided(size)
    x = b.relu(net.norm(x, "stem.bn", 64, expected=CENTRED), name="stem.relu")
    x = b.max_pool2d(x, 3, 2, padding=same(size, 3, 2), name="stem.pool")
    net.reset(64)
    for section, blocks in enumerate(DENSE28_BLOCKS):
        for block in range(blocks):
            x = net.dense_block(x, f"section{section}.{block}")
        if section < len(DENSE28_REDUCTIONS):
            name = f"transition{section}"
            channels = len(net.deviations)
            width = round(channels // DENSE28_REDUCTIONS[section] / 32) * 32
            x = net.block_norm(x, f"{name}.bn")
            x = b.relu(b.max_pool2d(x, 2, name=f"{name}.pool"), name=f"{name}.relu")
            x = net.conv(x, f"{name}.conv", channels, width, 1, has_bias=False)
            net.reset(width)
    return net.top(x, classes)


MELIUS22_BLOCKS = (4, 5, 4, 4)
MELIUS22_WIDTHS = (160, 224, 256)
"""Behind each transition."""


def meliusnet22(source: ParameterSource, classes: int, input_shape: Shape) -> Built:
    """MeliusNet-22 for ImageNet: (224, 224, 3) -> (classes,)."""
    net = _Network("meliusnet22", input_shape, source, epsilon=MELIUS_EPSILON)
    b = net.b
    size: Size = input_shape[:2]
    x, channels = b.input, input_shape[2]
    for number, (width, stride, groups) in enumerate(((32, 2, 1), (32, 1, 4), (64, 1, 8))):
        name = f"stem.{number}"
        padding = same(size, 3, stride)
        x = net.conv(
            x,
            f"{name}.conv",
            channels,
            width,
            3,
            stride=stride,
            padding=padding,
            groups=groups,
            has_bias=False,
        )
        x = b.relu(net.norm(x, f"{name}.bn", width, expected=CENTRED), name=f"{name}.relu")
        size, channels = strided(size, stride), width
    x = b.max_pool2d(x, 2, padding=same(size, 2, 2), name="stem.pool")
    size = strided(size)
    net.reset(channels)
    for section, blocks in enumerate(MELIUS22_BLOCKS):
        for block in range(blocks):
            x = net.dense_block(x, f"section{section}.{block}.dense")
            x = net.improvement_block(x, f"section{section}.{block}.improvement")
        if section < len(MELIUS22_WIDTHS):
            name, width = f"transition{section}", MELIUS22_WIDTHS[section]
            channels = len(net.deviations)
            x = net.block_norm(x, f"{name}.bn")
            x = b.max_pool2d(x, 2, padding=same(size, 2, 2), name=f"{name}.pool")
            size = strided(size)
            x = b.relu(x, name=f"{name}.relu")
            x = net.conv(x, f"{name}.conv", channels, width, 1, has_bias=False)
            net.reset(width)
    return net.top(x, classes)


ARCHITECTURES = (
    Architecture(
        "binary-densenet28",
        (224, 224, 3),
        1000,
        "top.dense",
        binary_densenet28,
        "Bethge et al. 2019",
    ),
    Architecture(
        "meliusnet22", (224, 224, 3), 1000, "top.dense", meliusnet22, "Bethge et al. 2020"
    ),
)

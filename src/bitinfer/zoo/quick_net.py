"""QuickNet small, base and large (Bannink et al. 2021).

Source: github.com/larq/zoo, larq_zoo/sota/quicknet.py.

    residual block    sign -> binary 3x3 convolution, padded with +1 -> ReLU -> BatchNorm -> + input
    transition        ReLU -> 2x2 maximum at every pixel -> 3x3 blur, stride 2 -> 1x1 convolution
                      -> BatchNorm

Convolutions have neither bias nor scale, and TensorFlow's padding.  The output is the logits; the
softmax of the source is left to the caller.
"""

from __future__ import annotations

import functools

import numpy as np

from bitinfer.zoo.network import CENTRED, Network, Size, same, strided, sums
from bitinfer.zoo.parameters import Architecture, Built, ParameterSource, Shape

EPSILON = 1e-5
STEM_EPSILON = 1e-3
"""Keras' own, which the source leaves as it is there."""

BLUR = (1, 2, 1)
"""One axis of the blur, times 4 (Zhang 2019)."""


class _Network(Network):
    def stem(self, x: str, size: Size, cin: int, cout: int) -> tuple[str, Size]:
        """Quarter the map: a strided convolution, a strided depthwise one, and a 1x1."""
        narrow = cout // 4
        padding = same(size, 3, 2)
        x = self.conv(x, "stem.conv1", cin, narrow, 3, stride=2, padding=padding, has_bias=False)
        x = self.norm(x, "stem.bn1", narrow, epsilon=STEM_EPSILON, expected=CENTRED)
        x = self.b.relu(x, name="stem.relu")
        size = strided(size)
        x = self.conv(
            x,
            "stem.depthwise",
            narrow,
            narrow,
            3,
            stride=2,
            padding=same(size, 3, 2),
            groups=narrow,
            has_bias=False,
        )
        x = self.norm(
            x, "stem.bn2", narrow, is_affine=False, epsilon=STEM_EPSILON, expected=CENTRED
        )
        x = self.conv(x, "stem.conv2", narrow, cout, 1, has_bias=False)
        x = self.norm(x, "stem.bn3", cout, epsilon=STEM_EPSILON, expected=CENTRED)
        return x, strided(size)

    def residual(self, x: str, name: str, channels: int) -> str:
        y = self.b.sign(x, name=f"{name}.sign")
        y = self.sign_conv(y, f"{name}.conv", channels, channels, 3, padding=1, pad_value=1)
        y = self.b.relu(y, name=f"{name}.relu")
        y = self.norm(y, f"{name}.bn", channels, expected=sums(9 * channels, after_relu=True))
        return self.b.add(y, x, name=f"{name}.add")

    def transition(self, x: str, name: str, size: Size, cin: int, cout: int) -> tuple[str, Size]:
        x = self.b.relu(x, name=f"{name}.relu")
        x = self.b.max_pool2d(x, 2, 1, name=f"{name}.pool")
        size = (size[0] - 1, size[1] - 1)
        blur = np.broadcast_to(np.outer(BLUR, BLUR)[:, :, None] / 16, (cin, 3, 3, 1))
        padding = same(size, 3, 2)
        x = self.b.conv2d(x, blur, stride=2, padding=padding, groups=cin, name=f"{name}.blur")
        x = self.conv(x, f"{name}.conv", cin, cout, 1, has_bias=False)
        return self.norm(x, f"{name}.bn", cout, expected=CENTRED), strided(size)


def quicknet(
    name: str,
    blocks: tuple[int, ...],
    widths: tuple[int, ...],
    source: ParameterSource,
    classes: int,
    input_shape: Shape,
) -> Built:
    """QuickNet for ImageNet: (224, 224, 3) -> (classes,)."""
    net = _Network(name, input_shape, source, epsilon=EPSILON)
    b = net.b
    channels = widths[0]
    x, size = net.stem(b.input, input_shape[:2], input_shape[2], channels)
    for section, (count, width) in enumerate(zip(blocks, widths, strict=True)):
        if width != channels:
            x, size = net.transition(x, f"transition{section}", size, channels, width)
        channels = width
        for block in range(count):
            x = net.residual(x, f"section{section}.{block}", channels)
    x = b.relu(x, name="top.relu")
    x = b.global_pool2d(x, name="top.pool")
    return b.build(net.dense(x, "top.dense", channels, classes))


def _architecture(name: str, blocks: tuple[int, ...], widths: tuple[int, ...]) -> Architecture:
    build = functools.partial(quicknet, name, blocks, widths)
    return Architecture(name, (224, 224, 3), 1000, "top.dense", build, "Bannink et al. 2021")


ARCHITECTURES = (
    _architecture("quicknet-small", (4, 4, 4, 4), (32, 64, 256, 512)),
    _architecture("quicknet", (4, 4, 4, 4), (64, 128, 256, 512)),
    _architecture("quicknet-large", (6, 8, 12, 6), (64, 128, 256, 512)),
)

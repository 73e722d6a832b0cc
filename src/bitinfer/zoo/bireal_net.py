"""Bi-Real-Net-18 (Liu et al. 2018): ResNet-18 with a shortcut around every binary convolution.

Source: github.com/liuzechun/Bi-Real-net, pytorch_implementation/BiReal18_34/birealnet.py.  Layers
bear the names of the modules there.

    sign -> binary convolution, alpha -> BatchNorm -> + shortcut

Padding contributes 0; there is no bias and no ReLU, nor one behind the first layer.  The shortcut
of a block that halves the map is a 2x2 average, a float 1x1 convolution and a BatchNorm.
"""

from __future__ import annotations

from bitinfer.zoo.network import CENTRED, Network
from bitinfer.zoo.parameters import Architecture, Built, Expected, ParameterSource, Shape

EPSILON = 1e-5
WIDTHS = (64, 128, 256, 512)
BLOCKS = 4
"""In each stage."""

BEFORE_MAXIMUM = Expected(1.2, signed=True)
"""The largest of 9 numbers near 0 is positive: made-up ones are shifted down."""


class _Network(Network):
    def block(self, x: str, name: str, cin: int, cout: int, *, stride: int) -> str:
        shortcut = x
        if stride != 1 or cin != cout:
            shortcut = self.b.avg_pool2d(x, 2, stride)
            shortcut = self.conv(shortcut, f"{name}.downsample.1", cin, cout, 1, has_bias=False)
            shortcut = self.norm(shortcut, f"{name}.downsample.2", cout, expected=CENTRED)
        x = self.b.sign(x, name=f"{name}.binary_activation")
        x = self.sign_conv(
            x, f"{name}.binary_conv", cin, cout, 3, stride=stride, padding=1, has_alpha=True
        )
        x = self.norm(x, f"{name}.bn1", cout, expected=CENTRED)
        return self.b.add(x, shortcut, name=f"{name}.add")


def bireal18(source: ParameterSource, classes: int, input_shape: Shape) -> Built:
    """Bi-Real-Net-18 for ImageNet: (224, 224, 3) -> (classes,)."""
    net = _Network("bireal18", input_shape, source, epsilon=EPSILON)
    b = net.b
    x = net.conv(b.input, "conv1", input_shape[2], 64, 7, stride=2, padding=3, has_bias=False)
    x = net.norm(x, "bn1", 64, expected=BEFORE_MAXIMUM)
    x = b.max_pool2d(x, 3, 2, padding=1)
    channels = WIDTHS[0]
    for stage, width in enumerate(WIDTHS, start=1):
        for block in range(BLOCKS):
            stride = 2 if stage > 1 and block == 0 else 1
            x = net.block(x, f"layer{stage}.{block}", channels, width, stride=stride)
            channels = width
    x = b.global_pool2d(x)
    return b.build(net.dense(x, "fc", channels, classes))


ARCHITECTURES = (Architecture("bireal18", (224, 224, 3), 1000, "fc", bireal18, "Liu et al. 2018"),)

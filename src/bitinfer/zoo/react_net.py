"""ReActNet-A (Liu et al. 2020): MobileNet's layout with binary convolutions and learned shifts.

Source: github.com/liuzechun/ReActNet, mobilenet/2_step2/reactnet.py.  Layers bear the names of the
modules there.

    RSign -> binary convolution, alpha -> BatchNorm -> + shortcut -> RPReLU

once with a 3x3 and once with a 1x1 convolution.  Padding contributes 0.  Where the map is halved,
the shortcut of the 3x3 is a 2x2 average; where the channels are doubled, there are two 1x1
convolutions with the same input and shortcut, whose outputs are joined.
"""

from __future__ import annotations

from bitinfer.zoo.network import CENTRED, Network
from bitinfer.zoo.parameters import Architecture, Built, Expected, ParameterSource, Shape

EPSILON = 1e-5
WIDTHS = (32, 64, 128, 128, 256, 256, *[512] * 6, 1024, 1024)
"""Of the first convolution and of every block."""

RISING = Expected(0.6, signed=True)
"""RPReLU makes sums of shortcuts rise from block to block: made-up numbers are shifted down."""


class _Network(Network):
    def rsign(self, x: str, name: str, move: str, channels: int) -> str:
        """Sign of x + shift."""
        shift = self.source.vector(f"{move}.bias", channels, "shift")
        return self.b.sign(x, threshold=-shift, name=name)

    def rprelu(self, x: str, name: str, block: str, number: int, channels: int) -> str:
        ask = self.source.vector
        return self.b.rprelu(
            x,
            ask(f"{block}.move{number}2.bias", channels, "shift"),
            ask(f"{block}.prelu{number}.weight", channels, "slope"),
            ask(f"{block}.move{number}3.bias", channels, "shift"),
            name=name,
        )

    def pointwise(self, x: str, shortcut: str, conv: str, norm: str, channels: int) -> str:
        x = self.sign_conv(x, conv, channels, channels, 1, has_alpha=True)
        x = self.norm(x, norm, channels, expected=RISING)
        return self.b.add(x, shortcut, name=f"{conv}.add")

    def block(self, x: str, name: str, cin: int, cout: int, *, stride: int) -> str:
        shortcut = x
        x = self.rsign(x, f"{name}.sign1", f"{name}.move11", cin)
        conv = f"{name}.binary_3x3"
        x = self.sign_conv(x, conv, cin, cin, 3, stride=stride, padding=1, has_alpha=True)
        x = self.norm(x, f"{name}.bn1", cin, expected=RISING)
        if stride == 2:
            shortcut = self.b.avg_pool2d(shortcut, 2, name=f"{name}.pooling")
        x = self.b.add(x, shortcut, name=f"{conv}.add")
        x = shortcut = self.rprelu(x, f"{name}.rprelu1", name, 1, cin)
        x = self.rsign(x, f"{name}.sign2", f"{name}.move21", cin)
        if cin == cout:
            x = self.pointwise(x, shortcut, f"{name}.binary_pw", f"{name}.bn2", cin)
        else:
            first, second = (
                self.pointwise(x, shortcut, f"{name}.binary_pw_down{i}", f"{name}.bn2_{i}", cin)
                for i in (1, 2)
            )
            x = self.b.concat(first, second, name=f"{name}.concat")
        return self.rprelu(x, f"{name}.rprelu2", name, 2, cout)


def reactnet_a(source: ParameterSource, classes: int, input_shape: Shape) -> Built:
    """ReActNet-A for ImageNet: (224, 224, 3) -> (classes,)."""
    net = _Network("reactnet-a", input_shape, source, epsilon=EPSILON)
    b = net.b
    channels = WIDTHS[0]
    x = net.conv(
        b.input, "feature.0.conv1", input_shape[2], channels, 3, stride=2, padding=1, has_bias=False
    )
    x = net.norm(x, "feature.0.bn1", channels, expected=CENTRED)
    for number, width in enumerate(WIDTHS[1:], start=1):
        stride = 2 if width not in (channels, 64) else 1
        x = net.block(x, f"feature.{number}", channels, width, stride=stride)
        channels = width
    x = b.global_pool2d(x)
    return b.build(net.dense(x, "fc", channels, classes))


ARCHITECTURES = (
    Architecture("reactnet-a", (224, 224, 3), 1000, "fc", reactnet_a, "Liu et al. 2020"),
)

"""Residual networks for pictures of 32x32: binary ones, and what one would run in their place.

Both are He et al. 2016 (section 4.2) in layout: a 3x3 stem, three stages of maps of 32, 16 and 8
pixels, global pooling, one dense layer.  Where a stage halves the map and doubles the channels, the
shortcut is a 2x2 average, a 1x1 convolution of numbers and a BatchNorm.  A binary layer has the
block of ReActNet (Liu et al. 2020) with a shortcut of its own, as in Bi-Real-Net:

    RSign -> binary 3x3 convolution -> BatchNorm -> + shortcut -> RPReLU

The rival has ReLU, and one shortcut for two convolutions.
"""

from __future__ import annotations

import dataclasses

from bitinfer.zoo.network import CENTRED, Network
from bitinfer.zoo.parameters import Built, Expected, ParameterSource

SIZE = 32
CLASSES = 10
EPSILON = 1e-5


@dataclasses.dataclass(frozen=True)
class Layout:
    """How deep and how wide: blocks of two convolutions in each stage, channels of each stage."""

    blocks: int
    widths: tuple[int, int, int]

    @property
    def text(self) -> str:
        """What it is, in words."""
        widths = "/".join(map(str, self.widths))
        return f"Bi-Real ResNet-{6 * self.blocks + 2} of {widths} channels"


LAYOUTS = {
    "resnet8": Layout(1, (16, 32, 64)),
    "resnet20": Layout(3, (16, 32, 64)),
    "resnet20x2": Layout(3, (32, 64, 128)),
    "resnet20x4": Layout(3, (64, 128, 256)),
}


def binary(layout: Layout, source: ParameterSource) -> Built:
    """Build the binary network: (32, 32, 3) -> (10,)."""
    net = _Network("binary", (SIZE, SIZE, 3), source, epsilon=EPSILON)
    x, channels = net.stem(layout), layout.widths[0]
    for stage, width in enumerate(layout.widths):
        for number in range(2 * layout.blocks):
            x = net.binary_layer(x, f"stage{stage}.{number}", channels, width)
            channels = width
    return net.classify(x, channels)


def rival(layout: Layout, source: ParameterSource) -> Built:
    """Build the network of numbers: (32, 32, 3) -> (10,)."""
    net = _Network("rival", (SIZE, SIZE, 3), source, epsilon=EPSILON)
    x, channels = net.b.relu(net.stem(layout)), layout.widths[0]
    for stage, width in enumerate(layout.widths):
        for number in range(layout.blocks):
            x = net.float_block(x, f"stage{stage}.{number}", channels, width)
            channels = width
    return net.classify(x, channels)


class _Network(Network):
    def stem(self, layout: Layout) -> str:
        width = layout.widths[0]
        x = self.conv(self.b.input, "stem", 3, width, 3, padding=1, has_bias=False)
        return self.norm(x, "stem_norm", width, expected=CENTRED)

    def binary_layer(self, x: str, name: str, cin: int, cout: int) -> str:
        ask = self.source.vector
        stride = 1 if cin == cout else 2
        y = self.b.sign(x, threshold=-ask(f"{name}.sign.shift", cin, "shift"), name=f"{name}.sign")
        y = self.sign_conv(y, f"{name}.conv", cin, cout, 3, stride=stride, padding=1)
        # Sums of shortcuts rise from layer to layer: made-up numbers are shifted down.
        expected = Expected(0.6, (9 * cin) ** 0.5, signed=True)
        y = self.norm(y, f"{name}.norm", cout, expected=expected)
        y = self.b.add(y, self.shortcut(x, name, cin, cout), name=f"{name}.add")
        return self.b.rprelu(
            y,
            ask(f"{name}.activation.shift_in", cout, "shift"),
            ask(f"{name}.activation.slope", cout, "slope"),
            ask(f"{name}.activation.shift_out", cout, "shift"),
            name=f"{name}.activation",
        )

    def float_block(self, x: str, name: str, cin: int, cout: int) -> str:
        stride = 1 if cin == cout else 2
        y = self.conv(x, f"{name}.0", cin, cout, 3, stride=stride, padding=1, has_bias=False)
        y = self.b.relu(self.norm(y, f"{name}.norm0", cout), name=f"{name}.relu0")
        y = self.conv(y, f"{name}.1", cout, cout, 3, padding=1, has_bias=False)
        y = self.norm(y, f"{name}.norm1", cout)
        y = self.b.add(y, self.shortcut(x, name, cin, cout), name=f"{name}.add")
        return self.b.relu(y, name=f"{name}.relu1")

    def shortcut(self, x: str, name: str, cin: int, cout: int) -> str:
        if cin == cout:
            return x
        x = self.b.avg_pool2d(x, 2, name=f"{name}.pool")
        x = self.conv(x, f"{name}.shortcut", cin, cout, 1, has_bias=False)
        return self.norm(x, f"{name}.shortcut_norm", cout, expected=CENTRED)

    def classify(self, x: str, channels: int) -> Built:
        x = self.b.global_pool2d(x, name="pool")
        return self.b.build(self.dense(x, "classifier", channels, CLASSES))

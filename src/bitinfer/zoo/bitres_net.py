"""Bitres: residual networks for pictures of 32x32, laid out by what a layer costs here.

The blocks are those of ReActNet (Liu et al. 2020) on the layout of ResNet:

    RSign -> binary 3x3 convolution -> BatchNorm -> + shortcut -> RPReLU

The first convolution halves the map at once, since a float layer on the full map costs more than
several binary ones on a quarter of it.  Where a binary convolution halves the map and doubles the
channels, the shortcut is a 2x2 average, joined with itself: no layer of numbers but the first and
the last.  Padding contributes 0.  No layer has a scale, which the BatchNorm behind it contains.
"""

from __future__ import annotations

import functools

from bitinfer.zoo.network import CENTRED, Network
from bitinfer.zoo.parameters import Architecture, Built, Expected, ParameterSource, Shape

EPSILON = 1e-5
STEM_KERNEL = 4

Stages = tuple[tuple[int, int], ...]
"""Blocks and channels of each stage; the map is halved before every stage but the first."""

STAGES: dict[str, Stages] = {
    "bitres8": ((2, 64), (2, 128), (2, 256)),
    "bitres11": ((3, 64), (4, 128), (2, 256)),
    "bitres20": ((6, 64), (6, 128), (6, 256)),
}


class _Network(Network):
    def block(self, x: str, name: str, cin: int, cout: int) -> str:
        ask = self.source.vector
        shortcut = x
        stride = 2 if cout != cin else 1
        y = self.b.sign(x, threshold=-ask(f"{name}.sign.shift", cin, "shift"), name=f"{name}.sign")
        conv = f"{name}.conv"
        y = self.sign_conv(y, conv, cin, cout, 3, stride=stride, padding=1)
        # Sums of shortcuts rise from block to block: made-up numbers are shifted down.
        expected = Expected(0.6, (9 * cin) ** 0.5, signed=True)
        y = self.norm(y, f"{name}.norm", cout, expected=expected)
        if stride == 2:
            shortcut = self.b.avg_pool2d(shortcut, 2, name=f"{name}.pool")
            shortcut = self.b.concat(shortcut, shortcut, name=f"{name}.join")
        y = self.b.add(y, shortcut, name=f"{name}.add")
        return self.b.rprelu(
            y,
            ask(f"{name}.activation.shift_in", cout, "shift"),
            ask(f"{name}.activation.slope", cout, "slope"),
            ask(f"{name}.activation.shift_out", cout, "shift"),
            name=f"{name}.activation",
        )


def bitres(
    name: str, stages: Stages, source: ParameterSource, classes: int, input_shape: Shape
) -> Built:
    """Bitres for CIFAR-10: (32, 32, 3) -> (classes,)."""
    net = _Network(name, input_shape, source, epsilon=EPSILON)
    b = net.b
    channels = stages[0][1]
    x = net.conv(
        b.input, "stem", input_shape[2], channels, STEM_KERNEL, stride=2, padding=1, has_bias=False
    )
    x = net.norm(x, "stem_norm", channels, expected=CENTRED)
    number = 0
    for count, width in stages:
        for _ in range(count):
            x = net.block(x, f"blocks.{number}", channels, width)
            channels = width
            number += 1
    x = b.global_pool2d(x, name="pool")
    return b.build(net.dense(x, "classifier", channels, classes))


ARCHITECTURES = tuple(
    Architecture(
        name,
        (32, 32, 3),
        10,
        "classifier",
        functools.partial(bitres, name, stages),
        "bitinfer's own",
    )
    for name, stages in STAGES.items()
)

"""State dicts of ReActNet-A: MobileNet's layout with binary convolutions and learned shifts.

Source: liuzechun/ReActNet, mobilenet/2_step2/reactnet.py (Liu et al. 2020).  A block is, once with
a 3x3 and once with a 1x1 convolution,

    + shift -> sign -> convolution, alpha * sign(weights) -> BatchNorm -> + shortcut
    -> + shift -> PReLU -> + shift

Where the map is halved, the shortcut of the 3x3 is a 2x2 average; where the channels are doubled,
two 1x1 convolutions with the same input and shortcut are joined.
"""

from __future__ import annotations

from bitinfer.importers.states.bireal import SIDE, hard_binary_conv
from bitinfer.importers.states.modules import INPUT, Modules, StateNetwork
from bitinfer.zoo.data import PREPROCESSING

WIDTHS = (32, 64, 128, 128, 256, 256, *[512] * 6, 1024, 1024)
"""Of the first convolution and of every block (stage_out_channel)."""

FULL_SIZE = 64
"""The width whose block doubles the channels without halving the map."""


def _rsign(m: Modules, name: str, move: str, x: str, channels: int) -> str:
    return m.sign(name, m.shifted(move, x, channels))


def _rprelu(m: Modules, block: str, number: int, x: str, channels: int) -> str:
    x = m.shifted(f"{block}.move{number}2", x, channels)
    x = m.prelu(f"{block}.prelu{number}", x, channels)
    return m.shifted(f"{block}.move{number}3", x, channels)


def _pointwise(m: Modules, conv: str, norm: str, x: str, shortcut: str, width: int) -> str:
    x = hard_binary_conv(m, conv, x, (width, width, 1), stride=1, padding=0)
    return m.add(f"{conv}.add", "add", m.norm(norm, x, width), shortcut)


def _block(m: Modules, name: str, x: str, channels: int, width: int, stride: int) -> str:
    y = _rsign(m, f"{name}.sign1", f"{name}.move11", x, channels)
    shape = (channels, channels, 3)
    y = hard_binary_conv(m, f"{name}.binary_3x3", y, shape, stride=stride, padding=1)
    y = m.norm(f"{name}.bn1", y, channels)
    if stride == 2:
        x = m.avg_pool(f"{name}.pooling", x, 2, 2)
    x = _rprelu(m, name, 1, m.add(f"{name}.add", "add", x, y), channels)
    y = _rsign(m, f"{name}.sign2", f"{name}.move21", x, channels)
    if channels == width:
        y = _pointwise(m, f"{name}.binary_pw", f"{name}.bn2", y, x, channels)
    else:
        halves = [
            _pointwise(m, f"{name}.binary_pw_down{i}", f"{name}.bn2_{i}", y, x, channels)
            for i in (1, 2)
        ]
        y = m.add(f"{name}.concat", "concat", *halves, axis=0)
    return _rprelu(m, name, 2, y, width)


def _write(m: Modules) -> str:
    m.shape = (3, SIDE, SIDE)
    channels = WIDTHS[0]
    x = m.conv("feature.0.conv1", INPUT, (channels, 3, 3), stride=2, padding=1)
    x = m.norm("feature.0.bn1", x, channels)
    for number, width in enumerate(WIDTHS[1:], start=1):
        stride = 2 if width not in (channels, FULL_SIZE) else 1
        x = _block(m, f"feature.{number}", x, channels, width, stride)
        channels = width
    x = m.add("flat", "flatten", m.add("pool1", "global_avg_pool", x))
    return m.dense("fc", x, (m.classes("fc"), channels))


NETWORK = StateNetwork(
    importer="reactnet",
    title="ReActNet-A",
    signature={
        "feature.0.conv1.weight": (32, 3, 3, 3),
        "feature.1.move11.bias": (1, 32, 1, 1),
        "feature.13.prelu2.weight": (1024,),
        "fc.weight": (None, 1024),
    },
    data_set="imagenet",
    trained_with=PREPROCESSING["imagenet", "torchvision"],
    write=_write,
)

"""State dicts of Bi-Real-Net-18 and -34, and of ReActNet's ResNets, which have the same modules.

Source: liuzechun/Bi-Real-net, pytorch_implementation/BiReal18_34/birealnet.py (Liu et al. 2018),
and liuzechun/ReActNet, resnet/2_step2/birealnet.py (Liu et al. 2020).

    block   [+ move0] -> sign -> convolution, alpha * sign(weights) -> BatchNorm -> + shortcut
            [-> + move1 -> PReLU -> + move2]

What stands in brackets is ReActNet's.  alpha is the mean size of a filter's weights.  The shortcut
of a block that halves the map is a 2x2 average, a 1x1 convolution of real weights and a BatchNorm.
``weights`` is stored as a column, or, by later versions, as ``weight`` in the shape of a kernel.
"""

from __future__ import annotations

from bitinfer.importers import binary
from bitinfer.importers.states.modules import INPUT, Modules, StateNetwork, scaled_by
from bitinfer.zoo.data import PREPROCESSING

WIDTHS = (64, 128, 256, 512)
SIDE = 224
BINARISE = scaled_by(binary.PLAIN)


def hard_binary_conv(
    m: Modules, name: str, x: str, shape: tuple[int, int, int], *, stride: int, padding: int
) -> str:
    """Write a HardBinaryConv behind its sign."""
    key = f"{name}.weight"
    if m.state.first_axis(key) is None:
        key = f"{name}.weights"
    return m.conv(name, x, shape, stride=stride, padding=padding, key=key, binarise=BINARISE)


def _block(m: Modules, name: str, x: str, channels: int, width: int, stride: int) -> str:
    is_reactnet = m.state.first_axis(f"{name}.move0.bias") is not None
    y = m.shifted(f"{name}.move0", x, channels) if is_reactnet else x
    y = m.sign(f"{name}.binary_activation", y)
    shape = (width, channels, 3)
    y = hard_binary_conv(m, f"{name}.binary_conv", y, shape, stride=stride, padding=1)
    y = m.norm(f"{name}.bn1", y, width)
    if stride != 1 or channels != width:
        x = m.avg_pool(f"{name}.downsample.0", x, 2, stride)
        x = m.conv(f"{name}.downsample.1", x, (width, channels, 1))
        x = m.norm(f"{name}.downsample.2", x, width)
    y = m.add(f"{name}.add", "add", y, x)
    if is_reactnet:
        y = m.prelu(f"{name}.prelu", m.shifted(f"{name}.move1", y, width), width)
        y = m.shifted(f"{name}.move2", y, width)
    return y


def _write(m: Modules) -> str:
    m.shape = (3, SIDE, SIDE)
    channels = WIDTHS[0]
    x = m.conv("conv1", INPUT, (channels, 3, 7), stride=2, padding=3)
    x = m.max_pool("maxpool", m.norm("bn1", x, channels), 3, 2, 1)
    for stage, width in enumerate(WIDTHS, start=1):
        for block in range(m.count_blocks(f"layer{stage}.{{}}.bn1.weight")):
            stride = 2 if stage > 1 and block == 0 else 1
            x = _block(m, f"layer{stage}.{block}", x, channels, width, stride)
            channels = width
    x = m.add("flat", "flatten", m.add("avgpool", "global_avg_pool", x))
    return m.dense("fc", x, (m.classes("fc"), channels))


NETWORK = StateNetwork(
    importer="bireal_net",
    title="Bi-Real-Net",
    signature={
        "conv1.weight": (64, 3, 7, 7),
        "bn1.running_mean": (64,),
        "layer1.3.bn1.weight": (64,),
        "layer2.0.downsample.1.weight": (128, 64, 1, 1),
        "fc.weight": (None, 512),
    },
    data_set="imagenet",
    trained_with=PREPROCESSING["imagenet", "torchvision"],
    write=_write,
)

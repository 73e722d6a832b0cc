"""Checkpoints of AdaBin's ResNets for CIFAR: two values per filter, and two per activation.

Source: huawei-noah/Efficient-Computing, BinaryNetworks/AdaBin/cifar, models_cifar/resnet1w1a.py and
binarylib.py; Tu et al. 2022, "AdaBin: Improving Binary Neural Networks with Adaptive Binary Sets".

    weight      mean + deviation * sign(latent - mean), mean and deviation of each filter
    activation  alpha * (s + beta), s = sign((x - beta) / alpha), alpha and beta of each layer
    nonlinear   pos_scale * max(x, 0) + neg_scale * min(x, 0), per channel
    block       conv, BatchNorm, shortcut, nonlinear; twice

The shortcut over a stride takes every second pixel and puts channels of 0 on both sides.
"""

from __future__ import annotations

import numpy as np

from bitinfer.bits import Floats
from bitinfer.importers.foreign import Attribute
from bitinfer.importers.states.modules import INPUT, Modules, StateNetwork
from bitinfer.model import Preprocessing
from bitinfer.zoo.data import IMAGENET_MEAN, IMAGENET_STD

SIDE = 32
WIDTHS = (16, 32, 64)


def _write(m: Modules) -> str:
    m.shape = (3, SIDE, SIDE)
    channels = WIDTHS[0]
    x = m.norm("bn1", m.conv("conv1", INPUT, (channels, 3, 3), padding=1), channels)
    x = _nonlinear(m, "nonlinear1", x, channels)
    for stage, width in enumerate(WIDTHS, 1):
        for block in range(m.count_blocks(f"layer{stage}.{{}}.conv1.weight")):
            stride = 2 if block == 0 and stage > 1 else 1
            x = _block(m, f"layer{stage}.{block}", x, (channels, width), stride)
            channels = width
    x = m.add("flat", "flatten", m.add("mean", "global_avg_pool", x))
    return m.dense("linear", m.norm("bn2", x, channels), (m.classes("linear"), channels))


def _block(m: Modules, name: str, x: str, widths: tuple[int, int], stride: int) -> str:
    channels, width = widths
    y = _binary_conv(m, f"{name}.conv1", x, (width, channels, 3), stride)
    y = m.norm(f"{name}.bn1", y, width)
    if stride != 1 or channels != width:
        x = _shortcut(m, f"{name}.shortcut", x, channels, width, stride)
    x = _nonlinear(m, f"{name}.nonlinear1", m.add(f"{name}.sum1", "add", y, x), width)
    y = _binary_conv(m, f"{name}.conv2", x, (width, width, 3), 1)
    y = m.add(f"{name}.sum2", "add", m.norm(f"{name}.bn2", y, width), x)
    return _nonlinear(m, f"{name}.nonlinear2", y, width)


def _binary_conv(m: Modules, name: str, x: str, shape: tuple[int, int, int], stride: int) -> str:
    alpha, beta = (
        float(m.state.take(f"{name}.binary_a.{part}", ())) for part in ("alpha_a", "beta_a")
    )
    shift = m.constant(f"{name}.beta", np.asarray(beta, np.float32))
    x = m.add(f"{name}.margin", "subtract", x, shift)
    # sign((x - beta) / alpha) turns round where alpha is below 0.
    turn = 1.0 if alpha > 0 else -1.0
    levels = {"low": alpha * (beta - turn), "high": alpha * (beta + turn)}
    x = m.add(f"{name}.sign", "sign", x, at_zero=0, **levels)
    return m.conv(name, x, shape, stride=stride, padding=1, binarise=two_values)


def _nonlinear(m: Modules, name: str, x: str, channels: int) -> str:
    """``negative * x + (positive - negative) * max(x, 0)``."""
    positive, negative = (
        m.state.take(f"{name}.{part}_scale", (channels,)).reshape(-1, 1, 1)
        for part in ("pos", "neg")
    )
    if (positive > 0).all():
        x = m.add(f"{name}.scaled", "multiply", x, m.constant(f"{name}.pos", positive))
        return m.add(name, "prelu", x, m.constant(f"{name}.slope", negative / positive))
    above = m.add(f"{name}.above", "relu", x)
    difference = m.constant(f"{name}.difference", positive - negative)
    above = m.add(f"{name}.above.scaled", "multiply", above, difference)
    below = m.add(f"{name}.scaled", "multiply", x, m.constant(f"{name}.neg", negative))
    return m.add(name, "add", below, above)


def _shortcut(m: Modules, name: str, x: str, channels: int, width: int, stride: int) -> str:
    one: dict[str, Attribute] = {"kernel": (1, 1), "strides": (stride, stride)}
    x = m.add(f"{name}.pixels", "max_pool", x, **one, pads=(0, 0, 0, 0))
    side = (width - channels) // 2
    part = m.add(f"{name}.part", "slice", x, axis=0, begin=0, end=side)
    zero = m.constant(f"{name}.0", np.asarray(0, np.float32))
    empty = m.add(f"{name}.zeros", "multiply", part, zero)
    return m.add(name, "concat", empty, x, empty, axis=0)


def two_values(weight: Floats) -> Floats:
    """Return a filter's mean plus or minus its standard deviation, by the signs around the mean.

    Shapes:  weight (Cout, ...)  ->  the same.
    """
    rows = weight.reshape(len(weight), -1).astype(np.float64)
    mean = rows.mean(axis=1, keepdims=True)
    deviation = np.sqrt(((rows - mean) ** 2).mean(axis=1, keepdims=True))
    values = mean + deviation * np.where(rows >= mean, 1.0, -1.0)
    return np.asarray(values.reshape(weight.shape), np.float32)


NETWORK = StateNetwork(
    importer="adabin",
    title="AdaBin's ResNet for CIFAR",
    signature={
        "conv1.weight": (16, 3, 3, 3),
        "layer1.0.conv1.binary_a.alpha_a": (),
        "layer1.0.nonlinear1.pos_scale": (16,),
        "bn2.running_mean": (64,),
        "linear.weight": (None, 64),
    },
    data_set="cifar10",
    # main.py: ToTensor, Normalize of ImageNet's mean and std.
    trained_with=Preprocessing("rgb", IMAGENET_MEAN, IMAGENET_STD, resize=(32, 32)),
    write=_write,
)

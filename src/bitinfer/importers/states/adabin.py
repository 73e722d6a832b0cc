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
from bitinfer.errors import CheckpointError
from bitinfer.importers.foreign import Attribute, Foreign, ForeignNode
from bitinfer.importers.states.state_dict import Signature, StateDict
from bitinfer.model import Preprocessing
from bitinfer.zoo.data import IMAGENET_MEAN, IMAGENET_STD, DataSet

IMPORTER = "adabin"
NAME = "AdaBin's ResNet for CIFAR"
SIGNATURE: Signature = {
    "conv1.weight": (16, 3, 3, 3),
    "layer1.0.conv1.binary_a.alpha_a": (),
    "layer1.0.nonlinear1.pos_scale": (16,),
    "bn2.running_mean": (64,),
    "linear.weight": (None, 64),
}
DATA_SET: DataSet = "cifar10"
# main.py: ToTensor, Normalize of ImageNet's mean and std.
TRAINED_WITH = Preprocessing("rgb", IMAGENET_MEAN, IMAGENET_STD, resize=(32, 32))
EPSILON = 1e-5
SIDE = 32
WIDTHS = (16, 32, 64)
MAX_BLOCKS = 1000

_CONV = {"dilations": (1, 1), "groups": 1, "pad_value": 0.0, "counts": "sums"}


def network(state: StateDict) -> Foreign:
    """Return the network, as many blocks as there are weights for."""
    state.owner = NAME
    found = _Network(state).read()
    state.check_nothing_left()
    return found


class _Network:
    def __init__(self, state: StateDict) -> None:
        self.state = state
        self.nodes: list[ForeignNode] = []
        self.constants: dict[str, Floats] = {}

    def add(self, name: str, word: str, *inputs: str, **attributes: Attribute) -> str:
        self.nodes.append(ForeignNode(name, word, inputs, attributes))
        return name

    def constant(self, name: str, value: Floats) -> str:
        self.constants[name] = value
        return name

    def vector(self, key: str, channels: int, *, is_map: bool = True) -> str:
        value = self.state.take(key, (channels,))
        return self.constant(key, value.reshape(-1, 1, 1) if is_map else value)

    def read(self) -> Foreign:
        x = self.conv("conv1", "input", 3, 16, 1, is_binary=False)
        x = self.nonlinear("nonlinear1", self.norm("bn1", x, 16), 16)
        channels = 16
        for stage, width in enumerate(WIDTHS, 1):
            for block in range(self.count(stage)):
                stride = 2 if block == 0 and stage > 1 else 1
                x = self.block(f"layer{stage}.{block}", x, channels, width, stride)
                channels = width
        x = self.add("flat", "flatten", self.add("mean", "global_avg_pool", x))
        x = self.norm("bn2", x, 64, is_map=False)
        classes = self.state.first_axis("linear.weight") or 0
        weight = self.constant("linear.weight", self.state.take("linear.weight", (classes, 64)))
        bias = self.vector("linear.bias", classes, is_map=False)
        x = self.add("linear", "dense", x, weight, bias, axes="OI", counts="sums")
        nodes, shape = tuple(self.nodes), (3, SIDE, SIDE)
        return Foreign("adabin-resnet", "NCHW", "input", shape, nodes, self.constants, (x,))

    def count(self, stage: int) -> int:
        for block in range(MAX_BLOCKS):
            if self.state.first_axis(f"layer{stage}.{block}.conv1.weight") is None:
                return block
        raise CheckpointError(f"{NAME}: over {MAX_BLOCKS} blocks")

    def block(self, name: str, x: str, channels: int, width: int, stride: int) -> str:
        y = self.conv(f"{name}.conv1", x, channels, width, stride, is_binary=True)
        y = self.norm(f"{name}.bn1", y, width)
        if stride != 1 or channels != width:
            x = self.shortcut(f"{name}.shortcut", x, channels, width, stride)
        x = self.nonlinear(f"{name}.nonlinear1", self.add(f"{name}.sum1", "add", y, x), width)
        y = self.conv(f"{name}.conv2", x, width, width, 1, is_binary=True)
        y = self.add(f"{name}.sum2", "add", self.norm(f"{name}.bn2", y, width), x)
        return self.nonlinear(f"{name}.nonlinear2", y, width)

    def conv(
        self, name: str, x: str, channels: int, width: int, stride: int, *, is_binary: bool
    ) -> str:
        weight = self.state.take(f"{name}.weight", (width, channels, 3, 3))
        if is_binary:
            alpha, beta = (
                float(self.state.take(f"{name}.binary_a.{part}", ()))
                for part in ("alpha_a", "beta_a")
            )
            weight = two_values(weight)
            shift = self.constant(f"{name}.beta", np.asarray(beta, np.float32))
            x = self.add(f"{name}.margin", "subtract", x, shift)
            # sign((x - beta) / alpha) turns round where alpha is below 0.
            turn = 1.0 if alpha > 0 else -1.0
            levels = {"low": alpha * (beta - turn), "high": alpha * (beta + turn)}
            x = self.add(f"{name}.sign", "sign", x, at_zero=0, **levels)
        key = self.constant(f"{name}.weight", weight)
        attributes = {**_CONV, "strides": (stride, stride), "pads": (1, 1, 1, 1)}
        return self.add(name, "conv", x, key, axes="OIHW", **attributes)  # type: ignore[arg-type]

    def norm(self, name: str, x: str, channels: int, *, is_map: bool = True) -> str:
        parts = ("weight", "bias", "running_mean", "running_var")
        names = [self.vector(f"{name}.{part}", channels, is_map=False) for part in parts]
        return self.add(name, "batch_norm", x, *names, epsilon=EPSILON)

    def nonlinear(self, name: str, x: str, channels: int) -> str:
        """``negative * x + (positive - negative) * max(x, 0)``."""
        positive = self.state.take(f"{name}.pos_scale", (channels,)).reshape(-1, 1, 1)
        negative = self.state.take(f"{name}.neg_scale", (channels,)).reshape(-1, 1, 1)
        if (positive > 0).all():
            x = self.add(f"{name}.scaled", "multiply", x, self.constant(f"{name}.pos", positive))
            return self.add(name, "prelu", x, self.constant(f"{name}.slope", negative / positive))
        above = self.add(f"{name}.above", "relu", x)
        difference = self.constant(f"{name}.difference", positive - negative)
        above = self.add(f"{name}.above.scaled", "multiply", above, difference)
        below = self.add(f"{name}.scaled", "multiply", x, self.constant(f"{name}.neg", negative))
        return self.add(name, "add", below, above)

    def shortcut(self, name: str, x: str, channels: int, width: int, stride: int) -> str:
        one: dict[str, Attribute] = {"kernel": (1, 1), "strides": (stride, stride)}
        x = self.add(f"{name}.pixels", "max_pool", x, **one, pads=(0, 0, 0, 0))
        side = (width - channels) // 2
        part = self.add(f"{name}.part", "slice", x, axis=0, begin=0, end=side)
        zero = self.constant(f"{name}.0", np.asarray(0, np.float32))
        empty = self.add(f"{name}.zeros", "multiply", part, zero)
        return self.add(name, "concat", empty, x, empty, axis=0)


def two_values(weight: Floats) -> Floats:
    """Return a filter's mean plus or minus its standard deviation, by the signs around the mean.

    Shapes:  weight (Cout, ...)  ->  the same.
    """
    rows = weight.reshape(len(weight), -1).astype(np.float64)
    mean = rows.mean(axis=1, keepdims=True)
    deviation = np.sqrt(((rows - mean) ** 2).mean(axis=1, keepdims=True))
    values = mean + deviation * np.where(rows >= mean, 1.0, -1.0)
    return np.asarray(values.reshape(weight.shape), np.float32)

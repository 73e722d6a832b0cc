"""The forward pass of known architectures in evaluation, in torch, from a state dict of arrays.

Written from what the projects' own sources define: signs are ``torch.sign``, whose 0 stays 0.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
State = dict[str, Array]


class Weights:
    """Makes up a state dict, with some gammas below 0."""

    def __init__(self, seed: int = 0) -> None:
        self.rng = np.random.default_rng(seed)
        self.state: State = {}

    def normal(self, key: str, *shape: int, scale: float = 1.0) -> None:
        values = self.rng.standard_normal(shape, np.float32) * np.float32(scale)
        self.state[key] = values

    def norm(self, name: str, channels: int, spread: float = 1.0, *, affine: bool = True) -> None:
        if affine:
            gamma = self.rng.uniform(0.5, 1.5, channels)
            gamma[::5] *= -1
            self.state[f"{name}.weight"] = gamma.astype(np.float32)
            self.normal(f"{name}.bias", channels, scale=0.3)
        self.normal(f"{name}.running_mean", channels, scale=0.3 * spread)
        variance = self.rng.uniform(0.5, 1.5, channels) * spread**2
        self.state[f"{name}.running_var"] = variance.astype(np.float32)
        self.state[f"{name}.num_batches_tracked"] = np.asarray(7)


class Forward:
    """Modules of torch by name, in the precision of ``dtype``."""

    def __init__(self, state: Mapping[str, Array], dtype: str = "float64") -> None:
        import torch

        self.torch, self.f = torch, torch.nn.functional
        kind = getattr(torch, dtype)
        self.t = {k: torch.from_numpy(np.array(v)).to(kind) for k, v in state.items()}

    def norm(self, x: Any, name: str) -> Any:
        t = self.t
        return self.f.batch_norm(
            x,
            t[f"{name}.running_mean"],
            t[f"{name}.running_var"],
            t.get(f"{name}.weight"),
            t.get(f"{name}.bias"),
        )

    def scaled(self, name: str, shape: tuple[int, ...]) -> Any:
        """HardBinaryConv's weight: mean size times sign."""
        key = f"{name}.weights" if f"{name}.weights" in self.t else f"{name}.weight"
        w = self.t[key].reshape(shape)
        return w.abs().mean((1, 2, 3), keepdim=True) * self.torch.sign(w)


# --- BinaryNet.pytorch ---------------------------------------------------------------------------

VGG = ((0, False), (3, True), (7, False), (10, True), (14, False), (17, True))


def vgg_state(widths: tuple[int, ...], dense: int, classes: int) -> State:
    w = Weights(1)
    channels = 3
    for (position, pooled), width in zip(VGG, widths, strict=True):
        w.normal(f"features.{position}.weight", width, channels, 3, 3)
        w.normal(f"features.{position}.bias", width, scale=0.2)
        w.norm(f"features.{position + 1 + pooled}", width, 3 * channels**0.5)
        channels = width
    inputs = channels * 16
    for position, outputs in ((0, dense), (3, dense), (6, classes)):
        w.normal(f"classifier.{position}.weight", outputs, inputs)
        w.normal(f"classifier.{position}.bias", outputs, scale=0.2)
        w.norm(f"classifier.{position + 1}", outputs, inputs**0.5, affine=position != 6)
        inputs = outputs
    return w.state


def vgg(state: State, x: Any) -> Any:
    m = Forward(state)
    sign, f = m.torch.sign, m.f
    for position, pooled in VGG:
        x = x if x.shape[1] == 3 else sign(x)
        weight, bias = m.t[f"features.{position}.weight"], m.t[f"features.{position}.bias"]
        x = f.conv2d(x, sign(weight), bias, padding=1)
        x = f.max_pool2d(x, 2) if pooled else x
        x = f.hardtanh(m.norm(x, f"features.{position + 1 + pooled}"))
    x = x.flatten(1)
    for position in (0, 3, 6):
        weight, bias = m.t[f"classifier.{position}.weight"], m.t[f"classifier.{position}.bias"]
        x = m.norm(f.linear(sign(x), sign(weight), bias), f"classifier.{position + 1}")
        x = x if position == 6 else f.hardtanh(x)
    return x


ALEXNET = ((0, 11, 4, 2, 1), (4, 5, 1, 2, 1), (8, 3, 1, 1, 0), (11, 3, 1, 1, 0), (14, 3, 1, 1, 1))


def alexnet_state(widths: tuple[int, ...], dense: int, classes: int) -> State:
    w = Weights(2)
    channels = 3
    for (position, kernel, _, _, pooled), width in zip(ALEXNET, widths, strict=True):
        w.normal(f"features.{position}.weight", width, channels, kernel, kernel)
        w.normal(f"features.{position}.bias", width, scale=0.2)
        w.norm(f"features.{position + 1 + pooled}", width, kernel * channels**0.5)
        channels = width
    inputs = channels * 36
    for position, outputs in ((0, dense), (3, dense), (6, classes)):
        w.normal(f"classifier.{position}.weight", outputs, inputs)
        w.normal(f"classifier.{position}.bias", outputs, scale=0.2)
        w.norm(f"classifier.{position + 1}", outputs, inputs**0.5)
        inputs = outputs
    return w.state


def alexnet(state: State, x: Any) -> Any:
    m = Forward(state)
    sign, f = m.torch.sign, m.f
    for position, _, stride, padding, pooled in ALEXNET:
        x = x if x.shape[1] == 3 else sign(x)
        weight, bias = m.t[f"features.{position}.weight"], m.t[f"features.{position}.bias"]
        x = f.conv2d(x, sign(weight), bias, stride, padding)
        x = f.max_pool2d(x, 3, 2) if pooled else x
        x = f.hardtanh(m.norm(x, f"features.{position + 1 + pooled}"))
    x = x.flatten(1)
    for position in (0, 3, 6):
        weight, bias = m.t[f"classifier.{position}.weight"], m.t[f"classifier.{position}.bias"]
        x = m.norm(f.linear(sign(x), sign(weight), bias), f"classifier.{position + 1}")
        x = x if position == 6 else f.hardtanh(x)
    return x


def resnet_state(width: int, blocks: int, classes: int) -> State:
    w = Weights(3)
    w.normal("conv1.weight", width, 3, 3, 3)
    w.norm("bn1", width, 5)
    channels = width
    for stage in (1, 2, 3):
        for block in range(blocks):
            name, outputs = f"layer{stage}.{block}", width << (stage - 1)
            w.normal(f"{name}.conv1.weight", outputs, channels, 3, 3)
            w.normal(f"{name}.conv2.weight", outputs, outputs, 3, 3)
            for i in (1, 2):
                w.norm(f"{name}.bn{i}", outputs, 3 * outputs**0.5)
            if channels != outputs:
                w.normal(f"{name}.downsample.0.weight", outputs, channels, 1, 1)
                w.norm(f"{name}.downsample.1", outputs, channels**0.5)
            channels = outputs
    w.norm("bn2", channels, 2)
    w.normal("fc.weight", classes, channels)
    w.normal("fc.bias", classes)
    w.norm("bn3", classes, channels**0.5)
    return w.state


def resnet(state: State, x: Any) -> Any:
    m = Forward(state)
    sign, f, t = m.torch.sign, m.f, m.t
    x = f.hardtanh(m.norm(f.conv2d(x, sign(t["conv1.weight"]), padding=1), "bn1"))
    names = sorted({k.rpartition(".conv1")[0] for k in state if ".conv1" in k})
    for name in names:
        is_first = name.endswith(".0") and not name.startswith("layer1")
        stride = 2 if is_first else 1
        y = f.conv2d(sign(x), sign(t[f"{name}.conv1.weight"]), None, stride, 1)
        y = f.hardtanh(m.norm(y, f"{name}.bn1"))
        y = f.conv2d(sign(y), sign(t[f"{name}.conv2.weight"]), padding=1)
        if is_first:
            x = f.conv2d(sign(x), sign(t[f"{name}.downsample.0.weight"]), None, stride)
            x = m.norm(x, f"{name}.downsample.1")
        x = y + x
        if name != names[-1]:
            x = f.hardtanh(m.norm(x, f"{name}.bn2"))
    x = f.hardtanh(m.norm(f.avg_pool2d(x, 8).flatten(1), "bn2"))
    return m.norm(f.linear(sign(x), sign(t["fc.weight"]), t["fc.bias"]), "bn3")


# --- Bi-Real-Net and ReActNet --------------------------------------------------------------------


def bireal_state(
    blocks: tuple[int, ...], widths: tuple[int, ...], classes: int, *, moves: bool = False
) -> State:
    """With ``moves``, ReActNet's ResNet, whose later versions store kernels as such."""
    w = Weights(4)
    channels = widths[0]
    w.normal("conv1.weight", channels, 3, 7, 7, scale=0.1)
    w.norm("bn1", channels)
    for stage, (count, width) in enumerate(zip(blocks, widths, strict=True), 1):
        for block in range(count):
            name = f"layer{stage}.{block}"
            size = width * channels * 9
            if moves:
                w.normal(f"{name}.binary_conv.weight", width, channels, 3, 3, scale=0.05)
                w.normal(f"{name}.move0.bias", 1, channels, 1, 1, scale=0.3)
                for i in (1, 2):
                    w.normal(f"{name}.move{i}.bias", 1, width, 1, 1, scale=0.3)
                w.state[f"{name}.prelu.weight"] = w.rng.uniform(0.1, 0.5, width).astype(np.float32)
            else:
                w.normal(f"{name}.binary_conv.weights", size, 1, scale=0.05)
            w.norm(f"{name}.bn1", width)
            if block == 0 and stage > 1:
                w.normal(f"{name}.downsample.1.weight", width, channels, 1, 1, scale=0.2)
                w.norm(f"{name}.downsample.2", width)
            channels = width
    w.normal("fc.weight", classes, channels, scale=0.1)
    w.normal("fc.bias", classes)
    return w.state


def bireal(state: State, x: Any) -> Any:
    m = Forward(state)
    f, t = m.f, m.t
    x = m.norm(f.conv2d(x, t["conv1.weight"], None, 2, 3), "bn1")
    x = f.max_pool2d(x, 3, 2, 1)
    names = list(dict.fromkeys(k.partition(".bn1")[0] for k in state if ".bn1." in k))
    for name in names:
        short, y, channels = x, x, x.shape[1]
        width = len(t[f"{name}.bn1.weight"])
        if f"{name}.move0.bias" in t:
            y = y + t[f"{name}.move0.bias"]
        stride = 2 if f"{name}.downsample.1.weight" in t else 1
        weight = m.scaled(f"{name}.binary_conv", (width, channels, 3, 3))
        y = m.norm(f.conv2d(m.torch.sign(y), weight, None, stride, 1), f"{name}.bn1")
        if stride == 2:
            short = f.conv2d(f.avg_pool2d(x, 2), t[f"{name}.downsample.1.weight"])
            short = m.norm(short, f"{name}.downsample.2")
        x = y + short
        if f"{name}.move0.bias" in t:
            x = f.prelu(x + t[f"{name}.move1.bias"], t[f"{name}.prelu.weight"])
            x = x + t[f"{name}.move2.bias"]
    return f.linear(x.mean((2, 3)), t["fc.weight"], t["fc.bias"])


def reactnet_state(widths: tuple[int, ...], classes: int) -> State:
    w = Weights(5)
    channels = widths[0]
    w.normal("feature.0.conv1.weight", channels, 3, 3, 3, scale=0.2)
    w.norm("feature.0.bn1", channels)
    for number, width in enumerate(widths[1:], 1):
        name = f"feature.{number}"
        for i, size in ((1, channels), (2, width)):
            w.normal(f"{name}.move{i}1.bias", 1, channels, 1, 1, scale=0.3)
            for j in (2, 3):
                w.normal(f"{name}.move{i}{j}.bias", 1, size, 1, 1, scale=0.3)
            slopes = w.rng.uniform(0.1, 0.5, size)
            w.state[f"{name}.prelu{i}.weight"] = slopes.astype(np.float32)
        w.normal(f"{name}.binary_3x3.weights", channels * channels * 9, 1, scale=0.05)
        w.norm(f"{name}.bn1", channels)
        pairs = (("pw", "2"),) if width == channels else (("pw_down1", "2_1"), ("pw_down2", "2_2"))
        for conv, norm in pairs:
            w.normal(f"{name}.binary_{conv}.weights", channels * channels, 1, scale=0.05)
            w.norm(f"{name}.bn{norm}", channels)
        channels = width
    w.normal("fc.weight", classes, channels, scale=0.1)
    w.normal("fc.bias", classes)
    return w.state


def reactnet(state: State, x: Any) -> Any:
    m = Forward(state)
    f, t, sign = m.f, m.t, m.torch.sign
    x = m.norm(f.conv2d(x, t["feature.0.conv1.weight"], None, 2, 1), "feature.0.bn1")
    channels, number = x.shape[1], 1
    while f"feature.{number}.bn1.weight" in t:
        name = f"feature.{number}"
        width = len(t[f"{name}.prelu2.weight"])
        stride = 2 if width != channels and number > 1 else 1
        weight = m.scaled(f"{name}.binary_3x3", (channels, channels, 3, 3))
        y = f.conv2d(sign(x + t[f"{name}.move11.bias"]), weight, None, stride, 1)
        x = m.norm(y, f"{name}.bn1") + (f.avg_pool2d(x, 2) if stride == 2 else x)
        x = f.prelu(x + t[f"{name}.move12.bias"], t[f"{name}.prelu1.weight"])
        x = x + t[f"{name}.move13.bias"]
        y = sign(x + t[f"{name}.move21.bias"])
        shape = (channels, channels, 1, 1)
        if width == channels:
            x = m.norm(f.conv2d(y, m.scaled(f"{name}.binary_pw", shape)), f"{name}.bn2") + x
        else:
            halves = [
                m.norm(f.conv2d(y, m.scaled(f"{name}.binary_pw_down{i}", shape)), f"{name}.bn2_{i}")
                + x
                for i in (1, 2)
            ]
            x = m.torch.cat(halves, 1)
        x = f.prelu(x + t[f"{name}.move22.bias"], t[f"{name}.prelu2.weight"])
        x = x + t[f"{name}.move23.bias"]
        channels, number = width, number + 1
    return f.linear(x.mean((2, 3)), t["fc.weight"], t["fc.bias"])

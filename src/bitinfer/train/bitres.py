"""Bitres in PyTorch, trainable; the zoo's builder finds every weight in its state dict by name."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from bitinfer.train.layers import BinaryConv2d, RPReLU, RSign, constrain
from bitinfer.train.signs import sign
from bitinfer.zoo.bitres_net import EPSILON, STAGES, STEM_KERNEL


class SignConv2d(BinaryConv2d):
    """Signs x (n, in, h, w) convolved with sign(w), in bfloat16 while training.

    Signs are summed in float32 and the sum is rounded to 8 bits, so training sees sums beyond 256
    with an error below 0.4 %; in evaluation they are exact.
    """

    def __init__(self, cin: int, cout: int, stride: int) -> None:
        # The input is signs already: that of RSign, with its own gradient.
        super().__init__(cin, cout, 3, stride=stride, padding=1, bias=False, mode="binaryconnect")
        nn.init.normal_(self.weight, std=0.05)

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002, D102 - as in the class above
        weight = sign(self.weight)
        if self.training:
            input, weight = input.bfloat16(), weight.bfloat16()  # noqa: A001
        y = functional.conv2d(input, weight, stride=self.stride, padding=self.padding)
        return y.to(self.weight.dtype)


class Block(nn.Module):
    """RSign, binary convolution, BatchNorm, shortcut, RPReLU."""

    def __init__(self, cin: int, cout: int) -> None:
        super().__init__()
        self.sign = RSign(cin)
        self.conv = SignConv2d(cin, cout, stride=2 if cout != cin else 1)
        self.norm = nn.BatchNorm2d(cout, eps=EPSILON)
        self.activation = RPReLU(cout)

    def forward(self, x: Tensor) -> Tensor:  # noqa: D102 - described by the class
        y: Tensor = self.norm(self.conv(self.sign(x)))
        if self.conv.in_channels != self.conv.out_channels:
            x = functional.avg_pool2d(x, 2)
            x = torch.cat([x, x], dim=1)
        result: Tensor = self.activation(y + x)
        return result


class Bitres(nn.Module):
    """The architecture ``name`` of the zoo; x (n, 3, 32, 32) -> logits (n, classes)."""

    def __init__(self, name: str, classes: int = 10) -> None:
        super().__init__()
        stages = STAGES[name]
        channels = stages[0][1]
        self.stem = nn.Conv2d(3, channels, STEM_KERNEL, stride=2, padding=1, bias=False)
        self.stem_norm = nn.BatchNorm2d(channels, eps=EPSILON)
        blocks = []
        for count, width in stages:
            for _ in range(count):
                blocks.append(Block(channels, width))
                channels = width
        self.blocks = nn.Sequential(*blocks)
        self.classifier = nn.Linear(channels, classes)

    def forward(self, x: Tensor) -> Tensor:  # noqa: D102 - described by the class
        x = self.blocks(self.stem_norm(self.stem(x)))
        logits: Tensor = self.classifier(x.mean(dim=(2, 3)))
        return logits

    def constrain(self) -> None:
        """Bring real weights back to [-1, 1], beyond which they get no gradient."""
        constrain(self)

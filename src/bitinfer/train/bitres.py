"""Bitres in PyTorch, trainable; the zoo's builder finds every weight in its state dict by name."""

from __future__ import annotations

from typing import Any

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
        self.has_real_weights = False

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002, D102 - as in the class above
        weight = self.weight if self.has_real_weights else sign(self.weight)
        if self.training:
            input, weight = input.bfloat16(), weight.bfloat16()  # noqa: A001
            return _Convolution.apply(input, weight, self.stride[0]).to(self.weight.dtype)  # type: ignore[no-any-return, no-untyped-call]
        return functional.conv2d(input, weight, stride=self.stride, padding=self.padding)


class _Convolution(torch.autograd.Function):
    """Convolution 3x3 with a border of one, in channels_last, and its gradients.

    The gradient of the input is a convolution with the turned weights, that of many weights one
    matrix product over the unfolded input: PyTorch's own backward pass takes up to four times as
    long where maps are small and channels many.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, stride: int) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.stride = stride
        return functional.conv2d(x, weight, stride=stride, padding=1)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, None]:
        x, weight = ctx.saved_tensors
        (gradient,) = gradients
        stride = ctx.stride
        unfolds = len(weight) > 128 or (len(weight) > 64 and stride == 2)
        turns = stride == 1
        gx = gw = None
        if not (unfolds and turns):
            gx, gw, _ = torch.ops.aten.convolution_backward(
                gradient,
                x,
                weight,
                None,
                [stride] * 2,
                [1, 1],
                [1, 1],
                False,
                [0, 0],
                1,
                [not turns, not unfolds, False],
            )
        if turns:
            gx = functional.conv2d(
                gradient,
                weight.flip(2, 3).transpose(0, 1).contiguous(memory_format=torch.channels_last),
                padding=1,
            )
        if unfolds:
            gw = _weight_gradient(x, gradient, stride)
        return gx, gw, None


def _weight_gradient(x: Tensor, gradient: Tensor, stride: int) -> Tensor:
    n, cin, height, width = x.shape
    cout, rows, columns = gradient.shape[1:]
    padded = functional.pad(x.permute(0, 2, 3, 1), (0, 0, 1, 1, 1, 1)).contiguous()
    row, pixel = (width + 2) * cin, cin
    windows = padded.as_strided(
        (n, rows, columns, 3, 3 * cin), ((height + 2) * row, stride * row, stride * pixel, row, 1)
    ).reshape(n * rows * columns, 9 * cin)
    product = gradient.permute(0, 2, 3, 1).reshape(-1, cout).t() @ windows
    return product.reshape(cout, 3, 3, cin).permute(0, 3, 1, 2)


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

    def use_real_weights(self, *, real: bool) -> None:
        """Take the weights as they are, or their signs as in the network that is exported.

        The first of the two steps of Martinez et al. 2020 (arXiv 2003.11535): signs of activations
        with real weights; the second begins with those weights.
        """
        for module in self.modules():
            if isinstance(module, SignConv2d):
                module.has_real_weights = real

    def constrain(self) -> None:
        """Bring real weights back to [-1, 1], beyond which they get no gradient."""
        constrain(self)

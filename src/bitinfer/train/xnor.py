"""Binary layers with XNOR-Net's weights, in PyTorch.

Source: Rastegari, Ordonez, Redmon, Farhadi, "XNOR-Net: ImageNet Classification Using Binary
Convolutional Neural Networks", ECCV 2016 (arXiv 1603.05279), section 3.1; the centring and the
clamping of the real weights are those of the authors' code.

A binary layer computes, for output channel o,

    y[o] = alpha[o] * sum_i sign(x[i]) * sign(w[o, i]) + bias[o]

with sign(v) = -1 for v < 0 and +1 otherwise (also for 0 and -0.0), bitinfer's own convention, in
training as in inference. The sum is taken over +-1 before the scale is applied, so it is an exact
integer in float32 (below 2**24), and an exported network counts the very same integer, unless a
weight is so close to the mean of its tap that float32 and float64 round it to different sides.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional


class _StraightThroughSign(torch.autograd.Function):
    """sign forward; backward lets the gradient pass where abs(x) <= 1 (the paper's section 3.1)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return torch.where(x < 0, -1.0, 1.0)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        result: Tensor = gradients[0] * (x.abs() <= 1)
        return result


def sign(x: Tensor) -> Tensor:
    """Return -1 where x < 0 and +1 elsewhere, with the straight-through gradient 1[abs(x) <= 1]."""
    result: Tensor = _StraightThroughSign.apply(x)  # type: ignore[no-untyped-call]
    return result


class BinaryWeight(NamedTuple):
    """What is left of a real weight: signs (same shape, +-1.0) and alpha (one per filter)."""

    signs: Tensor
    alpha: Tensor


def centre_and_clamp(weight: Tensor) -> Tensor:
    """Subtract the mean over input channels at every (filter, tap), then clamp to [-1, 1].

    Shapes:  (out, in, kh, kw) or (out, in) -> the same; axis 1 is the input channel.
    """
    return (weight - weight.mean(dim=1, keepdim=True)).clamp(-1.0, 1.0)


def binarise(weight: Tensor) -> BinaryWeight:
    """Split a real weight into signs and one scale per filter.

    Shapes:   (out, in, ...) -> signs (out, in, ...), alpha (out,).
    Meaning:  alpha[o] = mean abs(w[o]), signs = sign(w), w being centred and clamped first;
              alpha * signs is the closest scaled +-1 filter to w (the paper's equation 6).
    Gradient: with g the gradient at alpha * signs and n the weights of a filter,
              alpha * g * 1[abs(w) <= 1] + sign(w) / n * sum(g * sign(w)):
              the paper's 1/n + alpha * dsign/dw, with the whole sum through alpha and not its
              diagonal only. Autograd finds it from the two factors; no formula is repeated here.
    """
    real = centre_and_clamp(weight)
    return BinaryWeight(signs=sign(real), alpha=real.abs().flatten(1).mean(dim=1))


class BinaryConv2d(nn.Conv2d):
    """sign(x) convolved with sign(w), times alpha, plus bias; x (n, in, h, w), no padding."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002, D102 - as in the class above
        signs, alpha = binarise(self.weight)
        dot = functional.conv2d(
            sign(input), signs, stride=self.stride, dilation=self.dilation, groups=self.groups
        )
        result = dot * alpha[:, None, None]
        return result if self.bias is None else result + self.bias[:, None, None]


class BinaryLinear(nn.Linear):
    """sign(x) times sign(w) transposed, times alpha, plus bias; x (n, in)."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002, D102 - as in the class above
        signs, alpha = binarise(self.weight)
        result = functional.linear(sign(input), signs) * alpha
        return result if self.bias is None else result + self.bias


@torch.no_grad()
def project_weights(network: nn.Module) -> None:
    """Replace every binary layer's real weight by its centred and clamped self, in place.

    Done after each optimiser step: a weight outside [-1, 1] gets no gradient and would stay there.
    """
    for module in network.modules():
        if isinstance(module, BinaryConv2d | BinaryLinear):
            module.weight.copy_(centre_and_clamp(module.weight))

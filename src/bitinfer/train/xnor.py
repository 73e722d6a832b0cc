"""XNOR-Net's binary weights: the real weights behind them, their scale, and its gradient.

Source: Rastegari, Ordonez, Redmon, Farhadi, "XNOR-Net: ImageNet Classification Using Binary
Convolutional Neural Networks", ECCV 2016 (arXiv 1603.05279), section 3.1; the centring and the
clamping of the real weights are those of XNOR-Net-PyTorch.

:func:`binarise` leaves the gradients to autograd.  The functions below it do it as class BinOp in
util.py of XNOR-Net-PyTorch does, in place and between backward and step, to be read beside it:

    mean_centre, clamp, save, binarise_in_place        before the forward pass
    restore, update_gradients                          behind the backward pass
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from bitinfer.train.signs import sign

AlphaGradient = Literal["full", "diagonal"]
"""What of alpha's derivative is kept; docs/training-gradients.md derives both."""


class BinaryWeight(NamedTuple):
    """What is left of a real weight: signs (same shape, +-1.0) and alpha (one per filter)."""

    signs: Tensor
    alpha: Tensor


def centre_and_clamp(weight: Tensor) -> Tensor:
    """Subtract the mean over input channels at every (filter, tap), then clamp to [-1, 1].

    Shapes:  (out, in, kh, kw) or (out, in) -> the same; axis 1 is the input channel.
    """
    return (weight - weight.mean(dim=1, keepdim=True)).clamp(-1.0, 1.0)


def binarise(weight: Tensor, *, gradient: AlphaGradient = "full") -> BinaryWeight:
    """Split a real weight into signs and one scale per filter.

    Shapes:   (out, in, ...) -> signs (out, in, ...), alpha (out,).
    Meaning:  alpha[o] = mean abs(w[o]), signs = sign(w), w being centred and clamped first;
              alpha * signs is the closest scaled +-1 filter to w (the paper's equation 6).
    Gradient: as :func:`scaled_signs`, then through clamping and centring.
    """
    return scaled_signs(centre_and_clamp(weight), gradient=gradient)


def scaled_signs(weight: Tensor, *, gradient: AlphaGradient = "full") -> BinaryWeight:
    """Split a real weight as it is into signs and one scale per filter.

    Shapes:   (out, in, ...) -> signs (out, in, ...), alpha (out,).
    Gradient: with g the gradient at alpha * signs and n the weights of a filter,

              full       g_i alpha 1[abs(w_i) <= 1] + sign(w_i) / n * sum_j g_j sign(w_j)
              diagonal   g_i (alpha 1[abs(w_i) <= 1] + 1 / n)

              The first is the derivative; the second, which the paper prints, keeps of its sum
              what belongs to j = i.
    """
    alpha = weight.abs().flatten(1).mean(dim=1)
    signs = sign(weight)
    if gradient == "diagonal":
        count = weight[0].numel()
        alpha = alpha.detach()
        # 0, with the derivative 1 / (n alpha), so that alpha * signs gets 1 / n.
        share = (count * alpha.clamp(min=1e-12)).reshape(-1, *[1] * (weight.dim() - 1))
        signs = signs + (weight - weight.detach()) / share
    return BinaryWeight(signs, alpha)


@torch.no_grad()
def mean_centre(weights: Sequence[Tensor]) -> None:
    """Subtract from every weight (out, in, ...) its mean over axis 1 (meancenterConvParams)."""
    for weight in weights:
        weight.sub_(weight.mean(dim=1, keepdim=True))


@torch.no_grad()
def clamp(weights: Sequence[Tensor]) -> None:
    """Clamp every weight to [-1, 1] (clampConvParams)."""
    for weight in weights:
        weight.clamp_(-1.0, 1.0)


def save(weights: Sequence[Tensor]) -> list[Tensor]:
    """Return copies of the real weights (save_params)."""
    return [weight.detach().clone() for weight in weights]


@torch.no_grad()
def binarise_in_place(weights: Sequence[Tensor]) -> None:
    """Replace every weight by alpha * sign(weight) (binarizeConvParams).

    There the sign of 0 is 0; here it is +1, as everywhere in bitinfer.
    """
    for weight in weights:
        signs, alpha = scaled_signs(weight)
        weight.copy_(signs * alpha.reshape(-1, *[1] * (weight.dim() - 1)))


@torch.no_grad()
def restore(weights: Sequence[Tensor], saved: Sequence[Tensor]) -> None:
    """Put the real weights back (restore)."""
    for weight, real in zip(weights, saved, strict=True):
        weight.copy_(real)


@torch.no_grad()
def update_gradients(weights: Sequence[Tensor]) -> None:
    """Turn gradients at alpha * sign(w) into those of the real weights (updateBinaryGradWeight).

    Meaning: the full gradient of :func:`scaled_signs`, times (1 - 1 / in) n as there: the first
             factor stands for the centring, the second makes the step larger.
    Raises:  ValueError if a weight has no gradient.
    """
    for weight in weights:
        if weight.grad is None:
            raise ValueError("a weight has no gradient; backward() comes before update_gradients")
        count = weight[0].numel()
        signs, alpha = scaled_signs(weight)
        axes = tuple(range(1, weight.dim()))
        through_sign = alpha.reshape(-1, *[1] * len(axes)) * weight.grad * (weight.abs() <= 1)
        through_alpha = signs * (signs * weight.grad).sum(dim=axes, keepdim=True) / count
        weight.grad.copy_((through_sign + through_alpha) * (1 - 1 / weight.shape[1]) * count)

"""Shift-based BatchNorm and AdaMax: products with powers of two, which hardware does by shifts.

Source: Hubara, Courbariaux, Soudry, El-Yaniv, Bengio, "Binarized Neural Networks", NeurIPS 2016
(arXiv 1602.02830).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn


def nearest_power(x: Tensor) -> Tensor:
    """Return sign(x) 2**round(log2(abs(x))), AP2 of the paper; 0 stays 0; any shape."""
    power = torch.exp2(torch.round(torch.log2(x.abs())))
    return torch.where(x == 0, x, torch.copysign(power, x))


class _NearestPower(torch.autograd.Function):
    """AP2 forward; backward, as if it were the identity."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return nearest_power(x)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return gradients[0]


class ShiftBatchNorm2d(nn.Module):
    """Shift-based BatchNorm; x (n, C, H, W) -> the same.

    Formula: c = x - mean(x); v = mean(c AP2(c)); y = c AP2(1 / sqrt(v + eps)) AP2(gamma) + beta,
             means over n, H and W. In evaluation mean and v are running averages.
    Gradient: AP2 is taken for the identity.
    """

    def __init__(self, channels: int, *, epsilon: float = 1e-5, momentum: float = 0.1) -> None:
        super().__init__()
        self.epsilon, self.momentum = epsilon, momentum
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:  # noqa: D102 - described by the class
        if self.training:
            mean = x.mean(dim=(0, 2, 3))
            centred = x - mean[:, None, None]
            variance = (centred * _power(centred)).mean(dim=(0, 2, 3))
            with torch.no_grad():
                self.running_mean.lerp_(mean, self.momentum)
                self.running_var.lerp_(variance, self.momentum)
        else:
            centred = x - self.running_mean[:, None, None]
            variance = self.running_var
        scale = _power(torch.rsqrt(variance + self.epsilon)) * _power(self.weight)
        return centred * scale[:, None, None] + self.bias[:, None, None]


class ShiftAdaMax(torch.optim.Optimizer):
    """Shift-based AdaMax.

    Formula: m = b1 m + (1 - b1) g; v = max(b2 v, abs(g));
             w -= AP2(lr / (1 - b1**t)) m AP2(1 / v).
    The paper's constants, all powers of two, are the defaults: lr 2**-10, b1 1 - 2**-3,
    b2 1 - 2**-10.
    """

    def __init__(
        self,
        params: Iterable[Tensor],
        lr: float = 2**-10,
        betas: tuple[float, float] = (1 - 2**-3, 1 - 2**-10),
    ) -> None:
        super().__init__(params, {"lr": lr, "betas": betas})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:
        """Update every parameter that has a gradient."""
        if closure is not None:
            raise ValueError("ShiftAdaMax evaluates no closure")
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is not None:
                    self._update(weight, group["lr"], *group["betas"])

    def _update(self, weight: Tensor, rate: float, beta1: float, beta2: float) -> None:
        state = self.state[weight]
        if not state:
            state.update(step=0, mean=torch.zeros_like(weight), largest=torch.zeros_like(weight))
        state["step"] += 1
        state["mean"].lerp_(weight.grad, 1 - beta1)
        torch.maximum(beta2 * state["largest"], weight.grad.abs(), out=state["largest"])
        size = nearest_power(torch.tensor(rate / (1 - beta1 ** state["step"])))
        # Where v is 0 so is m: nothing moves.
        inverse = nearest_power(1 / state["largest"].clamp(min=1e-30))
        weight.sub_(size.to(weight.dtype) * state["mean"] * inverse)


def _power(x: Tensor) -> Tensor:
    result: Tensor = _NearestPower.apply(x)  # type: ignore[no-untyped-call]
    return result

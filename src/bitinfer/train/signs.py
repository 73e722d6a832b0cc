"""Signs, and what training takes for their derivative, which is 0 almost everywhere.

Forward, each is -1 where x < 0 and +1 elsewhere (also at 0 and -0.0): bitinfer's own convention, in
training as in inference.  Backward, each has the derivative of a surrogate, stated with it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any, Literal

import torch
from torch import Tensor

Function = Callable[[Tensor], Tensor]

SWISH_BETA = 5.0


class _Sign(torch.autograd.Function):
    """Sign whose gradient is multiplied with ``slope(x)``."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, slope: Function) -> Tensor:
        ctx.save_for_backward(x)
        ctx.slope = slope
        return _plain(x)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (x,) = ctx.saved_tensors
        return gradients[0] * ctx.slope(x), None


def sign(x: Tensor) -> Tensor:
    """Sign with the straight-through estimator; any shape.

    Surrogate: the hard tanh, clip(x, -1, 1), whose derivative is 1 where abs(x) <= 1 and else 0.
    Source:    Hubara et al. 2016 (arXiv 1602.02830), equation 4; XNOR-Net, section 3.1.
    """
    return _apply(x, _clipped, _clipped_slope)


def polynomial_sign(x: Tensor) -> Tensor:
    """Sign with Bi-Real-Net's piecewise polynomial; any shape.

    Surrogate: 2 x + x**2 in [-1, 0), 2 x - x**2 in [0, 1), -1 and 1 beyond; its derivative is
               2 - 2 abs(x) where abs(x) < 1 and else 0.
    Source:    Liu et al. 2018 (arXiv 1808.00278).
    """
    return _apply(x, _polynomial, _polynomial_slope)


def swish_sign(x: Tensor) -> Tensor:
    """Sign with SignSwish; any shape.

    Surrogate: 2 s(z) (1 + z (1 - s(z))) - 1 with z = 5 x and s the logistic function; its
               derivative is 5 (2 - z tanh(z / 2)) / (1 + cosh(z)), below 0 beyond abs(z) of 2.4.
    Source:    Darabi et al. 2018, "BNN+" (arXiv 1812.11800), with beta = 5.
    """
    return _apply(x, _swish, _swish_slope)


class _Tape:
    """Where the signs of a function were taken, to replay the function around that point."""

    def __init__(self) -> None:
        self.mode: Literal["off", "record", "replay"] = "off"
        self.points: list[Tensor] = []
        self.next = 0


_TAPE = _Tape()


@contextlib.contextmanager
def surrogates(points: list[Tensor] | None = None) -> Iterator[list[Tensor]]:
    """Within, a sign is its surrogate, moved so that at ``points`` its value is still the sign.

    Meaning: with None, points are recorded: the list given has, in order of the calls, what signs
             were taken of.  With that list, the k-th sign of x is
             ``sign(p) + surrogate(x) - surrogate(p)`` for p = points[k]: a function with the same
             value and gradient there, that finite differences can be taken of.
    """
    _TAPE.mode = "record" if points is None else "replay"
    _TAPE.points = [] if points is None else points
    _TAPE.next = 0
    try:
        yield _TAPE.points
    finally:
        _TAPE.mode = "off"


def _apply(x: Tensor, surrogate: Function, slope: Function) -> Tensor:
    if _TAPE.mode == "replay":
        point = _TAPE.points[_TAPE.next]
        _TAPE.next += 1
        return _plain(point) + (surrogate(x) - surrogate(point))
    if _TAPE.mode == "record":
        _TAPE.points.append(x.detach().clone())
    result: Tensor = _Sign.apply(x, slope)  # type: ignore[no-untyped-call]
    return result


def _plain(x: Tensor) -> Tensor:
    return torch.where(x < 0, -1.0, 1.0).to(x.dtype)


def _clipped(x: Tensor) -> Tensor:
    return x.clamp(-1, 1)


def _clipped_slope(x: Tensor) -> Tensor:
    return (x.abs() <= 1).to(x.dtype)


def _polynomial(x: Tensor) -> Tensor:
    x = x.clamp(-1, 1)
    return 2 * x - x * x.abs()


def _polynomial_slope(x: Tensor) -> Tensor:
    return (2 - 2 * x.abs()).clamp(min=0)


def _swish(x: Tensor) -> Tensor:
    z = SWISH_BETA * x
    s = torch.sigmoid(z)
    return 2 * s * (1 + z * (1 - s)) - 1


def _swish_slope(x: Tensor) -> Tensor:
    # Beyond 80 the slope is 0 to all digits, and cosh would overflow in float32.
    z = (SWISH_BETA * x).clamp(-80, 80)
    return SWISH_BETA * (2 - z * torch.tanh(z / 2)) / (1 + torch.cosh(z))

"""Compares the gradients of any function or layer with finite differences."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from bitinfer.train.signs import surrogates

STEP = 1e-5


def gradient_errors(
    function: Callable[[], Tensor], variables: Mapping[str, Tensor], *, step: float = STEP
) -> dict[str, float]:
    """Return, by name, how far autograd is from central differences of ``function``.

    Meaning: ``function`` makes one number from ``variables``, float64 tensors that require a
             gradient.  The error of a variable is the largest difference of its elements, in units
             of its largest gradient.  Signs are replaced by their surrogates around the point
             (signs.surrogates): their gradient is compared with what it is stated to be.
    Cost:    two calls of ``function`` per element.
    Raises:  ValueError if a variable is not float64, needs no gradient or gets none.
    """
    for name, variable in variables.items():
        if variable.dtype != torch.float64 or not variable.requires_grad:
            raise ValueError(f"{name} is {variable.dtype}; wanted float64 that requires a gradient")
    with surrogates() as points:
        found = torch.autograd.grad(
            function(), list(variables.values()), allow_unused=True, materialize_grads=False
        )
    errors = {}
    for (name, variable), gradient in zip(variables.items(), found, strict=True):
        if gradient is None:
            raise ValueError(f"{name} has no part in the function")
        wanted = _differences(function, variable, points, step)
        largest = max(float(wanted.abs().max()), float(gradient.abs().max()), 1e-12)
        errors[name] = float((gradient - wanted).abs().max()) / largest
    return errors


def layer_errors(
    layer: nn.Module, x: Tensor, *, seed: int = 0, step: float = STEP
) -> dict[str, float]:
    """Return the errors of a layer's parameters and of its input ``x``, as gradient_errors.

    The number that is differentiated is the sum of the outputs, each times a random number.
    ``layer`` becomes float64.
    """
    layer.double()
    x = x.detach().double().requires_grad_()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        shape = layer(x).shape
    factors = torch.randn(shape, generator=generator, dtype=torch.float64)

    def total() -> Tensor:
        return (layer(x) * factors).sum()

    variables = {"input": x, **dict(layer.named_parameters())}
    return gradient_errors(total, variables, step=step)


@torch.no_grad()
def _differences(
    function: Callable[[], Tensor], variable: Tensor, points: list[Tensor], step: float
) -> Tensor:
    result = torch.empty_like(variable)
    for index in range(variable.numel()):
        values = []
        for offset in (step, -step):
            flat = variable.view(-1)
            before = float(flat[index])
            flat[index] = before + offset
            with surrogates(points):
                values.append(float(function()))
            flat[index] = before
        result.view(-1)[index] = (values[0] - values[1]) / (2 * step)
    return result

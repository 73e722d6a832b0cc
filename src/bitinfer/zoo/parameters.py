"""What a network of the zoo asks for, and a source that makes it up."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from bitinfer.bits import Floats
from bitinfer.graph import Graph

Shape = tuple[int, int, int]
Built = tuple[Graph, dict[str, NDArray[Any]]]


@dataclasses.dataclass(frozen=True, eq=False)
class LayerParameters:
    """Of a convolution or dense layer.

    Attributes:
        weight: (Cout, kh, kw, Cin / groups) or (Cout, Cin); of a binary layer only the signs count.
        bias: (Cout,), where the layer has one.
        alpha: (Cout,), the scale of binary weights where the layer has one.
    """

    weight: Floats
    bias: Floats | None = None
    alpha: Floats | None = None


@dataclasses.dataclass(frozen=True, eq=False)
class NormParameters:
    """Of a BatchNorm; each (C,), gamma and beta only where it is affine."""

    mean: Floats
    variance: Floats
    gamma: Floats | None = None
    beta: Floats | None = None


@dataclasses.dataclass(frozen=True, eq=False)
class Expected:
    """What comes into a BatchNorm: for sources that make numbers up; a checkpoint knows better.

    Attributes:
        mean, deviation: of the value, the mean in standard deviations; the deviation of all
            channels or (C,) of each.
        signed: gamma may be negative or 0; where it is False, training kept it positive.
    """

    mean: float = 0.4
    deviation: float | Floats = 1.0
    signed: bool = False


BEHIND_RELU = Expected()
"""What a ReLU leaves of a value near 1."""


Role = Literal["slope", "shift"]
"""Of a vector: what a PReLU multiplies with, or what RSign and RPReLU add."""


class ParameterSource(Protocol):
    """Answers a network's requests, which come in order of execution.

    ``flattened`` is the (H, W) of the map that was flattened, channels first, to make the input of
    a dense layer or the value of a BatchNorm; None where no flattening came right before.
    """

    def layer(
        self,
        name: str,
        shape: tuple[int, ...],
        *,
        is_binary: bool,
        flattened: tuple[int, int] | None = None,
        has_bias: bool = True,
        has_alpha: bool = True,
    ) -> LayerParameters:
        """Return the parameters of layer ``name``, whose weight has ``shape``.

        Only a layer with ``is_binary`` weights has an alpha.
        """
        ...

    def norm(
        self,
        name: str,
        channels: int,
        *,
        is_affine: bool,
        epsilon: float,
        flattened: tuple[int, int] | None = None,
        expected: Expected = BEHIND_RELU,
    ) -> NormParameters:
        """Return the parameters of the BatchNorm ``name`` over ``channels`` channels."""
        ...

    def vector(self, name: str, channels: int, role: Role) -> Floats:
        """Return the (C,) numbers called ``name``."""
        ...


@dataclasses.dataclass(frozen=True)
class Architecture:
    """One network of the zoo.

    Attributes:
        name: as in ``bitinfer convert --arch``.
        input_shape: (H, W, C) as published.
        classes: length of the output as published.
        output_layer: name of the layer that makes the classes.
        build: from parameters, number of classes and input shape to graph and tensors.
        paper: who described it, and when.
    """

    name: str
    input_shape: Shape
    classes: int
    output_layer: str
    build: Callable[[ParameterSource, int, Shape], Built]
    paper: str


class RandomParameters:
    """Made-up weights for tests and benchmarks: the same seed gives the same network.

    Scales are chosen so that every value stays near 1 and every sign takes both values.
    """

    def __init__(self, seed: int) -> None:
        self._rng = np.random.default_rng(seed)

    def layer(
        self,
        name: str,
        shape: tuple[int, ...],
        *,
        is_binary: bool,
        flattened: tuple[int, int] | None = None,
        has_bias: bool = True,
        has_alpha: bool = True,
    ) -> LayerParameters:
        """Return normal weights; the scale makes the variance of the output about 1."""
        scale = np.float32(1 / math.sqrt(math.prod(shape[1:])))
        weight = self._rng.standard_normal(shape, np.float32)
        bias = self._uniform(shape[0], -0.2, 0.2) if has_bias else None
        if is_binary:
            alpha = self._uniform(shape[0], 0.5, 1.5) * scale if has_alpha else None
            return LayerParameters(weight, bias, alpha)
        weight *= scale
        return LayerParameters(weight, bias)

    def norm(
        self,
        name: str,
        channels: int,
        *,
        is_affine: bool,
        epsilon: float,
        flattened: tuple[int, int] | None = None,
        expected: Expected = BEHIND_RELU,
    ) -> NormParameters:
        """Return means and variances as expected; gamma and beta near 1 and 0.

        Where gamma may be, a quarter of it is negative and every sixteenth is 0.
        """
        deviation = np.asarray(expected.deviation, np.float32)
        mean = self._uniform(channels, expected.mean - 0.3, expected.mean + 0.3) * deviation
        variance = self._uniform(channels, 0.5, 1.5) * deviation**2
        if not is_affine:
            return NormParameters(mean, variance)
        gamma = self._uniform(channels, 0.5, 1.5)
        if expected.signed:
            gamma[self._rng.random(channels) < 0.25] *= -1
            gamma[15::16] = 0
        return NormParameters(mean, variance, gamma, self._uniform(channels, -0.3, 0.3))

    def vector(self, name: str, channels: int, role: Role) -> Floats:
        """Return slopes about 1/4, or shifts about 0."""
        low, high = {"slope": (0.05, 0.45), "shift": (-0.3, 0.3)}[role]
        return self._uniform(channels, low, high)

    def _uniform(self, count: int, low: float, high: float) -> Floats:
        return self._rng.uniform(low, high, count).astype(np.float32)

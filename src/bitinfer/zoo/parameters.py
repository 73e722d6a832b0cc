"""What a network of the zoo asks for, and a source that makes it up."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from bitinfer.bits import Floats
from bitinfer.graph import Graph


@dataclasses.dataclass(frozen=True, eq=False)
class LayerParameters:
    """Of a convolution or dense layer.

    Attributes:
        weight: (Cout, kh, kw, Cin) or (Cout, Cin); of a binary layer only the signs count.
        bias: (Cout,).
        alpha: (Cout,), the scale of a binary layer; None for a float layer.
    """

    weight: Floats
    bias: Floats
    alpha: Floats | None = None


@dataclasses.dataclass(frozen=True, eq=False)
class NormParameters:
    """Of a BatchNorm; each (C,), gamma and beta only where it is affine."""

    mean: Floats
    variance: Floats
    gamma: Floats | None = None
    beta: Floats | None = None


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
    ) -> LayerParameters:
        """Return the parameters of layer ``name``, whose weight has ``shape``."""
        ...

    def norm(
        self,
        name: str,
        channels: int,
        *,
        is_affine: bool,
        epsilon: float,
        flattened: tuple[int, int] | None = None,
    ) -> NormParameters:
        """Return the parameters of the BatchNorm ``name`` over ``channels`` channels."""
        ...


@dataclasses.dataclass(frozen=True)
class Architecture:
    """One network of the zoo.

    Attributes:
        name: as in ``bitinfer convert --arch``.
        input_shape: (H, W, C).
        classes: length of the output as published.
        output_layer: name of the layer that makes the classes.
        build: from parameters and number of classes to graph and tensors.
    """

    name: str
    input_shape: tuple[int, int, int]
    classes: int
    output_layer: str
    build: Callable[[ParameterSource, int], tuple[Graph, dict[str, NDArray[Any]]]]


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
    ) -> LayerParameters:
        """Return normal weights; the scale makes the variance of the output about 1."""
        scale = np.float32(1 / math.sqrt(math.prod(shape[1:])))
        weight = self._rng.standard_normal(shape, np.float32)
        bias = self._uniform(shape[0], -0.2, 0.2)
        if is_binary:
            return LayerParameters(weight, bias, self._uniform(shape[0], 0.5, 1.5) * scale)
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
    ) -> NormParameters:
        """Return means and variances as behind a ReLU; gamma and beta near 1 and 0."""
        mean = self._uniform(channels, 0.1, 0.7)
        variance = self._uniform(channels, 0.5, 1.5)
        if not is_affine:
            return NormParameters(mean, variance)
        gamma = self._uniform(channels, 0.5, 1.5)
        return NormParameters(mean, variance, gamma, self._uniform(channels, -0.3, 0.3))

    def _uniform(self, count: int, low: float, high: float) -> Floats:
        return self._rng.uniform(low, high, count).astype(np.float32)

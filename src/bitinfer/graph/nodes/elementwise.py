"""Nodes that act on every element alone, but the activations; and those that join two values."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from bitinfer import numerics
from bitinfer.errors import ShapeError
from bitinfer.graph import checks
from bitinfer.graph.checks import Known, Tensors, Value
from bitinfer.graph.nodes.base import (
    BaseNode,
    ChannelFlags,
    ChannelFloats,
    Function,
    TensorName,
    ValueName,
)


class Sign(BaseNode, frozen=True, tag="sign"):
    """Number to sign: -1 where (x < threshold) != flip, else +1 (bits.py).

    threshold (C,) float32, 0 if None: ReActNet's RSign, sign(x + b), has the threshold -b.
    flip (C,) uint8, 0 or 1.
    """

    threshold: TensorName | None = None
    flip: ChannelFlags | None = None

    takes = ("float", "uint8", "int8")

    def rule(self, source: Value, known: Known) -> Value:
        """Make signs of the same shape."""
        if self.threshold is not None:
            checks.check_thresholds(known, self.threshold, source.shape[-1])
        return Value("sign", source.shape)


class Quantize(BaseNode, frozen=True, tag="quantize"):
    """Float to int8: x / scale, rounded half to even, between -128 and 127."""

    scale: float

    def rule(self, source: Value, known: Known) -> Value:
        """Make int8 of the same shape."""
        if not 1e-30 <= self.scale <= 1e30:
            raise ShapeError(f"scale is {self.scale}, wanted 1e-30 to 1e30")
        return Value("int8", source.shape)


class BatchNorm(BaseNode, frozen=True, tag="batch_norm"):
    """BatchNorm at inference over the last axis; all parameters (C,) float32 (numerics.py)."""

    mean: ChannelFloats
    variance: ChannelFloats
    gamma: ChannelFloats | None = None
    beta: ChannelFloats | None = None
    epsilon: float = 1e-5

    def affine(self, tensors: Tensors) -> tuple[Any, Any]:
        """Return scale and shift (C,) float32."""
        return numerics.batch_norm_affine(
            tensors[self.mean],
            tensors[self.variance],
            None if self.gamma is None else tensors[self.gamma],
            None if self.beta is None else tensors[self.beta],
            self.epsilon,
        )

    def rule(self, source: Value, known: Known) -> Value:
        """Keep the shape; scale and shift must be float32 numbers."""
        if not (math.isfinite(self.epsilon) and self.epsilon >= 0):
            raise ShapeError(f"epsilon is {self.epsilon}, wanted a finite number of at least 0")
        if not known.is_new(self.mean, self.variance, self.gamma, self.beta):
            return source
        smallest = float(np.min(known.tensors[self.variance])) + self.epsilon
        if not smallest >= 1e-30:
            raise ShapeError(
                f"variance + epsilon is {smallest} in some channel, wanted above 1e-30"
            )
        if not all(np.isfinite(part).all() for part in self.affine(known.tensors)):
            raise ShapeError("the scale or shift of some channel is too large for float32")
        return source

    def is_monotone(self, tensors: Tensors) -> bool:
        """Rise or fall with the input in every channel."""
        return True

    def falls(self, tensors: Tensors) -> Any:
        """Fall where gamma is negative."""
        return None if self.gamma is None else tensors[self.gamma] < 0

    def function(self, tensors: Tensors) -> Function:
        """Return x * scale + shift."""
        scale, shift = self.affine(tensors)
        return lambda x: numerics.affine(x, scale, shift)


class _OfTwo(BaseNode, frozen=True):
    other: ValueName

    def rule(self, source: Value, known: Known) -> Value:
        """Keep the shape; the other value has the same or one element per channel."""
        other = known.values[self.other]
        if other != Value("float", source.shape[-1:]):
            checks.want_value("other", self.other, other, source)
        return source


class Add(_OfTwo, frozen=True, tag="add"):
    """Sum of two float values of one shape; ``other`` may be (C,), added at every pixel."""


class Multiply(_OfTwo, frozen=True, tag="multiply"):
    """Product of two float values; shapes as of :class:`Add`."""


class Softmax(BaseNode, frozen=True, tag="softmax"):
    """Softmax of a vector."""

    def rule(self, source: Value, known: Known) -> Value:
        """Keep the shape of a vector."""
        checks.want_rank(source, 1)
        return source

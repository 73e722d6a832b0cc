"""The nodes that act on every element alone, or on the elements of two values side by side."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bitinfer import numerics
from bitinfer.errors import ShapeError
from bitinfer.graph import checks
from bitinfer.graph.nodes.base import Function, Node, TensorName, ValueName
from bitinfer.graph.nodes.layers import Activation
from bitinfer.graph.values import Tensors, Value, Values


class Sign(Node, frozen=True, tag="sign"):
    """Number to sign: -1 where (x < threshold) != flip, else +1 (bits.py).

    threshold (C,) float32, 0 if None: ReActNet's RSign, sign(x + b), has the threshold -b.
    flip (C,) uint8, 0 or 1.
    """

    threshold: TensorName | None = None
    flip: TensorName | None = None

    def rule(self, values: Values, tensors: Tensors) -> Value:
        """See :meth:`Node.rule`."""
        source = values[self.input]
        if self.threshold is not None and checks.has_nan(tensors, self.threshold):
            raise ShapeError(f"threshold {self.threshold!r} holds NaN")
        checks.want_kind(source, "float", "uint8", "int8")
        channels = source.shape[-1:]
        if self.threshold is not None:
            threshold = tensors[self.threshold]
            if threshold.dtype != np.float32 or threshold.shape != channels:
                raise ShapeError(
                    f"threshold {self.threshold!r} is {threshold.dtype} of shape "
                    f"{threshold.shape}, wanted float32 of {channels}"
                )
        checks.check_flags(tensors, self.flip, channels)
        return Value("sign", source.shape)


class FloatNode(Node, frozen=True):
    """Base of the nodes that make a float value of the shape of their float input."""

    def rule(self, values: Values, tensors: Tensors) -> Value:
        """See :meth:`Node.rule`."""
        source = values[self.input]
        checks.want_kind(source, "float")
        self.check(source, values, tensors)
        return source

    def check(self, source: Value, values: Values, tensors: Tensors) -> None:
        """Raise GraphError or ShapeError unless everything else fits the input."""


class Quantize(FloatNode, frozen=True, tag="quantize"):
    """Float to int8: x / scale, rounded half to even, between -128 and 127."""

    scale: float

    def rule(self, values: Values, tensors: Tensors) -> Value:
        """See :meth:`Node.rule`."""
        source = FloatNode.rule(self, values, tensors)
        if not 1e-30 <= self.scale <= 1e30:
            raise ShapeError(f"scale is {self.scale}, wanted 1e-30 to 1e30")
        return Value("int8", source.shape)


class BatchNorm(FloatNode, frozen=True, tag="batch_norm"):
    """BatchNorm at inference over the last axis; all parameters (C,) float32 (numerics.py)."""

    mean: TensorName
    variance: TensorName
    gamma: TensorName | None = None
    beta: TensorName | None = None
    epsilon: float = 1e-5

    def check(self, source: Value, values: Values, tensors: Tensors) -> None:
        """See :meth:`FloatNode.check`."""
        for name in (self.mean, self.variance, self.gamma, self.beta):
            checks.check_floats(tensors, name, source.shape[-1:])
        if not (math.isfinite(self.epsilon) and self.epsilon >= 0):
            raise ShapeError(f"epsilon is {self.epsilon}, wanted a finite number of at least 0")
        smallest = float(np.min(tensors[self.variance])) + self.epsilon
        if not smallest >= 1e-30:
            raise ShapeError(
                f"variance + epsilon is {smallest} in some channel, wanted above 1e-30"
            )
        with np.errstate(over="ignore"):
            folded = [part.astype(np.float32) for part in self.norm(tensors).folded()]
        if not all(np.isfinite(part).all() for part in folded):
            raise ShapeError("the scale or shift of some channel is too large for float32")

    def norm(self, tensors: Tensors) -> numerics.Norm:
        """Return what it computes: ``y = (x - mean) * scale + shift``."""
        return numerics.batch_norm(
            tensors[self.mean],
            tensors[self.variance],
            None if self.gamma is None else tensors[self.gamma],
            None if self.beta is None else tensors[self.beta],
            self.epsilon,
        )

    def monotone(self, tensors: Tensors) -> Function | None:
        """See :meth:`Node.monotone`."""
        norm = self.norm(tensors)
        return lambda x: numerics.normalize(x, norm)

    def falls(self, tensors: Tensors) -> NDArray[Any] | None:
        """See :meth:`Node.falls`."""
        return None if self.gamma is None else tensors[self.gamma] < 0


class ActivationNode(FloatNode, frozen=True):
    """Base of the nodes that may become the activation of a layer's epilogue."""

    def activation(self) -> Activation:
        """Return what the node does, as part of an epilogue."""
        raise NotImplementedError(f"{type(self).__name__} has no activation")

    def check(self, source: Value, values: Values, tensors: Tensors) -> None:
        """See :meth:`FloatNode.check`."""
        self.activation().check((source.shape[-1],), tensors)

    def monotone(self, tensors: Tensors) -> Function | None:
        """See :meth:`Node.monotone`."""
        a = self.activation()
        if a.slope is not None and not (tensors[a.slope] >= 0).all():
            return None
        arrays = {
            field: None if name is None else tensors[name]
            for field, name in (
                ("shift_in", a.shift_in),
                ("slope", a.slope),
                ("shift_out", a.shift_out),
            )
        }
        return lambda x: numerics.activate(x, a.kind, low=a.low, high=a.high, **arrays)


class Relu(ActivationNode, frozen=True, tag="relu"):
    """Maximum of x and 0."""

    def activation(self) -> Activation:
        """See :meth:`ActivationNode.activation`."""
        return Activation("relu")

    def is_never_negative(self) -> bool | None:
        """See :meth:`Node.is_never_negative`."""
        return True


class Clip(ActivationNode, frozen=True, tag="clip"):
    """Between low and high; hardtanh has -1 and 1."""

    low: float
    high: float

    def activation(self) -> Activation:
        """See :meth:`ActivationNode.activation`."""
        return Activation("clip", low=self.low, high=self.high)

    def is_never_negative(self) -> bool | None:
        """See :meth:`Node.is_never_negative`."""
        return self.low >= 0 and math.copysign(1, self.low) > 0


class PRelu(ActivationNode, frozen=True, tag="prelu"):
    """``x if x >= 0 else x * slope``; slope (C,) float32."""

    slope: TensorName

    def activation(self) -> Activation:
        """See :meth:`ActivationNode.activation`."""
        return Activation("prelu", slope=self.slope)


class RPRelu(ActivationNode, frozen=True, tag="rprelu"):
    """ReActNet's ``prelu(x + shift_in) + shift_out``; all (C,) float32 (Liu et al. 2020, eq. 4)."""

    shift_in: TensorName
    slope: TensorName
    shift_out: TensorName

    def activation(self) -> Activation:
        """See :meth:`ActivationNode.activation`."""
        return Activation(
            "rprelu", shift_in=self.shift_in, slope=self.slope, shift_out=self.shift_out
        )


class Sigmoid(ActivationNode, frozen=True, tag="sigmoid"):
    """``1 / (1 + exp(-x))``."""

    def activation(self) -> Activation:
        """See :meth:`ActivationNode.activation`."""
        return Activation("sigmoid")


class _Pairwise(FloatNode, frozen=True):
    other: ValueName

    def check(self, source: Value, values: Values, tensors: Tensors) -> None:
        """See :meth:`FloatNode.check`."""
        if values[self.other] != Value("float", source.shape[-1:]):
            checks.want_value("other", self.other, values[self.other], source)


class Add(_Pairwise, frozen=True, tag="add"):
    """Sum of two float values of one shape; ``other`` may be (C,), added at every pixel."""


class Multiply(_Pairwise, frozen=True, tag="multiply"):
    """Product of two float values; shapes as of :class:`Add`."""


class Softmax(FloatNode, frozen=True, tag="softmax"):
    """Softmax of a vector."""

    def check(self, source: Value, values: Values, tensors: Tensors) -> None:
        """See :meth:`FloatNode.check`."""
        checks.want_rank(source, 1)

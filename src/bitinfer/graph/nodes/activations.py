"""Activations: nodes that may become the last part of a layer's epilogue.

A new one is a class here, a kind of :class:`Activation` of the same name, and its arithmetic in
numerics.activate.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

import numpy as np

from bitinfer import numerics
from bitinfer.errors import GraphError, ShapeError
from bitinfer.graph.checks import Known, Tensors, Value
from bitinfer.graph.nodes.base import (
    BaseNode,
    ChannelFloats,
    Function,
    Record,
    tensor_fields,
)


class Activation(Record, frozen=True):
    """What is applied last to a float result, per channel (numerics.activate)."""

    kind: Literal["relu", "prelu", "rprelu", "clip", "sigmoid"]
    shift_in: ChannelFloats | None = None
    slope: ChannelFloats | None = None
    shift_out: ChannelFloats | None = None
    low: float = 0.0
    high: float = 0.0

    def check(self) -> None:
        """Refuse tensors or numbers that do not fit the kind.

        Raises:
            GraphError, ShapeError: they do not.
        """
        node_type = _ACTIVATIONS[self.kind]
        given = {name for name in tensor_fields(Activation) if getattr(self, name) is not None}
        if given != tensor_fields(node_type):
            raise GraphError(f"the activation {self.kind} has other tensors than it wants")
        own = {field: getattr(self, field) for field in _own_fields(node_type)}
        node_type(name="", input="", **own).check()

    def function(self, tensors: Tensors) -> Function:
        """Return what the activation does, in the arithmetic of numerics.py."""
        return lambda x: numerics.activate(
            x,
            self.kind,
            shift_in=None if self.shift_in is None else tensors[self.shift_in],
            slope=None if self.slope is None else tensors[self.slope],
            shift_out=None if self.shift_out is None else tensors[self.shift_out],
            low=self.low,
            high=self.high,
        )


class ActivationNode(BaseNode, frozen=True):
    """A node whose fields, but name and input, are those of an :class:`Activation`."""

    def check(self) -> None:
        """Refuse parameters that are out of range.  Raises ShapeError."""

    def rule(self, source: Value, known: Known) -> Value:
        """Keep the shape."""
        self.check()
        return source

    def is_monotone(self, tensors: Tensors) -> bool:
        """Activations rise unless one says otherwise."""
        return True

    def function(self, tensors: Tensors) -> Function:
        """Return what the activation does."""
        return as_activation(self).function(tensors)


class Relu(ActivationNode, frozen=True, tag="relu"):
    """Maximum of x and 0."""

    def is_identity(self, source: Value, is_never_negative: Callable[[], bool]) -> bool:
        """Nothing happens to what is never negative."""
        return is_never_negative()

    def never_negative(self) -> bool:
        """Tell that the result is at least 0."""
        return True


class Clip(ActivationNode, frozen=True, tag="clip"):
    """Between low and high; hardtanh has -1 and 1."""

    low: float
    high: float

    def check(self) -> None:
        """Both must be float32, in this order."""
        low, high = self.low, self.high
        if not (math.isfinite(low) and math.isfinite(high) and low <= high):
            raise ShapeError(f"clip between {low} and {high}: wanted finite numbers in this order")
        if max(abs(low), abs(high)) > float(np.finfo(np.float32).max):
            raise ShapeError(f"clip between {low} and {high}: too large for float32")

    def never_negative(self) -> bool:
        """Tell whether low is at least 0; -0.0 would not do."""
        return self.low >= 0 and math.copysign(1, self.low) > 0


class PRelu(ActivationNode, frozen=True, tag="prelu"):
    """``x if x >= 0 else x * slope``; slope (C,) float32."""

    slope: ChannelFloats

    def is_monotone(self, tensors: Tensors) -> bool:
        """Tell whether no slope is negative: there it turns round at 0."""
        return bool((tensors[self.slope] >= 0).all())


class RPRelu(ActivationNode, frozen=True, tag="rprelu"):
    """ReActNet's ``prelu(x + shift_in) + shift_out``; all (C,) float32 (Liu et al. 2020, eq. 4)."""

    shift_in: ChannelFloats
    slope: ChannelFloats
    shift_out: ChannelFloats

    def is_monotone(self, tensors: Tensors) -> bool:
        """Tell whether no slope is negative, as of :class:`PRelu`."""
        return bool((tensors[self.slope] >= 0).all())


class Sigmoid(ActivationNode, frozen=True, tag="sigmoid"):
    """``1 / (1 + exp(-x))``."""


_ACTIVATIONS: dict[str, type[ActivationNode]] = {
    str(node.__struct_config__.tag): node for node in ActivationNode.__subclasses__()
}


def as_activation(node: ActivationNode) -> Activation:
    """Return what an activation node does, as part of an epilogue."""
    own = {field: getattr(node, field) for field in _own_fields(type(node))}
    return Activation(node.operation, **own)  # type: ignore[arg-type]


def _own_fields(node: type[ActivationNode]) -> tuple[str, ...]:
    return node.__struct_fields__[len(BaseNode.__struct_fields__) :]

"""What the words of foreign.OPERATIONS compute, in NumPy: for constants, and for probing signs."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bitinfer.errors import CheckpointError
from bitinfer.importers.foreign import Attribute, Foreign, ForeignNode

Array = NDArray[Any]

MAX_ELEMENTS = 1 << 28
"""Of a constant that follows from others: as many as the largest layer in any network here."""


def _sigmoid(x: Array) -> Array:
    return (1 / (1 + np.exp(-x.astype(np.float64)))).astype(np.float32)


def _where(condition: Array, x: Array, y: Array) -> Array:
    return np.where(condition.astype(bool), x, y)


_SIMPLE: Mapping[str, Callable[..., Array]] = {
    "identity": lambda x: x,
    "relu": lambda x: np.maximum(x, 0),
    "prelu": lambda x, slope: np.where(x < 0, x * slope, x),
    "sigmoid": _sigmoid,
    "tanh": np.tanh,
    "abs": np.abs,
    "negate": np.negative,
    "sqrt": np.sqrt,
    "add": np.add,
    "subtract": np.subtract,
    "multiply": np.multiply,
    "divide": np.divide,
    "power": np.power,
    "minimum": np.minimum,
    "maximum": np.maximum,
    "less": np.less,
    "less_or_equal": np.less_equal,
    "greater": np.greater,
    "greater_or_equal": np.greater_equal,
    "equal": np.equal,
    "not": np.logical_not,
    "where": _where,
    "to_float": lambda x: x.astype(np.float32),
    "to_bool": lambda x: x.astype(bool),
}


def _sign(x: Array, at_zero: int, low: float, high: float) -> Array:
    middle = np.float32({-1: low, 0: (low + high) / 2, 1: high}[at_zero])
    return np.where(x < 0, np.float32(low), np.where(x > 0, np.float32(high), middle))


_WITH_ATTRIBUTES: Mapping[str, Callable[..., Array]] = {
    "sign": _sign,
    "quantize": lambda x, scale: (
        np.clip(np.rint(x / np.float32(scale)), -128, 127) * np.float32(scale)
    ),
    "clip": lambda x, low, high: np.clip(x, np.float32(low), np.float32(high)),
    "reshape": lambda x, shape: x.reshape(shape),
    "transpose": lambda x, axes: x.transpose(axes),
    "mean": lambda x, axes, keeps_axes: x.mean(
        axis=axes, keepdims=bool(keeps_axes), dtype=np.float64
    ).astype(np.float32),
}

CAN_EVALUATE = frozenset(_SIMPLE) | frozenset(_WITH_ATTRIBUTES)
"""The words that :func:`evaluate` knows: all that is done element by element, and reshaping."""


def function_of(operation: str) -> Callable[..., Array] | None:
    """Return what a word computes of its inputs, then its attributes by name; None if unknown."""
    return _SIMPLE.get(operation) or _WITH_ATTRIBUTES.get(operation)


def evaluate(operation: str, attributes: Mapping[str, Attribute], inputs: list[Array]) -> Array:
    """Return what ``operation`` makes of whole arrays; float64 becomes float32 first.

    Raises:
        CheckpointError: shapes do not fit, or the result has over MAX_ELEMENTS elements.
    """
    inputs = [x.astype(np.float32) if x.dtype == np.float64 else x for x in inputs]
    try:
        shape = np.broadcast_shapes(*(x.shape for x in inputs))
        if math.prod(shape) > MAX_ELEMENTS:
            raise CheckpointError(f"a constant of shape {shape} would be too large")
        with np.errstate(all="ignore"):
            if operation in _SIMPLE:
                return np.asarray(_SIMPLE[operation](*inputs))
            return np.asarray(_WITH_ATTRIBUTES[operation](*inputs, **attributes))
    except (ValueError, TypeError, IndexError) as error:
        shapes = ", ".join(str(x.shape) for x in inputs)
        raise CheckpointError(f"{operation} of constants of shape {shapes}: {error}") from error


def fold_constants(foreign: Foreign) -> Foreign:
    """Return the network with every value that follows from constants alone as a constant.

    Exporters leave chains behind every weight: torch's fold nothing above 8,192 elements.
    """
    constants = dict(foreign.constants)
    nodes: list[ForeignNode] = []
    for node in foreign.nodes:
        is_constant = node.inputs and all(name in constants for name in node.inputs)
        if is_constant and node.operation in CAN_EVALUATE:
            arrays = [constants[name] for name in node.inputs]
            try:
                constants[node.name] = evaluate(node.operation, node.attributes, arrays)
            except CheckpointError as error:
                raise CheckpointError(f"{node.name}: {error}") from error
        else:
            nodes.append(node)
    return dataclasses.replace(foreign, nodes=tuple(nodes), constants=constants)

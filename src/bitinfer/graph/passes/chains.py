"""Chains of nodes that act on every element alone, and rise or fall with it in every channel.

A sign behind such a chain is a comparison of the chain's input with one threshold per channel.  It
is found by bisecting the float32 arithmetic of the chain itself (numerics.py), not by a formula:
what is composed of monotone operations, each rounded, is monotone, so the comparison is exact.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bitinfer import numerics
from bitinfer.graph import nodes
from bitinfer.graph.nodes import Node, as_activation
from bitinfer.graph.passes.draft import Draft

Array = NDArray[Any]
Function = Callable[[Array], Array]
"""From one number per channel to one number per channel."""

_LARGEST = np.finfo(np.float32).max


def monotone(draft: Draft, node: Node) -> bool:
    """Tell whether a node acts on every element alone, monotonely in every channel."""
    match node:
        case nodes.BatchNorm() | nodes.Relu() | nodes.Clip() | nodes.Sigmoid():
            return True
        case nodes.PRelu() | nodes.RPRelu():
            return bool((draft.tensor(node.slope) >= 0).all())
        case _:
            return False


def function_of(draft: Draft, node: Node) -> Function:
    """Return what a monotone node does, in the arithmetic of numerics.py."""
    if isinstance(node, nodes.BatchNorm):
        scale, shift = norm_affine(draft, node)
        return lambda x: numerics.affine(x, scale, shift)
    assert isinstance(node, nodes.ActivationNode)
    return activation_function(draft, as_activation(node))


def activation_function(draft: Draft, a: nodes.Activation) -> Function:
    """Return what an activation does."""
    shift_in, slope, shift_out = (draft.tensor(n) for n in (a.shift_in, a.slope, a.shift_out))
    return lambda x: numerics.activate(
        x,
        a.kind,
        shift_in=shift_in,
        slope=slope,
        shift_out=shift_out,
        low=a.low,
        high=a.high,
    )


def norm_affine(draft: Draft, node: nodes.BatchNorm) -> tuple[Array, Array]:
    """Return scale and shift of a BatchNorm."""
    return numerics.batch_norm_affine(
        draft.tensor(node.mean),
        draft.tensor(node.variance),
        draft.tensor(node.gamma),
        draft.tensor(node.beta),
        node.epsilon,
    )


def bits_of(draft: Draft, chain: list[Node], sign: nodes.Sign) -> Function:
    """Return the function from an element to the bit of its sign behind the chain."""
    steps = [function_of(draft, node) for node in chain]
    threshold, flip = draft.tensor(sign.threshold), draft.tensor(sign.flip)

    def bits(x: Array) -> Array:
        with np.errstate(all="ignore"):
            for step in steps:
                # An infinity that meets a scale of 0 would be no number.
                x = np.clip(step(x), -_LARGEST, _LARGEST)
            bit: Array = x < (np.float32(0) if threshold is None else threshold)
        return bit if flip is None else bit != flip.astype(np.bool_)

    return bits


def bisect(bits: Function, low: Array, high: Array) -> tuple[Array, Array]:
    """Return threshold and flip (C,) with ``bits(x) == ((x < threshold) != flip)``.

    ``low`` and ``high`` (C,) int64 are the smallest and largest x.  bits rises or falls once
    between them, or is constant: then the threshold is ``low``, below which there is nothing.
    """
    at_low, at_high = bits(low), bits(high)
    first, last = (
        low.copy(),
        high.copy(),
    )  # the threshold lies in (first, last] where it lies inside
    for _ in range(int((high - low).max()).bit_length()):
        middle = (first + last) // 2
        is_high = bits(middle) == at_high
        last = np.where(is_high, middle, last)
        first = np.where(is_high, first, middle)
    threshold = np.where(at_low == at_high, low, last)
    return threshold, at_high


def bisect_floats(bits: Function, channels: int) -> tuple[Array, Array]:
    """Return threshold (C,) float32 and flip, as :func:`bisect` over all finite float32 numbers."""
    limit = np.full(channels, _float_to_key(np.array(_LARGEST)), np.int64)
    threshold, flip = bisect(lambda keys: bits(_key_to_float(keys)), -limit - 1, limit)
    result = _key_to_float(threshold)
    # What is constant is so for infinities too.
    result[threshold == -limit - 1] = -np.inf
    return result, flip


def _float_to_key(x: Array) -> Array:
    """Return numbers for float32 numbers, in ascending order; -0.0 comes before 0.0."""
    integer = x.astype(np.float32).view(np.int32).astype(np.int64)
    return np.where(integer >= 0, integer, -(integer & 0x7FFFFFFF) - 1)


def _key_to_float(key: Array) -> Array:
    magnitude = np.where(key >= 0, key, -key - 1).astype(np.uint32)
    signs = np.where(key >= 0, np.uint32(0), np.uint32(0x80000000))
    return (magnitude | signs).view(np.float32).copy()

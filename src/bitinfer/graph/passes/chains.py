"""Chains of nodes that act on every element alone, and rise or fall with it in every channel.

A sign behind such a chain is a comparison of the chain's input with one threshold per channel.  It
is found by bisecting the float32 arithmetic of the chain itself (numerics.py), not by a formula:
what is composed of monotone operations, each rounded, is monotone, so the comparison is exact.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from bitinfer.graph import nodes
from bitinfer.graph.nodes import Function, Node
from bitinfer.graph.passes.draft import Draft

Array = NDArray[Any]

_LARGEST = np.finfo(np.float32).max


def is_monotone(draft: Draft, node: Node) -> bool:
    """Tell whether a node acts on every element alone, monotonely in every channel."""
    return node.monotone(draft.tensors) is not None


def has_integer_sums(draft: Draft, node: Node | None) -> bool:
    """Tell whether a node is a layer whose result depends on an integer sum and nothing else."""
    if not isinstance(node, nodes.Layer) or node.epilogue is not None:
        return False
    match node:
        case nodes.BinaryConv2d() | nodes.BinaryDense():
            return node.beta is None
        case nodes.Conv2d():
            return draft.values[node.input].is_integer and node.offset is None
        case nodes.Dense():
            return draft.values[node.input].is_integer


def largest_sums(draft: Draft, node: nodes.Layer) -> Array:
    """Return the largest magnitude of the sums of every channel (C,) int64."""
    source, weight = draft.values[node.input], draft.tensor(node.weight)
    scale = {"sign": 1, "uint8": 255, "int8": 128}[source.kind]
    if weight.dtype == np.uint64:
        groups = getattr(node, "groups", 1)
        taps = int(np.prod(weight.shape[1:-1], dtype=np.int64))
        return np.full(len(weight), scale * taps * (source.shape[-1] // groups), np.int64)
    magnitude = np.abs(weight.reshape(len(weight), -1).astype(np.int64))
    return np.asarray(scale * magnitude.sum(axis=1))


def bits_of(draft: Draft, chain: list[Node], sign: nodes.Sign) -> Function:
    """Return the function from an element to the bit of its sign behind the chain of such nodes."""
    steps = [step for node in chain if (step := node.monotone(draft.tensors)) is not None]
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
        middle = (first + last) >> 1
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

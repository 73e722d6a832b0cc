"""Finds signs by what they compute, not by how their author wrote them.

Sign(x), Sign(Sign(x) + 0.1), Where(x >= 0, 1, -1), and a sign with the polynomial of its gradient
beside it, as ``sign(x) - p(x) + p(x)``, are one thing: a function of single elements that takes one
value below 0 and another above.  It is evaluated on a grid that would show anything else: 0 and
-0.0, +-1 and the numbers one ulp beside them, every power of two from the smallest on, and steps of
1/20 between -3 and 3.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping

import numpy as np

from bitinfer.bits import Floats
from bitinfer.errors import CheckpointError
from bitinfer.importers.binary import Levels
from bitinfer.importers.evaluate import CAN_EVALUATE, Array, evaluate
from bitinfer.importers.foreign import Foreign, ForeignNode, is_elementwise

Constants = Mapping[str, Array]

CLOSE = 2e-6
"""What ``sign(x) - p(x) + p(x)`` may be off by: some roundings of float32 at sizes of up to 3."""

MAX_REGION = 64
"""Nodes that one sign may be written in: Bi-Real-Net's takes 27."""

_MAX_PROBED = 1 << 23
_LARGEST_POWER = 13
"""Above 2**13, polynomials of the second degree would leave float32's exact range."""


def grid() -> Floats:
    """Return the numbers at which a function is looked at, in rising order; 0 twice, as -0.0 and 0.

    The order of -0.0 and 0.0 is that of numpy.sort: equal.
    """
    one = np.float32(1)
    powers = np.ldexp(one, np.arange(-149, _LARGEST_POWER + 1))
    special = np.array([0.5, 1, 2, 3], np.float32)
    beside = [np.nextafter(special, np.float32(0)), np.nextafter(special, np.float32(4))]
    steps = np.arange(1, 61, dtype=np.float32) / np.float32(20)
    positive = np.unique(np.concatenate([powers, special, *beside, steps]))
    zeros = np.array([-0.0, 0.0], np.float32)
    return np.concatenate([-positive[::-1], zeros, positive]).astype(np.float32)


_GRID = grid()


@dataclasses.dataclass(frozen=True)
class FoundSign:
    """A function that takes ``levels.low`` below 0 and ``levels.high`` above."""

    levels: Levels
    at_zero: int


def as_sign(values: Array) -> FoundSign | None:
    """Say which sign a function is, from its values on the grid; None if it is none.

    Shapes:  values (len(grid()), ...): of several channels, which must agree.
    """
    below, at, above = (values[m] for m in (_GRID < 0, _GRID == 0, _GRID > 0))
    low, high = _level(below), _level(above)
    if low is None or high is None or low == high:
        return None
    for at_zero, level in ((1, high), (-1, low), (0, (low + high) / 2)):
        if np.abs(at - level).max() <= CLOSE:
            return FoundSign(Levels(low, high), at_zero)
    return None


def _level(values: Array) -> float | None:
    """Return the one number that all values are, rounded to a whole one where they scatter."""
    values = values.astype(np.float64)
    if not np.isfinite(values).all():
        return None
    low, high = float(values.min()), float(values.max())
    if low == high:
        return low
    whole = float(np.rint((low + high) / 2))
    return whole if max(abs(low - whole), abs(high - whole)) <= CLOSE else None


def find_signs(foreign: Foreign) -> Foreign:
    """Return the network with every sign, however it is written, as one node ``sign``.

    Meaning: a value is the sign of the value farthest back of which it is one, so that what does
             not matter to a sign, such as a hardtanh before it, is left out.  Nodes that nothing
             reads any more are left out too.
    """
    makers = {node.name: node for node in foreign.nodes}
    found: dict[str, ForeignNode] = {}
    for node in foreign.nodes:
        if _may_be_sign(node):
            sign = _sign_of(node, makers, foreign.constants)
            if sign is not None:
                found[node.name] = sign
    nodes = [found.get(node.name, node) for node in foreign.nodes]
    return dataclasses.replace(foreign, nodes=_needed(tuple(nodes), foreign.outputs))


def _may_be_sign(node: ForeignNode) -> bool:
    """Tell whether the last step of a sign may be this one: not one that gives truth values."""
    return is_elementwise(node) and node.operation in CAN_EVALUATE - _TRUTHS


_TRUTHS = {"less", "less_or_equal", "greater", "greater_or_equal", "equal", "not", "to_bool"}


def _sign_of(
    node: ForeignNode, makers: Mapping[str, ForeignNode], constants: Constants
) -> ForeignNode | None:
    result: ForeignNode | None = None
    for root, region in _regions(node, makers, constants):
        values = _probe(root, region, constants)
        sign = None if values is None else as_sign(values)
        if sign is not None:
            attributes = {
                "at_zero": sign.at_zero,
                "low": sign.levels.low,
                "high": sign.levels.high,
            }
            result = ForeignNode(node.name, "sign", (root,), attributes)
    return result


def _regions(
    node: ForeignNode, makers: Mapping[str, ForeignNode], constants: Constants
) -> list[tuple[str, list[ForeignNode]]]:
    """Return the values that ``node`` follows from alone, nearest first, with what lies between.

    Walks back from ``node``, always over the value that was made last: when a single value is left
    to walk over, everything follows from it.
    """
    place = {name: i for i, name in enumerate(makers)}
    region = [node]
    front = {name for name in node.inputs if name not in constants}
    result: list[tuple[str, list[ForeignNode]]] = []
    while len(region) <= MAX_REGION and front:
        if len(front) == 1:
            result.append((next(iter(front)), region[::-1]))
        last = max(front, key=lambda name: place.get(name, -1))
        maker = makers.get(last)
        if maker is None or not is_elementwise(maker) or maker.operation not in CAN_EVALUATE:
            break
        front.remove(last)
        front |= {name for name in maker.inputs if name not in constants}
        region.append(maker)
    return result


def _probe(root: str, region: list[ForeignNode], constants: Constants) -> Array | None:
    """Return what the region makes of the grid in place of ``root``; None if that is too much."""
    values: dict[str, Array] = {root: _GRID.reshape(-1, 1, 1, 1)}
    for node in region:
        inputs = [values[n] if n in values else constants[n] for n in node.inputs]
        try:
            shape = np.broadcast_shapes(*(x.shape for x in inputs))
        except ValueError:
            return None
        if len(shape) > 4 or math.prod(shape) > _MAX_PROBED:
            return None
        try:
            values[node.name] = evaluate(node.operation, node.attributes, inputs)
        except CheckpointError:
            return None
    result = values[region[-1].name]
    return result if len(result) == len(_GRID) and result.size <= _MAX_PROBED else None


def _needed(nodes: tuple[ForeignNode, ...], outputs: tuple[str, ...]) -> tuple[ForeignNode, ...]:
    wanted = set(outputs)
    kept: list[ForeignNode] = []
    for node in reversed(nodes):
        if node.name in wanted:
            kept.append(node)
            wanted.update(node.inputs)
    return tuple(reversed(kept))

"""Which maps are pooled while they are made, some rows at a time, so that they are never whole.

The first convolution of a network for large pictures makes a map of megabytes, more than the
second-level cache holds, and all that is ever read of it is the pool behind it.  Where the two
take turns, the map is a buffer for the rows that a few rows of the pool read.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping

from bitinfer.plan import cost
from bitinfer.plan.steps import AvgPool2d, Conv2d, MaxPool2d, Plan

LARGE_MAP_BYTES = 1 << 20
"""Smaller maps stay in the second-level cache until they are pooled."""

BAND_BYTES = 1 << 18
"""What a band takes at most: a part of that cache."""


@dataclasses.dataclass(frozen=True)
class Band:
    """Of a convolution: ``rows`` of the pool at a time, which read ``map_rows`` of its map."""

    rows: int
    map_rows: int


def find_bands(plan: Plan) -> Mapping[int, Band]:
    """Return the bands of each convolution that takes turns with its pool, by its index.

    The pool is the next step, and the only one that reads the map.
    """
    spans = plan.lifetimes()
    found = {}
    for index, (layer, pool) in enumerate(zip(plan.steps, plan.steps[1:], strict=False)):
        if (
            isinstance(layer, Conv2d)
            and isinstance(pool, MaxPool2d | AvgPool2d)
            and layer.target == pool.source
            and layer.target not in layer.sources
            and spans.get(layer.target) == (index, index + 1)
            and (band := _band(plan, layer, pool)) is not None
        ):
            found[index] = band
    return found


def _band(plan: Plan, layer: Conv2d, pool: MaxPool2d | AvgPool2d) -> Band | None:
    """Return the largest band that fits, if there is one and the map is worth it."""
    made, pooled = plan.buffers[layer.target], plan.buffers[pool.target]
    height, rows = made.shape[0], pooled.shape[0]
    kernel, stride, above = pool.window.kernel[0], pool.window.stride[0], pool.window.padding[0]
    reads_every_row = stride <= kernel and (rows - 1) * stride - above + kernel >= height
    if made.kind != "float" or made.size_bytes <= LARGE_MAP_BYTES or not reads_every_row:
        return None
    most = min(
        BAND_BYTES // (math.prod(made.shape[1:]) * made.dtype.itemsize),
        height * cost.WORK_AT_ONCE // cost.work(layer, plan),
    )
    at_once = (most - kernel) // stride + 1 if most >= kernel else 0
    if not 0 < at_once < rows:
        return None
    return Band(at_once, (at_once - 1) * stride + kernel)

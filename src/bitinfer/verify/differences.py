"""What a difference between model and source is, and how values of the source are compared."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bitinfer.importers.foreign import ForeignNode, Layout

Array = NDArray[Any]

ROUNDING = 1e-6
"""Share of the largest value before a sign that float32 may be off by at least: some roundings."""

CLOSE = 1e-3
"""Largest difference of outputs, relative to the largest output where that is above 1."""


@dataclasses.dataclass(frozen=True, eq=False)
class Difference:
    """Where source and model part first.

    Attributes:
        name: of the sign or output that differs.
        layers: of the source, in which the fault must be.
        explanations: what, changed in the source, would make it equal to the model.
        source, model: what both have for one sample: (H, W, C) or (C,), signs as -1 and +1.
    """

    name: str
    layers: tuple[str, ...]
    explanations: tuple[str, ...]
    source: Array
    model: Array


def to_source(x: Array, layout: Layout | None) -> Array:
    """Return a batch of ours in the source's layout."""
    return np.moveaxis(x, -1, 1) if layout == "NCHW" and x.ndim == 4 else x


def to_own(x: Array, layout: Layout | None) -> Array:
    """Return a batch of the source's in ours."""
    return np.moveaxis(x, 1, -1) if layout == "NCHW" and x.ndim == 4 else x


def source_signs(node: ForeignNode, value: Array) -> Array:
    """Return what stands for signs as -1 and +1."""
    low, high = float(node.attributes["low"]), float(node.attributes["high"])  # type: ignore[arg-type]
    middle = (low + high) / 2
    is_high = value >= middle if high > low else value <= middle
    return np.where(is_high, 1, -1)

"""A foreign graph as far as a reader has written it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bitinfer.errors import CheckpointError
from bitinfer.files import one_line
from bitinfer.importers.foreign import Attribute, ForeignNode

Array = NDArray[Any]
Shape = tuple[int, ...]

MAX_ELEMENTS = 1 << 28
"""Of one value."""


class GraphDraft:
    """The state of a walk over a file; the operators of its format write the nodes.

    Attributes:
        nodes: in order of execution.
        constants: arrays by name.
        shapes: of values, by name.
        alias: names of values that are other values.
    """

    def __init__(self, constants: Mapping[str, Array] | None = None) -> None:
        self.nodes: list[ForeignNode] = []
        self.constants: dict[str, Array] = dict(constants or {})
        self.shapes: dict[str, Shape] = {}
        self.alias: dict[str, str] = {}

    def add(
        self,
        name: str,
        operation: str,
        inputs: tuple[str, ...],
        shape: Shape,
        /,
        **attributes: Attribute,
    ) -> str:
        """Write a node whose value has ``shape``; returns its name.

        Raises:
            CheckpointError: the name stands twice, or the value is empty or too large.
        """
        if name in self.shapes or name in self.constants:
            raise CheckpointError(f"{one_line(name)}: the name stands twice")
        if any(n < 1 for n in shape) or math.prod(shape) > MAX_ELEMENTS:
            raise CheckpointError(f"a value of shape {shape}")
        self.nodes.append(ForeignNode(name, operation, inputs, attributes))
        self.shapes[name] = shape
        return name

    def make_constant(self, name: str, value: Any) -> str:
        """Add a constant of our own; returns its name, which is another one where that is taken."""
        while name in self.constants or name in self.shapes:
            name += "'"
        self.constants[name] = np.asarray(value)
        return name

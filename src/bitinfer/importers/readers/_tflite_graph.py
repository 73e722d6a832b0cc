"""The state of a walk through a TensorFlow Lite model, and one of its operators."""

from __future__ import annotations

from typing import Any

import numpy as np

from bitinfer.errors import CheckpointError, ConversionError
from bitinfer.files import one_line
from bitinfer.importers.readers._flatbuffer import Table, flexible_map
from bitinfer.importers.readers._graph_draft import Array, GraphDraft, Shape


class Operator:
    """An operator.

    Attributes:
        code: BuiltinOperator, or the name of a custom one.
        inputs, outputs: names of tensors; empty where one is missing.
        custom: options of a custom operator.
    """

    def __init__(self, code: int | str, table: Table, names: list[str]) -> None:
        self.code = code
        self.inputs = tuple(names[i] if i >= 0 else "" for i in table.integers(1))
        self.outputs = tuple(names[i] for i in table.integers(2))
        if not self.outputs:
            raise CheckpointError(f"the operator {one_line(code)} makes nothing")
        self.name = self.outputs[0]
        self._options = table.table(4)
        options = table.array(5, "u1")
        is_custom = isinstance(code, str) and options is not None and options.size
        self.custom = flexible_map(options.tobytes()) if is_custom and options is not None else {}

    def option(self, index: int, kind: str, default: float = 0) -> Any:
        """Return a built-in option by its position in the schema."""
        return default if self._options is None else self._options.number(index, kind, default)

    def options(self, index: int) -> tuple[int, ...]:
        """Return a built-in option of several whole numbers."""
        return () if self._options is None else self._options.integers(index)


class TfliteGraph(GraphDraft):
    """The state of a walk over the operators; handlers in _tflite_operators.py write the nodes.

    Shapes of values are without the batch.

    Attributes:
        declared: shapes of all tensors as the file has them, with the batch.
        types: TensorType of all tensors.
        about_shapes: names of values that are made of shapes alone.
    """

    def __init__(self) -> None:
        super().__init__()
        self.declared: dict[str, Shape] = {}
        self.types: dict[str, int] = {}
        self.about_shapes: set[str] = set()

    def shape(self, name: str) -> Shape:
        """Return the shape of a value, without the batch."""
        if name not in self.shapes:
            raise ConversionError(f"{one_line(name) or 'an input'} is no value, wanted one")
        return self.shapes[name]

    def floats(self, name: str, what: str) -> Array:
        """Return a constant of floats."""
        found = self.constants.get(name)
        if found is None:
            raise ConversionError(f"{what} is missing or depends on the input, wanted a constant")
        if found.dtype.kind != "f":
            raise ConversionError(f"{what} is {found.dtype}: models of integers are not read")
        return found.astype(np.float32)

    def integers(self, name: str, what: str) -> Array:
        """Return a constant of whole numbers."""
        found = self.constants.get(name)
        if found is None or found.dtype.kind != "i":
            raise ConversionError(f"{what} is missing or no constant of whole numbers")
        return found

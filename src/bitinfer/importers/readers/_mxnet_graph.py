"""The state of a walk through an MXNet symbol, and one of its nodes."""

from __future__ import annotations

import ast
from typing import Any

from bitinfer.errors import CheckpointError, ConversionError
from bitinfer.importers.foreign import Attribute
from bitinfer.importers.readers._graph_draft import Array, GraphDraft, Shape


class MxnetNode:
    """An operator with its attributes, which are texts."""

    def __init__(self, name: str, operation: str, attributes: Any, inputs: tuple[str, ...]) -> None:
        self.name = name
        self.operation = operation
        self.inputs = inputs
        self._attributes = attributes if isinstance(attributes, dict) else {}

    def text(self, name: str, default: str = "") -> str:
        """Return an attribute as it is."""
        return str(self._attributes.get(name, default))

    def flag(self, name: str, default: bool = False) -> bool:
        """Return a truth value."""
        return self.text(name, str(default)).lower() in ("true", "1")

    def number(self, name: str, default: float) -> float:
        """Return a number."""
        return float(self.text(name, str(default)))

    def numbers(self, name: str, default: tuple[int, ...]) -> tuple[int, ...]:
        """Return whole numbers; one is taken twice."""
        text = self.text(name)
        if not text:
            return default
        value = ast.literal_eval(text)
        found = tuple(int(v) for v in (value if isinstance(value, tuple | list) else (value,) * 2))
        return found or default


class MxnetGraph(GraphDraft):
    """The state of a walk; handlers in _mxnet_operators.py write the nodes."""

    def __init__(self, arrays: dict[str, Array], shape: Shape) -> None:
        super().__init__(arrays)
        self.input = ""
        self._shape = shape

    def take_input(self, name: str) -> None:
        """Note a variable that no weight belongs to: the input, or labels that nobody needs."""
        if not self.input:
            self.input = name
            self.shapes[name] = self._shape

    def add(
        self,
        name: str,
        operation: str,
        inputs: tuple[str, ...],
        shape: Shape,
        /,
        **attributes: Attribute,
    ) -> str:
        """See :meth:`GraphDraft.add`; MXNet has no values without axes."""
        if not shape:
            raise CheckpointError("a value without axes")
        return super().add(name, operation, inputs, shape, **attributes)

    def weight(self, name: str, what: str) -> Array:
        """Return a weight."""
        if name not in self.constants:
            raise ConversionError(f"{what} is missing or depends on the input, wanted a constant")
        return self.constants[name]

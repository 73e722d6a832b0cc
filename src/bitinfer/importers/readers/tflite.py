"""Reads TensorFlow Lite models with the operators of Larq Compute Engine, in pure Python.

Bits are packed 32 to a word, least significant first, 1 for -1, as here.  Models of int8 are
refused.  Source: tensorflow/lite/schema/schema.fbs; larq/compute-engine, larq_compute_engine/
tflite/kernels/bconv2d.cc and core/bconv2d/output_transform.h.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bitinfer.errors import CheckpointError, ConversionError
from bitinfer.files import one_line
from bitinfer.importers.foreign import Attribute, Foreign, ForeignNode
from bitinfer.importers.readers._flatbuffer import Table, flexible_map

Array = NDArray[Any]
Shape = tuple[int, ...]

MAX_OPERATORS = 100_000
MAX_ELEMENTS = 1 << 28
_MARK = b"TFL3"
_TYPES = {0: "<f4", 1: "<f2", 2: "<i4", 3: "u1", 4: "<i8", 6: "?", 7: "<i2", 9: "i1", 10: "<f8"}
"""TensorType, as far as weights and shapes have them."""
_NARROW = {3: "uint8", 7: "int16", 9: "int8"}
_CUSTOM = 32


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


class TfliteGraph:
    """The state of a walk over the operators; handlers in _tflite_operators.py write the nodes.

    Attributes:
        shapes: of values, without the batch.
        constants: arrays by name.
        declared: shapes of all tensors as the file has them, with the batch.
        is_packed: names of tensors of packed bits.
        alias: names of values that are other values.
    """

    def __init__(self) -> None:
        self.nodes: list[ForeignNode] = []
        self.constants: dict[str, Array] = {}
        self.shapes: dict[str, Shape] = {}
        self.declared: dict[str, Shape] = {}
        self.types: dict[str, int] = {}
        self.alias: dict[str, str] = {}
        self.about_shapes: set[str] = set()

    def add(
        self,
        name: str,
        operation: str,
        inputs: tuple[str, ...],
        shape: Shape,
        /,
        **attributes: Attribute,
    ) -> str:
        """Write a node whose value has ``shape``; returns its name."""
        if name in self.shapes or name in self.constants:
            raise CheckpointError("its name stands twice")
        if not all(n > 0 for n in shape) or math.prod(shape) > MAX_ELEMENTS:
            raise CheckpointError(f"a value of shape {shape}")
        self.nodes.append(ForeignNode(name, operation, inputs, attributes))
        self.shapes[name] = shape
        return name

    def constant(self, name: str, value: Any) -> str:
        """Add a constant of our own; returns its name."""
        self.constants[name] = np.asarray(value)
        return name

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


def from_bytes(data: bytes) -> Foreign:
    """Return the network.

    Raises:
        CheckpointError: this is no TensorFlow Lite model, or a damaged one.
        ConversionError: it has operators that have no counterpart, or computes with int8.
    """
    if data[4:8] != _MARK:
        raise CheckpointError("this is no TensorFlow Lite model")
    try:
        return _read(Table.root(data))
    except (IndexError, ValueError, TypeError, KeyError, ArithmeticError, MemoryError) as error:
        if isinstance(error, CheckpointError | ConversionError):
            raise
        raise CheckpointError(f"this is damaged: {one_line(error)}") from error


def _read(model: Table) -> Foreign:
    from bitinfer.importers.readers import _tflite_operators

    graphs = model.tables(2)
    if len(graphs) != 1:
        raise ConversionError(f"{len(graphs)} graphs, wanted one")
    graph, codes = TfliteGraph(), [_code(table) for table in model.tables(1)]
    names = _tensors(graph, graphs[0], model.tables(4))
    inputs, outputs = graphs[0].integers(1), graphs[0].integers(2)
    if len(inputs) != 1 or not outputs:
        raise ConversionError(f"{len(inputs)} inputs and {len(outputs)} outputs, wanted one input")
    first = names[inputs[0]]
    _want_floats(graph, first)
    graph.shapes[first] = graph.declared[first][1:]
    operators = graphs[0].tables(3)
    if len(operators) > MAX_OPERATORS:
        raise ConversionError(f"{len(operators)} operators, at most {MAX_OPERATORS} are read")
    for table in operators:
        operator = Operator(codes[table.number(0, "I")], table, names)
        operator.inputs = tuple(graph.alias.get(n, n) for n in operator.inputs)
        where = f"{operator.name} ({_tflite_operators.title(operator.code)})"
        try:
            _want_floats(graph, operator.name)
            _tflite_operators.write(graph, operator)
        except (CheckpointError, ConversionError) as error:
            raise type(error)(f"{where}: {error}") from error
        except (IndexError, ValueError, TypeError, KeyError, ArithmeticError) as error:
            raise CheckpointError(f"{where}: {one_line(error)}") from error
    made = tuple(graph.alias.get(names[i], names[i]) for i in outputs)
    for name in made:
        graph.shape(name)
    used = {name for node in graph.nodes for name in node.inputs}
    return Foreign(
        name=one_line(graphs[0].text(4) or "tflite", 100),
        layout="NHWC",
        input=first,
        input_shape=graph.shapes[first],
        nodes=tuple(graph.nodes),
        constants={n: a for n, a in graph.constants.items() if n in used},
        outputs=made,
    )


def _code(table: Table) -> int | str:
    # The byte came first, and holds 127 where the later field has to be looked at.
    code = max(table.number(0, "b"), table.number(3, "i"))
    return table.text(1) if code == _CUSTOM else int(code)


def _tensors(graph: TfliteGraph, table: Table, buffers: list[Table]) -> list[str]:
    """Note shapes, types and constants of all tensors; return their names, each once."""
    names: list[str] = []
    for number, tensor in enumerate(table.tables(0)):
        # Converters join the names of what they have fused by semicolons.
        name = one_line(tensor.text(3).partition(";")[0] or f"tensor {number}", 100)
        if name in graph.declared:
            name = f"{name}.{number}"
        names.append(name)
        shape, kind = tensor.integers(0), tensor.number(1, "b")
        graph.declared[name], graph.types[name] = shape, kind
        index = tensor.number(2, "I")
        data = buffers[index].array(0, "u1") if index < len(buffers) else None
        if data is None or not data.size:
            continue
        if kind not in _TYPES:
            raise ConversionError(f"{name}: constants of the type {kind} are not read")
        array = data.view(_TYPES[kind])
        if any(n < 0 for n in shape) or math.prod(shape) != array.size:
            raise CheckpointError(f"{name}: {array.size} numbers for the shape {shape}")
        graph.constants[name] = array.reshape(shape)
    return names


def _want_floats(graph: TfliteGraph, name: str) -> None:
    if graph.types[name] in _NARROW:
        raise ConversionError(
            f"{one_line(name)} is {_NARROW[graph.types[name]]}: models of integers are not read; "
            "convert the model without quantization"
        )

"""Reads TensorFlow Lite models with the operators of Larq Compute Engine, in pure Python.

Bits are packed 32 to a word, least significant first, 1 for -1, as here.  Models of int8 are
refused.  Source: tensorflow/lite/schema/schema.fbs; larq/compute-engine, larq_compute_engine/
tflite/kernels/bconv2d.cc and core/bconv2d/output_transform.h.
"""

from __future__ import annotations

import math

from bitinfer.errors import CheckpointError, ConversionError
from bitinfer.files import one_line
from bitinfer.importers.foreign import Foreign
from bitinfer.importers.readers import _tflite_operators
from bitinfer.importers.readers._flatbuffer import Table
from bitinfer.importers.readers._tflite_graph import Operator, TfliteGraph

MAX_OPERATORS = 100_000
MAX_AXES = 8
_MARK = b"TFL3"
_TYPES = {0: "<f4", 1: "<f2", 2: "<i4", 3: "u1", 4: "<i8", 6: "?", 7: "<i2", 9: "i1", 10: "<f8"}
"""TensorType, as far as weights and shapes have them."""
_NARROW = {3: "uint8", 7: "int16", 9: "int8"}
_CUSTOM = 32


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
        if len(shape) > MAX_AXES:
            raise CheckpointError(f"{name}: a tensor of {len(shape)} axes, at most {MAX_AXES}")
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

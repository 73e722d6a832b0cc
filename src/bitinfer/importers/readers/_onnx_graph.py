"""From an ONNX graph to a foreign graph: constants, shapes, and what has more than one spelling.

Whatever follows from constants and shapes alone is computed with ONNX's own reference evaluator, so
that chains that exporters leave behind weights, and Shape-Gather-Concat behind reshapes, are gone
before anything is matched.  The batch is taken off every shape and axis.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from bitinfer.errors import CheckpointError, ConversionError
from bitinfer.files import one_line
from bitinfer.importers.foreign import Attribute, ForeignNode
from bitinfer.importers.readers._graph_draft import MAX_ELEMENTS, Array, GraphDraft, Shape

STANDARD = ("", "ai.onnx")
_NARROW = {"int4": np.int8, "int2": np.int8, "uint4": np.uint8, "uint2": np.uint8}


class OnnxNode:
    """A node, its attributes decoded and its inputs resolved."""

    def __init__(self, proto: onnx.NodeProto, inputs: tuple[str, ...]) -> None:
        self.operation = proto.op_type
        self.domain = proto.domain
        self.inputs = inputs
        self.outputs = tuple(proto.output)
        self.name = next((n for n in self.outputs if n), proto.name)
        self.proto = proto
        self._attributes = {a.name: a for a in proto.attribute}

    def attribute(self, name: str, default: Any = None) -> Any:
        """Return an attribute, text as str; ``default`` where it is missing."""
        if name not in self._attributes:
            return default
        value = helper.get_attribute_value(self._attributes[name])
        return value.decode("utf-8", "replace") if isinstance(value, bytes) else value

    def integers(self, name: str, default: Sequence[int] | None = None) -> tuple[int, ...] | None:
        """Return an attribute of whole numbers."""
        value = self.attribute(name, default)
        return None if value is None else tuple(int(n) for n in value)


class OnnxGraph(GraphDraft):
    """The state of a walk over an ONNX graph; handlers in _onnx_operators.py write the nodes.

    Shapes of values are with the batch.

    Attributes:
        made: nodes that are written, by name.
        batch: length of the first axis of every value.
        opset: version of ONNX's operators.
    """

    def __init__(self, model: onnx.ModelProto) -> None:
        super().__init__()
        graph = model.graph
        self.imports = {o.domain: o.version for o in model.opset_import}
        self.opset = max((self.imports.get(domain, 0) for domain in STANDARD), default=0)
        self.made: dict[str, ForeignNode] = {}
        for tensor in graph.initializer:
            self.constants[tensor.name] = as_array(tensor)
        if graph.sparse_initializer:
            raise ConversionError("weights are stored sparse: export them dense")
        inputs = [i for i in graph.input if i.name not in self.constants]
        if len(inputs) != 1:
            names = ", ".join(one_line(i.name, 40) for i in inputs[:5])
            raise ConversionError(f"{len(inputs)} inputs ({names}), wanted one")
        self.input = inputs[0].name
        shape = _input_shape(inputs[0])
        self.batch = shape[0]
        self.shapes[self.input] = shape

    def is_constant(self, name: str) -> bool:
        """Tell whether an input is there and known."""
        return name in self.constants

    def shape(self, name: str) -> Shape:
        """Return the shape of a value or constant."""
        if name in self.shapes:
            return self.shapes[name]
        if name in self.constants:
            return self.constants[name].shape
        raise CheckpointError(f"reads {one_line(name)!r}, which nothing before it makes")

    def constant(self, node: OnnxNode, index: int, what: str) -> Array:
        """Return a constant input that must be there."""
        name = node.inputs[index] if index < len(node.inputs) else ""
        if name not in self.constants:
            if name and name not in self.shapes:
                raise CheckpointError(f"reads {one_line(name)!r}, which nothing before it makes")
            raise ConversionError(f"{what} is missing or depends on the input, wanted a constant")
        return self.constants[name]

    def optional(self, node: OnnxNode, index: int, what: str) -> Array | None:
        """Return a constant input; None where it is missing."""
        if index >= len(node.inputs) or not node.inputs[index]:
            return None
        return self.constant(node, index, what)

    def numbers(self, node: OnnxNode, name: str, index: int) -> tuple[int, ...] | None:
        """Return whole numbers that are an attribute in older opsets and an input in later ones."""
        found = node.integers(name)
        if found is not None:
            return found
        array = self.optional(node, index, name)
        return None if array is None else tuple(int(n) for n in array.reshape(-1))

    def add(
        self,
        name: str,
        operation: str,
        inputs: tuple[str, ...],
        shape: Shape,
        /,
        **attributes: Attribute,
    ) -> str:
        """See :meth:`GraphDraft.add`; shapes are with the batch."""
        if not shape or shape[0] != self.batch:
            raise ConversionError(f"a value of shape {shape}, whose batch is not {self.batch}")
        super().add(name, operation, inputs, shape, **attributes)
        self.made[name] = self.nodes[-1]
        return name

    def axis(self, axis: int, rank: int) -> int:
        """Return an axis of a value without the batch."""
        if not -rank <= axis < rank or axis % rank == 0:
            raise ConversionError(f"along the axis {axis} of {rank}: that is the batch, or none")
        return axis % rank - 1


def as_array(tensor: onnx.TensorProto) -> Array:
    """Return a tensor in a type that NumPy has."""
    where = f"the tensor {one_line(tensor.name)!r}"
    if tensor.data_location == onnx.TensorProto.EXTERNAL or tensor.external_data:
        raise CheckpointError(
            f"{where} is in another file, which is not opened: export with external_data=False"
        )
    if math.prod(tensor.dims) > MAX_ELEMENTS or any(n < 0 for n in tensor.dims):
        raise CheckpointError(f"{where} has the shape {tuple(tensor.dims)}")
    try:
        array = numpy_helper.to_array(tensor)
    except Exception as error:  # protobuf's and ml_dtypes' own
        raise CheckpointError(f"{where} cannot be read: {one_line(error)}") from error
    return plain(array, where)


def plain(array: Array, where: str) -> Array:
    """Return an array in a type that NumPy has."""
    if array.dtype.kind in "fiub":
        return array
    if array.dtype.name in _NARROW:
        return array.astype(_NARROW[array.dtype.name])
    if "float" in array.dtype.name:
        return array.astype(np.float32)
    if array.dtype.kind in "OUS":
        return array
    raise ConversionError(f"{where} is {array.dtype}, wanted real numbers")


def _input_shape(value: onnx.ValueInfoProto) -> Shape:
    """Return the shape of the input; a batch that is open counts as 1."""
    dims = value.type.tensor_type.shape.dim
    sizes = [d.dim_value for d in dims]
    if len(sizes) < 2:
        raise ConversionError(
            f"the input {one_line(value.name)!r} has {len(sizes)} axes, wanted a batch of vectors "
            "or maps"
        )
    if any(size <= 0 for size in sizes[1:]):
        shown = ", ".join(one_line(d.dim_param or d.dim_value, 20) for d in dims)
        raise ConversionError(f"the input has shape ({shown}): export it with fixed sizes")
    if math.prod(sizes[1:]) > MAX_ELEMENTS:
        raise ConversionError(f"the input has shape {tuple(sizes)}, which is too large")
    return (max(sizes[0], 1), *sizes[1:])

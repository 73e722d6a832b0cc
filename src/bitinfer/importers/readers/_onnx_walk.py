"""From an ONNX graph to a foreign graph, node by node.

Whatever follows from constants and shapes alone is computed with ONNX's own reference evaluator, so
that chains that exporters leave behind weights, and Shape-Gather-Concat behind reshapes, are gone
before anything is matched.
"""

from __future__ import annotations

import numpy as np
import onnx
import onnx.inliner
from onnx import helper
from onnx.reference import ReferenceEvaluator

from bitinfer.errors import CheckpointError, ConversionError
from bitinfer.files import one_line
from bitinfer.importers.foreign import Foreign, ForeignNode
from bitinfer.importers.readers import _onnx_operators, _qonnx_operators
from bitinfer.importers.readers._graph_draft import MAX_ELEMENTS
from bitinfer.importers.readers._onnx_graph import STANDARD, OnnxGraph, OnnxNode, as_array, plain

MAX_NODES = 100_000
QONNX_DOMAINS = ("qonnx.custom_op.general", "onnx.brevitas", "finn.custom_op.general")
"""Domains that nodes of QONNX were in, from Brevitas 0.7 to qonnx 1.0."""
_SUBGRAPHS = (onnx.AttributeProto.GRAPH, onnx.AttributeProto.GRAPHS)


def read(model: onnx.ModelProto) -> Foreign:
    """Return ``model`` as a foreign graph."""
    if not model.HasField("graph") or not model.graph.node:
        raise CheckpointError("this is no ONNX model, or one without a graph")
    if model.functions:
        model = onnx.inliner.inline_local_functions(model)
    if len(model.graph.node) > MAX_NODES:
        raise ConversionError(f"{len(model.graph.node)} nodes, at most {MAX_NODES} are read")
    graph = OnnxGraph(model)
    for proto in model.graph.node:
        node = OnnxNode(proto, tuple(graph.alias.get(name, name) for name in proto.input))
        where = f"{one_line(node.name)} ({one_line(node.operation)})"
        try:
            if node.domain in STANDARD:
                if not _fold(graph, node):
                    _onnx_operators.write(graph, node)
            elif node.domain in QONNX_DOMAINS:
                _qonnx_operators.write(graph, node)
            else:
                raise ConversionError(f"there is no domain {one_line(node.domain)!r} here")
        except (CheckpointError, ConversionError) as error:
            raise type(error)(f"{where}: {error}") from error
        except (ValueError, IndexError, KeyError, TypeError, ArithmeticError) as error:
            raise CheckpointError(f"{where}: {one_line(error)}") from error
    outputs = tuple(graph.alias.get(o.name, o.name) for o in model.graph.output)
    return _finished(model, graph, outputs)


def _finished(model: onnx.ModelProto, graph: OnnxGraph, outputs: tuple[str, ...]) -> Foreign:
    for name in outputs:
        if name not in graph.shapes:
            raise ConversionError(f"the output {one_line(name)!r} does not depend on the input")
    wanted = set(outputs)
    kept: list[ForeignNode] = []
    for node in reversed(graph.nodes):
        if node.name in wanted:
            kept.append(node)
            wanted.update(node.inputs)
    return Foreign(
        name=one_line(model.graph.name or "onnx", 100),
        layout="NCHW",
        input=graph.input,
        input_shape=graph.shapes[graph.input][1:],
        nodes=tuple(reversed(kept)),
        constants={n: np.asarray(a) for n, a in graph.constants.items() if n in wanted},
        outputs=outputs,
    )


def _fold(graph: OnnxGraph, node: OnnxNode) -> bool:
    """Compute a node whose inputs are known, or that asks for a shape alone; else return False."""
    if node.operation in ("Shape", "Size") and node.inputs and node.inputs[0] in graph.shapes:
        shape = np.array(graph.shape(node.inputs[0]), np.int64)
        begin, end = node.attribute("start", 0), node.attribute("end")
        value = shape[begin:end] if node.operation == "Shape" else shape.prod()
        graph.constants[node.name] = np.asarray(value)
        return True
    if any(a.type in _SUBGRAPHS for a in node.proto.attribute):
        raise ConversionError("control flow: export the network without it")
    if any(name and name not in graph.constants for name in node.inputs):
        return False
    for attribute in node.proto.attribute:
        tensors = [attribute.t] if attribute.HasField("t") else attribute.tensors
        for tensor in tensors:
            as_array(tensor)  # refuses external data before anybody opens it
    names = [name for name in dict.fromkeys(node.inputs) if name]
    proto = onnx.NodeProto()
    proto.CopyFrom(node.proto)
    del proto.input[:]
    proto.input.extend(node.inputs)
    wrapped = helper.make_graph(
        [proto],
        "constant",
        [helper.make_value_info(n, onnx.TypeProto()) for n in names],
        [helper.make_value_info(n, onnx.TypeProto()) for n in node.outputs if n],
    )
    opsets = [helper.make_opsetid(d, v) for d, v in graph.imports.items() if d in STANDARD]
    model = helper.make_model(wrapped, opset_imports=opsets)
    try:
        with np.errstate(all="ignore"):
            values = ReferenceEvaluator(model).run(None, {n: graph.constants[n] for n in names})
    except (MemoryError, RecursionError):
        raise
    except Exception as error:  # the evaluator raises whatever NumPy or its own code does
        raise ConversionError(f"a constant cannot be computed: {one_line(error)}") from error
    for name, value in zip([n for n in node.outputs if n], values, strict=True):
        array = np.asarray(value)
        if array.size > MAX_ELEMENTS:
            raise ConversionError(f"a constant of shape {array.shape} is too large")
        if name in graph.constants or name in graph.shapes:
            raise CheckpointError(f"{one_line(name)}: the name stands twice")
        graph.constants[name] = plain(array, "a constant")
    return True

"""Shape inference, which is also the check that a graph and its tensors fit together.

Whoever holds the result of :func:`infer` may rely on it: every name resolves, every tensor has the
type and shape that its node wants, packed weights have no stray bits, and nothing is larger than
the limits of checks.py.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from bitinfer.errors import GraphError, ShapeError
from bitinfer.graph import nodes
from bitinfer.graph.checks import (
    MAX_NODES,
    MAX_OPERATIONS,
    MAX_READS,
    MAX_TOTAL_BYTES,
    Tensors,
    Value,
    check_value,
    window_output,
)
from bitinfer.graph.nodes import Graph, Node, node_inputs, node_tensors, node_values
from bitinfer.graph.rules import infer_node

__all__ = ["MAX_NODES", "Tensors", "Value", "infer", "operations", "window_output"]


def infer(graph: Graph, tensors: Tensors) -> dict[str, Value]:
    """Check ``graph`` against its ``tensors`` and return the kind and shape of every value.

    Raises:
        GraphError: a name is unknown or taken twice, a kind does not fit, a tensor is unused.
        ShapeError: a shape, parameter or tensor does not fit, or exceeds a limit.
    """
    if not 1 <= len(graph.nodes) <= MAX_NODES:
        raise GraphError(f"graph: {len(graph.nodes)} nodes, wanted 1 to {MAX_NODES}")
    if sum(len(node_inputs(node)) for node in graph.nodes) > MAX_READS:
        raise GraphError(f"graph: the nodes read more than {MAX_READS} values")
    if len(graph.input.shape) not in (1, 3):
        raise ShapeError(
            f"input {graph.input.name!r}: shape {graph.input.shape}, wanted (H, W, C) or (C,)"
        )
    if not graph.input.name:
        raise GraphError("graph: the input has an empty name")
    values = {graph.input.name: Value(graph.input.kind, graph.input.shape)}
    total_bytes = check_value(graph.input.name, values[graph.input.name])
    used: set[str] = set()
    total = 0
    for node in graph.nodes:
        names = node_values(node)
        for name in names:
            if not name or name in values or names.count(name) > 1:
                raise GraphError(f"node {name!r}: the name is empty or taken by an earlier value")
        for name in node_inputs(node):
            if name not in values:
                raise GraphError(f"node {node.name!r}: input {name!r} is no earlier value")
        for name in node_tensors(node):
            if name not in tensors:
                raise GraphError(f"node {node.name!r}: there is no tensor {name!r}")
        made = dict(zip(names, infer_node(node, values, tensors), strict=True))
        for name in node_tensors(node):
            # Kernels re-lay weights per node: shared, a small file could ask for any memory.
            if name in used:
                raise GraphError(f"node {node.name!r}: tensor {name!r} is in use already")
            used.add(name)
        for name, value in made.items():
            total_bytes += check_value(name, value)
        if total_bytes > MAX_TOTAL_BYTES:
            raise ShapeError(
                f"node {node.name!r}: all values together take over {MAX_TOTAL_BYTES} bytes"
            )
        values |= made
        total += operations(node, values, tensors)
        if total > MAX_OPERATIONS:
            raise ShapeError(
                f"node {node.name!r}: the network takes more than {MAX_OPERATIONS} operations"
            )
    if unused := sorted(set(tensors) - used):
        raise GraphError(f"graph: tensor {unused[0]!r} is used by no node")
    if not graph.outputs or len(set(graph.outputs)) != len(graph.outputs):
        raise GraphError("graph: outputs are empty or name a value twice")
    for name in graph.outputs:
        if name not in values or name == graph.input.name:
            raise GraphError(f"graph: output {name!r} is no node")
        if values[name].kind != "float":
            raise GraphError(f"graph: output {name!r} is a {values[name].kind} value, wanted float")
    return values


def operations(node: Node, values: Mapping[str, Value], tensors: Tensors) -> int:
    """Return the multiply-accumulates of a node (window taps of a pooling node, else elements).

    Padded taps count: this is the nominal number that engines are compared by.
    """
    source, result = values[node.input].shape, values[node.name].shape
    size = math.prod(result)
    match node:
        case nodes.Conv2d() | nodes.BinaryConv2d():
            _, kh, kw, _ = tensors[node.weight].shape
            return size * int(kh) * int(kw) * (source[-1] // node.groups)
        case nodes.Dense() | nodes.BinaryDense():
            return size * source[-1]
        case nodes.MaxPool2d() | nodes.AvgPool2d():
            return size * math.prod(node.kernel)
        case nodes.BetaMap():
            return math.prod(source) + size * math.prod(node.kernel)
        case nodes.GlobalPool2d():
            return math.prod(source)
        case _:
            return size

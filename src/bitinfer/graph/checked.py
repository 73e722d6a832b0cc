"""The one check of a graph with its tensors, and its result: a CheckedGraph.

Whoever holds a :class:`CheckedGraph` may rely on it: every name resolves, every tensor has the type
and shape that its node wants, packed weights have no stray bits, and nothing is larger than the
limits of checks.py.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from numpy.typing import NDArray

from bitinfer.errors import GraphError, ShapeError
from bitinfer.graph.checks import (
    MAX_NODES,
    MAX_OPERATIONS,
    MAX_READS,
    MAX_TOTAL_BYTES,
    Known,
    Tensors,
    Value,
    check_value,
)
from bitinfer.graph.nodes import BaseNode, Graph, Layer, node_inputs, node_tensors, node_values


@dataclasses.dataclass(frozen=True, eq=False)
class CheckedGraph:
    """A graph that fits together.  Made by :func:`check`, and by passes from another one.

    Attributes:
        values: kind and shape of every value.
        lineage: for every value, the nodes of the imported graph that it stands for, in their
            order; a node that no pass has touched stands for itself.
        dropped: the nodes of the imported graph that nothing stands for any more, since they
            changed nothing or nobody read them.
        row_sums: sums of magnitudes of integer weights, where they were wanted (Known.row_sums).
    """

    graph: Graph
    tensors: Tensors
    values: Mapping[str, Value]
    lineage: Mapping[str, tuple[str, ...]]
    dropped: tuple[str, ...] = ()
    row_sums: Mapping[str, NDArray[Any]] = dataclasses.field(default_factory=dict, repr=False)


def check(graph: Graph, tensors: Tensors) -> CheckedGraph:
    """Check ``graph`` against its ``tensors``.

    Raises:
        GraphError: a name is unknown or taken twice, a kind does not fit, a tensor is unused.
        ShapeError: a shape, parameter or tensor does not fit, or exceeds a limit.
    """
    _check_size(graph)
    values = {graph.input.name: Value(graph.input.kind, graph.input.shape)}
    known = Known(values, tensors)
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
        made = dict(zip(names, infer_node(node, known), strict=True))
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
    _check_outputs(graph, values)
    lineage = {name: (node.name,) for node in graph.nodes for name in node_values(node)}
    return CheckedGraph(graph, tensors, values, lineage, row_sums=known.sums)


def infer(graph: Graph, tensors: Tensors) -> Mapping[str, Value]:
    """Check ``graph`` as :func:`check` does, and return the kind and shape of every value."""
    return check(graph, tensors).values


def infer_node(node: BaseNode, known: Known) -> tuple[Value, ...]:
    """Return the values that ``node`` makes, in the order of nodes.node_values.

    Raises:
        GraphError, ShapeError: something does not fit; the message names the node.
    """
    try:
        return node.infer(known)
    except ShapeError as error:
        raise ShapeError(f"node {node.name!r} ({node.operation}): {error}") from None
    except GraphError as error:
        raise GraphError(f"node {node.name!r} ({node.operation}): {error}") from None


def operations(node: BaseNode, values: Mapping[str, Value], tensors: Tensors) -> int:
    """Return the multiply-accumulates of a node (window taps of a pooling node, else elements).

    Padded taps count: this is the nominal number that engines are compared by.
    """
    return node.operations(values, tensors)


def layer_operations(checked: CheckedGraph) -> int:
    """Return the multiply-accumulates of all layers: what a network is compared by."""
    return sum(
        operations(node, checked.values, checked.tensors)
        for node in checked.graph.nodes
        if isinstance(node, Layer)
    )


def _check_size(graph: Graph) -> None:
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


def _check_outputs(graph: Graph, values: Mapping[str, Value]) -> None:
    if not graph.outputs or len(set(graph.outputs)) != len(graph.outputs):
        raise GraphError("graph: outputs are empty or name a value twice")
    for name in graph.outputs:
        if name not in values or name == graph.input.name:
            raise GraphError(f"graph: output {name!r} is no node")
        if values[name].kind != "float":
            raise GraphError(f"graph: output {name!r} is a {values[name].kind} value, wanted float")

"""A graph and its tensors that are known to fit together: checked once, then handed on.

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
    MAX_ROW_OPERATIONS,
    MAX_ROW_TAPS,
    MAX_TOTAL_BYTES,
    check_value,
)
from bitinfer.graph.nodes import Graph, Node, node_inputs, node_tensors, node_values
from bitinfer.graph.values import Tensors, Value, Values


@dataclasses.dataclass(frozen=True)
class Lineage:
    """Which nodes of the imported graph the nodes of a rewritten one stand for.

    Attributes:
        stands_for: by node, the imported nodes whose work it does, in order of execution.
        same_as: by value, the imported value that it equals (or differs from by rounding, where a
            pass says so); a value that passes made up, such as the signs before a pool that came
            after it, is not in here.
        dropped: imported nodes that changed nothing, or that no output depended on.
    """

    stands_for: Mapping[str, tuple[str, ...]]
    same_as: Mapping[str, str]
    dropped: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True, eq=False)
class CheckedGraph:
    """A graph that is known to be right.  Made by :func:`check`, and by passes from another one.

    Attributes:
        graph, tensors: the network.
        values: kind and shape of every value, by name.
        lineage: what became of the nodes of the graph that was checked first.
    """

    graph: Graph
    tensors: Tensors
    values: Values
    lineage: Lineage


def check(graph: Graph, tensors: Mapping[str, NDArray[Any]]) -> CheckedGraph:
    """Check ``graph`` against its ``tensors``.

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
    table = Tensors(tensors)
    values = {graph.input.name: Value(graph.input.kind, graph.input.shape)}
    total_bytes = check_value(graph.input.name, values[graph.input.name])
    used: set[str] = set()
    total = 0
    for node in graph.nodes:
        _check_names(node, values, table)
        made = make(node, values, table)
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
        here = operations(node, values, table)
        _check_row(node, values[node.name], here)
        total += here
        if total > MAX_OPERATIONS:
            raise ShapeError(
                f"node {node.name!r}: the network takes more than {MAX_OPERATIONS} operations"
            )
    if unused := sorted(set(table) - used):
        raise GraphError(f"graph: tensor {unused[0]!r} is used by no node")
    _check_outputs(graph, values)
    names = {node.name: (node.name,) for node in graph.nodes}
    return CheckedGraph(graph, table, values, Lineage(names, {name: name for name in values}))


def _check_row(node: Node, value: Value, total: int) -> None:
    if len(value.shape) == 3:
        most = MAX_ROW_OPERATIONS if node_tensors(node) else MAX_ROW_TAPS
        if total // value.shape[0] > most:
            here = total // value.shape[0]
            raise ShapeError(f"node {node.name!r}: a row takes {here} operations, at most {most}")


def make(node: Node, values: Values, tensors: Tensors) -> dict[str, Value]:
    """Return the values that a node makes, by name, by its own rule.

    Raises:
        GraphError, ShapeError: something does not fit; the message names the node.
    """
    try:
        return dict(zip(node_values(node), node.make(values, tensors), strict=True))
    except ShapeError as error:
        raise ShapeError(f"node {node.name!r} ({node.operation}): {error}") from None
    except GraphError as error:
        raise GraphError(f"node {node.name!r} ({node.operation}): {error}") from None


def operations(node: Node, values: Values, tensors: Tensors) -> int:
    """Return the multiply-accumulates of a node (window taps of a pooling node, else elements).

    Padded taps count: this is the nominal number that engines are compared by.
    """
    return node.operations(values[node.input], values[node.name], tensors)


def _check_names(node: Node, values: Values, tensors: Tensors) -> None:
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


def _check_outputs(graph: Graph, values: Values) -> None:
    if not graph.outputs or len(set(graph.outputs)) != len(graph.outputs):
        raise GraphError("graph: outputs are empty or name a value twice")
    for name in graph.outputs:
        if name not in values or name == graph.input.name:
            raise GraphError(f"graph: output {name!r} is no node")
        if values[name].kind != "float":
            raise GraphError(f"graph: output {name!r} is a {values[name].kind} value, wanted float")

"""A graph under rewriting: who makes a value, who reads it, and in which order nodes run."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from bitinfer.graph import nodes
from bitinfer.graph.checks import Tensors, Value
from bitinfer.graph.nodes import Graph, Node, node_inputs, node_tensors, node_values
from bitinfer.graph.shapes import infer


class Draft:
    """The nodes of a graph, for a pass to remove, insert and replace."""

    def __init__(self, graph: Graph, tensors: Tensors) -> None:
        self.graph = graph
        self.tensors: dict[str, NDArray[Any]] = dict(tensors)
        self.values: dict[str, Value] = infer(graph, tensors)
        self._nodes: dict[str, Node] = {}
        self._ranks: dict[str, float] = {}
        self._makers: dict[str, str] = {}
        self._readers: dict[str, dict[str, None]] = {}
        for rank, node in enumerate(graph.nodes):
            self.insert(node, rank)

    def nodes(self, *, backwards: bool = False) -> Iterator[Node]:
        """Yield the nodes in order of execution, or the other way.

        Meanwhile nodes may come and go: those that went are passed over, those that changed are
        seen as they are now.
        """
        for name in sorted(self._ranks, key=self._ranks.__getitem__, reverse=backwards):
            if name in self._nodes:
                yield self._nodes[name]

    def rank(self, node: Node) -> float:
        """Return the place of a node in the order of execution."""
        return self._ranks[node.name]

    def maker(self, value: str) -> Node | None:
        """Return the node that makes a value; None for the input of the graph."""
        name = self._makers.get(value)
        return None if name is None else self._nodes[name]

    def readers(self, value: str) -> list[Node]:
        """Return the nodes that read a value."""
        return [self._nodes[name] for name in self._readers.get(value, ())]

    def is_output(self, value: str) -> bool:
        """Tell whether the graph hands the value out."""
        return value in self.graph.outputs

    def only_reader(self, value: str) -> Node | None:
        """Return the one node that reads the value, if nobody else wants it."""
        readers = self.readers(value)
        return readers[0] if len(readers) == 1 and not self.is_output(value) else None

    def remove(self, *nodes: Node) -> None:
        """Take nodes out; their readers, if any, are left without input."""
        for node in nodes:
            del self._nodes[node.name], self._ranks[node.name]
            for value in node_values(node):
                del self._makers[value]
            for value in node_inputs(node):
                self._readers[value].pop(node.name, None)

    def insert(self, node: Node, rank: float) -> None:
        """Put a node in at a place in the order of execution."""
        assert node.name not in self._nodes
        self._nodes[node.name] = node
        self._ranks[node.name] = rank
        for value in node_values(node):
            self._makers[value] = node.name
        for value in node_inputs(node):
            self._readers.setdefault(value, {})[node.name] = None

    def replace(self, old: tuple[Node, ...], new: Node) -> None:
        """Put one node in the place of the last of several, whose value it makes.

        It keeps its name if that is free now, unless the graph hands the value out under the name
        of the last.
        """
        rank, last = self.rank(old[-1]), old[-1].name
        value = self.values[last]
        self.remove(*old)
        if self.is_output(last):
            new = msgspec.structs.replace(new, name=last)
        self.insert(new, rank)
        self.values[new.name] = value
        self.read_instead(last, new.name)

    def read_instead(self, old: str, new: str) -> None:
        """Let whoever reads the value ``old`` read the value ``new``."""
        if old == new:
            return
        for reader in self.readers(old):
            rank = self.rank(reader)
            self.remove(reader)
            self.insert(_reading(reader, old, new), rank)

    def keep(self, name: str, tensor: NDArray[Any]) -> str:
        """Add a tensor under a name that is free; return the name."""
        free, count = name, 1
        while free in self.tensors:
            count += 1
            free = f"{name}.{count}"
        self.tensors[free] = np.ascontiguousarray(tensor)
        return free

    def tensor(self, name: str | None) -> Any:
        """Return a tensor, or None."""
        return None if name is None else self.tensors[name]

    def finish(self) -> tuple[Graph, dict[str, NDArray[Any]]]:
        """Return the graph, without the nodes that nobody reads, and the tensors that it uses."""
        kept: list[Node] = []
        wanted = set(self.graph.outputs)
        for node in self.nodes(backwards=True):
            if wanted.intersection(node_values(node)):
                kept.append(node)
                wanted.update(node_inputs(node))
        kept.reverse()
        used = {name for node in kept for name in node_tensors(node)}
        graph = Graph(self.graph.name, self.graph.input, tuple(kept), self.graph.outputs)
        return graph, {name: t for name, t in self.tensors.items() if name in used}


def _reading(node: Node, old: str, new: str) -> Node:
    """Return the node, reading the value ``new`` wherever it read ``old``."""
    # What BatchNorm calls beta is a tensor.
    names = ("input", "other") if isinstance(node, nodes.BatchNorm) else ("input", "other", "beta")
    fields: dict[str, Any] = {name: new for name in names if getattr(node, name, None) == old}
    if isinstance(node, nodes.Concat):
        fields["others"] = tuple(new if name == old else name for name in node.others)
    epilogue = node.epilogue if isinstance(node, nodes.Layer) else None
    if epilogue is not None and epilogue.residual == old:
        fields["epilogue"] = msgspec.structs.replace(epilogue, residual=new)
    return msgspec.structs.replace(node, **fields)

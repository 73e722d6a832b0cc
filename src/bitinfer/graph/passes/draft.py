"""A graph under rewriting: who makes a value, who reads it, and in which order nodes run."""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from bitinfer.graph.checked import CheckedGraph, infer_node
from bitinfer.graph.checks import Known, Value
from bitinfer.graph.nodes import (
    Graph,
    Node,
    node_inputs,
    node_tensors,
    node_values,
    reading_instead,
)


class Draft:
    """The nodes of a checked graph, for a pass to remove, insert and replace.

    Nodes that are inserted are checked, and the tensors that were made for them; all others are
    known to fit.
    """

    def __init__(self, checked: CheckedGraph) -> None:
        self._checked = checked
        self._is_changed = False
        self.graph = checked.graph
        self.tensors: dict[str, NDArray[Any]] = dict(checked.tensors)
        self._values = dict(checked.values)
        self._lineage = dict(checked.lineage)
        self._dropped = list(checked.dropped)
        self._known = Known(
            self._values, self.tensors, frozenset(checked.tensors), dict(checked.row_sums)
        )
        self._nodes: dict[str, Node] = {}
        self._ranks: dict[str, float] = {}
        self._makers: dict[str, str] = {}
        self._readers: dict[str, dict[str, None]] = {}
        for rank, node in enumerate(checked.graph.nodes):
            self._put(node, rank)
        self._unchecked: set[str] = set()
        """Nodes whose values are not known, or not for what they read now."""

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

    def value(self, name: str) -> Value:
        """Return kind and shape of a value, as the nodes are now."""
        self._settle()
        return self._values[name]

    def is_output(self, value: str) -> bool:
        """Tell whether the graph hands the value out."""
        return value in self.graph.outputs

    def only_reader(self, value: str) -> Node | None:
        """Return the one node that reads the value, if nobody else wants it."""
        readers = self._readers.get(value, ())
        if len(readers) != 1 or self.is_output(value):
            return None
        return self._nodes[next(iter(readers))]

    def remove(self, *nodes: Node) -> None:
        """Take nodes out, to be inserted again under the same names, changed or elsewhere."""
        self._is_changed = True
        for node in nodes:
            del self._nodes[node.name], self._ranks[node.name]
            self._unchecked.discard(node.name)
            for value in node_values(node):
                del self._makers[value]
            for value in node_inputs(node):
                self._readers[value].pop(node.name, None)

    def insert(self, node: Node, rank: float) -> None:
        """Put a node in at a place in the order of execution."""
        assert node.name not in self._nodes
        self._put(node, rank)
        self._unchecked.add(node.name)

    def replace(self, old: tuple[Node, ...], new: Node) -> None:
        """Put one node, which stands for several, in the place of the last, whose value it makes.

        It keeps its name if that is free now, unless the graph hands the value out under the name
        of the last.
        """
        rank, last = self.rank(old[-1]), old[-1].name
        self.remove(*old)
        if self.is_output(last):
            new = msgspec.structs.replace(new, name=last)
        stands_for = [self._lineage.pop(value) for node in old for value in node_values(node)]
        self._lineage[new.name] = tuple(name for names in stands_for for name in names)
        self.insert(new, rank)
        self.read_instead(last, new.name)

    def drop(self, node: Node) -> None:
        """Take out a node that changes nothing; its readers read its input."""
        self.read_instead(node.name, node.input)
        self.remove(node)
        self._drop(node)

    def drop_unread(self) -> None:
        """Take out the nodes on which no output depends."""
        wanted = set(self.graph.outputs)
        for node in self.nodes(backwards=True):
            if wanted.intersection(node_values(node)):
                wanted.update(node_inputs(node))
            else:
                self.remove(node)
                self._drop(node)

    def read_instead(self, old: str, new: str) -> None:
        """Let whoever reads the value ``old`` read the value ``new``."""
        if old == new:
            return
        for reader in self.readers(old):
            rank = self.rank(reader)
            self.remove(reader)
            self.insert(reading_instead(reader, old, new), rank)

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
        return self._known.tensor(name)

    def row_sums(self, name: str) -> NDArray[np.int64]:
        """Return the sum of the magnitudes of an integer weight, for every output (Cout,)."""
        return self._known.row_sums(name)

    def finish(self) -> CheckedGraph:
        """Return the graph as it is now, with the tensors that it uses."""
        if not self._is_changed:
            return self._checked
        self._settle()
        kept = tuple(self.nodes())
        graph = Graph(self.graph.name, self.graph.input, kept, self.graph.outputs)
        names = [value for node in kept for value in node_values(node)]
        return CheckedGraph(
            graph,
            tensors={name: self.tensors[name] for node in kept for name in node_tensors(node)},
            values={name: self._values[name] for name in (graph.input.name, *names)},
            lineage={name: self._lineage[name] for name in names},
            dropped=tuple(self._dropped),
            row_sums=self._known.sums,
        )

    def _put(self, node: Node, rank: float) -> None:
        self._nodes[node.name] = node
        self._ranks[node.name] = rank
        for value in node_values(node):
            self._makers[value] = node.name
        for value in node_inputs(node):
            self._readers.setdefault(value, {})[node.name] = None

    def _drop(self, node: Node) -> None:
        for value in node_values(node):
            self._dropped.extend(self._lineage.pop(value))

    def _settle(self) -> None:
        """Check the nodes that have come since, in order, and those that read what they change."""
        waiting = [(self._ranks[name], name) for name in self._unchecked]
        heapq.heapify(waiting)
        while waiting:
            _, name = heapq.heappop(waiting)
            if name not in self._unchecked:
                continue
            self._unchecked.remove(name)
            node = self._nodes[name]
            made = infer_node(node, self._known)
            for value, found in zip(node_values(node), made, strict=True):
                if self._values.get(value) == found:
                    continue
                self._values[value] = found
                for reader in self._readers.get(value, ()):
                    self._unchecked.add(reader)
                    heapq.heappush(waiting, (self._ranks[reader], reader))

"""A graph under rewriting: who makes a value, who reads it, and in which order nodes run."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from bitinfer.graph.checked import CheckedGraph, Lineage, make
from bitinfer.graph.nodes import (
    Graph,
    Node,
    node_inputs,
    node_tensors,
    node_values,
    reading,
)
from bitinfer.graph.values import Tensors, Value


class Draft:
    """The nodes of a checked graph, for a pass to remove, insert and replace.

    What is inserted is checked by its own rule, so that what comes out is a checked graph again;
    what only moves or reads the same under another name is not looked at anew.
    """

    def __init__(self, checked: CheckedGraph) -> None:
        self._checked = checked
        self._is_changed = False
        self.graph = checked.graph
        self.tensors = Tensors(checked.tensors)
        self.values: dict[str, Value] = dict(checked.values)
        self._stands_for = dict(checked.lineage.stands_for)
        self._same_as = dict(checked.lineage.same_as)
        self._dropped = list(checked.lineage.dropped)
        self._nodes: dict[str, Node] = {}
        self._ranks: dict[str, float] = {}
        self._makers: dict[str, str] = {}
        self._readers: dict[str, dict[str, None]] = {}
        for rank, node in enumerate(checked.graph.nodes):
            self._put(node, rank)

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

    def drop(self, node: Node) -> None:
        """Take out a node that changes nothing: its readers read its input instead."""
        self.read_instead(node.name, node.input)
        self._dropped += self._stands_for.pop(node.name)
        self._take(node)

    def drop_unread(self) -> None:
        """Take out the nodes on which no output depends."""
        wanted = set(self.graph.outputs)
        for node in self.nodes(backwards=True):
            if wanted.intersection(node_values(node)):
                wanted.update(node_inputs(node))
            else:
                self._dropped += self._stands_for.pop(node.name)
                self._take(node)

    def replace(self, old: tuple[Node, ...], new: Node) -> None:
        """Put one node in the place of the last of several, whose work it does.

        It keeps its name if that is free now, unless the graph hands the value out under the name
        of the last.
        """
        rank, last = self.rank(old[-1]), old[-1].name
        stands_for, same_as = self._lineage_of(old), self._same_as.get(last)
        self._take(*old)
        if self.is_output(last):
            new = msgspec.structs.replace(new, name=last)
        self._check(new)
        self._put(new, rank)
        self._stands_for[new.name] = stands_for
        self._set_same_as(new.name, same_as)
        self.read_instead(last, new.name)

    def fuse_beside(self, old: tuple[Node, Node], new: Node) -> None:
        """Put a node that makes the values of two in the place of the first; all names stay."""
        rank, stands_for = self.rank(old[0]), self._lineage_of(old)
        same_as = {node.name: self._same_as.get(node.name) for node in old}
        self._take(*old)
        self._check(new)
        self._put(new, rank)
        self._stands_for[new.name] = stands_for
        for name, same in same_as.items():
            self._set_same_as(name, same)

    def rearrange(self, old: tuple[Node, ...], new: tuple[Node, ...]) -> None:
        """Put nodes in the places of as many others, in order of execution.

        They are the same nodes, by their names, reading others; the last one makes what the last
        of the old ones made, for whoever read that.
        """
        ranks, last = [self.rank(node) for node in old], old[-1].name
        same_as = self._same_as.get(last)
        readers = self.readers(last)
        self._take(*old)
        for node, rank in zip(new, ranks, strict=True):
            self._check(node)
            self._put(node, rank)
            self._set_same_as(node.name, same_as if node is new[-1] else None)
        for reader in readers:
            self._read(reader, last, new[-1].name)

    def redefine(self, node: Node, new: Node) -> None:
        """Let a node make another value under its name, which is the same as no imported one."""
        rank = self.rank(node)
        self._take(node)
        self._check(new)
        self._put(new, rank)
        self._set_same_as(new.name, None)

    def read_instead(self, old: str, new: str) -> None:
        """Let whoever reads the value ``old`` read the value ``new``, which is like it."""
        assert self.values[old] == self.values[new]
        if old != new:
            for reader in self.readers(old):
                self._read(reader, old, new)

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

    def finish(self) -> CheckedGraph:
        """Return the graph as it is now, with the tensors that it uses."""
        if not self._is_changed:
            return self._checked
        kept = tuple(self.nodes())
        graph = Graph(self.graph.name, self.graph.input, kept, self.graph.outputs)
        used = {name for node in kept for name in node_tensors(node)}
        made = [self.graph.input.name, *(name for node in kept for name in node_values(node))]
        lineage = Lineage(
            stands_for={node.name: self._stands_for[node.name] for node in kept},
            same_as={name: self._same_as[name] for name in made if name in self._same_as},
            dropped=tuple(self._dropped),
        )
        values = {name: self.values[name] for name in made}
        return CheckedGraph(graph, self.tensors.only(used), values, lineage)

    def _lineage_of(self, nodes: tuple[Node, ...]) -> tuple[str, ...]:
        return tuple(name for node in nodes for name in self._stands_for[node.name])

    def _set_same_as(self, name: str, imported: str | None) -> None:
        if imported is None:
            self._same_as.pop(name, None)
        else:
            self._same_as[name] = imported

    def _check(self, node: Node) -> None:
        self.values |= make(node, self.values, self.tensors)

    def _read(self, reader: Node, old: str, new: str) -> None:
        rank = self.rank(reader)
        self._take(reader)
        self._put(reading(reader, {old: new}), rank)

    def _put(self, node: Node, rank: float) -> None:
        assert node.name not in self._nodes
        self._nodes[node.name] = node
        self._ranks[node.name] = rank
        for value in node_values(node):
            self._makers[value] = node.name
        for value in node_inputs(node):
            self._readers.setdefault(value, {})[node.name] = None

    def _take(self, *nodes: Node) -> None:
        self._is_changed = True
        for node in nodes:
            del self._nodes[node.name], self._ranks[node.name]
            for value in node_values(node):
                del self._makers[value]
            for value in node_inputs(node):
                self._readers[value].pop(node.name, None)

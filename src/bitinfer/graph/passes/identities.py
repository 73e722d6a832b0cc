"""A pass that drops nodes which change nothing."""

from __future__ import annotations

from bitinfer.graph import nodes
from bitinfer.graph.checked import CheckedGraph
from bitinfer.graph.nodes import Node
from bitinfer.graph.passes.draft import Draft


def drop_identities(checked: CheckedGraph) -> CheckedGraph:
    """Drop nodes whose result is their input, and those that no output depends on.

    A node whose value the graph hands out stays, since the value bears its name.
    """
    draft = Draft(checked)
    for node in draft.nodes():
        if not draft.is_output(node.name) and _is_identity(draft, node):
            draft.drop(node)
    draft.drop_unread()
    return draft.finish()


def _is_identity(draft: Draft, node: Node) -> bool:
    if isinstance(node, nodes.Relu):
        return _is_never_negative(draft, node.input)
    return node.is_identity(draft.values[node.input])


def _is_never_negative(draft: Draft, value: str) -> bool:
    """Tell whether a value is at least 0, and NaN only if 0 stands for it."""
    answer: bool | None = None
    while answer is None and (node := draft.maker(value)) is not None:
        answer, value = node.is_never_negative(), node.input
    return bool(answer)

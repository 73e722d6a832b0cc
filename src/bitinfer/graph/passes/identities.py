"""A pass that drops nodes which change nothing."""

from __future__ import annotations

import functools

from bitinfer.graph.checked import CheckedGraph
from bitinfer.graph.passes.draft import Draft


def drop_identities(checked: CheckedGraph) -> CheckedGraph:
    """Drop nodes whose result is their input, and those that no output depends on.

    A node whose value the graph hands out stays, since the value bears its name.
    """
    draft = Draft(checked)
    for node in draft.nodes():
        is_never_negative = functools.partial(_is_never_negative, draft, node.input)
        if draft.is_output(node.name):
            continue
        if node.is_identity(draft.value(node.input), is_never_negative):
            draft.drop(node)
    draft.drop_unread()
    return draft.finish()


def _is_never_negative(draft: Draft, value: str) -> bool:
    """Tell whether a value is at least 0, and no number only if 0 stands for it."""
    while (node := draft.maker(value)) is not None:
        found = node.never_negative()
        if found is not None:
            return found
        value = node.input
    return False

"""A pass that drops nodes which change nothing."""

from __future__ import annotations

import math
from typing import Any

from numpy.typing import NDArray

from bitinfer.graph import nodes
from bitinfer.graph.checks import Tensors
from bitinfer.graph.nodes import Graph, Node
from bitinfer.graph.passes.draft import Draft


def drop_identities(graph: Graph, tensors: Tensors) -> tuple[Graph, dict[str, NDArray[Any]]]:
    """Drop nodes whose result is their input, and those that no output depends on.

    A node whose value the graph hands out stays, since the value bears its name.
    """
    draft = Draft(graph, tensors)
    for node in draft.nodes():
        if not draft.is_output(node.name) and _is_identity(draft, node):
            draft.read_instead(node.name, node.input)
            draft.remove(node)
    return draft.finish()


def _is_identity(draft: Draft, node: Node) -> bool:
    shape = draft.values[node.input].shape
    match node:
        case nodes.Relu():
            return _is_never_negative(draft, draft.maker(node.input))
        case nodes.MaxPool2d() | nodes.AvgPool2d():
            return node.kernel == node.stride == (1, 1)
        case nodes.Pad2d():
            return not any(node.padding)
        case nodes.Concat():
            return not node.others
        case nodes.SliceChannels():
            return node.end - node.begin == shape[-1]
        case nodes.ShuffleChannels():
            return node.groups in (1, shape[-1])
        case nodes.Reshape():
            return node.shape == shape
        case nodes.Flatten():
            return len(shape) == 1
        case _:
            return False


def _is_never_negative(draft: Draft, node: Node | None) -> bool:
    """Tell whether what a node makes is at least 0, and no number only if 0 stands for it."""
    match node:
        case nodes.Relu():
            return True
        case nodes.Clip():
            return node.low >= 0 and math.copysign(1, node.low) > 0
        case nodes.MaxPool2d() | nodes.Flatten() | nodes.Reshape():
            return _is_never_negative(draft, draft.maker(node.input))
        case _:
            return False

"""Finds grouped convolutions that were written as a split, a convolution of each part, and a join.

Frameworks without groups have them so (Larq Zoo's MeliusNet, AlexNet of two towers): many small
convolutions and copies of maps, where one layer does it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bitinfer.importers.foreign import OPERATIONS, Foreign, ForeignNode

_KEEP_CHANNELS = frozenset(
    name for name, word in OPERATIONS.items() if word.is_elementwise and len(word.inputs) == 1
) | {"max_pool", "avg_pool"}
"""Words whose result has the channels of the one value that they read."""


def join_groups(source: Foreign) -> Foreign:
    """Return the network with such convolutions as one, which bears the name of the join."""
    nodes = {node.name: node for node in source.nodes}
    readers = {name: len(found) for name, found in source.consumers().items()}
    constants = dict(source.constants)
    joined: dict[str, ForeignNode] = {}
    gone: set[str] = set()
    for node in source.nodes:
        parts = _parts(source, node, nodes, readers)
        if parts:
            joined[node.name] = _together(source, node, parts, nodes, constants)
            gone.update(part.name for part in parts)
            gone.update(part.inputs[0] for part in parts if readers[part.inputs[0]] == 1)
    if not joined:
        return source
    kept = tuple(joined.get(n.name, n) for n in source.nodes if n.name not in gone)
    return dataclasses.replace(source, nodes=kept, constants=constants)


def _parts(
    source: Foreign,
    join: ForeignNode,
    nodes: Mapping[str, ForeignNode],
    readers: Mapping[str, int],
) -> list[ForeignNode]:
    """Return the convolutions of the groups, in order, if ``join`` joins all of them; else none."""
    parts = [nodes[name] for name in join.inputs if name in nodes]
    is_join = join.operation == "concat" and _is_channels(source, join)
    if not is_join or len(parts) != len(join.inputs) or len(parts) < 2:
        return []
    first = parts[0]
    for part in parts:
        is_alike = (
            part.operation == "conv"
            and part.attributes == first.attributes
            and part.attributes["groups"] == 1
            and readers[part.name] == 1
            and len(part.inputs) == len(first.inputs)
            and all(name in source.constants for name in part.inputs[1:])
            and _shapes(source, part) == _shapes(source, first)
        )
        if not is_alike:
            return []
    slices = [nodes.get(part.inputs[0]) for part in parts]
    whole: set[str] = set()
    end = 0
    for one in slices:
        if one is None or one.operation != "slice" or not _is_channels(source, one):
            return []
        if one.attributes["begin"] != end:
            return []
        end = int(one.attributes["end"])  # type: ignore[arg-type]
        whole.add(one.inputs[0])
    axes = str(first.attributes["axes"])
    each = _shapes(source, first)[0][axes.index("I")]
    (x, *others) = whole
    is_whole = not others and end == each * len(parts) == _channels(source, x, nodes)
    return parts if is_whole else []


def _together(
    source: Foreign,
    join: ForeignNode,
    parts: list[ForeignNode],
    nodes: Mapping[str, ForeignNode],
    constants: dict[str, NDArray[Any]],
) -> ForeignNode:
    first = parts[0]
    outputs = str(first.attributes["axes"]).index("O")
    names = []
    for position, axis in zip(range(1, len(first.inputs)), (outputs, 0), strict=False):
        name = f"{join.name}/{first.inputs[position]}"
        constants[name] = np.concatenate(
            [source.constants[p.inputs[position]] for p in parts], axis
        )
        names.append(name)
    x = nodes[first.inputs[0]].inputs[0]
    return ForeignNode(join.name, "conv", (x, *names), {**first.attributes, "groups": len(parts)})


def _is_channels(source: Foreign, node: ForeignNode) -> bool:
    """Tell whether the axis of a join or slice of maps is that of their channels."""
    return node.attributes["axis"] in ((0, -3) if source.layout == "NCHW" else (2, -1))


def _shapes(source: Foreign, layer: ForeignNode) -> list[tuple[int, ...]]:
    return [source.constants[name].shape for name in layer.inputs[1:]]


def _channels(source: Foreign, name: str, nodes: Mapping[str, ForeignNode]) -> int | None:
    """Return the channels of a map as far as the layer or normalisation before it says them."""
    while name in nodes:
        node = nodes[name]
        if node.operation == "conv" and node.inputs[1] in source.constants:
            outputs = str(node.attributes["axes"]).index("O")
            return int(source.constants[node.inputs[1]].shape[outputs])
        if node.operation == "batch_norm" and node.inputs[3] in source.constants:
            return int(source.constants[node.inputs[3]].size)
        if node.operation not in _KEEP_CHANNELS:
            return None
        name = node.inputs[0]
    if name != source.input or len(source.input_shape) != 3:
        return None
    return source.input_shape[0 if source.layout == "NCHW" else 2]

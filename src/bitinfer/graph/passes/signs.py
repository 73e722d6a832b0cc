"""Passes that bring signs as close to their layers as they can come: bits instead of floats."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from bitinfer import numerics
from bitinfer.graph import nodes
from bitinfer.graph.checked import CheckedGraph
from bitinfer.graph.nodes import Node
from bitinfer.graph.passes.chains import (
    bisect,
    bisect_floats,
    bits_of,
    has_integer_sums,
    is_monotone,
    largest_sums,
)
from bitinfer.graph.passes.draft import Draft

Array = NDArray[Any]


def sign_before_flatten(checked: CheckedGraph) -> CheckedGraph:
    """Take the signs of a map before it is flattened, where one threshold serves all elements.

    Bits are flattened instead of floats, and the sign may fold into the layer before.  Those of one
    channel would take a word each: a vector of floats is packed faster.
    """
    draft = Draft(checked)
    for node in draft.nodes():
        if not isinstance(node, nodes.Sign) or node.threshold is not None or node.flip is not None:
            continue
        flatten = draft.maker(node.input)
        if not isinstance(flatten, nodes.Flatten) or draft.only_reader(flatten.name) is not node:
            continue
        source = draft.values[flatten.input]
        if source.kind != "float" or source.shape[-1] == 1:
            continue
        sign = msgspec.structs.replace(node, input=flatten.input)
        after = msgspec.structs.replace(flatten, input=sign.name)
        draft.rearrange((flatten, node), (sign, after))
    return draft.finish()


def max_pool_after_sign(checked: CheckedGraph) -> CheckedGraph:
    """Pool bits instead of floats: the sign of a maximum is the maximum of the signs.

    Between the pool and the sign there may be a chain that rises or falls with every element; in
    channels where it falls, the sign of the maximum is the minimum of the signs.
    """
    draft = Draft(checked)
    for pool in draft.nodes(backwards=True):  # of several pools in a row, the last goes first
        if not isinstance(pool, nodes.MaxPool2d) or draft.values[pool.input].kind != "float":
            continue
        chain, sign = _chain_to_sign(draft, pool.name)
        if sign is None:
            continue
        minimum = _is_falling(draft, chain, sign)
        mask = draft.keep(f"{sign.name}.minimum", minimum) if minimum.any() else None
        moved: list[Node] = []
        source = pool.input
        for node in (*chain, sign):
            moved.append(msgspec.structs.replace(node, input=source))
            source = node.name
        moved.append(msgspec.structs.replace(pool, input=source, minimum=mask))
        draft.rearrange((pool, *chain, sign), tuple(moved))
    return draft.finish()


def fold_signs(checked: CheckedGraph) -> CheckedGraph:
    """Fold everything monotone between a value and its sign into one threshold per channel.

    Behind a layer with integer sums, whose scale and bias are part of the chain, the threshold is
    an integer and the layer writes bits.  Elsewhere it is a float32 number of the sign itself.
    """
    draft = Draft(checked)
    for sign in draft.nodes():
        if not isinstance(sign, nodes.Sign) or draft.values[sign.input].kind != "float":
            continue
        chain: list[Node] = []
        source = draft.maker(sign.input)
        while source is not None and is_monotone(draft, source):
            if draft.only_reader(source.name) is None:
                break
            chain.insert(0, source)
            source = draft.maker(source.input)
        is_alone = source is not None and draft.only_reader(source.name) is not None
        if is_alone and has_integer_sums(draft, source):
            _compare_sums(draft, source, chain, sign)
        elif chain:
            _compare_floats(draft, chain, sign)
    return draft.finish()


def _chain_to_sign(draft: Draft, value: str) -> tuple[list[Node], nodes.Sign | None]:
    """Return the monotone nodes behind a value up to a sign, each the only reader of the last."""
    chain: list[Node] = []
    while (reader := draft.only_reader(value)) is not None:
        if isinstance(reader, nodes.Sign):
            return chain, reader
        if not is_monotone(draft, reader):
            break
        chain.append(reader)
        value = reader.name
    return chain, None


def _is_falling(draft: Draft, chain: list[Node], sign: nodes.Sign) -> Array:
    """Return per channel (uint8) whether the sign falls as the element rises."""
    falls = np.zeros(draft.values[sign.input].shape[-1], np.bool_)
    for node in chain:
        if (of_node := node.falls(draft.tensors)) is not None:
            falls ^= of_node
    if sign.flip is not None:
        falls ^= draft.tensor(sign.flip).astype(np.bool_)
    return falls.astype(np.uint8)


def _compare_sums(draft: Draft, layer: Any, chain: list[Node], sign: nodes.Sign) -> None:
    alpha, bias = draft.tensor(layer.alpha), draft.tensor(layer.bias)
    behind = bits_of(draft, chain, sign)
    limit = largest_sums(draft, layer)
    threshold, flip = bisect(
        lambda sums: behind(numerics.scale_sum(sums, alpha, bias)), -limit, limit
    )
    epilogue = nodes.Epilogue(
        threshold=draft.keep(f"{sign.name}.threshold", threshold.astype(np.int32)),
        flip=draft.keep(f"{sign.name}.flip", flip.astype(np.uint8)) if flip.any() else None,
    )
    fused = msgspec.structs.replace(layer, alpha=None, bias=None, epilogue=epilogue)
    draft.replace((layer, *chain, sign), fused)


def _compare_floats(draft: Draft, chain: list[Node], sign: nodes.Sign) -> None:
    channels = draft.values[sign.input].shape[-1]
    threshold, flip = bisect_floats(bits_of(draft, chain, sign), channels)
    folded = nodes.Sign(
        name=sign.name,
        input=chain[0].input,
        threshold=draft.keep(f"{sign.name}.threshold", threshold),
        flip=draft.keep(f"{sign.name}.flip", flip.astype(np.uint8)) if flip.any() else None,
    )
    draft.replace((*chain, sign), folded)

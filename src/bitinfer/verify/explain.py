"""Tries what could explain why a model differs from its source, one change of the source at a time.

A change that makes the source equal to the model, at the place where they part first, is what the
importer, or whoever made the model, took otherwise.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bitinfer.errors import BitInferError
from bitinfer.importers.foreign import Foreign, ForeignNode, Layout
from bitinfer.importers.simulate import simulate
from bitinfer.verify.differences import CLOSE, ROUNDING, Difference, source_signs, to_own

Array = NDArray[Any]
Change = tuple[str, Foreign, Array]
"""In words; the source with it; the input with it."""

EPSILONS = (1e-3, 1e-4, 1e-5, 1e-6, 0.0)
MAX_EXPLANATIONS = 3


def explain(
    source: Foreign,
    difference: Difference,
    x: Array,
    ours: Mapping[str, Array],
    layouts: Mapping[str, Layout],
) -> tuple[str, ...]:
    """Return the changes that make the source equal to the model at ``difference``.

    Shapes:  x (N, ...) in the source's layout, and ``ours`` of the same samples.
    """
    if not len(x):
        return ()
    found: list[str] = []
    for words, changed, changed_x in _changes(source, difference, x):
        try:
            values = simulate(changed, changed_x, until=difference.name)
        except BitInferError:
            continue  # shapes that do not fit with this change
        node = next((n for n in changed.nodes if n.name == difference.name), None)
        if _is_equal(node, difference.name, values, ours[difference.name], layouts):
            found.append(words)
            if len(found) == MAX_EXPLANATIONS:
                break
    return tuple(found)


def _is_equal(
    node: ForeignNode | None,
    name: str,
    values: Mapping[str, Array],
    own: Array,
    layouts: Mapping[str, Layout],
) -> bool:
    value, layout = values[name], layouts.get(name)
    if node is not None and node.operation == "sign":
        root = values[node.inputs[0]]
        limit = ROUNDING * np.abs(root).max(axis=tuple(range(1, root.ndim)), keepdims=True)
        is_tie = to_own(np.abs(root) <= limit, layout).reshape(own.shape)
        wanted = to_own(source_signs(node, value), layout).reshape(own.shape)
        # A sign(0) that is taken otherwise shows at ties alone.
        return bool((wanted == own)[~is_tie | (root_is_zero(root, layout, own))].all())
    wanted = to_own(value, layout).reshape(own.shape)
    return bool(np.abs(wanted - own).max() <= CLOSE * max(1.0, float(np.abs(wanted).max())))


def root_is_zero(root: Array, layout: Layout | None, own: Array) -> Array:
    """Return where the value before a sign is exactly 0."""
    return to_own(root == 0, layout).reshape(own.shape)


def _changes(source: Foreign, difference: Difference, x: Array) -> Iterator[Change]:
    """Yield all changes, those of single layers first."""
    for node in source.nodes:
        if node.name in difference.layers:
            for words, changed in _of_layer(source, node):
                yield f"{node.name}: {words}", changed, x
    for node in source.nodes:
        if node.operation == "sign":
            for at_zero, words in ((-1, "-1"), (0, "0"), (1, "+1")):
                if node.attributes["at_zero"] != at_zero:
                    attributes = {**node.attributes, "at_zero": at_zero}
                    changed = _replaced(source, dataclasses.replace(node, attributes=attributes))
                    yield f"{node.name}: sign(0) is {words}", changed, x
        if node.operation == "flatten":
            yield f"{node.name}: flattened in the other order of axes", _reordered(source, node), x
    yield from _of_input(source, x)


def _replaced(source: Foreign, node: ForeignNode, **constants: Array) -> Foreign:
    nodes = tuple(node if n.name == node.name else n for n in source.nodes)
    return dataclasses.replace(source, nodes=nodes, constants={**source.constants, **constants})


def _of_layer(source: Foreign, node: ForeignNode) -> Iterator[tuple[str, Foreign]]:
    if node.operation == "batch_norm":
        yield from _of_norm(source, node)
        return
    name = node.inputs[1]
    weight = source.constants[name]
    axes = str(node.attributes["axes"])
    if node.operation == "conv":
        for value, words in ((-1.0, "-1"), (0.0, "0"), (1.0, "+1")):
            if node.attributes["pad_value"] != value and any(node.attributes["pads"]):  # type: ignore[arg-type]
                attributes = {**node.attributes, "pad_value": value}
                changed = dataclasses.replace(node, attributes=attributes)
                yield f"padded with {words}", _replaced(source, changed)
        height, width = axes.index("H"), axes.index("W")
        yield (
            "kernels turned by 180 degrees",
            _with_weight(source, node, np.flip(weight, (height, width))),
        )
        if weight.shape[height] == weight.shape[width]:
            yield (
                "height and width of kernels exchanged",
                _with_weight(source, node, weight.swapaxes(height, width)),
            )
    rest = tuple(i for i, letter in enumerate(axes) if letter != "O")
    signs = np.where(weight < 0, -1.0, 1.0)
    filled = np.where(weight == 0, _sizes(weight, rest), weight)
    if (filled != weight).any():
        yield "weights of 0 as +alpha", _with_weight(source, node, filled)
    if (filled != signs).any():
        yield "without alpha", _with_weight(source, node, signs)
    alpha = np.abs(weight).mean(axis=rest, keepdims=True)
    yield "weights as signs times their mean size", _with_weight(source, node, signs * alpha)
    yield "weights as they are, of the other sign", _with_weight(source, node, -weight)
    if len(node.inputs) > 2:
        changed = dataclasses.replace(node, inputs=node.inputs[:2])
        yield "without its bias", _replaced(source, changed)
    channels = axes.index("I")
    reversed_ = np.flip(weight, channels)
    yield "input channels in the reverse order", _with_weight(source, node, reversed_)


def _sizes(weight: Array, rest: tuple[int, ...]) -> Array:
    """Return the mean size of a filter's weights that are not 0; 0 of a filter of zeros."""
    count = np.maximum(np.count_nonzero(weight, axis=rest, keepdims=True), 1)
    return np.asarray(np.abs(weight).sum(axis=rest, keepdims=True) / count)


def _with_weight(source: Foreign, node: ForeignNode, weight: Array) -> Foreign:
    name = f"{node.name}/changed"
    inputs = (node.inputs[0], name, *node.inputs[2:])
    return _replaced(source, dataclasses.replace(node, inputs=inputs), **{name: weight})


def _of_norm(source: Foreign, node: ForeignNode) -> Iterator[tuple[str, Foreign]]:
    for epsilon in EPSILONS:
        if abs(epsilon - float(node.attributes["epsilon"])) > 1e-9:  # type: ignore[arg-type]
            attributes = {**node.attributes, "epsilon": epsilon}
            changed = dataclasses.replace(node, attributes=attributes)
            yield f"BatchNorm with epsilon {epsilon:g}", _replaced(source, changed)
    gamma = node.inputs[1]
    if gamma:
        changes: tuple[tuple[str, Callable[[Array], Array]], ...] = (
            ("gamma without its sign", np.abs),
            ("gamma of 1, whatever is stored", np.ones_like),
            ("gamma raised to 0.01", lambda g: np.maximum(g, 0.01)),
        )
        for words, function in changes:
            name = f"{node.name}/changed"
            inputs = (node.inputs[0], name, *node.inputs[2:])
            changed = dataclasses.replace(node, inputs=inputs)
            value = function(source.constants[gamma])
            yield f"BatchNorm with {words}", _replaced(source, changed, **{name: value})
    if node.inputs[2]:
        changed = dataclasses.replace(node, inputs=(*node.inputs[:2], "", *node.inputs[3:]))
        yield "BatchNorm without beta", _replaced(source, changed)


def _reordered(source: Foreign, node: ForeignNode) -> Foreign:
    axes = (1, 2, 0) if source.layout == "NCHW" else (2, 0, 1)
    turned = ForeignNode(f"{node.name}/turned", "transpose", node.inputs, {"axes": axes})
    nodes: list[ForeignNode] = []
    for other in source.nodes:
        if other.name == node.name:
            nodes += [turned, dataclasses.replace(other, inputs=(turned.name,))]
        else:
            nodes.append(other)
    return dataclasses.replace(source, nodes=tuple(nodes))


def _of_input(source: Foreign, x: Array) -> Iterator[Change]:
    """Yield other preprocessings: orders of axes and channels, and common scales."""
    if x.ndim == 4:
        is_first = x.shape[1] in (1, 3)
        channels = 1 if is_first else 3
        height, width = (2, 3) if is_first else (1, 2)
        yield "the input: channels in the reverse order", source, np.flip(x, channels)
        if x.shape[height] == x.shape[width]:
            yield "the input: height and width exchanged", source, x.swapaxes(height, width)
    scales: tuple[tuple[str, Callable[[Array], Array]], ...] = (
        ("2 x - 1", lambda v: 2 * v - 1),
        ("(x + 1) / 2", lambda v: (v + 1) / 2),
        ("255 x", lambda v: 255 * v),
        ("x / 255", lambda v: v / 255),
        ("-x", lambda v: -v),
    )
    for words, function in scales:
        yield f"the input: {words}", source, function(x)

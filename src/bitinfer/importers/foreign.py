"""A network in the terms of every framework: what readers write and ``recognise`` reads.

No node of bitinfer appears here, and no file format.  Values belong to one sample: the batch is
not part of a shape.  A value's shape is (C, H, W), (H, W, C) or (C,): ``layout`` is what layers
and pools read, and a ``transpose`` goes to the other one and back.  Constants keep the shape that
the file gives them, and broadcast against a batch of values as NumPy does: a (C, 1, 1) constant, or
a (1, C, 1, 1), is one number per channel of a (C, H, W) value.

:data:`OPERATIONS` is the vocabulary.  A reader translates the names of its format into these words,
fills in the defaults of its format, and leaves what has no word under its own name: ``recognise``
refuses that by name.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, Literal

from numpy.typing import NDArray

from bitinfer.errors import CheckpointError

Layout = Literal["NCHW", "NHWC"]
Attribute = int | float | str | tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class Operation:
    """A word of the vocabulary.

    Attributes:
        inputs: names of what it reads, in order; those in brackets may be missing at the end.
        attributes: with their types; all of them must be there.
        is_elementwise: every element of the result follows from the same element of its inputs.
    """

    inputs: tuple[str, ...]
    attributes: Mapping[str, type] = dataclasses.field(default_factory=dict)
    is_elementwise: bool = False


def _elementwise(*inputs: str, **attributes: type) -> Operation:
    return Operation(inputs, attributes, is_elementwise=True)


_WINDOW = {"kernel": tuple, "strides": tuple, "pads": tuple}

OPERATIONS: Mapping[str, Operation] = {
    # Layers.  ``axes`` names the axes of the weight: O, I, H, W; I counts channels of one group.
    # ``pads`` is (top, bottom, left, right), of ``pad_value``.  ``counts`` is "sums", or
    # "agreements": how many products are +1, of BMXNet and FINN.
    "conv": Operation(
        ("x", "weight", "[bias]"),
        {
            "axes": str,
            "strides": tuple,
            "pads": tuple,
            "dilations": tuple,
            "groups": int,
            "pad_value": float,
            "counts": str,
        },
    ),
    "dense": Operation(("x", "weight", "[bias]"), {"axes": str, "counts": str}),
    # gamma * (x - mean) / sqrt(variance + epsilon) + beta; "" stands for a missing gamma or beta.
    "batch_norm": Operation(("x", "gamma", "beta", "mean", "variance"), {"epsilon": float}),
    # A sign by its framework's own name; ``at_zero`` is -1, 0 or +1; low and high stand for -1, +1.
    "sign": _elementwise("x", at_zero=int, low=float, high=float),
    # Whole numbers of 8 bits: clip(round_half_even(x / scale), -128, 127) * scale.
    "quantize": _elementwise("x", scale=float),
    # Maps.  ``axis`` and ``axes`` are the value's own, without the batch.
    "pad": Operation(("x",), {"axes": tuple, "pads": tuple, "value": float}),
    "max_pool": Operation(("x",), _WINDOW),
    "avg_pool": Operation(("x",), {**_WINDOW, "count_include_pad": int}),
    "global_max_pool": Operation(("x",)),
    "global_avg_pool": Operation(("x",)),
    "concat": Operation(("x", "[others]"), {"axis": int}),
    "slice": Operation(("x",), {"axis": int, "begin": int, "end": int}),
    # Channel g * (C / groups) + i becomes channel i * groups + g (ShuffleNet).
    "shuffle": Operation(("x",), {"groups": int}),
    "flatten": Operation(("x",)),
    # ``shape`` and ``axes`` of values are without the batch; -1 in a shape stands for the rest.
    "reshape": Operation(("x",), {"shape": tuple}),
    "transpose": Operation(("x",), {"axes": tuple}),
    "mean": Operation(("x",), {"axes": tuple, "keeps_axes": int}),
    "softmax": Operation(("x",)),
    # Element by element.
    "identity": _elementwise("x"),
    "relu": _elementwise("x"),
    "clip": _elementwise("x", low=float, high=float),
    "prelu": _elementwise("x", "slope"),
    "sigmoid": _elementwise("x"),
    "tanh": _elementwise("x"),
    "abs": _elementwise("x"),
    "negate": _elementwise("x"),
    "sqrt": _elementwise("x"),
    "add": _elementwise("x", "y"),
    "subtract": _elementwise("x", "y"),
    "multiply": _elementwise("x", "y"),
    "divide": _elementwise("x", "y"),
    "power": _elementwise("x", "y"),
    "minimum": _elementwise("x", "y"),
    "maximum": _elementwise("x", "y"),
    "less": _elementwise("x", "y"),
    "less_or_equal": _elementwise("x", "y"),
    "greater": _elementwise("x", "y"),
    "greater_or_equal": _elementwise("x", "y"),
    "equal": _elementwise("x", "y"),
    "not": _elementwise("x"),
    "where": _elementwise("condition", "x", "y"),
    "to_float": _elementwise("x"),
    "to_bool": _elementwise("x"),
}
"""The vocabulary, with what each word reads."""


@dataclasses.dataclass(frozen=True)
class ForeignNode:
    """One operation; its value bears its ``name``.

    Attributes:
        name: as in the source, and as reports have it.
        operation: a word of OPERATIONS, or the format's own where there is none.
        inputs: names of values or constants.
        attributes: as OPERATIONS wants them.
    """

    name: str
    operation: str
    inputs: tuple[str, ...]
    attributes: Mapping[str, Attribute] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True, eq=False)
class Foreign:
    """A network.

    Attributes:
        name: of the network.
        layout: of the maps that layers and pools read.
        input: name of the value that comes in.
        input_shape: of one sample, in ``layout``, or in the other one if all that reads it is a
            transposition to ``layout``.
        nodes: in order of execution.
        constants: arrays by name.
        outputs: names of values.
        labels: names of the classes, where the source has them.
    """

    name: str
    layout: Layout
    input: str
    input_shape: tuple[int, ...]
    nodes: tuple[ForeignNode, ...]
    constants: Mapping[str, NDArray[Any]]
    outputs: tuple[str, ...]
    labels: tuple[str, ...] = ()

    def consumers(self) -> dict[str, list[ForeignNode]]:
        """Return the nodes that read each value or constant; one that is an output has an extra.

        The extra is the node "" of the operation "output".
        """
        result: dict[str, list[ForeignNode]] = {}
        for node in self.nodes:
            for name in dict.fromkeys(node.inputs):
                result.setdefault(name, []).append(node)
        for name in self.outputs:
            result.setdefault(name, []).append(ForeignNode("", "output", (name,)))
        return result


def check(foreign: Foreign) -> None:
    """Raise CheckpointError unless every name is there before it is read, and words are complete.

    What has no word of the vocabulary is left to ``recognise``, which refuses it by name.
    """
    known = {foreign.input, *foreign.constants}
    if not foreign.input_shape or not all(n > 0 for n in foreign.input_shape):
        raise CheckpointError(f"the input has shape {foreign.input_shape}, wanted sizes above 0")
    for node in foreign.nodes:
        where = f"{node.name} ({node.operation})"
        if node.name in known or not node.name:
            raise CheckpointError(f"{where}: the name stands twice, or is empty")
        for name in node.inputs:
            if name and name not in known:
                raise CheckpointError(f"{where}: reads {name!r}, which nothing before it makes")
        known.add(node.name)
        word = OPERATIONS.get(node.operation)
        if word is not None:
            _check_word(where, node, word)
    for name in foreign.outputs:
        if name not in known:
            raise CheckpointError(f"the output {name!r} is made by nothing")


def _check_word(where: str, node: ForeignNode, word: Operation) -> None:
    needed = sum(not name.startswith("[") for name in word.inputs)
    is_open = node.operation == "concat"
    if not needed <= len(node.inputs) or (len(node.inputs) > len(word.inputs) and not is_open):
        raise CheckpointError(
            f"{where}: {len(node.inputs)} inputs, wanted {', '.join(word.inputs)}"
        )
    if node.attributes.keys() != word.attributes.keys():
        raise CheckpointError(
            f"{where}: attributes {', '.join(node.attributes) or 'none'}, "
            f"wanted {', '.join(word.attributes) or 'none'}"
        )
    for name, kind in word.attributes.items():
        value = node.attributes[name]
        fits = isinstance(value, kind) or (kind is float and isinstance(value, int))
        if not fits or (isinstance(value, float) and math.isnan(value)):
            raise CheckpointError(f"{where}: {name} is {value!r}, wanted {kind.__name__}")


def is_elementwise(node: ForeignNode) -> bool:
    """Tell whether every element of the node's value follows from one element of each input."""
    word = OPERATIONS.get(node.operation)
    return word is not None and word.is_elementwise

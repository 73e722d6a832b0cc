"""Integer ends: the first convolution takes pixels as they are, the last dense layer 8-bit weights.

The layers between are bits already; what is left of a binary network's time is its float ends.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from bitinfer.errors import ConversionError, ShapeError
from bitinfer.graph import check, nodes
from bitinfer.graph.checks import MAX_SUM
from bitinfer.graph.nodes import Graph, node_inputs
from bitinfer.model import Model, Preprocessing

Array = NDArray[Any]

_LARGEST_PIXEL = 255
_TYPES: dict[int, type[np.signedinteger[Any]]] = {8: np.int8, 16: np.int16}


@dataclasses.dataclass(frozen=True)
class IntegerEnds:
    """A network with integer ends, and what became of its layers.

    Attributes:
        model: the network.
        first: name of the convolution that takes pixels.
        last: names of the dense layers whose weights are int8; empty if it ends in none.
        notes: a line for each of them, with the largest rounding error of its weights.
    """

    model: Model
    first: str
    last: tuple[str, ...]
    notes: tuple[str, ...]


def integer_ends(model: Model, bits: int = 16) -> IntegerEnds:
    """Return the network with its first convolution and its last dense layers in integers.

    Meaning: the first convolution gets weights of 8 or 16 ``bits``, with the normalisation of the
             model file in its scales, and multiplies them by uint8 pixels:
             ``x = (p * scale - mean) / std`` makes
             ``w * x = (w * scale / std) * (p - mean / scale)``, whose bracket keeps its mean as
             an offset and whose factor is rounded to so many bits, with a scale per output.  Dense
             layers behind the last sign get int8 weights with a scale per output, and stay float
             otherwise.
    Raises:  ConversionError if the network has no preprocessing, or its input is not read by one
             float convolution alone; or for other ``bits``.
    """
    if bits not in _TYPES:
        raise ConversionError(f"integer ends: weights of {bits} bits; wanted 8 or 16")
    if model.preprocessing is not None and model.preprocessing.mean_image is not None:
        raise ConversionError(
            "integer ends: the network has a mean image, which its first convolution cannot take "
            "in; use a mean per channel"
        )
    conv = _first_convolution(model)
    assert model.preprocessing is not None
    tensors = dict(model.tensors)
    changed: dict[str, nodes.Node] = {}
    changed[conv.name], note = _pixel_convolution(conv, tensors, model.preprocessing, bits)
    notes = [note]
    last = _last_dense_layers(model.graph)
    for dense in last:
        changed[dense.name], note = _int8_dense(dense, tensors)
        notes.append(note)
    graph = msgspec.structs.replace(
        model.graph,
        input=msgspec.structs.replace(model.graph.input, kind="uint8"),
        nodes=tuple(changed.get(node.name, node) for node in model.graph.nodes),
    )
    try:
        check(graph, tensors)
    except ShapeError as error:
        raise ConversionError(
            f"integer ends: the numbers become too large or too small: {error}"
        ) from error
    return IntegerEnds(
        model=dataclasses.replace(model, graph=graph, tensors=tensors),
        first=conv.name,
        last=tuple(dense.name for dense in last),
        notes=tuple(notes),
    )


def _first_convolution(model: Model) -> nodes.Conv2d:
    graph, name = model.graph, model.graph.input.name
    if graph.input.kind != "float":
        raise ConversionError("integer ends: the network takes integers as it is; nothing to do")
    if model.preprocessing is None:
        raise ConversionError(
            "integer ends: the model does not say how pixels are normalised; convert it with "
            "--mean and --std"
        )
    readers = [node for node in graph.nodes if name in node_inputs(node)]
    if len(readers) == 1 and isinstance(readers[0], nodes.Conv2d):
        conv = readers[0]
        if conv.alpha is None and model.tensors[conv.weight].dtype == np.float32:
            return conv
    what = ", ".join(f"{node.name!r} ({node.__struct_config__.tag})" for node in readers)
    raise ConversionError(
        f"integer ends: the input is read by {what}, wanted one float convolution"
    )


def _last_dense_layers(graph: Graph) -> list[nodes.Dense]:
    """Return the float dense layers whose results no sign depends on."""
    before_signs: set[str] = set()
    for node in reversed(graph.nodes):
        if isinstance(node, nodes.Sign) or node.name in before_signs:
            before_signs.update(node_inputs(node))
    return [n for n in graph.nodes if isinstance(n, nodes.Dense) and n.name not in before_signs]


def _pixel_convolution(
    conv: nodes.Conv2d, tensors: dict[str, Array], p: Preprocessing, bits: int
) -> tuple[nodes.Conv2d, str]:
    """Return the convolution of pixels; its tensors take the place of the float ones."""
    weight = tensors[conv.weight].astype(np.float64)
    mean, std = np.array(p.mean), np.array(p.std)
    if conv.groups > 1:
        groups = np.arange(len(weight)) * conv.groups // len(weight)
        std = std.reshape(conv.groups, 1, 1, -1)[groups]
    if p.scale == 0:
        raise ConversionError("integer ends: the preprocessing scales every pixel to 0")
    scaled = weight * (p.scale / std)
    taps = int(np.prod(weight.shape[1:]))
    dtype = _TYPES[bits]
    largest = min(np.iinfo(dtype).max, MAX_SUM // (_LARGEST_PIXEL * taps))
    rounded, alpha, note = _round(scaled, largest, conv.name, dtype)
    with np.errstate(over="ignore"):  # what becomes infinite is refused
        offset = (mean / p.scale).astype(np.float32)
    fields = {"weight": rounded, "alpha": alpha, "offset": offset}
    del tensors[conv.weight]
    names = {key: f"{conv.name}.{key}" for key in fields}
    tensors.update({names[key]: tensor for key, tensor in fields.items()})
    return msgspec.structs.replace(conv, **names), note


def _int8_dense(dense: nodes.Dense, tensors: dict[str, Array]) -> tuple[nodes.Dense, str]:
    weight = tensors[dense.weight]
    if weight.dtype != np.float32 or dense.alpha is not None:
        return dense, f"{dense.name}: its weights are not float32; left as it is"
    rounded, alpha, note = _round(weight.astype(np.float64), 127, dense.name, np.int8)
    del tensors[dense.weight]
    names = {"weight": f"{dense.name}.weight", "alpha": f"{dense.name}.alpha"}
    tensors.update({names["weight"]: rounded, names["alpha"]: alpha})
    return msgspec.structs.replace(dense, **names), note


def _round(weight: Array, largest: int, name: str, dtype: Any) -> tuple[Array, Array, str]:
    """Return weight = rounded * alpha with a scale per output (the first axis), and a note."""
    flat = np.abs(weight.reshape(len(weight), -1))
    alpha = np.maximum(flat.max(axis=1), 1e-30) / largest
    shaped = alpha.reshape(-1, *[1] * (weight.ndim - 1))
    rounded = np.rint(weight / shaped)
    error = float(np.abs(rounded * shaped - weight).max() / max(flat.max(), 1e-30))
    bits = 8 * np.dtype(dtype).itemsize
    note = f"{name}: {bits}-bit weights, rounded by at most {error:.1e} of the largest"
    return rounded.astype(dtype), alpha.astype(np.float32), note

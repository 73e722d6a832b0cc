"""What is known while a foreign graph is walked over: its values, and how to read them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from bitinfer.bits import Floats
from bitinfer.errors import CheckpointError, ConversionError
from bitinfer.graph import GraphBuilder
from bitinfer.importers.foreign import Foreign, ForeignNode, Layout, is_elementwise
from bitinfer.importers.layers import integers
from bitinfer.importers.outcome import LayerOutcome
from bitinfer.importers.pending import Doubles, Pending, Writer

TO_FIRST, TO_LAST = (2, 0, 1), (1, 2, 0)
"""Transpositions of one sample: (H, W, C) to (C, H, W), and back."""


class Walk:
    """The state of a walk; ``values`` are those of the source by name."""

    def __init__(self, source: Foreign) -> None:
        self.source = source
        self.readers = source.consumers()
        layout = self.layout_of(source.input)
        shape = own_shape(source.input_shape, layout)
        self.b = GraphBuilder(source.name, shape, source.input)
        self.write = Writer(self.b)
        self.values = {
            source.input: Pending(
                self.write.name(source.input), shape, len(source.input_shape) == 3, layout
            )
        }
        self.outcomes: list[LayerOutcome] = []
        self.norms: dict[str, tuple[Floats, Floats]] = {}

    def layout_of(self, name: str) -> Layout:
        """Return the layout of a map that does not follow from one: the input, or a reshape.

        Meaning: that of the source, unless a transposition takes the map to it first.
        """
        layout = self.source.layout
        other: Layout = "NHWC" if layout == "NCHW" else "NCHW"
        there = TO_FIRST if layout == "NCHW" else TO_LAST
        names, seen = [name], {name}
        while names:
            for node in self.readers.get(names.pop(), ()):
                if node.operation == "transpose" and integers(node, "axes") == there:
                    return other
                if is_elementwise(node) and node.name not in seen:
                    seen.add(node.name)
                    names.append(node.name)
        return layout

    def output(self, name: str) -> str:
        """Write an output of the network."""
        return self.write.floats(self.value(name)).name

    def value(self, name: str) -> Pending:
        """Return a value."""
        if name not in self.values:
            raise ConversionError(f"{name!r} is a constant, wanted a value")
        return self.values[name]

    def floats(self, node: ForeignNode, index: int = 0) -> Pending:
        """Return an input of ``node`` as numbers, all written."""
        return self.write.floats(self.value(node.inputs[index]))

    def map_of(self, node: ForeignNode) -> Pending:
        """Return the input of a layer or pool: a map in the layout that these read."""
        x = self.value(node.inputs[0])
        if x.is_map and len(x.shape) == 3 and x.layout != self.source.layout:
            raise ConversionError(f"a map in {x.layout}, wanted {self.source.layout}")
        return x

    def constant(self, node: ForeignNode, index: int, what: str) -> NDArray[Any] | None:
        """Return a constant input; None where it is missing."""
        name = node.inputs[index] if index < len(node.inputs) else ""
        if not name:
            return None
        if name not in self.source.constants:
            raise ConversionError(f"{what} {name!r} is computed from the input, wanted a constant")
        array = self.source.constants[name]
        if array.dtype.kind not in "fiub":
            raise CheckpointError(f"{what} is {array.dtype}, wanted numbers")
        if not np.isfinite(array).all():
            raise CheckpointError(f"{what} holds NaN or infinity")
        return array

    def required(self, node: ForeignNode, index: int, what: str) -> NDArray[Any]:
        """Return a constant input that must be there."""
        array = self.constant(node, index, what)
        if array is None:
            raise CheckpointError(f"{what} is missing")
        return array

    def per_channel(self, array: NDArray[Any], value: Pending, what: str) -> Doubles:
        """Return a constant that is added to ``value``, or the like, as one number per channel.

        Raises:
            CheckpointError: its shape does not fit.
            ConversionError: it differs between pixels.
        """
        shape = value.shape if len(value.shape) == 3 or not value.is_map else (1, 1, *value.shape)
        is_first = value.layout == "NCHW"
        if is_first and len(shape) == 3:
            shape = (shape[2], *shape[:2])
        while array.ndim > len(shape) and array.shape[0] == 1:
            array = array[0]
        try:
            full = np.broadcast_to(array.astype(np.float64), shape)
        except ValueError:
            raise CheckpointError(f"{what} has shape {array.shape}, the value {shape}") from None
        if len(shape) == 1:
            return full
        first = full[:, 0, 0] if is_first else full[0, 0, :]
        pixel = first[:, None, None] if is_first else first
        if not np.array_equal(full, np.broadcast_to(pixel, shape)):
            raise ConversionError(f"{what} of shape {array.shape} differs between pixels")
        return first


def own_shape(shape: tuple[int, ...], layout: Layout) -> tuple[int, ...]:
    """Return a shape of the source as (H, W, C) or (C,)."""
    if len(shape) not in (1, 3):
        raise ConversionError(f"a value has shape {shape}, wanted a map or a vector")
    return (*shape[1:], shape[0]) if layout == "NCHW" else shape

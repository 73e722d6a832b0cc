"""Values of a foreign graph on their way into a GraphBuilder: what is written only when needed.

A border, a constant that is added, a scale, a layer's missing bias: frameworks write them as steps
of their own, bitinfer as part of what follows or went before.  A :class:`Pending` value keeps them
until somebody reads it, and then either takes them over or has them written out.
"""

from __future__ import annotations

import dataclasses
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from bitinfer import bits
from bitinfer.bits import Floats
from bitinfer.errors import ConversionError
from bitinfer.graph import GraphBuilder
from bitinfer.graph.nodes import NO_PADDING, Padding, Pair
from bitinfer.importers.binary import Levels
from bitinfer.importers.foreign import Layout

Doubles = NDArray[np.float64]


class Layer(Protocol):
    """A layer that waits to be written."""

    def __call__(self, bias: Floats | None, beta: str | None = None, /) -> str:
        """Write it with that bias and beta map; returns its name."""
        ...


@dataclasses.dataclass(frozen=True, eq=False)
class SignOrigin:
    """Where a value of signs comes from, for those who need numbers.

    Attributes:
        source: the numbers whose signs were taken.
        threshold: what they were compared with.
        flattened_from: the signs of a map, if this is that map flattened.
    """

    source: str
    threshold: Floats | None = None
    flattened_from: Pending | None = None


@dataclasses.dataclass(frozen=True, eq=False)
class Magnitude:
    """The size of numbers on its way to XNOR-Net's beta map.

    Attributes:
        source: the numbers, in the builder.
        is_mean: whether the mean over their channels is taken.
        kernel, stride, padding, dilation: of the window over which it is taken.
    """

    source: str
    is_mean: bool = False
    kernel: Pair = (1, 1)
    stride: Pair = (1, 1)
    padding: Padding = NO_PADDING
    dilation: Pair = (1, 1)


@dataclasses.dataclass(frozen=True, eq=False)
class Pending:
    """A value.

    Attributes:
        name: in the builder.
        shape: (H, W, C) or (C,), in the builder.
        is_map: whether it has height and width in the source; a (C,) here may have 1 x 1 there.
        layout: of a map in the source.
        step: of whole numbers, int8 here, the size of 1.
        levels: what stands for -1 and +1; None of numbers.
        at_zero: what the sign was of exactly 0 in the source.
        origin: of signs that were taken here.
        layer: writes the layer that makes this value; until then ``name`` is not there.
        is_scalable: whether a beta map may scale the sums of this layer.
        magnitude: of sizes of numbers, whose.
        scale, shift: (C,) float64: the value is ``scale * name + shift``.
        padding, pad_value: a border around it.
    """

    name: str
    shape: tuple[int, ...]
    is_map: bool
    layout: Layout
    step: float | None = None
    levels: Levels | None = None
    at_zero: int = 1
    origin: SignOrigin | None = None
    layer: Layer | None = None
    is_scalable: bool = False
    magnitude: Magnitude | None = None
    scale: Doubles | None = None
    shift: Doubles | None = None
    padding: Padding = NO_PADDING
    pad_value: float = 0.0

    @property
    def channels(self) -> int:
        """Length of the last axis."""
        return self.shape[-1]

    @property
    def is_padded(self) -> bool:
        """Whether a border waits to be written."""
        return self.padding != NO_PADDING

    @property
    def is_affine(self) -> bool:
        """Whether a scale or a shift waits to be written."""
        return self.scale is not None or self.shift is not None

    @property
    def flatten_order(self) -> Literal["channels_first", "channels_last"]:
        """In which order the source flattens it."""
        return "channels_first" if self.layout == "NCHW" else "channels_last"

    @property
    def is_plain(self) -> bool:
        """Whether it is numbers: neither signs nor whole numbers of 8 bits."""
        return self.levels is None and self.step is None

    def scaled(self, scale: Doubles | None, shift: Doubles | None) -> Pending:
        """Return ``scale * self + shift``; what is None changes nothing."""
        old_scale, old_shift = self.scale, self.shift
        if scale is not None:
            old_scale = scale if old_scale is None else old_scale * scale
            old_shift = None if old_shift is None else old_shift * scale
        if shift is not None:
            old_shift = shift if old_shift is None else old_shift + shift
        return dataclasses.replace(self, scale=old_scale, shift=old_shift)


class Writer:
    """Writes what is pending; every method returns a value with less of it."""

    def __init__(self, builder: GraphBuilder) -> None:
        self.b = builder
        self._names: set[str] = set()
        self._laid: dict[Layer, str] = {}

    def name(self, wanted: str) -> str:
        """Return ``wanted``, or with a number behind it if it is taken."""
        result, number = wanted, 1
        while result in self._names:
            number += 1
            result = f"{wanted}.{number}"
        self._names.add(result)
        return result

    def laid(self, value: Pending) -> Pending:
        """Write the layer that makes ``value``; a shift without a scale is its bias."""
        layer = value.layer
        if layer is None:
            return value
        bias = None
        if value.scale is None and value.shift is not None:
            bias = value.shift.astype(np.float32)
            value = dataclasses.replace(value, shift=None)
        # One node may read a value twice.
        if layer not in self._laid:
            self._laid[layer] = layer(bias)
        name = self._laid[layer]
        return dataclasses.replace(value, name=name, layer=None)

    def settled(self, value: Pending) -> Pending:
        """Write layer, scale and shift, but no border."""
        value = self.laid(value)
        if not value.is_affine:
            return value
        value = self.numbers(dataclasses.replace(value, scale=None, shift=None), value)
        ones = np.ones(value.channels)
        scale = ones if value.scale is None else value.scale
        shift = None if value.shift is None else value.shift.astype(np.float32)
        name = self.b.batch_norm(
            value.name,
            np.zeros(value.channels),
            ones,
            scale.astype(np.float32),
            shift,
            epsilon=0.0,
            name=self.name(f"{value.name}.affine"),
        )
        return dataclasses.replace(value, name=name, scale=None, shift=None)

    def numbers(self, value: Pending, affine: Pending | None = None) -> Pending:
        """Turn signs into the numbers that they stand for; ``affine`` lends scale and shift.

        A grouped 1x1 convolution with one weight of +1 per channel: exact.
        """
        if value.levels is not None:
            value = self._numbers_of_signs(value, value.levels)
        if value.step is not None:
            value = self._numbers_of_integers(value, value.step)
        if affine is None:
            return value
        return dataclasses.replace(value, scale=affine.scale, shift=affine.shift)

    def bordered(self, value: Pending) -> Pending:
        """Write everything, the border too."""
        value = self.settled(value)
        if not value.is_padded:
            return value
        if value.step is not None:
            value = self.numbers(value)
        if value.levels is not None:
            level = {value.levels.low: -1.0, value.levels.high: 1.0}.get(value.pad_value)
            if level is None:
                value = self.numbers(value)
                level = value.pad_value
        else:
            level = value.pad_value
        top, bottom, left, right = value.padding
        height, width, channels = value.shape
        name = self.b.pad2d(
            value.name, value.padding, level, name=self.name(f"{value.name}.padded")
        )
        shape = (height + top + bottom, width + left + right, channels)
        return dataclasses.replace(value, name=name, shape=shape, padding=NO_PADDING, origin=None)

    def floats(self, value: Pending) -> Pending:
        """Write everything, and make numbers of signs."""
        return self.numbers(self.bordered(value))

    def _numbers_of_signs(self, value: Pending, levels: Levels) -> Pending:
        origin = value.origin
        if len(value.shape) == 3:
            name = self._unpacked(value.name, value.channels, levels)
        elif origin is not None and origin.flattened_from is not None:
            of_map = self.numbers(origin.flattened_from)
            at = self.name(f"{value.name}.numbers")
            name = self.b.flatten(of_map.name, of_map.flatten_order, name=at)
        elif origin is not None:
            at = value.name
            x = self.b.reshape(origin.source, (1, 1, value.channels), name=self.name(f"{at}.map"))
            x = self.b.sign(x, threshold=origin.threshold, name=self.name(f"{at}.signs"))
            x = self._unpacked(x, value.channels, levels)
            name = self.b.flatten(x, "channels_last", name=self.name(f"{at}.numbers"))
        else:
            raise ConversionError(f"{value.name}: signs of a vector cannot become numbers here")
        return dataclasses.replace(value, name=name, levels=None, origin=None)

    def _numbers_of_integers(self, value: Pending, step: float) -> Pending:
        if len(value.shape) != 3:
            raise ConversionError(f"{value.name}: a vector of 8 bits cannot become numbers here")
        name = self.b.conv2d(
            value.name,
            bits.pack(np.ones((value.channels, 1, 1, 1), np.float32)),
            alpha=np.full(value.channels, step),
            groups=value.channels,
            name=self.name(f"{value.name}.numbers"),
        )
        return dataclasses.replace(value, name=name, step=None)

    def _unpacked(self, x: str, channels: int, levels: Levels) -> str:
        scale = None if levels.scale == 1 else np.full(channels, levels.scale)
        centre = None if levels.centre == 0 else np.full(channels, levels.centre)
        return self.b.bconv2d(
            x,
            np.ones((channels, 1, 1, 1), np.float32),
            alpha=scale,
            bias=centre,
            groups=channels,
            name=self.name(f"{x}.numbers"),
        )

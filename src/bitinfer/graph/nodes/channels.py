"""Nodes that move elements about: whole channels, or all of them into another shape."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

from bitinfer.errors import ShapeError
from bitinfer.graph.checks import Known, Value
from bitinfer.graph.nodes.base import BaseNode, ValueName


class Concat(BaseNode, frozen=True, tag="concat"):
    """The channels of several float values of the same height and width, one after the other."""

    others: tuple[ValueName, ...]

    def rule(self, source: Value, known: Known) -> Value:
        """Make as many channels as all inputs have together."""
        channels = source.shape[-1]
        for name in self.others:
            other = known.values[name]
            if other.kind != "float" or other.shape[:-1] != source.shape[:-1]:
                raise ShapeError(
                    f"{name!r} is {other.kind} of shape {other.shape}, wanted float with the "
                    f"height and width of {source.shape}"
                )
            channels += other.shape[-1]
        return Value("float", (*source.shape[:-1], channels))

    def is_identity(self, source: Value, is_never_negative: Callable[[], bool]) -> bool:
        """One value alone stays as it is."""
        return not self.others


class SliceChannels(BaseNode, frozen=True, tag="slice_channels"):
    """The channels of a float value from ``begin`` up to ``end``."""

    begin: int
    end: int

    def rule(self, source: Value, known: Known) -> Value:
        """Make end - begin channels."""
        if not 0 <= self.begin < self.end <= source.shape[-1]:
            raise ShapeError(f"channels {self.begin} to {self.end} of {source.shape[-1]}")
        return Value("float", (*source.shape[:-1], self.end - self.begin))

    def is_identity(self, source: Value, is_never_negative: Callable[[], bool]) -> bool:
        """All channels are the value itself."""
        return self.end - self.begin == source.shape[-1]


class ShuffleChannels(BaseNode, frozen=True, tag="shuffle_channels"):
    """Channel g * (C / groups) + i of a float value becomes channel i * groups + g (ShuffleNet)."""

    groups: int

    def rule(self, source: Value, known: Known) -> Value:
        """Keep the shape."""
        if self.groups < 1 or source.shape[-1] % self.groups:
            raise ShapeError(f"{self.groups} groups do not divide {source.shape[-1]} channels")
        return source

    def is_identity(self, source: Value, is_never_negative: Callable[[], bool]) -> bool:
        """One group, or groups of one channel, stay in order."""
        return self.groups in (1, source.shape[-1])


class Flatten(BaseNode, frozen=True, tag="flatten"):
    """(H, W, C) -> (H * W * C,), of floats or signs.

    ``channels_last``: index (y * W + x) * C + c, as TensorFlow's; ``channels_first``:
    (c * H + y) * W + x, as PyTorch's.
    """

    order: Literal["channels_first", "channels_last"]

    takes = ("float", "sign")

    def rule(self, source: Value, known: Known) -> Value:
        """Make a vector of the same kind."""
        return Value(source.kind, (math.prod(source.shape),))

    def is_identity(self, source: Value, is_never_negative: Callable[[], bool]) -> bool:
        """Leave vectors as they are."""
        return len(source.shape) == 1

    def never_negative(self) -> None:
        """As its input is."""


class Reshape(BaseNode, frozen=True, tag="reshape"):
    """Another shape for the same float elements in the same order, channels last."""

    shape: tuple[int, ...]

    def rule(self, source: Value, known: Known) -> Value:
        """Make a value of ``shape``."""
        if len(self.shape) not in (1, 3) or math.prod(self.shape) != math.prod(source.shape):
            raise ShapeError(
                f"{source.shape} cannot become {self.shape}: wanted (H, W, C) or (C,) with as "
                "many elements"
            )
        return Value("float", self.shape)

    def is_identity(self, source: Value, is_never_negative: Callable[[], bool]) -> bool:
        """Change nothing where the shape is the same."""
        return self.shape == source.shape

    def never_negative(self) -> None:
        """As its input is."""

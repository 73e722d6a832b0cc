"""The steps of a plan: what a backend executes, in order.

A step reads buffers and writes one buffer, all of one sample.  Its constants are in canonical form
(weights as the graph holds them); a backend may re-lay them for its kernels when it binds the plan.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from bitinfer.bits import Floats, Words, words_for
from bitinfer.graph.nodes import NO_PADDING, Padding, Pair

BufferKind = Literal["float", "bits", "pixels", "int8"]


@dataclasses.dataclass(frozen=True)
class Buffer:
    """Storage of one value of one sample: float32, packed signs (uint64), pixels (uint8), int8.

    ``shape`` counts elements; packed signs take ``words_for(shape[-1])`` words on the last axis.
    """

    kind: BufferKind
    shape: tuple[int, ...]

    @property
    def stored_shape(self) -> tuple[int, ...]:
        """Shape of the array that holds the buffer."""
        if self.kind == "bits":
            return (*self.shape[:-1], words_for(self.shape[-1]))
        return self.shape

    @property
    def size_bytes(self) -> int:
        """Bytes that the buffer takes."""
        return (
            math.prod(self.stored_shape)
            * {"float": 4, "bits": 8, "pixels": 1, "int8": 1}[self.kind]
        )


@dataclasses.dataclass(frozen=True)
class Window:
    """A window that slides over a map; padding is (top, bottom, left, right)."""

    kernel: Pair
    stride: Pair = (1, 1)
    padding: Padding = NO_PADDING
    dilation: Pair = (1, 1)
    groups: int = 1


@dataclasses.dataclass(frozen=True, eq=False)
class Activation:
    """What is applied last to a float result, per channel (numerics.activate).

    ``relu``: max(y, 0); ``prelu``: y where y >= 0, else y * slope (Cout,); ``clip``: between low
    and high.
    """

    kind: Literal["relu", "prelu", "clip"]
    slope: Floats | None = None
    low: float = 0.0
    high: float = 0.0


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class Step:
    """Base of all steps: the node it came from, the buffer it reads and the one it writes."""

    name: str
    source: int
    target: int

    @property
    def operation(self) -> str:
        """The name under which kernels of this operation are listed."""
        return OPERATIONS[type(self)]

    @property
    def sources(self) -> tuple[int, ...]:
        """Every buffer that the step reads."""
        return (self.source,)


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class Normalize(Step):
    """pixels -> float through a table (256, C): ``y[..., c] = table[x[..., c], c]``."""

    table: Floats


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class PackSigns(Step):
    """float, pixels or int8 -> bits: ``x < threshold[c]``; the threshold (C,) is 0 if None."""

    threshold: Floats | None = None


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class BetaMap(Step):
    """Mean of |x| over the channels of each group, box-filtered; a vector has one 1x1 window."""

    window: Window


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class _Binary(Step):
    """Base of the binary layers: what becomes of the integer result ``dot``, the epilogue.

    To a float buffer:  ``activation(dot * alpha * beta + bias + residual)``, each part where given
    (numerics.finish_dot); ``beta`` and ``residual`` are buffers.
    To a bits buffer:   bit = ``(dot < threshold) != flip``; threshold int32 and flip bool, (Cout,).
    """

    weight: Words
    alpha: Floats | None = None
    bias: Floats | None = None
    beta: int | None = None
    residual: int | None = None
    activation: Activation | None = None
    threshold: NDArray[np.int32] | None = None
    flip: NDArray[np.bool_] | None = None

    @property
    def sources(self) -> tuple[int, ...]:
        """Every buffer that the step reads."""
        return tuple(b for b in (self.source, self.beta, self.residual) if b is not None)


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class BinaryConv2d(_Binary):
    """bits -> float or bits; weight (Cout, kh, kw, words_for(Cin / groups))."""

    window: Window
    pad_value: int


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class BinaryDense(_Binary):
    """bits -> float or bits; weight (Cout, words_for(Cin)); ``beta`` has the shape (1,)."""


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class Conv2d(Step):
    """float -> float; weight (Cout, kh, kw, Cin / groups)."""

    window: Window
    weight: Floats
    bias: Floats | None


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class Dense(Step):
    """float -> float; weight (Cout, Cin)."""

    weight: Floats
    bias: Floats | None


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class Affine(Step):
    """``y = x * scale + shift`` along the last axis; scale and shift (C,)."""

    scale: Floats
    shift: Floats


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class Relu(Step):
    """``y = x if x > 0 else 0``."""


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class MaxPool2d(Step):
    """Maximum over a window, of float or (as AND) of bits."""

    window: Window


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class AvgPool2d(Step):
    """Mean over a window, divided by the whole window or by the taps inside the map."""

    window: Window
    count_include_pad: bool


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class Flatten(Step):
    """Map to vector, of float or bits."""

    channels_first: bool


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class Softmax(Step):
    """Softmax of a vector."""


OPERATIONS: dict[type[Step], str] = {
    Normalize: "normalize",
    PackSigns: "pack_signs",
    BetaMap: "beta_map",
    BinaryConv2d: "bconv2d",
    BinaryDense: "bdense",
    Conv2d: "conv2d",
    Dense: "dense",
    Affine: "affine",
    Relu: "relu",
    MaxPool2d: "max_pool2d",
    AvgPool2d: "avg_pool2d",
    Flatten: "flatten",
    Softmax: "softmax",
}


@dataclasses.dataclass(frozen=True, eq=False)
class Plan:
    """A network as a flat list of steps over buffers.

    ``input`` and ``outputs`` are buffers that the caller provides; the others are the backend's.
    """

    buffers: tuple[Buffer, ...]
    steps: tuple[Step, ...]
    input: int
    outputs: tuple[int, ...]
    output_names: tuple[str, ...]

    def lifetimes(self) -> dict[int, tuple[int, int]]:
        """Return, per inner buffer, the first and the last step that touch it."""
        outer = {self.input, *self.outputs}
        spans: dict[int, tuple[int, int]] = {}
        for index, step in enumerate(self.steps):
            for buffer in (step.target, *step.sources):
                if buffer not in outer:
                    spans[buffer] = (spans.get(buffer, (index, index))[0], index)
        return spans

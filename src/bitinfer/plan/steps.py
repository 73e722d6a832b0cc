"""The steps of a plan: what a backend executes, in order.

A step reads buffers and writes one buffer, all of one sample.  Its constants are in canonical form
(weights as the graph holds them); a backend may re-lay them for its kernels when it binds the plan.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from bitinfer.bits import Floats, words_for
from bitinfer.graph.nodes import NO_PADDING, Node, Padding, Pair
from bitinfer.numerics import Norm

BufferKind = Literal["float", "bits", "pixels", "int8"]

_DTYPES: dict[BufferKind, np.dtype[Any]] = {
    "float": np.dtype(np.float32),
    "bits": np.dtype(np.uint64),
    "pixels": np.dtype(np.uint8),
    "int8": np.dtype(np.int8),
}


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
    def dtype(self) -> np.dtype[Any]:
        """Type of the elements of that array."""
        return _DTYPES[self.kind]

    @property
    def size_bytes(self) -> int:
        """Bytes that the buffer takes."""
        return math.prod(self.stored_shape) * self.dtype.itemsize


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
    """What is applied last to a float result, per channel (numerics.activate); tensors (Cout,)."""

    kind: Literal["relu", "prelu", "rprelu", "clip", "sigmoid"]
    shift_in: Floats | None = None
    slope: Floats | None = None
    shift_out: Floats | None = None
    low: float = 0.0
    high: float = 0.0


@dataclasses.dataclass(frozen=True, eq=False)
class Epilogue:
    """What becomes of the sums of a layer: of integers, or floats.

        y = activation(max(sum, floor) * alpha * beta + bias + residual)
        bit = (y < sign_threshold) != flip

    ``beta``, ``residual`` and ``signs`` are buffers; the rest is (Cout,) float32, flip bool.  With
    a ``sign_threshold`` the target holds bits instead of y, unless ``signs`` is a buffer for them.
    With ``threshold`` (int32) the integer sum is compared instead: bit = (sum < threshold) != flip,
    and all but flip is None.
    """

    alpha: Floats | None = None
    bias: Floats | None = None
    floor: Floats | None = None
    beta: int | None = None
    residual: int | None = None
    activation: Activation | None = None
    threshold: NDArray[np.int32] | None = None
    sign_threshold: Floats | None = None
    flip: NDArray[np.bool_] | None = None
    signs: int | None = None


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class Step:
    """Base of all steps: the node it came from, the buffer it reads and the one it writes.

    ``operation`` is the name under which kernels are listed.
    """

    operation: ClassVar[str]

    name: str
    source: int
    target: int

    @property
    def sources(self) -> tuple[int, ...]:
        """Every buffer that the step reads."""
        return (self.source,)

    @property
    def targets(self) -> tuple[int, ...]:
        """Every buffer that the step writes."""
        return (self.target,)


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class NodeStep(Step):
    """What a node says, as it says it: for nodes without tensors that need no lowering.

    ``others`` are the buffers of the further values that the node reads, by its fields.
    """

    node: Node
    others: Mapping[str, int] = dataclasses.field(default_factory=dict)

    @property
    def operation(self) -> str:  # type: ignore[override]  # of the node, not of the class
        """The name under which kernels are listed: that of the node."""
        return self.node.operation

    @property
    def sources(self) -> tuple[int, ...]:
        """Every buffer that the step reads."""
        return (self.source, *self.others.values())


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class Normalize(Step):
    """pixels -> float through a table (256, C): ``y[..., c] = table[x[..., c], c]``."""

    operation = "normalize"

    table: Floats


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class PackSigns(Step):
    """float, pixels or int8 -> bits: ``(x < threshold[c]) != flip[c]``; (C,), 0 if None.

    x are the channels of the source from ``begin`` on, as many as the target has.
    """

    operation = "pack_signs"

    begin: int = 0
    threshold: Floats | None = None
    flip: NDArray[np.bool_] | None = None


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class BetaMap(Step):
    """Mean of |x| over the channels of each group, box-filtered; a vector has one 1x1 window."""

    operation = "beta_map"

    window: Window


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class Layer(Step):
    """Base of the layers with weights."""

    weight: NDArray[Any]
    epilogue: Epilogue = Epilogue()

    @property
    def sources(self) -> tuple[int, ...]:
        """Every buffer that the step reads."""
        e = self.epilogue
        return tuple(b for b in (self.source, e.beta, e.residual) if b is not None)

    @property
    def targets(self) -> tuple[int, ...]:
        """Every buffer that the step writes."""
        return (self.target,) if self.epilogue.signs is None else (self.target, self.epilogue.signs)


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class BinaryConv2d(Layer):
    """bits -> float or bits; weight (Cout, kh, kw, words_for(Cin / groups)).

    Floats become the channels of the target from ``to`` on, whose others are left as they are.  The
    residual is read from its channel ``residual_begin`` on; it may be where the floats are written.
    """

    operation = "bconv2d"

    window: Window
    pad_value: int
    to: int = 0
    residual_begin: int = 0

    @property
    def outputs(self) -> int:
        """How many channels it makes."""
        return len(self.weight)


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class BinaryDense(Layer):
    """bits -> float or bits; weight (Cout, words_for(Cin)); ``beta`` has the shape (1,)."""

    operation = "bdense"


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class Conv2d(Layer):
    """float, pixels or int8 -> float or bits; padded taps contribute 0.

    weight (Cout, kh, kw, Cin / groups) float32, int16 or int8, or (..., words) uint64 signs.
    ``table`` (256, Cin) makes floats of pixels first.  Without it the sums of pixels or int8 are
    exact integers, and ``offset`` (Cin,) is what is subtracted from every element inside the map:
    ``y = sum * alpha + (bias - alpha * (sum of weight * offset over the taps inside the map))``,
    the bracket in float64, rounded once; then the rest of the epilogue.
    """

    operation = "conv2d"

    window: Window
    table: Floats | None = None
    offset: Floats | None = None


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class Dense(Layer):
    """float, pixels or int8 -> float or bits; weight (Cout, Cin), types as of Conv2d."""

    operation = "dense"


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class Affine(Step):
    """``y = (x - mean) * scale + shift`` along the last axis, in float64 and rounded once."""

    operation = "affine"

    norm: Norm


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class Activate(Step):
    """float -> float: an activation on its own."""

    operation = "activate"

    activation: Activation


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class CopyChannels(Step):
    """Copies ``count`` float channels, from ``begin`` of the source to ``to`` of the target.

    The other channels of the target are left as they are: several steps may fill one buffer.
    """

    operation = "copy_channels"

    begin: int
    to: int
    count: int


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class MaxPool2d(Step):
    """Maximum over a window, of float or (as AND) of bits; of bits where ``minimum``, as OR."""

    operation = "max_pool2d"

    window: Window
    minimum: NDArray[np.bool_] | None = None


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class AvgPool2d(Step):
    """Mean over a window, divided by the whole window or by the taps inside the map."""

    operation = "avg_pool2d"

    window: Window
    count_include_pad: bool


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class Flatten(Step):
    """Map to vector, of float or bits."""

    operation = "flatten"

    channels_first: bool


def step_classes(base: type[Step] = Step) -> Iterator[type[Step]]:
    """Yield every kind of step that plans have."""
    for kind in base.__subclasses__():
        if kind.__subclasses__():
            yield from step_classes(kind)
        else:
            yield kind


@dataclasses.dataclass(frozen=True, eq=False)
class Plan:
    """A network as a flat list of steps over buffers.

    ``input`` and ``outputs`` are buffers that the caller provides; the others are the backend's.
    ``values`` says which buffer holds which value of the graph, in order of execution.
    """

    buffers: tuple[Buffer, ...]
    steps: tuple[Step, ...]
    input: int
    outputs: tuple[int, ...]
    output_names: tuple[str, ...]
    values: Mapping[str, int] = dataclasses.field(default_factory=dict)

    def lifetimes(self) -> dict[int, tuple[int, int]]:
        """Return, per inner buffer, the first and the last step that touch it."""
        outer = {self.input, *self.outputs}
        spans: dict[int, tuple[int, int]] = {}
        for index, step in enumerate(self.steps):
            for buffer in (*step.targets, *step.sources):
                if buffer not in outer:
                    spans[buffer] = (spans.get(buffer, (index, index))[0], index)
        return spans

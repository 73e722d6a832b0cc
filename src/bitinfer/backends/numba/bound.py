"""What a step becomes: a kernel, and what its record says."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np

from bitinfer import bits
from bitinfer.backends.base import Array
from bitinfer.backends.numba import records as r
from bitinfer.backends.numba.jit import Kernel
from bitinfer.backends.numba.vectors import LANES
from bitinfer.plan.steps import Activation, Buffer, Plan, Step

Shape = tuple[int, int, int]

_ACTIVATIONS = {
    "relu": r.RELU,
    "prelu": r.PRELU,
    "rprelu": r.RPRELU,
    "clip": r.CLIP,
    "sigmoid": r.SIGMOID,
}


@dataclasses.dataclass(eq=False)
class Bound:
    """One step.

    Attributes:
        kernel: what runs it.
        numbers: fields of the record that hold a number; those left out are 0.
        arrays: fields that hold the address of an array.
        buffers: fields that hold the place of a buffer, by the buffer's number.
        begins: bytes from the beginning of such a buffer to where the value lies in it.
        scratch_bytes: what the kernel needs to itself while it runs.
    """

    kernel: Kernel
    numbers: dict[str, int | float]
    arrays: dict[str, Array]
    buffers: dict[str, int]
    begins: dict[str, int] = dataclasses.field(default_factory=dict)
    scratch_bytes: int = 0

    def flag(self, flags: int) -> None:
        """Set flags of the record."""
        self.numbers["flags"] = int(self.numbers["flags"]) | flags

    def per_output(self, values: Mapping[str, Array | None], flags: Mapping[str, int]) -> None:
        """Set constants of outputs (C,), and the flags of those that there are."""
        for name, array in values.items():
            self.arrays[name] = padded(array, int(self.numbers["out_c"]))
            if array is not None and name in flags:
                self.flag(flags[name])

    def activation(self, a: Activation | None) -> None:
        """Set an activation."""
        names = ("shift_in", "slope", "shift_out")
        self.per_output({name: None if a is None else getattr(a, name) for name in names}, {})
        if a is not None:
            self.numbers["activation"] = _ACTIVATIONS[a.kind]
            self.numbers |= {"low": a.low, "high": a.high}

    def signs(self, buffer: int, threshold: Array | None, flip: Array | None) -> None:
        """Set where signs are written, and what of."""
        self.flag(r.SIGNS)
        self.buffers["signs"] = buffer
        self.per_output({"threshold": threshold}, {})
        self.arrays["flips"] = flips(flip, int(self.numbers["out_c"]))


def new_bound(kernel: Kernel, step: Step, plan: Plan) -> Bound:
    """Return a step with nothing said but its shapes and buffers."""
    source, target = plan.buffers[step.source], plan.buffers[step.target]
    in_h, in_w, in_c = map_shape(source)
    out_h, out_w, out_c = map_shape(target)
    numbers: dict[str, int | float] = {
        "flags": 0,
        "in_h": in_h,
        "in_w": in_w,
        "in_c": in_c,
        "in_words": bits.words_for(in_c),
        "pixels": out_h * out_w,
        "out_h": out_h,
        "out_w": out_w,
        "out_c": out_c,
        "out_words": bits.words_for(out_c),
        "target_pitch": out_c,
        "other_pitch": out_c,
    }
    return Bound(kernel, numbers, {}, {"source": step.source, "target": step.target})


def map_shape(buffer: Buffer) -> Shape:
    """Return (H, W, C); a vector is a map of one pixel."""
    height, width, channels = buffer.shape if len(buffer.shape) == 3 else (1, 1, *buffer.shape)
    return (height, width, channels)


def padded(values: Array | None, outputs: int) -> Array:
    """Return constants of outputs (..., outputs) with zeros behind, for any vector that begins."""
    if values is None:
        return np.zeros(outputs + LANES, np.float32)
    result = np.zeros((*values.shape[:-1], outputs + LANES), values.dtype)
    result[..., :outputs] = values
    return result


def flips(flags: Array | None, channels: int) -> Array:
    """Return packed flags (C,), 0 if None."""
    if flags is None:
        return np.zeros(bits.words_for(channels), np.uint64)
    return bits.pack(np.where(flags, np.int8(-1), np.int8(1))).words

"""Runs a plan step by step from Python, and ends layers in NumPy."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from bitinfer import bits, numerics
from bitinfer.backends.base import Check, FreeList, aligned_bytes, has_lost
from bitinfer.plan.cost import place_buffers
from bitinfer.plan.steps import Activation, Buffer, Epilogue, Layer, NodeStep, Plan, Step

Array = NDArray[Any]


class Extras(NamedTuple):
    """What a step reads and writes beside source and target: arrays of one sample, or None."""

    beta: Array | None = None
    residual: Array | None = None
    other: Array | None = None
    signs: Array | None = None


StepFunction = Callable[[Array, Extras, Array], None]
"""Runs one step of one sample: (source, extras, target), arrays as stored."""


class InterpretedExecutor:
    """Runs a plan step by step from Python, through one function per step."""

    def __init__(
        self, plan: Plan, bind_step: Callable[[Step, Plan], StepFunction], kernel: str
    ) -> None:
        self.plan = plan
        self.kernels = (kernel,) * len(plan.steps)
        self._functions = [bind_step(step, plan) for step in plan.steps]
        self._offsets, self.arena_bytes = place_buffers(plan)
        self._arenas = FreeList(self._new_arena)

    def run(self, x: Array, outputs: Sequence[Array], check: Check | None = None) -> bool:
        """See :meth:`Executor.run`."""
        self._run(x, outputs, None, check)
        return has_lost(x)

    def bind_call(self, x: Array, outputs: Sequence[Array]) -> Callable[[], None]:
        """See :meth:`Executor.bind_call`; here it is :meth:`run` itself."""
        return lambda: self._run(x, outputs, None, None)

    def profile(
        self, x: Array, outputs: Sequence[Array], rounds: int, check: Check | None = None
    ) -> NDArray[np.int64]:
        """See :meth:`Executor.profile`."""
        times = np.zeros((rounds, len(self.plan.steps)), np.int64)
        for row in times:
            self._run(x, outputs, row, check)
        return times

    def _run(
        self,
        x: Array,
        outputs: Sequence[Array],
        times: NDArray[np.int64] | None,
        check: Check | None,
    ) -> None:
        plan = self.plan
        # As in C: infinity and NaN are results, not warnings.
        with self._arenas.take() as inner, np.errstate(all="ignore"):
            values = dict(inner)
            for sample in range(len(x)):
                values[plan.input] = x[sample]
                for buffer, output in zip(plan.outputs, outputs, strict=True):
                    values[buffer] = output[sample, ...]
                for index, (step, function) in enumerate(
                    zip(plan.steps, self._functions, strict=True)
                ):
                    if check is not None:
                        check()
                    started = 0 if times is None else time.perf_counter_ns()
                    extras = Extras(*(None if b is None else values[b] for b in _extras(step)))
                    function(values[step.source], extras, values[step.target])
                    if times is not None:
                        times[index] += time.perf_counter_ns() - started

    def _new_arena(self) -> dict[int, Array]:
        arena = aligned_bytes(self.arena_bytes)
        return {
            number: _view(arena, offset, self.plan.buffers[number])
            for number, offset in self._offsets.items()
        }


def pack_below(x: Array, threshold: Array | None, flip: Array | None = None) -> Array:
    """Return the words of ``(x < threshold[c]) != flip[c]`` (0 if None) along the last axis."""
    negative = x.astype(np.float32) < (np.float32(0) if threshold is None else threshold)
    return pack_flags(negative, flip)


def pack_flags(negative: Array, flip: Array | None) -> Array:
    """Return the words of ``negative != flip`` along the last axis."""
    if flip is not None:
        negative = negative != flip
    return bits.pack(np.where(negative, np.int8(-1), np.int8(1))).words


def finish_sum(step: Layer, total: Array, extras: Extras, target: Array) -> None:
    """Write the output of a layer from its sums ``total`` (..., Cout), integers or floats."""
    e = step.epilogue
    if e.threshold is not None:
        target[...] = pack_flags(total < e.threshold, e.flip)
        return
    beta = extras.beta
    if beta is not None:
        beta = np.repeat(beta, total.shape[-1] // beta.shape[-1], axis=-1)
    finish_scaled(e, numerics.scale_sum(total, e.alpha, e.bias, beta, e.floor), extras, target)


def finish_scaled(e: Epilogue, y: Array, extras: Extras, target: Array) -> None:
    """Write the output of a layer from what alpha, beta and bias have made of its sums."""
    if extras.residual is not None:
        y = y + extras.residual
    if e.activation is not None:
        y = activate(y, e.activation)
    if e.sign_threshold is None:
        target[...] = y
    elif extras.signs is None:
        target[...] = pack_below(y, e.sign_threshold, e.flip)
    else:
        target[...] = y
        extras.signs[...] = pack_below(y, e.sign_threshold, e.flip)


def activate(y: Array, a: Activation) -> Array:
    """Return an activation of y."""
    return numerics.activate(
        y,
        a.kind,
        shift_in=a.shift_in,
        slope=a.slope,
        shift_out=a.shift_out,
        low=a.low,
        high=a.high,
    )


def _extras(step: Step) -> tuple[int | None, ...]:
    """Return the buffers of Extras, in its order."""
    e = step.epilogue if isinstance(step, Layer) else Epilogue()
    others = step.others if isinstance(step, NodeStep) else {}
    return (e.beta, e.residual, others.get("other"), e.signs)


def _view(arena: NDArray[np.uint8], offset: int, buffer: Buffer) -> Array:
    part = arena[offset : offset + buffer.size_bytes]
    return part.view(buffer.dtype).reshape(buffer.stored_shape)

"""What a backend offers, and what the Python backends share."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from bitinfer import bits, numerics
from bitinfer.plan.cost import place_buffers
from bitinfer.plan.memory import ALIGNMENT
from bitinfer.plan.steps import Activation, Buffer, Epilogue, Layer, Plan, Step

Array = NDArray[Any]


class Extras(NamedTuple):
    """What a step reads and writes beside source and target: arrays of one sample, or None."""

    beta: Array | None = None
    residual: Array | None = None
    other: Array | None = None
    signs: Array | None = None


StepFunction = Callable[[Array, Extras, Array], None]
"""Runs one step of one sample: (source, extras, target), arrays as stored."""

_T = TypeVar("_T")
DTYPES = {"float": np.float32, "bits": np.uint64, "pixels": np.uint8, "int8": np.int8}


class Executor(Protocol):
    """A plan bound to a backend."""

    @property
    def arena_bytes(self) -> int:
        """Bytes of scratch memory that one call of one thread takes."""

    @property
    def plan(self) -> Plan:
        """What is executed."""

    @property
    def kernels(self) -> tuple[str, ...]:
        """Which kernel runs each step."""

    def run(self, x: Array, outputs: Sequence[Array]) -> None:
        """Run ``len(x)`` samples.  Many threads may call this at once.

        ``x`` (N, ...) of the plan's input; ``outputs`` (N, ...) in the plan's order, overwritten;
        all C-contiguous.
        """

    def bind_call(self, x: Array, outputs: Sequence[Array]) -> Callable[[], None]:
        """Return ``run(x, outputs)`` as a call that checks nothing and allocates nothing.

        It reads ``x`` and writes ``outputs`` where they are now.  One thread at a time may call
        it; it cannot be interrupted.
        """

    def profile(self, x: Array, outputs: Sequence[Array], rounds: int) -> NDArray[np.int64]:
        """Run ``rounds`` times; return the nanoseconds (rounds, steps) of all samples together."""


class Backend(Protocol):
    """Executes plans.  ``name`` says which one; ``label`` names its kernels too."""

    @property
    def name(self) -> str:
        """``native``, ``numba`` or ``reference``."""

    @property
    def label(self) -> str:
        """Name and kernel, such as ``native:avx2``."""

    def kernels(self) -> dict[str, tuple[str, ...]]:
        """Return, for each operation, every kernel that may serve it, best first."""

    def bind(self, plan: Plan, threads: int = 1) -> Executor:
        """Choose kernels, re-lay weights, fix the arena.

        ``threads``, at least 1, may work on one call.  It is for ``native``; the others use one.
        """


class FreeList(Generic[_T]):
    """Things that one call needs to itself: reused, and made only when all are in use.

    Lists pop and append atomically.  A lock would be taken for ever in a child that was forked
    while another thread held it.
    """

    def __init__(self, make: Callable[[], _T]) -> None:
        self._make = make
        self._free: list[_T] = []

    def acquire(self) -> _T:
        """Lend one, until :meth:`release`."""
        try:
            return self._free.pop()
        except IndexError:
            return self._make()

    def release(self, thing: _T) -> None:
        """Take one back."""
        self._free.append(thing)

    @contextlib.contextmanager
    def take(self) -> Iterator[_T]:
        """Lend one for the length of the ``with`` block."""
        thing = self.acquire()
        try:
            yield thing
        finally:
            self.release(thing)


def aligned_bytes(size: int) -> NDArray[np.uint8]:
    """Return ``size`` uninitialised bytes that begin on a cache line."""
    raw = np.empty(size + ALIGNMENT, np.uint8)
    start = -raw.ctypes.data % ALIGNMENT
    return raw[start : start + size]


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

    def run(self, x: Array, outputs: Sequence[Array]) -> None:
        """See :meth:`Executor.run`."""
        self._run(x, outputs, None)

    def bind_call(self, x: Array, outputs: Sequence[Array]) -> Callable[[], None]:
        """See :meth:`Executor.bind_call`; here it is :meth:`run` itself."""
        return lambda: self._run(x, outputs, None)

    def profile(self, x: Array, outputs: Sequence[Array], rounds: int) -> NDArray[np.int64]:
        """See :meth:`Executor.profile`."""
        times = np.zeros((rounds, len(self.plan.steps)), np.int64)
        for row in times:
            self._run(x, outputs, row)
        return times

    def _run(self, x: Array, outputs: Sequence[Array], times: NDArray[np.int64] | None) -> None:
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
    return (e.beta, e.residual, getattr(step, "other", None), e.signs)


def _view(arena: NDArray[np.uint8], offset: int, buffer: Buffer) -> Array:
    size = math.prod(buffer.stored_shape) * np.dtype(DTYPES[buffer.kind]).itemsize
    return arena[offset : offset + size].view(DTYPES[buffer.kind]).reshape(buffer.stored_shape)

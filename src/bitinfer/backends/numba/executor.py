"""Runs a bound plan: one compiled call walks over the records of all steps."""

from __future__ import annotations

import ctypes
import time
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from bitinfer.backends.base import Array, Check, FreeList, aligned_bytes, has_lost, part_of
from bitinfer.backends.numba import memory as m
from bitinfer.backends.numba.binding import bind_step
from bitinfer.backends.numba.jit import addresses, compiled
from bitinfer.backends.numba.records import STEP
from bitinfer.plan import cost
from bitinfer.plan.memory import Request, place
from bitinfer.plan.steps import Plan

KERNEL = "numba"
"""The name of all kernels in reports."""

_CALL_FIELDS = (
    "records",  # address of the first
    "kernels",  # address of the list of the kernels' addresses
    "arena",
    "bases",  # address of the list of the caller's arrays
    "strides",  # address of the list of their bytes for a sample
    "externals",  # room for the list of where the arrays of one sample are
    "externals_count",
    "clock_gettime",
    "clock",
)
_CALL = np.dtype([(name, np.int64) for name in _CALL_FIELDS])
_RECORD_BYTES = STEP.itemsize

_call_at = m.struct_at(_CALL)


@compiled
def execute(
    call_at: int, first: int, samples: int, from_step: int, to_step: int, times_at: int
) -> None:
    """Run some steps of samples from ``first`` on.

    ``to_step`` is the one behind the last.  Each step's nanoseconds are added at ``times_at``, if
    that is not 0.
    """
    call, times = _call_at(call_at), m.indices(times_at)
    bases, strides = m.indices(call.bases), m.indices(call.strides)
    externals, kernels = m.indices(call.externals), m.indices(call.kernels)
    for sample in range(first, first + samples):
        for k in range(call.externals_count):
            externals[k] = bases[k] + sample * strides[k]
        started = 0
        if times_at != 0:
            started = m.nanoseconds(call.clock_gettime, call.clock)
        for i in range(from_step, to_step):
            m.invoke(kernels[i], call.records + i * _RECORD_BYTES, call.arena, call.externals)
            if times_at != 0:
                now = m.nanoseconds(call.clock_gettime, call.clock)
                times[i] += now - started
                started = now


class _Workspace:
    """What one call needs to itself: an arena, and the places of the caller's arrays."""

    def __init__(self, call: Array, arena_bytes: int) -> None:
        self.arena = aligned_bytes(arena_bytes)
        count = int(call["externals_count"][0])
        self.bases, self._externals = np.zeros((2, count), np.int64)
        self._call = call.copy()
        self._call["arena"] = _address(self.arena)
        self._call["bases"] = _address(self.bases)
        self._call["externals"] = _address(self._externals)
        self.address = _address(self._call)

    def point(self, x: Array, outputs: Sequence[Array]) -> None:
        """Write down where the arrays of a call are; its caller keeps them alive."""
        for number, array in enumerate((x, *outputs)):
            if number > 0 and not array.flags.writeable:
                raise ValueError("an output cannot be written to")
            self.bases[number] = _address(array)


class NumbaExecutor:
    """See :class:`bitinfer.backends.base.Executor`."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        bound = [bind_step(step, plan) for step in plan.steps]
        self.kernels = (KERNEL,) * len(bound)
        places, scratch, self.arena_bytes = _place(plan, [b.scratch_bytes for b in bound])
        records = np.zeros(len(bound), STEP)
        self._kept = [records, *(b.arrays for b in bound)]  # what addresses are of
        for record, step, scratch_at in zip(records, bound, scratch, strict=True):
            record["scratch"] = scratch_at
            for name, number in step.numbers.items():
                record[name] = number
            for name, array in step.arrays.items():
                record[name] = _address(array)
            for name, buffer in step.buffers.items():
                record[name] = part_of(places[buffer], step.begins.get(name, 0))
        outer = [plan.buffers[b] for b in (plan.input, *plan.outputs)]
        strides = np.array([b.size_bytes for b in outer], np.int64)
        kernels = np.array(addresses([step.kernel for step in bound]), np.int64)
        clock_gettime = ctypes.cast(ctypes.CDLL(None).clock_gettime, ctypes.c_void_p).value
        self._kept += [strides, kernels]
        call = np.zeros(1, _CALL)
        call["externals_count"] = len(outer)
        call["records"], call["kernels"] = _address(records), _address(kernels)
        call["strides"] = _address(strides)
        call["clock_gettime"], call["clock"] = clock_gettime, time.CLOCK_MONOTONIC
        self._call = call
        self._workspaces = FreeList(self._new_workspace)
        works = [cost.work(step, plan) for step in plan.steps]
        # Between the steps of a network that takes long, Python looks for signals.
        count, is_long = len(bound), sum(works) > cost.WORK_AT_ONCE
        self._parts = [(i, i + 1) for i in range(count)] if is_long else [(0, count)]
        # Compiled, or loaded, before the first call waits for it.
        execute(_address(call), 0, 0, 0, 0, 0)

    def run(self, x: Array, outputs: Sequence[Array], check: Check | None = None) -> bool:
        """See :meth:`bitinfer.backends.base.Executor.run`."""
        with self._workspaces.take() as workspace:
            workspace.point(x, outputs)
            self._run(workspace, len(x), check, 0)
        return has_lost(x)

    def _run(self, workspace: _Workspace, samples: int, check: Check | None, times_at: int) -> None:
        """Run sample after sample, which share one arena, and call ``check`` between parts."""
        for sample in range(samples):
            for from_step, to_step in self._parts:
                if check is not None:
                    check()
                execute(workspace.address, sample, 1, from_step, to_step, times_at)

    def bind_call(self, x: Array, outputs: Sequence[Array]) -> Callable[[], None]:
        """See :meth:`bitinfer.backends.base.Executor.bind_call`."""
        workspace = self._new_workspace()
        workspace.point(x, outputs)
        address, samples, steps = workspace.address, len(x), len(self.kernels)

        def call() -> None:
            execute(address, 0, samples, 0, steps, 0)

        call.kept = (self, workspace, x, tuple(outputs))  # type: ignore[attr-defined]  # addresses are of these
        return call

    def profile(
        self, x: Array, outputs: Sequence[Array], rounds: int, check: Check | None = None
    ) -> NDArray[np.int64]:
        """See :meth:`bitinfer.backends.base.Executor.profile`."""
        times = np.zeros((rounds, len(self.plan.steps)), np.int64)
        with self._workspaces.take() as workspace:
            workspace.point(x, outputs)
            for row in times:
                self._run(workspace, len(x), check, _address(row))
        return times

    def _new_workspace(self) -> _Workspace:
        return _Workspace(self._call, self.arena_bytes)


def _place(plan: Plan, scratch_bytes: list[int]) -> tuple[dict[int, int], list[int], int]:
    """Return the place of every buffer, the offset of every scratch, and the bytes of an arena."""
    spans = plan.lifetimes()
    requests = [Request(plan.buffers[b].size_bytes, *span) for b, span in spans.items()]
    requests += [Request(size, index, index) for index, size in enumerate(scratch_bytes)]
    offsets, total = place(requests)
    places = dict(zip(spans, offsets, strict=False))
    places |= {b: -1 - number for number, b in enumerate((plan.input, *plan.outputs))}
    return places, offsets[len(spans) :], total


def _address(array: Array) -> int:
    return int(array.__array_interface__["data"][0])

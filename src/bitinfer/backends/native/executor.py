"""Binds a plan to the C kernels: steps as structs, weights re-laid, one arena."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bitinfer.backends.base import Check, FreeList, aligned_bytes, part_of
from bitinfer.backends.native import kernel_name, load_library
from bitinfer.backends.native.placing import place_plan
from bitinfer.backends.native.records import Array, Record, records
from bitinfer.backends.native.structs import pointer_to, write
from bitinfer.plan import cost
from bitinfer.plan.bands import find_bands
from bitinfer.plan.steps import Plan

_native = load_library()
_ffi, _lib = _native.ffi, _native.lib

FindKernel = Callable[[str, str, Any], int]
"""Returns the kernel of an operation for the step of a name, described by a ``bi_step *``."""

LONGEST_CALL_S = 0.05
"""A batch is split so that one C call takes about this long: Ctrl-C waits for its end."""

LONGEST_SAMPLE_S = 0.4
"""Samples that take one thread longer run on their own, in parts: Ctrl-C is answered between."""

LONGEST_MEASURED_WORK = 1 << 32
"""Networks of more work are not run to find out which of their steps are worth sharing out."""

SHORTEST_PART_NS = 2000
"""Of a step that threads share: handing a part to another thread costs about a microsecond."""


class _Workspace:
    """What one call needs to itself: an arena for each thread, and the places of its arrays."""

    def __init__(self, size: int, externals: int) -> None:
        self.arena = aligned_bytes(size)
        self.pointer = _ffi.from_buffer("unsigned char[]", self.arena)
        self.externals = _ffi.new("void *[]", externals)


class NativeExecutor:
    """See :class:`bitinfer.backends.base.Executor`."""

    def __init__(self, plan: Plan, find_kernel: FindKernel, threads: int = 1) -> None:
        self.plan = plan
        self._find_kernel = find_kernel
        self._kept: list[Any] = []  # what the structs point to must outlive them
        self._steps = _ffi.new("bi_step[]", len(plan.steps))
        bound = records(plan)
        for struct, record in zip(self._steps, bound, strict=True):
            self._write(struct, record)
        self._is_long = self._cut_into_ranges()
        """Whether a sample may take so long that it is done in parts."""
        # Threads share out the rows of one step, whose map is whole then.
        self._bands = find_bands(plan) if threads == 1 else {}
        for index, band in self._bands.items():
            self._steps[index].band = band.rows
        scratch_bytes = [_lib.bi_scratch_bytes(_ffi.addressof(struct)) for struct in self._steps]
        self._struct = _ffi.new("bi_plan *")
        self.arena_bytes = self._place(bound, scratch_bytes)
        self._outer = [plan.buffers[b] for b in (plan.input, *plan.outputs)]
        self._strides = _ffi.new("int64_t[]", [b.size_bytes for b in self._outer])
        self._struct.steps, self._struct.n_steps = self._steps, len(plan.steps)
        self._struct.arena_bytes, self._struct.stride_bytes = self.arena_bytes, self._strides
        self._struct.is_float = plan.buffers[plan.input].dtype == np.float32
        self._call_samples: int
        """How many samples a call may take, as far as that is known."""
        self._use_threads(1, _ffi.NULL)
        if threads > 1:
            self._share_out(threads)
            pool = _lib.bi_pool_new(threads)
            if pool == _ffi.NULL:
                raise MemoryError
            self._use_threads(threads, _ffi.gc(pool, _lib.bi_pool_free))

    @property
    def kernels(self) -> tuple[str, ...]:
        """See :attr:`bitinfer.backends.base.Executor.kernels`."""
        return tuple(kernel_name(step.kernel) for step in self._steps)

    def run(self, x: Array, outputs: Sequence[Array], check: Check | None = None) -> bool:
        """See :meth:`bitinfer.backends.base.Executor.run`."""
        workspace = self._workspaces.acquire()
        try:
            externals = workspace.externals
            _point(externals, x, outputs)
            if len(x) == 1:
                return self._run_one(workspace, _ffi.NULL, check)
            return self._run_batch(workspace, len(x), check)
        finally:
            self._workspaces.release(workspace)

    def _run_one(self, workspace: _Workspace, times: Any, check: Check | None) -> bool:
        """Run one sample as :meth:`run` does; Python looks for signals between parts."""
        struct, arenas, externals = self._struct, workspace.pointer, workspace.externals
        if not self._is_long:
            return bool(_lib.bi_execute(struct, arenas, externals, 1, self._pool, times))
        progress, limit_ns = _ffi.new("bi_progress *"), int(LONGEST_CALL_S * 1e9)
        while not _lib.bi_execute_part(
            struct, arenas, externals, self._pool, times, progress, limit_ns
        ):
            if check is not None:
                check()
        return bool(progress.lost)

    def _run_batch(self, workspace: _Workspace, samples: int, check: Check | None) -> bool:
        externals, strides = workspace.externals, list(self._strides)
        done, wanted, has_lost = 0, self._call_samples, False
        while done < samples:
            if check is not None:
                check()
            count = min(wanted, samples - done)
            started = time.perf_counter()
            if count == 1:
                has_lost |= self._run_one(workspace, _ffi.NULL, check)
            else:
                has_lost |= bool(
                    _lib.bi_execute(
                        self._struct, workspace.pointer, externals, count, self._pool, _ffi.NULL
                    )
                )
            took = time.perf_counter() - started
            for i, stride in enumerate(strides):
                externals[i] = _ffi.cast("char *", externals[i]) + count * stride
            done += count
            if count == wanted:
                # A multiple of the threads, so that all are busy until the end.
                fitting = int(count * LONGEST_CALL_S / max(took, 1e-9)) // self._threads
                is_short = took / count * self._threads < LONGEST_SAMPLE_S
                wanted = min(2 * wanted, max(1, fitting) * self._threads) if is_short else 1
        self._call_samples = wanted  # the next batch goes on where this one has come to
        return has_lost

    def bind_call(self, x: Array, outputs: Sequence[Array]) -> Callable[[], None]:
        """See :meth:`bitinfer.backends.base.Executor.bind_call`."""
        workspace = self._new_workspace()
        _point(workspace.externals, x, outputs)
        execute, kept = _lib.bi_execute, (self, workspace, x, tuple(outputs))
        struct, arenas, externals = self._struct, workspace.pointer, workspace.externals
        samples, pool, untimed = len(x), self._pool, _ffi.NULL

        def call() -> None:
            execute(struct, arenas, externals, samples, pool, untimed)

        call.kept = kept  # type: ignore[attr-defined]  # the C side sees pointers alone
        return call

    def profile(
        self, x: Array, outputs: Sequence[Array], rounds: int, check: Check | None = None
    ) -> NDArray[np.int64]:
        """See :meth:`bitinfer.backends.base.Executor.profile`."""
        times = np.zeros((rounds, len(self._steps)), np.int64)
        with self._workspaces.take() as workspace:
            _point(workspace.externals, x, outputs)
            for row in times:
                if check is not None:
                    check()
                nanoseconds = _ffi.from_buffer("int64_t[]", row)
                if len(x) == 1:
                    self._run_one(workspace, nanoseconds, check)
                else:
                    _lib.bi_execute(
                        self._struct,
                        workspace.pointer,
                        workspace.externals,
                        len(x),
                        self._pool,
                        nanoseconds,
                    )
        return times

    def _use_threads(self, threads: int, pool: Any) -> None:
        self._threads, self._pool = threads, pool
        self._call_samples = 1 if self._is_long else threads
        # No method of self: in a cycle of references, threads would outlive their session.
        self._new_workspace = functools.partial(
            _Workspace, self.arena_bytes * threads, len(self._outer)
        )
        self._workspaces = FreeList(self._new_workspace)

    def _cut_into_ranges(self) -> bool:
        """Set after how many rows of each step to look at the clock; return whether it matters."""
        at_once = cost.WORK_AT_ONCE
        costs = [cost.work(step, self.plan) for step in self.plan.steps]
        for struct, work in zip(self._steps, costs, strict=True):
            if work > at_once:
                struct.rows_at_once = max(1, struct.rows * at_once // work)
        return sum(costs) > at_once

    def _share_out(self, threads: int) -> None:
        """Set into how many parts each step is cut, by the time it takes one thread here.

        A part for each thread, where it is worth while: kernels lose time at every cut.  Where a
        measurement would take seconds, the estimate serves, an eighth of a nanosecond an addition.
        """
        costs = np.array([cost.work(step, self.plan) for step in self.plan.steps])
        if costs.sum() > LONGEST_MEASURED_WORK:
            times = costs // 8
        else:
            x, *outputs = (np.zeros((1, *b.stored_shape), b.dtype) for b in self._outer)
            times = self.profile(x, outputs, 3).min(axis=0)
        for struct, took in zip(self._steps, times, strict=True):
            parts = min(struct.rows, threads, took // SHORTEST_PART_NS)
            struct.parts = min(int(parts), _lib.BI_PARTS_LIMIT)

    def _write(self, struct: Any, record: Record) -> None:
        """Write down a record; the kernel is known before its weight is re-laid."""
        self._kept.append(write(struct, record))
        here = _ffi.addressof(struct)
        struct.kernel = self._find_kernel(record.operation, record.name, here)
        if record.weight is not None:
            struct.weight = self._weight(struct, record.weight)

    def _weight(self, struct: Any, weight: Array) -> Any:
        weight = np.ascontiguousarray(weight)
        canonical = pointer_to("void *", weight)
        size = _lib.bi_weight_bytes(_ffi.addressof(struct))
        if size == 0:
            self._kept.append(weight)
            return canonical
        packed = aligned_bytes(size)
        self._kept.append(packed)
        _lib.bi_pack_weight(_ffi.addressof(struct), canonical, pointer_to("void *", packed))
        return pointer_to("void *", packed)

    def _place(self, bound: Sequence[Record], scratch_bytes: Sequence[int]) -> int:
        """Give every buffer and scratch a place; return the size of the arena."""
        placement = place_plan(self.plan, scratch_bytes, _lib.BI_CHUNK_LIMIT, self._bands)
        for struct, record, scratch in zip(self._steps, bound, placement.scratch, strict=True):
            struct.scratch = scratch
            for name, buffer in record.buffers.items():
                setattr(
                    struct, name, part_of(placement.buffers[buffer], record.begins.get(name, 0))
                )
        for name in ("shared_bytes", "sample_bytes", "chunk", "batch_from"):
            setattr(self._struct, name, getattr(placement, name))
        return placement.arena_bytes


def _point(externals: Any, x: Array, outputs: Sequence[Array]) -> None:
    """Write down where the arrays of a call are; its caller keeps them alive."""
    externals[0] = _ffi.from_buffer(x)
    for i, output in enumerate(outputs, start=1):
        if not output.flags.writeable:
            raise ValueError("an output cannot be written to")
        externals[i] = _ffi.from_buffer(output)

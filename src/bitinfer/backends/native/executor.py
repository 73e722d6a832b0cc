"""Binds a plan to the C kernels: steps as structs, weights re-laid, one arena."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bitinfer.backends.base import DTYPES, Array, FreeList, aligned_bytes
from bitinfer.backends.native import kernel_name, load_library
from bitinfer.bits import pack, words_for
from bitinfer.plan import steps
from bitinfer.plan.memory import Request, place
from bitinfer.plan.steps import Buffer, Plan, Step

_native = load_library()
_ffi, _lib = _native.ffi, _native.lib

_WEIGHT_TYPES = {
    np.float32: _lib.BI_WEIGHT_F32,
    np.int16: _lib.BI_WEIGHT_I16,
    np.int8: _lib.BI_WEIGHT_I8,
    np.uint64: _lib.BI_WEIGHT_BITS,
}

LONGEST_CALL_S = 0.05
"""A batch is split so that one C call takes about this long: Ctrl-C waits for its end."""

MAX_BATCH_VALUE_BYTES = 1 << 17
"""Of a value that every sample of a chunk keeps in the arena at the same time."""

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

    def __init__(
        self, plan: Plan, find_kernel: Callable[[str, str, Any], int], threads: int = 1
    ) -> None:
        self.plan = plan
        self._kept: list[Any] = []  # what the structs point to must outlive them
        self._steps = _ffi.new("bi_step[]", len(plan.steps))
        scratch = []
        for index, step in enumerate(plan.steps):
            struct = self._steps[index]
            _describe(struct, step, plan)
            self._set_constants(struct, step)
            struct.kernel = find_kernel(step.operation, step.name, _ffi.addressof(struct))
            if isinstance(step, steps.Layer):
                struct.weight = self._weight(struct, step.weight)
            scratch.append(_lib.bi_scratch_bytes(_ffi.addressof(struct)))
        self._struct = _ffi.new("bi_plan *")
        self.arena_bytes = self._place(scratch)
        self._outer = [plan.buffers[b] for b in (plan.input, *plan.outputs)]
        self._strides = _ffi.new("int64_t[]", [b.size_bytes for b in self._outer])
        self._struct.steps, self._struct.n_steps = self._steps, len(plan.steps)
        self._struct.arena_bytes, self._struct.stride_bytes = self.arena_bytes, self._strides
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

    def run(self, x: Array, outputs: Sequence[Array]) -> None:
        """See :meth:`bitinfer.backends.base.Executor.run`."""
        workspace = self._workspaces.acquire()
        try:
            externals = workspace.externals
            _point(externals, x, outputs)
            if len(x) == 1:
                _lib.bi_execute(
                    self._struct, workspace.pointer, externals, 1, self._pool, _ffi.NULL
                )
            else:
                self._run_batch(workspace, len(x))
        finally:
            self._workspaces.release(workspace)

    def _run_batch(self, workspace: _Workspace, samples: int) -> None:
        externals, strides = workspace.externals, list(self._strides)
        done, wanted = 0, self._call_samples
        while done < samples:
            count = min(wanted, samples - done)
            started = time.perf_counter()
            _lib.bi_execute(
                self._struct, workspace.pointer, externals, count, self._pool, _ffi.NULL
            )
            took = time.perf_counter() - started
            for i, stride in enumerate(strides):
                externals[i] = _ffi.cast("char *", externals[i]) + count * stride
            done += count
            if count == wanted:
                # A multiple of the threads, so that all are busy until the end.
                fitting = int(count * LONGEST_CALL_S / max(took, 1e-9)) // self._threads
                wanted = min(2 * wanted, max(1, fitting) * self._threads)
        self._call_samples = wanted  # the next batch goes on where this one has come to

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

    def profile(self, x: Array, outputs: Sequence[Array], rounds: int) -> NDArray[np.int64]:
        """See :meth:`bitinfer.backends.base.Executor.profile`."""
        times = np.zeros((rounds, len(self._steps)), np.int64)
        with self._workspaces.take() as workspace:
            _point(workspace.externals, x, outputs)
            for row in times:
                _lib.bi_execute(
                    self._struct,
                    workspace.pointer,
                    workspace.externals,
                    len(x),
                    self._pool,
                    _ffi.from_buffer("int64_t[]", row),
                )
        return times

    def _use_threads(self, threads: int, pool: Any) -> None:
        self._threads, self._pool = threads, pool
        self._call_samples = threads
        # No method of self: in a cycle of references, threads would outlive their session.
        self._new_workspace = functools.partial(
            _Workspace, self.arena_bytes * threads, len(self._outer)
        )
        self._workspaces = FreeList(self._new_workspace)

    def _share_out(self, threads: int) -> None:
        """Set into how many parts each step is cut, by the time it takes one thread here.

        A part for each thread, where it is worth while: kernels lose time at every cut.
        """
        x, *outputs = (np.zeros((1, *b.stored_shape), DTYPES[b.kind]) for b in self._outer)
        for struct, took in zip(self._steps, self.profile(x, outputs, 3).min(axis=0), strict=True):
            parts = min(struct.rows, threads, took // SHORTEST_PART_NS)
            struct.parts = min(int(parts), _lib.BI_PARTS_LIMIT)

    def _set_constants(self, struct: Any, step: Step) -> None:
        if isinstance(step, steps.Layer):
            self._set_epilogue(struct, step.epilogue)
        match step:
            case steps.Conv2d():
                struct.table = self._keep("float *", step.table)
                struct.offset = self._keep("float *", step.offset)
            case steps.PackSigns():
                struct.bias = self._keep("float *", step.threshold)
                struct.weight = self._keep("void *", _packed(step.flip))
            case steps.MaxPool2d():
                struct.weight = self._keep("void *", _packed(step.minimum))
            case steps.Normalize():
                struct.weight = self._keep("void *", step.table)
            case steps.Affine():
                struct.alpha = self._keep("float *", step.scale)
                struct.bias = self._keep("float *", step.shift)
            case steps.Activate():
                self._set_activation(struct, step.activation)
        if isinstance(step, steps.Layer):
            struct.weight_type = _WEIGHT_TYPES[step.weight.dtype.type]

    def _set_epilogue(self, struct: Any, e: steps.Epilogue) -> None:
        struct.alpha = self._keep("float *", e.alpha)
        struct.bias = self._keep("float *", e.bias)
        struct.floor = self._keep("float *", e.floor)
        struct.threshold = self._keep("int32_t *", e.threshold)
        struct.sign_threshold = self._keep("float *", e.sign_threshold)
        struct.has_signs = e.signs is not None
        struct.has_beta = e.beta is not None
        struct.has_residual = e.residual is not None
        thresholds = e.sign_threshold if e.threshold is None else e.threshold
        if thresholds is not None:
            flip = np.zeros(len(thresholds), np.bool_) if e.flip is None else e.flip
            struct.flip = self._keep("uint8_t *", flip.astype(np.uint8))
        if e.activation is not None:
            self._set_activation(struct, e.activation)

    def _set_activation(self, struct: Any, a: steps.Activation) -> None:
        struct.activation = {
            "relu": _lib.BI_ACTIVATION_RELU,
            "prelu": _lib.BI_ACTIVATION_PRELU,
            "rprelu": _lib.BI_ACTIVATION_RPRELU,
            "clip": _lib.BI_ACTIVATION_CLIP,
            "sigmoid": _lib.BI_ACTIVATION_SIGMOID,
        }[a.kind]
        struct.shift_in = self._keep("float *", a.shift_in)
        struct.slope = self._keep("float *", a.slope)
        struct.shift_out = self._keep("float *", a.shift_out)
        struct.low, struct.high = a.low, a.high

    def _weight(self, struct: Any, weight: Array) -> Any:
        canonical = self._pointer("void *", np.ascontiguousarray(weight))
        size = _lib.bi_weight_bytes(_ffi.addressof(struct))
        if size == 0:
            return self._keep("void *", weight)
        packed = aligned_bytes(size)
        pointer = self._keep("void *", packed)
        _lib.bi_pack_weight(_ffi.addressof(struct), canonical, pointer)
        return pointer

    def _keep(self, ctype: str, array: Array | None) -> Any:
        if array is None:
            return _ffi.NULL
        array = np.ascontiguousarray(array)
        pointer = self._pointer(ctype, array)
        self._kept.append((array, pointer))
        return pointer

    @staticmethod
    def _pointer(ctype: str, array: Array) -> Any:
        return _ffi.cast(ctype, _ffi.from_buffer(array.reshape(-1)))

    def _place(self, scratch: Sequence[int]) -> int:
        """Give every buffer and scratch a place; return the size of the arena."""
        plan, spans = self.plan, self.plan.lifetimes()
        first = _first_of_batch(plan)
        per_sample = [b for b in spans if spans[b][1] >= first]
        inner = [b for b in spans if spans[b][1] < first]
        requests = [Request(plan.buffers[b].size_bytes, *spans[b]) for b in inner]
        requests += [Request(size, index, index) for index, size in enumerate(scratch)]
        offsets, shared = place(requests)
        own_requests = [Request(plan.buffers[b].size_bytes, *spans[b]) for b in per_sample]
        own_offsets, own = place(own_requests)
        places = dict(zip(inner, offsets, strict=False))
        places |= {b: shared + at for b, at in zip(per_sample, own_offsets, strict=True)}
        chunk = _lib.BI_CHUNK_LIMIT if first < len(plan.steps) else 1
        self._struct.shared_bytes, self._struct.sample_bytes = shared, own
        self._struct.chunk, self._struct.batch_from = chunk, first
        for number, buffer in enumerate((plan.input, *plan.outputs)):
            places[buffer] = -1 - number
        for index, step in enumerate(plan.steps):
            struct = self._steps[index]
            struct.source, struct.target = places[step.source], places[step.target]
            struct.scratch = offsets[len(inner) + index]
            if isinstance(step, steps.Layer):
                e = step.epilogue
                struct.beta = 0 if e.beta is None else places[e.beta]
                struct.residual = 0 if e.residual is None else places[e.residual]
                struct.signs = 0 if e.signs is None else places[e.signs]
            elif isinstance(step, steps.Add | steps.Multiply):
                struct.has_residual, struct.residual = 1, places[step.other]
        return shared + chunk * own


def _first_of_batch(plan: Plan) -> int:
    """Return the first of the last steps, which a chunk of samples goes through together.

    They are those behind the last map: their values are small, and if there is a dense layer among
    them, its weights are large, so that reading them once for all samples pays.
    """
    first = len(plan.steps)
    for index in reversed(range(len(plan.steps))):
        step = plan.steps[index]
        buffers = [plan.buffers[b] for b in (*step.sources, *step.targets)]
        if any(len(b.shape) > 1 or b.size_bytes > MAX_BATCH_VALUE_BYTES for b in buffers):
            break
        if isinstance(step, steps.Dense | steps.BinaryDense):
            first = index
    return first


def _point(externals: Any, x: Array, outputs: Sequence[Array]) -> None:
    """Write down where the arrays of a call are; its caller keeps them alive."""
    externals[0] = _ffi.from_buffer(x)
    for i, output in enumerate(outputs, start=1):
        if not output.flags.writeable:
            raise ValueError("an output cannot be written to")
        externals[i] = _ffi.from_buffer(output)


def _describe(struct: Any, step: Step, plan: Plan) -> None:
    """Fill in shapes, window, flags and rows."""
    source, target = plan.buffers[step.source], plan.buffers[step.target]
    struct.in_h, struct.in_w, struct.in_c = _map_shape(source)
    struct.out_h, struct.out_w, struct.out_c = _map_shape(target)
    struct.kernel_h = struct.kernel_w = struct.groups = 1
    struct.stride_h = struct.stride_w = struct.dilation_h = struct.dilation_w = 1
    window = getattr(step, "window", None)
    if window is not None:
        struct.kernel_h, struct.kernel_w = window.kernel
        struct.stride_h, struct.stride_w = window.stride
        struct.dilation_h, struct.dilation_w = window.dilation
        struct.pad_top, _, struct.pad_left, _ = window.padding
        struct.groups = window.groups
    kinds = {"bits": _lib.BI_FLAG_BITS, "pixels": _lib.BI_FLAG_U8, "int8": _lib.BI_FLAG_I8}
    struct.flags = kinds.get(source.kind, 0)
    struct.rows = struct.out_h
    match step:
        case steps.BinaryConv2d():
            struct.pad_value = step.pad_value
        case steps.BinaryDense():
            struct.rows = words_for(struct.out_c)
        case steps.Dense():
            struct.rows = 1
        case steps.CopyChannels():
            struct.channel_from, struct.channel_to = step.begin, step.to
            struct.channel_count = step.count
        case steps.ShuffleChannels():
            struct.groups = step.groups
        case steps.Pad2d():
            struct.pad_top, _, struct.pad_left, _ = step.padding
            struct.low = step.value
        case steps.Quantize():
            struct.low = step.scale
        case steps.Add() | steps.Multiply():
            if len(plan.buffers[step.other].shape) < len(source.shape):
                struct.flags |= _lib.BI_FLAG_VECTOR
        case steps.GlobalPool2d():
            struct.flags |= _lib.BI_FLAG_MAXIMUM if step.is_max else 0
        case steps.AvgPool2d():
            struct.flags |= _lib.BI_FLAG_COUNT_PADDING if step.count_include_pad else 0
        case steps.Flatten():
            struct.rows = 1
            struct.flags |= _lib.BI_FLAG_CHANNELS_FIRST if step.channels_first else 0


def _map_shape(buffer: Buffer) -> tuple[int, int, int]:
    """Return (H, W, C); a vector is a map of one pixel."""
    if len(buffer.shape) == 1:
        return (1, 1, buffer.shape[0])
    height, width, channels = buffer.shape
    return (height, width, channels)


def _packed(flags: Array | None) -> Array | None:
    return None if flags is None else pack(np.where(flags, np.int8(-1), np.int8(1))).words

"""Binds a plan to the C kernels: steps as structs, weights re-laid, one arena."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from bitinfer.backends.base import Array, FreeList, aligned_bytes
from bitinfer.backends.native import load_library
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


class NativeExecutor:
    """See :class:`bitinfer.backends.base.Executor`."""

    def __init__(self, plan: Plan, find_kernel: Callable[[str], int]) -> None:
        self._plan = plan
        self._kept: list[Any] = []  # what the structs point to must outlive them
        self._steps = _ffi.new("bi_step[]", len(plan.steps))
        scratch = []
        for index, step in enumerate(plan.steps):
            struct = self._steps[index]
            struct.kernel = find_kernel(step.operation)
            _describe(struct, step, plan)
            self._set_constants(struct, step)
            scratch.append(_lib.bi_scratch_bytes(_ffi.addressof(struct)))
        self.arena_bytes = self._place(scratch)
        self._arenas = FreeList(lambda: aligned_bytes(self.arena_bytes))
        outer = [plan.buffers[b] for b in (plan.input, *plan.outputs)]
        self._strides = _ffi.new("int64_t[]", [b.size_bytes for b in outer])

    def run(self, x: Array, outputs: Sequence[Array]) -> None:
        """See :meth:`bitinfer.backends.base.Executor.run`."""
        arrays = [x, *outputs]
        pointers = [
            _ffi.from_buffer("unsigned char[]", array, require_writable=i > 0)
            for i, array in enumerate(arrays)
        ]
        done, chunk, samples = 0, 1, len(x)
        with self._arenas.take() as arena:
            arena_pointer = _ffi.from_buffer("unsigned char[]", arena)
            while done < samples:
                chunk = min(chunk, samples - done)
                externals = _ffi.new(
                    "void *[]",
                    [p + done * s for p, s in zip(pointers, self._strides, strict=True)],
                )
                started = time.perf_counter()
                _lib.bi_execute(
                    self._steps, len(self._steps), arena_pointer, externals, self._strides, chunk
                )
                took = time.perf_counter() - started
                done += chunk
                chunk = max(1, min(2 * chunk, int(chunk * LONGEST_CALL_S / max(took, 1e-9))))

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
            struct.weight = self._weight(struct, step.weight)

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
        plan, spans = self._plan, self._plan.lifetimes()
        inner = list(spans)
        requests = [Request(plan.buffers[b].size_bytes, *spans[b]) for b in inner]
        requests += [Request(size, index, index) for index, size in enumerate(scratch)]
        offsets, total = place(requests)
        places = dict(zip(inner, offsets, strict=False))
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
        return total


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

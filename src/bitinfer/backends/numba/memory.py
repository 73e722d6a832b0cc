"""How compiled kernels reach memory: the record of a step, pointers, loads and stores of vectors.

An *address* is an int64.  A *place* is where the record says that a buffer lies: an offset in the
arena of the call, or -1 - number of one of the caller's arrays.
"""

# Arguments of intrinsics are numba's types while typing and LLVM values while generating code.
from __future__ import annotations

from typing import Any

import numba
import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from bitinfer.backends.numba.jit import part
from bitinfer.backends.numba.records import STEP
from bitinfer.backends.numba.vectors import (
    BYTE,
    FLOATS,
    INDEX,
    LANES,
    WORD,
    call,
    first_lanes,
)


def struct_at(layout: np.dtype[Any]) -> Any:
    """Return what makes a struct of the address of one."""
    kind = numba.from_dtype(layout)

    @intrinsic
    def at(typing: Any, address: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            return builder.inttoptr(args[0], context.get_value_type(kind))

        return kind(types.intp), generate

    return at


step_at = struct_at(STEP)


def _pointer_to(element: Any) -> Any:
    kind = types.CPointer(element)

    @intrinsic
    def pointer(typing: Any, address: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            return builder.inttoptr(args[0], context.get_value_type(kind))

        return kind(types.intp), generate

    return pointer


floats = _pointer_to(types.float32)
doubles = _pointer_to(types.float64)
indices = _pointer_to(types.int64)
integers = _pointer_to(types.int32)
pieces = _pointer_to(types.uint32)
words = _pointer_to(types.uint64)
octets = _pointer_to(types.uint8)
signed_octets = _pointer_to(types.int8)


@part
def locate(place: int, arena: int, externals: int) -> Any:
    """Return the address of a place."""
    if place >= 0:
        return arena + place
    return indices(externals)[-1 - place]


@intrinsic
def invoke(typing: Any, function: Any, a: Any, b: Any, c: Any) -> Any:
    """Call the C function at an address: a kernel, with three addresses."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        kind = ir.FunctionType(ir.VoidType(), [INDEX] * 3)
        builder.call(builder.inttoptr(args[0], kind.as_pointer()), args[1:])
        return context.get_dummy_value()

    return types.void(*[types.intp] * 4), generate


@intrinsic
def nanoseconds(typing: Any, clock_gettime: Any, clock: Any) -> Any:
    """Return what POSIX's function at the address ``clock_gettime`` says of a clock."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        time = cgutils.alloca_once(builder, ir.ArrayType(INDEX, 2))
        kind = ir.FunctionType(WORD, [WORD, time.type])
        function = builder.inttoptr(args[0], kind.as_pointer())
        builder.call(function, [builder.trunc(args[1], WORD), time])
        parts = builder.load(time)
        seconds = builder.mul(builder.extract_value(parts, 0), ir.Constant(INDEX, 10**9))
        return builder.add(seconds, builder.extract_value(parts, 1))

    return types.int64(types.intp, types.intp), generate


@intrinsic
def copy(typing: Any, target: Any, source: Any, size: Any) -> Any:
    """Copy bytes from one address to another."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        target, source = (builder.inttoptr(a, BYTE.as_pointer()) for a in args[:2])
        cgutils.raw_memcpy(builder, target, source, args[2], 1)
        return context.get_dummy_value()

    return types.void(*[types.intp] * 3), generate


@intrinsic
def clear(typing: Any, target: Any, size: Any) -> Any:
    """Make bytes from an address on 0."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        cgutils.memset(builder, builder.inttoptr(args[0], BYTE.as_pointer()), args[1], 0)
        return context.get_dummy_value()

    return types.void(*[types.intp] * 2), generate


def load_vector(builder: Any, pointer_type: Any, pointer: Any, index: Any, kind: Any) -> Any:
    """Return the vector that begins at an element, aligned as that is."""
    address = builder.gep(pointer, [index])
    value = builder.load(builder.bitcast(address, kind.as_pointer()))
    value.align = pointer_type.dtype.bitwidth // 8
    return value


def store_vector(builder: Any, pointer_type: Any, pointer: Any, index: Any, value: Any) -> None:
    """Write a vector from an element on."""
    address = builder.bitcast(builder.gep(pointer, [index]), value.type.as_pointer())
    builder.store(value, address).align = pointer_type.dtype.bitwidth // 8


def _masked_load(builder: Any, pointer: Any, count: Any, kind: Any, name: str, align: int) -> Any:
    address = builder.bitcast(pointer, kind.as_pointer())
    mask, zeros = first_lanes(builder, count), ir.Constant(kind, None)
    args = [address, ir.Constant(WORD, align), mask, zeros]
    return call(builder, f"llvm.masked.load.v{LANES}{name}.p0", kind, args)


@intrinsic
def load(typing: Any, pointer: Any, i: Any) -> Any:
    """Return the LANES float32 from pointer[i] on."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        pointer, i = args
        return load_vector(builder, signature.args[0], pointer, i, FLOATS.value)

    return FLOATS(pointer, types.intp), generate


@intrinsic
def load_some(typing: Any, pointer: Any, i: Any, count: Any) -> Any:
    """Return the first ``count`` float32 from pointer[i] on, and 0 in the other lanes."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        pointer, i, count = args
        return _masked_load(builder, builder.gep(pointer, [i]), count, FLOATS.value, "f32", 4)

    return FLOATS(pointer, types.intp, types.intp), generate


@intrinsic
def load_octets(typing: Any, pointer: Any, i: Any, count: Any) -> Any:
    """Return the first ``count`` int8 or uint8 from pointer[i] on as Floats."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        pointer, i, count = args
        kind = ir.VectorType(BYTE, LANES)
        values = _masked_load(builder, builder.gep(pointer, [i]), count, kind, "i8", 1)
        convert = builder.sitofp if signature.args[0].dtype.signed else builder.uitofp
        return convert(values, FLOATS.value)

    return FLOATS(pointer, types.intp, types.intp), generate


@intrinsic
def store(typing: Any, pointer: Any, i: Any, value: Any) -> Any:
    """Write Floats from pointer[i] on."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        pointer, i, value = args
        store_vector(builder, signature.args[0], pointer, i, value)
        return context.get_dummy_value()

    return types.void(pointer, types.intp, FLOATS), generate


@intrinsic
def store_some(typing: Any, pointer: Any, i: Any, count: Any, value: Any) -> Any:
    """Write the first ``count`` lanes of Floats from pointer[i] on."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        pointer, i, count, value = args
        address = builder.bitcast(builder.gep(pointer, [i]), value.type.as_pointer())
        args = [value, address, ir.Constant(WORD, 4), first_lanes(builder, count)]
        call(builder, f"llvm.masked.store.v{LANES}f32.p0", ir.VoidType(), args)
        return context.get_dummy_value()

    return types.void(pointer, types.intp, types.intp, FLOATS), generate

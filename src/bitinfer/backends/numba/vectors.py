"""Vectors for the compiled loops: LLVM's own, so that one text serves every CPU.

A loop that holds these in local variables keeps them in registers.  LLVM chooses the instructions:
a population count of bytes is VPOPCNTB where there is AVX-512 BITALG, a table in VPSHUFB with AVX2,
CNT on Arm.  Nothing here is left to the auto-vectoriser.

``Integers`` and ``Floats`` have one lane for each of ``LANES`` output channels.  ``Counts`` has
four bytes for each: mismatches, until they are widened.
"""

# Arguments of intrinsics are numba's types while typing and LLVM values while generating code.
from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic, models, register_model

LANES = 16
WORD_LANES = 64
"""Signs of one packed word."""

STEPS_PER_COUNT = 24
"""Steps between two widenings: a byte holds 31, but LLVM unrolls loops by 4 or 8."""

_BYTE, _SHORT, _WORD, _FLOAT = ir.IntType(8), ir.IntType(16), ir.IntType(32), ir.FloatType()
_COUNTS = ir.VectorType(_BYTE, 4 * LANES)
_SHORTS = ir.VectorType(_SHORT, 2 * LANES)
_INTEGERS = ir.VectorType(_WORD, LANES)
_FLOATS = ir.VectorType(_FLOAT, LANES)

_Generator = Callable[[Any, Any, Any, Any], Any]


class Vector(types.Type):
    """The numba type of a vector; values of it exist inside compiled loops only."""

    def __init__(self, name: str, value: Any) -> None:
        super().__init__(name=f"bitinfer.{name}")
        self.value = value


@register_model(Vector)
class _VectorModel(models.PrimitiveModel):
    def __init__(self, manager: Any, vector: Vector) -> None:
        super().__init__(manager, vector, vector.value)


COUNTS = Vector("Counts", _COUNTS)
INTEGERS = Vector("Integers", _INTEGERS)
FLOATS = Vector("Floats", _FLOATS)


def _address(context: Any, builder: Any, array_type: Any, array: Any, index: Any) -> Any:
    """Return the address of ``array[index]`` of a contiguous array seen as flat; no check."""
    data = context.make_array(array_type)(context, builder, array).data
    return builder.gep(data, [index])


def _load(context: Any, builder: Any, array_type: Any, array: Any, index: Any, kind: Any) -> Any:
    address = _address(context, builder, array_type, array, index)
    value = builder.load(builder.bitcast(address, kind.as_pointer()))
    value.align = array_type.dtype.bitwidth // 8  # of an element, not of the vector
    return value


def _splat(builder: Any, value: Any, kind: Any) -> Any:
    undefined = ir.Constant(kind, ir.Undefined)
    first = builder.insert_element(undefined, value, ir.Constant(_WORD, 0))
    lanes = ir.VectorType(_WORD, kind.count)
    return builder.shuffle_vector(first, undefined, ir.Constant(lanes, None))


def _call(builder: Any, name: str, result: Any, args: list[Any]) -> Any:
    kind = ir.FunctionType(result, [a.type for a in args])
    return builder.call(cgutils.get_or_insert_function(builder.module, kind, name), args)


def _constant(kind: Any, value: int) -> Any:
    return ir.Constant(kind, [value] * kind.count)


def _add_mismatches(builder: Any, counts: Any, difference: Any) -> Any:
    octets = builder.bitcast(difference, _COUNTS)
    ones = _call(builder, f"llvm.ctpop.v{_COUNTS.count}i8", _COUNTS, [octets])
    return builder.add(counts, ones)


def _zero(kind: Vector) -> Any:
    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return ir.Constant(kind.value, None)

    return kind(), generate


@intrinsic
def no_counts(typing: Any) -> Any:
    """Return Counts of 0."""
    return _zero(COUNTS)


@intrinsic
def no_integers(typing: Any) -> Any:
    """Return Integers of 0."""
    return _zero(INTEGERS)


@intrinsic
def no_floats(typing: Any) -> Any:
    """Return Floats of 0."""
    return _zero(FLOATS)


@intrinsic
def count_shared(typing: Any, counts: Any, source: Any, i: Any, weight: Any, j: Any) -> Any:
    """Add the bits in which ``source[i]``, 32 signs for all lanes, differs from weight[j...]."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        counts, source, i, weight, j = args
        signs = builder.load(_address(context, builder, signature.args[1], source, i))
        weights = _load(context, builder, signature.args[3], weight, j, _INTEGERS)
        difference = builder.xor(_splat(builder, signs, _INTEGERS), weights)
        return _add_mismatches(builder, counts, difference)

    return COUNTS(COUNTS, source, types.intp, weight, types.intp), generate


@intrinsic
def count_own(typing: Any, counts: Any, source: Any, i: Any, weight: Any, j: Any) -> Any:
    """Add the bits in which source[i...], 32 signs for each lane, differ from weight[j...]."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        counts, source, i, weight, j = args
        signs = _load(context, builder, signature.args[1], source, i, _INTEGERS)
        weights = _load(context, builder, signature.args[3], weight, j, _INTEGERS)
        return _add_mismatches(builder, counts, builder.xor(signs, weights))

    return COUNTS(COUNTS, source, types.intp, weight, types.intp), generate


@intrinsic
def widen(typing: Any, total: Any, counts: Any) -> Any:
    """Add the four counts of every lane to the lane's integer."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        total, octets = args
        pairs = builder.bitcast(octets, _SHORTS)
        low = builder.and_(pairs, _constant(_SHORTS, 0xFF))
        pairs = builder.add(low, builder.lshr(pairs, _constant(_SHORTS, 8)))
        lanes = builder.bitcast(pairs, _INTEGERS)
        low = builder.and_(lanes, _constant(_INTEGERS, 0xFFFF))
        return builder.add(total, builder.add(low, builder.lshr(lanes, _constant(_INTEGERS, 16))))

    return INTEGERS(INTEGERS, COUNTS), generate


@intrinsic
def store_dot(typing: Any, dot: Any, i: Any, signs: Any, mismatches: Any) -> Any:
    """Write ``signs - 2 * mismatches`` to dot[i...]."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        dot, i, signs, mismatches = args
        signs = _splat(builder, builder.trunc(signs, _WORD), _INTEGERS)
        value = builder.sub(signs, builder.add(mismatches, mismatches))
        address = _address(context, builder, signature.args[0], dot, i)
        builder.store(value, builder.bitcast(address, _INTEGERS.as_pointer())).align = 4
        return context.get_dummy_value()

    return types.void(dot, types.intp, types.int64, INTEGERS), generate


@intrinsic
def add_scaled(typing: Any, dot: Any, i: Any, factor: Any, addend: Any, j: Any) -> Any:
    """Add ``factor * addend[j...]`` to dot[i...], both int32."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        dot, i, factor, addend, j = args
        old = _load(context, builder, signature.args[0], dot, i, _INTEGERS)
        addends = _load(context, builder, signature.args[3], addend, j, _INTEGERS)
        factors = _splat(builder, builder.trunc(factor, _WORD), _INTEGERS)
        value = builder.add(old, builder.mul(factors, addends))
        address = _address(context, builder, signature.args[0], dot, i)
        builder.store(value, builder.bitcast(address, _INTEGERS.as_pointer())).align = 4
        return context.get_dummy_value()

    return types.void(dot, types.intp, types.int64, addend, types.intp), generate


@intrinsic
def load_integers(typing: Any, array: Any, i: Any) -> Any:
    """Return the int32 array[i...] as Floats."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        array, i = args
        integers = _load(context, builder, signature.args[0], array, i, _INTEGERS)
        return builder.sitofp(integers, _FLOATS)

    return FLOATS(array, types.intp), generate


@intrinsic
def load(typing: Any, array: Any, i: Any) -> Any:
    """Return the float32 array[i...]."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        array, i = args
        return _load(context, builder, signature.args[0], array, i, _FLOATS)

    return FLOATS(array, types.intp), generate


@intrinsic
def store(typing: Any, array: Any, i: Any, floats: Any) -> Any:
    """Write floats to array[i...]."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        array, i, floats = args
        address = _address(context, builder, signature.args[0], array, i)
        builder.store(floats, builder.bitcast(address, _FLOATS.as_pointer())).align = 4
        return context.get_dummy_value()

    return types.void(array, types.intp, FLOATS), generate


@intrinsic
def load_some(typing: Any, array: Any, i: Any, count: Any) -> Any:
    """Return the first ``count`` float32 of array[i...], and 0 in the other lanes."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        array, i, count = args
        address = _address(context, builder, signature.args[0], array, i)
        buffer = cgutils.alloca_once(builder, _FLOATS)
        builder.store(ir.Constant(_FLOATS, None), buffer)
        first = builder.bitcast(buffer, _FLOAT.as_pointer())
        cgutils.raw_memcpy(builder, first, address, count, 4)
        return builder.load(buffer)

    return FLOATS(array, types.intp, types.intp), generate


@intrinsic
def store_some(typing: Any, array: Any, i: Any, count: Any, floats: Any) -> Any:
    """Write the first ``count`` floats to array[i...]."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        array, i, count, floats = args
        address = _address(context, builder, signature.args[0], array, i)
        buffer = cgutils.alloca_once(builder, _FLOATS)
        builder.store(floats, buffer)
        first = builder.bitcast(buffer, _FLOAT.as_pointer())
        cgutils.raw_memcpy(builder, address, first, count, 4)
        return context.get_dummy_value()

    return types.void(array, types.intp, types.intp, FLOATS), generate


@intrinsic
def fill(typing: Any, value: Any) -> Any:
    """Return Floats that all are ``value``."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return _splat(builder, args[0], _FLOATS)

    return FLOATS(types.float32), generate


@intrinsic
def splat(typing: Any, array: Any, i: Any) -> Any:
    """Return Floats that all are array[i]."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        array, i = args
        value = builder.load(_address(context, builder, signature.args[0], array, i))
        return _splat(builder, value, _FLOATS)

    return FLOATS(array, types.intp), generate


@intrinsic
def multiply_add(typing: Any, total: Any, source: Any, i: Any, weight: Any, j: Any) -> Any:
    """Return ``total + source[i] * weight[j...]``, rounded once where the CPU does that fast."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        total, source, i, weight, j = args
        value = builder.load(_address(context, builder, signature.args[1], source, i))
        weights = _load(context, builder, signature.args[3], weight, j, _FLOATS)
        operands = [_splat(builder, value, _FLOATS), weights, total]
        return _call(builder, f"llvm.fmuladd.v{LANES}f32", _FLOATS, operands)

    return FLOATS(FLOATS, source, types.intp, weight, types.intp), generate


def _arithmetic(operation: Callable[[Any, Any, Any], Any]) -> Any:
    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return operation(builder, *args)

    return FLOATS(FLOATS, FLOATS), generate


@intrinsic
def times(typing: Any, a: Any, b: Any) -> Any:
    """Return ``a * b``."""
    return _arithmetic(lambda builder, a, b: builder.fmul(a, b))


@intrinsic
def plus(typing: Any, a: Any, b: Any) -> Any:
    """Return ``a + b``."""
    return _arithmetic(lambda builder, a, b: builder.fadd(a, b))


@intrinsic
def over(typing: Any, a: Any, b: Any) -> Any:
    """Return ``a / b``."""
    return _arithmetic(lambda builder, a, b: builder.fdiv(a, b))


@intrinsic
def nan_or(typing: Any, a: Any, b: Any) -> Any:
    """Return ``a if a is NaN else b``."""
    return _arithmetic(
        lambda builder, a, b: builder.select(builder.fcmp_unordered("uno", a, a), a, b)
    )


@intrinsic
def larger(typing: Any, a: Any, b: Any) -> Any:
    """Return ``a if a > b else b``: b where a is NaN."""
    return _arithmetic(lambda builder, a, b: builder.select(builder.fcmp_ordered(">", a, b), a, b))


@intrinsic
def smaller(typing: Any, a: Any, b: Any) -> Any:
    """Return ``a if a < b else b``: b where a is NaN."""
    return _arithmetic(lambda builder, a, b: builder.select(builder.fcmp_ordered("<", a, b), a, b))


@intrinsic
def magnitude(typing: Any, a: Any) -> Any:
    """Return ``|a|``."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return _call(builder, f"llvm.fabs.v{LANES}f32", _FLOATS, args)

    return FLOATS(FLOATS), generate


@intrinsic
def total(typing: Any, a: Any) -> Any:
    """Return the sum of all lanes: halves are added until one lane is left."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        (value,) = args
        undefined = ir.Constant(_FLOATS, ir.Undefined)
        width = LANES // 2
        while width > 0:
            lanes = ir.Constant(_INTEGERS, [(i + width) % LANES for i in range(LANES)])
            value = builder.fadd(value, builder.shuffle_vector(value, undefined, lanes))
            width //= 2
        return builder.extract_element(value, ir.Constant(_WORD, 0))

    return types.float32(FLOATS), generate


@intrinsic
def scale_negative(typing: Any, a: Any, slope: Any) -> Any:
    """Return ``a * slope if a < 0 else a``."""

    def operation(builder: Any, a: Any, slope: Any) -> Any:
        negative = builder.fcmp_ordered("<", a, ir.Constant(_FLOATS, None))
        return builder.select(negative, builder.fmul(a, slope), a)

    return _arithmetic(operation)


def _word(builder: Any, lanes: Any) -> Any:
    """Return the word whose bit i is lane i of 64."""
    return builder.bitcast(lanes, ir.IntType(WORD_LANES))


@intrinsic
def smaller_word(typing: Any, array: Any, i: Any, threshold: Any, j: Any) -> Any:
    """Return the word whose bits say where 64 numbers array[i...] are below threshold[j...].

    The numbers are float32, int8 or uint8, the thresholds float32.
    """
    kind = ir.VectorType(_FLOAT, WORD_LANES)

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        array, i, threshold, j = args
        element = signature.args[0].dtype
        if element == types.float32:
            values = _load(context, builder, signature.args[0], array, i, kind)
        else:
            octets = ir.VectorType(_BYTE, WORD_LANES)
            values = _load(context, builder, signature.args[0], array, i, octets)
            convert = builder.sitofp if element.signed else builder.uitofp
            values = convert(values, kind)
        limits = _load(context, builder, signature.args[2], threshold, j, kind)
        return _word(builder, builder.fcmp_ordered("<", values, limits))

    return types.uint64(array, types.intp, threshold, types.intp), generate


@intrinsic
def below_word(typing: Any, array: Any, i: Any, threshold: Any, j: Any) -> Any:
    """Return the word whose bits say where the 64 int32 array[i...] are below threshold[j...]."""
    kind = ir.VectorType(_WORD, WORD_LANES)

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        array, i, threshold, j = args
        values = _load(context, builder, signature.args[0], array, i, kind)
        limits = _load(context, builder, signature.args[2], threshold, j, kind)
        return _word(builder, builder.icmp_signed("<", values, limits))

    return types.uint64(array, types.intp, threshold, types.intp), generate


@intrinsic
def store_word(typing: Any, array: Any, i: Any, flips: Any, j: Any, word: Any) -> Any:
    """Write ``word ^ flips[j]`` to array[i]."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        array, i, flips, j, word = args
        flip = builder.load(_address(context, builder, signature.args[2], flips, j))
        address = _address(context, builder, signature.args[0], array, i)
        builder.store(builder.xor(word, flip), address)
        return context.get_dummy_value()

    return types.void(array, types.intp, flips, types.intp, types.uint64), generate

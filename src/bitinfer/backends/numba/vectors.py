"""Vectors for the compiled kernels: LLVM's own, so that one text serves every CPU.

A loop that holds these in local variables keeps them in registers, and LLVM chooses the
instructions.  Nothing here is left to the auto-vectoriser.  ``Floats`` and ``Doubles`` have one
lane for each of ``LANES`` output channels.
"""

# Arguments of intrinsics are numba's types while typing and LLVM values while generating code.
from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.registry import cpu_target
from numba.extending import intrinsic, models, register_model

LANES = 16

_, _, CPU_FEATURES = cpu_target.target_context.codegen().magic_tuple()
"""Of the CPU that is compiled for, such as ``+avx2``; empty where only its name is known."""

BYTE, SHORT, WORD, FLOAT = ir.IntType(8), ir.IntType(16), ir.IntType(32), ir.FloatType()
INDEX, DOUBLE = ir.IntType(64), ir.DoubleType()

Generator = Callable[[Any, Any, Any, Any], Any]


class Vector(types.Type):
    """The numba type of a vector; values of it exist inside compiled kernels only."""

    def __init__(self, name: str, element: Any) -> None:
        super().__init__(name=f"bitinfer.{name}")
        self.value = ir.VectorType(element, LANES)


@register_model(Vector)
class _VectorModel(models.PrimitiveModel):
    def __init__(self, manager: Any, vector: Vector) -> None:
        super().__init__(manager, vector, vector.value)


FLOATS, DOUBLES = Vector("Floats", FLOAT), Vector("Doubles", DOUBLE)


def splat(builder: Any, value: Any, lanes: int = LANES) -> Any:
    """Return a vector that holds ``value`` in every lane."""
    kind = ir.VectorType(value.type, lanes)
    undefined = ir.Constant(kind, ir.Undefined)
    first = builder.insert_element(undefined, value, ir.Constant(WORD, 0))
    return builder.shuffle_vector(first, undefined, ir.Constant(ir.VectorType(WORD, lanes), None))


def constant(kind: Any, value: int) -> Any:
    """Return a constant vector."""
    return ir.Constant(kind, [value] * kind.count)


def call(builder: Any, name: str, result: Any, args: list[Any]) -> Any:
    """Call one of LLVM's own functions."""
    kind = ir.FunctionType(result, [a.type for a in args])
    return builder.call(cgutils.get_or_insert_function(builder.module, kind, name), args)


def first_lanes(builder: Any, count: Any) -> Any:
    """Return the mask of the first ``count`` (int64) lanes."""
    lanes = ir.Constant(ir.VectorType(WORD, LANES), list(range(LANES)))
    return builder.icmp_signed("<", lanes, splat(builder, builder.trunc(count, WORD)))


def _operation(operation: Callable[..., Any], *operands: Vector, result: Vector = FLOATS) -> Any:
    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return operation(builder, *args)

    return result(*operands), generate


@intrinsic
def no_floats(typing: Any) -> Any:
    """Return Floats of 0."""
    return _operation(lambda _: ir.Constant(FLOATS.value, None))


@intrinsic
def no_doubles(typing: Any) -> Any:
    """Return Doubles of 0."""
    return _operation(lambda _: ir.Constant(DOUBLES.value, None), result=DOUBLES)


@intrinsic
def fill(typing: Any, value: Any) -> Any:
    """Return Floats that all are ``value``, a float32."""
    return _operation(splat, types.float32)


@intrinsic
def times(typing: Any, a: Any, b: Any) -> Any:
    """Return ``a * b``."""
    return _operation(lambda builder, a, b: builder.fmul(a, b), FLOATS, FLOATS)


@intrinsic
def plus(typing: Any, a: Any, b: Any) -> Any:
    """Return ``a + b``."""
    return _operation(lambda builder, a, b: builder.fadd(a, b), FLOATS, FLOATS)


@intrinsic
def over(typing: Any, a: Any, b: Any) -> Any:
    """Return ``a / b``."""
    return _operation(lambda builder, a, b: builder.fdiv(a, b), FLOATS, FLOATS)


@intrinsic
def nan_or(typing: Any, a: Any, b: Any) -> Any:
    """Return ``a if a is NaN else b``."""
    return _operation(
        lambda builder, a, b: builder.select(builder.fcmp_unordered("uno", a, a), a, b),
        FLOATS,
        FLOATS,
    )


@intrinsic
def larger(typing: Any, a: Any, b: Any) -> Any:
    """Return ``a if a > b else b``: b where a is NaN."""
    return _operation(
        lambda builder, a, b: builder.select(builder.fcmp_ordered(">", a, b), a, b), FLOATS, FLOATS
    )


@intrinsic
def smaller(typing: Any, a: Any, b: Any) -> Any:
    """Return ``a if a < b else b``: b where a is NaN."""
    return _operation(
        lambda builder, a, b: builder.select(builder.fcmp_ordered("<", a, b), a, b), FLOATS, FLOATS
    )


@intrinsic
def magnitude(typing: Any, a: Any) -> Any:
    """Return ``|a|``."""
    return _operation(
        lambda builder, a: call(builder, f"llvm.fabs.v{LANES}f32", a.type, [a]), FLOATS
    )


@intrinsic
def scale_negative(typing: Any, a: Any, slope: Any) -> Any:
    """Return ``a * slope if a < 0 else a``."""

    def operation(builder: Any, a: Any, slope: Any) -> Any:
        negative = builder.fcmp_ordered("<", a, ir.Constant(a.type, None))
        return builder.select(negative, builder.fmul(a, slope), a)

    return _operation(operation, FLOATS, FLOATS)


@intrinsic
def total(typing: Any, a: Any) -> Any:
    """Return the sum of all lanes: halves are added until one lane is left."""

    def operation(builder: Any, value: Any) -> Any:
        undefined = ir.Constant(value.type, ir.Undefined)
        width = LANES // 2
        while width > 0:
            lanes = [(i + width) % LANES for i in range(LANES)]
            order = ir.Constant(ir.VectorType(WORD, LANES), lanes)
            value = builder.fadd(value, builder.shuffle_vector(value, undefined, order))
            width //= 2
        return builder.extract_element(value, ir.Constant(WORD, 0))

    return _operation(operation, FLOATS, result=types.float32)


@intrinsic
def plus_wide(typing: Any, total: Any, a: Any) -> Any:
    """Return ``total + a``, Doubles and Floats."""

    def operation(builder: Any, total: Any, a: Any) -> Any:
        return builder.fadd(total, builder.fpext(a, total.type))

    return _operation(operation, DOUBLES, FLOATS, result=DOUBLES)


@intrinsic
def over_wide(typing: Any, total: Any, divisor: Any) -> Any:
    """Return ``total / divisor`` of Doubles and a float64, rounded to Floats."""

    def operation(builder: Any, total: Any, divisor: Any) -> Any:
        return builder.fptrunc(builder.fdiv(total, splat(builder, divisor)), FLOATS.value)

    return _operation(operation, DOUBLES, types.float64)


@intrinsic
def lane(typing: Any, a: Any, i: Any) -> Any:
    """Return lane i."""

    def operation(builder: Any, a: Any, i: Any) -> Any:
        return builder.extract_element(a, builder.trunc(i, WORD))

    return _operation(operation, FLOATS, types.intp, result=types.float32)


@intrinsic
def with_lane(typing: Any, a: Any, i: Any, value: Any) -> Any:
    """Return a with ``value`` in lane i."""

    def operation(builder: Any, a: Any, i: Any, value: Any) -> Any:
        return builder.insert_element(a, value, builder.trunc(i, WORD))

    return _operation(operation, FLOATS, types.intp, types.float32)


@intrinsic
def below(typing: Any, a: Any, b: Any, count: Any) -> Any:
    """Return the bits that say in which of the first ``count`` lanes ``a < b``, as uint64."""

    def operation(builder: Any, a: Any, b: Any, count: Any) -> Any:
        flags = builder.and_(builder.fcmp_ordered("<", a, b), first_lanes(builder, count))
        return builder.zext(builder.bitcast(flags, ir.IntType(LANES)), INDEX)

    return _operation(operation, FLOATS, FLOATS, types.intp, result=types.uint64)

"""The innermost loops of layers: the sums of some pixels and LANES outputs, in registers.

Each of these is generated for a number of pixels, which share the loads of a weight.  Positions
are those of layout.py: ``positions`` has two int64 for each pixel, its position in the plane and
the row of its constants.

    element of a step = plane[position of the pixel + offsets[step]]      (shared by all lanes)
    weights of a step = weight[weight_at + step * LANES ...]              (one for each lane)
"""

# Arguments of intrinsics are numba's types while typing and LLVM values while generating code.
from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from bitinfer.backends.numba.memory import load_vector, store_vector
from bitinfer.backends.numba.vectors import (
    BYTE,
    CPU_FEATURES,
    FLOATS,
    INDEX,
    LANES,
    SHORT,
    WORD,
    call,
    constant,
    splat,
)

_HAS_WIDE_VECTORS = "+avx512f" in CPU_FEATURES
_COUNTS_INTEGERS = "+avx512vpopcntdq" in CPU_FEATURES
"""Whether one instruction counts the bits of every 32-bit lane; bytes are counted elsewhere."""

COUNT_PIXELS = 4 if _COUNTS_INTEGERS else 2
"""Pixels whose mismatches are counted together: as many as keep both ports of vectors busy."""

SUM_PIXELS = 8 if _HAS_WIDE_VECTORS else 6
"""Pixels that are summed together: as many accumulators as hide the latency of a multiply-add,
and as fit the registers."""

DENSE_BLOCKS = 4
"""Blocks of LANES outputs that a single pixel is summed for together."""

_STEPS_PER_COUNT = 24
"""Steps between two widenings: a byte holds 31, but LLVM unrolls loops by 4 or 8."""

_INTEGERS = ir.VectorType(WORD, LANES)
_OCTETS = ir.VectorType(BYTE, 4 * LANES)
_SHORTS = ir.VectorType(SHORT, 2 * LANES)


def _number(value: int) -> Any:
    return ir.Constant(INDEX, value)


@contextmanager
def _steps(builder: Any, begin: Any, end: Any, step: int = 1) -> Iterator[Any]:
    with cgutils.for_range_slice(builder, begin, end, _number(step), INDEX) as (index, _):
        yield index


class _Variables:
    """Vectors that a loop changes; LLVM keeps them in registers."""

    def __init__(self, builder: Any, kind: Any, count: int) -> None:
        self._builder = builder
        self._zero = ir.Constant(kind, None)
        self._places = [cgutils.alloca_once(builder, kind) for _ in range(count)]
        self.clear()

    def clear(self) -> None:
        for place in self._places:
            self._builder.store(self._zero, place)

    def change(self, operation: Callable[[int, Any], Any]) -> None:
        for number, place in enumerate(self._places):
            self._builder.store(operation(number, self._builder.load(place)), place)

    def __iter__(self) -> Iterator[Any]:
        return map(self._builder.load, self._places)


def _pixels(builder: Any, positions: Any, pixel: Any, count: int, column: int) -> list[Any]:
    """Return a column of the positions of pixels: 0 the position, 1 the row of constants."""
    first = builder.mul(pixel, _number(2))
    return [
        builder.load(builder.gep(positions, [builder.add(first, _number(2 * k + column))]))
        for k in range(count)
    ]


def _sums_at(builder: Any, i: Any, pixel: int, block: int = 0) -> Any:
    return builder.mul(builder.add(i, _number(pixel + block)), _number(LANES))


def _widened(builder: Any, octets: Any) -> Any:
    """Return the sums of the four bytes of every 32-bit lane."""
    pairs = builder.bitcast(octets, _SHORTS)
    low = builder.and_(pairs, constant(_SHORTS, 0xFF))
    lanes = builder.bitcast(builder.add(low, builder.lshr(pairs, constant(_SHORTS, 8))), _INTEGERS)
    low = builder.and_(lanes, constant(_INTEGERS, 0xFFFF))
    return builder.add(low, builder.lshr(lanes, constant(_INTEGERS, 16)))


def _counting(pixels: int, *, is_own: bool) -> Any:
    """Return what writes the integer sums of binary layers; ``is_own``: as of :func:`_summing`."""

    @intrinsic
    def count(
        typing: Any,
        plane: Any,
        positions: Any,
        pixel: Any,
        shift: Any,
        offsets: Any,
        begin: Any,
        end: Any,
        weight: Any,
        weight_at: Any,
        bases: Any,
        output: Any,
        sums: Any,
        i: Any,
    ) -> Any:
        """Write ``base - 2 * mismatches`` to sums[(i + 0, 1, ...) * LANES ...].

        plane, weight uint32: 32 signs each; ``shift`` is added to all positions;
        bases         int32, from the row of the pixel's constants + output on
        begin, end    the steps to go
        """

        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            (plane, positions, pixel, shift, offsets, begin, end) = args[:7]
            (weight, weight_at, bases, output, sums, i) = args[7:]
            plane_type, weight_type, bases_type, sums_type = (
                signature.args[k] for k in (0, 7, 9, 11)
            )
            at = [builder.add(p, shift) for p in _pixels(builder, positions, pixel, pixels, 0)]
            totals = _Variables(builder, _INTEGERS, pixels)
            ones = _Variables(builder, _OCTETS, pixels)

            def difference(number: int, step: Any, weights: Any) -> Any:
                index = builder.add(at[number], builder.load(builder.gep(offsets, [step])))
                if is_own:
                    signs = load_vector(builder, plane_type, plane, index, _INTEGERS)
                else:
                    signs = splat(builder, builder.load(builder.gep(plane, [index])))
                return builder.xor(signs, weights)

            def weights_of(step: Any) -> Any:
                index = builder.add(weight_at, builder.mul(step, _number(LANES)))
                return load_vector(builder, weight_type, weight, index, _INTEGERS)

            if _COUNTS_INTEGERS:
                with _steps(builder, begin, end) as step:
                    weights = weights_of(step)

                    def counted(number: int, total: Any) -> Any:
                        bits = difference(number, step, weights)
                        bits = call(builder, f"llvm.ctpop.v{LANES}i32", _INTEGERS, [bits])
                        return builder.add(total, bits)

                    totals.change(counted)
            else:
                with _steps(builder, begin, end, _STEPS_PER_COUNT) as first:
                    last = builder.add(first, _number(_STEPS_PER_COUNT))
                    last = builder.select(builder.icmp_signed("<", last, end), last, end)
                    ones.clear()
                    with _steps(builder, first, last) as step:
                        weights = weights_of(step)

                        def counted_in_bytes(number: int, total: Any) -> Any:
                            bits = difference(number, step, weights)
                            octets = builder.bitcast(bits, _OCTETS)
                            name = f"llvm.ctpop.v{_OCTETS.count}i8"
                            return builder.add(total, call(builder, name, _OCTETS, [octets]))

                        ones.change(counted_in_bytes)
                    widened = [_widened(builder, octets) for octets in ones]
                    totals.change(lambda number, total: builder.add(total, widened[number]))
            rows = _pixels(builder, positions, pixel, pixels, 1)
            for number, (row, total) in enumerate(zip(rows, totals, strict=True)):
                base = load_vector(builder, bases_type, bases, builder.add(row, output), _INTEGERS)
                value = builder.sub(base, builder.add(total, total))
                value = builder.sitofp(value, FLOATS.value)
                store_vector(builder, sums_type, sums, _sums_at(builder, i, number), value)
            return context.get_dummy_value()

        n = types.intp
        arguments = (plane, positions, n, n, offsets, n, n, weight, n, bases, n, sums, n)
        return types.void(*arguments), generate

    return count


def _summing(pixels: int, blocks: int = 1, *, is_own: bool = False) -> Any:
    """Return what writes the sums of layers of numbers.

    ``is_own``: every lane has an element of its own in the plane, one behind the other;
    ``blocks``: of LANES outputs, for one pixel.
    """

    @intrinsic
    def add_up(
        typing: Any,
        plane: Any,
        positions: Any,
        pixel: Any,
        shift: Any,
        offsets: Any,
        begin: Any,
        end: Any,
        weight: Any,
        weight_at: Any,
        block_step: Any,
        less: Any,
        output: Any,
        sums: Any,
        i: Any,
    ) -> Any:
        """Write the sums of products to sums[(i + 0, 1, ...) * LANES ...], as float32.

        plane, weight  float32, or float64: then less[output ...] is subtracted before rounding
        block_step     from the weights of a block to those of the next
        """

        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            (plane, positions, pixel, shift, offsets, begin, end) = args[:7]
            (weight, weight_at, block_step, less, output, sums, i) = args[7:]
            plane_type, weight_type, less_type, sums_type = (
                signature.args[k] for k in (0, 7, 10, 12)
            )
            is_wide = weight_type.dtype == types.float64
            element = ir.DoubleType() if is_wide else ir.FloatType()
            kind = ir.VectorType(element, LANES)
            name = f"llvm.fmuladd.v{LANES}{'f64' if is_wide else 'f32'}"
            at = [builder.add(p, shift) for p in _pixels(builder, positions, pixel, pixels, 0)]
            totals = _Variables(builder, kind, pixels * blocks)
            with _steps(builder, begin, end) as step:
                offset = builder.load(builder.gep(offsets, [step]))
                first = builder.add(weight_at, builder.mul(step, _number(LANES)))
                weights = []
                for block in range(blocks):
                    index = builder.add(first, builder.mul(block_step, _number(block)))
                    weights.append(load_vector(builder, weight_type, weight, index, kind))
                values = []
                for position in at:
                    index = builder.add(position, offset)
                    if is_own:
                        values.append(load_vector(builder, plane_type, plane, index, kind))
                    else:
                        values.append(splat(builder, builder.load(builder.gep(plane, [index]))))

                def summed(number: int, total: Any) -> Any:
                    operands = [values[number // blocks], weights[number % blocks], total]
                    return call(builder, name, kind, operands)

                totals.change(summed)
            for number, total in enumerate(totals):
                if is_wide:
                    index = builder.add(output, _number(number % blocks * LANES))
                    lesser = load_vector(builder, less_type, less, index, kind)
                    total = builder.fptrunc(builder.fsub(total, lesser), FLOATS.value)
                store_vector(builder, sums_type, sums, _sums_at(builder, i, number), total)
            return context.get_dummy_value()

        n = types.intp
        arguments = (plane, positions, n, n, offsets, n, n, weight, n, n, less, n, sums, n)
        return types.void(*arguments), generate

    return add_up


count_pixels = _counting(COUNT_PIXELS, is_own=False)
count_pixel = _counting(1, is_own=False)
count_pixel_own = _counting(1, is_own=True)
sum_pixels = _summing(SUM_PIXELS)
sum_pixel = _summing(1)
sum_pixels_own = _summing(SUM_PIXELS, is_own=True)
sum_pixel_own = _summing(1, is_own=True)
sum_blocks = _summing(1, DENSE_BLOCKS)

"""Operations that take every element, or every pixel, on its own."""

from __future__ import annotations

import math

import numpy as np

from bitinfer.backends.numba import memory as m
from bitinfer.backends.numba.jit import Kernel
from bitinfer.backends.numba.kernels.epilogue import finish, start_signs
from bitinfer.backends.numba.records import BATCH, INT8, OCTETS, SIGNS
from bitinfer.backends.numba.vectors import LANES


def _elementwise(step: int, arena: int, externals: int) -> None:
    """Take the elements of the source for the sums of a layer, and finish them as such.

    They are the channels of the source from ``begin`` on, as many as the target has.
    """
    s = m.step_at(step)
    source, scratch = m.locate(s.source, arena, externals), m.locate(s.scratch, arena, externals)
    sums, channels = m.floats(source), s.out_c
    for first in range(0, s.pixels, BATCH):
        count = min(BATCH, s.pixels - first)
        if s.flags & SIGNS:
            start_signs(s, arena, externals, first, count)
        for o in range(0, channels, LANES):
            length = min(LANES, channels - o)
            at, pitch = first * s.in_c + s.begin + o, s.in_c
            if s.flags & OCTETS:
                sums = m.floats(scratch)
                for i in range(count):
                    if s.flags & INT8:
                        y = m.load_octets(m.signed_octets(source), at + i * s.in_c, length)
                    else:
                        y = m.load_octets(m.octets(source), at + i * s.in_c, length)
                    m.store(sums, i * LANES, y)
                at, pitch = 0, LANES
            finish(s, arena, externals, sums, at, pitch, first, count, o, length)


def _affine(step: int, arena: int, externals: int) -> None:
    """Subtract a mean, scale and shift in float64; the table is (3, C): mean, scale, shift."""
    s = m.step_at(step)
    source = m.floats(m.locate(s.source, arena, externals))
    target = m.floats(m.locate(s.target, arena, externals))
    table, channels = m.doubles(s.table), s.out_c
    for p in range(s.pixels):
        for c in range(channels):
            y = np.float64(source[p * channels + c]) - table[c]
            y = y * table[channels + c]
            target[p * channels + c] = np.float32(y + table[2 * channels + c])


def _normalize(step: int, arena: int, externals: int) -> None:
    """Look pixels up in a table."""
    s = m.step_at(step)
    source = m.octets(m.locate(s.source, arena, externals))
    target = m.floats(m.locate(s.target, arena, externals))
    table, channels = m.floats(s.table), s.out_c
    for p in range(s.pixels):
        for c in range(channels):
            value = np.int64(source[p * channels + c])
            target[p * channels + c] = table[value * channels + c]


def _quantize(step: int, arena: int, externals: int) -> None:
    """Divide, round half to even, and bring between -128 and 127; NaN becomes 0."""
    s = m.step_at(step)
    source = m.floats(m.locate(s.source, arena, externals))
    target = m.signed_octets(m.locate(s.target, arena, externals))
    scale = s.low
    for i in range(s.pixels * s.out_c):
        q = np.rint(source[i] / scale)
        if q != q:  # NaN
            q = np.float32(0)
        target[i] = np.int8(min(max(q, np.float32(-128)), np.float32(127)))


def _softmax(step: int, arena: int, externals: int) -> None:
    """Softmax of each pixel; the exponentials are summed in float64."""
    s = m.step_at(step)
    source = m.floats(m.locate(s.source, arena, externals))
    target = m.floats(m.locate(s.target, arena, externals))
    channels = s.out_c
    for at in range(0, s.pixels * channels, channels):
        largest = source[at]
        for c in range(channels):
            if not (source[at + c] <= largest):  # larger, or NaN
                largest = source[at + c]
            if largest != largest:
                break
        total = 0.0
        for c in range(channels):
            total += math.exp(np.float64(source[at + c] - largest))
        for c in range(channels):
            e = math.exp(np.float64(source[at + c] - largest))
            target[at + c] = np.float32(e / total)


elementwise, affine, normalize = Kernel(_elementwise), Kernel(_affine), Kernel(_normalize)
quantize, softmax = Kernel(_quantize), Kernel(_softmax)

"""Layers with weights.  How operands lie in the plane and in the weights: layout.py.

A dense layer is a convolution of a map of one pixel.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from bitinfer.backends.numba import dots
from bitinfer.backends.numba import memory as m
from bitinfer.backends.numba.dots import COUNT_PIXELS, DENSE_BLOCKS, SUM_PIXELS
from bitinfer.backends.numba.jit import Kernel, part
from bitinfer.backends.numba.kernels.epilogue import finish, start_signs
from bitinfer.backends.numba.records import (
    BATCH,
    IDENTITY,
    OCTETS,
    OWN,
    SIGNS,
    STAGED,
    SUMS_BYTES,
)
from bitinfer.backends.numba.vectors import LANES


@part
def _stage_signs(s: Any, source: int, plane: int) -> None:
    """Write the signs of each group, in pieces of 32, to the plane; its border is 0 (+1)."""
    row_bytes = s.plane_w * s.plane_pitch * 4
    m.clear(plane, s.in_h * row_bytes)
    if s.flags & IDENTITY:
        size = s.in_w * s.in_words * 8
        for y in range(s.in_h):
            m.copy(plane + y * row_bytes + s.left * s.plane_pitch * 4, source + y * size, size)
        return
    flat, target = m.words(source), m.pieces(plane)
    for y in range(s.in_h):
        for x in range(s.in_w):
            pixel = (y * s.in_w + x) * s.in_words
            row = (y * s.plane_w + s.left + x) * s.plane_pitch
            for g in range(s.plane_groups):
                for k in range(0, s.group_channels, 32):
                    start = g * s.group_channels + k
                    i, shift = start >> 6, np.uint64(start & 63)
                    word = flat[pixel + i] >> shift
                    if (start & 63) > 32 and i + 1 < s.in_words:
                        word |= flat[pixel + i + 1] << (np.uint64(64) - shift)
                    if s.group_channels - k < 32:
                        word &= (np.uint64(1) << np.uint64(s.group_channels - k)) - np.uint64(1)
                    at = row + g * s.group_step + (k >> 5) * s.piece_step
                    for copy in range(s.copies):
                        target[at + copy] = np.uint32(word & np.uint64(0xFFFFFFFF))


@part
def _stage_numbers(s: Any, source: int, plane_at: int, plane: Any, element_bytes: int) -> None:
    """Write numbers to the plane, through a table if they are bytes; its border is 0."""
    row_bytes = s.plane_w * s.plane_pitch * element_bytes
    m.clear(plane_at, s.in_h * row_bytes)
    floats, octets, channels = m.floats(source), m.octets(source), m.indices(s.channels)
    table, table_channels = m.floats(s.table), s.table_channels
    channel_step = 1 if table_channels > 1 else 0
    pitch, in_c = s.plane_pitch, s.in_c
    for y in range(s.in_h):
        row = (y * s.plane_w + s.left) * pitch
        pixel = y * s.in_w * in_c
        if s.flags & OCTETS:
            for x in range(s.in_w):
                for j in range(pitch):
                    c = channels[j]
                    if c >= 0:
                        value = np.int64(octets[pixel + x * in_c + c])
                        at = row + x * pitch + j
                        plane[at] = table[value * table_channels + c * channel_step]
        elif s.flags & IDENTITY:
            m.copy(plane_at + row * element_bytes, source + pixel * 4, s.in_w * in_c * 4)
        else:
            for x in range(s.in_w):
                for j in range(pitch):
                    c = channels[j]
                    if c >= 0:
                        plane[row + x * pitch + j] = floats[pixel + x * in_c + c]


def _bconv2d(step: int, arena: int, externals: int) -> None:
    """Convolve signs with signs."""
    s = m.step_at(step)
    scratch, source = m.locate(s.scratch, arena, externals), m.locate(s.source, arena, externals)
    sums, plane_at = m.floats(scratch), source
    if s.flags & STAGED:
        plane_at = scratch + SUMS_BYTES
        _stage_signs(s, source, plane_at)
    plane, weight = m.pieces(plane_at), m.pieces(s.weight)
    positions, offsets, bases = m.indices(s.positions), m.indices(s.offsets), m.integers(s.bases)
    bands, outputs, steps = m.indices(s.band_table), s.group_outputs, s.steps
    blocks = (outputs + LANES - 1) // LANES
    for band in range(s.bands):
        band_end, begin, end = bands[4 * band + 1], bands[4 * band + 2], bands[4 * band + 3]
        for first in range(bands[4 * band], band_end, BATCH):
            count = min(BATCH, band_end - first)
            if s.flags & SIGNS:
                start_signs(s, arena, externals, first, count)
            for g in range(s.groups):
                for b in range(blocks):
                    at = (g * blocks + b) * steps * LANES
                    shift, o = g * s.group_step, g * outputs + b * LANES
                    i = 0
                    if s.flags & OWN:
                        shift = b * LANES
                        while i < count:
                            dots.count_pixel_own(
                                plane, positions, first + i, shift, offsets, begin, end,
                                weight, at, bases, o, sums, i,
                            )  # fmt: skip
                            i += 1
                    while i + COUNT_PIXELS <= count:
                        dots.count_pixels(
                            plane, positions, first + i, shift, offsets, begin, end,
                            weight, at, bases, o, sums, i,
                        )  # fmt: skip
                        i += COUNT_PIXELS
                    while i < count:
                        dots.count_pixel(
                            plane, positions, first + i, shift, offsets, begin, end,
                            weight, at, bases, o, sums, i,
                        )  # fmt: skip
                        i += 1
                    length = min(LANES, outputs - b * LANES)
                    finish(s, arena, externals, sums, 0, LANES, first, count, o, length)


@part
def _convolve(
    s: Any, arena: int, externals: int, plane: Any, weight: Any, less: Any, sums: Any
) -> None:
    """Convolve numbers with numbers, float32 or float64."""
    positions, offsets = m.indices(s.positions), m.indices(s.offsets)
    bands, outputs, steps = m.indices(s.band_table), s.group_outputs, s.steps
    blocks = (outputs + LANES - 1) // LANES
    block_step = steps * LANES
    for band in range(s.bands):
        band_end, begin, end = bands[4 * band + 1], bands[4 * band + 2], bands[4 * band + 3]
        for first in range(bands[4 * band], band_end, BATCH):
            count = min(BATCH, band_end - first)
            if s.flags & SIGNS:
                start_signs(s, arena, externals, first, count)
            for g in range(s.groups):
                b = 0
                while b < blocks:
                    at = (g * blocks + b) * block_step
                    shift, o = g * s.group_step, g * outputs + b * LANES
                    i, done = 0, 1
                    if s.flags & OWN:
                        shift = b * LANES
                        while i + SUM_PIXELS <= count:
                            dots.sum_pixels_own(
                                plane, positions, first + i, shift, offsets, begin, end,
                                weight, at, block_step, less, o, sums, i,
                            )  # fmt: skip
                            i += SUM_PIXELS
                        while i < count:
                            dots.sum_pixel_own(
                                plane, positions, first + i, shift, offsets, begin, end,
                                weight, at, block_step, less, o, sums, i,
                            )  # fmt: skip
                            i += 1
                    elif count == 1 and b + DENSE_BLOCKS <= blocks:
                        dots.sum_blocks(
                            plane, positions, first, shift, offsets, begin, end,
                            weight, at, block_step, less, o, sums, 0,
                        )  # fmt: skip
                        i, done = count, DENSE_BLOCKS
                    while i + SUM_PIXELS <= count:
                        dots.sum_pixels(
                            plane, positions, first + i, shift, offsets, begin, end,
                            weight, at, block_step, less, o, sums, i,
                        )  # fmt: skip
                        i += SUM_PIXELS
                    while i < count:
                        dots.sum_pixel(
                            plane, positions, first + i, shift, offsets, begin, end,
                            weight, at, block_step, less, o, sums, i,
                        )  # fmt: skip
                        i += 1
                    for k in range(done):
                        length = min(LANES, outputs - (b + k) * LANES)
                        finish(
                            s, arena, externals, sums, k * LANES, LANES, first, count,
                            o + k * LANES, length,
                        )  # fmt: skip
                    b += done


def _conv2d(step: int, arena: int, externals: int) -> None:
    """Convolve numbers whose sums are rounded to float32, or are exact in it."""
    s = m.step_at(step)
    scratch, source = m.locate(s.scratch, arena, externals), m.locate(s.source, arena, externals)
    plane_at = source
    if s.flags & STAGED:
        plane_at = scratch + SUMS_BYTES
        _stage_numbers(s, source, plane_at, m.floats(plane_at), 4)
    plane, weight, less = m.floats(plane_at), m.floats(s.weight), m.floats(s.less)
    _convolve(s, arena, externals, plane, weight, less, m.floats(scratch))


def _conv2d_wide(step: int, arena: int, externals: int) -> None:
    """Convolve integers whose sums need float64 to be exact."""
    s = m.step_at(step)
    scratch, source = m.locate(s.scratch, arena, externals), m.locate(s.source, arena, externals)
    plane_at = scratch + SUMS_BYTES
    plane, weight, less = m.doubles(plane_at), m.doubles(s.weight), m.doubles(s.less)
    _stage_numbers(s, source, plane_at, plane, 8)
    _convolve(s, arena, externals, plane, weight, less, m.floats(scratch))


bconv2d, conv2d, conv2d_wide = Kernel(_bconv2d), Kernel(_conv2d), Kernel(_conv2d_wide)

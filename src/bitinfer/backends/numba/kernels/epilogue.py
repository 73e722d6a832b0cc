"""What becomes of sums: floats, packed signs, or both; the order is that of numerics.py."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from bitinfer.backends.numba import memory as m
from bitinfer.backends.numba import records as r
from bitinfer.backends.numba import vectors as v
from bitinfer.backends.numba.jit import part
from bitinfer.backends.numba.records import (
    ALPHA,
    BETA,
    BIAS,
    BIASES,
    CLIP,
    FLOATS,
    FLOOR,
    NO_ACTIVATION,
    OTHER,
    OTHER_IS_VECTOR,
    OWN,
    PRELU,
    PRODUCT,
    RELU,
    RPRELU,
    SIGMOID,
    SIGNS,
)
from bitinfer.backends.numba.vectors import LANES

assert LANES * 4 * r.BATCH == r.SUMS_BYTES


@part
def start_signs(s: Any, arena: int, externals: int, first: int, count: int) -> None:
    """Write the signs of sums that are below no threshold, for ``count`` pixels."""
    signs, flips = m.words(m.locate(s.signs, arena, externals)), m.words(s.flips)
    words = s.out_words
    for i in range(first * words, (first + count) * words, words):
        for k in range(words):
            signs[i + k] = flips[k]


@part
def sigmoid(y: Any) -> Any:
    """Return the logistic function of Floats, computed in float64 and rounded once."""
    for i in range(LANES):
        wide = np.float64(v.lane(y, i))
        y = v.with_lane(y, i, np.float32(1.0 / (1.0 + math.exp(-wide))))
    return y


@part
def _beta(s: Any, beta: Any, pixel: int, o: int, length: int) -> Any:
    """Return the scales that a pixel's input gives to the outputs from o on."""
    if s.beta_groups == 1:
        return v.fill(beta[pixel])
    group_outputs = s.out_c // s.beta_groups
    at = pixel * s.beta_groups
    if s.flags & OWN == 0:
        return v.fill(beta[at + o // group_outputs])
    scales = v.no_floats()
    for i in range(length):
        scales = v.with_lane(scales, i, beta[at + (o + i) // group_outputs])
    return scales


@part
def finish(
    s: Any,
    arena: int,
    externals: int,
    sums: Any,
    sums_at: int,
    sums_pitch: int,
    first: int,
    count: int,
    o: int,
    length: int,
) -> None:
    """Write the outputs o ... o + length - 1, at most LANES, of ``count`` pixels from ``first`` on.

    The sums of pixel i are sums[sums_at + i * sums_pitch ...], as float32; they have all lanes if
    the pitch is LANES.  Signs are changed from what :func:`start_signs` has written.
    """
    flags, activation, pitch, words = s.flags, s.activation, s.target_pitch, s.out_words
    is_whole = length == LANES
    has_lanes = is_whole or sums_pitch == LANES
    alpha, bias = m.load(m.floats(s.alpha), o), m.load(m.floats(s.bias), o)
    floor, slope = m.load(m.floats(s.floor), o), m.load(m.floats(s.slope), o)
    shift_in, shift_out = m.load(m.floats(s.shift_in), o), m.load(m.floats(s.shift_out), o)
    threshold = m.load(m.floats(s.threshold), o)
    zero, low, high = v.no_floats(), v.fill(s.low), v.fill(s.high)
    biases, positions = m.floats(s.bias), m.indices(s.positions)
    beta = m.floats(m.locate(s.beta, arena, externals))
    other = m.floats(m.locate(s.other, arena, externals))
    other_pitch = 0 if flags & OTHER_IS_VECTOR else s.other_pitch
    floats = m.floats(m.locate(s.target, arena, externals))
    signs = m.words(m.locate(s.signs, arena, externals))
    word, shift = o >> 6, np.uint64(o & 63)
    is_split = (o & 63) + length > 64
    for i in range(count):
        pixel = first + i
        if has_lanes:
            y = m.load(sums, sums_at + i * sums_pitch)
        else:
            y = m.load_some(sums, sums_at + i * sums_pitch, length)
        if flags & FLOOR:
            y = v.larger(y, floor)
        if flags & ALPHA:
            y = v.times(y, alpha)
        if flags & BETA:
            y = v.times(y, _beta(s, beta, pixel, o, length))
        if flags & BIAS:
            y = v.plus(y, bias)
        if flags & BIASES:
            y = v.plus(y, m.load(biases, positions[2 * pixel + 1] + o))
        if flags & (OTHER | PRODUCT):
            at = pixel * other_pitch + o
            value = m.load(other, at) if is_whole else m.load_some(other, at, length)
            y = v.plus(y, value) if flags & OTHER else v.times(y, value)
        if activation != NO_ACTIVATION:
            if activation == RELU:
                y = v.larger(y, zero)
            elif activation == PRELU:
                y = v.scale_negative(y, slope)
            elif activation == RPRELU:
                y = v.plus(v.scale_negative(v.plus(y, shift_in), slope), shift_out)
            elif activation == CLIP:
                y = v.smaller(v.larger(y, low), high)
            elif activation == SIGMOID:
                y = sigmoid(y)
        if flags & SIGNS:
            bits, at = v.below(y, threshold, length), pixel * words + word
            signs[at] = signs[at] ^ (bits << shift)
            if is_split:
                signs[at + 1] = signs[at + 1] ^ (bits >> (np.uint64(64) - shift))
        if flags & FLOATS:
            if is_whole:
                m.store(floats, pixel * pitch + o, y)
            else:
                m.store_some(floats, pixel * pitch + o, length, y)

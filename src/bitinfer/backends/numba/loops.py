"""The compiled loops, one per operation; arrays as stored (bits.py), of one sample.

Contracts are those of csrc/kernels/*/*.h.  Windows are walked over as layout.py describes it:
``rows``, ``columns`` and ``offsets`` are those of a Walk, ``weight`` is re-laid by in_lanes.

The loops of the binary layers end in an epilogue, :func:`_finish`.
"""

# Compiled loops take positional numbers: keyword-only arguments are not supported by numba.
from __future__ import annotations

from typing import Any

import numpy as np

from bitinfer.backends.numba import vectors as v
from bitinfer.backends.numba.jit import compiled, part
from bitinfer.backends.numba.vectors import LANES, STEPS_PER_COUNT, WORD_LANES

NO_ACTIVATION, RELU, PRELU, CLIP = range(4)


@part
def _count_block(
    plane: Any,
    positions: Any,
    count: int,
    shift: int,
    offsets: Any,
    first: int,
    last: int,
    weight: Any,
    weight_at: int,
    is_own: bool,
    signs: int,
    dot: Any,
    dot_at: int,
    pitch: int,
) -> None:
    """Write the integers of LANES outputs of ``count`` pixels, two at a time.

    positions        of the pixels in the plane, but for ``shift``
    first, last      the steps to go; ``signs``: how many signs these are
    weight_at        where the weight of step 0 begins
    dot_at, pitch    where the integers of pixel 0 begin, and from one pixel to the next
    """
    for i in range(0, count, 2):
        j = min(i + 1, count - 1)
        p, q = positions[np.uintp(i)] + shift, positions[np.uintp(j)] + shift
        total_p, total_q = v.no_integers(), v.no_integers()
        start = first
        while start < last:
            end = min(start + STEPS_PER_COUNT, last)
            counts_p, counts_q = v.no_counts(), v.no_counts()
            if is_own:
                for s in range(start, end):
                    offset, w = offsets[np.uintp(s)], weight_at + s * LANES
                    counts_p = v.count_own(counts_p, plane, p + offset, weight, w)
                    counts_q = v.count_own(counts_q, plane, q + offset, weight, w)
            elif count > 1:
                for s in range(start, end):
                    offset, w = offsets[np.uintp(s)], weight_at + s * LANES
                    counts_p = v.count_shared(counts_p, plane, p + offset, weight, w)
                    counts_q = v.count_shared(counts_q, plane, q + offset, weight, w)
            else:
                for s in range(start, end):
                    offset, w = offsets[np.uintp(s)], weight_at + s * LANES
                    counts_q = v.count_shared(counts_q, plane, q + offset, weight, w)
            total_p, total_q = v.widen(total_p, counts_p), v.widen(total_q, counts_q)
            start = end
        v.store_dot(dot, dot_at + i * pitch, signs, total_p)
        v.store_dot(dot, dot_at + j * pitch, signs, total_q)


@part
def _count_padding(
    dot: Any, at: int, rows: Any, y: int, columns: Any, x: int, tap_sums: Any, pad_value: int
) -> None:
    """Make taps outside the map hold ``pad_value``, in the integers dot[at...] of one pixel.

    Rows of taps outside were skipped; in the others, padding was counted as +1, the bits 0.
    """
    kh, kw, padded = tap_sums.shape
    for ky in range(kh):
        is_inside = rows[y, 1] <= ky < rows[y, 2]
        value = pad_value - 1 if is_inside else pad_value
        if value == 0:
            continue
        for kx in range(kw):
            if is_inside and columns[x, 1] <= kx < columns[x, 2]:
                continue
            for o in range(0, padded, LANES):
                v.add_scaled(dot, at + o, value, tap_sums, (ky * kw + kx) * padded + o)


@part
def _finish(
    dot: Any,
    pitch: int,
    first: int,
    count: int,
    scales: Any,
    limits: Any,
    activation: int,
    beta: Any,
    residual: Any,
    floats: Any,
    threshold: Any,
    flips: Any,
    signs: Any,
) -> None:
    """Write the outputs of ``count`` pixels, from number ``first`` on.

    dot        flat int32, ``pitch`` for each pixel
    scales     (3, padded outputs) float32: alpha, bias, slope
    limits     (2,) float32 of a clip
    activation NO_ACTIVATION, RELU, PRELU or CLIP
    beta       (pixels, groups) float32, or (1, 1): that of all pixels
    residual   (pixels, outputs) float32, or (1, outputs): that of all pixels
    floats     (pixels, outputs) float32, no pixels: the result are signs
    threshold  (words * 64,) int32, flips (words,) uint64, signs (pixels, words) uint64
    """
    pixels, outputs = floats.shape
    if pixels == 0:
        words = flips.size
        for i in range(count):
            for k in range(words):
                word = v.below_word(dot, i * pitch + k * WORD_LANES, threshold, k * WORD_LANES)
                v.store_word(signs, (first + i) * words + k, flips, k, word)
        return
    groups, padded = beta.shape[1], scales.shape[1]
    beta_pitch = groups if beta.shape[0] == pixels else 0
    residual_pitch = outputs if residual.shape[0] == pixels else 0
    zero, low, high = v.no_floats(), v.splat(limits, 0), v.splat(limits, 1)
    for g in range(groups):
        end = (g + 1) * (outputs // groups)
        for o in range(g * (outputs // groups), end, LANES):
            alpha, bias = v.load(scales, o), v.load(scales, padded + o)
            slope = v.load(scales, 2 * padded + o)
            length = end - o
            for i in range(count):
                pixel = first + i
                y = v.times(v.load_integers(dot, i * pitch + o), alpha)
                y = v.times(y, v.splat(beta, pixel * beta_pitch + g))
                y = v.plus(y, bias)
                if length >= LANES:
                    y = v.plus(y, v.load(residual, pixel * residual_pitch + o))
                else:
                    y = v.plus(y, v.load_some(residual, pixel * residual_pitch + o, length))
                if activation == RELU:
                    y = v.larger(y, zero)
                elif activation == PRELU:
                    y = v.scale_negative(y, slope)
                elif activation == CLIP:
                    y = v.smaller(v.larger(y, low), high)
                if length >= LANES:
                    v.store(floats, pixel * outputs + o, y)
                else:
                    v.store_some(floats, pixel * outputs + o, length, y)


@compiled
def bconv2d(
    plane: Any,
    rows: Any,
    columns: Any,
    offsets: Any,
    weight: Any,
    tap_sums: Any,
    groups: int,
    outputs: int,
    group_step: int,
    channels: int,
    pad_value: int,
    is_own: bool,
    dot: Any,
    scales: Any,
    limits: Any,
    activation: int,
    beta: Any,
    residual: Any,
    floats: Any,
    threshold: Any,
    flips: Any,
    signs: Any,
) -> None:
    """Convolve signs with signs.

    plane, weight    flat uint32; group_step: elements of the plane from one group to the next
    outputs          of one group
    is_own           every lane has elements of its own in the plane; then ``groups`` is 1
    tap_sums         (kh, kw, padded outputs) int32: the sum of the signs of each tap
    dot              (pixels at a time, pitch) int32, scratch
    """
    kh, kw, _ = tap_sums.shape
    at_a_time, pitch = dot.shape
    steps = offsets.size
    blocks = (outputs + LANES - 1) // LANES
    lane_step = LANES if is_own else 0
    dots, positions = dot.reshape(-1), np.empty(at_a_time, np.int64)
    height, width = rows.shape[0], columns.shape[0]
    start = 0
    while start < height:
        end = start + 1  # rows with the same tap rows go together
        while end < height and rows[end, 1] == rows[start, 1] and rows[end, 2] == rows[start, 2]:
            end += 1
        tap_rows = rows[start, 2] - rows[start, 1]
        is_cut = tap_rows < kh
        for pixel in range(start * width, end * width, at_a_time):
            count = min(at_a_time, end * width - pixel)
            y, x = pixel // width, pixel % width
            for i in range(count):
                positions[i] = rows[y, 0] + columns[x, 0]
                x += 1
                if x == width:
                    y, x = y + 1, 0
            for g in range(groups):
                for b in range(blocks):
                    _count_block(
                        plane,
                        positions,
                        count,
                        g * group_step + b * lane_step,
                        offsets,
                        rows[start, 1] * (steps // kh),
                        rows[start, 2] * (steps // kh),
                        weight,
                        (g * blocks + b) * steps * LANES,
                        is_own,
                        tap_rows * kw * channels,
                        dots,
                        g * outputs + b * LANES,
                        pitch,
                    )
            y, x = pixel // width, pixel % width
            for i in range(count):
                if is_cut or columns[x, 1] > 0 or columns[x, 2] < kw:
                    _count_padding(dots, i * pitch, rows, y, columns, x, tap_sums, pad_value)
                x += 1
                if x == width:
                    y, x = y + 1, 0
            _finish(
                dots,
                pitch,
                pixel,
                count,
                scales,
                limits,
                activation,
                beta,
                residual,
                floats,
                threshold,
                flips,
                signs,
            )
        start = end


@compiled
def stage_signs(
    source: Any,
    channels: int,
    groups: int,
    left: int,
    copies: int,
    group_step: int,
    piece_step: int,
    plane: Any,
) -> None:
    """Write the signs of each group, in pieces of 32, to a plane that is all 0.

    source (H, W, words) uint64, plane (H, padded W, elements of a pixel) uint32;
    every piece is written ``copies`` times in a row.
    """
    height, width, words = source.shape
    _, padded_width, pitch = plane.shape
    flat, target = source.reshape(-1), plane.reshape(-1)
    for y in range(height):
        for x in range(width):
            pixel = np.uintp((y * width + x) * words)
            row = (y * padded_width + left + x) * pitch
            for g in range(groups):
                for k in range(0, channels, 32):
                    start = np.uint64(g * channels + k)
                    i, shift = start >> np.uint64(6), start & np.uint64(63)
                    word = flat[pixel + i] >> shift
                    if shift > 32 and i + np.uint64(1) < words:
                        word |= flat[pixel + i + np.uint64(1)] << (np.uint64(64) - shift)
                    if channels - k < 32:
                        word &= (np.uint64(1) << np.uint64(channels - k)) - np.uint64(1)
                    at = np.uintp(row + g * group_step + (k // 32) * piece_step)
                    for copy in range(copies):
                        target[at + np.uintp(copy)] = word


@compiled
def pack_signs(source: Any, threshold: Any, target: Any) -> None:
    """Pack where numbers are below the threshold of their channel.

    source (pixels, channels) float32, int8 or uint8, threshold (words * 64,) float32,
    target (pixels, words) uint64.
    """
    pixels, channels = source.shape
    whole = channels // WORD_LANES
    begin, used = whole * WORD_LANES, channels % WORD_LANES
    # The last word is read together with what lies before it, and shifted down.
    spare = WORD_LANES - used
    shifted = np.zeros(WORD_LANES, np.float32)
    for i in range(used):
        shifted[spare + i] = threshold[begin + i]
    for p in range(pixels):
        for k in range(whole):
            at = k * WORD_LANES
            target[p, k] = v.smaller_word(source, p * channels + at, threshold, at)
        if used > 0:
            at = p * channels + begin - spare
            if at >= 0:
                target[p, whole] = v.smaller_word(source, at, shifted, 0) >> np.uint64(spare)
            else:
                word = np.uint64(0)
                for i in range(used):
                    if np.float32(source[p, begin + i]) < threshold[begin + i]:
                        word |= np.uint64(1) << np.uint64(i)
                target[p, whole] = word


@compiled
def conv2d(
    plane: Any,
    rows: Any,
    columns: Any,
    offsets: Any,
    weight: Any,
    groups: int,
    group_step: int,
    kernel_h: int,
    bias: Any,
    target: Any,
) -> None:
    """Float convolution; plane and weight flat, bias (padded outputs,), target (H, W, outputs)."""
    height, width, all_outputs = target.shape
    outputs, steps = all_outputs // groups, offsets.size
    blocks = (outputs + LANES - 1) // LANES
    for y in range(height):
        first, end = rows[y, 1] * (steps // kernel_h), rows[y, 2] * (steps // kernel_h)
        for g in range(groups):
            row = rows[y, 0] + g * group_step
            for b in range(blocks):
                at = (g * blocks + b) * steps * LANES
                o, length = g * outputs + b * LANES, min(LANES, outputs - b * LANES)
                for x in range(0, width, 4):  # four pixels at a time, the last ones again
                    x_1, x_2, x_3 = (
                        min(x + 1, width - 1),
                        min(x + 2, width - 1),
                        min(x + 3, width - 1),
                    )
                    p_0, p_1 = row + columns[x, 0], row + columns[x_1, 0]
                    p_2, p_3 = row + columns[x_2, 0], row + columns[x_3, 0]
                    sum_0, sum_1 = v.no_floats(), v.no_floats()
                    sum_2, sum_3 = v.no_floats(), v.no_floats()
                    for s in range(first, end):
                        offset, w = offsets[np.uintp(s)], at + s * LANES
                        sum_0 = v.multiply_add(sum_0, plane, p_0 + offset, weight, w)
                        sum_1 = v.multiply_add(sum_1, plane, p_1 + offset, weight, w)
                        sum_2 = v.multiply_add(sum_2, plane, p_2 + offset, weight, w)
                        sum_3 = v.multiply_add(sum_3, plane, p_3 + offset, weight, w)
                    t, bias_lanes = y * width * all_outputs + o, v.load(bias, o)
                    v.store_some(target, t + x * all_outputs, length, v.plus(sum_0, bias_lanes))
                    v.store_some(target, t + x_1 * all_outputs, length, v.plus(sum_1, bias_lanes))
                    v.store_some(target, t + x_2 * all_outputs, length, v.plus(sum_2, bias_lanes))
                    v.store_some(target, t + x_3 * all_outputs, length, v.plus(sum_3, bias_lanes))


@compiled
def dense(source: Any, weight: Any, bias: Any, target: Any) -> None:
    """Float matrix times vector; weight flat, in 4 * LANES lanes; bias (padded outputs,)."""
    steps, outputs = source.size, target.size
    sums = np.empty(4 * LANES, np.float32)
    for o in range(0, outputs, 4 * LANES):
        sum_0, sum_1, sum_2, sum_3 = v.no_floats(), v.no_floats(), v.no_floats(), v.no_floats()
        for s in range(steps):
            w = o * steps + s * 4 * LANES
            sum_0 = v.multiply_add(sum_0, source, s, weight, w)
            sum_1 = v.multiply_add(sum_1, source, s, weight, w + LANES)
            sum_2 = v.multiply_add(sum_2, source, s, weight, w + 2 * LANES)
            sum_3 = v.multiply_add(sum_3, source, s, weight, w + 3 * LANES)
        v.store(sums, 0, sum_0)
        v.store(sums, LANES, sum_1)
        v.store(sums, 2 * LANES, sum_2)
        v.store(sums, 3 * LANES, sum_3)
        for i in range(min(4 * LANES, outputs - o)):
            target[o + i] = sums[i] + bias[o + i]


@compiled
def mean_magnitudes(source: Any, target: Any) -> None:
    """Mean of |x| over the channels of each group: (pixels, groups * channels) float32."""
    pixels, groups = target.shape
    channels = source.shape[1] // groups
    for p in range(pixels):
        for g in range(groups):
            begin = (p * groups + g) * channels
            lanes = v.no_floats()
            for c in range(0, channels - LANES + 1, LANES):
                lanes = v.plus(lanes, v.magnitude(v.load(source, begin + c)))
            if channels % LANES > 0:
                c = channels // LANES * LANES
                rest = v.load_some(source, begin + c, channels - c)
                lanes = v.plus(lanes, v.magnitude(rest))
            target[p, g] = v.total(lanes) / np.float32(channels)


@compiled
def normalize(source: Any, table: Any, target: Any) -> None:
    """Look pixels up: (pixels, channels) uint8, table (256, channels) float32."""
    pixels, channels = source.shape
    for p in range(pixels):
        for c in range(channels):
            target[p, c] = table[source[p, c], c]


@compiled
def max_pool2d(
    source: Any, rows: Any, columns: Any, offsets: Any, kernel_w: int, target: Any
) -> None:
    """Maximum of the taps inside the map; a NaN among them wins.  source flat, target (H, W, C)."""
    height, width, channels = target.shape
    whole = channels // LANES * LANES
    for y in range(height):
        for x in range(width):
            at = rows[y, 0] + columns[x, 0]
            for c in range(0, whole, LANES):
                best, nan = v.fill(np.float32(-np.inf)), v.no_floats()
                for ky in range(rows[y, 1], rows[y, 2]):
                    for kx in range(columns[x, 1], columns[x, 2]):
                        tap = offsets[np.uintp(ky * kernel_w + kx)]
                        value = v.load(source, at + tap + c)
                        best, nan = v.larger(best, value), v.nan_or(value, nan)
                v.store(target, (y * width + x) * channels + c, v.nan_or(nan, best))
            for c in range(whole, channels):
                a = np.float32(-np.inf)
                for ky in range(rows[y, 1], rows[y, 2]):
                    for kx in range(columns[x, 1], columns[x, 2]):
                        tap = offsets[np.uintp(ky * kernel_w + kx)]
                        b = source[np.uintp(at + tap + c)]
                        if not (a >= b) and a == a:  # a == a is false for NaN alone
                            a = b
                target[y, x, c] = a


@compiled
def max_pool2d_signs(
    source: Any, rows: Any, columns: Any, offsets: Any, kernel_w: int, target: Any
) -> None:
    """Maximum of packed signs: the AND of the words, since bit 1 is -1."""
    height, width, words = target.shape
    for y in range(height):
        for x in range(width):
            at = rows[y, 0] + columns[x, 0]
            for k in range(words):
                word = ~np.uint64(0)
                for ky in range(rows[y, 1], rows[y, 2]):
                    for kx in range(columns[x, 1], columns[x, 2]):
                        word &= source[np.uintp(at + offsets[np.uintp(ky * kernel_w + kx)] + k)]
                target[y, x, k] = word


@compiled
def window_means(
    source: Any,
    rows: Any,
    columns: Any,
    offsets: Any,
    kernel_w: int,
    taps: int,
    target: Any,
) -> None:
    """Sum of the taps inside the map, divided by ``taps``, or by their number if that is 0."""
    height, width, channels = target.shape
    whole = channels // LANES * LANES
    for y in range(height):
        for x in range(width):
            at = rows[y, 0] + columns[x, 0]
            inside = (rows[y, 2] - rows[y, 1]) * (columns[x, 2] - columns[x, 1])
            divisor = np.float32(taps if taps > 0 else inside)
            for c in range(0, whole, LANES):
                lanes = v.no_floats()
                for ky in range(rows[y, 1], rows[y, 2]):
                    for kx in range(columns[x, 1], columns[x, 2]):
                        tap = offsets[np.uintp(ky * kernel_w + kx)]
                        lanes = v.plus(lanes, v.load(source, at + tap + c))
                v.store(target, (y * width + x) * channels + c, v.over(lanes, v.fill(divisor)))
            for c in range(whole, channels):
                total = np.float32(0)
                for ky in range(rows[y, 1], rows[y, 2]):
                    for kx in range(columns[x, 1], columns[x, 2]):
                        tap = offsets[np.uintp(ky * kernel_w + kx)]
                        total += source[np.uintp(at + tap + c)]
                target[y, x, c] = total / divisor

"""Windows without weights: pools of floats and of signs, and the maps of XNOR-Net's beta."""

from __future__ import annotations

from typing import Any

import numpy as np

from bitinfer.backends.numba import memory as m
from bitinfer.backends.numba import vectors as v
from bitinfer.backends.numba.jit import Kernel, part
from bitinfer.backends.numba.records import COUNT_PADDING
from bitinfer.backends.numba.vectors import LANES


@part
def _load(source: Any, at: int, length: int) -> Any:
    return m.load(source, at) if length == LANES else m.load_some(source, at, length)


@part
def _store(target: Any, at: int, length: int, value: Any) -> None:
    if length == LANES:
        m.store(target, at, value)
    else:
        m.store_some(target, at, length, value)


def _max_pool2d(step: int, arena: int, externals: int) -> None:
    """Maximum of the taps inside the map; a NaN among them wins."""
    s = m.step_at(step)
    source = m.floats(m.locate(s.source, arena, externals))
    target = m.floats(m.locate(s.target, arena, externals))
    rows, columns, offsets = m.indices(s.rows), m.indices(s.columns), m.indices(s.offsets)
    channels = s.out_c
    for y in range(s.out_h):
        for x in range(s.out_w):
            at = rows[3 * y] + columns[3 * x]
            for c in range(0, channels, LANES):
                length = min(LANES, channels - c)
                best, nan = v.fill(np.float32(-np.inf)), v.no_floats()
                for ky in range(rows[3 * y + 1], rows[3 * y + 2]):
                    for kx in range(columns[3 * x + 1], columns[3 * x + 2]):
                        tap = offsets[ky * s.kernel_w + kx]
                        value = _load(source, at + tap + c, length)
                        best, nan = v.larger(best, value), v.nan_or(value, nan)
                _store(target, (y * s.out_w + x) * channels + c, length, v.nan_or(nan, best))


def _max_pool2d_signs(step: int, arena: int, externals: int) -> None:
    """Maximum of packed signs: the AND of the words, since bit 1 is -1; where flipped, the OR."""
    s = m.step_at(step)
    source = m.words(m.locate(s.source, arena, externals))
    target = m.words(m.locate(s.target, arena, externals))
    rows, columns, offsets = m.indices(s.rows), m.indices(s.columns), m.indices(s.offsets)
    words, flips = s.out_words, m.words(s.flips)
    for y in range(s.out_h):
        for x in range(s.out_w):
            at = rows[3 * y] + columns[3 * x]
            for k in range(words):
                word = ~np.uint64(0)
                for ky in range(rows[3 * y + 1], rows[3 * y + 2]):
                    for kx in range(columns[3 * x + 1], columns[3 * x + 2]):
                        word &= source[at + offsets[ky * s.kernel_w + kx] + k] ^ flips[k]
                target[(y * s.out_w + x) * words + k] = word ^ flips[k]


@part
def _window_means(s: Any, source: Any, target: Any) -> None:
    """Sum of the taps inside the map, divided by ``taps`` or by the number of those inside."""
    rows, columns, offsets = m.indices(s.rows), m.indices(s.columns), m.indices(s.offsets)
    channels = s.out_c
    for y in range(s.out_h):
        for x in range(s.out_w):
            at = rows[3 * y] + columns[3 * x]
            taps = s.taps
            if s.flags & COUNT_PADDING == 0:
                taps = (rows[3 * y + 2] - rows[3 * y + 1]) * (
                    columns[3 * x + 2] - columns[3 * x + 1]
                )
            divisor = v.fill(np.float32(taps))
            for c in range(0, channels, LANES):
                length = min(LANES, channels - c)
                lanes = v.no_floats()
                for ky in range(rows[3 * y + 1], rows[3 * y + 2]):
                    for kx in range(columns[3 * x + 1], columns[3 * x + 2]):
                        tap = offsets[ky * s.kernel_w + kx]
                        lanes = v.plus(lanes, _load(source, at + tap + c, length))
                at_target = (y * s.out_w + x) * channels + c
                _store(target, at_target, length, v.over(lanes, divisor))


def _avg_pool2d(step: int, arena: int, externals: int) -> None:
    """Mean over a window."""
    s = m.step_at(step)
    source = m.floats(m.locate(s.source, arena, externals))
    _window_means(s, source, m.floats(m.locate(s.target, arena, externals)))


def _beta_map(step: int, arena: int, externals: int) -> None:
    """Mean of |x| over the channels of each group, and that over a window, padding included."""
    s = m.step_at(step)
    source = m.floats(m.locate(s.source, arena, externals))
    means = m.floats(m.locate(s.scratch, arena, externals))
    channels = s.group_channels
    for p in range(s.in_h * s.in_w * s.groups):
        lanes = v.no_floats()
        for c in range(0, channels, LANES):
            value = _load(source, p * channels + c, min(LANES, channels - c))
            lanes = v.plus(lanes, v.magnitude(value))
        means[p] = v.total(lanes) / np.float32(channels)
    _window_means(s, means, m.floats(m.locate(s.target, arena, externals)))


def _global_mean(step: int, arena: int, externals: int) -> None:
    """Mean of every channel, summed in float64."""
    s = m.step_at(step)
    source = m.floats(m.locate(s.source, arena, externals))
    target = m.floats(m.locate(s.target, arena, externals))
    pixels, channels = s.in_h * s.in_w, s.out_c
    for c in range(0, channels, LANES):
        length = min(LANES, channels - c)
        total = v.no_doubles()
        for p in range(pixels):
            total = v.plus_wide(total, _load(source, p * channels + c, length))
        _store(target, c, length, v.over_wide(total, np.float64(pixels)))


max_pool2d, max_pool2d_signs = Kernel(_max_pool2d), Kernel(_max_pool2d_signs)
avg_pool2d, beta_map, global_mean = Kernel(_avg_pool2d), Kernel(_beta_map), Kernel(_global_mean)

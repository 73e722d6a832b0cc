"""Operations that move elements and compute nothing."""

from __future__ import annotations

import numpy as np

from bitinfer.backends.numba import memory as m
from bitinfer.backends.numba.jit import Kernel
from bitinfer.backends.numba.records import BITS, CHANNELS_FIRST


def _copy_channels(step: int, arena: int, externals: int) -> None:
    """Copy ``count`` channels of every pixel, from ``begin`` on to ``to`` and what follows."""
    s = m.step_at(step)
    source = m.locate(s.source, arena, externals) + 4 * s.begin
    target = m.locate(s.target, arena, externals) + 4 * s.to
    for p in range(s.pixels):
        m.copy(target + 4 * p * s.out_c, source + 4 * p * s.in_c, 4 * s.count)


def _shuffle_channels(step: int, arena: int, externals: int) -> None:
    """Let the groups of channels take turns: the first of each, the second of each, ..."""
    s = m.step_at(step)
    source = m.floats(m.locate(s.source, arena, externals))
    target = m.floats(m.locate(s.target, arena, externals))
    groups, length = s.groups, s.group_channels
    for at in range(0, s.pixels * s.out_c, s.out_c):
        for g in range(groups):
            for k in range(length):
                target[at + k * groups + g] = source[at + g * length + k]


def _pad2d(step: int, arena: int, externals: int) -> None:
    """Put a border around a map, of floats or of packed signs."""
    s = m.step_at(step)
    source, target = (
        m.locate(s.source, arena, externals),
        m.locate(s.target, arena, externals),
    )
    if s.flags & BITS:
        words, flips = m.words(target), m.words(s.flips)
        for p in range(s.pixels):
            for k in range(s.out_words):
                words[p * s.out_words + k] = flips[k]
        pixel_bytes = 8 * s.out_words
    else:
        floats, value = m.floats(target), s.low
        for i in range(s.pixels * s.out_c):
            floats[i] = value
        pixel_bytes = 4 * s.out_c
    for y in range(s.in_h):
        at = target + ((s.to + y) * s.out_w + s.left) * pixel_bytes
        m.copy(at, source + y * s.in_w * pixel_bytes, s.in_w * pixel_bytes)


def _flatten(step: int, arena: int, externals: int) -> None:
    """Lay the elements of a map in one row, pixel by pixel or channel by channel."""
    s = m.step_at(step)
    source, target = (
        m.locate(s.source, arena, externals),
        m.locate(s.target, arena, externals),
    )
    pixels, channels = s.in_h * s.in_w, s.in_c
    if s.flags & CHANNELS_FIRST == 0:
        m.copy(target, source, 4 * pixels * channels)
        return
    floats, result = m.floats(source), m.floats(target)
    for c in range(channels):
        for p in range(pixels):
            result[c * pixels + p] = floats[p * channels + c]


def _flatten_signs(step: int, arena: int, externals: int) -> None:
    """Lay packed signs in one row likewise; no bit is set behind the last."""
    s = m.step_at(step)
    source = m.words(m.locate(s.source, arena, externals))
    at = m.locate(s.target, arena, externals)
    target = m.words(at)
    pixels, channels, words = s.in_h * s.in_w, s.in_c, s.in_words
    m.clear(at, 8 * s.out_words)
    for p in range(pixels):
        for k in range(words):
            word, length = source[p * words + k], min(64, channels - 64 * k)
            if s.flags & CHANNELS_FIRST:
                for c in range(64 * k, 64 * k + length):
                    i = c * pixels + p
                    target[i >> 6] = target[i >> 6] | (word & np.uint64(1)) << np.uint64(i & 63)
                    word >>= np.uint64(1)
            else:
                i = p * channels + 64 * k
                shift = np.uint64(i & 63)
                target[i >> 6] = target[i >> 6] | word << shift
                if (i & 63) + length > 64:
                    target[(i >> 6) + 1] = word >> (np.uint64(64) - shift)


copy_channels, shuffle_channels = Kernel(_copy_channels), Kernel(_shuffle_channels)
pad2d, flatten, flatten_signs = Kernel(_pad2d), Kernel(_flatten), Kernel(_flatten_signs)

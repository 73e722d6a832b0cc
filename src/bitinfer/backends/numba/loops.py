"""The compiled loops, one per operation; arrays as stored (bits.py), of one sample.

Contracts are those of csrc/kernels/*/*.h.  Scalars that describe a window come as int64 arrays:
``window = (stride_h, stride_w, pad_top, pad_left, dilation_h, dilation_w)``.
"""

# Compiled loops take positional numbers: keyword-only arguments are not supported by numba.
from __future__ import annotations

from typing import Any

import numpy as np

from bitinfer.backends.numba.jit import compiled, popcount


@compiled
def bconv2d(
    source: Any,
    weight: Any,
    tap_sums: Any,
    window: Any,
    channels: int,
    pad_value: int,
    dot: Any,
) -> None:
    """Integer results; source (H, W, groups, words), weight (groups, outputs, kh, kw, words).

    tap_sums (groups, outputs, kh, kw) int64: the sum of the signs of each tap;
    dot (Hout, Wout, groups, outputs) int32.
    """
    height, width, _, words = source.shape
    groups, outputs, kh, kw, _ = weight.shape
    for oy in range(dot.shape[0]):
        for ox in range(dot.shape[1]):
            for g in range(groups):
                for o in range(outputs):
                    differ = np.int64(0)
                    total = np.int64(0)
                    for ky in range(kh):
                        y = oy * window[0] - window[2] + ky * window[4]
                        for kx in range(kw):
                            x = ox * window[1] - window[3] + kx * window[5]
                            if y < 0 or y >= height or x < 0 or x >= width:
                                total += pad_value * tap_sums[g, o, ky, kx]
                                continue
                            total += channels
                            for k in range(words):
                                differ += popcount(source[y, x, g, k] ^ weight[g, o, ky, kx, k])
                    dot[oy, ox, g, o] = total - 2 * differ


@compiled
def bdense(source: Any, weight: Any, channels: int, dot: Any) -> None:
    """Integer results; source (words,), weight (outputs, words), dot (outputs,) int32."""
    for o in range(weight.shape[0]):
        differ = np.int64(0)
        for k in range(weight.shape[1]):
            differ += popcount(source[k] ^ weight[o, k])
        dot[o] = channels - 2 * differ


@compiled
def align_groups(source: Any, channels: int, target: Any) -> None:
    """Move each group to words of its own: (H, W, words) -> (H, W, groups, words)."""
    height, width, groups, words = target.shape
    one = np.uint64(1)
    for y in range(height):
        for x in range(width):
            for g in range(groups):
                for k in range(words):
                    word = np.uint64(0)
                    for i in range(min(64, channels - k * 64)):
                        c = g * channels + k * 64 + i
                        bit = (source[y, x, c // 64] >> np.uint64(c % 64)) & one
                        word |= bit << np.uint64(i)
                    target[y, x, g, k] = word


@compiled
def pack_signs(source: Any, target: Any) -> None:
    """Signs of (pixels, channels) float32 to (pixels, words)."""
    pixels, channels = source.shape
    for p in range(pixels):
        for k in range(target.shape[1]):
            word = np.uint64(0)
            for i in range(min(64, channels - k * 64)):
                if source[p, k * 64 + i] < 0:
                    word |= np.uint64(1) << np.uint64(i)
            target[p, k] = word


@compiled
def conv2d(source: Any, weight: Any, window: Any, target: Any) -> None:
    """Float convolution; weight (groups, kh, kw, channels, outputs), target without bias."""
    height, width, _ = source.shape
    groups, kh, kw, channels, outputs = weight.shape
    for oy in range(target.shape[0]):
        for ox in range(target.shape[1]):
            target[oy, ox, :] = 0
            for g in range(groups):
                for ky in range(kh):
                    y = oy * window[0] - window[2] + ky * window[4]
                    for kx in range(kw):
                        x = ox * window[1] - window[3] + kx * window[5]
                        if y < 0 or y >= height or x < 0 or x >= width:
                            continue
                        for c in range(channels):
                            a = source[y, x, g * channels + c]
                            for o in range(outputs):
                                target[oy, ox, g * outputs + o] += a * weight[g, ky, kx, c, o]


@compiled
def max_pool2d(source: Any, kernel: Any, window: Any, target: Any) -> None:
    """Maximum of the taps inside the map; a NaN among them wins."""
    height, width, channels = source.shape
    for oy in range(target.shape[0]):
        for ox in range(target.shape[1]):
            target[oy, ox, :] = -np.inf
            for y in range(oy * window[0] - window[2], oy * window[0] - window[2] + kernel[0]):
                for x in range(ox * window[1] - window[3], ox * window[1] - window[3] + kernel[1]):
                    if y < 0 or y >= height or x < 0 or x >= width:
                        continue
                    for c in range(channels):
                        a, b = target[oy, ox, c], source[y, x, c]
                        if not (a >= b) and a == a:  # a == a is false for NaN alone
                            target[oy, ox, c] = b


@compiled
def max_pool2d_signs(source: Any, kernel: Any, window: Any, target: Any) -> None:
    """Maximum of packed signs: the AND of the words, since bit 1 is -1."""
    height, width, words = source.shape
    for oy in range(target.shape[0]):
        for ox in range(target.shape[1]):
            target[oy, ox, :] = ~np.uint64(0)
            for y in range(oy * window[0] - window[2], oy * window[0] - window[2] + kernel[0]):
                for x in range(ox * window[1] - window[3], ox * window[1] - window[3] + kernel[1]):
                    if y < 0 or y >= height or x < 0 or x >= width:
                        continue
                    for k in range(words):
                        target[oy, ox, k] &= source[y, x, k]


@compiled
def window_sums(source: Any, kernel: Any, window: Any, target: Any, inside: Any) -> None:
    """Add up the taps inside the map, and count them: inside (Hout, Wout) int64."""
    height, width, channels = source.shape
    for oy in range(target.shape[0]):
        for ox in range(target.shape[1]):
            target[oy, ox, :] = 0
            inside[oy, ox] = 0
            for ky in range(kernel[0]):
                y = oy * window[0] - window[2] + ky * window[4]
                for kx in range(kernel[1]):
                    x = ox * window[1] - window[3] + kx * window[5]
                    if y < 0 or y >= height or x < 0 or x >= width:
                        continue
                    inside[oy, ox] += 1
                    for c in range(channels):
                        target[oy, ox, c] += source[y, x, c]

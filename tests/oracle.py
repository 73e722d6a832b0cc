"""The right answers, in float64, for one sample.

Imports nothing of bitinfer and works unlike any of its backends: signs are numbers, windows are
whole maps shifted and added up tap by tap, pools are loops over every window.
float64 holds the integers exactly, and it holds the exact product of two float32 numbers.
"""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Pair = tuple[int, int]
Padding = tuple[int, int, int, int]


def signs(x: Array, threshold: Array | None = None, flip: Array | None = None) -> Array:
    """-1 where (x < threshold) != flip, by channel, else +1; -0.0 and NaN are below nothing."""
    limit = np.float64(0) if threshold is None else threshold.astype(np.float64)
    is_below = x.astype(np.float64) < limit
    return np.where(is_below != (False if flip is None else flip), -1.0, 1.0)


def bits_of(x: Array) -> Array:
    """Words of the signs along the last axis: sign i is bit i % 64 of word i // 64."""
    length = x.shape[-1]
    words = np.zeros((*x.shape[:-1], (length + 63) // 64), np.uint64)
    for i in range(length):
        words[..., i // 64] |= np.where(x[..., i] < 0, np.uint64(1 << (i % 64)), np.uint64(0))
    return words


def signs_of(words: Array, length: int) -> Array:
    """The signs that words stand for, as -1.0 and +1.0: the inverse of :func:`bits_of`."""
    is_negative = (words[..., None] & (np.uint64(1) << np.arange(64, dtype=np.uint64))) != 0
    return np.where(is_negative.reshape(*words.shape[:-1], -1)[..., :length], -1.0, 1.0)


def window_shape(
    extent: Pair, kernel: Pair, stride: Pair, padding: Padding, dilation: Pair = (1, 1)
) -> Pair:
    """(Hout, Wout), by counting the positions at which the window fits."""
    result = []
    for axis in (0, 1):
        padded = extent[axis] + padding[2 * axis] + padding[2 * axis + 1]
        starts = range(0, padded, stride[axis])
        result.append(sum(s + dilation[axis] * (kernel[axis] - 1) < padded for s in starts))
    return result[0], result[1]


def shifted_maps(
    x: Array, kernel: Pair, stride: Pair, padding: Padding, dilation: Pair, fill: float
) -> itertools.chain[tuple[int, int, Array]]:
    """(ky, kx, what the tap (ky, kx) of every window sees: (Hout, Wout, C)), tap after tap."""
    height, width, channels = x.shape
    top, bottom, left, right = padding
    canvas = np.full((height + top + bottom, width + left + right, channels), fill, np.float64)
    canvas[top : top + height, left : left + width] = x
    out_h, out_w = window_shape((height, width), kernel, stride, padding, dilation)

    def tap(ky: int, kx: int) -> Array:
        y, z = ky * dilation[0], kx * dilation[1]
        rows = slice(y, y + (out_h - 1) * stride[0] + 1, stride[0])
        return canvas[rows, z : z + (out_w - 1) * stride[1] + 1 : stride[1]]

    taps = itertools.product(range(kernel[0]), range(kernel[1]))
    return itertools.chain((ky, kx, tap(ky, kx)) for ky, kx in taps)


def conv2d(
    x: Array,
    weight: Array,
    *,
    stride: Pair = (1, 1),
    padding: Padding = (0, 0, 0, 0),
    dilation: Pair = (1, 1),
    groups: int = 1,
    pad_value: float = 0.0,
) -> Array:
    """Convolve x (H, W, C) with weight (Cout, kh, kw, C / groups): of signs, an exact integer."""
    cout, kh, kw, per_group = weight.shape
    w = weight.astype(np.float64).reshape(groups, cout // groups, kh, kw, per_group)
    result: Any = 0.0
    for ky, kx, seen in shifted_maps(x, (kh, kw), stride, padding, dilation, pad_value):
        grouped = seen.reshape(*seen.shape[:2], groups, per_group)
        result = result + np.einsum("hwgc,goc->hwgo", grouped, w[:, :, ky, kx])
    return result.reshape(*result.shape[:2], cout)


def dense(x: Array, weight: Array) -> Array:
    """Product of weight (Cout, Cin) with a vector."""
    return np.sum(weight.astype(np.float64) * x.astype(np.float64)[None, :], axis=1)


def scale(
    dot: Array,
    alpha: Array | None,
    beta_map: Array | None,
    bias: Array | None,
    groups: int = 1,
    *,
    floor: Array | None = None,
    residual: Array | None = None,
) -> Array:
    """``max(dot, floor) * alpha * beta + bias + residual``, each where it is given.

    Each step is rounded to float32, exactly as IEEE 754 rounds.

    float64 holds products of float32 numbers exactly, and rounding their sums twice does no harm
    since 53 >= 2 * 24 + 2 (Figueroa 1995, "When is double rounding innocuous?").
    """
    y = _round(dot.astype(np.float64))
    if floor is not None:
        y = np.maximum(y, floor.astype(np.float64))
    if alpha is not None:
        y = _round(y * alpha.astype(np.float64))
    if beta_map is not None:
        per_output = np.repeat(beta_map.astype(np.float64), dot.shape[-1] // groups, axis=-1)
        y = _round(y * per_output)
    if bias is not None:
        y = _round(y + bias.astype(np.float64))
    if residual is not None:
        y = _round(y + residual.astype(np.float64))
    return y.astype(np.float32)


def beta_map(
    x: Array,
    kernel: Pair = (1, 1),
    stride: Pair = (1, 1),
    padding: Padding = (0, 0, 0, 0),
    dilation: Pair = (1, 1),
    groups: int = 1,
) -> Array:
    """XNOR-Net's K: A = mean of |x| over the channels, then K = A * (box of 1 / (kh kw))."""
    if x.ndim == 1:
        return np.array([math.fsum(abs(v) for v in x.tolist()) / len(x)])
    means = [np.mean(np.abs(part.astype(np.float64)), axis=-1) for part in np.split(x, groups, -1)]
    area = np.stack(means, axis=-1)
    taps = shifted_maps(area, kernel, stride, padding, dilation, 0.0)
    return sum((seen for _, _, seen in taps), np.float64(0)) / (kernel[0] * kernel[1])


def pool2d(
    x: Array,
    kind: str,
    kernel: Pair,
    stride: Pair,
    padding: Padding = (0, 0, 0, 0),
    *,
    count_include_pad: bool = True,
) -> Array:
    """Maximum, minimum or mean over windows, one by one; ``kind`` is "max", "min", "mean"."""
    height, width, channels = x.shape
    out_h, out_w = window_shape((height, width), kernel, stride, padding)
    result = np.empty((out_h, out_w, channels))
    for oy, ox in np.ndindex(out_h, out_w):
        y, z = oy * stride[0] - padding[0], ox * stride[1] - padding[2]
        inside = np.array(
            [
                x[i, j]
                for i in range(y, y + kernel[0])
                for j in range(z, z + kernel[1])
                if 0 <= i < height and 0 <= j < width
            ],
            np.float64,
        )
        if kind == "min":
            result[oy, ox] = inside.min(axis=0)
        elif kind == "max":  # a NaN among the numbers is their maximum
            result[oy, ox] = inside.max(axis=0)
        else:
            taps = kernel[0] * kernel[1] if count_include_pad else len(inside)
            result[oy, ox] = [math.fsum(column) / taps for column in inside.T.tolist()]
    return result


def flatten(x: Array, order: str) -> Array:
    """(H, W, C) to a vector, channel by channel; a vector stays as it is."""
    if x.ndim == 1:
        return x
    height, width, channels = x.shape
    result = np.empty(x.size, x.dtype)
    for c in range(channels):
        pixels = [x[y, z, c] for y in range(height) for z in range(width)]
        if order == "channels_first":
            result[c * height * width : (c + 1) * height * width] = pixels
        else:
            result[c::channels] = pixels
    return result


def batch_norm(
    x: Array,
    mean: Array,
    variance: Array,
    gamma: Array | None,
    beta: Array | None,
    epsilon: float,
) -> Array:
    """(x - mean) / sqrt(variance + epsilon) * gamma + beta."""
    y = (x.astype(np.float64) - mean) / np.sqrt(variance.astype(np.float64) + epsilon)
    if gamma is not None:
        y = y * gamma
    return y if beta is None else y + beta


def activate(
    x: Array,
    kind: str,
    *,
    shift_in: Array | None = None,
    slope: Array | None = None,
    shift_out: Array | None = None,
    low: float = 0.0,
    high: float = 0.0,
) -> Array:
    """An activation, each operation rounded to float32 (a sigmoid: once)."""
    v = x.astype(np.float64)
    with np.errstate(all="ignore"):
        if kind == "relu":
            v = np.where(v > 0, v, 0.0)
        elif kind == "clip":
            v = np.where(np.isnan(v), low, np.where(v < low, low, np.where(v > high, high, v)))
        elif kind == "sigmoid":
            v = np.array([_sigmoid(number) for number in v.ravel().tolist()]).reshape(v.shape)
        else:
            if kind == "rprelu":
                v = _round(v + np.asarray(shift_in, np.float64))
            v = np.where(v < 0, _round(v * np.asarray(slope, np.float64)), v)
            if kind == "rprelu":
                v = v + np.asarray(shift_out, np.float64)
        return v.astype(np.float32)


def _sigmoid(v: float) -> float:
    e = math.exp(-abs(v))
    return 1 / (1 + e) if v >= 0 else e / (1 + e) if v < 0 else v


def quantize(x: Array, scale: float) -> Array:
    """x / scale (a float32, as is the quotient) to the nearest even integer in -128 to 127."""
    with np.errstate(all="ignore"):  # beyond float32 it is at one of the ends
        v = _round(x.astype(np.float64) / float(np.float32(scale)))
    return np.where(np.isnan(v), 0.0, np.rint(np.clip(v, -128.0, 127.0)) + 0.0)


def pad2d(x: Array, padding: Padding, value: float) -> Array:
    """A map within a border of ``value``."""
    top, bottom, left, right = padding
    height, width, channels = x.shape
    result = np.full((height + top + bottom, width + left + right, channels), value, np.float64)
    for y, z in np.ndindex(height, width):
        result[top + y, left + z] = x[y, z]
    return result


def shuffle_channels(x: Array, groups: int) -> Array:
    """Channel g * (C / groups) + i becomes channel i * groups + g."""
    per_group = x.shape[-1] // groups
    result = np.empty_like(x)
    for g in range(groups):
        for i in range(per_group):
            result[..., i * groups + g] = x[..., g * per_group + i]
    return result


def global_pool2d(x: Array, mode: str) -> Array:
    """Mean or maximum of every channel; a NaN among the numbers is their maximum."""
    columns = [x[..., c].ravel().tolist() for c in range(x.shape[-1])]
    if mode == "mean":
        return np.array([math.fsum(column) / len(column) for column in columns])
    return np.array([math.nan if any(map(math.isnan, c)) else max(c) for c in columns])


def relu(x: Array) -> Array:
    """Maximum of x and 0; 0 for NaN."""
    return np.array([v if v > 0 else 0.0 for v in x.ravel().tolist()]).reshape(x.shape)


def softmax(x: Array) -> Array:
    """Softmax of a vector."""
    top = max(x.tolist())
    e = [math.exp(v - top) for v in x.tolist()]
    return np.array([v / math.fsum(e) for v in e])


def normalize(pixels: Array, scale: float, mean: Any, std: Any) -> Array:
    """(pixel * scale - mean) / std per channel."""
    result = np.empty(pixels.shape)
    for c in range(pixels.shape[-1]):
        result[..., c] = (pixels[..., c].astype(np.float64) * scale - mean[c]) / std[c]
    return result


def _round(x: Array) -> Array:
    return x.astype(np.float32).astype(np.float64)

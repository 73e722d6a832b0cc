"""Float32 arithmetic that passes and backends share, so that all of them round alike.

Every function states its operations in order; each is rounded to float32 on its own (no fused
multiply-add).  Composed of monotone steps, a per-channel chain is therefore monotone as a whole.

    layer          y = max(float32(sum), floor)              (where there is one)
                   y = y * alpha                             (alpha absent: 1)
                   y = y * beta_map                          (where there is one)
                   y = y + bias                              (where there is one)
                   y = y + residual                          (where there is one)
                   y = activation(y)                         (where there is one)
    BatchNorm      y = float32((x - mean) * scale + shift), computed in float64 and rounded once

The sum of a binary layer is an integer, and a BatchNorm whose zero lies close to one decides the
sign of all pixels with that sum: in float32, and with ``x * scale + shift``, which cancels there,
one in six networks gets such a sign wrong.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from bitinfer.bits import Floats

Doubles = NDArray[np.float64]


class Norm(NamedTuple):
    """A BatchNorm at inference, ``y = (x - mean) * scale + shift``; each float64 (C,)."""

    mean: Doubles
    scale: Doubles
    shift: Doubles

    def folded(self) -> tuple[Doubles, Doubles]:
        """Return a and b of ``y = x * a + b``, which cancels where y is close to 0."""
        return self.scale, self.shift - self.mean * self.scale


def batch_norm(
    mean: Floats,
    variance: Floats,
    gamma: Floats | None,
    beta: Floats | None,
    epsilon: float,
) -> Norm:
    """Return what a BatchNorm does at inference (Ioffe and Szegedy 2015, Algorithm 2).

    scale = gamma / sqrt(variance + epsilon), shift = beta.
    """
    wide = np.float64
    scale = 1.0 / np.sqrt(variance.astype(wide) + epsilon)
    if gamma is not None:
        scale = gamma.astype(wide) * scale
    shift = np.zeros(len(mean)) if beta is None else beta.astype(wide)
    return Norm(mean.astype(wide), scale, shift)


def batch_norm_affine(
    mean: Floats,
    variance: Floats,
    gamma: Floats | None,
    beta: Floats | None,
    epsilon: float,
) -> tuple[Floats, Floats]:
    """Return ``scale`` and ``shift`` (C,) of a BatchNorm, for what computes ``x * scale + shift``.

    Both are rounded once.  Infinite where float32 is too small.
    """
    scale, shift = batch_norm(mean, variance, gamma, beta, epsilon).folded()
    with np.errstate(all="ignore"):
        return scale.astype(np.float32), shift.astype(np.float32)


def normalize(x: Floats, norm: Norm) -> Floats:
    """Return the BatchNorm of x along the last axis: in float64, rounded once."""
    with np.errstate(all="ignore"):
        y = x - norm.mean
        y *= norm.scale
        y += norm.shift
        return y.astype(np.float32)


def scale_sum(
    total: NDArray[Any],
    alpha: Floats | None = None,
    bias: Floats | None = None,
    beta_map: Floats | None = None,
    floor: Floats | None = None,
) -> Floats:
    """Return the float output of a layer from its sums, before residual and activation.

    Shapes:  total (..., Cout) of integers or floats; alpha, bias and floor (Cout,); beta_map
             broadcastable to total.
    """
    y = total.astype(np.float32)
    if floor is not None:
        y = np.where(y > floor, y, floor)
    if alpha is not None:
        y *= alpha
    if beta_map is not None:
        y *= beta_map
    if bias is not None:
        y += bias
    return y


def activate(
    y: Floats,
    kind: str,
    *,
    shift_in: Floats | None = None,
    slope: Floats | None = None,
    shift_out: Floats | None = None,
    low: float = 0.0,
    high: float = 0.0,
) -> Floats:
    """Return an activation of y (..., C); shift_in, slope and shift_out are (C,).

    ``relu``: max(y, 0); ``prelu``: y where y >= 0, else y * slope; ``rprelu``:
    prelu(y + shift_in) + shift_out; ``clip``: between low and high; ``sigmoid``: in float64,
    rounded once.
    NaN becomes 0 with relu and ``low`` with clip.
    """
    zero = np.float32(0)
    if kind == "relu":
        return np.where(y > zero, y, zero)
    if kind == "sigmoid":
        with np.errstate(all="ignore"):
            return (1 / (1 + np.exp(-y.astype(np.float64)))).astype(np.float32)
    if kind == "clip":
        bottom = np.where(y > np.float32(low), y, np.float32(low))
        return np.where(bottom < np.float32(high), bottom, np.float32(high))
    assert slope is not None
    if kind == "prelu":
        return np.where(y < zero, y * slope, y)
    assert shift_in is not None
    assert shift_out is not None
    y = y + shift_in
    return np.where(y < zero, y * slope, y) + shift_out


def quantize(x: Floats, scale: float) -> NDArray[np.int8]:
    """Return x / scale, rounded half to even, between -128 and 127; NaN becomes 0."""
    with np.errstate(all="ignore"):
        q = np.nan_to_num(np.rint(x / np.float32(scale)), nan=0.0, posinf=127, neginf=-128)
    return np.asarray(np.clip(q, -128, 127), np.int8)


def softmax(x: Floats) -> Floats:
    """Return the softmax over the last axis; the exponentials are summed in float64."""
    with np.errstate(all="ignore"):  # infinity among x gives NaN
        shifted = (x - np.max(x, axis=-1, keepdims=True)).astype(np.float64)
        e = np.exp(shifted)
        return np.asarray(e / np.sum(e, axis=-1, keepdims=True), dtype=np.float32)


def subtract_mean_image(
    pixels: NDArray[np.uint8],
    image: Floats,
    scale: float,
    mean: Sequence[float],
    std: Sequence[float],
) -> Floats:
    """Return ``((p - image) * scale - mean[c]) / std[c]`` as float32.

    Shapes:  pixels (..., H, W, C), image (H, W, C), mean and std of length C  ->  as pixels.
             Computed in float64, rounded once.
    """
    m = np.asarray(mean, dtype=np.float64)
    s = np.asarray(std, dtype=np.float64)
    return (((pixels - image.astype(np.float64)) * scale - m) / s).astype(np.float32)


def normalization_table(scale: float, mean: Sequence[float], std: Sequence[float]) -> Floats:
    """Return the float32 value of every pixel byte: ``(p * scale - mean[c]) / std[c]``.

    Shapes:  mean, std of length C  ->  (256, C).  Computed in float64, rounded once; infinite or
             NaN where float32 is too small.
    """
    p = np.arange(256, dtype=np.float64)[:, None]
    m = np.asarray(mean, dtype=np.float64)
    s = np.asarray(std, dtype=np.float64)
    with np.errstate(all="ignore"):
        return ((p * scale - m) / s).astype(np.float32)

"""Where the compiled convolutions find their operands: computed once, when a step is bound.

A convolution reads a *plane*, the map with its left and right padding, as one flat array.  A tap of
an output pixel takes ``depth`` *steps*, each one element of the plane (for all lanes) or one vector
of it (one element for each lane).  An element is 32 packed signs, or one float.

    element = plane[row of the pixel + column of the pixel + offset of the step]

Rows of taps above and below the map are skipped, so the plane needs no rows for them.  Output rows
that skip the same ones are a *band*.  Pixels whose window leaves the map in the same way are of one
*class*, and have one row of constants, which make good what was skipped, or was read as 0.
"""

from __future__ import annotations

import dataclasses

import numpy as np
from numpy.typing import NDArray

from bitinfer.backends.base import Array, aligned_bytes
from bitinfer.backends.numba.vectors import LANES
from bitinfer.bits import Words
from bitinfer.plan.steps import Window

Indices = NDArray[np.int64]


@dataclasses.dataclass(frozen=True)
class Walk:
    """Positions in a plane, in elements.

    Attributes:
        rows: (Hout, 3): position of the row, first tap row inside the map, end of the tap rows.
        columns: (Wout, 3): position of the column, first tap column inside the map, end.
        offsets: (kernel_h * kernel_w * depth,): position of each step.
    """

    rows: Indices
    columns: Indices
    offsets: Indices


def walk(
    window: Window,
    shape: tuple[int, ...],
    out_shape: tuple[int, ...],
    *,
    pitch: int,
    depth: int = 1,
    distance: int = 1,
    is_padded: bool = True,
) -> Walk:
    """Return the positions for a map of ``shape`` in a plane.

    ``pitch``: elements of a pixel; ``distance``: from one step to the next of the same tap;
    ``is_padded``: the plane has the map's left and right padding.
    """
    top, _, left, right = window.padding
    margin = left if is_padded else 0
    width = (shape[1] + (left + right if is_padded else 0)) * pitch
    (kh, kw), (dh, dw) = window.kernel, window.dilation
    rows = _axis(out_shape[0], window.stride[0], top, dh, kh, shape[0])
    columns = _axis(out_shape[1], window.stride[1], left, dw, kw, shape[1])
    rows[:, 0] *= width
    columns[:, 0] = (columns[:, 0] + margin) * pitch
    taps = (np.arange(kh) * dh * width)[:, None] + np.arange(kw) * dw * pitch
    offsets = taps[..., None] + np.arange(depth) * distance
    return Walk(rows, columns, np.ascontiguousarray(offsets.reshape(-1), np.int64))


def _axis(out: int, stride: int, padding: int, dilation: int, kernel: int, extent: int) -> Indices:
    """Return, for each output: position of the first tap, first tap inside the map, end."""
    position = np.arange(out) * stride - padding
    first = np.clip(-(position // dilation), 0, kernel)
    end = np.clip(-((position - extent) // dilation), first, kernel)
    return np.stack([position, first, end], axis=1).astype(np.int64)


@dataclasses.dataclass(frozen=True)
class Pixels:
    """The output pixels of a convolution, in their order.

    Attributes:
        positions: (pixels, 2): position in the plane, where the pixel's row of constants begins.
        bands: (bands, 4): first pixel, end of the pixels, first step, end of the steps.
        classes: for each row of constants, the taps inside the map: first row, end, first column,
            end.
    """

    positions: Indices
    bands: Indices
    classes: list[tuple[int, int, int, int]]


def pixels(at: Walk, kernel: tuple[int, int], row_length: int) -> Pixels:
    """Return the output pixels of a walk; a row of constants has ``row_length`` elements."""
    rows, row_class = np.unique(at.rows[:, 1:], axis=0, return_inverse=True)
    columns, column_class = np.unique(at.columns[:, 1:], axis=0, return_inverse=True)
    number = row_class.reshape(-1, 1) * len(columns) + column_class.reshape(1, -1)
    position = at.rows[:, :1] + at.columns[:, 0]
    positions = np.stack([position, number * row_length], axis=-1).reshape(-1, 2)
    width, steps_per_row = len(at.columns), len(at.offsets) // kernel[0]
    starts = np.flatnonzero(np.any(np.diff(at.rows[:, 1:], axis=0) != 0, axis=1)) + 1
    starts = np.concatenate([[0], starts]).astype(np.int64)
    ends = np.append(starts[1:], len(at.rows))
    taps = at.rows[starts, 1:] * steps_per_row
    bands = np.concatenate([np.stack([starts, ends], axis=1) * width, taps], axis=1)
    classes = [(int(r[0]), int(r[1]), int(c[0]), int(c[1])) for r in rows for c in columns]
    return Pixels(np.ascontiguousarray(positions, np.int64), bands.astype(np.int64), classes)


def signs_in_steps(words: Words, depth: int) -> NDArray[np.uint32]:
    """Cut words (..., W) to the first ``depth`` pieces of 32 signs: (..., depth)."""
    low, high = words & np.uint64(0xFFFFFFFF), words >> np.uint64(32)
    pieces = np.stack([low, high], axis=-1).reshape(*words.shape[:-1], -1)
    return pieces[..., :depth].astype(np.uint32)


def in_lanes(weight: Array, lanes: int = LANES) -> Array:
    """Re-lay weight (groups, outputs, ...) as [group][block][step][lane], flat and aligned.

    A block is as many outputs as there are lanes; those past the last output are 0.
    """
    groups, outputs = weight.shape[:2]
    blocks = -(-outputs // lanes)
    padded = np.zeros((groups, blocks * lanes, weight[0, 0].size), weight.dtype)
    padded[:, :outputs] = weight.reshape(groups, outputs, -1)
    moved = padded.reshape(groups, blocks, lanes, -1).transpose(0, 1, 3, 2)
    result: Array = aligned_bytes(moved.nbytes).view(weight.dtype)
    result[...] = moved.reshape(-1)
    return result

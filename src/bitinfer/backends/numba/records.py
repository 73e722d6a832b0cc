"""The record of a step: all that its kernel is told, in one flat struct.

Places are those of memory.py.  Arrays are given by their addresses; constants of outputs are padded
to any vector that begins at an output.  Fields that a kernel does not read are 0.
"""

from __future__ import annotations

import numpy as np

_PLACES = ("source", "target", "other", "beta", "signs", "scratch")
_NUMBERS = (
    "flags",
    "activation",
    "in_h",
    "in_w",
    "in_c",
    "in_words",  # words of a pixel of packed signs
    "pixels",  # of the target
    "out_h",
    "out_w",
    "out_c",
    "out_words",
    "target_pitch",  # floats of a pixel of the target's buffer
    "other_pitch",  # of the other value's
    "groups",  # of the weights
    "plane_groups",  # of the plane
    "group_outputs",
    "group_channels",
    "group_step",  # elements of the plane from one group to the next
    "beta_groups",
    "left",  # columns of padding in the plane
    "plane_w",
    "plane_pitch",  # elements of a pixel of the plane
    "copies",  # how often a piece of signs stands in the plane
    "piece_step",
    "steps",  # of a pixel
    "bands",  # their number
    "kernel_w",
    "taps",
    "table_channels",
    "begin",
    "to",
    "count",
)
_ARRAYS = (
    "band_table",  # (bands, 4) int64: first pixel, end, first step, end
    "positions",  # (pixels, 2) int64: position in the plane, row of constants
    "rows",  # (out_h, 3) int64, as of layout.Walk
    "columns",  # (out_w, 3) int64
    "offsets",  # int64, one for each step of a pixel
    "channels",  # (plane_pitch,) int64: which channel an element of the plane is; -1: none
    "weight",
    "bases",  # int32: sums before mismatches are counted
    "less",  # float64: what is subtracted from sums
    "table",  # (256, table_channels) float32
    "alpha",
    "bias",
    "floor",
    "shift_in",
    "slope",
    "shift_out",
    "threshold",
    "flips",  # (out_words,) uint64
)

STEP = np.dtype(
    [(name, np.int64) for name in (*_PLACES, *_NUMBERS, *_ARRAYS)]
    + [("low", np.float32), ("high", np.float32)]
)
"""The struct."""

(
    FLOOR,
    ALPHA,
    BETA,
    BIAS,
    BIASES,  # one row of them for every row of constants
    OTHER,  # is added
    PRODUCT,  # the other value is a factor instead
    OTHER_IS_VECTOR,
    SIGNS,  # are written
    FLOATS,  # are written
    STAGED,  # the plane is made in scratch
    OWN,  # every lane has elements of its own in the plane
    OCTETS,  # the source is of uint8, or int8
    INT8,
    IDENTITY,  # elements of the plane are the channels in their order
    COUNT_PADDING,
    CHANNELS_FIRST,
    BITS,
) = (1 << i for i in range(18))
"""Flags of a record."""

NO_ACTIVATION, RELU, PRELU, RPRELU, CLIP, SIGMOID = range(6)

BATCH = 64
"""Pixels whose sums are kept between their loop and the epilogue."""

SUMS_BYTES = BATCH * 16 * 4
"""At the beginning of a layer's scratch; its plane lies behind."""

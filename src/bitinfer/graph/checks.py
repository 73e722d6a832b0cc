"""Limits, and the checks of values and tensors that the rules of all nodes are made of.

The limits keep a hostile file from asking for unbounded memory or time.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bitinfer.bits import has_stray_bits, words_for
from bitinfer.errors import GraphError, ShapeError
from bitinfer.graph.values import Kind, Padding, Pair, Tensors, Value

MAX_EXTENT = 1 << 14
"""Largest height, width, kernel extent, stride or padding."""
MAX_CHANNELS = 1 << 20
"""Largest number of channels, or length of a vector."""
MAX_VALUE_BYTES = 1 << 28
"""Largest value of one sample, as float32; also the largest padded map."""
MAX_TOTAL_BYTES = 1 << 31
"""All values of one sample together, as float32: all may live at once."""
MAX_REDUCTION = 1 << 24
"""Largest K of a binary layer: integers up to here are exact in float32."""
MAX_SUM = (1 << 31) - 1
"""Largest integer sum of a layer, whatever its input."""
MAX_OPERATIONS = 1 << 38
"""Largest number of multiply-accumulates (or window taps) of one inference."""
MAX_ROW_OPERATIONS = 1 << 34
"""Largest number of operations for one row of a result: it cannot be interrupted."""
MAX_ROW_TAPS = 1 << 30
"""The same for the taps of a window without weights."""
MAX_NODES = 1 << 11
MAX_READS = 1 << 13
"""Largest number of inputs of all nodes together: a plan has a step for each part of a concat."""

_SUMMED = 1 << 20
"""Weights whose magnitudes are summed at a time."""


def window_output(
    extent: Pair, kernel: Pair, stride: Pair, padding: Padding, dilation: Pair = (1, 1)
) -> Pair:
    """Return (Hout, Wout) of a window that slides over a padded map of ``extent`` (H, W).

    Raises:
        ShapeError: a parameter is out of range, or the window is larger than the padded map.
    """
    for what, pair in (("kernel", kernel), ("stride", stride), ("dilation", dilation)):
        if not all(1 <= v <= MAX_EXTENT for v in pair):
            raise ShapeError(f"{what} {pair} is not within 1 to {MAX_EXTENT}")
    if not all(0 <= v <= MAX_EXTENT for v in padding):
        raise ShapeError(f"padding {padding} is not within 0 to {MAX_EXTENT}")
    result = []
    for axis in (0, 1):
        padded = extent[axis] + padding[2 * axis] + padding[2 * axis + 1]
        reach = dilation[axis] * (kernel[axis] - 1) + 1
        if reach > padded:
            raise ShapeError(
                f"the window reaches over {reach} pixels along axis {axis}, "
                f"but the padded map has only {padded}"
            )
        result.append((padded - reach) // stride[axis] + 1)
    return result[0], result[1]


def check_value(name: str, value: Value) -> int:
    """Return the bytes of a value, as float32.  Raises ShapeError if it exceeds a limit."""
    *extents, channels = value.shape
    if not 1 <= channels <= MAX_CHANNELS or not all(1 <= e <= MAX_EXTENT for e in extents):
        raise ShapeError(
            f"value {name!r}: shape {value.shape} has an axis of 0, above {MAX_EXTENT} pixels "
            f"or above {MAX_CHANNELS} channels"
        )
    size = 4 * math.prod(value.shape)
    if size > MAX_VALUE_BYTES:
        raise ShapeError(f"value {name!r}: shape {value.shape} takes over {MAX_VALUE_BYTES} bytes")
    return size


def check_padded(shape: tuple[int, ...], padding: Padding) -> None:
    """Refuse a padded map that is too large to be made, as some backends do."""
    height, width = shape[0] + padding[0] + padding[1], shape[1] + padding[2] + padding[3]
    if 4 * height * width * shape[-1] > MAX_VALUE_BYTES:
        raise ShapeError(f"the padded map takes over {MAX_VALUE_BYTES} bytes")


def check_signs(tensors: Tensors, name: str, leading: tuple[int, ...], length: int) -> None:
    """Refuse a weight that is not packed signs (*leading, words_for(length))."""
    weight, wanted = tensors[name], (*leading, words_for(length))
    if weight.dtype != np.uint64 or weight.shape != wanted or 0 in wanted:
        raise ShapeError(
            f"weight {name!r} is {weight.dtype} of shape {weight.shape}, wanted uint64 of shape "
            f"{wanted} for {length} signs"
        )
    if tensors.ask(f"stray bits of {length}", name, lambda t: has_stray_bits(t, length)):
        raise ShapeError(f"weight {name!r} has bits set past its {length} signs")


def check_numbers(tensors: Tensors, name: str, shape: tuple[int, ...]) -> None:
    """Refuse a weight that is not finite float32, int16 or int8 of ``shape``."""
    weight = tensors[name]
    if weight.dtype not in (np.float32, np.int16, np.int8) or weight.shape != shape or 0 in shape:
        raise ShapeError(
            f"tensor {name!r} is {weight.dtype} of shape {weight.shape}, wanted float32, int16 or "
            f"int8 of {shape}"
        )
    _check_finite(tensors, name)


def check_sums(tensors: Tensors, name: str, length: int, kind: Kind) -> None:
    """Refuse weights whose integer sums with a uint8 or int8 value could exceed 32 bits."""
    largest = length if tensors[name].dtype == np.uint64 else _largest_row_sum(tensors, name)
    if largest * (255 if kind == "uint8" else 128) > MAX_SUM:
        raise ShapeError(f"weight {name!r}: sums with {kind} values may exceed {MAX_SUM}")


def check_offset(
    tensors: Tensors, name: str, length: int, offset: NDArray[Any], alpha: NDArray[Any] | None
) -> None:
    """Refuse an offset whose share of a result, ``alpha * sum(weight * offset)``, is no float32.

    ``name`` is the weight's, ``length`` the channels of a group.
    """
    weight = tensors[name]
    taps = math.prod(weight.shape[1:-1]) * length
    largest = taps if weight.dtype == np.uint64 else _largest_row_sum(tensors, name)
    scale = 1.0 if alpha is None else float(np.abs(alpha).max())
    if largest * float(np.abs(offset).max()) * scale > float(np.finfo(np.float32).max) / 2:
        raise ShapeError("the offset times the weights is too large for float32")


def _largest_row_sum(tensors: Tensors, name: str) -> int:
    """Return the largest sum of |weight| of an output."""
    return tensors.ask("largest row sum", name, lambda t: max(_row_sums(t)))


def _row_sums(weight: NDArray[Any]) -> Iterator[int]:
    """Yield the largest sum of |weight| of an output, some outputs at a time: int64 takes room."""
    rows = weight.reshape(len(weight), -1)
    at_a_time = max(1, _SUMMED // rows.shape[1])
    for first in range(0, len(rows), at_a_time):
        part = rows[first : first + at_a_time].astype(np.int64)
        yield int(np.abs(part).sum(axis=1).max())


def check_floats(
    tensors: Tensors, name: str | None, shape: tuple[int, ...], dtype: type = np.float32
) -> None:
    """Refuse a tensor, if there is one, that is not finite numbers of ``dtype`` and ``shape``."""
    if name is None:
        return
    tensor = tensors[name]
    if tensor.dtype != dtype or tensor.shape != shape or 0 in shape:
        raise ShapeError(
            f"tensor {name!r} is {tensor.dtype} of shape {tensor.shape}, wanted "
            f"{np.dtype(dtype)} of {shape}"
        )
    _check_finite(tensors, name)


def check_flags(tensors: Tensors, name: str | None, shape: tuple[int, ...]) -> None:
    """Refuse a tensor, if there is one, that is not uint8 of ``shape``, each 0 or 1."""
    check_floats(tensors, name, shape, np.uint8)
    if name is not None and tensors.ask("above 1", name, lambda t: bool((t > 1).any())):
        raise ShapeError(f"tensor {name!r} holds other numbers than 0 and 1")


def has_nan(tensors: Tensors, name: str) -> bool:
    """Tell whether a tensor holds NaN."""
    return tensors.ask("NaN", name, lambda t: bool(np.isnan(t).any()))


def _check_finite(tensors: Tensors, name: str) -> None:
    if not tensors.ask("finite", name, lambda t: bool(np.isfinite(t).all())):
        raise ShapeError(f"tensor {name!r} holds NaN or infinity")


def check_range(low: float, high: float) -> None:
    """Refuse limits of a clip that are not finite float32 numbers in this order."""
    if not (math.isfinite(low) and math.isfinite(high) and low <= high):
        raise ShapeError(f"clip between {low} and {high}: wanted finite numbers in this order")
    if max(abs(low), abs(high)) > float(np.finfo(np.float32).max):
        raise ShapeError(f"clip between {low} and {high}: too large for float32")


def check_reduction(length: int) -> None:
    """Refuse a K of a binary layer whose results float32 does not hold."""
    if length > MAX_REDUCTION:
        raise ShapeError(f"K = {length} exceeds {MAX_REDUCTION}, above which float32 is inexact")


def want_value(what: str, name: str | None, value: Value | None, wanted: Value) -> None:
    """Refuse a second input, if there is one, that is not as wanted."""
    if value is not None and value != wanted:
        raise ShapeError(
            f"{what} {name!r} is {value.kind} of shape {value.shape}, "
            f"wanted {wanted.kind} of shape {wanted.shape}"
        )


def want_kind(source: Value, *kinds: Kind) -> None:
    """Refuse an input of another kind."""
    if source.kind not in kinds:
        raise GraphError(f"the input is a {source.kind} value, wanted {' or '.join(kinds)}")


def want_rank(source: Value, rank: int) -> None:
    """Refuse an input of another rank."""
    if len(source.shape) != rank:
        wanted = "(H, W, C)" if rank == 3 else "(C,)"
        raise ShapeError(f"the input has shape {source.shape}, wanted {wanted}")

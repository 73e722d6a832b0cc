"""Binds layers with weights: planes, re-laid weights, constants of pixels and of outputs."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from bitinfer import bits
from bitinfer.backends.base import Array
from bitinfer.backends.numba import records as r
from bitinfer.backends.numba.bound import Bound, Shape, map_shape, new_bound, padded
from bitinfer.backends.numba.kernels import layers
from bitinfer.backends.numba.layout import Pixels, in_lanes, pixels, signs_in_steps, walk
from bitinfer.backends.numba.vectors import LANES
from bitinfer.plan import steps
from bitinfer.plan.steps import Layer, Plan, Window

_POINT = Window((1, 1))
"""The window of a dense layer: a convolution of a map of one pixel."""

EXACT_FLOAT = 1 << 24
"""Up to here float32 holds every integer, and so every sum in whatever order."""

_EXACT_WEIGHTS = {np.dtype(np.int8), np.dtype(np.int16), np.dtype(np.uint64)}
"""Of weights whose sums with integers are exact."""


def bind_binary(step: steps.BinaryConv2d | steps.BinaryDense, plan: Plan) -> Bound:
    """Bind a layer of signs."""
    bound = new_bound(layers.bconv2d, step, plan)
    shape, out_shape = (map_shape(plan.buffers[b]) for b in (step.source, step.target))
    window, pad_value, words = _POINT, 0, step.weight
    if isinstance(step, steps.BinaryConv2d):
        window, pad_value = step.window, step.pad_value
        out_shape = (*out_shape[:2], step.outputs)
        _set_places(bound, step, plan)
    else:
        words = words[:, None, None]
    groups, kernel = window.groups, window.kernel
    channels, outputs = shape[-1] // groups, out_shape[-1] // groups
    depth = -(-channels // 32)
    lanes = -(-out_shape[-1] // LANES) * LANES
    # Where a group has fewer outputs than there are lanes, the lanes of a vector are of several
    # groups, and each has elements of its own in the plane.
    is_own = groups > 1 and outputs < LANES
    is_aligned = not is_own and (groups == 1 or channels % bits.WORD_BITS == 0)
    distance, copies = (lanes, outputs) if is_own else (1, 1)
    group_step = outputs if is_own else depth
    if is_aligned:
        group_step = 2 * bits.words_for(channels)
    pitch = depth * lanes if is_own else groups * group_step
    at = walk(window, shape, out_shape, pitch=pitch, depth=depth, distance=distance)
    table = pixels(at, kernel, out_shape[-1] + LANES)
    weight = signs_in_steps(words, depth)
    weight_groups = 1 if is_own else groups
    bound.arrays["weight"] = in_lanes(weight.reshape(weight_groups, -1, *weight.shape[1:]))
    negative = np.bitwise_count(words).sum(axis=-1, dtype=np.int64)
    tap_sums = (channels - 2 * negative).transpose(1, 2, 0)
    bases = _bases(table, tap_sums, channels, pad_value)
    bound.arrays["bases"] = padded(bases, out_shape[-1])
    bound.numbers |= {
        "groups": weight_groups,
        "plane_groups": groups,
        "group_outputs": out_shape[-1] // weight_groups,
        "group_channels": channels,
        "group_step": group_step,
        "copies": copies,
        "piece_step": distance,
    }
    if is_own:
        bound.flag(r.OWN)
    if is_aligned:
        bound.flag(r.IDENTITY)
    plane_size = _set_plane(bound, table, at.offsets, shape, window, pitch)
    if not is_aligned or max(window.padding[2:]) > 0:
        bound.flag(r.STAGED)
        bound.scratch_bytes += plane_size * 4
    _set_epilogue(bound, step, plan)
    return bound


def _set_places(bound: Bound, step: steps.BinaryConv2d, plan: Plan) -> None:
    """Say where target and residual lie, if they are a part of the channels of a buffer."""
    bound.numbers |= {"out_c": step.outputs, "out_words": bits.words_for(step.outputs)}
    bound.numbers["target_pitch"] = plan.buffers[step.target].shape[-1]
    bound.begins["target"] = 4 * step.to
    if step.epilogue.residual is not None:
        bound.numbers["other_pitch"] = plan.buffers[step.epilogue.residual].shape[-1]
        bound.begins["other"] = 4 * step.residual_begin


def _bases(table: Pixels, tap_sums: NDArray[np.int64], channels: int, pad_value: int) -> Array:
    """Return, for each class of pixels, what mismatches are taken from twice: (classes, outputs).

    Rows of taps outside the map are skipped; in the others, padding is counted as +1, the bits 0.
    """
    kernel_w = tap_sums.shape[1]
    rows = []
    for first, end, left, right in table.classes:
        inside_rows = tap_sums[first:end].sum(axis=(0, 1))
        inside = tap_sums[first:end, left:right].sum(axis=(0, 1))
        outside_rows = tap_sums.sum(axis=(0, 1)) - inside_rows
        base = channels * kernel_w * (end - first) + pad_value * outside_rows
        rows.append(base + (pad_value - 1) * (inside_rows - inside))
    return np.array(rows).astype(np.int32)


def bind_numbers(step: steps.Conv2d | steps.Dense, plan: Plan) -> Bound:
    """Bind a layer of floats, pixels or int8, with weights of any type."""
    source = plan.buffers[step.source]
    shape, out_shape = (map_shape(plan.buffers[b]) for b in (step.source, step.target))
    window, table, offset = _POINT, None, None
    if isinstance(step, steps.Conv2d):
        window, table, offset = step.window, step.table, step.offset
    groups, kernel = window.groups, window.kernel
    channels, outputs = shape[-1] // groups, out_shape[-1] // groups
    weight = step.weight
    if weight.dtype == np.uint64:
        weight = bits.unpack(weight, channels)
    weight = weight.reshape(out_shape[-1], *kernel, channels)
    is_exact = source.kind != "float" and table is None and step.weight.dtype in _EXACT_WEIGHTS
    is_wide = is_exact and _largest_sum(weight, source.kind) > EXACT_FLOAT
    kind = np.float64 if is_wide else np.float32
    bound = new_bound(layers.conv2d_wide if is_wide else layers.conv2d, step, plan)
    # As of bind_binary; but where groups have several channels, laying these out costs more than
    # lanes that are not used.
    is_own = groups > 1 and outputs < LANES and channels == 1
    lanes = -(-out_shape[-1] // LANES) * LANES
    channel_of = np.arange(shape[-1])
    if is_own:
        output = np.arange(lanes)
        per_lane = output // outputs * channels + np.arange(channels)[:, None]
        channel_of = np.where(output < out_shape[-1], per_lane, -1).reshape(-1)
    is_identity = np.array_equal(channel_of, np.arange(shape[-1]))
    pitch = len(channel_of)
    at = walk(
        window, shape, out_shape, pitch=pitch, depth=channels, distance=lanes if is_own else 1
    )
    weight_groups = 1 if is_own else groups
    laid = weight.astype(kind).reshape(weight_groups, -1, *weight.shape[1:])
    bound.arrays["weight"] = in_lanes(laid)
    bound.arrays["channels"] = np.ascontiguousarray(channel_of, np.int64)
    bound.numbers |= {
        "groups": weight_groups,
        "group_outputs": out_shape[-1] // weight_groups,
        "group_step": channels,
    }
    bound.flag((r.OWN if is_own else 0) | (r.IDENTITY if is_identity else 0))
    if source.kind != "float":
        bound.flag(r.OCTETS)
        table = _values(source.kind) if table is None else table
        bound.arrays["table"] = np.ascontiguousarray(table, np.float32)
        bound.numbers["table_channels"] = table.shape[1]
    pixel_table = pixels(at, kernel, out_shape[-1] + LANES)
    plane_size = _set_plane(bound, pixel_table, at.offsets, shape, window, pitch)
    if source.kind != "float" or not is_identity or max(window.padding[2:]) > 0:
        bound.flag(r.STAGED)
        bound.scratch_bytes += plane_size * np.dtype(kind).itemsize
    _set_epilogue(bound, step, plan, is_wide=is_wide)
    if offset is not None:
        bound.numbers["flags"] = int(bound.numbers["flags"]) & ~r.BIAS | r.BIASES
        biases = _biases(step, pixel_table, weight, offset, groups)
        bound.arrays["bias"] = padded(biases, out_shape[-1])
    return bound


def _largest_sum(weight: Array, kind: str) -> int:
    """Return a bound of the sums of a layer of integers."""
    largest = np.abs(weight.astype(np.int64)).sum(axis=(1, 2, 3)).max()
    return int(largest) * (255 if kind == "pixels" else 128)


def _values(kind: str) -> NDArray[np.float32]:
    """Return the number of every byte: (256, 1)."""
    octets = np.arange(256, dtype=np.uint8)
    return (octets.view(np.int8) if kind == "int8" else octets).astype(np.float32)[:, None]


def _biases(
    step: Layer, table: Pixels, weight: Array, offset: Array, groups: int
) -> NDArray[np.float32]:
    """Return, for each class of pixels, the bias and what the offset adds: (classes, outputs)."""
    e, outputs = step.epilogue, len(weight)
    offsets = np.repeat(offset.astype(np.float64).reshape(groups, -1), outputs // groups, axis=0)
    taps = np.einsum("oyxc,oc->yxo", weight.astype(np.float64), offsets)
    alpha = np.ones(outputs) if e.alpha is None else e.alpha.astype(np.float64)
    bias = np.zeros(outputs) if e.bias is None else e.bias.astype(np.float64)
    inside = [taps[y:y_end, x:x_end].sum(axis=(0, 1)) for y, y_end, x, x_end in table.classes]
    return (-alpha * np.array(inside) + bias).astype(np.float32)


def _set_plane(
    bound: Bound, table: Pixels, offsets: Array, shape: Shape, window: Window, pitch: int
) -> int:
    """Set where pixels and steps are; return the elements of the plane."""
    left, right = window.padding[2:]
    width = left + shape[1] + right
    bound.numbers |= {
        "left": left,
        "plane_w": width,
        "plane_pitch": pitch,
        "steps": len(offsets),
        "bands": len(table.bands),
    }
    bound.arrays |= {
        "positions": table.positions,
        "band_table": table.bands,
        "offsets": offsets,
    }
    bound.scratch_bytes = r.SUMS_BYTES
    return shape[0] * width * pitch


def _set_epilogue(bound: Bound, step: Layer, plan: Plan, *, is_wide: bool = False) -> None:
    """Set the epilogue; ``is_wide``: float32 may not hold the sums."""
    e = step.epilogue
    outputs = int(bound.numbers["out_c"])
    flags = {"alpha": r.ALPHA, "bias": r.BIAS, "floor": r.FLOOR}
    bound.per_output({"alpha": e.alpha, "bias": e.bias, "floor": e.floor}, flags)
    bound.activation(e.activation)
    less, threshold = np.zeros(outputs), e.sign_threshold
    if e.threshold is not None and is_wide:
        # The difference is rounded behind the subtraction, which keeps its sign.
        less, threshold = e.threshold.astype(np.float64), None
    elif e.threshold is not None:
        # Beyond any sum, and a number that float32 holds.
        limit = EXACT_FLOAT + 2
        threshold = np.clip(e.threshold.astype(np.int64), -limit, limit).astype(np.float32)
    bound.arrays["less"] = padded(less, outputs)
    bound.per_output({"threshold": None}, {})
    if e.threshold is not None or e.sign_threshold is not None:
        bound.signs(step.target if e.signs is None else e.signs, threshold, e.flip)
    if plan.buffers[step.target].kind == "float":
        bound.flag(r.FLOATS)
    if e.beta is not None:
        bound.flag(r.BETA)
        bound.buffers["beta"] = e.beta
        bound.numbers["beta_groups"] = plan.buffers[e.beta].shape[-1]
    if e.residual is not None:
        bound.flag(r.OTHER)
        bound.buffers["other"] = e.residual

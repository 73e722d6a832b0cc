"""Plain NumPy, always there: signs are unpacked to -1.0 and +1.0 and multiplied as floats.

The sums of a binary layer are integers below 2^24, so float32 holds them exactly in any order.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from bitinfer import bits, numerics
from bitinfer.backends.base import Executor
from bitinfer.backends.interpreted import (
    Array,
    Extras,
    InterpretedExecutor,
    StepFunction,
    activate,
    finish_scaled,
    finish_sum,
    pack_below,
)
from bitinfer.graph import nodes
from bitinfer.graph.nodes import Node
from bitinfer.plan import operations, steps
from bitinfer.plan.steps import Buffer, Plan, Step, Window

KERNEL = "numpy"
"""The name of this backend's functions in reports."""

_COLUMN_FLOATS = 1 << 24
"""Windows are copied out in chunks of about this many floats: a map has many times its own size
in windows."""


class ReferenceBackend:
    """The backend ``reference``."""

    name = "reference"
    label = "reference"

    def kernels(self) -> dict[str, tuple[str, ...]]:
        """Return which kernel serves each operation: NumPy, for all."""
        return dict.fromkeys(operations(), (KERNEL,))

    def bind(self, plan: Plan, threads: int = 1) -> Executor:
        """Return an executor of ``plan``.  NumPy does the work, whatever ``threads`` says."""
        return InterpretedExecutor(plan, bind_step, KERNEL)


def bind_step(step: Step, plan: Plan) -> StepFunction:
    """Return the function that runs ``step``; constants are unpacked here, once."""
    channels = plan.buffers[step.source].shape[-1]
    match step:
        case steps.BinaryConv2d():
            is_float = plan.buffers[step.target].kind == "float"
            return _binary_conv2d(step, channels, is_float=is_float)
        case steps.BinaryDense():
            return _binary_dense(step, channels)
        case steps.Conv2d():
            return _conv2d(step, channels)
        case steps.Dense():
            return _dense(step, channels)
        case steps.MaxPool2d():
            return _max_pool2d(step, is_bits=plan.buffers[step.source].kind == "bits")
        case steps.Flatten():
            return _flatten(step, plan)
        case steps.NodeStep(node=nodes.Pad2d() as pad):
            return _pad2d(pad, plan.buffers[step.source])
        case steps.PackSigns():
            return _pack_signs(step, plan.buffers[step.target].shape[-1])
        case _:
            return _elementwise(step)


def _pack_signs(step: steps.PackSigns, channels: int) -> StepFunction:
    part = slice(step.begin, step.begin + channels)

    def run(source: Array, extras: Extras, target: Array) -> None:
        target[...] = pack_below(source[..., part], step.threshold, step.flip)

    return run


def _windows(x: Array, window: Window, fill: float) -> Array:
    """Return every window of a map as a view: (Hout, Wout, C, kh, kw)."""
    top, bottom, left, right = window.padding
    padded = np.pad(x, ((top, bottom), (left, right), (0, 0)), constant_values=x.dtype.type(fill))
    (kh, kw), (dh, dw) = window.kernel, window.dilation
    reach = (dh * (kh - 1) + 1, dw * (kw - 1) + 1)
    views = sliding_window_view(padded, reach, axis=(0, 1))
    return views[:: window.stride[0], :: window.stride[1], :, ::dh, ::dw]


def _convolve(x: Array, weight: Array, window: Window, fill: float) -> Array:
    """Convolve a map (H, W, C) with weight (Cout, kh, kw, C / groups), both of one float type."""
    views = _windows(x, window, fill)
    height, width, channels = views.shape[:3]
    per_group, outputs = channels // window.groups, weight.shape[0] // window.groups
    result = np.empty((height, width, weight.shape[0]), weight.dtype)
    reduction = weight[0].size
    rows = max(1, _COLUMN_FLOATS // (width * reduction))
    pixels = max(1, min(width, _COLUMN_FLOATS // reduction))
    for g in range(window.groups):
        inputs = views[:, :, g * per_group : (g + 1) * per_group].transpose(0, 1, 3, 4, 2)
        part = slice(g * outputs, (g + 1) * outputs)
        matrix = weight[part].reshape(outputs, reduction)
        for y in range(0, height, rows):
            for x0 in range(0, width, pixels):
                chunk = inputs[y : y + rows, x0 : x0 + pixels]
                columns = chunk.reshape(-1, reduction)
                result[y : y + rows, x0 : x0 + pixels, part] = (columns @ matrix.T).reshape(
                    *chunk.shape[:2], outputs
                )
    return result


def _binary_conv2d(step: steps.BinaryConv2d, channels: int, *, is_float: bool) -> StepFunction:
    weight = bits.unpack(step.weight, channels // step.window.groups)

    def run(source: Array, extras: Extras, target: Array) -> None:
        signs = bits.unpack(source, channels)
        dot = _convolve(signs, weight, step.window, step.pad_value)
        if extras.residual is not None:
            begin = step.residual_begin
            residual = extras.residual[..., begin : begin + step.outputs]
            extras = extras._replace(residual=residual)
        if is_float:
            target = target[..., step.to : step.to + step.outputs]
        finish_sum(step, dot, extras, target)

    return run


def _binary_dense(step: steps.BinaryDense, channels: int) -> StepFunction:
    weight = bits.unpack(step.weight, channels)

    def run(source: Array, extras: Extras, target: Array) -> None:
        dot = weight @ bits.unpack(source, channels)
        finish_sum(step, dot, extras, target)

    return run


def _weight(step: steps.Conv2d | steps.Dense, channels: int) -> Array:
    """Return the weight as float64: its sums with integers are exact there."""
    weight = step.weight
    if weight.dtype == np.uint64:
        weight = bits.unpack(weight, channels)
    return weight.astype(np.float64)


def _conv2d(step: steps.Conv2d, channels: int) -> StepFunction:
    weight = _weight(step, channels // step.window.groups)

    def run(source: Array, extras: Extras, target: Array) -> None:
        x, window = source, step.window
        if step.table is not None:
            x = step.table[source, np.arange(channels)]
        total = _convolve(x.astype(np.float64), weight, window, 0.0)
        if step.offset is None:
            finish_sum(step, total, extras, target)
            return
        e = step.epilogue
        alpha = np.ones(len(weight)) if e.alpha is None else e.alpha.astype(np.float64)
        inside = np.broadcast_to(step.offset.astype(np.float64), source.shape)
        shift = -alpha * _convolve(inside, weight, window, 0.0)
        if e.bias is not None:
            shift += e.bias
        y = numerics.scale_sum(total, e.alpha, None, None, e.floor) + shift.astype(np.float32)
        finish_scaled(e, y, extras, target)

    return run


def _dense(step: steps.Dense, channels: int) -> StepFunction:
    weight = _weight(step, channels)

    def run(source: Array, extras: Extras, target: Array) -> None:
        finish_sum(step, weight @ source.astype(np.float64), extras, target)

    return run


def _max_pool2d(step: steps.MaxPool2d, *, is_bits: bool) -> StepFunction:
    flips: Array = np.zeros(1, np.uint64)
    if step.minimum is not None:
        flips = bits.pack(np.where(step.minimum, -1, 1)).words

    def run(source: Array, extras: Extras, target: Array) -> None:
        if is_bits:
            # The maximum of signs is the AND of their bits, the minimum that of the other bits.
            views = _windows(source ^ flips, step.window, np.iinfo(np.uint64).max)
            target[...] = np.bitwise_and.reduce(views, axis=(3, 4)) ^ flips
        else:
            target[...] = np.max(_windows(source, step.window, -np.inf), axis=(3, 4))

    return run


def _flatten(step: steps.Flatten, plan: Plan) -> StepFunction:
    buffer = plan.buffers[step.source]

    def run(source: Array, extras: Extras, target: Array) -> None:
        is_bits = buffer.kind == "bits"
        x = bits.unpack(source, buffer.shape[-1]) if is_bits else source
        if step.channels_first and x.ndim == 3:
            x = x.transpose(2, 0, 1)
        flat = x.reshape(-1)
        target[...] = bits.pack(flat).words if is_bits else flat.reshape(target.shape)

    return run


def _pad2d(node: nodes.Pad2d, buffer: Buffer) -> StepFunction:
    top, _, left, _ = node.padding
    fill: Array = np.full(buffer.shape[-1:], node.value, np.float32)
    if buffer.kind == "bits":
        fill = bits.pack(fill).words

    def run(source: Array, extras: Extras, target: Array) -> None:
        target[...] = fill
        target[top : top + source.shape[0], left : left + source.shape[1]] = source

    return run


def _beta_map(step: steps.BetaMap, source: Array) -> Array:
    groups = step.window.groups
    magnitude = np.abs(source).reshape(*source.shape[:-1], groups, -1)
    mean: Array = np.mean(magnitude, axis=-1)
    if source.ndim == 1:
        return mean
    kh, kw = step.window.kernel
    boxes: Array = np.sum(_windows(mean, step.window, 0.0), axis=(3, 4))
    return boxes / np.float32(kh * kw)


def _avg_pool2d(step: steps.AvgPool2d, source: Array) -> Array:
    sums: Array = np.sum(_windows(source, step.window, 0.0), axis=(3, 4))
    if step.count_include_pad:
        return sums / np.float32(step.window.kernel[0] * step.window.kernel[1])
    ones = np.ones((*source.shape[:2], 1), np.float32)
    inside: Array = np.sum(_windows(ones, step.window, 0.0), axis=(3, 4))
    return sums / inside


def _elementwise(step: Step) -> StepFunction:
    def run(source: Array, extras: Extras, target: Array) -> None:
        match step:
            case steps.Normalize():
                channel = np.arange(source.shape[-1])
                target[...] = step.table[source, channel]
            case steps.BetaMap():
                target[...] = _beta_map(step, source)
            case steps.Affine():
                target[...] = numerics.normalize(source, step.norm)
            case steps.Activate():
                target[...] = activate(source, step.activation)
            case steps.CopyChannels():
                part = source[..., step.begin : step.begin + step.count]
                target[..., step.to : step.to + step.count] = part
            case steps.AvgPool2d():
                target[...] = _avg_pool2d(step, source)
            case steps.NodeStep():
                target[...] = _node(step.node, source, extras.other)
            case _:
                raise AssertionError(f"no reference for {type(step).__name__}")

    return run


def _node(node: Node, x: Array, other: Any) -> Array:
    """Return what a node makes of x, and of the other value that it reads, if any."""
    match node:
        case nodes.Add():
            return np.asarray(x + other)
        case nodes.Multiply():
            return np.asarray(x * other)
        case nodes.Quantize():
            return numerics.quantize(x, node.scale)
        case nodes.ShuffleChannels():
            parts = x.reshape(*x.shape[:-1], node.groups, -1)
            return parts.swapaxes(-1, -2).reshape(x.shape)
        case nodes.GlobalPool2d():
            wide = x.reshape(-1, x.shape[-1]).astype(np.float64)
            return np.asarray(wide.max(axis=0) if node.mode == "max" else wide.mean(axis=0))
        case nodes.Softmax():
            return numerics.softmax(x)
        case _:
            raise AssertionError(f"no reference for {type(node).__name__}")

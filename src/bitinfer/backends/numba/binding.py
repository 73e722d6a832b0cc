"""Binds the steps of a plan to the compiled loops; element-wise arithmetic is NumPy's."""

from __future__ import annotations

import numpy as np

from bitinfer import bits, numerics
from bitinfer.backends.base import Array, StepFunction
from bitinfer.backends.numba import loops
from bitinfer.plan import steps
from bitinfer.plan.steps import Plan, Step, Window


def bind_step(step: Step, plan: Plan) -> StepFunction:
    """Return the function that runs ``step``; weights are re-laid here, once."""
    source, target = plan.buffers[step.source], plan.buffers[step.target]
    match step:
        case steps.BinaryConv2d():
            return _binary_conv2d(step, source.shape, target.shape)
        case steps.BinaryDense():
            return _binary_dense(step, source.shape[0])
        case steps.Conv2d():
            return _conv2d(step)
        case steps.Dense():
            return _dense(step)
        case steps.MaxPool2d():
            return _max_pool2d(step, is_bits=source.kind == "bits")
        case steps.AvgPool2d():
            return _avg_pool2d(step)
        case steps.BetaMap():
            return _beta_map(step)
        case steps.PackSigns():
            return _pack_signs
        case steps.Flatten():
            return _flatten(step, source.shape, is_bits=source.kind == "bits")
        case steps.Normalize():
            return _normalize(step)
        case steps.Affine():
            return _affine(step)
        case steps.Relu():
            return _relu
        case steps.Softmax():
            return _softmax
        case _:
            raise AssertionError(f"no loops for {type(step).__name__}")


def _window_numbers(window: Window) -> Array:
    top, _, left, _ = window.padding
    return np.array([*window.stride, top, left, *window.dilation], np.int64)


def _binary_conv2d(
    step: steps.BinaryConv2d, shape: tuple[int, ...], out_shape: tuple[int, ...]
) -> StepFunction:
    window, groups = _window_numbers(step.window), step.window.groups
    channels, outputs = shape[-1] // groups, out_shape[-1] // groups
    weight = np.ascontiguousarray(step.weight.reshape(groups, outputs, *step.weight.shape[1:]))
    tap_sums = np.sum(bits.unpack(weight, channels), axis=-1).astype(np.int64)
    aligned = groups == 1

    def run(source: Array, beta: Array | None, target: Array) -> None:
        if aligned:
            grouped = source[:, :, None, :]
        else:
            grouped = np.empty((*source.shape[:2], groups, weight.shape[-1]), np.uint64)
            loops.align_groups(source, channels, grouped)
        dot = np.empty((*target.shape[:2], groups, outputs), np.int32)
        loops.bconv2d(grouped, weight, tap_sums, window, channels, step.pad_value, dot)
        scale = None if beta is None else np.repeat(beta, outputs, axis=-1)
        floats = dot.reshape(target.shape).astype(np.float32)
        target[...] = numerics.scale_dot(floats, step.alpha, step.bias, scale)

    return run


def _binary_dense(step: steps.BinaryDense, channels: int) -> StepFunction:
    weight = np.ascontiguousarray(step.weight)

    def run(source: Array, beta: Array | None, target: Array) -> None:
        dot = np.empty(target.shape, np.int32)
        loops.bdense(source, weight, channels, dot)
        target[...] = numerics.scale_dot(dot.astype(np.float32), step.alpha, step.bias, beta)

    return run


def _conv2d(step: steps.Conv2d) -> StepFunction:
    window, groups = _window_numbers(step.window), step.window.groups
    weight = step.weight.reshape(groups, -1, *step.weight.shape[1:])
    weight = np.ascontiguousarray(weight.transpose(0, 2, 3, 4, 1))

    def run(source: Array, beta: Array | None, target: Array) -> None:
        loops.conv2d(source, weight, window, target)
        if step.bias is not None:
            target += step.bias

    return run


def _dense(step: steps.Dense) -> StepFunction:
    def run(source: Array, beta: Array | None, target: Array) -> None:
        np.matmul(step.weight, source, out=target)
        if step.bias is not None:
            target += step.bias

    return run


def _max_pool2d(step: steps.MaxPool2d, *, is_bits: bool) -> StepFunction:
    kernel, window = np.array(step.window.kernel, np.int64), _window_numbers(step.window)
    loop = loops.max_pool2d_signs if is_bits else loops.max_pool2d

    def run(source: Array, beta: Array | None, target: Array) -> None:
        loop(source, kernel, window, target)

    return run


def _avg_pool2d(step: steps.AvgPool2d) -> StepFunction:
    kernel, window = np.array(step.window.kernel, np.int64), _window_numbers(step.window)
    whole = np.float32(step.window.kernel[0] * step.window.kernel[1])

    def run(source: Array, beta: Array | None, target: Array) -> None:
        inside = np.empty(target.shape[:2], np.int64)
        loops.window_sums(source, kernel, window, target, inside)
        target /= whole if step.count_include_pad else inside[..., None].astype(np.float32)

    return run


def _beta_map(step: steps.BetaMap) -> StepFunction:
    kernel, window = np.array(step.window.kernel, np.int64), _window_numbers(step.window)
    groups = step.window.groups

    def run(source: Array, beta: Array | None, target: Array) -> None:
        magnitude = np.abs(source).reshape(*source.shape[:-1], groups, -1)
        mean = np.mean(magnitude, axis=-1)
        if source.ndim == 1:
            target[...] = mean
            return
        loops.window_sums(mean, kernel, window, target, np.empty(target.shape[:2], np.int64))
        target /= np.float32(kernel[0] * kernel[1])

    return run


def _pack_signs(source: Array, beta: Array | None, target: Array) -> None:
    loops.pack_signs(source.reshape(-1, source.shape[-1]), target.reshape(-1, target.shape[-1]))


def _flatten(step: steps.Flatten, shape: tuple[int, ...], *, is_bits: bool) -> StepFunction:
    def run(source: Array, beta: Array | None, target: Array) -> None:
        x = bits.unpack(source, shape[-1]) if is_bits else source
        if step.channels_first and x.ndim == 3:
            x = x.transpose(2, 0, 1)
        flat = x.reshape(1, -1)
        if is_bits:
            loops.pack_signs(np.ascontiguousarray(flat), target.reshape(1, -1))
        else:
            target[...] = flat[0]

    return run


def _normalize(step: steps.Normalize) -> StepFunction:
    channel = np.arange(step.table.shape[1])

    def run(source: Array, beta: Array | None, target: Array) -> None:
        target[...] = step.table[source, channel]

    return run


def _affine(step: steps.Affine) -> StepFunction:
    def run(source: Array, beta: Array | None, target: Array) -> None:
        target[...] = numerics.affine(source, step.scale, step.shift)

    return run


def _relu(source: Array, beta: Array | None, target: Array) -> None:
    target[...] = np.where(source > 0, source, np.float32(0))


def _softmax(source: Array, beta: Array | None, target: Array) -> None:
    target[...] = numerics.softmax(source)

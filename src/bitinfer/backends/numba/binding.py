"""Binds the steps of a plan to the compiled loops; what they do not know is bound to NumPy."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from bitinfer import bits
from bitinfer.backends import reference
from bitinfer.backends.interpreted import Array, BoundStep, Extras, StepFunction
from bitinfer.backends.numba import loops
from bitinfer.backends.numba.layout import in_lanes, signs_in_steps, walk
from bitinfer.backends.numba.vectors import LANES
from bitinfer.bits import Words
from bitinfer.plan import steps
from bitinfer.plan.steps import Plan, Step

_ACTIVATIONS = {"relu": loops.RELU, "prelu": loops.PRELU, "clip": loops.CLIP}
_NONE = np.empty((0, 0), np.float32)
_ONE = np.ones((1, 1), np.float32)
_NO_SIGNS = np.empty((0, 0), np.uint64)


def bind_step(step: Step, plan: Plan) -> BoundStep:
    """Return the function that runs ``step``; weights are re-laid here, once."""
    run = _compiled(step, plan)
    if run is None:
        return reference.bind_step(step, plan)
    if plan.input not in step.sources:
        return BoundStep(run, "numba")

    def run_on_input(source: Array, extras: Extras, target: Array) -> None:
        extras = Extras(*(None if x is None else _writable(x) for x in extras))
        run(_writable(source), extras, target)

    return BoundStep(run_on_input, "numba")


def _writable(x: Array) -> Array:
    """Return x, or a copy: for numba read-only arrays are a type of their own, to compile for."""
    return x if x.flags.writeable else x.copy()


def _compiled(step: Step, plan: Plan) -> StepFunction | None:
    """Return the function of a step that the loops know, else None."""
    source, target = plan.buffers[step.source], plan.buffers[step.target]
    match step:
        case steps.BinaryConv2d() if _knows(step.epilogue):
            return _binary_conv2d(step, source.shape, target.shape)
        case steps.BinaryDense() if _knows(step.epilogue):
            return _binary_dense(step, source.shape[0])
        case steps.Conv2d() if _is_plain(step) and step.table is None and step.offset is None:
            return _conv2d(step, source.shape, target.shape)
        case steps.Dense() if _is_plain(step):
            return _dense(step)
        case steps.MaxPool2d() if step.minimum is None:
            return _max_pool2d(step, source.stored_shape, target.stored_shape)
        case steps.AvgPool2d():
            return _avg_pool2d(step, source.shape, target.shape)
        case steps.BetaMap():
            return _beta_map(step, source.shape, target.shape)
        case steps.PackSigns() if step.flip is None:
            return _pack_signs(step, source.shape[-1])
        case steps.Normalize():
            return _normalize(step)
        case _:
            return None


def _is_plain(step: steps.Conv2d | steps.Dense) -> bool:
    """Tell whether a float layer is one that the loops know."""
    e = step.epilogue
    others = (e.alpha, e.floor, e.residual, e.activation, e.threshold, e.sign_threshold)
    return step.weight.dtype == np.float32 and all(part is None for part in others)


def _knows(e: steps.Epilogue) -> bool:
    """Tell whether the epilogue is one that the loops know."""
    kind = None if e.activation is None else e.activation.kind
    return e.floor is None and e.sign_threshold is None and (kind is None or kind in _ACTIVATIONS)


class _Epilogue:
    """The constants of a binary layer's epilogue, as loops._finish takes them."""

    def __init__(self, step: steps.BinaryConv2d | steps.BinaryDense) -> None:
        outputs = len(step.weight)
        self.is_signs = step.epilogue.threshold is not None
        e = step.epilogue
        alpha, bias = _padded(e.alpha, outputs, 1.0), _padded(e.bias, outputs, -0.0)
        kind, slope, limits = loops.NO_ACTIVATION, None, np.zeros(2, np.float32)
        if e.activation is not None:
            kind = _ACTIVATIONS[e.activation.kind]
            slope = e.activation.slope
            limits[:] = e.activation.low, e.activation.high
        scales = np.stack([alpha, bias, _padded(slope, outputs, 1.0)])
        self._no_residual = np.full((1, outputs), -0.0, np.float32)
        self._constants = (scales, limits, kind)
        self._threshold = np.zeros(bits.words_for(outputs) * bits.WORD_BITS, np.int32)
        self._threshold[outputs:] = np.iinfo(np.int32).min  # nothing is below it
        flip = np.zeros(outputs, np.bool_)
        if e.threshold is not None:
            self._threshold[:outputs] = e.threshold
        if e.flip is not None:
            flip[:] = e.flip
        self._flips = bits.pack(np.where(flip, -1, 1)).words
        self.pitch = -(-(outputs + LANES) // bits.WORD_BITS) * bits.WORD_BITS

    def arguments(self, extras: Extras, target: Array) -> tuple[Any, ...]:
        """Return the arguments of loops._finish from ``scales`` on."""
        rows = _rows(target)
        beta = _ONE if extras.beta is None else _rows(extras.beta)
        residual = self._no_residual if extras.residual is None else _rows(extras.residual)
        floats, signs = (_NONE, rows) if self.is_signs else (rows, _NO_SIGNS)
        return (*self._constants, beta, residual, floats, self._threshold, self._flips, signs)


def _padded(values: Array | None, outputs: int, neutral: float) -> Array:
    """Return values for every lane that a vector of outputs may touch; never read-only.

    ``neutral`` where there are none: x * 1.0 and x + -0.0 are x, for every x.
    """
    result = np.zeros(outputs + LANES, np.float32)
    result[:outputs] = neutral if values is None else values
    return result


def _tap_sums(weight: Words, channels: int) -> Array:
    """Return the sums of the signs along the last axis."""
    negative = np.bitwise_count(weight).sum(axis=-1, dtype=np.int32)
    return np.asarray(channels - 2 * negative)


def _rows(x: Array) -> Array:
    return x.reshape(-1, x.shape[-1])


def _binary_conv2d(
    step: steps.BinaryConv2d, shape: tuple[int, ...], out_shape: tuple[int, ...]
) -> StepFunction:
    window, groups = step.window, step.window.groups
    outputs, channels = out_shape[-1] // groups, shape[-1] // groups
    pieces = -(-channels // 32)
    lanes = -(-out_shape[-1] // LANES) * LANES
    left, right = window.padding[2:]
    # Where a group has fewer outputs than there are lanes, the lanes of a vector are of several
    # groups, and each has elements of its own in the plane.
    is_own = groups > 1 and outputs < LANES
    is_aligned = not is_own and (groups == 1 or channels % bits.WORD_BITS == 0)
    distance, copies = (lanes, outputs) if is_own else (1, 1)
    group_step = outputs if is_own else pieces
    if is_aligned:
        group_step = 2 * bits.words_for(channels)
    pitch = pieces * lanes if is_own else groups * group_step
    at = walk(window, shape, out_shape, pitch=pitch, depth=pieces, distance=distance)
    weight_groups = 1 if is_own else groups
    weight = signs_in_steps(step.weight, pieces)
    weight = in_lanes(weight.reshape(weight_groups, -1, *weight.shape[1:]))
    tap_sums = np.zeros((*window.kernel, lanes), np.int32)
    tap_sums[..., : out_shape[-1]] = _tap_sums(step.weight, channels).transpose(1, 2, 0)
    epilogue = _Epilogue(step)
    at_a_time = min(64, max(16, 2**15 // epilogue.pitch), math.prod(out_shape[:-1]))
    plane_shape = (shape[0], left + shape[1] + right, pitch)
    inside = slice(left * pitch, (left + shape[1]) * pitch)

    def run(source: Array, extras: Extras, target: Array) -> None:
        if is_aligned and left == right == 0:
            plane = source.view(np.uint32)
        else:
            plane = np.zeros(plane_shape, np.uint32)
            if is_aligned:
                pixels = source.reshape(shape[0], -1).view(np.uint32)
                plane.reshape(shape[0], -1)[:, inside] = pixels
            else:
                loops.stage_signs(
                    source, channels, groups, left, copies, group_step, distance, plane
                )
        loops.bconv2d(
            plane.reshape(-1),
            at.rows,
            at.columns,
            at.offsets,
            weight,
            tap_sums,
            weight_groups,
            out_shape[-1] // weight_groups,
            group_step,
            channels,
            step.pad_value,
            is_own,
            np.empty((at_a_time, epilogue.pitch), np.int32),
            *epilogue.arguments(extras, target),
        )

    return run


def _binary_dense(step: steps.BinaryDense, channels: int) -> StepFunction:
    """Bind a dense layer as a convolution with one pixel and one tap."""
    pieces = -(-channels // 32)
    weight = in_lanes(signs_in_steps(step.weight, pieces)[None])
    outputs = len(step.weight)
    epilogue = _Epilogue(step)
    axis, offsets = np.array([[0, 0, 1]]), np.arange(pieces)
    tap_sums = np.zeros((1, 1, outputs), np.int32)

    def run(source: Array, extras: Extras, target: Array) -> None:
        loops.bconv2d(
            source.view(np.uint32),
            axis,
            axis,
            offsets,
            weight,
            tap_sums,
            1,
            outputs,
            0,
            channels,
            0,
            False,
            np.empty((1, epilogue.pitch), np.int32),
            *epilogue.arguments(extras, target),
        )

    return run


def _conv2d(step: steps.Conv2d, shape: tuple[int, ...], out_shape: tuple[int, ...]) -> StepFunction:
    window, groups = step.window, step.window.groups
    channels, kh = shape[-1] // groups, window.kernel[0]
    left, right = window.padding[2:]
    at = walk(window, shape, out_shape, pitch=shape[-1], depth=channels)
    weight = in_lanes(step.weight.reshape(groups, -1, *step.weight.shape[1:]))
    bias = _padded(step.epilogue.bias, out_shape[-1], -0.0)
    plane_shape = (shape[0], left + shape[1] + right, shape[2])

    def run(source: Array, extras: Extras, target: Array) -> None:
        plane = source
        if left > 0 or right > 0:
            plane = np.zeros(plane_shape, np.float32)
            plane[:, left : left + shape[1]] = source
        loops.conv2d(
            plane.reshape(-1),
            at.rows,
            at.columns,
            at.offsets,
            weight,
            groups,
            channels,
            kh,
            bias,
            target,
        )

    return run


def _dense(step: steps.Dense) -> StepFunction:
    outputs = len(step.weight)
    weight = in_lanes(step.weight[None], 4 * LANES)
    bias = _padded(step.epilogue.bias, outputs, -0.0)

    def run(source: Array, extras: Extras, target: Array) -> None:
        loops.dense(source, weight, bias, target)

    return run


def _max_pool2d(
    step: steps.MaxPool2d, shape: tuple[int, ...], out_shape: tuple[int, ...]
) -> StepFunction:
    at = walk(step.window, shape, out_shape, pitch=shape[-1], is_padded=False)
    kernel_w = step.window.kernel[1]

    def run(source: Array, extras: Extras, target: Array) -> None:
        loop = loops.max_pool2d_signs if source.dtype == np.uint64 else loops.max_pool2d
        loop(source.reshape(-1), at.rows, at.columns, at.offsets, kernel_w, target)

    return run


def _avg_pool2d(
    step: steps.AvgPool2d, shape: tuple[int, ...], out_shape: tuple[int, ...]
) -> StepFunction:
    at = walk(step.window, shape, out_shape, pitch=shape[-1], is_padded=False)
    kernel_h, kernel_w = step.window.kernel
    taps = kernel_h * kernel_w if step.count_include_pad else 0

    def run(source: Array, extras: Extras, target: Array) -> None:
        flat = source.reshape(-1)
        loops.window_means(flat, at.rows, at.columns, at.offsets, kernel_w, taps, target)

    return run


def _beta_map(
    step: steps.BetaMap, shape: tuple[int, ...], out_shape: tuple[int, ...]
) -> StepFunction:
    if len(shape) == 1:
        return _beta_vector
    groups, (kernel_h, kernel_w) = step.window.groups, step.window.kernel
    at = walk(step.window, shape, out_shape, pitch=groups, is_padded=False)
    taps = kernel_h * kernel_w

    def run(source: Array, extras: Extras, target: Array) -> None:
        mean = np.empty((shape[0] * shape[1], groups), np.float32)
        loops.mean_magnitudes(source.reshape(-1, shape[-1]), mean)
        flat = mean.reshape(-1)
        loops.window_means(flat, at.rows, at.columns, at.offsets, kernel_w, taps, target)

    return run


def _beta_vector(source: Array, extras: Extras, target: Array) -> None:
    loops.mean_magnitudes(source.reshape(1, -1), target.reshape(1, -1))


def _pack_signs(step: steps.PackSigns, channels: int) -> StepFunction:
    threshold = np.zeros(bits.words_for(channels) * bits.WORD_BITS, np.float32)
    threshold[:channels] = 0 if step.threshold is None else step.threshold

    def run(source: Array, extras: Extras, target: Array) -> None:
        rows = source.reshape(-1, channels)
        loops.pack_signs(rows, threshold, target.reshape(-1, target.shape[-1]))

    return run


def _normalize(step: steps.Normalize) -> StepFunction:
    table = np.array(step.table, np.float32)
    channels = table.shape[1]

    def run(source: Array, extras: Extras, target: Array) -> None:
        loops.normalize(source.reshape(-1, channels), table, target.reshape(-1, channels))

    return run

"""Binds the steps of a plan to compiled kernels: what each record says, but for places."""

from __future__ import annotations

from typing import Any

import numpy as np

from bitinfer.backends.numba import records as r
from bitinfer.backends.numba.binding_layers import bind_binary, bind_numbers
from bitinfer.backends.numba.bound import Bound, flips, new_bound
from bitinfer.backends.numba.kernels import elementwise, moves, pools
from bitinfer.backends.numba.layout import walk
from bitinfer.graph import nodes
from bitinfer.plan import steps
from bitinfer.plan.steps import Plan, Step, Window


def bind_step(step: Step, plan: Plan) -> Bound:
    """Return what runs ``step``; weights are re-laid here, once."""
    match step:
        case steps.BinaryConv2d() | steps.BinaryDense():
            return bind_binary(step, plan)
        case steps.Conv2d() | steps.Dense():
            return bind_numbers(step, plan)
        case steps.Affine():
            bound = new_bound(elementwise.affine, step, plan)
            bound.arrays["table"] = np.stack(step.norm)
            return bound
        case steps.Activate() | steps.PackSigns():
            return _elementwise(step, plan)
        case steps.Normalize():
            bound = new_bound(elementwise.normalize, step, plan)
            bound.arrays["table"] = np.ascontiguousarray(step.table, np.float32)
            return bound
        case steps.MaxPool2d() | steps.AvgPool2d():
            return _pool(step, plan)
        case steps.BetaMap():
            return _beta_map(step, plan)
        case steps.CopyChannels():
            bound = new_bound(moves.copy_channels, step, plan)
            bound.numbers |= {"begin": step.begin, "to": step.to, "count": step.count}
            return bound
        case steps.Flatten():
            is_bits = plan.buffers[step.source].kind == "bits"
            bound = new_bound(moves.flatten_signs if is_bits else moves.flatten, step, plan)
            if step.channels_first:
                bound.flag(r.CHANNELS_FIRST)
            return bound
        case steps.NodeStep():
            return _node(step, plan)
        case _:
            raise AssertionError(f"no kernel for {type(step).__name__}")


def _node(step: steps.NodeStep, plan: Plan) -> Bound:
    node = step.node
    match node:
        case nodes.Add() | nodes.Multiply():
            return _elementwise(step, plan)
        case nodes.Quantize():
            bound = new_bound(elementwise.quantize, step, plan)
            bound.numbers["low"] = node.scale
            return bound
        case nodes.Softmax():
            return new_bound(elementwise.softmax, step, plan)
        case nodes.ShuffleChannels():
            bound = new_bound(moves.shuffle_channels, step, plan)
            groups = node.groups
            bound.numbers |= {
                "groups": groups,
                "group_channels": int(bound.numbers["out_c"]) // groups,
            }
            return bound
        case nodes.Pad2d():
            return _pad2d(step, node, plan)
        case nodes.GlobalPool2d(mode="max"):
            bound = new_bound(pools.max_pool2d, step, plan)
            height, width, channels = (int(bound.numbers[n]) for n in ("in_h", "in_w", "in_c"))
            _set_window(bound, Window((height, width)), channels)
            return bound
        case nodes.GlobalPool2d():
            return new_bound(pools.global_mean, step, plan)
        case _:
            raise AssertionError(f"no kernel for {type(node).__name__}")


def _elementwise(step: Any, plan: Plan) -> Bound:
    """Bind what a layer's epilogue does on its own."""
    bound = new_bound(elementwise.elementwise, step, plan)
    source = plan.buffers[step.source]
    nothing = dict.fromkeys(("alpha", "bias", "floor", "threshold"))
    bound.per_output(nothing, {})
    bound.activation(step.activation if isinstance(step, steps.Activate) else None)
    if isinstance(step, steps.PackSigns):
        bound.signs(step.target, step.threshold, step.flip)
        bound.numbers["begin"] = step.begin
        bound.scratch_bytes = r.SUMS_BYTES
        if source.kind != "float":
            bound.flag(r.OCTETS)
        if source.kind == "int8":
            bound.flag(r.INT8)
        return bound
    bound.flag(r.FLOATS)
    if isinstance(step, steps.NodeStep):
        other = step.others["other"]
        bound.buffers["other"] = other
        bound.flag(r.OTHER if isinstance(step.node, nodes.Add) else r.PRODUCT)
        if len(plan.buffers[other].shape) < len(source.shape):
            bound.flag(r.OTHER_IS_VECTOR)
    return bound


def _set_window(bound: Bound, window: Window, pitch: int) -> None:
    """Set where the taps of every pixel are, in a map of ``pitch`` elements a pixel."""
    n = bound.numbers
    shape = (int(n["in_h"]), int(n["in_w"]), pitch)
    out_shape = (int(n["out_h"]), int(n["out_w"]), pitch)
    at = walk(window, shape, out_shape, pitch=pitch, is_padded=False)
    bound.arrays |= {"rows": at.rows, "columns": at.columns, "offsets": at.offsets}
    n |= {"kernel_w": window.kernel[1], "taps": window.kernel[0] * window.kernel[1]}


def _pool(step: steps.MaxPool2d | steps.AvgPool2d, plan: Plan) -> Bound:
    source = plan.buffers[step.source]
    if isinstance(step, steps.AvgPool2d):
        bound = new_bound(pools.avg_pool2d, step, plan)
        if step.count_include_pad:
            bound.flag(r.COUNT_PADDING)
    elif source.kind == "bits":
        bound = new_bound(pools.max_pool2d_signs, step, plan)
        bound.arrays["flips"] = flips(step.minimum, source.shape[-1])
    else:
        bound = new_bound(pools.max_pool2d, step, plan)
    _set_window(bound, step.window, source.stored_shape[-1])
    return bound


def _beta_map(step: steps.BetaMap, plan: Plan) -> Bound:
    bound = new_bound(pools.beta_map, step, plan)
    groups = step.window.groups
    source = plan.buffers[step.source]
    window = step.window if len(source.shape) > 1 else Window((1, 1))
    bound.flag(r.COUNT_PADDING)
    n = bound.numbers
    n |= {"groups": groups, "group_channels": source.shape[-1] // groups}
    _set_window(bound, window, groups)
    bound.scratch_bytes = int(n["in_h"]) * int(n["in_w"]) * groups * 4
    return bound


def _pad2d(step: steps.NodeStep, node: nodes.Pad2d, plan: Plan) -> Bound:
    bound = new_bound(moves.pad2d, step, plan)
    top, _, left, _ = node.padding
    bound.numbers |= {"to": top, "left": left, "low": node.value}
    if plan.buffers[step.source].kind == "bits":
        bound.flag(r.BITS)
        channels = plan.buffers[step.source].shape[-1]
        bound.arrays["flips"] = flips(np.full(channels, node.value < 0), channels)
    return bound

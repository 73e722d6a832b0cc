"""What the C side is told of each step, as plain data: numbers, names of constants, arrays.

A record holds what depends on the network alone.  Whoever runs it adds which kernel serves the
step, its re-laid weight and scratch, and where buffers lie: the executor writes these structs
through cffi, and a program in C can be printed from the same records.

The names are those of ``bi_step`` in csrc/bitinfer.h.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bitinfer.bits import pack, words_for
from bitinfer.graph import nodes
from bitinfer.graph.nodes import Node
from bitinfer.plan import steps
from bitinfer.plan.steps import Buffer, Plan, Step

Array = NDArray[Any]


@dataclasses.dataclass(frozen=True, eq=False)
class Record:
    """One step.

    Attributes:
        name: of the step.
        operation: under which kernels of it are listed.
        numbers: fields that hold a number; those left out are 0.
        constants: fields that hold constants of bitinfer.h, by name, or-ed together.
        arrays: fields that point to an array; those left out are NULL.
        buffers: fields that say where a buffer lies, by the number of the buffer in the plan.
        begins: by field, bytes from the beginning of such a buffer to where the value lies in it.
        weight: that of a layer, in canonical form, which the kernel's ``pack_weight`` re-lays.
    """

    name: str
    operation: str
    numbers: Mapping[str, int | float]
    constants: Mapping[str, tuple[str, ...]]
    arrays: Mapping[str, Array]
    buffers: Mapping[str, int]
    begins: Mapping[str, int]
    weight: Array | None = None


def records(plan: Plan) -> tuple[Record, ...]:
    """Return the record of every step of a plan, in order."""
    return tuple(_record(step, plan) for step in plan.steps)


_SOURCE_FLAGS = {"bits": "BI_FLAG_BITS", "pixels": "BI_FLAG_U8", "int8": "BI_FLAG_I8"}
_WEIGHT_TYPES = {
    "float32": "BI_WEIGHT_F32",
    "int16": "BI_WEIGHT_I16",
    "int8": "BI_WEIGHT_I8",
    "uint64": "BI_WEIGHT_BITS",
}


def _record(step: Step, plan: Plan) -> Record:
    source, target = plan.buffers[step.source], plan.buffers[step.target]
    in_h, in_w, in_c = _map_shape(source)
    out_h, out_w, out_c = _map_shape(target)
    numbers: dict[str, int | float] = {
        "in_h": in_h,
        "in_w": in_w,
        "in_c": in_c,
        "out_h": out_h,
        "out_w": out_w,
        "out_c": out_c,
        "kernel_h": 1,
        "kernel_w": 1,
        "stride_h": 1,
        "stride_w": 1,
        "dilation_h": 1,
        "dilation_w": 1,
        "groups": 1,
        "rows": out_h,
    }
    if (window := getattr(step, "window", None)) is not None:
        numbers |= _window(window)
    fields = _Fields(numbers, {}, {}, {"source": step.source, "target": step.target})
    if source.kind in _SOURCE_FLAGS:
        fields.flag(_SOURCE_FLAGS[source.kind])
    weight = None
    if isinstance(step, steps.NodeStep):
        _NODES.get(type(step.node), _nothing)(step.node, fields)
        _set_others(step, plan, fields)
    elif isinstance(step, steps.Layer):
        weight = step.weight
        _set_layer(step, fields)
        if isinstance(step, steps.BinaryConv2d):
            _set_gaps(step, plan, fields)
    else:
        _STEPS[type(step)](step, fields)
    constants = {name: tuple(parts) for name, parts in fields.constants.items()}
    return Record(
        name=step.name,
        operation=step.operation,
        numbers=fields.numbers,
        constants=constants,
        arrays=fields.arrays,
        buffers=fields.buffers,
        begins=fields.begins,
        weight=weight,
    )


@dataclasses.dataclass
class _Fields:
    """A record under construction."""

    numbers: dict[str, int | float]
    constants: dict[str, list[str]]
    arrays: dict[str, Array]
    buffers: dict[str, int]
    begins: dict[str, int] = dataclasses.field(default_factory=dict)

    def flag(self, name: str) -> None:
        self.constants.setdefault("flags", []).append(name)

    def array(self, name: str, array: Array | None) -> None:
        if array is not None:
            self.arrays[name] = np.ascontiguousarray(array)


def _set_layer(step: steps.Layer, fields: _Fields) -> None:
    e = step.epilogue
    for name in ("alpha", "bias", "floor", "threshold", "sign_threshold"):
        fields.array(name, getattr(e, name))
    for name in ("beta", "residual", "signs"):
        if (buffer := getattr(e, name)) is not None:
            fields.buffers[name] = buffer
            fields.numbers[f"has_{name}"] = 1
    thresholds = e.sign_threshold if e.threshold is None else e.threshold
    if thresholds is not None:
        flip = np.zeros(len(thresholds), np.bool_) if e.flip is None else e.flip
        fields.array("flip", flip.astype(np.uint8))
    if e.activation is not None:
        _set_activation(e.activation, fields)
    fields.constants["weight_type"] = [_WEIGHT_TYPES[step.weight.dtype.name]]
    match step:
        case steps.BinaryConv2d():
            fields.numbers["pad_value"] = step.pad_value
        case steps.BinaryDense():
            fields.numbers["rows"] = words_for(int(fields.numbers["out_c"]))
        case steps.Dense():
            fields.numbers["rows"] = 1
        case steps.Conv2d():
            fields.array("table", step.table)
            fields.array("offset", step.offset)


def _set_gaps(step: steps.BinaryConv2d, plan: Plan, fields: _Fields) -> None:
    """Say where target and residual lie, if they are a part of the channels of a buffer."""
    fields.numbers["out_c"] = step.outputs
    places = {"target": (step.target, step.to)}
    if (residual := step.epilogue.residual) is not None:
        places["residual"] = (residual, step.residual_begin)
    for field, (buffer, begin) in places.items():
        fields.numbers[f"{field}_gap"] = plan.buffers[buffer].shape[-1] - step.outputs
        fields.begins[field] = begin * np.dtype(np.float32).itemsize


def _set_activation(a: steps.Activation, fields: _Fields) -> None:
    fields.constants["activation"] = [f"BI_ACTIVATION_{a.kind.upper()}"]
    for name in ("shift_in", "slope", "shift_out"):
        fields.array(name, getattr(a, name))
    fields.numbers |= {"low": a.low, "high": a.high}


def _set_others(step: steps.NodeStep, plan: Plan, fields: _Fields) -> None:
    if (other := step.others.get("other")) is not None:
        fields.buffers["residual"] = other
        fields.numbers["has_residual"] = 1
        if len(plan.buffers[other].shape) < len(plan.buffers[step.source].shape):
            fields.flag("BI_FLAG_VECTOR")


def _nothing(node: Node, fields: _Fields) -> None:
    """Set no field: the shapes say all there is to say."""


def _set_pad2d(node: nodes.Pad2d, fields: _Fields) -> None:
    top, _, left, _ = node.padding
    fields.numbers |= {"pad_top": top, "pad_left": left, "low": node.value}


def _set_quantize(node: nodes.Quantize, fields: _Fields) -> None:
    fields.numbers["low"] = node.scale


def _set_shuffle_channels(node: nodes.ShuffleChannels, fields: _Fields) -> None:
    fields.numbers["groups"] = node.groups


def _set_global_pool2d(node: nodes.GlobalPool2d, fields: _Fields) -> None:
    if node.mode == "max":
        fields.flag("BI_FLAG_MAXIMUM")


_NODES: dict[type[Node], Callable[[Any, _Fields], None]] = {
    nodes.GlobalPool2d: _set_global_pool2d,
    nodes.Pad2d: _set_pad2d,
    nodes.Quantize: _set_quantize,
    nodes.ShuffleChannels: _set_shuffle_channels,
}
"""What sets the fields of a node's parameters, where it has any."""


def _set_pack_signs(step: steps.PackSigns, fields: _Fields) -> None:
    fields.numbers["channel_from"] = step.begin
    fields.array("bias", step.threshold)
    fields.array("weight", _packed(step.flip))


def _set_max_pool2d(step: steps.MaxPool2d, fields: _Fields) -> None:
    fields.array("weight", _packed(step.minimum))


def _set_avg_pool2d(step: steps.AvgPool2d, fields: _Fields) -> None:
    if step.count_include_pad:
        fields.flag("BI_FLAG_COUNT_PADDING")


def _set_normalize(step: steps.Normalize, fields: _Fields) -> None:
    fields.array("weight", step.table)


def _set_affine(step: steps.Affine, fields: _Fields) -> None:
    fields.array("weight", np.stack(step.norm))


def _set_activate(step: steps.Activate, fields: _Fields) -> None:
    _set_activation(step.activation, fields)


def _set_copy_channels(step: steps.CopyChannels, fields: _Fields) -> None:
    fields.numbers |= {
        "channel_from": step.begin,
        "channel_to": step.to,
        "channel_count": step.count,
    }


def _set_flatten(step: steps.Flatten, fields: _Fields) -> None:
    fields.numbers["rows"] = 1
    if step.channels_first:
        fields.flag("BI_FLAG_CHANNELS_FIRST")


def _set_beta_map(step: steps.BetaMap, fields: _Fields) -> None:
    """Set no field: the window says all there is to say."""


_STEPS: dict[type[Step], Callable[[Any, _Fields], None]] = {
    steps.Activate: _set_activate,
    steps.Affine: _set_affine,
    steps.AvgPool2d: _set_avg_pool2d,
    steps.BetaMap: _set_beta_map,
    steps.CopyChannels: _set_copy_channels,
    steps.Flatten: _set_flatten,
    steps.MaxPool2d: _set_max_pool2d,
    steps.Normalize: _set_normalize,
    steps.PackSigns: _set_pack_signs,
}
"""What sets the fields of a step that is no layer."""


def _window(window: steps.Window) -> dict[str, int | float]:
    return {
        "kernel_h": window.kernel[0],
        "kernel_w": window.kernel[1],
        "stride_h": window.stride[0],
        "stride_w": window.stride[1],
        "pad_top": window.padding[0],
        "pad_left": window.padding[2],
        "dilation_h": window.dilation[0],
        "dilation_w": window.dilation[1],
        "groups": window.groups,
    }


def _map_shape(buffer: Buffer) -> tuple[int, int, int]:
    """Return (H, W, C); a vector is a map of one pixel."""
    if len(buffer.shape) == 1:
        return (1, 1, buffer.shape[0])
    height, width, channels = buffer.shape
    return (height, width, channels)


def _packed(flags: Array | None) -> Array | None:
    return None if flags is None else pack(np.where(flags, np.int8(-1), np.int8(1))).words

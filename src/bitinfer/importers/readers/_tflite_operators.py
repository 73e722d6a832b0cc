"""The operators of TensorFlow Lite and Larq Compute Engine, in the words of foreign.OPERATIONS."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from bitinfer.bits import Floats
from bitinfer.errors import CheckpointError, ConversionError
from bitinfer.files import one_line
from bitinfer.importers.foreign import Attribute
from bitinfer.importers.readers._graph_draft import Array, Shape
from bitinfer.importers.readers._tensorflow import window
from bitinfer.importers.readers._tflite_graph import Operator, TfliteGraph

Handler = Callable[[TfliteGraph, Operator], None]

_PADDINGS = {0: "same", 1: "valid"}


def write(graph: TfliteGraph, operator: Operator) -> None:
    """Write an operator, or note what it says of shapes."""
    known = {*graph.constants, *graph.about_shapes, ""}
    if operator.code == _SHAPE or (operator.inputs and all(n in known for n in operator.inputs)):
        _note_constant(graph, operator)
        return
    handler = _HANDLERS.get(operator.code, (None, None))[1]
    if handler is None:
        raise ConversionError("there is no such operator here")
    handler(graph, operator)


def title(code: int | str) -> str:
    """Return an operator's name."""
    name = _HANDLERS.get(code, (None, None))[0]
    return name or (one_line(code) if isinstance(code, str) else f"built-in operator {code}")


def _note_constant(graph: TfliteGraph, operator: Operator) -> None:
    """Keep floats that were stored in 16 bits; all else that is constant is about shapes."""
    source = graph.constants.get(operator.inputs[0]) if operator.inputs else None
    if operator.code == _DEQUANTIZE and source is not None and source.dtype == np.float16:
        graph.constants[operator.name] = source.astype(np.float32)
        return
    graph.about_shapes.update(operator.outputs)


_SHAPE, _DEQUANTIZE = 77, 6


def _same(graph: TfliteGraph, operator: Operator) -> None:
    graph.shape(operator.inputs[0])
    graph.alias[operator.name] = operator.inputs[0]


def _activated(
    graph: TfliteGraph,
    operator: Operator,
    activation: int,
    word: str,
    inputs: tuple[str, ...],
    shape: Shape,
    **attributes: Attribute,
) -> None:
    """Write a node and the activation that is fused into it."""
    if not activation:
        graph.add(operator.name, word, inputs, shape, **attributes)
        return
    x = graph.add(f"{operator.name}/sums", word, inputs, shape, **attributes)
    _activation(graph, operator.name, activation, x)


def _activation(graph: TfliteGraph, name: str, activation: int, x: str) -> None:
    shape = graph.shapes[x]
    bounds = {1: (0.0, math.inf), 2: (-1.0, 1.0), 3: (0.0, 6.0)}
    if activation in bounds:
        low, high = bounds[activation]
        graph.add(name, "clip", (x,), shape, low=low, high=high)
    elif activation == 4:
        graph.add(name, "tanh", (x,), shape)
    else:
        raise ConversionError(f"the fused activation {activation} is not there")


def _map(graph: TfliteGraph, name: str) -> Shape:
    shape = graph.shape(name)
    if len(shape) != 3:
        raise ConversionError(f"an input of shape {shape}, wanted (H, W, C)")
    return shape


# --- Larq Compute Engine -------------------------------------------------------------------------


def _quantize(graph: TfliteGraph, operator: Operator) -> None:
    x = operator.inputs[0]
    graph.add(operator.name, "sign", (x,), graph.shape(x), at_zero=1, low=-1.0, high=1.0)


def unpacked(words: Array, channels: int) -> Floats:
    """Return packed bits as signs.

    Shapes:  words (..., ceil(channels / 32)) int32  ->  (..., channels) of +1 and -1.
    """
    if words.ndim < 1 or words.shape[-1] != -(-channels // 32):
        raise CheckpointError(f"words of shape {words.shape} for {channels} channels")
    octets = np.ascontiguousarray(words, dtype="<i4").view(np.uint8)
    found = np.unpackbits(octets, axis=-1, bitorder="little")[..., :channels]
    return np.float32(1) - np.float32(2) * found.astype(np.float32)


def _bconv(graph: TfliteGraph, operator: Operator) -> None:
    """``multiplier * activation(dot) + bias``, or -1 where disagreements > threshold, else +1."""
    x, *parts = operator.inputs
    height, width, channels = _map(graph, x)
    own = operator.custom
    if own.get("channels_in", channels) != channels:
        raise CheckpointError(f"channels_in is {own['channels_in']}, the input has {channels}")
    words = graph.integers(parts[0], "the filter")
    if words.ndim != 4:
        raise CheckpointError(f"a filter of shape {words.shape}")
    per_group = _per_group(words.shape[3], channels, words.shape[0])
    weight = unpacked(words, per_group)
    strides = (own.get("stride_height", 1), own.get("stride_width", 1))
    dilations = (own.get("dilation_height_factor", 1), own.get("dilation_width_factor", 1))
    if min(*strides, *dilations) < 1:
        raise CheckpointError(f"strides {strides}, dilations {dilations}")
    kernel, how = (weight.shape[1], weight.shape[2]), _PADDINGS.get(own.get("padding", 0), "")
    pads, out = window((height, width), kernel, strides, dilations, how)
    shape = (*out, weight.shape[0])
    activation = own.get("fused_activation_function", 0)
    name = operator.name
    sums = graph.add(
        f"{name}/dot",
        "conv",
        (x, graph.make_constant(f"{name}/filter", weight)),
        shape,
        axes="OHWI",
        strides=strides,
        pads=pads,
        dilations=dilations,
        groups=channels // per_group,
        pad_value=float(own.get("pad_values", 0)),
        counts="sums",
    )
    if len(parts) > 3 and parts[3]:
        threshold = graph.integers(parts[3], "the threshold").astype(np.float64)
        limit = math.prod(weight.shape[1:]) - 2 * threshold
        # Beyond what any sum reaches, the sign never changes.
        limit = np.clip(limit, -(2.0**24), 2.0**24).astype(np.float32)
        margin = graph.add(
            f"{name}/margin", "subtract", (sums, graph.make_constant(f"{name}/limit", limit)), shape
        )
        graph.add(name, "sign", (margin,), shape, at_zero=1, low=-1.0, high=1.0)
        return
    if activation:
        graph_name = f"{name}/activation"
        _activation(graph, graph_name, activation, sums)
        sums = graph_name
    factor = graph.make_constant(f"{name}/multiplier", graph.floats(parts[1], "the multiplier"))
    shift = graph.make_constant(f"{name}/bias", graph.floats(parts[2], "the bias"))
    scaled = graph.add(f"{name}/scaled", "multiply", (sums, factor), shape)
    graph.add(name, "add", (scaled, shift), shape)


def _per_group(words: int, channels: int, outputs: int) -> int:
    """Return the input channels of one group, of which the file has only the words.

    Several groups have whole words each (bconv2d.cc, Prepare).
    """
    if words == -(-channels // 32):
        return channels
    per_group = 32 * words
    if not words or channels % per_group or outputs % (channels // per_group):
        raise CheckpointError(f"{words} words a tap for {channels} channels")
    return per_group


def _bmax_pool(graph: TfliteGraph, operator: Operator) -> None:
    own = operator.custom
    kernel = (own.get("filter_height", 0), own.get("filter_width", 0))
    strides = (own.get("stride_height", 1), own.get("stride_width", 1))
    how = _PADDINGS.get(own.get("padding", 0), "")
    _pooled(graph, operator, "max_pool", kernel, strides, how, 0)


# --- TensorFlow Lite -----------------------------------------------------------------------------


def _convolve(
    graph: TfliteGraph,
    operator: Operator,
    weight: Floats,
    groups: int,
    first: int,
) -> None:
    """Write a convolution with (O, kh, kw, I); ``first`` is where fused_activation_function is."""
    height, width, _ = _map(graph, operator.inputs[0])
    strides = (operator.option(2, "i", 1), operator.option(1, "i", 1))
    dilations = (operator.option(first + 2, "i", 1), operator.option(first + 1, "i", 1))
    if min(*strides, *dilations) < 1:
        raise CheckpointError(f"strides {strides}, dilations {dilations}")
    how = _PADDINGS.get(operator.option(0, "b"), "")
    kernel = (weight.shape[1], weight.shape[2])
    pads, out = window((height, width), kernel, strides, dilations, how)
    filters = graph.make_constant(f"{operator.name}/filter", weight)
    inputs: tuple[str, ...] = (operator.inputs[0], filters)
    if len(operator.inputs) > 2 and operator.inputs[2]:
        bias = graph.floats(operator.inputs[2], "the bias")
        inputs += (graph.make_constant(f"{operator.name}/bias", bias),)
    attributes: dict[str, Any] = {
        "axes": "OHWI",
        "strides": strides,
        "pads": pads,
        "dilations": dilations,
        "groups": groups,
        "pad_value": 0.0,
        "counts": "sums",
    }
    shape = (*out, weight.shape[0])
    activation = operator.option(first, "b")
    _activated(graph, operator, activation, "conv", inputs, shape, **attributes)


def _conv(graph: TfliteGraph, operator: Operator) -> None:
    weight = graph.floats(operator.inputs[1], "the filter")
    channels = _map(graph, operator.inputs[0])[2]
    if weight.ndim != 4 or not weight.shape[3] or channels % weight.shape[3]:
        raise CheckpointError(f"a filter of shape {weight.shape} for {channels} channels")
    _convolve(graph, operator, weight, channels // weight.shape[3], 3)


def _depthwise(graph: TfliteGraph, operator: Operator) -> None:
    weight = graph.floats(operator.inputs[1], "the filter")
    channels = _map(graph, operator.inputs[0])[2]
    if weight.ndim != 4 or weight.shape[0] != 1 or weight.shape[3] % channels:
        raise CheckpointError(f"a filter of shape {weight.shape} for {channels} channels")
    _convolve(graph, operator, weight.transpose(3, 1, 2, 0), channels, 4)


def _dense(graph: TfliteGraph, operator: Operator) -> None:
    weight = graph.floats(operator.inputs[1], "the weight")
    x = operator.inputs[0]
    shape = graph.shape(x)
    if weight.ndim != 2 or math.prod(shape) != weight.shape[1]:
        raise ConversionError(f"{shape} times {weight.shape}, wanted one vector a sample")
    if len(shape) != 1:
        x = graph.add(f"{operator.name}/flat", "flatten", (x,), (math.prod(shape),))
    inputs: tuple[str, ...] = (x, graph.make_constant(f"{operator.name}/weight", weight))
    if len(operator.inputs) > 2 and operator.inputs[2]:
        bias = graph.floats(operator.inputs[2], "the bias")
        inputs += (graph.make_constant(f"{operator.name}/bias", bias),)
    activation = operator.option(0, "b")
    attributes = {"axes": "OI", "counts": "sums"}
    _activated(graph, operator, activation, "dense", inputs, weight.shape[:1], **attributes)


def _pooled(
    graph: TfliteGraph,
    operator: Operator,
    word: str,
    kernel: tuple[int, int],
    strides: tuple[int, int],
    how: str,
    activation: int,
) -> None:
    height, width, channels = _map(graph, operator.inputs[0])
    if min(*kernel, *strides) < 1:
        raise CheckpointError(f"kernel {kernel}, strides {strides}")
    pads, out = window((height, width), kernel, strides, (1, 1), how)
    attributes: dict[str, Any] = {"kernel": kernel, "strides": strides, "pads": pads}
    if word == "avg_pool":
        attributes["count_include_pad"] = 0
    shape = (*out, channels)
    _activated(graph, operator, activation, word, operator.inputs[:1], shape, **attributes)


def _pool(word: str) -> Handler:
    def handler(graph: TfliteGraph, operator: Operator) -> None:
        kernel = (operator.option(4, "i"), operator.option(3, "i"))
        strides = (operator.option(2, "i", 1), operator.option(1, "i", 1))
        how = _PADDINGS.get(operator.option(0, "b"), "")
        _pooled(graph, operator, word, kernel, strides, how, operator.option(5, "b"))

    return handler


def _mean(graph: TfliteGraph, operator: Operator) -> None:
    shape = graph.shape(operator.inputs[0])
    axes = {int(a) % (len(shape) + 1) for a in graph.integers(operator.inputs[1], "axes").ravel()}
    if 0 in axes:
        raise ConversionError("a mean over the batch")
    keeps = operator.option(0, "B")
    own = tuple(sorted(a - 1 for a in axes))
    result = tuple(1 if i in own else n for i, n in enumerate(shape) if keeps or i not in own)
    x = operator.inputs[:1]
    graph.add(operator.name, "mean", x, result, axes=own, keeps_axes=int(bool(keeps)))


def _reshape(graph: TfliteGraph, operator: Operator) -> None:
    x, source = operator.inputs[0], graph.shape(operator.inputs[0])
    shape = graph.declared[operator.name][1:]
    if math.prod(shape) != math.prod(source):
        raise ConversionError(f"{source} becomes {shape}")
    if shape == source:
        _same(graph, operator)
    else:
        graph.add(operator.name, "reshape", (x,), shape, shape=shape)


def _pad(graph: TfliteGraph, operator: Operator) -> None:
    x = operator.inputs[0]
    height, width, channels = _map(graph, x)
    pads = graph.integers(operator.inputs[1], "paddings")
    if pads.shape != (4, 2):
        raise ConversionError(f"borders of the shape {pads.shape}, wanted two for each of 4 axes")
    if pads[0].any() or pads[3].any() or (pads < 0).any():
        raise ConversionError(f"a border of {pads.tolist()}, wanted height and width alone")
    value = graph.floats(operator.inputs[2], "the value") if len(operator.inputs) > 2 else None
    (top, bottom), (left, right) = ((int(a), int(b)) for a, b in pads[1:3])
    graph.add(
        operator.name,
        "pad",
        (x,),
        (height + top + bottom, width + left + right, channels),
        axes=(0, 1),
        pads=(top, bottom, left, right),
        value=0.0 if value is None else float(value.reshape(-1)[0]),
    )


def _concat(graph: TfliteGraph, operator: Operator) -> None:
    shapes = [graph.shape(name) for name in operator.inputs]
    axis = operator.option(0, "i")
    if axis % (len(shapes[0]) + 1) != len(shapes[0]):
        raise ConversionError(f"along the axis {axis}, wanted the channels, which are last")
    shape = (*shapes[0][:-1], sum(s[-1] for s in shapes))
    activation = operator.option(1, "b")
    _activated(graph, operator, activation, "concat", operator.inputs, shape, axis=-1)


def _pairwise(word: str) -> Handler:
    def handler(graph: TfliteGraph, operator: Operator) -> None:
        shapes, inputs = [], list(operator.inputs[:2])
        for i, name in enumerate(inputs):
            if name in graph.constants:
                inputs[i] = graph.make_constant(
                    f"{operator.name}/{i}", graph.floats(name, "a constant")
                )
            else:
                shapes.append(graph.shape(name))
        shape = np.broadcast_shapes(*shapes)
        _activated(graph, operator, operator.option(0, "b"), word, tuple(inputs), shape)

    return handler


def _simple(word: str, **attributes: Attribute) -> Handler:
    def handler(graph: TfliteGraph, operator: Operator) -> None:
        x = operator.inputs[0]
        graph.add(operator.name, word, (x,), graph.shape(x), **attributes)

    return handler


def _prelu(graph: TfliteGraph, operator: Operator) -> None:
    x = operator.inputs[0]
    slope = graph.make_constant(
        f"{operator.name}/slope", graph.floats(operator.inputs[1], "the slope")
    )
    graph.add(operator.name, "prelu", (x, slope), graph.shape(x))


def _leaky_relu(graph: TfliteGraph, operator: Operator) -> None:
    x = operator.inputs[0]
    slope = graph.make_constant(f"{operator.name}/slope", np.float32(operator.option(0, "f")))
    graph.add(operator.name, "prelu", (x, slope), graph.shape(x))


def _softmax(graph: TfliteGraph, operator: Operator) -> None:
    x, beta = operator.inputs[0], operator.option(0, "f")
    shape = graph.shape(x)
    if len(shape) != 1 or beta != 1:
        raise ConversionError(f"a softmax of shape {shape} with beta {beta:g}")
    graph.add(operator.name, "softmax", (x,), shape)


_HANDLERS: Mapping[int | str, tuple[str, Handler]] = {
    "LceQuantize": ("LceQuantize", _quantize),
    "LceDequantize": ("LceDequantize", _same),
    "LceBconv2d": ("LceBconv2d", _bconv),
    "LceBMaxPool2d": ("LceBMaxPool2d", _bmax_pool),
    0: ("ADD", _pairwise("add")),
    1: ("AVERAGE_POOL_2D", _pool("avg_pool")),
    2: ("CONCATENATION", _concat),
    3: ("CONV_2D", _conv),
    4: ("DEPTHWISE_CONV_2D", _depthwise),
    9: ("FULLY_CONNECTED", _dense),
    14: ("LOGISTIC", _simple("sigmoid")),
    17: ("MAX_POOL_2D", _pool("max_pool")),
    18: ("MUL", _pairwise("multiply")),
    19: ("RELU", _simple("relu")),
    20: ("RELU_N1_TO_1", _simple("clip", low=-1.0, high=1.0)),
    21: ("RELU6", _simple("clip", low=0.0, high=6.0)),
    22: ("RESHAPE", _reshape),
    25: ("SOFTMAX", _softmax),
    28: ("TANH", _simple("tanh")),
    34: ("PAD", _pad),
    40: ("MEAN", _mean),
    41: ("SUB", _pairwise("subtract")),
    42: ("DIV", _pairwise("divide")),
    43: ("SQUEEZE", _reshape),
    54: ("PRELU", _prelu),
    55: ("MAXIMUM", _pairwise("maximum")),
    57: ("MINIMUM", _pairwise("minimum")),
    60: ("PADV2", _pad),
    70: ("EXPAND_DIMS", _reshape),
    98: ("LEAKY_RELU", _leaky_relu),
}
"""By code, the name of an operator and what writes it."""

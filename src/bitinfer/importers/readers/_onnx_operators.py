"""ONNX's own operators, each in the words of foreign.OPERATIONS.

Source: onnx/docs/Operators.md, opset 9 to 25.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import numpy as np
from onnx import TensorProto

from bitinfer.errors import CheckpointError, ConversionError
from bitinfer.files import one_line
from bitinfer.importers.foreign import Attribute
from bitinfer.importers.readers._graph_draft import Shape
from bitinfer.importers.readers._onnx_graph import OnnxGraph, OnnxNode

Pads = tuple[int, int, int, int]
Handler = Callable[[OnnxGraph, OnnxNode], None]

_FLOATS = (TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.FLOAT16, TensorProto.BFLOAT16)


def write(graph: OnnxGraph, node: OnnxNode) -> None:
    """Write a node that depends on the input."""
    handler = _HANDLERS.get(node.operation)
    if handler is None:
        raise ConversionError("there is no such operator here")
    handler(graph, node)


def _only_output(node: OnnxNode) -> None:
    if any(node.outputs[1:]):
        raise ConversionError("its further outputs are not there")


def _same(graph: OnnxGraph, node: OnnxNode) -> None:
    """Leave out what changes nothing when a network runs."""
    graph.alias[node.outputs[0]] = node.inputs[0]


# --- Layers --------------------------------------------------------------------------------------


def _map_shape(graph: OnnxGraph, name: str) -> Shape:
    shape = graph.shape(name)
    if len(shape) != 4:
        raise ConversionError(f"an input of shape {shape}, wanted (N, C, H, W)")
    return shape


def _window(
    graph: OnnxGraph, node: OnnxNode, kernel: tuple[int, ...], size: tuple[int, int]
) -> tuple[tuple[int, int], tuple[int, int], Pads, tuple[int, int]]:
    """Return strides, dilations, pads (top, bottom, left, right) and the size of what comes out."""
    strides = node.integers("strides", (1, 1)) or ()
    dilations = node.integers("dilations", (1, 1)) or ()
    pads = node.integers("pads", (0, 0, 0, 0)) or ()
    if any(len(v) != 2 for v in (kernel, strides, dilations)) or len(pads) != 4:
        raise ConversionError("a window that is not two-dimensional")
    if min(*kernel, *strides, *dilations) < 1 or min(pads) < 0:
        raise ConversionError(f"kernel {kernel}, strides {strides}, pads {pads}")
    auto, ceil = node.attribute("auto_pad", "NOTSET"), node.attribute("ceil_mode", 0)
    begins, ends, out = [0, 0], [0, 0], [0, 0]
    for i in (0, 1):
        reach = dilations[i] * (kernel[i] - 1) + 1
        if auto in ("SAME_UPPER", "SAME_LOWER"):
            total = max((-(-size[i] // strides[i]) - 1) * strides[i] + reach - size[i], 0)
            small = total // 2
            begins[i] = small if auto == "SAME_UPPER" else total - small
            ends[i] = total - begins[i]
        elif auto in ("NOTSET", ""):
            begins[i], ends[i] = pads[i], pads[i + 2]
        elif auto != "VALID":
            raise ConversionError(f"auto_pad is {one_line(auto)}")
        room = size[i] + begins[i] + ends[i] - reach
        if room < 0:
            raise ConversionError(f"a window of {reach} pixels over {room + reach}")
        if ceil and room % strides[i]:
            # One more window, unless it would begin behind the map (PyTorch's and ONNX's rule).
            extra = strides[i] - room % strides[i]
            if (room + extra) // strides[i] * strides[i] < size[i] + begins[i]:
                ends[i] += extra
                room += extra
        out[i] = room // strides[i] + 1
    return (
        (strides[0], strides[1]),
        (dilations[0], dilations[1]),
        (begins[0], ends[0], begins[1], ends[1]),
        (out[0], out[1]),
    )


def _conv(graph: OnnxGraph, node: OnnxNode) -> None:
    batch, _, height, width = _map_shape(graph, node.inputs[0])
    weight = graph.constant(node, 1, "the weight")
    if weight.ndim != 4:
        raise ConversionError(f"a weight of shape {weight.shape}, wanted (O, I, kh, kw)")
    strides, dilations, pads, out = _window(graph, node, weight.shape[2:], (height, width))
    graph.add(
        node.name,
        "conv",
        tuple(n for n in node.inputs[:3] if n),
        (batch, weight.shape[0], *out),
        axes="OIHW",
        strides=strides,
        dilations=dilations,
        pads=pads,
        groups=int(node.attribute("group", 1)),
        pad_value=0.0,
        counts="sums",
    )


def _gemm(graph: OnnxGraph, node: OnnxNode) -> None:
    shape = graph.shape(node.inputs[0])
    weight = graph.constant(node, 1, "the weight")
    if len(shape) != 2 or weight.ndim != 2 or node.attribute("transA", 0):
        raise ConversionError(f"{shape} times {weight.shape}, wanted vectors times a matrix")
    axes = "OI" if node.attribute("transB", 0) else "IO"
    outputs = weight.shape[axes.index("O")]
    alpha, beta = node.attribute("alpha", 1.0), node.attribute("beta", 1.0)
    name = node.inputs[1]
    if alpha != 1:
        name = graph.make_constant(f"{name}.scaled", weight * np.float32(alpha))
    inputs: tuple[str, ...] = (node.inputs[0], name)
    bias = graph.optional(node, 2, "the bias")
    if bias is not None:
        full = np.broadcast_to(bias * np.float32(beta), (1, outputs)).reshape(-1)
        inputs += (graph.make_constant(f"{node.inputs[2]}.bias", full),)
    graph.add(node.name, "dense", inputs, (shape[0], outputs), axes=axes, counts="sums")


def matmul(graph: OnnxGraph, node: OnnxNode) -> None:
    """Write a product with a constant matrix."""
    shape = graph.shape(node.inputs[0])
    weight = graph.constant(node, 1, "the weight")
    if len(shape) != 2 or weight.ndim != 2:
        raise ConversionError(f"{shape} times {weight.shape}, wanted vectors times a matrix")
    result = (shape[0], weight.shape[1])
    graph.add(node.name, "dense", node.inputs, result, axes="IO", counts="sums")


def _batch_norm(graph: OnnxGraph, node: OnnxNode) -> None:
    _only_output(node)
    if node.attribute("training_mode", 0):
        raise ConversionError("BatchNorm in training: call model.eval() before the export")
    epsilon = float(node.attribute("epsilon", 1e-5))
    shape = graph.shape(node.inputs[0])
    graph.add(node.name, "batch_norm", node.inputs[:5], shape, epsilon=epsilon)


# --- Maps ----------------------------------------------------------------------------------------


def _pool(word: str) -> Handler:
    def handler(graph: OnnxGraph, node: OnnxNode) -> None:
        _only_output(node)
        batch, channels, height, width = _map_shape(graph, node.inputs[0])
        kernel = node.integers("kernel_shape") or ()
        strides, dilations, pads, out = _window(graph, node, kernel, (height, width))
        if dilations != (1, 1):
            raise ConversionError(f"a pool with dilations {dilations}")
        attributes: dict[str, Attribute] = {"kernel": kernel, "strides": strides, "pads": pads}
        if word == "avg_pool":
            given = node.integers("pads", (0, 0, 0, 0)) or ()
            counts = int(node.attribute("count_include_pad", 0))
            is_grown = node.attribute("ceil_mode", 0) and pads != tuple(given[i] for i in _TBLR)
            if counts and is_grown:
                raise ConversionError("an average whose last windows reach over the padding")
            attributes["count_include_pad"] = counts
        shape = (batch, channels, *out)
        graph.add(node.name, word, node.inputs[:1], shape, **attributes)

    return handler


_TBLR = (0, 2, 1, 3)
"""Where ONNX's pads (top, left, bottom, right) hold top, bottom, left and right."""


def _global_pool(word: str) -> Handler:
    def handler(graph: OnnxGraph, node: OnnxNode) -> None:
        batch, channels, _, _ = _map_shape(graph, node.inputs[0])
        graph.add(node.name, word, node.inputs[:1], (batch, channels, 1, 1))

    return handler


def _reduce_mean(graph: OnnxGraph, node: OnnxNode) -> None:
    shape = graph.shape(node.inputs[0])
    axes = graph.numbers(node, "axes", 1) or tuple(range(1, len(shape)))
    keeps = int(node.attribute("keepdims", 1))
    own = tuple(sorted(graph.axis(axis, len(shape)) for axis in axes))
    kept = [1 if i - 1 in own else n for i, n in enumerate(shape) if keeps or i - 1 not in own]
    graph.add(node.name, "mean", node.inputs[:1], tuple(kept), axes=own, keeps_axes=keeps)


def _reshaped(graph: OnnxGraph, node: OnnxNode, shape: Shape) -> None:
    """Write another shape for the same elements, or nothing where it is the same."""
    source = graph.shape(node.inputs[0])
    if math.prod(shape) != math.prod(source):
        raise CheckpointError(f"{source} cannot become {shape}")
    groups = _shuffled_groups(graph, node.inputs[0], shape)
    if groups:
        x = graph.made[graph.made[node.inputs[0]].inputs[0]].inputs[0]
        graph.add(node.name, "shuffle", (x,), shape, groups=groups)
        return
    # Of several in a row only the last one's shape counts.
    x = node.inputs[0]
    while x in graph.made and graph.made[x].operation == "reshape":
        x = graph.made[x].inputs[0]
    if shape == graph.shape(x):
        graph.alias[node.name] = x
    else:
        graph.add(node.name, "reshape", (x,), shape, shape=shape[1:])


def _shuffled_groups(graph: OnnxGraph, name: str, shape: Shape) -> int:
    """Return the groups of a channel shuffle, (C, H, W) -> (g, C / g, H, W) and back; or 0.

    ``name`` is (C / g, g, H, W) if they are, made by a transposition from such a reshape.
    """
    turned = graph.made.get(name)
    if turned is None or turned.operation != "transpose" or len(shape) != 4:
        return 0
    split = graph.made.get(turned.inputs[0])
    if split is None or split.operation != "reshape" or turned.attributes["axes"] != (1, 0, 2, 3):
        return 0
    is_back = shape == graph.shape(split.inputs[0]) and graph.shape(name)[3:] == shape[2:]
    return graph.shape(name)[2] if is_back else 0


def _reshape(graph: OnnxGraph, node: OnnxNode) -> None:
    source = graph.shape(node.inputs[0])
    wanted = graph.numbers(node, "shape", 1) or ()
    if not node.attribute("allowzero", 0):
        wanted = tuple(source[i] if n == 0 else n for i, n in enumerate(wanted))
    if wanted.count(-1) == 1:
        rest = -math.prod(wanted)
        if rest <= 0 or math.prod(source) % rest:
            raise CheckpointError(f"{source} cannot become {wanted}")
        wanted = tuple(math.prod(source) // rest if n == -1 else n for n in wanted)
    _reshaped(graph, node, wanted)


def _flatten(graph: OnnxGraph, node: OnnxNode) -> None:
    shape = graph.shape(node.inputs[0])
    if node.attribute("axis", 1) % len(shape) != 1:
        raise ConversionError("flattens the batch too")
    _reshaped(graph, node, (shape[0], math.prod(shape[1:])))


def _squeeze(graph: OnnxGraph, node: OnnxNode) -> None:
    shape = graph.shape(node.inputs[0])
    axes = graph.numbers(node, "axes", 1)
    if axes is None:
        axes = tuple(i for i, n in enumerate(shape) if i and n == 1)
    dropped = {a % len(shape) for a in axes}
    _reshaped(graph, node, tuple(n for i, n in enumerate(shape) if i not in dropped))


def _unsqueeze(graph: OnnxGraph, node: OnnxNode) -> None:
    shape = graph.shape(node.inputs[0])
    axes = graph.numbers(node, "axes", 1) or ()
    rank = len(shape) + len(axes)
    added, rest = {a % rank for a in axes}, iter(shape)
    _reshaped(graph, node, tuple(1 if i in added else next(rest) for i in range(rank)))


def _expand(graph: OnnxGraph, node: OnnxNode) -> None:
    source = graph.shape(node.inputs[0])
    wanted = tuple(int(n) for n in graph.constant(node, 1, "the shape").reshape(-1))
    if np.broadcast_shapes(source, wanted) != source:
        raise ConversionError(f"spreads a value of shape {source} over {wanted}")
    _same(graph, node)


def _transpose(graph: OnnxGraph, node: OnnxNode) -> None:
    shape = graph.shape(node.inputs[0])
    perm = node.integers("perm", tuple(reversed(range(len(shape))))) or ()
    if sorted(perm) != list(range(len(shape))) or perm[0] != 0:
        raise ConversionError(f"a transposition by {perm} of the batch")
    result = tuple(shape[i] for i in perm)
    axes = tuple(i - 1 for i in perm[1:])
    graph.add(node.name, "transpose", node.inputs[:1], result, axes=axes)


def _concat(graph: OnnxGraph, node: OnnxNode) -> None:
    shapes = [graph.shape(name) for name in node.inputs]
    if any(graph.is_constant(name) for name in node.inputs):
        raise ConversionError("constants beside values")
    axis = graph.axis(int(node.attribute("axis", 1)), len(shapes[0]))
    total = sum(s[axis + 1] for s in shapes)
    shape = (*shapes[0][: axis + 1], total, *shapes[0][axis + 2 :])
    graph.add(node.name, "concat", node.inputs, shape, axis=axis)


def _sliced(graph: OnnxGraph, name: str, source: str, axis: int, begin: int, end: int) -> None:
    shape = graph.shape(source)
    result = (*shape[: axis + 1], end - begin, *shape[axis + 2 :])
    graph.add(name, "slice", (source,), result, axis=axis, begin=begin, end=end)


def _split(graph: OnnxGraph, node: OnnxNode) -> None:
    shape = graph.shape(node.inputs[0])
    axis = graph.axis(int(node.attribute("axis", 0)), len(shape))
    sizes = graph.numbers(node, "split", 1)
    if sizes is None:
        count = len(node.outputs)
        each = -(-shape[axis + 1] // count)
        sizes = tuple(min(each, shape[axis + 1] - i * each) for i in range(count))
    begin = 0
    for name, size in zip(node.outputs, sizes, strict=True):
        _sliced(graph, name, node.inputs[0], axis, begin, begin + size)
        begin += size


def _slice(graph: OnnxGraph, node: OnnxNode) -> None:
    shape = graph.shape(node.inputs[0])
    starts, ends = graph.numbers(node, "starts", 1) or (), graph.numbers(node, "ends", 2) or ()
    axes = graph.numbers(node, "axes", 3) or tuple(range(len(starts)))
    steps = graph.numbers(node, "steps", 4) or (1,) * len(starts)
    cuts = [
        (axis % len(shape), range(shape[axis])[start:end:step])
        for axis, start, end, step in zip(axes, starts, ends, steps, strict=True)
    ]
    cuts = [(axis, kept) for axis, kept in cuts if kept != range(shape[axis])]
    if not cuts:
        _same(graph, node)
        return
    (axis, kept), *others = cuts
    if others or kept.step != 1 or not kept:
        raise ConversionError("a slice along several axes, or with a step")
    own = graph.axis(axis, len(shape))
    _sliced(graph, node.name, node.inputs[0], own, kept.start, kept.stop)


def _pad(graph: OnnxGraph, node: OnnxNode) -> None:
    shape = graph.shape(node.inputs[0])
    if node.attribute("mode", "constant") != "constant":
        raise ConversionError(f"a border by {one_line(node.attribute('mode'))}, wanted a constant")
    pads = graph.numbers(node, "pads", 1) or ()
    value = graph.optional(node, 2, "the value")
    number = float(node.attribute("value", 0.0) if value is None else value.reshape(-1)[0])
    padded = graph.numbers(node, "axes", 3) or tuple(range(len(shape)))
    before, after = [0] * len(shape), [0] * len(shape)
    for i, axis in enumerate(padded):
        before[axis % len(shape)], after[axis % len(shape)] = pads[i], pads[i + len(padded)]
    if not any(before) and not any(after):
        _same(graph, node)
        return
    spatial = (1, 2) if before[1] or after[1] else (2, 3)
    others = [i for i in range(len(shape)) if i not in spatial]
    if len(shape) != 4 or any(before[i] or after[i] for i in others):
        raise ConversionError(f"a border of {pads} around {shape}, wanted height and width alone")
    result = tuple(n + before[i] + after[i] for i, n in enumerate(shape))
    sides = tuple(side[i] for i in spatial for side in (before, after))
    axes = tuple(i - 1 for i in spatial)
    graph.add(node.name, "pad", node.inputs[:1], result, axes=axes, pads=sides, value=number)


# --- Element by element --------------------------------------------------------------------------


def elementwise(word: str) -> Handler:
    """Return what writes an operator that acts on every element alone, and has no attributes."""

    def handler(graph: OnnxGraph, node: OnnxNode) -> None:
        shape = np.broadcast_shapes(*(graph.shape(name) for name in node.inputs))
        graph.add(node.name, word, node.inputs, shape)

    return handler


def _many(word: str) -> Handler:
    """Return what writes an operator of any number of inputs, two by two."""

    def handler(graph: OnnxGraph, node: OnnxNode) -> None:
        first, *others = node.inputs
        if not others:
            _same(graph, node)
        for i, name in enumerate(others):
            result = node.name if i == len(others) - 1 else f"{node.name}.{i}"
            shape = np.broadcast_shapes(graph.shape(first), graph.shape(name))
            first = graph.add(result, word, (first, name), shape)

    return handler


def _sign(graph: OnnxGraph, node: OnnxNode) -> None:
    shape = graph.shape(node.inputs[0])
    graph.add(node.name, "sign", node.inputs, shape, at_zero=0, low=-1.0, high=1.0)


def _leaky_relu(graph: OnnxGraph, node: OnnxNode) -> None:
    slope = graph.make_constant(f"{node.name}.slope", np.float32(node.attribute("alpha", 0.01)))
    graph.add(node.name, "prelu", (node.inputs[0], slope), graph.shape(node.inputs[0]))


def _clip(graph: OnnxGraph, node: OnnxNode) -> None:
    low, high = graph.optional(node, 1, "min"), graph.optional(node, 2, "max")
    bounds = {
        "low": float(node.attribute("min", -math.inf) if low is None else low.reshape(-1)[0]),
        "high": float(node.attribute("max", math.inf) if high is None else high.reshape(-1)[0]),
    }
    graph.add(node.name, "clip", node.inputs[:1], graph.shape(node.inputs[0]), **bounds)


def _hard_sigmoid(graph: OnnxGraph, node: OnnxNode) -> None:
    x, shape = node.inputs[0], graph.shape(node.inputs[0])
    alpha, beta = node.attribute("alpha", 0.2), node.attribute("beta", 0.5)
    slope = graph.make_constant(f"{node.name}.alpha", np.float32(alpha))
    shift = graph.make_constant(f"{node.name}.beta", np.float32(beta))
    x = graph.add(f"{node.name}.scaled", "multiply", (x, slope), shape)
    x = graph.add(f"{node.name}.shifted", "add", (x, shift), shape)
    graph.add(node.name, "clip", (x,), shape, low=0.0, high=1.0)


def _cast(graph: OnnxGraph, node: OnnxNode) -> None:
    to, shape = node.attribute("to"), graph.shape(node.inputs[0])
    if to in _FLOATS:
        graph.add(node.name, "to_float", node.inputs[:1], shape)
    elif to == TensorProto.BOOL:
        graph.add(node.name, "to_bool", node.inputs[:1], shape)
    else:
        raise ConversionError("a cast to whole numbers")


def _log_softmax(graph: OnnxGraph, node: OnnxNode) -> None:
    raise ConversionError(
        "logarithms are not there: export the network without it; its answers are the same"
    )


def _softmax(graph: OnnxGraph, node: OnnxNode) -> None:
    shape = graph.shape(node.inputs[0])
    default = -1 if graph.opset >= 13 else 1
    if len(shape) != 2 or node.attribute("axis", default) % len(shape) != 1:
        raise ConversionError(f"a softmax of a value of shape {shape}, wanted vectors")
    graph.add(node.name, "softmax", node.inputs, shape)


_HANDLERS: Mapping[str, Handler] = {
    "Conv": _conv,
    "Gemm": _gemm,
    "MatMul": matmul,
    "BatchNormalization": _batch_norm,
    "MaxPool": _pool("max_pool"),
    "AveragePool": _pool("avg_pool"),
    "GlobalAveragePool": _global_pool("global_avg_pool"),
    "GlobalMaxPool": _global_pool("global_max_pool"),
    "ReduceMean": _reduce_mean,
    "Reshape": _reshape,
    "Flatten": _flatten,
    "Squeeze": _squeeze,
    "Unsqueeze": _unsqueeze,
    "Expand": _expand,
    "Transpose": _transpose,
    "Concat": _concat,
    "Split": _split,
    "Slice": _slice,
    "Pad": _pad,
    "Identity": _same,
    "Dropout": _same,
    "Sign": _sign,
    "Relu": elementwise("relu"),
    "LeakyRelu": _leaky_relu,
    "PRelu": elementwise("prelu"),
    "Clip": _clip,
    "Sigmoid": elementwise("sigmoid"),
    "HardSigmoid": _hard_sigmoid,
    "Tanh": elementwise("tanh"),
    "Softmax": _softmax,
    "LogSoftmax": _log_softmax,
    "Abs": elementwise("abs"),
    "Neg": elementwise("negate"),
    "Sqrt": elementwise("sqrt"),
    "Add": elementwise("add"),
    "Sum": _many("add"),
    "Sub": elementwise("subtract"),
    "Mul": elementwise("multiply"),
    "Div": elementwise("divide"),
    "Pow": elementwise("power"),
    "Min": _many("minimum"),
    "Max": _many("maximum"),
    "Less": elementwise("less"),
    "LessOrEqual": elementwise("less_or_equal"),
    "Greater": elementwise("greater"),
    "GreaterOrEqual": elementwise("greater_or_equal"),
    "Equal": elementwise("equal"),
    "Not": elementwise("not"),
    "Where": elementwise("where"),
    "Cast": _cast,
}
"""By operator, what writes it."""

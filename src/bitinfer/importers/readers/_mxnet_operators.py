"""The operators of MXNet 1.x and BMXNet, in the words of foreign.OPERATIONS."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import numpy as np

from bitinfer.bits import Floats
from bitinfer.errors import CheckpointError, ConversionError
from bitinfer.files import one_line
from bitinfer.importers.readers._graph_draft import Array, Shape
from bitinfer.importers.readers._mxnet_graph import MxnetGraph, MxnetNode

Handler = Callable[[MxnetGraph, MxnetNode], None]


def write(graph: MxnetGraph, node: MxnetNode) -> None:
    """Write an operator, or compute one of the few that act on weights."""
    if node.inputs and all(n in graph.constants for n in node.inputs):
        with np.errstate(all="ignore"):  # what is not finite is refused where it is used
            _fold(graph, node)
        return
    handler = _HANDLERS.get(node.operation)
    if handler is None:
        raise ConversionError("there is no such operator here")
    handler(graph, node)


def _fold(graph: MxnetGraph, node: MxnetNode) -> None:
    x = graph.constants[node.inputs[0]]
    scalar = np.float32(node.number("scalar", 0.0))
    match node.operation:
        case "sign":
            value: Array = np.sign(x)
        case "_plus_scalar":
            value = x + scalar
        case "_mul_scalar":
            value = x * scalar
        case "broadcast_mul" | "elemwise_mul":
            value = x * graph.constants[node.inputs[1]]
        case "abs":
            value = np.abs(x)
        case "BlockGrad" | "identity" | "_copy":
            value = x
        case _:
            raise ConversionError("of a constant: there is no such operator here")
    graph.constants[node.name] = value


def _shape(graph: MxnetGraph, node: MxnetNode, index: int = 0) -> Shape:
    name = node.inputs[index]
    if name not in graph.shapes:
        raise ConversionError(f"{one_line(name)} is no value, wanted one")
    return graph.shapes[name]


def _map(graph: MxnetGraph, node: MxnetNode) -> Shape:
    shape = _shape(graph, node)
    if len(shape) != 3:
        raise CheckpointError(f"an input of shape {shape}, wanted (C, H, W)")
    return shape


def _same(graph: MxnetGraph, node: MxnetNode) -> None:
    graph.alias[node.name] = node.inputs[0]


# --- Layers --------------------------------------------------------------------------------------


def unpacked(words: Array, count: int) -> Floats:
    """Return packed bits as signs: 1 is +1, least significant first, whatever type the words have.

    Shapes:  words (...) of n bytes each  ->  (count,), along the words in their order.
    """
    octets = np.ascontiguousarray(words).view(np.uint8).reshape(-1)
    found = np.unpackbits(octets, bitorder="little")
    if found.size < count:
        raise CheckpointError(f"{found.size} bits for {count} weights")
    return 2 * found[:count].astype(np.float32) - 1


def _is_packed(node: MxnetNode, weight: Array) -> bool:
    return node.flag("binarized_weights_only") or (weight.ndim == 1 and node.operation[0] == "Q")


def _signs(weight: Array) -> Floats:
    return np.where(weight >= 0, np.float32(1), np.float32(-1))


def _bias(graph: MxnetGraph, node: MxnetNode) -> tuple[str, ...]:
    if node.flag("no_bias") or len(node.inputs) < 3:
        return ()
    return (node.inputs[2],)


def _check_bits(node: MxnetNode) -> None:
    bits = int(node.number("act_bit", 1))
    if bits != 1:
        raise ConversionError(f"act_bit is {bits}: only signs are there")


def _convolution(graph: MxnetGraph, node: MxnetNode) -> None:
    channels, height, width = _map(graph, node)
    kernel = node.numbers("kernel", ())
    stride, pad = node.numbers("stride", (1, 1)), node.numbers("pad", (0, 0))
    dilate = node.numbers("dilate", (1, 1))
    filters, groups = int(node.number("num_filter", 0)), int(node.number("num_group", 1))
    if any(len(v) != 2 for v in (kernel, stride, pad, dilate)) or min(filters, groups) < 1:
        raise ConversionError(f"kernel {kernel}, {filters} filters, {groups} groups")
    if min(*kernel, *stride, *dilate) < 1 or min(pad) < 0 or channels % groups:
        raise CheckpointError(f"kernel {kernel}, stride {stride}, pad {pad}, groups {groups}")
    weight = graph.weight(node.inputs[1], "the weight")
    shape = (filters, channels // groups, *kernel)
    is_binary = node.operation == "QConvolution"
    x = node.inputs[0]
    if is_binary:
        _check_bits(node)
        is_packed = _is_packed(node, weight)
        weight = unpacked(weight, math.prod(shape)) if is_packed else _signs(weight)
        x = _sign_of(graph, f"{node.name}.signs", x)
    if weight.size != math.prod(shape):
        raise CheckpointError(f"a weight of shape {weight.shape}, wanted {shape}")
    out = [
        (n + 2 * p - d * (k - 1) - 1) // s + 1
        for n, p, d, k, s in zip((height, width), pad, dilate, kernel, stride, strict=True)
    ]
    graph.add(
        node.name,
        "conv",
        (
            x,
            graph.make_constant(f"{node.name}.weight'", weight.reshape(shape)),
            *_bias(graph, node),
        ),
        (filters, *out),
        axes="OIHW",
        strides=stride,
        pads=(pad[0], pad[0], pad[1], pad[1]),
        dilations=dilate,
        groups=groups,
        pad_value=1.0 if is_binary else 0.0,
        counts="agreements" if is_binary else "sums",
    )


def _sign_of(graph: MxnetGraph, name: str, x: str) -> str:
    """Binarise an input, as the binary layers of BMXNet v1 do; signs stay what they are."""
    return graph.add(name, "sign", (x,), graph.shapes[x], at_zero=1, low=-1.0, high=1.0)


def _fully_connected(graph: MxnetGraph, node: MxnetNode) -> None:
    source = _shape(graph, node)
    inputs, outputs = math.prod(source), int(node.number("num_hidden", 0))
    if outputs < 1:
        raise CheckpointError(f"num_hidden is {outputs}")
    weight = graph.weight(node.inputs[1], "the weight")
    is_binary = node.operation == "QFullyConnected"
    x = node.inputs[0]
    if len(source) > 1:
        x = graph.add(f"{node.name}.flat", "flatten", (x,), (inputs,))
    if is_binary:
        _check_bits(node)
        if _is_packed(node, weight):
            bits = 8 * weight.dtype.itemsize
            # word[k / bits][o]
            words = weight.reshape(-1, outputs).T
            if words.shape[1] * bits < inputs:
                raise CheckpointError(f"{words.shape[1]} words for {inputs} inputs")
            rows = [unpacked(row, inputs) for row in np.ascontiguousarray(words)]
            weight = np.stack(rows)
        else:
            weight = _signs(weight)
        x = _sign_of(graph, f"{node.name}.signs", x)
    if weight.size != outputs * inputs:
        raise CheckpointError(f"a weight of shape {weight.shape} for {outputs} x {inputs}")
    name = graph.make_constant(f"{node.name}.weight'", weight.reshape(outputs, inputs))
    counts = "agreements" if is_binary else "sums"
    shape = (outputs,)
    inputs_of = (x, name, *_bias(graph, node))
    graph.add(node.name, "dense", inputs_of, shape, axes="OI", counts=counts)


def _batch_norm(graph: MxnetGraph, node: MxnetNode) -> None:
    x, gamma, beta, mean, variance = node.inputs[:5]
    if node.flag("fix_gamma", True):
        gamma = ""
    if node.number("axis", 1) != 1:
        raise ConversionError("along another axis than the channels'")
    epsilon = node.number("eps", 1e-3)
    shape = _shape(graph, node)
    graph.add(node.name, "batch_norm", (x, gamma, beta, mean, variance), shape, epsilon=epsilon)


# --- Maps ----------------------------------------------------------------------------------------


def _pooling(graph: MxnetGraph, node: MxnetNode) -> None:
    channels, height, width = _map(graph, node)
    kind = node.text("pool_type", "max")
    if kind not in ("max", "avg"):
        raise ConversionError(f"pool_type {one_line(kind)}")
    if node.flag("global_pool"):
        graph.add(node.name, f"global_{kind}_pool", node.inputs[:1], (channels, 1, 1))
        return
    kernel, pad = node.numbers("kernel", ()), node.numbers("pad", (0, 0))
    stride = node.numbers("stride", (1, 1))
    if any(len(v) != 2 for v in (kernel, pad, stride)) or min(*kernel, *stride) < 1 or min(pad) < 0:
        raise CheckpointError(f"kernel {kernel}, stride {stride}, pad {pad}")
    rooms = [n + 2 * p - k for n, p, k in zip((height, width), pad, kernel, strict=True)]
    ends = list(pad)
    if node.text("pooling_convention", "valid") == "full":
        ends = [p + -r % s for p, r, s in zip(pad, rooms, stride, strict=True)]
        if kind == "avg" and ends != list(pad):
            raise ConversionError("an average of the convention full")
        rooms = [r + -r % s for r, s in zip(rooms, stride, strict=True)]
    out = [r // s + 1 for r, s in zip(rooms, stride, strict=True)]
    more = {}
    if kind == "avg":
        more["count_include_pad"] = int(node.flag("count_include_pad", True))
    pads = (pad[0], ends[0], pad[1], ends[1])
    graph.add(
        node.name,
        f"{kind}_pool",
        node.inputs[:1],
        (channels, *out),
        kernel=kernel,
        strides=stride,
        pads=pads,
        **more,
    )


def _pad(graph: MxnetGraph, node: MxnetNode) -> None:
    channels, height, width = _map(graph, node)
    widths = node.numbers("pad_width", ())
    if node.text("mode", "constant") != "constant" or len(widths) != 8 or any(widths[:4]):
        raise ConversionError(f"a border of {widths}, wanted a constant one")
    top, bottom, left, right = widths[4:]
    graph.add(
        node.name,
        "pad",
        node.inputs[:1],
        (channels, height + top + bottom, width + left + right),
        axes=(1, 2),
        pads=(top, bottom, left, right),
        value=node.number("constant_value", 0.0),
    )


def _flatten(graph: MxnetGraph, node: MxnetNode) -> None:
    graph.add(node.name, "flatten", node.inputs[:1], (math.prod(_shape(graph, node)),))


def _concat(graph: MxnetGraph, node: MxnetNode) -> None:
    shapes = [_shape(graph, node, i) for i in range(len(node.inputs))]
    if node.number("dim", 1) != 1 or len({s[1:] for s in shapes}) != 1:
        raise ConversionError(f"joins {shapes} along {node.text('dim', '1')}")
    shape = (sum(s[0] for s in shapes), *shapes[0][1:])
    graph.add(node.name, "concat", node.inputs, shape, axis=0)


# --- Element by element --------------------------------------------------------------------------


def _sign(graph: MxnetGraph, node: MxnetNode) -> None:
    shape = _shape(graph, node)
    graph.add(node.name, "sign", node.inputs, shape, at_zero=0, low=-1.0, high=1.0)


def _q_activation(graph: MxnetGraph, node: MxnetNode) -> None:
    if node.flag("backward_only"):
        _same(graph, node)
        return
    _check_bits(node)
    _sign_of(graph, node.name, node.inputs[0])


def _activation(graph: MxnetGraph, node: MxnetNode) -> None:
    kind = node.text("act_type", "relu")
    if kind not in ("relu", "sigmoid", "tanh"):
        raise ConversionError(f"act_type {one_line(kind)}")
    graph.add(node.name, kind, node.inputs[:1], _shape(graph, node))


def _leaky(graph: MxnetGraph, node: MxnetNode) -> None:
    kind = node.text("act_type", "leaky")
    if kind == "prelu":
        slope = graph.weight(node.inputs[1], "the slope")
        shape = _shape(graph, node)
        slope = slope.reshape(-1, *(1,) * (len(shape) - 1)) if slope.size > 1 else slope.reshape(())
    elif kind == "leaky":
        slope = np.asarray(np.float32(node.number("slope", 0.25)))
    else:
        raise ConversionError(f"act_type {one_line(kind)}")
    name = graph.make_constant(f"{node.name}.slope'", slope)
    graph.add(node.name, "prelu", (node.inputs[0], name), _shape(graph, node))


def _with_scalar(word: str, *, is_reversed: bool = False) -> Handler:
    def handler(graph: MxnetGraph, node: MxnetNode) -> None:
        name = graph.make_constant(f"{node.name}.scalar'", np.float32(node.number("scalar", 0.0)))
        inputs = (name, node.inputs[0]) if is_reversed else (node.inputs[0], name)
        graph.add(node.name, word, inputs, _shape(graph, node))

    return handler


def _pairwise(word: str) -> Handler:
    def handler(graph: MxnetGraph, node: MxnetNode) -> None:
        shapes = [graph.shapes[n] for n in node.inputs if n in graph.shapes]
        graph.add(node.name, word, node.inputs, np.broadcast_shapes(*shapes))

    return handler


def _clip(graph: MxnetGraph, node: MxnetNode) -> None:
    low, high = node.number("a_min", -math.inf), node.number("a_max", math.inf)
    graph.add(node.name, "clip", node.inputs[:1], _shape(graph, node), low=low, high=high)


def _softmax(graph: MxnetGraph, node: MxnetNode) -> None:
    shape = _shape(graph, node)
    if len(shape) != 1:
        raise ConversionError(f"a softmax of shape {shape}")
    graph.add(node.name, "softmax", node.inputs[:1], shape)


_HANDLERS: Mapping[str, Handler] = {
    "Convolution": _convolution,
    "QConvolution": _convolution,
    "FullyConnected": _fully_connected,
    "QFullyConnected": _fully_connected,
    "BatchNorm": _batch_norm,
    "Pooling": _pooling,
    "Pad": _pad,
    "Flatten": _flatten,
    "flatten": _flatten,
    "Concat": _concat,
    "sign": _sign,
    "QActivation": _q_activation,
    "Activation": _activation,
    "LeakyReLU": _leaky,
    "clip": _clip,
    "_plus_scalar": _with_scalar("add"),
    "_minus_scalar": _with_scalar("subtract"),
    "_rminus_scalar": _with_scalar("subtract", is_reversed=True),
    "_mul_scalar": _with_scalar("multiply"),
    "_div_scalar": _with_scalar("divide"),
    "elemwise_add": _pairwise("add"),
    "_plus": _pairwise("add"),
    "_Plus": _pairwise("add"),
    "broadcast_add": _pairwise("add"),
    "elemwise_sub": _pairwise("subtract"),
    "broadcast_sub": _pairwise("subtract"),
    "elemwise_mul": _pairwise("multiply"),
    "broadcast_mul": _pairwise("multiply"),
    # The softmax that a network is trained with is no part of it: its input are the logits.
    "SoftmaxOutput": _same,
    "softmax": _softmax,
    "Dropout": _same,
    "BlockGrad": _same,
    "identity": _same,
    "_copy": _same,
}
"""By operator, what writes it."""

"""What acts on every element alone: activations, sums and products; and XNOR-Net's beta map."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bitinfer.bits import Floats
from bitinfer.errors import ConversionError
from bitinfer.graph.nodes import Pair
from bitinfer.importers import layers
from bitinfer.importers.binary import SAME_SIZE
from bitinfer.importers.foreign import ForeignNode
from bitinfer.importers.pending import Magnitude, Pending
from bitinfer.importers.walk import Walk


def _identity(walk: Walk, node: ForeignNode) -> Pending:
    return walk.value(node.inputs[0])


def _negate(walk: Walk, node: ForeignNode) -> Pending:
    x = walk.value(node.inputs[0])
    if not x.is_plain or x.is_padded:
        x = walk.write.floats(x)
    return x.scaled(np.full(x.channels, -1.0), None)


def _unary(method: str) -> Callable[[Walk, ForeignNode], Pending]:
    def write(walk: Walk, node: ForeignNode) -> Pending:
        x = walk.floats(node)
        name = getattr(walk.b, method)(x.name, name=walk.write.name(node.name))
        return dataclasses.replace(x, name=name)

    return write


def _clip(walk: Walk, node: ForeignNode) -> Pending:
    x = walk.floats(node)
    low, high = (float(node.attributes[k]) for k in ("low", "high"))  # type: ignore[arg-type]
    largest = float(np.finfo(np.float32).max)
    name = walk.write.name(node.name)
    if (low, high) == (0.0, float("inf")):
        return dataclasses.replace(x, name=walk.b.relu(x.name, name=name))
    bounds = max(low, -largest), min(high, largest)
    return dataclasses.replace(x, name=walk.b.clip(x.name, *bounds, name=name))


def _prelu(walk: Walk, node: ForeignNode) -> Pending:
    x = walk.write.laid(walk.value(node.inputs[0]))
    if x.shift is None or x.scale is not None or x.is_padded or not x.is_plain:
        x = walk.write.floats(x)
    slope = walk.per_channel(walk.required(node, 1, "the slope"), x, "the slope")
    name = walk.write.name(node.name)
    if x.shift is None:
        return dataclasses.replace(x, name=walk.b.prelu(x.name, slope, name=name))
    shift = x.shift
    x = dataclasses.replace(x, shift=None)

    def written(shift_out: Floats | None, beta: str | None = None) -> str:
        out = np.zeros(x.channels) if shift_out is None else shift_out
        return walk.b.rprelu(x.name, shift, slope, out, name=name)

    return dataclasses.replace(x, name=name, layer=written)


def _tanh(walk: Walk, node: ForeignNode) -> Pending:
    """Write ``2 * sigmoid(2 x) - 1``."""
    x = walk.value(node.inputs[0])
    if not x.is_plain or x.is_padded:
        x = walk.write.floats(x)
    two = np.full(x.channels, 2.0)
    x = walk.write.settled(x.scaled(two, None))
    name = walk.b.sigmoid(x.name, name=walk.write.name(f"{node.name}.sigmoid"))
    return dataclasses.replace(x, name=name).scaled(two, np.full(x.channels, -1.0))


def _quantize(walk: Walk, node: ForeignNode) -> Pending:
    x, scale = walk.floats(node), float(node.attributes["scale"])  # type: ignore[arg-type]
    name = walk.b.quantize(x.name, scale, name=walk.write.name(node.name))
    return dataclasses.replace(x, name=name, step=scale)


def _arithmetic(walk: Walk, node: ForeignNode) -> Pending:
    """Sum, difference, product or quotient, of two values or with a constant."""
    constants = [name in walk.source.constants for name in node.inputs]
    if not any(constants):
        return _of_two(walk, node)
    index = constants.index(False)
    x = walk.value(node.inputs[index])
    if not x.is_plain or x.is_padded:
        x = walk.write.floats(x)
    c = walk.per_channel(walk.required(node, 1 - index, "the constant"), x, "the constant")
    match node.operation, index:
        case "add", _:
            return x.scaled(None, c)
        case "subtract", 0:
            return x.scaled(None, -c)
        case "subtract", _:
            return x.scaled(np.full(x.channels, -1.0), c)
        case "multiply", _:
            return x.scaled(c, None)
        case "divide", 0 if np.all(c):
            return x.scaled(1 / c, None)
    raise ConversionError("a quotient by a value, or by 0")


def _of_two(walk: Walk, node: ForeignNode) -> Pending:
    if node.operation == "multiply":
        for i in (0, 1):
            scaled = _by_beta_map(walk, node, *(walk.value(node.inputs[k]) for k in (i, 1 - i)))
            if scaled is not None:
                return scaled
    if node.operation == "divide":
        raise ConversionError("a quotient of two values: only sums, differences and products")
    x, y = walk.value(node.inputs[0]), walk.value(node.inputs[1])
    if node.operation == "subtract":
        y = (y if y.is_plain and not y.is_padded else walk.write.floats(y)).scaled(
            np.full(y.channels, -1.0), None
        )
    x, y = walk.write.floats(x), walk.write.floats(y)
    if len(x.shape) < len(y.shape):
        x, y = y, x
    if x.is_map and y.is_map and x.layout != y.layout:
        raise ConversionError(f"a map in {x.layout} and one in {y.layout}")
    write = walk.b.multiply if node.operation == "multiply" else walk.b.add
    name = write(x.name, y.name, name=walk.write.name(node.name))
    return dataclasses.replace(x, name=name, magnitude=None)


# --- The beta map --------------------------------------------------------------------------------


def _abs(walk: Walk, node: ForeignNode) -> Pending:
    """Keep in mind whose size it is; as numbers, a PReLU with the slope -1."""
    x = walk.floats(node)

    def written(shift: Floats | None, beta: str | None = None) -> str:
        slope, zero = np.full(x.channels, -1.0), np.zeros(x.channels)
        out = zero if shift is None else shift
        return walk.b.rprelu(x.name, zero, slope, out, name=walk.write.name(node.name))

    return dataclasses.replace(x, name=node.name, layer=written, magnitude=Magnitude(x.name))


def channel_mean(walk: Walk, node: ForeignNode, x: Pending) -> Pending:
    """Return the mean over the channels of a map: (H, W, C) -> (H, W, 1)."""
    magnitude = x.magnitude
    channels = x.channels

    def written(shift: Floats | None, beta: str | None = None) -> str:
        weight = np.full((1, 1, 1, channels), 1 / channels)
        source = walk.write.floats(x)
        return walk.b.conv2d(source.name, weight, shift, name=walk.write.name(node.name))

    if magnitude is not None:
        magnitude = dataclasses.replace(magnitude, is_mean=True)
    shape = (*x.shape[:-1], 1)
    return Pending(node.name, shape, True, x.layout, layer=written, magnitude=magnitude)


def box_of(
    node: ForeignNode, x: Pending, weight: NDArray[Any], bias: NDArray[Any] | None
) -> Pending | None:
    """Return what a convolution of mean sizes with a box filter is; None if it is another one."""
    layer = layers.as_conv(node, weight, bias)
    _, height, width, _ = layer.weight.shape
    share = 1 / (height * width)
    is_box = np.abs(layer.weight - share).max() <= SAME_SIZE * share
    if layer.weight.size != height * width or layer.bias is not None or not is_box:
        return None
    if not _is_mean_alone(x):
        return None
    return boxed(node, x, (height, width), layer.dilation)


def boxed(node: ForeignNode, x: Pending, kernel: Pair, dilation: Pair = (1, 1)) -> Pending:
    """Return the mean size in windows, of which only a product with binary sums is there."""
    if not _is_mean_alone(x):
        raise ConversionError(
            "a mean of sizes that is no beta map: XNOR-Net's is over all channels"
        )
    assert x.magnitude is not None
    stride, pads = layers.pair(node, "strides"), layers.sides(node)
    magnitude = Magnitude(x.magnitude.source, True, kernel, stride, pads, dilation)
    shape = layers.pooled(x.shape, kernel, stride, pads, dilation)

    def written(shift: Floats | None, beta: str | None = None) -> str:
        raise ConversionError("a beta map that no binary layer is multiplied with")

    return Pending(node.name, shape, True, x.layout, layer=written, magnitude=magnitude)


def _is_mean_alone(x: Pending) -> bool:
    m = x.magnitude
    is_plain = not x.is_affine and not x.is_padded
    return m is not None and m.is_mean and m.kernel == (1, 1) and is_plain


def _by_beta_map(walk: Walk, node: ForeignNode, x: Pending, size: Pending) -> Pending | None:
    """Return the sums ``x`` scaled by the mean sizes ``size``; None if these are something else."""
    m, layer = size.magnitude, x.layer
    if m is None or not m.is_mean or size.is_affine or size.is_padded:
        return None
    if layer is None or not x.is_scalable or x.shift is not None:
        raise ConversionError("a beta map is there only behind a binary layer")

    def written(bias: Floats | None, beta: str | None = None) -> str:
        scale = walk.b.beta_map(
            m.source,
            kernel=m.kernel,
            stride=m.stride,
            padding=m.padding,
            dilation=m.dilation,
            name=walk.write.name(node.name),
        )
        return layer(bias, scale)

    return dataclasses.replace(x, name=node.name, layer=written, is_scalable=False)


HANDLERS: Mapping[str, Callable[[Walk, ForeignNode], Pending]] = {
    "identity": _identity,
    "to_float": _identity,
    "relu": _unary("relu"),
    "softmax": _unary("softmax"),
    "sigmoid": _unary("sigmoid"),
    "tanh": _tanh,
    "clip": _clip,
    "prelu": _prelu,
    "abs": _abs,
    "negate": _negate,
    "quantize": _quantize,
    "add": _arithmetic,
    "subtract": _arithmetic,
    "multiply": _arithmetic,
    "divide": _arithmetic,
}
"""By word, what writes it."""

"""From a foreign graph to a graph: the only place that decides what becomes binary.

Constants are folded first (evaluate.py), then signs are found by what they compute (signs.py), and
then the nodes are walked over in order.  A layer becomes binary if its input is signs and every
filter of its weight has one size (binary.py); whatever the reason why it does not, its outcome says
so, with what would change it.  What has no counterpart is refused by name.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bitinfer import numerics
from bitinfer.bits import Floats
from bitinfer.errors import CheckpointError, GraphError, ShapeError
from bitinfer.graph import Graph, GraphBuilder
from bitinfer.importers import evaluate, foreign, layers, signs
from bitinfer.importers.binary import Levels, SignRule
from bitinfer.importers.foreign import Foreign, ForeignNode
from bitinfer.importers.outcome import Finding, LayerOutcome
from bitinfer.importers.pending import Doubles, Pending, SignOrigin, Writer


@dataclasses.dataclass(frozen=True, eq=False)
class Recognised:
    """What a foreign graph became."""

    graph: Graph
    tensors: dict[str, NDArray[Any]]
    layers: tuple[LayerOutcome, ...]


def recognise(source: Foreign) -> Recognised:
    """Return the network as a graph, and what became of each of its layers.

    Raises:
        CheckpointError: something in it has no counterpart here, or does not fit; the message names
            the node.
    """
    foreign.check(source)
    source = signs.find_signs(evaluate.fold_constants(source))
    walk = _Walk(source)
    for node in source.nodes:
        walk.visit(node)
    try:
        graph, tensors = walk.b.build(*(walk.output(name) for name in source.outputs))
    except (GraphError, ShapeError) as error:
        raise CheckpointError(f"{source.name}: {error}") from error
    return Recognised(graph, tensors, tuple(walk.outcomes))


class _Walk:
    """Writes one node after the other; ``values`` are those of the source by name."""

    def __init__(self, source: Foreign) -> None:
        self.source = source
        self.channels_first = source.layout == "NCHW"
        shape = source.input_shape
        self.b = GraphBuilder(source.name, self.own_shape(shape), source.input)
        self.write = Writer(self.b, "channels_first" if self.channels_first else "channels_last")
        self.values = {
            source.input: Pending(
                self.write.name(source.input), self.own_shape(shape), len(shape) == 3
            )
        }
        self.readers = source.consumers()
        self.outcomes: list[LayerOutcome] = []
        self.norms: dict[str, tuple[Floats, Floats]] = {}

    def own_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Return a shape of the source as (H, W, C) or (C,)."""
        if len(shape) not in (1, 3):
            raise CheckpointError(f"a value has shape {shape}, wanted a map or a vector")
        return (*shape[1:], shape[0]) if self.channels_first else shape

    def visit(self, node: ForeignNode) -> None:
        handler = _HANDLERS.get(node.operation)
        try:
            if handler is None:
                raise CheckpointError("there is no such operation here")
            value = handler(self, node)
        except (CheckpointError, ShapeError, GraphError) as error:
            raise CheckpointError(f"{node.name} ({node.operation}): {error}") from error
        if len(self.readers.get(node.name, ())) != 1 and not value.levels:
            # Several readers share what is written once.
            value = self.write.settled(value)
        self.values[node.name] = value

    def output(self, name: str) -> str:
        return self.write.floats(self.value(name)).name

    def value(self, name: str) -> Pending:
        if name not in self.values:
            raise CheckpointError(f"{name!r} is a constant, wanted a value")
        return self.values[name]

    def floats(self, node: ForeignNode, index: int = 0) -> Pending:
        """Return an input of ``node`` as numbers, all written."""
        return self.write.floats(self.value(node.inputs[index]))

    def constant(self, node: ForeignNode, index: int, what: str) -> NDArray[Any] | None:
        """Return a constant input; None where it is missing."""
        name = node.inputs[index] if index < len(node.inputs) else ""
        if not name:
            return None
        if name not in self.source.constants:
            raise CheckpointError(f"{what} {name!r} is computed from the input, wanted a constant")
        array = self.source.constants[name]
        if array.dtype.kind not in "fiub":
            raise CheckpointError(f"{what} is {array.dtype}, wanted numbers")
        return array

    def required(self, node: ForeignNode, index: int, what: str) -> NDArray[Any]:
        array = self.constant(node, index, what)
        if array is None:
            raise CheckpointError(f"{what} is missing")
        return array

    def per_channel(self, array: NDArray[Any], value: Pending, what: str) -> Doubles:
        """Return a constant that is added to ``value``, or the like, as one number per channel.

        Raises:
            CheckpointError: it differs between pixels.
        """
        shape = value.shape if len(value.shape) == 3 or not value.is_map else (1, 1, *value.shape)
        if self.channels_first and len(shape) == 3:
            shape = (shape[2], *shape[:2])
        while array.ndim > len(shape) and array.shape[0] == 1:
            array = array[0]
        try:
            full = np.broadcast_to(array.astype(np.float64), shape)
        except ValueError:
            raise CheckpointError(f"{what} has shape {array.shape}, the value {shape}") from None
        if len(shape) == 1:
            return full
        first = full[:, 0, 0] if self.channels_first else full[0, 0, :]
        pixel = first[:, None, None] if self.channels_first else first
        if not np.array_equal(full, np.broadcast_to(pixel, shape)):
            raise CheckpointError(f"{what} of shape {array.shape} differs between pixels")
        return first


# --- Layers --------------------------------------------------------------------------------------


def _layer(walk: _Walk, node: ForeignNode) -> Pending:
    x = walk.value(node.inputs[0])
    weight = walk.required(node, 1, "the weight")
    bias = walk.constant(node, 2, "the bias")
    layer = (layers.as_conv if node.operation == "conv" else layers.as_dense)(node, weight, bias)
    if node.operation == "conv" and len(x.shape) == 1 and x.is_map:
        x = walk.write.floats(x)
        name = walk.write.name(f"{node.name}.map")
        x = dataclasses.replace(
            x, name=walk.b.reshape(x.name, (1, 1, x.channels), name=name), shape=(1, 1, x.channels)
        )
    if len(x.shape) != (3 if node.operation == "conv" else 1):
        raise CheckpointError(f"the input has shape {x.shape}")
    made = layers.decide(
        layer, x, walk.write, walk.norms.get(x.origin.source) if x.origin else None
    )

    def written(extra: Floats | None) -> str:
        total = made.bias if extra is None else extra if made.bias is None else made.bias + extra
        name = made.write(walk.write.name(node.name), total)
        parameters = weight.size + (0 if total is None else total.size)
        walk.outcomes.append(dataclasses.replace(made.outcome, parameters=parameters))
        return name

    return Pending(node.name, made.shape, node.operation == "conv", layer=written)


def _batch_norm(walk: _Walk, node: ForeignNode) -> Pending:
    x = walk.floats(node)
    mean = _vector(walk.required(node, 3, "the mean"))
    variance = _vector(walk.required(node, 4, "the variance"))
    gamma, beta = (
        None if part is None else _vector(part)
        for part in (walk.constant(node, 1, "gamma"), walk.constant(node, 2, "beta"))
    )
    epsilon = float(node.attributes["epsilon"])  # type: ignore[arg-type]
    if not float(np.min(variance, initial=0.0)) >= 0:
        raise CheckpointError("a variance is below 0")
    name = walk.b.batch_norm(
        x.name, mean, variance, gamma, beta, epsilon=epsilon, name=walk.write.name(node.name)
    )
    with np.errstate(all="ignore"):
        walk.norms[name] = numerics.batch_norm_affine(mean, variance, gamma, beta, epsilon)
    count = sum(p.size for p in (mean, variance, gamma, beta) if p is not None)
    findings: tuple[Finding, ...] = ()
    constant = 0 if gamma is None else gamma.size - int(np.count_nonzero(gamma))
    if constant and any(n.operation == "sign" for n in walk.readers.get(node.name, ())):
        text = "channels with a gamma of 0: their sign is the same for every input"
        findings = (Finding("constant signs", constant, text),)
    walk.outcomes.append(
        LayerOutcome(
            node.name,
            "batch_norm",
            (x.channels,),
            count,
            "float",
            "BatchNorm: real numbers per channel",
            findings=findings,
        )
    )
    return dataclasses.replace(x, name=name)


def _vector(array: NDArray[Any]) -> Floats:
    return array.reshape(-1).astype(np.float32)


def _sign(walk: _Walk, node: ForeignNode) -> Pending:
    x = walk.value(node.inputs[0])
    at_zero, low, high = (node.attributes[name] for name in ("at_zero", "low", "high"))
    levels = Levels(float(low), float(high))  # type: ignore[arg-type]
    if x.levels is not None:
        x = walk.floats(node)
    x = walk.write.laid(x)
    if x.scale is not None or x.is_padded:
        x = walk.write.bordered(x)
    threshold = None if x.shift is None else (-x.shift).astype(np.float32)
    rule = SignRule(at_zero)  # type: ignore[arg-type]
    if rule.threshold is not None:
        start = np.zeros(x.channels, np.float32) if threshold is None else threshold
        threshold = np.nextafter(start, np.float32(np.inf))
    name = walk.b.sign(x.name, threshold=threshold, name=walk.write.name(node.name))
    origin = SignOrigin(x.name, threshold)
    return Pending(name, x.shape, x.is_map, levels, rule.at_zero, origin)


# --- Maps ----------------------------------------------------------------------------------------


def _pad(walk: _Walk, node: ForeignNode) -> Pending:
    x = walk.write.settled(walk.value(node.inputs[0]))
    value, pads = float(node.attributes["value"]), layers.sides(node)  # type: ignore[arg-type]
    if len(x.shape) != 3 or min(pads) < 0:
        raise CheckpointError(f"a border of {pads} around a value of shape {x.shape}")
    if x.is_padded and x.pad_value != value:
        x = walk.write.bordered(x)
    sums = tuple(a + b for a, b in zip(x.padding, pads, strict=True))
    return dataclasses.replace(x, padding=sums, pad_value=value)  # type: ignore[arg-type]


def _max_pool(walk: _Walk, node: ForeignNode) -> Pending:
    x = walk.write.bordered(walk.value(node.inputs[0]))
    if x.levels is not None and x.levels.high < x.levels.low:
        x = walk.write.numbers(x)
    kernel, stride = layers.pair(node, "kernel"), layers.pair(node, "strides")
    name = walk.b.max_pool2d(
        x.name, kernel, stride, padding=layers.sides(node), name=walk.write.name(node.name)
    )
    return dataclasses.replace(
        x, name=name, shape=layers.pooled(x.shape, kernel, stride, layers.sides(node)), origin=None
    )


def _avg_pool(walk: _Walk, node: ForeignNode) -> Pending:
    x = walk.floats(node)
    kernel, stride = layers.pair(node, "kernel"), layers.pair(node, "strides")
    name = walk.b.avg_pool2d(
        x.name,
        kernel,
        stride,
        padding=layers.sides(node),
        count_include_pad=bool(node.attributes["count_include_pad"]),
        name=walk.write.name(node.name),
    )
    shape = layers.pooled(x.shape, kernel, stride, layers.sides(node))
    return dataclasses.replace(x, name=name, shape=shape)


def _global_pool(walk: _Walk, node: ForeignNode) -> Pending:
    x = walk.floats(node)
    mode = "max" if node.operation == "global_max_pool" else "mean"
    name = walk.b.global_pool2d(x.name, mode, name=walk.write.name(node.name))  # type: ignore[arg-type]
    return dataclasses.replace(x, name=name, shape=(x.channels,))


def _mean(walk: _Walk, node: ForeignNode) -> Pending:
    """Mean over height and width, which is how some exporters write global pooling."""
    rank = 3
    axes = {axis % rank for axis in layers.integers(node, "axes")}
    if axes != ({1, 2} if walk.channels_first else {0, 1}) or not walk.value(node.inputs[0]).is_map:
        raise CheckpointError("a mean over other axes than height and width")
    value = _global_pool(walk, node)
    return dataclasses.replace(value, is_map=bool(node.attributes["keeps_axes"]))


def _flatten(walk: _Walk, node: ForeignNode) -> Pending:
    x = walk.write.bordered(walk.value(node.inputs[0]))
    if len(x.shape) == 1:
        return dataclasses.replace(x, is_map=False)
    name = walk.b.flatten(x.name, walk.write.flatten_order, name=walk.write.name(node.name))
    origin = None
    if x.levels is not None:
        origin = SignOrigin(x.name, flattened_from=x)
        if x.origin is not None:
            origin = dataclasses.replace(origin, source=x.origin.source)
    shape = (int(np.prod(x.shape)),)
    return dataclasses.replace(x, name=name, shape=shape, is_map=False, origin=origin)


def _reshape(walk: _Walk, node: ForeignNode) -> Pending:
    x = walk.value(node.inputs[0])
    size = int(np.prod(walk.write.bordered(x).shape if x.is_padded else x.shape))
    shape = layers.integers(node, "shape")
    if -1 in shape:
        known = -int(np.prod(shape))
        if list(shape).count(-1) > 1 or known == 0 or size % known:
            raise CheckpointError(f"{size} elements in the shape {shape}")
        shape = tuple(size // known if n == -1 else n for n in shape)
    if int(np.prod(shape)) != size:
        raise CheckpointError(f"{size} elements in the shape {shape}")
    if len(shape) == 1:
        return _flatten(walk, node)
    own = walk.own_shape(shape)
    if own == x.shape and not x.is_padded:
        return x
    if len(x.shape) != 1 or (walk.channels_first and own[:2] != (1, 1)):
        raise CheckpointError(f"a reshape from {x.shape} to {own}, which moves channels")
    x = walk.write.floats(x)
    name = walk.b.reshape(x.name, own, name=walk.write.name(node.name))
    return dataclasses.replace(x, name=name, shape=own, is_map=True)


def _transpose(walk: _Walk, node: ForeignNode) -> Pending:
    axes = layers.integers(node, "axes")
    if axes != tuple(range(len(axes))):
        raise CheckpointError(f"a transposition by {axes}: the layout must be one in all the graph")
    return walk.value(node.inputs[0])


def _concat(walk: _Walk, node: ForeignNode) -> Pending:
    parts = [walk.floats(node, i) for i in range(len(node.inputs))]
    if len(parts) == 1:
        return parts[0]
    name = walk.b.concat(*(p.name for p in parts), name=walk.write.name(node.name))
    shape = (*parts[0].shape[:-1], sum(p.channels for p in parts))
    return dataclasses.replace(parts[0], name=name, shape=shape)


def _slice_channels(walk: _Walk, node: ForeignNode) -> Pending:
    x = walk.floats(node)
    begin, end = node.attributes["begin"], node.attributes["end"]
    assert isinstance(begin, int)
    assert isinstance(end, int)
    name = walk.b.slice_channels(x.name, begin, end, name=walk.write.name(node.name))
    return dataclasses.replace(x, name=name, shape=(*x.shape[:-1], end - begin))


# --- Element by element --------------------------------------------------------------------------


def _identity(walk: _Walk, node: ForeignNode) -> Pending:
    return walk.value(node.inputs[0])


def _unary(method: str) -> Callable[[_Walk, ForeignNode], Pending]:
    def write(walk: _Walk, node: ForeignNode) -> Pending:
        x = walk.floats(node)
        name = getattr(walk.b, method)(x.name, name=walk.write.name(node.name))
        return dataclasses.replace(x, name=name)

    return write


def _clip(walk: _Walk, node: ForeignNode) -> Pending:
    x = walk.floats(node)
    low, high = (float(node.attributes[k]) for k in ("low", "high"))  # type: ignore[arg-type]
    largest = float(np.finfo(np.float32).max)
    name = walk.write.name(node.name)
    if (low, high) == (0.0, float("inf")):
        return dataclasses.replace(x, name=walk.b.relu(x.name, name=name))
    bounds = max(low, -largest), min(high, largest)
    return dataclasses.replace(x, name=walk.b.clip(x.name, *bounds, name=name))


def _prelu(walk: _Walk, node: ForeignNode) -> Pending:
    x = walk.write.laid(walk.value(node.inputs[0]))
    if x.shift is None or x.scale is not None or x.is_padded or x.levels is not None:
        x = walk.write.floats(x)
    slope = walk.per_channel(walk.required(node, 1, "the slope"), x, "the slope")
    name = walk.write.name(node.name)
    if x.shift is None:
        return dataclasses.replace(x, name=walk.b.prelu(x.name, slope, name=name))
    shift = x.shift
    x = dataclasses.replace(x, shift=None)

    def written(shift_out: Floats | None) -> str:
        out = np.zeros(x.channels) if shift_out is None else shift_out
        return walk.b.rprelu(x.name, shift, slope, out, name=name)

    return dataclasses.replace(x, name=name, layer=written)


def _arithmetic(walk: _Walk, node: ForeignNode) -> Pending:
    """Sum, difference, product or quotient, of two values or with a constant."""
    constants = [name in walk.source.constants for name in node.inputs]
    if not any(constants):
        if node.operation not in ("add", "multiply"):
            raise CheckpointError("of two values: only sums and products are there")
        x, y = walk.floats(node, 0), walk.floats(node, 1)
        if len(x.shape) < len(y.shape):
            x, y = y, x
        write = walk.b.add if node.operation == "add" else walk.b.multiply
        return dataclasses.replace(x, name=write(x.name, y.name, name=walk.write.name(node.name)))
    index = constants.index(False)
    x = walk.value(node.inputs[index])
    if x.levels is not None or x.is_padded:
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
    raise CheckpointError("a quotient by a value, or by 0")


_HANDLERS: Mapping[str, Callable[[_Walk, ForeignNode], Pending]] = {
    "conv": _layer,
    "dense": _layer,
    "batch_norm": _batch_norm,
    "sign": _sign,
    "pad": _pad,
    "max_pool": _max_pool,
    "avg_pool": _avg_pool,
    "global_max_pool": _global_pool,
    "global_avg_pool": _global_pool,
    "mean": _mean,
    "concat": _concat,
    "slice_channels": _slice_channels,
    "flatten": _flatten,
    "reshape": _reshape,
    "transpose": _transpose,
    "softmax": _unary("softmax"),
    "identity": _identity,
    "relu": _unary("relu"),
    "clip": _clip,
    "prelu": _prelu,
    "sigmoid": _unary("sigmoid"),
    "add": _arithmetic,
    "subtract": _arithmetic,
    "multiply": _arithmetic,
    "divide": _arithmetic,
}

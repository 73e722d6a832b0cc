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
from bitinfer.errors import CheckpointError, ConversionError, GraphError, ShapeError
from bitinfer.files import one_line
from bitinfer.graph import Graph
from bitinfer.importers import elementwise, evaluate, foreign, groups, layers, signs
from bitinfer.importers.binary import Levels, SignRule
from bitinfer.importers.foreign import Foreign, ForeignNode, Layout
from bitinfer.importers.outcome import Finding, LayerOutcome
from bitinfer.importers.pending import Doubles, Pending, SignOrigin
from bitinfer.importers.walk import TO_FIRST, TO_LAST, Walk, own_shape


@dataclasses.dataclass(frozen=True, eq=False)
class Recognised:
    """What a foreign graph became.

    Attributes:
        graph, tensors: the network; its values bear the names of the source's.
        layers: what became of each.
        layouts: of the source's values that are maps.
    """

    graph: Graph
    tensors: dict[str, NDArray[Any]]
    layers: tuple[LayerOutcome, ...]
    layouts: Mapping[str, Layout]


def recognise(source: Foreign) -> Recognised:
    """Return the network as a graph, and what became of each of its layers.

    Raises:
        ConversionError: something in it has no counterpart here; the message names the node.
        CheckpointError: its parts do not fit together.
    """
    foreign.check(source)
    source = signs.find_signs(groups.join_groups(evaluate.fold_constants(source)))
    walk = Walk(source)
    for node in source.nodes:
        walk.values[node.name] = _visit(walk, node)
    try:
        graph, tensors = walk.b.build(*(walk.output(name) for name in source.outputs))
    except (GraphError, ShapeError) as error:
        raise CheckpointError(f"{source.name}: {error}") from error
    layouts = {name: value.layout for name, value in walk.values.items() if value.is_map}
    return Recognised(graph, tensors, tuple(walk.outcomes), layouts)


def _visit(walk: Walk, node: ForeignNode) -> Pending:
    handler = _HANDLERS.get(node.operation)
    where = f"{one_line(node.name)} ({one_line(node.operation)})"
    if handler is None:
        raise ConversionError(f"{where}: there is no such operation here")
    try:
        value = handler(walk, node)
        if len(walk.readers.get(node.name, ())) != 1 and value.is_plain:
            # Several readers share what is written once.
            value = walk.write.settled(value)
    except ConversionError as error:
        raise ConversionError(f"{where}: {error}") from error
    except (CheckpointError, ShapeError, GraphError) as error:
        raise CheckpointError(f"{where}: {error}") from error
    return value


# --- Layers --------------------------------------------------------------------------------------


def _layer(walk: Walk, node: ForeignNode) -> Pending:
    x = walk.map_of(node)
    weight = walk.required(node, 1, "the weight")
    bias = walk.constant(node, 2, "the bias")
    if node.operation == "conv" and x.magnitude is not None:
        box = elementwise.box_of(node, x, weight, bias)
        if box is not None:
            return box
    layer = (layers.as_conv if node.operation == "conv" else layers.as_dense)(node, weight, bias)
    is_dense = node.operation == "dense"
    if layer.is_conv and len(x.shape) == 1 and x.levels is not None and layer.is_of_one_pixel:
        layer = dataclasses.replace(layer, weight=layer.weight[:, 0, 0])
        is_dense = True
    elif layer.is_conv and len(x.shape) == 1 and x.is_map:
        x = walk.write.floats(x)
        name = walk.write.name(f"{node.name}.map")
        x = dataclasses.replace(
            x, name=walk.b.reshape(x.name, (1, 1, x.channels), name=name), shape=(1, 1, x.channels)
        )
    if len(x.shape) != (1 if is_dense else 3):
        raise CheckpointError(f"the input has shape {x.shape}")
    made = layers.decide(
        layer, x, walk.write, walk.norms.get(x.origin.source) if x.origin else None
    )

    def written(extra: Floats | None, beta: str | None = None) -> str:
        if beta is not None and made.bias is not None:
            raise ConversionError("a beta map behind a bias: it is there only before one")
        total = made.bias if extra is None else extra if made.bias is None else made.bias + extra
        name = made.write(walk.write.name(node.name), total, beta)
        parameters = weight.size + (0 if total is None else total.size)
        walk.outcomes.append(dataclasses.replace(made.outcome, parameters=parameters))
        return name

    return Pending(
        node.name, made.shape, node.operation == "conv", x.layout, layer=written, is_scalable=True
    )


def _batch_norm(walk: Walk, node: ForeignNode) -> Pending:
    x = walk.floats(node)
    mean = _vector(walk.required(node, 3, "the mean"))
    variance = _vector(walk.required(node, 4, "the variance"))
    gamma, beta = (
        None if part is None else _vector(part)
        for part in (walk.constant(node, 1, "gamma"), walk.constant(node, 2, "beta"))
    )
    epsilon = float(node.attributes["epsilon"])  # type: ignore[arg-type]
    for part in (mean, variance, gamma, beta):
        if part is not None and part.size not in (1, x.channels):
            raise CheckpointError(f"{part.size} numbers for {x.channels} channels")
    if not float(np.min(variance, initial=0.0)) >= 0:
        raise CheckpointError("a variance is below 0")
    name = walk.b.batch_norm(
        x.name, mean, variance, gamma, beta, epsilon=epsilon, name=walk.write.name(node.name)
    )
    with np.errstate(all="ignore"):
        walk.norms[name] = numerics.batch_norm_affine(mean, variance, gamma, beta, epsilon)
    count = sum(p.size for p in (mean, variance, gamma, beta) if p is not None)
    is_signed = any(n.operation == "sign" for n in walk.readers.get(node.name, ()))
    findings = _of_norm(mean, variance, gamma, is_signed=is_signed)
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


def _of_norm(
    mean: Floats, variance: Floats, gamma: Floats | None, *, is_signed: bool
) -> tuple[Finding, ...]:
    """Return what there is to say of a BatchNorm, which signs are taken of if ``is_signed``."""
    found: list[Finding] = []
    dead = int(np.count_nonzero((mean == 0) & (variance == 0)))
    if dead:
        text = "channels that were 0 throughout training, and are the same for every input"
        found.append(Finding("dead channels", dead, text))
    if gamma is not None and is_signed:
        constant = gamma.size - int(np.count_nonzero(gamma))
        if constant:
            text = "channels with a gamma of 0: their sign is the same for every input"
            found.append(Finding("constant signs", constant, text))
        negative = int(np.count_nonzero(gamma < 0))
        if negative:
            text = "channels with a negative gamma: their comparison is turned round"
            found.append(Finding("negative gammas", negative, text))
    return tuple(found)


def _vector(array: NDArray[Any]) -> Floats:
    return array.reshape(-1).astype(np.float32)


def _sign(walk: Walk, node: ForeignNode) -> Pending:
    x = walk.value(node.inputs[0])
    at_zero, low, high = (node.attributes[name] for name in ("at_zero", "low", "high"))
    levels = Levels(float(low), float(high))  # type: ignore[arg-type]
    if not x.is_plain:
        x = walk.floats(node)
    if x.scale is not None and np.all(x.scale) and not x.is_padded:
        x = _compared(walk, x, x.scale)
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
    return Pending(
        name, x.shape, x.is_map, x.layout, levels=levels, at_zero=rule.at_zero, origin=origin
    )


def _compared(walk: Walk, x: Pending, scale: Doubles) -> Pending:
    """Return a value of the same sign as ``scale * x + shift``, exact where that is 0.

    A sum of products, each rounded, misses the 0 of ``(x - mean) * scale``; so what is compared is
    the difference alone, which is rounded once.
    """
    limit = np.zeros(x.channels) if x.shift is None else -x.shift / scale
    plain = dataclasses.replace(x, scale=None, shift=None)
    if np.all(scale > 0):
        return plain.scaled(None, -limit)
    plain = walk.write.laid(plain)
    ones, name = np.ones(x.channels), walk.write.name(f"{plain.name}.compared")
    name = walk.b.batch_norm(plain.name, limit, ones, np.sign(scale), epsilon=0.0, name=name)
    return dataclasses.replace(plain, name=name)


# --- Maps ----------------------------------------------------------------------------------------


def _pad(walk: Walk, node: ForeignNode) -> Pending:
    x = walk.write.settled(walk.value(node.inputs[0]))
    axes = layers.integers(node, "axes")
    if x.is_map and axes != ((1, 2) if x.layout == "NCHW" else (0, 1)):
        raise ConversionError(f"a border along the axes {axes} of {x.layout}")
    value, pads = float(node.attributes["value"]), layers.sides(node)  # type: ignore[arg-type]
    if len(x.shape) != 3 or min(pads) < 0:
        raise CheckpointError(f"a border of {pads} around a value of shape {x.shape}")
    if x.is_padded and x.pad_value != value:
        x = walk.write.bordered(x)
    sums = tuple(a + b for a, b in zip(x.padding, pads, strict=True))
    return dataclasses.replace(x, padding=sums, pad_value=value)  # type: ignore[arg-type]


def _max_pool(walk: Walk, node: ForeignNode) -> Pending:
    x = walk.write.bordered(walk.map_of(node))
    if x.step is not None or (x.levels is not None and x.levels.high < x.levels.low):
        x = walk.write.numbers(x)
    kernel, stride = layers.pair(node, "kernel"), layers.pair(node, "strides")
    name = walk.b.max_pool2d(
        x.name, kernel, stride, padding=layers.sides(node), name=walk.write.name(node.name)
    )
    return dataclasses.replace(
        x, name=name, shape=layers.pooled(x.shape, kernel, stride, layers.sides(node)), origin=None
    )


def _avg_pool(walk: Walk, node: ForeignNode) -> Pending:
    x = walk.map_of(node)
    if x.magnitude is not None and node.attributes["count_include_pad"]:
        return elementwise.boxed(node, x, layers.pair(node, "kernel"))
    x = walk.write.floats(x)
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


def _global_pool(walk: Walk, node: ForeignNode) -> Pending:
    x = walk.floats(node)
    mode = "max" if node.operation == "global_max_pool" else "mean"
    name = walk.b.global_pool2d(x.name, mode, name=walk.write.name(node.name))  # type: ignore[arg-type]
    return dataclasses.replace(x, name=name, shape=(x.channels,))


def _mean(walk: Walk, node: ForeignNode) -> Pending:
    """Mean over height and width, as some exporters write global pooling, or over channels."""
    x = walk.value(node.inputs[0])
    axes = {axis % 3 for axis in layers.integers(node, "axes")}
    spatial = {1, 2} if x.layout == "NCHW" else {0, 1}
    if x.is_map and axes == {0, 1, 2} - spatial and node.attributes["keeps_axes"]:
        return elementwise.channel_mean(walk, node, x)
    if axes != spatial or not x.is_map:
        raise ConversionError(f"a mean over the axes {sorted(axes)}, wanted height and width")
    value = _global_pool(walk, node)
    return dataclasses.replace(value, is_map=bool(node.attributes["keeps_axes"]))


def _shuffle(walk: Walk, node: ForeignNode) -> Pending:
    x, groups = walk.write.floats(walk.map_of(node)), node.attributes["groups"]
    assert isinstance(groups, int)
    name = walk.b.shuffle_channels(x.name, groups, name=walk.write.name(node.name))
    return dataclasses.replace(x, name=name)


def _flatten(walk: Walk, node: ForeignNode) -> Pending:
    x = walk.value(node.inputs[0])
    if len(x.shape) == 1:
        return dataclasses.replace(x, is_map=False)
    x = walk.write.bordered(x)
    if x.step is not None:
        x = walk.write.numbers(x)
    name = walk.b.flatten(x.name, x.flatten_order, name=walk.write.name(node.name))
    origin = None
    if x.levels is not None:
        origin = SignOrigin(x.name, flattened_from=x)
        if x.origin is not None:
            origin = dataclasses.replace(origin, source=x.origin.source)
    shape = (int(np.prod(x.shape)),)
    return dataclasses.replace(x, name=name, shape=shape, is_map=False, origin=origin)


def _reshape(walk: Walk, node: ForeignNode) -> Pending:
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
    layout = walk.layout_of(node.name)
    own = own_shape(shape, layout)
    if x.is_map and layout == x.layout and own in (x.shape, (1, 1, *x.shape)) and not x.is_padded:
        return x
    if own[:2] == (1, 1):
        # One pixel of all numbers: Larq Zoo's BinaryAlexNet has 1x1 convolutions for dense layers.
        flat = _flatten(walk, node) if len(x.shape) == 3 else x
        return dataclasses.replace(flat, is_map=True, layout=layout)
    if len(x.shape) != 1 or x.is_map or (layout == "NCHW" and own[:2] != (1, 1) and own[2] != 1):
        raise ConversionError(f"a reshape from {x.shape} to {own}, which moves channels")
    x = walk.write.floats(x)
    name = walk.b.reshape(x.name, own, name=walk.write.name(node.name))
    return dataclasses.replace(x, name=name, shape=own, is_map=True, layout=layout)


def _transpose(walk: Walk, node: ForeignNode) -> Pending:
    """Note that the source has another layout from here on: channels are last here anyway."""
    x, axes = walk.value(node.inputs[0]), layers.integers(node, "axes")
    if axes == tuple(range(len(axes))):
        return x
    if x.is_map and axes == (TO_FIRST if x.layout == "NHWC" else TO_LAST):
        return dataclasses.replace(x, layout="NCHW" if x.layout == "NHWC" else "NHWC")
    raise ConversionError(f"a transposition by {axes} of {x.layout}: it moves more than channels")


def _check_channel_axis(node: ForeignNode, x: Pending) -> None:
    rank = 3 if x.is_map else 1
    axis = node.attributes["axis"]
    assert isinstance(axis, int)
    if axis % rank != (0 if x.is_map and x.layout == "NCHW" else rank - 1):
        raise ConversionError(f"along the axis {axis} of {x.layout}, wanted that of the channels")


def _concat(walk: Walk, node: ForeignNode) -> Pending:
    parts = [walk.floats(node, i) for i in range(len(node.inputs))]
    for part in parts:
        _check_channel_axis(node, part)
    if len(parts) == 1:
        return parts[0]
    name = walk.b.concat(*(p.name for p in parts), name=walk.write.name(node.name))
    shape = (*parts[0].shape[:-1], sum(p.channels for p in parts))
    return dataclasses.replace(parts[0], name=name, shape=shape)


def _slice(walk: Walk, node: ForeignNode) -> Pending:
    x = walk.floats(node)
    _check_channel_axis(node, x)
    begin, end = node.attributes["begin"], node.attributes["end"]
    assert isinstance(begin, int)
    assert isinstance(end, int)
    name = walk.b.slice_channels(x.name, begin, end, name=walk.write.name(node.name))
    return dataclasses.replace(x, name=name, shape=(*x.shape[:-1], end - begin))


_HANDLERS: Mapping[str, Callable[[Walk, ForeignNode], Pending]] = {
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
    "slice": _slice,
    "shuffle": _shuffle,
    "flatten": _flatten,
    "reshape": _reshape,
    "transpose": _transpose,
    **elementwise.HANDLERS,
}

"""Hypothesis strategies: single layers, whole networks, whole models.

Structure is drawn, and shrinks; the numbers in weights and inputs follow from a drawn seed.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray

from bitinfer.bits import pack
from bitinfer.graph import Graph, GraphBuilder
from bitinfer.model import Model, Preprocessing, Provenance
from harness import BinaryConv
from oracle import window_shape

Array = NDArray[Any]

MAX_CHANNELS = 200
"""Of maps within drawn networks."""

small = st.integers(1, 3)
pairs = st.tuples(small, small)
extents = st.tuples(st.integers(1, 9), st.integers(1, 9))
seeds = st.integers(0, 2**32 - 1)


def paddings(limit: int = 4) -> st.SearchStrategy[tuple[int, int, int, int]]:
    """(top, bottom, left, right), each on its own."""
    one = st.integers(0, limit)
    return st.tuples(one, one, one, one)


@st.composite
def binary_convs(draw: st.DrawFn) -> BinaryConv:
    """Any binary convolution of a small map."""
    groups = draw(st.sampled_from((1, 1, 1, 2, 3, 5)))
    few_outputs, many_outputs = st.integers(1, 20 if groups == 1 else 5), st.integers(21, 200)
    per_group = draw(st.one_of(st.integers(1, 130), st.sampled_from((191, 192, 193, 500))))
    layer = BinaryConv(
        extent=draw(extents),
        channels=groups * min(per_group, 500 // groups),
        outputs=groups * draw(st.one_of(few_outputs, few_outputs, many_outputs)),
        kernel=draw(st.tuples(st.integers(1, 5), st.integers(1, 5))),
        stride=draw(pairs),
        padding=draw(paddings()),
        dilation=draw(pairs),
        groups=groups,
        pad_value=draw(st.sampled_from((0, 1, -1))),
        alpha=draw(st.booleans()),
        bias=draw(st.booleans()),
        beta=draw(st.booleans()),
        fill=draw(st.sampled_from(("random", "random", "random", "opposite", "equal", "negative"))),
        seed=draw(seeds),
    )
    if not layer.fits:
        reach = [layer.dilation[i] * (layer.kernel[i] - 1) + 1 for i in (0, 1)]
        extent = (max(layer.extent[0], reach[0]), max(layer.extent[1], reach[1]))
        layer = dataclasses.replace(layer, extent=extent)
    return layer


class _Network:
    """A network under construction: what can be read, and how to add a layer that fits."""

    def __init__(
        self, draw: st.DrawFn, shape: tuple[int, ...], seed: int, kind: Any = "float"
    ) -> None:
        self.draw = draw
        self.rng = np.random.default_rng(seed)
        self.builder = GraphBuilder("drawn", shape, input_kind=kind)
        self.shapes = {self.builder.input: shape}
        self.kinds = {self.builder.input: str(kind)}

    def floats(self, *shape: int) -> Array:
        return self.rng.standard_normal(shape, np.float32)

    def maybe(self, *shape: int) -> Array | None:
        return self.floats(*shape) if self.draw(st.booleans()) else None

    def keep(self, name: str, shape: tuple[int, ...], kind: str = "float") -> str:
        self.shapes[name], self.kinds[name] = shape, kind
        return name

    def groups(self, channels: int) -> int:
        return self.draw(st.sampled_from([g for g in (1, 2, 3, 4) if channels % g == 0]))

    def window(self, name: str) -> tuple[tuple[int, int], dict[str, Any]]:
        """Draw a window that fits over a map, with its place in the padded map."""
        height, width, channels = self.shapes[name]
        padding = self.draw(paddings(2))
        kernel = self.draw(st.tuples(st.integers(1, 5), st.integers(1, 5)))
        kernel = (
            min(kernel[0], height + padding[0] + padding[1]),
            min(kernel[1], width + padding[2] + padding[3]),
        )
        window = {"stride": self.draw(pairs), "padding": padding, "dilation": self.draw(pairs)}
        if not min(window_shape((height, width), kernel, *window.values())):
            window["dilation"] = (1, 1)
        window["groups"] = self.groups(channels)
        return kernel, window

    def convolution(self, name: str) -> str:
        kernel, window = self.window(name)
        *extent, channels = self.shapes[name]
        groups = window["groups"]
        shape = (
            groups * self.draw(st.integers(1, 40 // groups)),
            *kernel,
            channels // groups,
        )
        out = window_shape(extent, kernel, window["stride"], window["padding"], window["dilation"])
        b, bias = self.builder, self.maybe(shape[0])
        kind = self.kinds[name]
        if kind in ("uint8", "int8") or (kind == "float" and self.draw(st.booleans())):
            weight, alpha = self.numbers(name, *shape)
            more = {"alpha": alpha}
            if kind != "float" and self.draw(st.booleans()):
                more["offset"] = self.floats(channels)
            return self.keep(b.conv2d(name, weight, bias, **more, **window), (*out, shape[0]))
        weight = self.floats(*shape)
        beta = None
        if self.kinds[name] == "float":
            if self.draw(st.booleans()):
                beta = b.beta_map(name, kernel=kernel, **window)
                self.keep(beta, (*out, groups))
            name = self.keep(b.sign(name), self.shapes[name], "sign")
        name = b.bconv2d(
            name,
            weight,
            alpha=self.maybe(shape[0]),
            bias=bias,
            beta=beta,
            pad_value=self.draw(st.sampled_from((0, 1, -1))),
            **window,
        )
        return self.keep(name, (*out, shape[0]))

    def numbers(self, name: str, *shape: int) -> tuple[Any, Array | None]:
        """Draw the weight of a layer of numbers, and alpha, which keeps large sums small."""
        kind = self.draw(st.sampled_from(("int8", "int16", "signs", "float")))
        if kind == "signs":
            return pack(self.floats(*shape)), self.maybe(shape[0])
        if kind == "float" and self.kinds[name] == "float":
            return self.floats(*shape), self.maybe(shape[0])
        limit, dtype = (128, "int8") if kind == "int8" else (300, "int16")
        weight = self.rng.integers(-limit, limit, shape).astype(dtype)
        return weight, self.floats(shape[0]) / np.float32(limit)

    def matrix(self, name: str) -> str:
        (length,), outputs = self.shapes[name], self.draw(st.integers(1, 40))
        b, bias = self.builder, self.maybe(outputs)
        kind = self.kinds[name]
        if kind in ("uint8", "int8") or (kind == "float" and self.draw(st.booleans())):
            numbers, alpha = self.numbers(name, outputs, length)
            made = b.dense(name, numbers, bias, alpha=alpha)
            return self.keep(made, (outputs,))
        weight = self.floats(outputs, length)
        beta = None
        if self.kinds[name] == "float":
            if self.draw(st.booleans()):
                beta = self.keep(b.beta_map(name), (1,))
            name = self.keep(b.sign(name), self.shapes[name], "sign")
        alpha = self.maybe(outputs)
        return self.keep(b.bdense(name, weight, alpha=alpha, bias=bias, beta=beta), (outputs,))

    def pool(self, name: str) -> str:
        height, width, channels = self.shapes[name]
        kernel = self.draw(pairs)
        kernel = (min(kernel[0], height), min(kernel[1], width))
        stride = self.draw(pairs)
        padding = tuple(self.draw(st.integers(0, kernel[i // 2] - 1)) for i in range(4))
        shape = (*window_shape((height, width), kernel, stride, padding), channels)
        b = self.builder
        if self.kinds[name] == "sign" or self.draw(st.booleans()):
            made = b.max_pool2d(name, kernel, stride, padding=padding)
            return self.keep(made, shape, self.kinds[name])
        include = self.draw(st.booleans())
        made = b.avg_pool2d(name, kernel, stride, padding=padding, count_include_pad=include)
        return self.keep(made, shape)

    def flatten(self, name: str) -> str:
        order = self.draw(st.sampled_from(("channels_first", "channels_last")))
        made = self.builder.flatten(name, order)
        return self.keep(made, (math.prod(self.shapes[name]),), self.kinds[name])

    def elementwise(self, name: str) -> str:
        b, shape = self.builder, self.shapes[name]
        c = shape[-1]
        kinds = ["relu", "batch_norm", "sign", "clip", "prelu", "rprelu", "sigmoid", "quantize"]
        kind = self.draw(st.sampled_from(kinds + (["softmax"] if len(shape) == 1 else [])))
        if kind == "batch_norm":
            variance = self.rng.random(c, np.float32) + np.float32(0.1)
            made = b.batch_norm(name, self.floats(c), variance, self.maybe(c), self.maybe(c))
            return self.keep(made, shape)
        if kind == "sign":
            return self.keep(b.sign(name, threshold=self.maybe(c)), shape, "sign")
        if kind == "quantize":
            return self.keep(
                b.quantize(name, self.draw(st.sampled_from((0.01, 0.5)))), shape, "int8"
            )
        arguments: tuple[Any, ...] = {
            "clip": (-0.5, 1.0),
            "prelu": (self.floats(c),),
            "rprelu": tuple(self.floats(3, c)),
        }.get(kind, ())
        return self.keep(getattr(b, kind)(name, *arguments), shape)

    def join(self, name: str) -> str:
        """Append an operation on two values, or on the channels of one."""
        b, shape = self.builder, self.shapes[name]
        kind = self.draw(st.sampled_from(("add", "multiply", "concat", "slice", "shuffle")))
        if kind == "slice":
            begin = self.draw(st.integers(0, shape[-1] - 1))
            end = self.draw(st.integers(begin + 1, shape[-1]))
            return self.keep(b.slice_channels(name, begin, end), (*shape[:-1], end - begin))
        if kind == "shuffle":
            return self.keep(b.shuffle_channels(name, self.groups(shape[-1])), shape)
        floats = [n for n, known in self.kinds.items() if known == "float"]
        if kind == "concat":
            maps = [n for n in floats if self.shapes[n][:-1] == shape[:-1]]
            others = self.draw(st.lists(st.sampled_from(maps), min_size=1, max_size=2))
            channels = shape[-1] + sum(self.shapes[n][-1] for n in others)
            return self.keep(b.concat(name, *others), (*shape[:-1], channels))
        other = self.draw(
            st.sampled_from([n for n in floats if self.shapes[n] in (shape, shape[-1:])])
        )
        if kind == "multiply":  # by a gate: products of products would soon be infinite
            other = self.keep(b.sigmoid(other), self.shapes[other])
        return self.keep(getattr(b, kind)(name, other), shape)

    def border(self, name: str) -> str:
        """Append a border, or take all of it away: global pool and reshape."""
        b, (height, width, channels) = self.builder, self.shapes[name]
        kinds = ["pad"] + (["mean", "max", "reshape"] if self.kinds[name] == "float" else [])
        kind = self.draw(st.sampled_from(kinds))
        if kind in ("mean", "max"):
            return self.keep(b.global_pool2d(name, kind), (channels,))
        if kind == "reshape":
            shape = (width * channels, 1, height)
            return self.keep(b.reshape(name, shape), shape)
        top, bottom, left, right = padding = self.draw(paddings(2))
        value = self.draw(st.sampled_from((-1, 1)))
        shape = (height + top + bottom, width + left + right, channels)
        return self.keep(b.pad2d(name, padding, value), shape, self.kinds[name])

    def to_signs(self, name: str) -> str:
        shape = self.shapes[name]
        threshold = self.maybe(shape[-1])
        return self.keep(self.builder.sign(name, threshold=threshold), shape, "sign")

    def add_layer(self) -> None:
        """Append a layer to the newest value, or now and then to an older one."""
        names = list(self.shapes)
        name = names[-1] if self.draw(st.integers(0, 3)) else self.draw(st.sampled_from(names))
        if len(self.shapes[name]) == 1:
            layers = [self.matrix, self.matrix, self.matrix]
        else:
            layers = [self.convolution, self.pool, self.convolution, self.convolution]
        if self.kinds[name] == "float":
            layers += [self.elementwise, self.elementwise, self.join, self.join]
        layers.append(self.flatten)
        if len(self.shapes[name]) == 3:
            layers.append(self.border)
        if self.kinds[name] in ("uint8", "int8"):  # what reads integers
            is_vector = len(self.shapes[name]) == 1
            layers = [self.matrix if is_vector else self.convolution, self.to_signs]
        self.draw(st.sampled_from(layers))(name)


@st.composite
def networks(
    draw: st.DrawFn, max_layers: int = 8, kinds: tuple[str, ...] = ("float", "float", "uint8")
) -> tuple[Graph, dict[str, Array]]:
    """Any small network, with branches; its outputs are one or more of its float values.

    ``kinds``: of the input.
    """
    channels = st.one_of(st.integers(1, 8), st.sampled_from((63, 64, 65, 130)))
    if draw(st.integers(0, 5)):
        shape: tuple[int, ...] = (*draw(extents), draw(channels))
    else:
        shape = (draw(st.integers(1, MAX_CHANNELS)),)
    network = _Network(draw, shape, draw(seeds), draw(st.sampled_from(kinds)))
    for _ in range(draw(st.integers(1, max_layers))):
        network.add_layer()
    source = network.builder.input
    names = [n for n, kind in network.kinds.items() if kind == "float" and n != source]
    if not names:
        if network.kinds[source] == "float":
            names = [network.keep(network.builder.relu(source), shape)]
        else:
            names = [(network.matrix if len(shape) == 1 else network.convolution)(source)]
    more = draw(st.lists(st.sampled_from(names), unique=True, max_size=2))
    outputs = dict.fromkeys([names[-1], *more])
    return network.builder.build(*outputs)


words = st.text(st.characters(codec="utf-8"), max_size=12)


@st.composite
def models(draw: st.DrawFn) -> Model:
    """Any small model: a drawn network with or without labels, preprocessing and provenance."""
    graph, tensors = draw(networks(max_layers=4))
    plain = Model(graph, tensors)
    classes = math.prod(plain.checked.values[graph.outputs[0]].shape)
    labels: tuple[str, ...] = ()
    if draw(st.booleans()):
        labels = tuple(draw(st.lists(words, min_size=classes, max_size=classes)))
    provenance = None
    if draw(st.booleans()):
        provenance = Provenance(
            importer=draw(words),
            source=draw(words),
            versions=draw(st.dictionaries(words, words, max_size=3)),
            notes=tuple(draw(st.lists(words, max_size=3))),
        )
    return Model(graph, tensors, labels, draw(preprocessings(graph.input.shape)), provenance)


@st.composite
def preprocessings(draw: st.DrawFn, shape: tuple[int, ...]) -> Preprocessing | None:
    """Any preprocessing that makes an input of ``shape``; None where there can be none."""
    if len(shape) != 3 or shape[-1] not in (1, 3) or draw(st.booleans()):
        return None
    finite = st.floats(-1e3, 1e3)
    away_from_0 = st.floats(1e-3, 1e3)
    c = shape[-1]
    return Preprocessing(
        color="grey" if c == 1 else "rgb",
        mean=tuple(draw(st.lists(finite, min_size=c, max_size=c))),
        std=tuple(draw(st.lists(away_from_0, min_size=c, max_size=c))),
        scale=draw(finite),
        resize=draw(st.sampled_from((None, shape[:2], 64))),
        crop=shape[:2],
        interpolation=draw(st.sampled_from(("nearest", "box", "bilinear", "bicubic", "lanczos"))),
    )

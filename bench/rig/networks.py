"""The whole networks that are measured, and the same topologies in float as ONNX models.

A float twin is what one would run in place of the binary network: every binary layer is a float
one of the same shape, with random weights, and every sign is a ReLU.  Scales of binary layers are
part of the float weights; BatchNorms stay, for the engines to fold.  The residual networks have a
rival of their own (residual.py), from which their twin is written.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np

from bitinfer import zoo
from bitinfer.graph import nodes, operations
from bitinfer.model import Model, Preprocessing
from bitinfer.zoo.parameters import Built
from rig import residual
from rig.engines.onnx_models import Models
from rig.layers import Array

FROM_ZOO = {
    "lenet5": "xnor-lenet5",
    "nin": "xnor-nin",
    "bireal18": "bireal18",
    "quicknet": "quicknet",
    "alexnet": "xnor-alexnet",
}
"""By the name in reports: the architecture of the zoo."""

NETWORKS = (*FROM_ZOO, *residual.LAYOUTS)


@dataclasses.dataclass(frozen=True)
class Case:
    """One of NETWORKS as a subject of measurement."""

    name: str
    macs: int
    shape: tuple[int, ...]

    @property
    def facts(self) -> dict[str, Any]:
        """What is recorded of it."""
        height, width, channels = self.shape
        text = FROM_ZOO.get(self.name) or residual.LAYOUTS[self.name].text
        return {
            "network": self.name,
            "shape": f"{text}, {height} x {width} x {channels}",
            "macs": self.macs,
            "input_elements": math.prod(self.shape),
        }


@dataclasses.dataclass(frozen=True, eq=False)
class FloatTwin:
    """A float network of the same topology.

    Attributes:
        model: ONNX, from ``x`` (1, C, H, W) to ``y`` (1, classes).
        x: an input to it.
    """

    model: bytes
    x: Array


def cases() -> tuple[Case, ...]:
    """Return all of NETWORKS, in their order."""
    made = []
    for name in NETWORKS:
        graph, tensors = _binary(name, 0)
        model = Model(graph=graph, tensors=tensors)
        made.append(Case(name, macs(model), graph.input.shape))
    return tuple(made)


def network(name: str, seed: int = 0) -> tuple[Model, FloatTwin]:
    """Return one of NETWORKS with random weights, and its float twin."""
    graph, tensors = _binary(name, seed)
    channels = graph.input.shape[-1]
    preprocessing = Preprocessing(
        color="grey" if channels == 1 else "rgb",
        mean=(0.5,) * channels,
        std=(0.25,) * channels,
    )
    model = Model(graph=graph, tensors=tensors, preprocessing=preprocessing)
    if name in residual.LAYOUTS:
        rival = residual.rival(residual.LAYOUTS[name], zoo.RandomParameters(seed))
        return model, float_twin(Model(*rival), seed)
    return model, float_twin(model, seed)


def _binary(name: str, seed: int) -> Built:
    source = zoo.RandomParameters(seed)
    if name in residual.LAYOUTS:
        return residual.binary(residual.LAYOUTS[name], source)
    return zoo.build(FROM_ZOO[name], source)


def macs(model: Model) -> int:
    """Return the multiply-accumulates of all layers, padded taps included."""
    return sum(
        operations(node, model.checked.values, model.checked.tensors)
        for node in model.graph.nodes
        if isinstance(node, nodes.Layer)
    )


def pixels(model: Model, seed: int = 0) -> Array:
    """Return a made-up picture (H, W, C) uint8 for the network."""
    shape = model.graph.input.shape
    return np.random.default_rng(seed).integers(0, 256, shape).astype(np.uint8)


def normalised(x: Array) -> Array:
    """Return the float input that the model makes of pixels, as (H, W, C)."""
    return ((x.astype(np.float32) / 255 - 0.5) / 0.25).astype(np.float32)


def float_twin(model: Model, seed: int = 0) -> FloatTwin:
    """Write the float network of the same topology, channels first, batch 1."""
    writer = _Writer(model, seed)
    for node in model.graph.nodes:
        writer.add(node)
    x = np.ascontiguousarray(normalised(pixels(model)).transpose(2, 0, 1)[None])
    return FloatTwin(writer.finish(x), x)


class _Writer:
    """ONNX nodes and constants of a graph under construction."""

    def __init__(self, model: Model, seed: int) -> None:
        self.models = Models()
        self.graph = model.graph
        self.tensors = model.tensors
        self.values = model.checked.values
        self.rng = np.random.default_rng(seed)
        self.nodes: list[Any] = []
        self.constants: dict[str, Array] = {}
        self.names = {model.graph.input.name: "x"}
        is_residual = any(isinstance(node, nodes.Add) for node in self.graph.nodes)
        self.gain = 1.0 if is_residual else 2.0

    def finish(self, x: Array) -> bytes:
        output = self.graph.outputs[0]
        self.nodes.append(self.models.node("Identity", self.names[output], "y"))
        y = np.empty((1, *self.values[output].shape), np.float32)
        return self.models.model(self.nodes, self.constants, x, y)

    def constant(self, name: str, value: Array) -> str:
        self.constants[name] = np.ascontiguousarray(value)
        return name

    def emit(self, operator: str, inputs: str, node: nodes.Node, **attributes: Any) -> None:
        name = f"v.{node.name}"
        self.nodes.append(self.models.node(operator, inputs, name, **attributes))
        self.names[node.name] = name

    def add(self, node: nodes.Node) -> None:
        x = self.names[node.input]
        match node:
            case nodes.Conv2d() | nodes.BinaryConv2d():
                self.convolution(node, x)
            case nodes.Dense() | nodes.BinaryDense():
                length = self.values[node.input].shape[0]
                shape = (self.tensors[node.weight].shape[0], length)
                weight = self.weight(node, shape)
                bias = self.bias(node, shape[0])
                self.emit("Gemm", f"{x} {weight} {bias}", node, transB=1)
            case nodes.Sign() | nodes.Relu():
                self.emit("Relu", x, node)
            case nodes.BatchNorm():
                self.batch_norm(node, x)
            case nodes.Add():
                self.emit("Add", f"{x} {self.names[node.other]}", node)
            case nodes.MaxPool2d():
                self.emit("MaxPool", x, node, **_window(node))
            case nodes.AvgPool2d():
                include = int(node.count_include_pad)
                self.emit("AveragePool", x, node, count_include_pad=include, **_window(node))
            case nodes.GlobalPool2d(mode="mean"):
                self.nodes.append(self.models.node("GlobalAveragePool", x, f"m.{node.name}"))
                self.emit("Flatten", f"m.{node.name}", node)
            case nodes.Flatten(order="channels_first"):
                self.emit("Flatten", x, node)
            case _:
                raise NotImplementedError(f"no float twin of a {type(node).__name__}")

    def convolution(self, node: nodes.Conv2d | nodes.BinaryConv2d, x: str) -> None:
        outputs, height, width, _ = self.tensors[node.weight].shape
        inputs = self.values[node.input].shape[-1] // node.groups
        weight = self.weight(node, (outputs, inputs, height, width))
        self.emit(
            "Conv",
            f"{x} {weight} {self.bias(node, outputs)}",
            node,
            kernel_shape=[height, width],
            strides=list(node.stride),
            pads=_pads(node.padding),
            dilations=list(node.dilation),
            group=node.groups,
        )

    def weight(self, node: nodes.Layer, shape: tuple[int, ...]) -> str:
        """Return random weights that keep values near 1: shortcuts bring variance of their own."""
        weight = self.rng.standard_normal(shape, np.float32)
        weight *= np.float32(math.sqrt(self.gain / math.prod(shape[1:])))
        return self.constant(f"{node.name}.w", weight)

    def bias(self, node: nodes.Layer, outputs: int) -> str:
        value = np.zeros(outputs, np.float32)
        return self.constant(f"{node.name}.b", value if node.bias is None else value + 0.1)

    def batch_norm(self, node: nodes.BatchNorm, x: str) -> None:
        """Write one that leaves values as they are, but for a little."""
        channels = self.values[node.name].shape[-1]
        parts = [
            self.constant(f"{node.name}.{part}", self.rng.uniform(low, high, channels).astype("f"))
            for part, low, high in (
                ("gamma", 0.8, 1.2),
                ("beta", -0.1, 0.1),
                ("mean", -0.1, 0.1),
                ("variance", 0.8, 1.2),
            )
        ]
        self.emit("BatchNormalization", " ".join([x, *parts]), node, epsilon=node.epsilon)


def _window(node: nodes.MaxPool2d | nodes.AvgPool2d) -> dict[str, Any]:
    return {
        "kernel_shape": list(node.kernel),
        "strides": list(node.stride),
        "pads": _pads(node.padding),
    }


def _pads(padding: nodes.Padding) -> list[int]:
    """(top, bottom, left, right) -> top, left, bottom, right."""
    top, bottom, left, right = padding
    return [top, left, bottom, right]

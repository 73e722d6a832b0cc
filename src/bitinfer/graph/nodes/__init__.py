"""The nodes: what a network is made of.  Each is frozen data, with its rule beside it.

A graph is a list of nodes in order of execution.  Every node makes a value, which bears the
node's name; ``input`` names an earlier value.  Parameters are named tensors, kept beside the graph.
Values belong to one sample (the batch is not part of the graph) and have a kind:

    float   float32, shape (H, W, C) or (C,)
    sign    -1 or +1, same shapes; packed by the bit convention of bits.py wherever it is stored
    uint8, int8   integers, same shapes: pixels, quantised activations

Padding is (top, bottom, left, right); kernel, stride and dilation are (vertical, horizontal).

A node is a class: its fields, whose types say which of them name values and tensors (base.py), what
it makes of its input, and what passes may know of it.  What is not checked there is not checked at
all: backends rely on it.  A new class joins the union :data:`Node` below.

What passes fuse into a layer is its :class:`Epilogue`; a model file holds none.
"""

from __future__ import annotations

from typing import Literal

from bitinfer.graph.nodes.activations import (
    Activation,
    ActivationNode,
    Clip,
    PRelu,
    Relu,
    RPRelu,
    Sigmoid,
    as_activation,
)
from bitinfer.graph.nodes.base import (
    NO_PADDING,
    BaseNode,
    Function,
    Padding,
    Pair,
    Record,
    TensorName,
    ValueName,
    names_in,
    reading_instead,
)
from bitinfer.graph.nodes.channels import (
    Concat,
    Flatten,
    Reshape,
    ShuffleChannels,
    SliceChannels,
)
from bitinfer.graph.nodes.elementwise import Add, BatchNorm, Multiply, Quantize, Sign, Softmax
from bitinfer.graph.nodes.layers import (
    BinaryConv2d,
    BinaryDense,
    Conv2d,
    Dense,
    Epilogue,
    Layer,
    has_integer_sums,
)
from bitinfer.graph.nodes.maps import AvgPool2d, BetaMap, GlobalPool2d, MaxPool2d, Pad2d

Node = (
    Conv2d
    | Dense
    | BinaryConv2d
    | BinaryDense
    | BetaMap
    | Sign
    | Quantize
    | BatchNorm
    | Relu
    | Clip
    | PRelu
    | RPRelu
    | Sigmoid
    | Add
    | Multiply
    | Concat
    | SliceChannels
    | ShuffleChannels
    | Pad2d
    | MaxPool2d
    | AvgPool2d
    | GlobalPool2d
    | Flatten
    | Reshape
    | Softmax
)


class Input(Record, frozen=True):
    """The input of the network; ``shape`` is (H, W, C) or (C,) of one sample.

    A float input takes pixels too, normalised as the model file says; a uint8 input takes pixels as
    they are, and the first layer does the normalising (:class:`Conv2d`, ``offset``).
    """

    name: str
    shape: tuple[int, ...]
    kind: Literal["float", "uint8"] = "float"


class Graph(Record, frozen=True):
    """A network: one input, nodes in order of execution, and the names of its outputs."""

    name: str
    input: Input
    nodes: tuple[Node, ...]
    outputs: tuple[str, ...]


def node_inputs(node: BaseNode) -> tuple[str, ...]:
    """Return the names of the values that ``node`` reads."""
    return names_in(node, "value")


def node_values(node: BaseNode) -> tuple[str, ...]:
    """Return the names of the values that ``node`` makes: its own, and its signs beside it."""
    return (node.name, *names_in(node, "made value"))


def node_tensors(node: BaseNode) -> tuple[str, ...]:
    """Return the names of the tensors that ``node`` reads."""
    return names_in(node, "tensor")


__all__ = [
    "NO_PADDING",
    "Activation",
    "ActivationNode",
    "Add",
    "AvgPool2d",
    "BaseNode",
    "BatchNorm",
    "BetaMap",
    "BinaryConv2d",
    "BinaryDense",
    "Clip",
    "Concat",
    "Conv2d",
    "Dense",
    "Epilogue",
    "Flatten",
    "Function",
    "GlobalPool2d",
    "Graph",
    "Input",
    "Layer",
    "MaxPool2d",
    "Multiply",
    "Node",
    "PRelu",
    "Pad2d",
    "Padding",
    "Pair",
    "Quantize",
    "RPRelu",
    "Record",
    "Relu",
    "Reshape",
    "ShuffleChannels",
    "Sigmoid",
    "Sign",
    "SliceChannels",
    "Softmax",
    "TensorName",
    "ValueName",
    "as_activation",
    "has_integer_sums",
    "names_in",
    "node_inputs",
    "node_tensors",
    "node_values",
    "reading_instead",
]

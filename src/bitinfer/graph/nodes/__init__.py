"""The nodes: what a network is made of.  Frozen data, and what each says of itself.

A graph is a list of nodes in order of execution.  Every node makes a value, which bears the
node's name; ``input`` names an earlier value.  Parameters are named tensors, kept beside the graph.
Values belong to one sample (the batch is not part of the graph) and have a kind:

    float   float32, shape (H, W, C) or (C,)
    sign    -1 or +1, same shapes; packed by the bit convention of bits.py wherever it is stored
    uint8, int8   integers, same shapes: pixels, quantised activations

Floats are finite: a sample whose input holds a NaN or an infinity has no answer, and its outputs
are NaN (docs/architecture.md, Passes), so passes may use that numbers have an order.

Padding is (top, bottom, left, right); kernel, stride and dilation are (vertical, horizontal).

What passes fuse into a layer is its :class:`Epilogue`; a model file holds none.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Literal, Union

from bitinfer.graph.nodes.base import (
    Function,
    MadeName,
    Node,
    Record,
    TensorName,
    ValueName,
    further_inputs,
    node_inputs,
    node_tensors,
    node_values,
    reading,
)
from bitinfer.graph.nodes.elementwise import (
    ActivationNode,
    Add,
    BatchNorm,
    Clip,
    Multiply,
    PRelu,
    Quantize,
    Relu,
    RPRelu,
    Sigmoid,
    Sign,
    Softmax,
)
from bitinfer.graph.nodes.layers import (
    Activation,
    BinaryConv2d,
    BinaryDense,
    BinaryLayer,
    Conv2d,
    Dense,
    Epilogue,
    Layer,
)
from bitinfer.graph.nodes.maps import (
    AvgPool2d,
    BetaMap,
    Concat,
    Flatten,
    GlobalPool2d,
    MaxPool2d,
    Pad2d,
    Reshape,
    ShuffleChannels,
    SliceChannels,
)
from bitinfer.graph.values import NO_PADDING, Padding, Pair


def _leaves(base: type[Node]) -> Iterator[type[Node]]:
    for kind in base.__subclasses__():
        if kind.__subclasses__():
            yield from _leaves(kind)
        else:
            yield kind


CLASSES = tuple(_leaves(Node))
"""Every kind of node: what is imported here and is no base of others."""

if TYPE_CHECKING:
    AnyNode = Node
else:
    AnyNode = Union[CLASSES]  # noqa: UP007 - made of what there is
"""Any of them: what a file is read as."""


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
    nodes: tuple[AnyNode, ...]
    outputs: tuple[str, ...]


__all__ = [
    "CLASSES",
    "NO_PADDING",
    "Activation",
    "ActivationNode",
    "Add",
    "AnyNode",
    "AvgPool2d",
    "BatchNorm",
    "BetaMap",
    "BinaryConv2d",
    "BinaryDense",
    "BinaryLayer",
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
    "MadeName",
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
    "further_inputs",
    "node_inputs",
    "node_tensors",
    "node_values",
    "reading",
]

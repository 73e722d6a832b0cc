"""Architectures as graph builders: the one place where each network is written down.

A network asks a :class:`ParameterSource` for its weights, layer by layer, by name and shape.  An
importer answers from a checkpoint, :class:`RandomParameters` from a seed, so both make the very
same graph.

    graph, tensors = zoo.build("xnor-nin", zoo.RandomParameters(seed=0))

    parameters    what a network asks for, and the source that makes it up
    network       what the builders share
    xnor_net      LeNet-5, NIN and AlexNet of XNOR-Net-PyTorch
    xnor_resnet   ResNet-18 of XNOR-Net's paper
    bireal_net    Bi-Real-Net-18
    quick_net     QuickNet: small, base and large
    binary_net    BinaryNet's network for CIFAR-10, which others call VGG-small
    bnn_pynq      CNV and LFC
    react_net     ReActNet-A
    dense_net     BinaryDenseNet-28 and MeliusNet-22
    real_to_binary_net  "Real-to-Bin"
    bitres_net    bitinfer's own, for small pictures
    shipped       the trained models that come along
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from numpy.typing import NDArray

from bitinfer.graph import Graph
from bitinfer.names import unknown
from bitinfer.zoo import (
    binary_net,
    bireal_net,
    bitres_net,
    bnn_pynq,
    dense_net,
    quick_net,
    react_net,
    real_to_binary_net,
    xnor_net,
    xnor_resnet,
)
from bitinfer.zoo.parameters import (
    BEHIND_RELU,
    Architecture,
    Expected,
    LayerParameters,
    NormParameters,
    ParameterSource,
    RandomParameters,
    Role,
    Shape,
)

__all__ = [
    "ARCHITECTURES",
    "BEHIND_RELU",
    "Architecture",
    "Expected",
    "LayerParameters",
    "NormParameters",
    "ParameterSource",
    "RandomParameters",
    "Role",
    "Shape",
    "build",
    "find",
]

_FAMILIES = (
    xnor_net,
    xnor_resnet,
    bireal_net,
    quick_net,
    binary_net,
    bnn_pynq,
    react_net,
    dense_net,
    real_to_binary_net,
    bitres_net,
)

ARCHITECTURES: Mapping[str, Architecture] = {
    architecture.name: architecture for family in _FAMILIES for architecture in family.ARCHITECTURES
}


def find(name: str) -> Architecture:
    """Return the architecture called ``name``, or raise UnknownNameError."""
    if name not in ARCHITECTURES:
        raise unknown("architecture", name, ARCHITECTURES)
    return ARCHITECTURES[name]


def build(
    name: str,
    parameters: ParameterSource,
    *,
    classes: int | None = None,
    input_shape: Shape | None = None,
) -> tuple[Graph, dict[str, NDArray[Any]]]:
    """Return graph and tensors of the architecture ``name`` with weights from ``parameters``.

    ``classes`` is the length of the output and ``input_shape`` is (H, W, C): the architecture's own
    unless given.

    Raises:
        UnknownNameError: there is no such architecture.
        ShapeError: maps of this input are too small for the network.
    """
    architecture = find(name)
    return architecture.build(
        parameters, classes or architecture.classes, input_shape or architecture.input_shape
    )

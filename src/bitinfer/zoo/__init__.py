"""Architectures as graph builders: the one place where each network is written down.

A network asks a :class:`ParameterSource` for its weights, layer by layer, by name and shape.  An
importer answers from a checkpoint, :class:`RandomParameters` from a seed, so both make the very
same graph.

    graph, tensors = zoo.build("xnor-nin", zoo.RandomParameters(seed=0))

    parameters    what a network asks for, and the source that makes it up
    xnor_net      LeNet-5, NIN and AlexNet of XNOR-Net-PyTorch
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from numpy.typing import NDArray

from bitinfer.errors import GraphError
from bitinfer.graph import Graph
from bitinfer.zoo import xnor_net
from bitinfer.zoo.parameters import (
    Architecture,
    LayerParameters,
    NormParameters,
    ParameterSource,
    RandomParameters,
)

__all__ = [
    "ARCHITECTURES",
    "Architecture",
    "LayerParameters",
    "NormParameters",
    "ParameterSource",
    "RandomParameters",
    "build",
    "find",
]

ARCHITECTURES: Mapping[str, Architecture] = {a.name: a for a in xnor_net.ARCHITECTURES}


def find(name: str) -> Architecture:
    """Return the architecture called ``name``, or raise GraphError."""
    if name not in ARCHITECTURES:
        raise GraphError(
            f"no architecture is called {name!r}; there are {', '.join(ARCHITECTURES)}"
        )
    return ARCHITECTURES[name]


def build(
    name: str, parameters: ParameterSource, *, classes: int | None = None
) -> tuple[Graph, dict[str, NDArray[Any]]]:
    """Return graph and tensors of the architecture ``name`` with weights from ``parameters``.

    ``classes`` is the length of the output, the architecture's own unless given.
    """
    architecture = find(name)
    return architecture.build(parameters, classes or architecture.classes)

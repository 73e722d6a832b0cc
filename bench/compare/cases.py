"""Writes the model files that two builds are compared with: ``cases.py FOLDER NAME...``.

It is run by the older build, since every later one reads its files.
"""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path
from typing import Any

NETWORKS = {
    "lenet5": "xnor-lenet5",
    "nin": "xnor-nin",
    "bireal18": "bireal18",
    "quicknet": "quicknet",
    "alexnet": "xnor-alexnet",
    "reactnet-a": "reactnet-a",
}
"""Whole networks: the architecture of the zoo."""

LOADED = ("nin", "bireal18", "alexnet", "reactnet-a")
"""Of these the time from the file to the first result is compared."""


def layer_names() -> list[str]:
    """Return the names of single layers: with float results, and with signs between two."""
    from rig.layers import LAYERS

    return [f"{layer.name}{kind}" for layer in LAYERS for kind in ("", "-bits")]


def write(folder: Path, name: str) -> None:
    """Write the model file of one case."""
    from bitinfer import modelfile

    graph, tensors = _network(name) if name in NETWORKS else _layer(name)
    home = "bitinfer.model" if _exists("bitinfer.model") else "bitinfer.modelfile"
    model = import_module(home).Model(graph=graph, tensors=tensors)
    modelfile.save(model, folder / f"{name}.bin")


def _exists(module: str) -> bool:
    from importlib.util import find_spec

    return find_spec(module) is not None


def _network(name: str) -> Any:
    from bitinfer import zoo

    return zoo.build(NETWORKS[name], zoo.RandomParameters(0))


def _layer(name: str) -> Any:
    """Build a layer of the rig; with ``-bits`` a second one takes the signs of its result."""
    import numpy as np
    from rig.layers import LAYERS, Problem

    from bitinfer.graph.builder import GraphBuilder

    layer = next(layer for layer in LAYERS if layer.name == name.removesuffix("-bits"))
    problem = Problem(layer)
    shape = (layer.channels,) if layer.is_dense else (layer.size, layer.size, layer.channels)
    b = GraphBuilder(name, shape)

    def add(x: str, weight: Any, alpha: Any, bias: Any, padding: int, stride: int) -> str:
        if layer.is_dense:
            flat = weight.reshape(weight.shape[0], -1)
            return b.bdense(b.sign(x), flat, alpha=alpha, bias=bias)
        window = {"padding": padding, "stride": stride}
        return b.bconv2d(b.sign(x), weight, alpha=alpha, bias=bias, **window)

    y = add(b.input, problem.weight, problem.alpha, problem.bias, layer.pad, layer.stride)
    if name.endswith("-bits"):
        rng = np.random.default_rng(1)
        weight = rng.standard_normal((8, 1, 1, layer.outputs), np.float32)
        y = add(y, weight, None, None, 0, 1)
    return b.build(y)


if __name__ == "__main__":
    for case in sys.argv[2:]:
        write(Path(sys.argv[1]), case)

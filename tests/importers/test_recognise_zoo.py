"""Networks of the zoo, written as other frameworks write them, come back as what they were."""

from __future__ import annotations

from typing import Any

import foreign_writer
import numpy as np
import pytest
from foreign_writer import by_name, by_polynomial, by_sign_of_sign, by_where
from numpy.typing import NDArray

from bitinfer import session, zoo
from bitinfer.graph import Graph, nodes
from bitinfer.importers.foreign import Layout
from bitinfer.importers.recognise import recognise
from bitinfer.modelfile import Model

NETWORKS = [
    # Each with a layout that its flattening allows, and another way to write signs.
    ("xnor-lenet5", "NCHW", by_name),
    ("xnor-nin", "NCHW", by_polynomial),
    ("bireal18", "NCHW", by_polynomial),
    ("bireal18", "NHWC", by_where),
    ("quicknet-small", "NHWC", by_sign_of_sign),
    ("bnn-vgg-small", "NCHW", by_where),
    ("bnn-pynq-lfc", "NCHW", by_name),
    ("reactnet-a", "NHWC", by_name),
    ("real-to-bin", "NHWC", by_sign_of_sign),
    ("binary-densenet28", "NHWC", by_name),
    ("meliusnet22", "NCHW", by_polynomial),
]


def small(name: str) -> zoo.Shape:
    height, width, channels = zoo.find(name).input_shape
    return (min(height, 64), min(width, 64), channels)


def outputs(graph: Graph, tensors: Any, x: NDArray[Any]) -> NDArray[Any]:
    result = session.Session(Model(graph=graph, tensors=tensors), "reference").run(x)
    return np.asarray(result)


@pytest.mark.parametrize(("name", "layout", "sign"), NETWORKS)
def test_network_comes_back_bit_for_bit(name: str, layout: Layout, sign: Any) -> None:
    graph, tensors = zoo.build(name, zoo.RandomParameters(3), input_shape=small(name))
    found = recognise(foreign_writer.write(graph, tensors, layout, sign))
    x = np.random.default_rng(1).uniform(-1, 1, (1, *graph.input.shape)).astype(np.float32)
    np.testing.assert_array_equal(
        outputs(found.graph, found.tensors, x), outputs(graph, tensors, x)
    )
    kinds = [type(n) for n in graph.nodes]
    assert [type(n) for n in found.graph.nodes].count(nodes.BinaryConv2d) == kinds.count(
        nodes.BinaryConv2d
    )
    layers = [n for n in graph.nodes if isinstance(n, nodes.Layer)]
    outcomes = {o.name: o for o in found.layers}
    for node in layers:
        is_bits = tensors[node.weight].dtype == np.uint64
        assert outcomes[node.name].is_binary == is_bits, outcomes[node.name]
        assert outcomes[node.name].reason

"""The zoo's networks have the published shapes, and random weights that exercise every sign."""

from __future__ import annotations

import math

import numpy as np
import pytest

from bitinfer import modelfile, session, zoo
from bitinfer.errors import GraphError
from bitinfer.graph.nodes import BinaryConv2d, BinaryDense, Sign

SMALL = ("xnor-lenet5", "xnor-nin")


def random_model(name: str, seed: int = 0) -> modelfile.Model:
    graph, tensors = zoo.build(name, zoo.RandomParameters(seed))
    return modelfile.Model(graph=graph, tensors=tensors)


@pytest.mark.parametrize("name", zoo.ARCHITECTURES)
def test_networks_map_their_input_to_their_classes(name: str) -> None:
    architecture = zoo.find(name)
    model = random_model(name)
    assert model.graph.name == name
    assert model.graph.input.shape == architecture.input_shape
    assert model.values[model.graph.outputs[0]].shape == (architecture.classes,)
    assert any(node.name == architecture.output_layer for node in model.graph.nodes)


@pytest.mark.parametrize(
    ("name", "binary_macs"),
    [
        # Sums over the layers of Hout * Wout * Cout * kh * kw * Cin, written out by hand.
        ("xnor-lenet5", 8 * 8 * 50 * 25 * 20 + 800 * 500),
        (
            "xnor-nin",
            1024 * (192 * 160 + 160 * 96)
            + 256 * (25 * 96 * 192 + 2 * 192 * 192)
            + 64 * (9 * 192 * 192 + 192 * 192),
        ),
        (
            "xnor-alexnet",
            729 * 25 * 96 * 256
            + 169 * 9 * (256 * 384 + 384 * 384 + 384 * 256)
            + 9216 * 4096
            + 4096 * 4096,
        ),
    ],
)
def test_binary_layers_do_the_published_work(name: str, binary_macs: int) -> None:
    model = random_model(name)
    total = 0
    for node in model.graph.nodes:
        if isinstance(node, BinaryConv2d | BinaryDense):
            window = model.tensors[node.weight].shape[1:-1]
            channels = model.values[node.input].shape[-1]
            total += math.prod(model.values[node.name].shape) * math.prod(window) * channels
    assert total == binary_macs


def test_every_padded_tap_of_a_binary_layer_contributes_nothing() -> None:
    for name in SMALL:
        nodes = random_model(name).graph.nodes
        assert all(n.pad_value == 0 for n in nodes if isinstance(n, BinaryConv2d))


def test_same_seed_gives_the_same_network() -> None:
    first, again, other = (random_model("xnor-lenet5", seed) for seed in (3, 3, 4))
    assert modelfile.to_bytes(first) == modelfile.to_bytes(again)
    assert modelfile.to_bytes(first) != modelfile.to_bytes(other)


@pytest.mark.parametrize("name", SMALL)
def test_random_weights_keep_values_in_range_and_signs_mixed(name: str) -> None:
    model = random_model(name)
    graph = model.graph
    signs = [node.input for node in graph.nodes if isinstance(node, Sign)]
    probe = modelfile.Model(
        graph=type(graph)(graph.name, graph.input, graph.nodes, (*graph.outputs, *signs)),
        tensors=model.tensors,
    )
    x = np.random.default_rng(1).standard_normal(graph.input.shape, np.float32)
    values = session.Session(probe, "reference").run(x)
    for sign in signs:
        assert 0.1 < np.mean(values[sign] < 0) < 0.9, sign
    assert all(np.abs(value).max() < 50 for value in values.values())


def test_classes_can_be_chosen() -> None:
    graph, tensors = zoo.build("xnor-nin", zoo.RandomParameters(0), classes=3)
    model = modelfile.Model(graph=graph, tensors=tensors)
    assert model.values[graph.outputs[0]].shape == (3,)


def test_unknown_name_is_refused() -> None:
    with pytest.raises(GraphError, match="there are xnor-lenet5, xnor-nin, xnor-alexnet"):
        zoo.find("xnor-vgg")

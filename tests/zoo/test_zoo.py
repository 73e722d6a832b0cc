"""The zoo's networks have the published shapes, and random weights that exercise every sign."""

from __future__ import annotations

import functools
import math
from types import UnionType
from typing import Any

import numpy as np
import pytest
from small import small_shape

from bitinfer import modelfile, session, zoo
from bitinfer.errors import UnknownNameError
from bitinfer.graph.nodes import BinaryConv2d, BinaryDense, Conv2d, Dense, Sign
from bitinfer.model import Model

UNSCALED = ("binary-densenet28", "meliusnet22", "real-to-bin")
"""Those in which sums reach the next block as they are."""


@functools.cache
def random_model(name: str, seed: int = 0) -> Model:
    graph, tensors = zoo.build(name, zoo.RandomParameters(seed))
    return Model(graph=graph, tensors=tensors)


def macs(model: Model, kinds: UnionType) -> int:
    """Return the multiply-accumulates of all layers of these kinds, padded taps included."""
    total = 0
    for node in model.graph.nodes:
        if isinstance(node, kinds):
            outputs, *window = model.tensors[node.weight].shape[:-1]
            channels = model.checked.values[node.input].shape[-1] // getattr(node, "groups", 1)
            pixels = math.prod(model.checked.values[node.name].shape) // outputs
            total += pixels * outputs * math.prod(window) * channels
    return total


@pytest.mark.parametrize("name", zoo.ARCHITECTURES)
def test_networks_map_their_input_to_their_classes(name: str) -> None:
    architecture = zoo.find(name)
    model = random_model(name)
    assert model.graph.name == name
    assert model.graph.input.shape == architecture.input_shape
    assert model.checked.values[model.graph.outputs[0]].shape == (architecture.classes,)
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
        (
            "bitres11",
            9
            * (256 * 3 * 64 * 64 + 64 * (64 * 128 + 3 * 128 * 128) + 16 * (128 * 256 + 256 * 256)),
        ),
        ("bnn-pynq-lfc", 784 * 1024 + 2 * 1024 * 1024 + 1024 * 10),
        (
            "bnn-vgg-small",
            9 * (1024 * 128 * 128 + 256 * (128 * 256 + 256 * 256) + 64 * (256 * 512 + 512 * 512))
            + 8192 * 1024
            + 1024 * 1024
            + 1024 * 10,
        ),
    ],
)
def test_binary_layers_do_the_published_work(name: str, binary_macs: int) -> None:
    assert macs(random_model(name), BinaryConv2d | BinaryDense) == binary_macs


@pytest.mark.parametrize(
    ("name", "binary", "real"),
    [
        # As the papers give them: BOPs / FLOPs of Liu et al. 2020, table 1 (Bi-Real-18,
        # ReActNet-A, Real-to-Bin), and of Bethge et al. 2020, table 2 (MeliusNet-22).
        ("bireal18", 1.68e9, 1.39e8),
        ("reactnet-a", 4.82e9, 0.12e8),
        ("real-to-bin", 1.68e9, None),
        ("meliusnet22", 4.62e9, 1.35e8),
    ],
)
def test_networks_do_the_published_work(name: str, binary: float, real: float | None) -> None:
    model = random_model(name)
    assert macs(model, BinaryConv2d | BinaryDense) == pytest.approx(binary, rel=0.005)
    if real is not None:
        assert macs(model, Conv2d | Dense) == pytest.approx(real, rel=0.02)


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        # As github.com/larq/zoo gives them, in larq_zoo/sota/quicknet.py; a BatchNorm counts as
        # a scale and a shift for each channel.
        ("quicknet-small", 12_655_688),
        ("quicknet", 13_234_088),
        ("quicknet-large", 23_342_248),
    ],
)
def test_networks_have_the_published_parameters(name: str, parameters: int) -> None:
    source = Counter()
    graph, tensors = zoo.build(name, source)
    blurs = [node.weight for node in graph.nodes if node.name.endswith(".blur")]
    assert source.count + sum(tensors[blur].size for blur in blurs) == parameters


class Counter(zoo.RandomParameters):
    """Counts the numbers that a network asks for."""

    def __init__(self) -> None:
        super().__init__(0)
        self.count = 0

    def layer(self, name: str, shape: tuple[int, ...], **kwargs: Any) -> zoo.LayerParameters:
        p = super().layer(name, shape, **kwargs)
        self.count += sum(part.size for part in (p.weight, p.bias, p.alpha) if part is not None)
        return p

    def norm(self, name: str, channels: int, **kwargs: Any) -> zoo.NormParameters:
        self.count += 2 * channels
        return super().norm(name, channels, **kwargs)


@pytest.mark.parametrize("name", zoo.ARCHITECTURES)
def test_padded_taps_of_binary_layers_contribute_what_is_published(name: str) -> None:
    nodes = random_model(name).graph.nodes
    values = {n.pad_value for n in nodes if isinstance(n, BinaryConv2d) and any(n.padding)}
    assert values <= ({1} if name.startswith("quicknet") else {0})


def test_random_gammas_take_every_sign_where_they_may() -> None:
    source = zoo.RandomParameters(0)
    signed = zoo.Expected(signed=True)
    gamma = source.norm("bn", 64, is_affine=True, epsilon=0, expected=signed).gamma
    assert gamma is not None
    assert set(np.sign(gamma)) == {-1, 0, 1}
    gamma = source.norm("bn", 64, is_affine=True, epsilon=0).gamma
    assert gamma is not None
    assert gamma.min() > 0


def test_same_seed_gives_the_same_network() -> None:
    first, again, other = (random_model.__wrapped__("xnor-lenet5", seed) for seed in (3, 3, 4))
    assert modelfile.to_bytes(first) == modelfile.to_bytes(again)
    assert modelfile.to_bytes(first) != modelfile.to_bytes(other)


@pytest.mark.parametrize("name", zoo.ARCHITECTURES)
def test_random_weights_keep_values_in_range_and_signs_mixed(name: str) -> None:
    graph, tensors = zoo.build(name, zoo.RandomParameters(0), input_shape=small_shape(name))
    model = Model(graph=graph, tensors=tensors)
    signs = {node.input for node in graph.nodes if isinstance(node, Sign)} - {graph.input.name}
    probe = Model(
        graph=type(graph)(graph.name, graph.input, graph.nodes, (*graph.outputs, *signs)),
        tensors=model.tensors,
    )
    x = np.random.default_rng(1).standard_normal(graph.input.shape, np.float32)
    values = session.Session(probe, "reference").run(x)
    for sign in signs:
        assert 0.1 < np.mean(values[sign] < 0) < 0.9, sign
    bound = 300 if name in UNSCALED else 50
    assert all(np.abs(value).max() < bound for value in values.values())


def test_classes_can_be_chosen() -> None:
    graph, tensors = zoo.build("xnor-nin", zoo.RandomParameters(0), classes=3)
    model = Model(graph=graph, tensors=tensors)
    assert model.checked.values[graph.outputs[0]].shape == (3,)


def test_unknown_name_is_refused() -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'xnor-nin'"):
        zoo.find("xnor-vgg")

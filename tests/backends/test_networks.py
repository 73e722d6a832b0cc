"""Whole networks, drawn at random: every layer right, and every backend the same."""

from __future__ import annotations

from typing import Any

import hypothesis
import numpy as np
import pytest

from bitinfer.backends import Backend, reference, select
from bitinfer.graph import Graph
from bitinfer.model import Model
from bitinfer.session import Session
from graph_examples import every_node, only_windows
from harness import check_layers, float_values, known_backends, run_graph
from strategies import networks, seeds

Network = tuple[Graph, dict[str, Any]]


def check(backend: Backend, network: Network, seed: int) -> None:
    graph, tensors = network
    rng = np.random.default_rng(seed)
    batch = rng.standard_normal((2, *graph.input.shape)).astype(np.float32)
    if graph.input.kind == "uint8":
        batch = rng.integers(0, 256, batch.shape).astype(np.float32)
    everything = float_values(graph, tensors)
    values = run_graph(backend, everything, tensors, batch)
    for sample in range(2):
        one = {name: value[sample] for name, value in values.items()}
        check_layers(everything, tensors, batch[sample], one)
    # With fewer outputs, inner values share memory, and some must not.
    for name, value in run_graph(backend, graph, tensors, batch).items():
        assert np.array_equal(value, values[name]), name


def check_everywhere(network: Network, seed: int) -> None:
    for name, reason in known_backends():
        if not reason:
            check(select(name), network, seed)


@hypothesis.settings(max_examples=150)
@hypothesis.given(networks(), seeds)
def test_every_layer_of_a_drawn_network_is_right(network: Network, seed: int) -> None:
    check_everywhere(network, seed)


@pytest.mark.parametrize("seed", range(3))
def test_every_layer_of_a_network_with_every_node_is_right(backend: Backend, seed: int) -> None:
    check(backend, every_node(seed), seed)


@pytest.mark.long
@pytest.mark.parametrize("part", range(4))
def test_every_layer_of_ten_thousand_networks_is_right(part: int) -> None:
    @hypothesis.seed(part)
    @hypothesis.settings(max_examples=2_500, database=None)
    @hypothesis.given(networks(max_layers=20), seeds)
    def every_layer_is_right(network: Network, seed: int) -> None:
        check_everywhere(network, seed)

    every_layer_is_right()


ROUNDING = ("fold_batch_norm", "fuse_residual")
"""Passes that round anew; all others change no bit."""


def check_passes(network: Network, seed: int) -> None:
    graph, tensors = network
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((2, *graph.input.shape)).astype(np.float32)
    if graph.input.kind == "uint8":
        x = rng.integers(0, 256, x.shape).astype(np.uint8)
    model = Model(graph, tensors)
    for name, reason in known_backends():
        if not reason:
            wanted, got = (
                Session(model, name, skip_passes=skip).run(x) for skip in ("all", ROUNDING)
            )
            for output in graph.outputs:
                pair = [y[output] if isinstance(y, dict) else y for y in (wanted, got)]
                assert np.array_equal(*pair, equal_nan=True), (name, output)


@hypothesis.settings(max_examples=60)
@hypothesis.given(networks(), seeds)
def test_a_drawn_network_gives_the_same_bits_with_and_without_passes(
    network: Network, seed: int
) -> None:
    check_passes(network, seed)


@pytest.mark.long
@pytest.mark.parametrize("part", range(4))
def test_ten_thousand_networks_give_the_same_bits_with_and_without_passes(part: int) -> None:
    @hypothesis.seed(part)
    @hypothesis.settings(max_examples=2_500, database=None)
    @hypothesis.given(networks(max_layers=20), seeds)
    def gives_the_same_bits(network: Network, seed: int) -> None:
        check_passes(network, seed)

    gives_the_same_bits()


@pytest.mark.parametrize("floats", [1, 50, 1000])
def test_the_reference_gives_the_same_whatever_its_chunks(
    floats: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reference, "_COLUMN_FLOATS", floats)
    for seed in range(3):
        check(select("reference"), every_node(seed), seed)
        check(select("reference"), only_windows(seed), seed)

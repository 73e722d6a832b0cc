"""Every network of the zoo against its twin in PyTorch, layer by layer and as a whole."""

from __future__ import annotations

import functools

import numpy as np
import pytest

pytest.importorskip("torch", reason="the float evaluation runs in PyTorch")

import float_twin
from float_twin import Array, Recorder, Twin, plan_values, to_torch
from small import small_shape
from twins import TWINS

from bitinfer import backends, session, zoo
from bitinfer.graph import Graph
from bitinfer.model import Model

LOGIT_SLACK = 1e-3
"""Of logits, in units of their spread."""


def picture(shape: tuple[int, ...], seed: int) -> Array:
    """Return made-up input, as a normalised picture is: near 1, neighbours alike."""
    x = np.random.default_rng(seed).uniform(-1, 1, shape).astype(np.float32)
    return np.asarray(x + 0.5 * np.roll(x, 1, axis=(0, 1)), np.float32)


@functools.lru_cache(maxsize=1)
def built(name: str, shape: zoo.Shape) -> tuple[Recorder, Graph, dict[str, Array]]:
    """Return a network and what its numbers are; drawing them takes as long as running it."""
    recorder = Recorder(seed=7)
    return recorder, *zoo.build(name, recorder, input_shape=shape)


def compare(name: str, backend: str, shape: zoo.Shape, seeds: range, wanted: int) -> None:
    """Check every layer for some pictures, and the logits of ``wanted`` that have no tie."""
    recorder, graph, tensors = built(name, shape)
    chosen = backends.select(backend)
    run = session.Session(Model(graph=graph, tensors=tensors), backend).run
    for seed in seeds:
        x = picture(shape, seed)
        ours = plan_values(chosen, graph, tensors, x)
        fed = Twin(recorder, ours, is_fed=True)
        fed.take(graph.outputs[0], TWINS[name](fed, to_torch(x)))
        assert float_twin.named_layers(graph) <= fed.taken
        for tie in fed.ties:
            print(f"{name}, picture {seed}: {tie}")
        assert all(tie.distance < float_twin.TIE for tie in fed.ties)
        free = Twin(recorder, ours, is_fed=False)
        logits = float_twin.to_ours(TWINS[name](free, to_torch(x)))
        if free.ties:
            continue
        slack = LOGIT_SLACK * np.std(logits)
        np.testing.assert_allclose(ours[graph.outputs[0]], logits, rtol=0, atol=slack)
        np.testing.assert_allclose(run(x), logits, rtol=0, atol=slack)
        wanted -= 1
        if wanted == 0:
            return
    pytest.fail(f"{wanted} more pictures without a tie were wanted")


def test_every_network_has_a_twin() -> None:
    assert set(TWINS) == set(zoo.ARCHITECTURES)


LIKE_A_SMALLER_ONE = ("quicknet", "quicknet-large")
"""They differ from quicknet-small in numbers alone."""


@pytest.mark.parametrize("backend", ["reference", "native"])
@pytest.mark.parametrize("name", [n for n in TWINS if n not in LIKE_A_SMALLER_ONE])
def test_layers_and_logits(name: str, backend: str) -> None:
    compare(name, backend, small_shape(name), range(6), wanted=1)


@pytest.mark.long
@pytest.mark.parametrize("backend", ["reference", "native"])
@pytest.mark.parametrize("name", TWINS)
def test_layers_and_logits_at_full_size(name: str, backend: str) -> None:
    compare(name, backend, zoo.find(name).input_shape, range(30), wanted=2)

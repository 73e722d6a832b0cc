"""Binary dense layers on every backend and instruction set."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

import oracle
from bitinfer.backends import Backend
from bitinfer.graph import GraphBuilder
from harness import run_graph
from sizes import CHANNELS, OUTPUTS, simd_sizes


def check(
    backend: Backend,
    x: np.ndarray,
    weight: np.ndarray,
    alpha: np.ndarray | None = None,
    bias: np.ndarray | None = None,
    *,
    beta: bool = False,
) -> None:
    b = GraphBuilder("g", x.shape)
    scale = b.beta_map(b.input, name="beta") if beta else None
    b.bdense(b.sign(b.input), weight, alpha=alpha, bias=bias, beta=scale, name="y")
    values = run_graph(backend, *b.build("y", *(["beta"] if beta else [])), x[None])
    if beta:
        assert values["beta"][0] == pytest.approx(oracle.beta_map(x), rel=1e-5)
    dot = oracle.dense(oracle.signs(x), oracle.signs(weight))
    wanted = oracle.scale(dot, alpha, values["beta"][0] if beta else None, bias)
    assert np.array_equal(values["y"][0], wanted)


@pytest.mark.parametrize("length", CHANNELS)
def test_any_number_of_outputs_is_exact(
    backend: Backend, length: int, rng: np.random.Generator
) -> None:
    for outputs in OUTPUTS:
        x, weight = rng.standard_normal(length, np.float32), rng.standard_normal((outputs, length))
        check(backend, x, weight)


def test_lengths_around_powers_of_two_are_exact(backend: Backend, rng: np.random.Generator) -> None:
    for length in simd_sizes(4100):
        x, weight = rng.standard_normal(length, np.float32), rng.standard_normal((3, length))
        check(backend, x, weight, rng.standard_normal(3, np.float32))


@pytest.mark.parametrize("sign", [1, -1])
def test_the_greatest_and_least_sums_are_exact(backend: Backend, sign: int) -> None:
    for length in (*CHANNELS, 31 * 64, 32 * 64, 128 * 64, 1 << 16):
        check(backend, np.full(length, -1, np.float32), np.full((5, length), sign))


def test_alpha_beta_and_bias_are_applied_in_order_and_rounded_alike(
    backend: Backend, rng: np.random.Generator
) -> None:
    for alpha, bias, beta in itertools.product((False, True), repeat=3):
        check(
            backend,
            rng.standard_normal(333, np.float32),
            rng.standard_normal((17, 333)),
            rng.standard_normal(17, np.float32) if alpha else None,
            rng.standard_normal(17, np.float32) if bias else None,
            beta=beta,
        )


@pytest.mark.long
def test_a_hundred_thousand_layers_are_exact(backend: Backend, rng: np.random.Generator) -> None:
    for _ in range(100_000):
        length, outputs = rng.integers(1, 600), rng.integers(1, 40)
        x = rng.standard_normal(length, np.float32)
        check(backend, x, rng.standard_normal((outputs, length)))

"""numerics.py: each operation rounded on its own, in the stated order."""

from __future__ import annotations

from decimal import Decimal
from fractions import Fraction

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import oracle
from bitinfer import numerics

floats = st.floats(-1e4, 1e4, width=32)
vectors = hnp.arrays(np.float32, 7, elements=floats)


@hypothesis.given(
    hnp.arrays(np.float32, 7, elements=st.integers(-5000, 5000)), vectors, vectors, vectors
)
def test_a_binary_layer_is_scaled_by_alpha_then_beta_then_shifted_by_bias(
    dot: np.ndarray, alpha: np.ndarray, beta: np.ndarray, bias: np.ndarray
) -> None:
    for a, b, c in ((alpha, bias, beta), (None, bias, None), (alpha, None, beta), (None,) * 3):
        got = numerics.scale_sum(dot, a, b, c)
        assert np.array_equal(got, oracle.scale(dot, a, c, b, groups=7))
        assert got.dtype == np.float32


def test_scaling_leaves_the_integers_as_they_were() -> None:
    dot = np.array([1, 2], np.float32)
    numerics.scale_sum(dot, dot, dot, dot)
    assert dot.tolist() == [1, 2]


@hypothesis.given(vectors, vectors, hnp.arrays(np.float32, 7, elements=st.floats(-9, 9, width=32)))
def test_a_chain_with_batch_norm_is_monotone_in_each_channel(
    scale: np.ndarray, shift: np.ndarray, alpha: np.ndarray
) -> None:
    dot = np.arange(-300, 301, 2, dtype=np.float32)[:, None] + np.zeros_like(alpha)
    norm = numerics.Norm(shift[::-1].astype(float), scale.astype(float), shift.astype(float))
    y = numerics.normalize(numerics.scale_sum(dot, alpha, None, None), norm)
    steps = np.diff(y, axis=0) * np.sign(alpha) * np.sign(scale)
    assert (steps >= 0).all()


@pytest.mark.parametrize("gamma", [True, False])
@pytest.mark.parametrize("beta", [True, False])
def test_batch_norm_becomes_scale_and_shift(
    gamma: bool, beta: bool, rng: np.random.Generator
) -> None:
    mean, variance = rng.standard_normal((2, 50)).astype(np.float32)
    variance = np.abs(variance)
    g = rng.standard_normal(50).astype(np.float32) if gamma else None
    b = rng.standard_normal(50).astype(np.float32) if beta else None
    scale, shift = numerics.batch_norm_affine(mean, variance, g, b, 1e-5)
    assert scale.dtype == shift.dtype == np.float32
    zero, one = np.zeros(50), np.ones(50)
    at_zero = oracle.batch_norm(zero, mean, variance, g, b, 1e-5)
    at_one = oracle.batch_norm(one, mean, variance, g, b, 1e-5)
    np.testing.assert_allclose(shift, at_zero, rtol=2e-7)
    np.testing.assert_allclose(scale, at_one - at_zero, rtol=1e-6)


@pytest.mark.parametrize("seed", range(20))
def test_the_sign_of_a_batch_norm_is_that_of_the_exact_number(seed: int) -> None:
    # Means, variances, gammas and betas as a residual network of agreements has them; integers.
    rng = np.random.default_rng(seed)
    channels = 5000
    mean = rng.uniform(100, 3000, channels).astype(np.float32)
    variance = rng.uniform(100, 5000, channels).astype(np.float32)
    gamma = rng.uniform(0.3, 1.5, channels).astype(np.float32)
    near = np.round(mean) + rng.integers(-40, 41, channels)
    norm = numerics.batch_norm(mean, variance, gamma, None, 2e-5)
    # Betas for which zero lies next to an integer.
    beta = (-(near - norm.mean) * norm.scale).astype(np.float32)
    norm = numerics.batch_norm(mean, variance, gamma, beta, 2e-5)
    got = numerics.normalize(near.astype(np.float32), norm)
    for i in range(channels):
        difference = Fraction(int(near[i])) - Fraction(float(mean[i]))
        # gamma / sqrt(v) > 0: the sign is that of difference + beta * sqrt(v) / gamma.
        root = Decimal(float(variance[i])) + Decimal("0.00002")
        exact = Decimal(difference.numerator) / Decimal(difference.denominator)
        exact += Decimal(float(beta[i])) * root.sqrt() / Decimal(float(gamma[i]))
        assert (got[i] < 0) == (exact < 0) or abs(exact) < 1e-12


@hypothesis.given(hnp.arrays(np.float32, (2, 9), elements=st.floats(-80, 80, width=32)))
def test_softmax_sums_to_one_whatever_the_size_of_its_input(x: np.ndarray) -> None:
    for shifted in (x, x + np.float32(1000), x - np.float32(1000)):
        got = numerics.softmax(shifted)
        assert got.dtype == np.float32
        assert got.sum(axis=-1) == pytest.approx(1.0, rel=1e-6)
        np.testing.assert_allclose(
            got, [oracle.softmax(row.astype(float)) for row in shifted], rtol=2e-5, atol=1e-37
        )


def test_every_pixel_value_is_normalised_in_float64_and_rounded_once() -> None:
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    table = numerics.normalization_table(1 / 255, mean, std)
    pixels = np.broadcast_to(np.arange(256, dtype=np.uint8)[:, None], (256, 3))
    assert table.dtype == np.float32
    assert np.array_equal(table, oracle.normalize(pixels, 1 / 255, mean, std).astype(np.float32))

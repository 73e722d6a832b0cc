"""What makes a layer binary, checked against sums over the values themselves."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from bitinfer.importers import binary
from bitinfer.importers.binary import Levels, MeanScale, Refusal, SignRule, Split, split_weight

Array = NDArray[Any]
SHAPES = [(3, 4), (2, 3, 3, 5), (1, 1), (6, 1, 1, 70)]

shapes = st.sampled_from(SHAPES)
seeds = st.integers(0, 2**32 - 1)
levels = st.sampled_from([(-1.0, 1.0), (0.0, 1.0), (1.0, 0.0), (-0.5, 0.5), (-0.1, 0.9)])


def signs_and_sizes(shape: tuple[int, ...], seed: int) -> tuple[Array, Array]:
    rng = np.random.default_rng(seed)
    signs = np.where(rng.random(shape) < 0.5, np.float32(-1), np.float32(1))
    return signs, rng.uniform(1e-3, 50, shape[0]).astype(np.float32)


def expand(per_filter: Array, shape: tuple[int, ...]) -> Array:
    return per_filter.reshape(-1, *[1] * (len(shape) - 1))


@given(shapes, seeds)
def test_weight_of_one_size_per_filter_comes_apart_bit_for_bit(
    shape: tuple[int, ...], seed: int
) -> None:
    signs, alpha = signs_and_sizes(shape, seed)
    found = split_weight(signs * expand(alpha, shape))
    assert isinstance(found, Split)
    np.testing.assert_array_equal(found.signs, signs)
    np.testing.assert_array_equal(found.alpha, alpha)
    assert found.zeros == 0


@given(shapes, seeds, st.floats(-4e-6, 4e-6))
def test_sizes_may_differ_by_rounding(shape: tuple[int, ...], seed: int, change: float) -> None:
    signs, alpha = signs_and_sizes(shape, seed)
    weight = signs * expand(alpha, shape)
    weight.reshape(shape[0], -1)[:, 0] *= np.float32(1 + change)
    found = split_weight(weight)
    assert isinstance(found, Split)
    np.testing.assert_array_equal(found.signs, signs)
    np.testing.assert_allclose(found.alpha, alpha, rtol=5e-6)


@pytest.mark.parametrize("change", [1.00002, 0.9999, 3.0])
def test_filters_of_several_sizes_are_counted_in_the_refusal(change: float) -> None:
    signs, alpha = signs_and_sizes((5, 7), 0)
    weight = signs * alpha[:, None]
    weight[[1, 3], 2] *= np.float32(change)
    found = split_weight(weight)
    assert isinstance(found, Refusal)
    assert "2 of 5 filters" in found.reason
    assert found.mend


def test_zeros_are_counted_while_they_are_few() -> None:
    signs, alpha = signs_and_sizes((2, 200), 0)
    weight = signs * alpha[:, None]
    weight[0, :2] = 0
    found = split_weight(weight)
    assert isinstance(found, Split)
    assert found.zeros == 2
    assert (found.signs[0, :2] == 1).all()
    np.testing.assert_array_equal(found.alpha[1], alpha[1])
    np.testing.assert_allclose(found.alpha[0], alpha[0], rtol=1e-6)
    weight[0, :5] = 0
    refusal = split_weight(weight)
    assert isinstance(refusal, Refusal)
    assert "ternary: 5 of 400" in refusal.reason


def test_filter_of_zeros_has_alpha_zero_and_nothing_to_report() -> None:
    found = split_weight(np.zeros((3, 4), np.float32))
    assert isinstance(found, Split)
    assert found.alpha.tolist() == [0, 0, 0]
    assert found.zeros == 0


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_weight_that_is_no_number_is_refused(value: float) -> None:
    weight = np.ones((2, 3), np.float32)
    weight[1, 1] = value
    assert isinstance(split_weight(weight), Refusal)
    assert isinstance(split_weight(np.ones((2, 0), np.float32)), Refusal)


@given(shapes, seeds, st.booleans(), st.booleans())
def test_mean_scale_is_the_paper_s(
    shape: tuple[int, ...], seed: int, centred: bool, clipped: bool
) -> None:
    real = np.random.default_rng(seed).normal(0, 1, shape).astype(np.float32)
    weight, alpha = MeanScale(centred, clipped).split(real)
    wanted = real.astype(np.float64)
    if centred:
        wanted = wanted - wanted.mean(axis=1, keepdims=True)
    if clipped:
        wanted = np.clip(wanted, -1, 1)
    np.testing.assert_allclose(weight, wanted, atol=3e-7)
    np.testing.assert_allclose(alpha, np.abs(wanted).reshape(len(real), -1).mean(1), rtol=1e-5)


def test_named_scales_are_what_their_frameworks_do() -> None:
    assert MeanScale(centred=True, clipped=True) == binary.CENTRED_AND_CLIPPED
    assert MeanScale(centred=False, clipped=True) == binary.CLIPPED
    assert MeanScale(centred=False, clipped=False) == binary.PLAIN


@given(shapes, seeds, levels, st.booleans())
def test_any_two_levels_are_an_affine_function_of_signs(
    shape: tuple[int, ...], seed: int, values: tuple[float, float], has_bias: bool
) -> None:
    two = Levels(*values)
    signs, alpha = signs_and_sizes(shape, seed)
    rng = np.random.default_rng(seed)
    bias = rng.normal(0, 1, shape[0]).astype(np.float32) if has_bias else None
    x = np.where(rng.random(shape[1:]) < 0.5, -1.0, 1.0)
    stands_for = np.where(x < 0, two.low, two.high)
    rest = tuple(range(1, len(shape)))
    dot = (signs * x).sum(axis=rest)
    new_alpha, new_bias = two.dot(signs).before(alpha, bias)
    found = dot * new_alpha + (0 if new_bias is None else new_bias)
    wanted = (signs * stands_for).sum(axis=rest) * alpha + (0 if bias is None else bias)
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-2)


def test_bipolar_levels_change_nothing() -> None:
    signs, alpha = signs_and_sizes((3, 5), 0)
    new_alpha, bias = binary.BIPOLAR.dot(signs).before(alpha, None)
    np.testing.assert_array_equal(new_alpha, alpha)
    assert bias is None


@given(st.integers(1, 300), seeds)
def test_agreements_follow_from_the_dot_product(k: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    a, b = np.where(rng.random((2, k)) < 0.5, -1, 1)
    one = np.ones(1, np.float32)
    scale, offset = binary.agreements(k).before(one, None)
    assert offset is not None
    assert scale[0] * (a @ b) + offset[0] == np.count_nonzero(a == b)


@pytest.mark.parametrize(
    ("value", "two", "wanted"),
    [
        (0.0, binary.BIPOLAR, 0),
        (-1.0, binary.BIPOLAR, -1),
        (1.0, binary.BIPOLAR, 1),
        (0.0, binary.ZERO_ONE, -1),
        (1.0, binary.ZERO_ONE, 1),
        (0.5, binary.ZERO_ONE, 0),
        (0.0, Levels(1.0, 0.0), 1),
        (0.1, Levels(-0.1, 0.1), 1),
    ],
)
def test_padding_is_a_sign_or_halfway(value: float, two: Levels, wanted: int) -> None:
    assert binary.pad_value(value, two) == wanted


@pytest.mark.parametrize("two", [binary.BIPOLAR, Levels(1.0, 1.0)])
def test_other_padding_is_refused_with_what_would_do(two: Levels) -> None:
    found = binary.pad_value(0.25, two)
    assert isinstance(found, Refusal)
    assert "padded with 0.25" in found.reason


def test_sign_that_is_negative_at_zero_is_a_threshold_above_it() -> None:
    threshold = SignRule(-1).threshold
    assert threshold is not None
    assert threshold > 0
    assert np.nextafter(threshold, np.float32(0)) == 0
    assert SignRule(0).threshold is None
    assert SignRule(1).threshold is None


def test_zero_weights_are_said() -> None:
    (finding,) = binary.zero_weights(np.array([0, 1, -0.0], np.float32), "torch")
    assert (finding.kind, finding.count) == ("zero weights", 2)
    assert "2 weights" in str(finding)
    assert binary.zero_weights(np.ones(3, np.float32), "torch") == ()

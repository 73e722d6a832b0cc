"""functional.py: one binary layer on NumPy arrays."""

from __future__ import annotations

import hypothesis
import numpy as np
import pytest

import bitinfer
import oracle
from bitinfer.errors import BackendError, ShapeError
from harness import BinaryConv
from strategies import binary_convs


@hypothesis.given(binary_convs())
def test_bconv2d_is_the_convolution_of_signs(layer: BinaryConv) -> None:
    x, weight, alpha, bias = layer.arrays()
    y = bitinfer.bconv2d(
        x, weight, alpha=alpha, bias=bias, pad_value=layer.pad_value, **layer.window
    )
    assert np.array_equal(y, oracle.scale(layer.dot(), alpha, None, bias))
    assert y.dtype == np.float32


def test_every_backend_answers_by_name(backend_name: str, rng: np.random.Generator) -> None:
    x, weight = rng.standard_normal((6, 5, 70)), rng.standard_normal((9, 3, 3, 70))
    wanted = oracle.conv2d(oracle.signs(x), oracle.signs(weight), padding=(1, 1, 1, 1))
    assert np.array_equal(bitinfer.bconv2d(x, weight, padding=1, backend=backend_name), wanted)
    wanted = oracle.dense(oracle.signs(x[0, 0]), oracle.signs(weight[:, 0, 0]))
    y = bitinfer.bdense(x[0, 0], weight[:, 0, 0], backend=backend_name)
    assert np.array_equal(y, wanted)


def test_the_beta_map_scales_each_pixel(rng: np.random.Generator) -> None:
    x, weight = rng.standard_normal((6, 5, 12)), rng.standard_normal((4, 3, 2, 6))
    window = {"stride": (1, 2), "padding": (1, 0, 2, 1), "dilation": (2, 1), "groups": 2}
    alpha = rng.standard_normal(4)
    y = bitinfer.bconv2d(x, weight, alpha=alpha, bias=alpha, beta_map=True, **window)
    dot = oracle.conv2d(oracle.signs(x), oracle.signs(weight), **window)
    beta = oracle.beta_map(x, (3, 2), *window.values())
    np.testing.assert_allclose(y, dot * alpha * np.repeat(beta, 2, -1) + alpha, atol=1e-5)


def test_the_beta_of_a_dense_layer_is_the_mean_magnitude_of_each_sample(
    rng: np.random.Generator,
) -> None:
    x, weight = rng.standard_normal((3, 70)), rng.standard_normal((4, 70))
    y = bitinfer.bdense(x, weight, beta=True, bias=np.ones(4))
    dot = oracle.signs(x) @ oracle.signs(weight).T
    np.testing.assert_allclose(y, dot * np.abs(x).mean(-1, keepdims=True) + 1, rtol=1e-5)


def test_a_batch_gives_what_its_samples_give(rng: np.random.Generator) -> None:
    x, weight = rng.standard_normal((4, 5, 5, 65)), rng.standard_normal((3, 3, 3, 65))
    together = bitinfer.bconv2d(x, weight)
    assert together.shape == (4, 3, 3, 3)
    assert all(
        np.array_equal(bitinfer.bconv2d(a, weight), b) for a, b in zip(x, together, strict=True)
    )
    assert bitinfer.bconv2d(x[:0], weight).shape == (0, 3, 3, 3)
    together = bitinfer.bdense(x[:, 0, 0], weight[:, 0, 0])
    assert together.shape == (4, 3)
    assert np.array_equal(bitinfer.bdense(x[2, 0, 0], weight[:, 0, 0]), together[2])


def test_packed_signs_are_taken_for_x_and_for_the_weight(rng: np.random.Generator) -> None:
    x, weight = rng.standard_normal((4, 5, 5, 70)), rng.standard_normal((3, 3, 3, 70))
    wanted = bitinfer.bconv2d(x, weight, padding=1, pad_value=-1)
    for a in (x, bitinfer.pack(x)):
        for b in (weight, bitinfer.pack(weight)):
            assert np.array_equal(bitinfer.bconv2d(a, b, padding=1, pad_value=-1), wanted)
    packed = bitinfer.bdense(bitinfer.pack(x[0, 0]), bitinfer.pack(weight[:, 0, 0]))
    assert np.array_equal(packed, bitinfer.bdense(x[0, 0], weight[:, 0, 0]))


@pytest.mark.parametrize("dtype", [np.int8, np.int64, np.float16, np.float64, np.uint8, np.bool_])
def test_any_real_type_has_signs(dtype: type, rng: np.random.Generator) -> None:
    x = rng.integers(-1, 2, (4, 4, 9)).astype(dtype)
    weight = rng.integers(-1, 2, (2, 3, 3, 9)).astype(dtype)
    wanted = oracle.conv2d(oracle.signs(x), oracle.signs(weight))
    assert np.array_equal(bitinfer.bconv2d(x, weight), wanted)


def test_numpy_integers_and_lists_describe_a_window() -> None:
    x, weight = np.ones((5, 5, 2)), np.ones((1, 3, 3, 2))
    plain = bitinfer.bconv2d(x, weight, stride=2, padding=(1, 1, 0, 2))
    other = bitinfer.bconv2d(x, weight, stride=np.int64(2), padding=[1, 1, np.uint8(0), 2])
    assert np.array_equal(plain, other)


ONE = np.ones((4, 4, 3))
KERNEL = np.ones((2, 3, 3, 3))


@pytest.mark.parametrize(
    ("x", "weight", "options", "message"),
    [
        (ONE[0], KERNEL, {}, "wanted"),
        (ONE[None, None], KERNEL, {}, "wanted"),
        (ONE, KERNEL[0], {}, "wanted"),
        (ONE, np.ones((2, 3, 3, 4)), {}, "4 channels for 1 groups"),
        (ONE, np.ones((2, 3, 3, 1)), {"groups": 2}, "1 channels for 2 groups"),
        (ONE, np.ones((2, 3, 3, 1)), {"groups": 3}, "3 groups"),
        (ONE, KERNEL, {"groups": 0}, "groups"),
        (ONE, np.ones((2, 5, 1, 3)), {}, "5 pixels"),
        (ONE, KERNEL, {"stride": 0}, "stride"),
        (ONE, KERNEL, {"dilation": 2}, "5 pixels"),
        (ONE, KERNEL, {"padding": -1}, "padding"),
        (ONE, KERNEL, {"pad_value": 2}, "pad_value"),
        (ONE, KERNEL, {"alpha": np.ones(3)}, "alpha"),
        (ONE, KERNEL, {"bias": np.ones((2, 1))}, "bias"),
        (ONE, KERNEL, {"alpha": [1, np.nan]}, "NaN"),
        (ONE * 1j, KERNEL, {}, "complex128, wanted real numbers"),
        (ONE, KERNEL * 1j, {}, "complex128, wanted real numbers"),
        (np.full((4, 4, 3), "a"), KERNEL, {}, "wanted real numbers"),
        (np.ones((4, 4, 0)), np.ones((2, 3, 3, 0)), {}, "wanted"),
        (np.ones((0, 4, 3)), KERNEL, {}, "axis of 0"),
        (ONE, KERNEL[:0], {}, "wanted"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(
    x: np.ndarray, weight: np.ndarray, options: dict[str, object], message: str
) -> None:
    with pytest.raises(ShapeError, match=message):
        bitinfer.bconv2d(x, weight, **options)


@pytest.mark.parametrize(
    ("x", "weight"),
    [
        (np.ones(3), np.ones((2, 4))),
        (np.ones((1, 1, 3)), np.ones((2, 3))),
        (np.ones(3), np.ones(3)),
        (np.ones(3) * 1j, np.ones((2, 3))),
        (np.ones(0), np.ones((2, 0))),
    ],
)
def test_vectors_that_do_not_fit_are_refused(x: np.ndarray, weight: np.ndarray) -> None:
    with pytest.raises(ShapeError, match="wanted"):
        bitinfer.bdense(x, weight)


def test_an_unknown_backend_is_refused() -> None:
    with pytest.raises(BackendError, match="unknown backend"):
        bitinfer.bdense(np.ones(3), np.ones((2, 3)), backend="gpu")


def test_numbers_too_small_for_float32_keep_their_sign() -> None:
    x = np.array([-1e-60, 1e-60, -0.0, -1e300, 1e300])
    signs = [bitinfer.bdense(number, np.ones((1, 1)))[0] for number in x[:, None]]
    assert signs == [-1, 1, 1, -1, 1]

"""XNOR-Net's weights and their gradient, against the definitions written out in NumPy."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from bitinfer.train import xnor  # noqa: E402 - torch decides whether there is anything to import

SHAPES = [(50, 20, 5, 5), (500, 800), (3, 2, 1, 1), (4, 7)]


def real_weight(shape: tuple[int, ...], *, scale: float = 1.0, seed: int = 0) -> np.ndarray:
    return (np.random.default_rng(seed).standard_normal(shape) * scale).astype(np.float32)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("scale", [0.1, 1.5], ids=["inside", "clamped"])
def test_binarisation_is_centre_clamp_and_mean_of_magnitudes(
    shape: tuple[int, ...], scale: float
) -> None:
    weight = real_weight(shape, scale=scale)
    signs, alpha = xnor.binarise(torch.from_numpy(weight))

    wide = weight.astype(np.float64)
    wide = np.clip(wide - wide.mean(axis=1, keepdims=True), -1, 1)
    np.testing.assert_array_equal(signs.numpy(), np.where(wide < 0, -1, 1))
    magnitudes = np.abs(wide).reshape(len(wide), -1).mean(axis=1)
    np.testing.assert_allclose(alpha.numpy(), magnitudes, rtol=1e-5)


def test_single_input_channel_centres_to_zero_and_becomes_plus_one() -> None:
    signs, alpha = xnor.binarise(torch.from_numpy(real_weight((3, 1, 2, 2))))
    assert signs.unique().tolist() == [1]
    assert alpha.tolist() == [0, 0, 0]


@pytest.mark.parametrize("shape", [(4, 16), (3, 5, 2, 3)], ids=str)
@pytest.mark.parametrize("kind", ["full", "diagonal"])
def test_gradient_of_scaled_signs_is_the_formula(shape: tuple[int, ...], kind: str) -> None:
    weight = real_weight(shape, scale=0.7, seed=1).astype(np.float64)
    g = real_weight(shape, seed=2).astype(np.float64)
    real = torch.from_numpy(weight).requires_grad_()
    signs, alpha = xnor.scaled_signs(real, gradient=kind)
    assert signs.unique().tolist() == [-1, 1]
    (signs * alpha.reshape(-1, *[1] * (len(shape) - 1))).backward(torch.from_numpy(g))

    rows, slopes = weight.reshape(len(weight), -1), g.reshape(len(weight), -1)
    n = rows.shape[1]
    wanted = np.empty_like(rows)
    for w, d, out in zip(rows, slopes, wanted, strict=True):
        s, size = np.where(w < 0, -1, 1), np.abs(w).mean()
        for i in range(n):
            through_sign = size * d[i] * (abs(w[i]) <= 1)
            terms = range(n) if kind == "full" else [i]
            out[i] = through_sign + sum(d[j] * s[i] * s[j] / n for j in terms)
    assert real.grad is not None
    np.testing.assert_allclose(real.grad.numpy().reshape(wanted.shape), wanted, rtol=1e-12)


def test_both_gradients_belong_to_the_same_forward_pass() -> None:
    weight = torch.from_numpy(real_weight((6, 3, 3, 3)))
    full, diagonal = (xnor.binarise(weight, gradient=kind) for kind in ("full", "diagonal"))
    assert torch.equal(full.signs, diagonal.signs)
    assert torch.equal(full.alpha, diagonal.alpha)


def test_steps_of_binop_in_their_order_are_binarise() -> None:
    weights = [torch.from_numpy(real_weight(shape)) for shape in SHAPES]
    wanted = [xnor.binarise(weight) for weight in weights]
    xnor.mean_centre(weights)
    xnor.clamp(weights)
    saved = xnor.save(weights)
    xnor.binarise_in_place(weights)
    for weight, (signs, alpha) in zip(weights, wanted, strict=True):
        assert torch.equal(weight, signs * alpha.reshape(-1, *[1] * (weight.dim() - 1)))
    xnor.restore(weights, saved)
    for weight, shape in zip(weights, SHAPES, strict=True):
        assert torch.equal(weight, xnor.centre_and_clamp(torch.from_numpy(real_weight(shape))))
        assert not torch.equal(weight, torch.from_numpy(real_weight(shape)))


@pytest.mark.parametrize("shape", [(5, 8), (4, 6, 3, 2)], ids=str)
def test_gradient_update_is_that_of_util_py(shape: tuple[int, ...]) -> None:
    """Written out as there: m = alpha where -1 <= w <= 1, times the gradient; plus the sum."""
    weight = real_weight(shape, scale=0.8, seed=3).astype(np.float64)
    g = real_weight(shape, seed=4).astype(np.float64)
    parameter = torch.from_numpy(weight.copy()).requires_grad_()
    parameter.grad = torch.from_numpy(g.copy())
    xnor.update_gradients([parameter])

    axes = tuple(range(1, len(shape)))
    n = weight[0].size
    m = np.abs(weight).sum(axis=axes, keepdims=True) / n * np.ones_like(weight)
    m[weight < -1] = 0
    m[weight > 1] = 0
    m_add = (np.sign(weight) * g).sum(axis=axes, keepdims=True) / n * np.sign(weight)
    wanted = (m * g + m_add) * (1 - 1 / shape[1]) * n
    np.testing.assert_allclose(parameter.grad.numpy(), wanted, rtol=1e-12)


def test_gradient_update_without_a_gradient_is_refused() -> None:
    with pytest.raises(ValueError, match=r"backward\(\) comes before"):
        xnor.update_gradients([torch.zeros(2, 2, requires_grad=True)])

"""The binary layers of training, against SEMANTICS' definition written out in NumPy."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from bitinfer.train import xnor  # noqa: E402 - torch decides whether there is anything to import

SHAPES = [(50, 20, 5, 5), (500, 800), (3, 2, 1, 1), (4, 7)]


def real_weight(shape: tuple[int, ...], *, scale: float = 1.0, seed: int = 0) -> np.ndarray:
    return (np.random.default_rng(seed).standard_normal(shape) * scale).astype(np.float32)


def test_sign_of_zero_and_of_negative_zero_is_plus_one() -> None:
    x = torch.tensor([-2.0, -1e-30, -0.0, 0.0, 1e-30, 3.0])
    assert xnor.sign(x).tolist() == [-1, -1, 1, 1, 1, 1]


def test_gradient_of_sign_passes_between_minus_one_and_one() -> None:
    x = torch.tensor([-1.5, -1.0, -0.5, 0.0, 0.5, 1.0, 1.5], requires_grad=True)
    xnor.sign(x).backward(torch.arange(1.0, 8.0))
    assert x.grad is not None
    assert x.grad.tolist() == [0, 2, 3, 4, 5, 6, 0]


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


def test_weight_gradient_is_the_formula_of_the_paper() -> None:
    # Rows that are centred already, so that centring passes only its own projection.
    weight = torch.from_numpy(real_weight((4, 16), scale=0.3, seed=1))
    real = xnor.centre_and_clamp(weight).requires_grad_()
    g = torch.from_numpy(real_weight((4, 16), seed=2))
    signs, alpha = xnor.binarise(real)
    (signs * alpha[:, None]).backward(g)

    w, s, n = real.detach(), signs.detach(), 16
    through_sign = alpha.detach()[:, None] * g * (w.abs() <= 1)
    through_alpha = s / n * (g * s).sum(dim=1, keepdim=True)
    wanted = through_sign + through_alpha
    wanted = wanted - wanted.mean(dim=1, keepdim=True)
    assert real.grad is not None
    torch.testing.assert_close(real.grad, wanted)


@pytest.mark.parametrize("bias", [True, False])
def test_convolution_is_scaled_integer_plus_bias(bias: bool) -> None:
    torch.manual_seed(0)
    layer = xnor.BinaryConv2d(20, 6, 5, bias=bias)
    x = torch.randn(2, 20, 9, 8)
    signs, alpha = xnor.binarise(layer.weight)
    exact = torch.nn.functional.conv2d(xnor.sign(x).double(), signs.double())
    wanted = exact.float() * alpha[:, None, None]
    if layer.bias is not None:
        wanted = wanted + layer.bias[:, None, None]
    # Equal, not close: the sum over +-1 is an integer before anything is rounded.
    assert torch.equal(layer(x), wanted)


@pytest.mark.parametrize("bias", [True, False])
def test_dense_layer_is_scaled_integer_plus_bias(bias: bool) -> None:
    torch.manual_seed(0)
    layer = xnor.BinaryLinear(800, 7, bias=bias)
    x = torch.randn(3, 800)
    signs, alpha = xnor.binarise(layer.weight)
    wanted = (xnor.sign(x).double() @ signs.double().T).float() * alpha
    if layer.bias is not None:
        wanted = wanted + layer.bias
    assert torch.equal(layer(x), wanted)


def test_every_parameter_of_a_binary_layer_gets_a_gradient() -> None:
    torch.manual_seed(0)
    layer = xnor.BinaryConv2d(3, 4, 3)
    x = torch.randn(2, 3, 6, 6, requires_grad=True)
    layer(x).square().sum().backward()
    for gradient in (x.grad, layer.weight.grad, layer.bias.grad):
        assert gradient is not None
        assert gradient.abs().sum() > 0


def test_projection_keeps_what_the_layer_computes_and_bounds_the_weights() -> None:
    torch.manual_seed(0)
    network = torch.nn.Sequential(torch.nn.Linear(30, 30), xnor.BinaryLinear(30, 5))
    with torch.no_grad():
        network[1].weight.mul_(8)
    float_weight = network[0].weight.clone()
    signs = xnor.binarise(network[1].weight).signs
    xnor.project_weights(network)
    assert torch.equal(network[0].weight, float_weight)
    assert network[1].weight.abs().max() <= 1
    again = xnor.binarise(network[1].weight).signs
    # Centring again moves what was clamped; only weights next to zero may change their sign.
    assert (again == signs).float().mean() > 0.9

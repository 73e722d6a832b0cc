"""Binary layers of training against their definition: exact sums, and gradients by differences."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402 - torch decides whether there is anything to import

from bitinfer.train import layers, signs, xnor  # noqa: E402
from bitinfer.train.bitres import Block  # noqa: E402
from bitinfer.train.gradients import gradient_errors, layer_errors  # noqa: E402
from bitinfer.train.shift_based import ShiftAdaMax, ShiftBatchNorm2d, nearest_power  # noqa: E402

MODES = ("xnor", "bwn", "binaryconnect", "bnn")
F = nn.functional


@pytest.fixture(autouse=True)
def seeded():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("bias", [True, False])
def test_convolution_is_what_its_mode_says(mode: str, bias: bool) -> None:
    layer = layers.BinaryConv2d(20, 6, 5, bias=bias, padding=2, stride=2, mode=mode)
    x = torch.randn(2, 20, 9, 8)
    real = layer.weight.detach().double()
    if mode in ("xnor", "bwn"):
        real = (real - real.mean(dim=1, keepdim=True)).clamp(-1, 1)
    w = torch.where(real < 0, -1.0, 1.0).double()
    has_signs = mode in ("xnor", "bnn")
    a = torch.where(x < 0, -1.0, 1.0) if has_signs else x
    # Zeros around, not signs: borders contribute nothing.
    wanted = F.conv2d(a.double(), w, padding=2, stride=2).float()
    if mode in ("xnor", "bwn"):
        wanted = wanted * xnor.binarise(layer.weight).alpha[:, None, None]
    if bias:
        wanted = wanted + layer.bias[:, None, None]
    if has_signs:
        # Equal, not close: the sum over +-1 is an integer before anything is rounded.
        assert torch.equal(layer(x), wanted)
    else:
        torch.testing.assert_close(layer(x), wanted)


def test_sums_in_bfloat16_are_rounded_while_training_alone() -> None:
    exact = layers.BinaryConv2d(301, 4, 3, bias=False, mode="bnn")
    rounded = layers.BinaryConv2d(301, 4, 3, bias=False, mode="bnn", bfloat16=True)
    rounded.load_state_dict(exact.state_dict())
    x = torch.randn(2, 301, 6, 5)  # odd sums, which bfloat16 has up to 256
    x[0] = exact.weight[0, :, :1, :1]
    wanted = exact(x)
    got = rounded(x)
    assert got.dtype == torch.float32
    assert wanted.abs().max() > 256
    assert not torch.equal(got, wanted)
    torch.testing.assert_close(got, wanted, rtol=2**-8, atol=0)
    got.sum().backward()
    assert rounded.weight.grad.abs().sum() > 0
    assert torch.equal(rounded.eval()(x), wanted)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("bias", [True, False])
def test_dense_layer_is_what_its_mode_says(mode: str, bias: bool) -> None:
    layer = layers.BinaryLinear(800, 7, bias=bias, mode=mode)
    x = torch.randn(3, 800)
    w, alpha = layer.binary_weight()
    has_signs = mode in ("xnor", "bnn")
    a = torch.where(x < 0, -1.0, 1.0) if has_signs else x
    wanted = (a.double() @ w.double().T).float() * alpha
    assert (alpha == 1).all() == (mode in ("binaryconnect", "bnn"))
    if bias:
        wanted = wanted + layer.bias
    if has_signs:
        assert torch.equal(layer(x), wanted)
    else:
        torch.testing.assert_close(layer(x), wanted)


def test_beta_map_is_the_mean_magnitude_of_each_window() -> None:
    layer = layers.BinaryConv2d(4, 6, 3, padding=1, groups=2, beta=True, bias=False)
    x = torch.randn(1, 4, 5, 6)
    plain = layers.BinaryConv2d(4, 6, 3, padding=1, groups=2, bias=False)
    plain.load_state_dict(layer.state_dict())
    found = (layer(x) / plain(x)).detach().numpy()[0]
    sums = plain(x).detach().numpy()[0]
    padded = np.pad(np.abs(x.numpy()[0]), ((0, 0), (1, 1), (1, 1)))
    for o in range(6):
        group = padded[2 * (o // 3) : 2 * (o // 3) + 2]
        for i in range(5):
            for j in range(6):
                if sums[o, i, j] != 0:
                    wanted = group[:, i : i + 3, j : j + 3].sum() / 18
                    assert found[o, i, j] == pytest.approx(wanted, rel=1e-5)


def test_stochastic_weights_are_drawn_while_training_and_signs_afterwards() -> None:
    layer = layers.BinaryLinear(1, 40_000, bias=False, mode="binaryconnect", stochastic=True)
    with torch.no_grad():
        layer.weight.fill_(0.5)
    drawn = layer.binary_weight().signs
    assert drawn.unique().tolist() == [-1, 1]
    # +1 with the probability 0.75: four deviations of the mean of so many draws.
    assert float((drawn == 1).float().mean()) == pytest.approx(0.75, abs=4 * 0.433 / 200)
    layer.eval()
    assert layer.binary_weight().signs.unique().tolist() == [1]


def test_stochastic_weights_beyond_one_are_certain_and_gradients_stop_there() -> None:
    layer = layers.BinaryLinear(3, 1, bias=False, mode="binaryconnect", stochastic=True)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[-1.5, 0.2, 1.5]]))
    for _ in range(20):
        signs_drawn = layer.binary_weight().signs
        assert (signs_drawn[0, 0], signs_drawn[0, 2]) == (-1, 1)
    layer(torch.ones(1, 3)).sum().backward()
    assert layer.weight.grad is not None
    assert layer.weight.grad.tolist() == [[0, 1, 0]]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mode": "bnn", "beta": True}, "the beta map is xnor's, not that of bnn"),
        ({"mode": "xnor", "stochastic": True}, "stochastic weights are binaryconnect's"),
    ],
)
def test_options_of_another_mode_are_refused(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        layers.BinaryConv2d(3, 4, 3, **options)


@pytest.mark.parametrize("mode", MODES)
def test_constraint_bounds_the_weights_and_keeps_most_signs(mode: str) -> None:
    network = nn.Sequential(nn.Linear(30, 30), layers.BinaryLinear(30, 5, mode=mode))
    with torch.no_grad():
        network[1].weight.mul_(8)
    float_weight = network[0].weight.clone()
    before = network[1].binary_weight().signs
    layers.constrain(network)
    assert torch.equal(network[0].weight, float_weight)
    assert network[1].weight.abs().max() <= 1
    # Centring again moves what was clamped; only weights next to zero may change their sign.
    assert (network[1].binary_weight().signs == before).float().mean() > 0.9


# --- Gradients: everything against finite differences in float64 ---------------------------------

LAYERS = {
    **{f"conv {m}": lambda m=m: layers.BinaryConv2d(3, 4, 3, padding=1, mode=m) for m in MODES},
    **{f"dense {m}": lambda m=m: layers.BinaryLinear(7, 4, mode=m) for m in MODES},
    "conv strided": lambda: layers.BinaryConv2d(4, 4, 3, stride=2, groups=2),
    "conv polynomial": lambda: layers.BinaryConv2d(3, 4, 3, sign=signs.polynomial_sign),
    "conv swish": lambda: layers.BinaryConv2d(3, 4, 3, sign=signs.swish_sign),
    "conv with beta": lambda: layers.BinaryConv2d(3, 4, 3, beta=True),
    "RSign": lambda: layers.RSign(3),
    "RPReLU": lambda: layers.RPReLU(3),
    "XNOR block": lambda: layers.XnorBlock(3, 4, 3, epsilon=1e-4),
    "bitres block": lambda: Block(3, 3).eval(),
    "bitres block that halves": lambda: Block(3, 6).eval(),
}


@pytest.mark.parametrize("name", LAYERS)
def test_gradients_are_those_of_the_stated_surrogates(name: str) -> None:
    layer = LAYERS[name]()
    with torch.no_grad():
        for parameter in layer.parameters():
            # So that no vector is all zeros or ones, and some weights lie beyond 1.
            parameter.add_(0.4 * torch.randn_like(parameter))
    x = torch.randn(input_shape(name))
    errors = layer_errors(layer, x)
    assert set(errors) == {"input", *dict(layer.named_parameters())}
    assert max(errors.values()) < 1e-6, errors


def input_shape(name: str) -> tuple[int, ...]:
    if name.startswith("dense"):
        return (2, 7)
    return (2, 4 if name == "conv strided" else 3, 4, 6)


def test_diagonal_gradient_is_not_the_derivative() -> None:
    errors = layer_errors(layers.BinaryLinear(7, 4, gradient="diagonal"), torch.randn(2, 7))
    assert errors["weight"] > 0.01
    assert errors["input"] < 1e-6


def test_checker_finds_a_wrong_gradient_and_refuses_float32() -> None:
    class Wrong(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(x)
            return x**3

        @staticmethod
        def backward(ctx, g):
            return g * 3.001 * ctx.saved_tensors[0] ** 2

    x = torch.randn(5, dtype=torch.float64, requires_grad=True)
    assert gradient_errors(lambda: (x**3).sum(), {"x": x})["x"] < 1e-8
    assert gradient_errors(lambda: Wrong.apply(x).sum(), {"x": x})["x"] > 1e-4
    with pytest.raises(ValueError, match=r"x is torch\.float32; wanted float64"):
        gradient_errors(lambda: x.sum(), {"x": x.detach().float().requires_grad_()})
    y = torch.ones(1, dtype=torch.float64, requires_grad=True)
    with pytest.raises(ValueError, match="y has no part"):
        gradient_errors(lambda: x.sum(), {"y": y})


# --- Shift-based BatchNorm and AdaMax ------------------------------------------------------------


def test_nearest_power_of_two() -> None:
    x = torch.tensor([0.0, 1.0, -3.0, 0.7, -0.7, 100.0, 2.0**-20 * 1.2])
    assert nearest_power(x).tolist() == [0, 1, -4, 0.5, -0.5, 128, 2.0**-20]


def test_shift_based_norm_is_its_formula() -> None:
    norm = ShiftBatchNorm2d(3)
    with torch.no_grad():
        norm.weight.copy_(torch.tensor([0.9, -3.0, 1.5]))
        norm.bias.copy_(torch.tensor([0.1, 0.2, 0.3]))
    x = torch.randn(4, 3, 5, 5) * torch.tensor([1.0, 7.0, 0.1])[:, None, None] + 2

    def power(v: np.ndarray) -> np.ndarray:
        return np.sign(v) * 2.0 ** np.round(np.log2(np.abs(v)))

    wide = x.double().numpy()
    centred = wide - wide.mean(axis=(0, 2, 3), keepdims=True)
    variance = (centred * power(centred)).mean(axis=(0, 2, 3))
    scale = power(1 / np.sqrt(variance + 1e-5)) * power(norm.weight.detach().numpy())
    wanted = centred * scale[:, None, None] + norm.bias.detach().numpy()[:, None, None]
    np.testing.assert_allclose(norm(x).detach().numpy(), wanted, rtol=2e-4, atol=1e-4)
    np.testing.assert_allclose(norm.running_var.numpy(), 0.9 + 0.1 * variance, rtol=1e-4)


def test_shift_based_norm_uses_its_averages_in_evaluation() -> None:
    norm = ShiftBatchNorm2d(2, momentum=1.0)
    x = torch.randn(8, 2, 4, 4) * 3 + 1
    trained = norm(x)
    torch.testing.assert_close(norm.eval()(x), trained)


def test_shift_based_adamax_is_its_formula() -> None:
    weight = torch.tensor([1.0, -2.0, 0.5], requires_grad=True)
    optimiser = ShiftAdaMax([weight])
    w, m, v = weight.detach().double().numpy().copy(), np.zeros(3), np.zeros(3)
    rng = np.random.default_rng(0)
    for t in range(1, 6):
        g = rng.standard_normal(3).astype(np.float32)
        g[2] = 0
        weight.grad = torch.from_numpy(g)
        optimiser.step()
        m = (1 - 2**-3) * m + 2**-3 * g
        v = np.maximum((1 - 2**-10) * v, np.abs(g))
        size = 2.0 ** np.round(np.log2(2**-10 / (1 - (1 - 2**-3) ** t)))
        w[:2] -= size * m[:2] * 2.0 ** np.round(np.log2(1 / v[:2]))
        np.testing.assert_allclose(weight.detach().numpy(), w, rtol=1e-6)


def test_shift_based_adamax_minimises() -> None:
    weight = torch.tensor([0.3, -0.2], requires_grad=True)
    optimiser = ShiftAdaMax([weight], lr=2**-6)
    for _ in range(200):
        optimiser.zero_grad()
        (weight**2).sum().backward()
        optimiser.step()
    assert weight.abs().max() < 0.02

"""Signs of training: their values, their surrogates, and replaying a function around a point."""

from __future__ import annotations

import math

import pytest

torch = pytest.importorskip("torch")

from bitinfer.train import signs  # noqa: E402 - torch decides whether there is anything to import

ALL = [signs.sign, signs.polynomial_sign, signs.swish_sign]


def gradient_at(function, *points: float) -> list[float]:
    x = torch.tensor(points, dtype=torch.float64, requires_grad=True)
    function(x).sum().backward()
    assert x.grad is not None
    return x.grad.tolist()


@pytest.mark.parametrize("function", ALL)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_sign_of_zero_and_of_negative_zero_is_plus_one(function, dtype) -> None:
    x = torch.tensor([-2.0, -1e-30, -0.0, 0.0, 1e-30, 3.0], dtype=dtype)
    assert function(x).dtype == dtype
    assert function(x).tolist() == [-1, -1, 1, 1, 1, 1]


def test_straight_through_passes_between_minus_one_and_one() -> None:
    found = gradient_at(signs.sign, -1.5, -1.0, -0.5, 0.0, 0.5, 1.0, 1.5)
    assert found == [0, 1, 1, 1, 1, 1, 0]


def test_polynomial_falls_from_two_to_nothing() -> None:
    found = gradient_at(signs.polynomial_sign, -2.0, -1.0, -0.75, 0.0, 0.25, 1.0, 1.5)
    assert found == [0, 0, 0.5, 2, 1.5, 0, 0]


def test_swish_is_the_papers_derivative_written_out() -> None:
    for x in (-30.0, -0.7, -0.1, 0.0, 0.3, 0.6, 1000.0):
        z = 5 * x
        wanted = 5 * (2 - z * math.tanh(z / 2)) / (1 + math.cosh(z)) if abs(z) < 700 else 0.0
        assert gradient_at(signs.swish_sign, x)[0] == pytest.approx(wanted, rel=1e-12, abs=1e-30)


def test_swish_overflows_nowhere_in_float32() -> None:
    x = torch.tensor([-1e30, -1e3, 1e3, 1e30], requires_grad=True)
    signs.swish_sign(x).sum().backward()
    assert x.grad is not None
    assert x.grad.abs().max() < 1e-30


@pytest.mark.parametrize("function", ALL)
def test_surrogate_has_the_stated_derivative(function) -> None:
    """By finite differences of the surrogate, away from the kinks at -1, 0 and 1."""
    points = torch.tensor([-2.1, -0.93, -0.4, -0.02, 0.03, 0.55, 0.99, 1.7], dtype=torch.float64)
    with signs.surrogates() as tape:
        function(points)
    values = []
    for offset in (1e-6, -1e-6):
        with signs.surrogates(tape):
            values.append(function(points + offset))
    wanted = (values[0] - values[1]) / 2e-6
    found = torch.tensor(gradient_at(function, *points.tolist()), dtype=torch.float64)
    torch.testing.assert_close(found, wanted, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("function", ALL)
def test_replayed_sign_is_the_sign_at_the_point_and_moves_around_it(function) -> None:
    x = torch.tensor([-0.3, 0.2])
    with signs.surrogates() as tape:
        function(x)
    with signs.surrogates(tape):
        assert torch.equal(function(x), torch.tensor([-1.0, 1.0]))
    with signs.surrogates(tape):
        assert (function(x + 0.01) > torch.tensor([-1.0, 1.0])).all()
    assert torch.equal(function(x), torch.tensor([-1.0, 1.0]))

"""Back-propagation written out in NumPy, against finite differences and against PyTorch."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from bitinfer.train import by_hand
from bitinfer.train.by_hand import ACTIVATIONS, LOSSES, OPTIMISERS, Network, Settings, fit

X = np.random.default_rng(0).standard_normal((9, 5))
LABELS = np.random.default_rng(1).integers(0, 3, 9)


@pytest.mark.parametrize("activation", [a for a in ACTIVATIONS if a != "sign"])
@pytest.mark.parametrize("loss", LOSSES)
def test_gradients_are_finite_differences(activation: str, loss: str) -> None:
    network = Network((5, 4, 6, 3), activation=activation)
    for bias in network.biases:
        bias += 0.1
    _, found = network.gradients(X, LABELS, loss)
    for parameter, gradient in zip(network.parameters, found, strict=True):
        assert gradient.shape == parameter.shape
        for index in np.ndindex(parameter.shape):
            values = []
            before = parameter[index]
            for step in (1e-6, -1e-6):
                parameter[index] = before + step
                values.append(network.gradients(X, LABELS, loss)[0])
            parameter[index] = before
            wanted = (values[0] - values[1]) / 2e-6
            assert gradient[index] == pytest.approx(wanted, rel=1e-5, abs=1e-8)


def test_binary_twin_is_what_pytorch_makes_of_the_same_weights() -> None:
    torch = pytest.importorskip("torch")
    from bitinfer.train.signs import sign
    from bitinfer.train.xnor import scaled_signs

    network = Network((5, 8, 8, 3), binary=True)
    network.weights[1][0, 0] = 1.7  # beyond 1: nothing passes the sign
    real = [torch.from_numpy(w.T.copy()).requires_grad_() for w in network.weights]
    x = torch.from_numpy(X)
    for number, weight in enumerate(real):
        if number:
            signs, alpha = scaled_signs(weight)
            x = sign(x) @ signs.T * alpha
        else:
            x = x @ weight.T
    loss = torch.nn.functional.cross_entropy(x, torch.from_numpy(LABELS))
    loss.backward()
    value, found = network.gradients(X, LABELS, "cross-entropy")
    assert value == pytest.approx(loss.item(), rel=1e-12)
    for weight, gradient in zip(real, found, strict=False):
        np.testing.assert_allclose(gradient, weight.grad.numpy().T, rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize("name", OPTIMISERS)
def test_optimisers_are_those_of_pytorch(name: str) -> None:
    torch = pytest.importorskip("torch")
    make = {
        "sgd": lambda p: torch.optim.SGD(p, 0.1),
        "momentum": lambda p: torch.optim.SGD(p, 0.1, momentum=0.9),
        "adagrad": lambda p: torch.optim.Adagrad(p, 0.1, eps=1e-8),
        "rmsprop": lambda p: torch.optim.RMSprop(p, 0.1, eps=1e-8),
        "adam": lambda p: torch.optim.Adam(p, 0.1),
    }[name]
    ours = [np.array([1.0, -2.0, 3.0])]
    theirs = torch.tensor([1.0, -2.0, 3.0], dtype=torch.float64, requires_grad=True)
    update = by_hand._Optimiser(ours, Settings(optimiser=name, rate=0.1))
    optimiser = make([theirs])
    rng = np.random.default_rng(0)
    for _ in range(5):
        g = rng.standard_normal(3)
        update([g.copy()])
        theirs.grad = torch.from_numpy(g)
        optimiser.step()
        np.testing.assert_allclose(ours[0], theirs.detach().numpy(), rtol=1e-9)


def test_penalty_and_its_gradient() -> None:
    weights = [np.array([[1.0, -2.0]]), np.array([[3.0]])]
    value, gradients = by_hand.penalty(weights, 0.1, 0.5)
    assert value == pytest.approx(0.1 * 6 + 0.25 * 14)
    np.testing.assert_allclose(gradients[0], [[0.6, -1.1]])
    np.testing.assert_allclose(gradients[1], [[1.6]])


def test_penalty_makes_weights_smaller() -> None:
    sizes = []
    for l2 in (0.0, 0.1):
        network = Network((5, 8, 3))
        fit(network, X, LABELS, Settings(epochs=100, l2=l2, rate=0.01))
        sizes.append(sum(np.square(w).sum() for w in network.weights))
    assert sizes[1] < 0.5 * sizes[0]


def test_training_follows_its_seed_and_lowers_the_loss() -> None:
    def train(seed: int) -> tuple[list[float], np.ndarray]:
        network = Network((5, 8, 3), seed=seed)
        losses = fit(network, X, LABELS, dataclasses.replace(Settings(epochs=50), seed=seed))
        return losses, network.weights[0]

    (a, first), (b, again), (_, other) = train(1), train(1), train(2)
    assert a == b
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
    assert a[-1] < a[0]

"""Networks of dense layers in NumPy, back-propagation written out: no autograd, nothing hidden.

A layer is ``y = f(x W + b)``.  Its binary twin has signs in place of f, with the straight-through
gradient, and in every layer but the first ``alpha sign(W)`` in place of W, with XNOR-Net's full
gradient (docs/training-gradients.md).  Rows are samples throughout.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.floating[Any]]
Loss = Literal["cross-entropy", "squared-error"]

LEAK = 0.01
ACTIVATIONS = ("sigmoid", "tanh", "relu", "leaky-relu", "elu", "maxout", "sign")
LOSSES = ("cross-entropy", "squared-error")
OPTIMISERS = ("sgd", "momentum", "adagrad", "rmsprop", "adam")


def activate(name: str, x: Array) -> Array:
    """Return f(x); x (n, c), for maxout (n, 2 c) of which the larger of c pairs is taken."""
    if name == "sigmoid":
        return 0.5 * (1 + np.tanh(0.5 * x))
    if name == "tanh":
        return np.tanh(x)
    if name == "relu":
        return np.maximum(x, 0)
    if name == "leaky-relu":
        return np.where(x < 0, LEAK * x, x)
    if name == "elu":
        return np.where(x < 0, np.expm1(np.minimum(x, 0)), x)
    if name == "maxout":
        return np.maximum(x[:, 0::2], x[:, 1::2])
    assert name == "sign", name
    return np.where(x < 0, -1, 1).astype(x.dtype)


def activation_gradient(name: str, x: Array, y: Array, g: Array) -> Array:
    """Return the gradient at x of f, whose value was y, from the gradient g at y."""
    if name == "sigmoid":
        return g * y * (1 - y)
    if name == "tanh":
        return g * (1 - y * y)
    if name == "relu":
        return g * (x > 0)
    if name == "leaky-relu":
        return np.where(x < 0, LEAK * g, g)
    if name == "elu":
        return np.where(x < 0, g * (y + 1), g)
    if name == "maxout":
        result = np.zeros_like(x)
        first = x[:, 0::2] >= x[:, 1::2]
        result[:, 0::2] = g * first
        result[:, 1::2] = g * ~first
        return result
    assert name == "sign", name
    return g * (np.abs(x) <= 1)


def loss_and_gradient(
    kind: Loss, scores: Array, labels: NDArray[np.integer[Any]]
) -> tuple[float, Array]:
    """Return the mean loss of scores (n, classes) and its gradient at them, (n, classes).

    Cross-entropy of the softmax, or half the squared distance from the one-hot vector.
    """
    rows = np.arange(len(scores))
    if kind == "squared-error":
        gradient = scores.copy()
        gradient[rows, labels] -= 1
        return float(0.5 * np.square(gradient).sum() / len(scores)), gradient / len(scores)
    shifted = scores - scores.max(axis=1, keepdims=True)
    share = np.exp(shifted)
    total = share.sum(axis=1, keepdims=True)
    loss = float((np.log(total[:, 0]) - shifted[rows, labels]).mean())
    share /= total
    share[rows, labels] -= 1
    return loss, share / len(scores)


class Network:
    """Dense layers of the given widths, the last without activation.

    Attributes:
        weights: (in, out) of each layer, for maxout (in, 2 out) but in the last.
        biases: (out,) of each.
        binary: signs as activations, and binary weights in all layers but the first.
    """

    def __init__(
        self,
        widths: tuple[int, ...],
        *,
        activation: str = "relu",
        binary: bool = False,
        seed: int = 0,
        dtype: Any = np.float64,
    ) -> None:
        self.activation = "sign" if binary else activation
        self.binary = binary
        rng = np.random.default_rng(seed)
        self.weights: list[Array] = []
        self.biases: list[Array] = []
        for number, (inputs, outputs) in enumerate(itertools.pairwise(widths)):
            if self.activation == "maxout" and number < len(widths) - 2:
                outputs *= 2
            # He et al. 2015: keeps the variance behind a ReLU.
            scale = np.sqrt(2 / inputs)
            self.weights.append((rng.standard_normal((inputs, outputs)) * scale).astype(dtype))
            self.biases.append(np.zeros(outputs, dtype))

    @property
    def parameters(self) -> list[Array]:
        """Weights and biases, changed in place by an optimiser."""
        return [*self.weights, *self.biases]

    def scores(self, x: Array) -> Array:
        """Return (n, classes) of x (n, inputs)."""
        return self._forward(x)[-1][1]

    def gradients(
        self, x: Array, labels: NDArray[np.integer[Any]], loss: Loss
    ) -> tuple[float, list[Array]]:
        """Return the mean loss and its gradient at every one of ``parameters``."""
        steps = self._forward(x)
        value, g = loss_and_gradient(loss, steps[-1][1], labels)
        weights: list[Array] = []
        biases: list[Array] = []
        for number in reversed(range(len(self.weights))):
            before, after = steps[number]
            if number < len(self.weights) - 1:
                g = activation_gradient(self.activation, before, after, g)
            inputs = x if number == 0 else steps[number - 1][1]
            weights.insert(0, self._weight_gradient(number, inputs.T @ g))
            biases.insert(0, g.sum(axis=0))
            if number:
                signs, alpha = self._weight(number)
                g = g * alpha @ signs.T
        return value, [*weights, *biases]

    def _forward(self, x: Array) -> list[tuple[Array, Array]]:
        """Return, of every layer, what comes before its activation and behind it."""
        steps: list[tuple[Array, Array]] = []
        for number, bias in enumerate(self.biases):
            signs, alpha = self._weight(number)
            # Scaled behind the sum: of signs it is a whole number, whose 0 is not rounded.
            before = x @ signs * alpha + bias
            is_last = number == len(self.biases) - 1
            x = before if is_last else activate(self.activation, before)
            steps.append((before, x))
        return steps

    def _weight(self, number: int) -> tuple[Array, Array | float]:
        """Return what the layer multiplies with: signs and alpha, or the weight itself and 1."""
        weight = self.weights[number]
        if not (self.binary and number):
            return weight, 1.0
        return np.where(weight < 0, -1, 1).astype(weight.dtype), np.abs(weight).mean(axis=0)

    def _weight_gradient(self, number: int, g: Array) -> Array:
        """Return the gradient at the real weight from that at the weight that was multiplied."""
        weight = self.weights[number]
        if not (self.binary and number):
            return g
        signs = np.where(weight < 0, -1, 1).astype(weight.dtype)
        through_sign = np.abs(weight).mean(axis=0) * g * (np.abs(weight) <= 1)
        return through_sign + signs * (g * signs).mean(axis=0)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    """How a network is trained; ``l1`` and ``l2`` weigh the penalties on weights, not on biases."""

    loss: Loss = "cross-entropy"
    optimiser: str = "adam"
    rate: float = 1e-3
    epochs: int = 10
    batch_size: int = 128
    l1: float = 0.0
    l2: float = 0.0
    seed: int = 0


def penalty(weights: list[Array], l1: float, l2: float) -> tuple[float, list[Array]]:
    """Return ``l1 sum abs(w) + l2 / 2 sum w**2`` and its gradient at every weight."""
    value = sum(l1 * float(np.abs(w).sum()) + 0.5 * l2 * float(np.square(w).sum()) for w in weights)
    return value, [l1 * np.sign(w) + l2 * w for w in weights]


def fit(
    network: Network,
    x: NDArray[Any],
    labels: NDArray[np.integer[Any]],
    settings: Settings,
    *,
    prepare: Callable[[NDArray[Any]], Array] = lambda x: x,
) -> list[float]:
    """Train ``network`` in place and return the mean loss of every epoch, penalties included.

    ``prepare`` makes inputs (b, inputs) of the rows of ``x`` that are in a batch.
    """
    rng = np.random.default_rng(settings.seed)
    update = _Optimiser(network.parameters, settings)
    history = []
    for _ in range(settings.epochs):
        order = rng.permutation(len(x))
        losses = []
        for start in range(0, len(x), settings.batch_size):
            chosen = order[start : start + settings.batch_size]
            loss, gradients = network.gradients(prepare(x[chosen]), labels[chosen], settings.loss)
            if settings.l1 or settings.l2:
                extra, added = penalty(network.weights, settings.l1, settings.l2)
                loss += extra
                for gradient, more in zip(gradients, added, strict=False):
                    gradient += more
            update(gradients)
            losses.append(loss)
        history.append(float(np.mean(losses)))
    return history


class _Optimiser:
    """Changes parameters in place; the constants are those of the usual frameworks.

    sgd       w -= r g
    momentum  v = 0.9 v + g, w -= r v
    adagrad   s += g**2, w -= r g / sqrt(s)
    rmsprop   s = 0.99 s + 0.01 g**2, w -= r g / sqrt(s)
    adam      Kingma and Ba 2015: both averages, corrected for their start at 0
    """

    def __init__(self, parameters: list[Array], settings: Settings) -> None:
        self._parameters = parameters
        self._rate = settings.rate
        self._kind = settings.optimiser
        self._first = [np.zeros_like(p) for p in parameters]
        self._second = [np.zeros_like(p) for p in parameters]
        self._steps = 0

    def __call__(self, gradients: list[Array]) -> None:
        self._steps += 1
        for w, g, v, s in zip(self._parameters, gradients, self._first, self._second, strict=True):
            w -= self._rate * self._direction(g, v, s)

    def _direction(self, g: Array, v: Array, s: Array) -> Array:
        kind, t = self._kind, self._steps
        if kind == "sgd":
            return g
        if kind == "momentum":
            v *= 0.9
            v += g
            return v
        if kind == "adagrad":
            s += g * g
            return g / (np.sqrt(s) + 1e-8)
        if kind == "rmsprop":
            s *= 0.99
            s += 0.01 * g * g
            return g / (np.sqrt(s) + 1e-8)
        assert kind == "adam", kind
        v *= 0.9
        v += 0.1 * g
        s *= 0.999
        s += 0.001 * g * g
        return (v / (1 - 0.9**t)) / (np.sqrt(s / (1 - 0.999**t)) + 1e-8)

"""Half moon: a network of two layers by hand, and its binary twin, as a picture.

Two half circles that reach into each other are told apart; the classic exercise in
back-propagation.  Needs no PyTorch.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bitinfer.files import check_writable, write_atomically
from bitinfer.train import charts
from bitinfer.train.by_hand import Array, Network, Settings, fit

POINTS = 500
NOISE = 0.15
HIDDEN = 32
DEFAULTS = Settings(rate=0.01, epochs=200, batch_size=50)


@dataclasses.dataclass(frozen=True)
class Outcome:
    """Of the network and of its binary twin: points told apart, as (correct, of), and losses."""

    real: tuple[int, int]
    binary: tuple[int, int]
    losses: tuple[list[float], list[float]]


def half_moons(count: int, seed: int, noise: float = NOISE) -> tuple[Array, NDArray[np.int64]]:
    """Return points (count, 2), about half on each of two half circles, and labels 0 and 1."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, count)
    angle = rng.uniform(0, np.pi, count)
    upper = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    lower = np.stack([1 - np.cos(angle), 0.5 - np.sin(angle)], axis=1)
    points = np.where(labels[:, None] == 0, upper, lower)
    return points + noise * rng.standard_normal(points.shape), labels


def run(
    output: Path, settings: Settings = DEFAULTS, *, activation: str = "relu", hidden: int = HIDDEN
) -> Outcome:
    """Train both networks and draw boundaries and losses to the PNG ``output``.

    Cost:    seconds.
    Raises:  OutputError, before training, if ``output`` cannot be written.
    """
    check_writable(output)
    x, labels = half_moons(POINTS, settings.seed)
    unseen, wanted = half_moons(POINTS, settings.seed + 1)
    networks = [
        Network((2, hidden, 2), activation=activation, binary=binary, seed=settings.seed)
        for binary in (False, True)
    ]
    losses = [fit(network, x, labels, settings) for network in networks]
    right = [
        (int(np.count_nonzero(n.scores(unseen).argmax(axis=1) == wanted)), len(wanted))
        for n in networks
    ]
    names = (activation, "binary twin")
    titles = [f"{n}: {c} of {t} unseen points" for n, (c, t) in zip(names, right, strict=True)]
    write_atomically(output, _picture(networks, titles, names, losses, x, labels))
    return Outcome(right[0], right[1], (losses[0], losses[1]))


def _picture(
    networks: list[Network],
    titles: list[str],
    names: tuple[str, str],
    losses: list[list[float]],
    x: Array,
    labels: NDArray[Any],
) -> bytes:
    figure, axes = charts.figure(1, 3)
    for axis, network, title in zip(axes, networks, titles, strict=False):
        across, down = np.meshgrid(np.linspace(-1.6, 2.6, 211), np.linspace(-1.2, 1.7, 146))
        scores = network.scores(np.stack([across.ravel(), down.ravel()], axis=1))
        shade = (scores[:, 1] > scores[:, 0]).reshape(across.shape)
        axis.contourf(across, down, shade, levels=[-0.5, 0.5, 1.5], colors=["#cfe0f3", "#f6dccb"])
        for label, colour in enumerate((charts.BLUE, charts.ORANGE)):
            axis.plot(*x[labels == label].T, ".", color=colour, markersize=4)
        axis.set_title(title)
    for loss, name, colour in zip(losses, names, (charts.BLUE, charts.ORANGE), strict=True):
        axes[2].plot(np.arange(1, len(loss) + 1), loss, color=colour, label=name)
    axes[2].set(title="loss on the training points", xlabel="epoch", ylim=(0, None))
    axes[2].legend(frameon=False)
    return charts.to_png(figure)

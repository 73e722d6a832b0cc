"""Dense networks by hand on CIFAR-10: what width, depth, rate, penalty and activation do.

One thing is varied at a time, around one setting; every network is trained alike and counted on
the held-out pictures.  Test pictures are not looked at.  Needs no PyTorch.
"""

from __future__ import annotations

import csv
import dataclasses
import io
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bitinfer.files import check_writable, write_atomically
from bitinfer.train import charts
from bitinfer.train.by_hand import Array, Network, Settings, fit
from bitinfer.train.pictures import Pictures, read_cifar10

EPOCHS = 4
INPUTS = 32 * 32 * 3
CLASSES = 10


@dataclasses.dataclass(frozen=True, kw_only=True)
class Setting:
    """One network of the sweep."""

    width: int = 128
    depth: int = 1
    rate: float = 1e-3
    l2: float = 0.0
    activation: str = "relu"


SWEEP: dict[str, tuple[Any, ...]] = {
    "width": (32, 128, 512),
    "depth": (0, 1, 2, 3),
    "rate": (1e-4, 3e-4, 1e-3, 3e-3),
    "l2": (0.0, 1e-4, 1e-3, 1e-2),
    "activation": ("sigmoid", "tanh", "relu", "leaky-relu", "elu", "maxout", "binary"),
}


@dataclasses.dataclass(frozen=True)
class Row:
    """A network, and how many pictures it gets right; ``varied`` is what differs."""

    varied: str
    setting: Setting
    training: float
    validation: float
    seconds: float


def run(
    data: Path,
    output: Path,
    *,
    epochs: int = EPOCHS,
    seed: int = 0,
    report: Callable[[int, int, Row], None] = lambda done, total, row: None,
) -> list[Row]:
    """Train every network of the sweep; write the picture ``output`` and a .csv beside it.

    Cost:    some 20 networks; minutes on a core.
    Raises:  OutputError, before training, if a file cannot be written; DataError.
    """
    table = output.with_suffix(".csv")
    check_writable(output)
    check_writable(table)
    training, validation, _ = read_cifar10(data)
    plan = [
        (name, dataclasses.replace(Setting(), **{name: value}))
        for name, values in SWEEP.items()
        for value in values
    ]
    known: dict[Setting, Row] = {}
    rows = []
    for done, (name, setting) in enumerate(plan, start=1):
        if setting not in known:
            known[setting] = _train(setting, name, training, validation, epochs, seed)
        rows.append(dataclasses.replace(known[setting], varied=name))
        report(done, len(plan), rows[-1])
    write_atomically(table, _csv(rows))
    write_atomically(output, _picture(rows))
    return rows


def as_input(images: NDArray[np.uint8]) -> Array:
    """Return pictures (n, 32, 32, 3) as rows (n, 3072) float32 of about -2 to 2."""
    return (images.reshape(len(images), -1).astype(np.float32) - 120) / 64


def _train(
    setting: Setting,
    varied: str,
    training: Pictures,
    validation: Pictures,
    epochs: int,
    seed: int,
) -> Row:
    start = time.monotonic()
    binary = setting.activation == "binary"
    network = Network(
        (INPUTS, *[setting.width] * setting.depth, CLASSES),
        activation="sign" if binary else setting.activation,
        binary=binary,
        seed=seed,
        dtype=np.float32,
    )
    settings = Settings(rate=setting.rate, l2=setting.l2, epochs=epochs, seed=seed)
    fit(network, training.images, training.labels, settings, prepare=as_input)
    seconds = time.monotonic() - start
    seen = training.part(0, len(validation))
    return Row(varied, setting, _share(network, seen), _share(network, validation), seconds)


def _share(network: Network, pictures: Pictures) -> float:
    right = 0
    for start in range(0, len(pictures), 1000):
        part = pictures.part(start, start + 1000)
        right += int(
            np.count_nonzero(network.scores(as_input(part.images)).argmax(1) == part.labels)
        )
    return right / len(pictures)


def _csv(rows: list[Row]) -> bytes:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    names = [field.name for field in dataclasses.fields(Setting)]
    writer.writerow(["varied", *names, "training", "validation", "seconds"])
    for row in rows:
        values = [getattr(row.setting, name) for name in names]
        shares = (f"{row.training:.4f}", f"{row.validation:.4f}", f"{row.seconds:.1f}")
        writer.writerow([row.varied, *values, *shares])
    return text.getvalue().encode()


def _picture(rows: list[Row]) -> bytes:
    figure, axes = charts.figure(1, len(SWEEP), width=3.0)
    lowest = 5 * np.floor(20 * min(min(r.training, r.validation) for r in rows))
    for axis, name in zip(axes, SWEEP, strict=True):
        found = [row for row in rows if row.varied == name]
        ticks = [str(getattr(row.setting, name)) for row in found]
        for kind, colour in (("training", charts.BLUE), ("validation", charts.ORANGE)):
            shares = [100 * getattr(row, kind) for row in found]
            axis.plot(ticks, shares, "o-", color=colour, label=kind)
        axis.set(title=name, ylim=(lowest, None))
        axis.tick_params(axis="x", rotation=60 if name == "activation" else 0)
    axes[0].set_ylabel("% right")
    axes[0].legend(frameon=False)
    return charts.to_png(figure)

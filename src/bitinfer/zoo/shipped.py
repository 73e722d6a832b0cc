"""The trained models that are installed with bitinfer: files beside this one, and what they reach.

Each has a card, a page of Markdown: accuracy, training, size, latency, what it is for and not for.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from pathlib import Path

from bitinfer.names import unknown
from bitinfer.zoo.data import DataSet

_FOLDER = Path(__file__).parent / "models"


@dataclasses.dataclass(frozen=True)
class Shipped:
    """A trained model.

    Attributes:
        name: as in ``bitinfer zoo get``.
        architecture: of the zoo.
        data_set: that it was trained on; ``correct`` of ``total`` of its test pictures are right.
    """

    name: str
    architecture: str
    data_set: DataSet
    correct: int
    total: int

    @property
    def path(self) -> Path:
        """The model file."""
        return _FOLDER / f"{self.name}.bin"

    @property
    def card(self) -> Path:
        """The page that describes it."""
        return _FOLDER / f"{self.name}.md"

    @property
    def interval(self) -> tuple[float, float]:
        """Of the accuracy, with 95 % confidence: Wilson's score interval, in 0..1."""
        z, n, p = 1.96, self.total, self.correct / self.total
        centre = (p + z * z / (2 * n)) / (1 + z * z / n)
        half = z / (1 + z * z / n) * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
        return centre - half, centre + half


SHIPPED: Mapping[str, Shipped] = {
    model.name: model
    for model in (
        Shipped("lenet5-mnist", "xnor-lenet5", "mnist", 9941, 10000),
        Shipped("bitres8-cifar10", "bitres8", "cifar10", 810, 1000),
        Shipped("bitres11-cifar10", "bitres11", "cifar10", 839, 1000),
    )
}


def find_shipped(name: str) -> Shipped:
    """Return the trained model called ``name``, or raise UnknownNameError."""
    if name not in SHIPPED:
        raise unknown("model", name, SHIPPED)
    return SHIPPED[name]

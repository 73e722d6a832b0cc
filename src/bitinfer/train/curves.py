"""Curves of a training run as table and picture, and what goes wrong in them."""

from __future__ import annotations

import csv
import dataclasses
import io
from collections.abc import Sequence

from bitinfer.train import charts

CLASSES = 10
PATIENCE = 5
"""Epochs in a row after which a failure is one, and no chance."""


@dataclasses.dataclass(frozen=True)
class Epoch:
    """What an epoch came to; accuracy in 0..1, training's on altered pictures, rate its last."""

    epoch: int
    rate: float
    training_loss: float
    training_accuracy: float
    validation_loss: float
    correct: int
    total: int
    seconds: float

    @property
    def validation_accuracy(self) -> float:
        """Share of the validation pictures that are right."""
        return self.correct / self.total


def diagnose(curve: Sequence[Epoch]) -> str | None:
    """Return what has gone wrong at the last epoch, in one line; None if nothing can be seen.

    Two failures that everybody meets once:

    * validation stays at chance while training learns: BatchNorm runs in the wrong mode, so that
      evaluation sees other numbers than training;
    * validation's loss has risen for long while training's falls: over-fitting.
    """
    last = curve[-PATIENCE:]
    if len(last) < PATIENCE:
        return None
    chance, now = 1 / CLASSES, curve[-1]
    if (
        max(e.validation_accuracy for e in last) < 1.5 * chance
        and min(e.training_accuracy for e in last) > 3 * chance
    ):
        return (
            f"validation is stuck at {100 * now.validation_accuracy:.0f} % while training reaches "
            f"{100 * now.training_accuracy:.0f} %: does BatchNorm run in the wrong mode? Call "
            "train() before and eval() behind an epoch, and see that its averages move"
        )
    best = min(curve, key=lambda e: e.validation_loss)
    if (
        now.epoch - best.epoch >= PATIENCE
        and now.validation_loss > 1.1 * best.validation_loss
        and now.training_loss < 0.9 * best.training_loss
    ):
        return (
            f"over-fitting since epoch {best.epoch}: training loss fell from "
            f"{best.training_loss:.3f} to {now.training_loss:.3f}, validation loss rose from "
            f"{best.validation_loss:.3f} to {now.validation_loss:.3f}; the best epoch is kept"
        )
    return None


def to_csv(curve: Sequence[Epoch]) -> bytes:
    """Return a line for each epoch, with the names of :class:`Epoch` above."""
    text = io.StringIO()
    names = [field.name for field in dataclasses.fields(Epoch)]
    writer = csv.DictWriter(text, names, lineterminator="\n")
    writer.writeheader()
    for epoch in curve:
        row = dataclasses.asdict(epoch)
        writer.writerow({k: f"{v:.6g}" if isinstance(v, float) else v for k, v in row.items()})
    return text.getvalue().encode()


def to_png(curve: Sequence[Epoch], title: str) -> bytes:
    """Return a picture of loss and accuracy, of training and validation."""
    figure, (loss, accuracy) = charts.figure(1, 2)
    epochs = [e.epoch for e in curve]
    loss.plot(epochs, [e.training_loss for e in curve], color=charts.BLUE, label="training")
    loss.plot(epochs, [e.validation_loss for e in curve], color=charts.ORANGE, label="validation")
    loss.set(title=title, xlabel="epoch", ylabel="loss")
    loss.legend(frameon=False)
    for values, colour in (
        ([100 * e.training_accuracy for e in curve], charts.BLUE),
        ([100 * e.validation_accuracy for e in curve], charts.ORANGE),
    ):
        accuracy.plot(epochs, values, color=colour)
    accuracy.set(xlabel="epoch", ylabel="% right")
    return charts.to_png(figure)

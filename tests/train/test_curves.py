"""Curves as a table and a picture, and the two failures that are recognised in them."""

from __future__ import annotations

import csv
import io

import pytest

pytest.importorskip("matplotlib")

from bitinfer.train.curves import Epoch, diagnose, to_csv, to_png


def curve(*points: tuple[float, float, float, int]) -> list[Epoch]:
    """Make epochs of training loss, training accuracy, validation loss and correct of 1000."""
    return [
        Epoch(i, 0.001, loss, accuracy, validation, correct, 1000, 1.5)
        for i, (loss, accuracy, validation, correct) in enumerate(points, start=1)
    ]


HEALTHY = [(2.0 / i, 1 - 0.7 / i, 2.1 / i, int(1000 - 700 / i)) for i in range(1, 20)]
STUCK = [(2.0 / i, 1 - 0.6 / i, 5.0 + i, 100 + i) for i in range(1, 9)]
OVERFITTED = [(1.0 / i, 1 - 0.6 / i, 1.0 + 0.1 * abs(i - 6), 700) for i in range(1, 20)]


@pytest.mark.parametrize("length", range(1, 20))
def test_nothing_is_said_of_a_healthy_run(length: int) -> None:
    assert diagnose(curve(*HEALTHY[:length])) is None


def test_nothing_is_said_of_a_run_that_learns_nothing_yet() -> None:
    assert diagnose(curve(*[(2.3, 0.1, 2.3, 100)] * 10)) is None


def test_validation_at_chance_while_training_learns_is_batch_norm() -> None:
    assert diagnose(curve(*STUCK[:4])) is None
    message = diagnose(curve(*STUCK))
    assert message is not None
    assert message.startswith("validation is stuck at 11 % while training reaches 92 %")
    assert "BatchNorm" in message
    assert "\n" not in message


def test_rising_validation_loss_while_training_loss_falls_is_over_fitting() -> None:
    assert diagnose(curve(*OVERFITTED[:7])) is None
    message = diagnose(curve(*OVERFITTED[:12]))
    assert message is not None
    assert message.startswith("over-fitting since epoch 6: training loss fell from 0.167 to 0.083")
    assert "validation loss rose from 1.000 to 1.600" in message


def test_batch_norm_in_the_wrong_mode_is_recognised_in_a_real_run() -> None:
    """A network whose BatchNorm keeps no averages: what its first users all meet."""
    torch = pytest.importorskip("torch")
    from test_network_recipes import make_pictures

    from bitinfer.train.loop import Recipe, Run
    from bitinfer.train.recipes.networks import SPECS, task

    class Small(torch.nn.Sequential):
        def constrain(self) -> None:
            pass

    torch.manual_seed(0)
    network = Small(
        torch.nn.Flatten(),
        torch.nn.Linear(3072, 64),
        torch.nn.BatchNorm1d(64, momentum=0.0),
        torch.nn.ReLU(),
        torch.nn.Linear(64, 10),
    )
    with torch.no_grad():
        network[1].bias.sub_(100)  # far from the averages that it starts with
    spec = SPECS["bitres11-cifar10"]
    job = task(spec, network, make_pictures(300), make_pictures(100, seed=1))
    recipe = Recipe(epochs=6, learning_rate=3e-3, batch_size=30, calibrated=False)
    warnings = []
    Run(job, recipe).train(lambda step: warnings.append(step.warning))
    assert any(w is not None and "BatchNorm" in w for w in warnings)


def test_table_and_picture() -> None:
    epochs = curve(*HEALTHY)
    rows = list(csv.DictReader(io.StringIO(to_csv(epochs).decode())))
    assert [int(row["epoch"]) for row in rows] == list(range(1, 20))
    assert float(rows[3]["validation_loss"]) == pytest.approx(2.1 / 4, rel=1e-5)
    assert to_png(epochs, "a run").startswith(b"\x89PNG")

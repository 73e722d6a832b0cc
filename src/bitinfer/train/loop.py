"""The one loop that trains every network on pictures: steps, curves, and a state to go on from."""

from __future__ import annotations

import dataclasses
import io
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from bitinfer.errors import CheckpointError
from bitinfer.files import write_atomically
from bitinfer.train.curves import Epoch, diagnose
from bitinfer.train.layers import is_binary
from bitinfer.train.pictures import Pictures

EVALUATION_BATCH = 500
TEMPERATURE = 4.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Recipe:
    """Everything that decides how a training run ends, up to the rounding of the machine.

    Attributes:
        epochs: passes over the training pictures.
        learning_rate: of AdamW, at its highest: reached linearly within the first epoch, then
            falling to 0 along half a cosine.
        seed: of the initial weights, the order of the pictures and how they are altered.
        batch_size: pictures per optimiser step.
        weight_decay: of float weights; none for binary weights, biases and what BatchNorm learns.
        calibrated: BatchNorm's statistics are measured anew behind every epoch, on unaltered
            pictures.  Signs are taken against thresholds made of them.
        compiled: torch.compile makes the steps, some three times as fast; rounded otherwise.
        real_epochs: at most so many epochs before, in which binary layers keep real weights and
            only activations are signs: Martinez et al. 2020 (arXiv 2003.11535), section 4.2.
        distillation: the teacher's share of the loss, 0..1, where the task has one; the labels
            have the rest.
    """

    epochs: int
    learning_rate: float
    seed: int = 0
    batch_size: int = 128
    weight_decay: float = 0.0
    calibrated: bool = True
    compiled: bool = False
    real_epochs: int = 0
    distillation: float = 0.0


@dataclasses.dataclass(frozen=True)
class Step:
    """Where a training run stands; ``end`` and what is wrong, if anything, behind an epoch."""

    epoch: int
    epochs: int
    step: int
    steps: int
    loss: float
    end: Epoch | None = None
    warning: str | None = None


@dataclasses.dataclass(frozen=True, eq=False)
class Task:
    """What is trained, and on what.

    Attributes:
        network: has ``constrain``, which is called behind every step.
        training, validation: pictures.
        batch: makes the network's input of training pictures by their numbers, altered at random.
        inputs: makes it of pictures (n, h, w[, c]) as they are, rounded as at inference.
        teacher: gives its logits of the network's input.
    """

    network: Any
    training: Pictures
    validation: Pictures
    batch: Callable[[Tensor, torch.Generator], Tensor]
    inputs: Callable[[Any], Tensor]
    teacher: Callable[[Tensor], Tensor] | None = None


class Run:
    """A training run: at its start, or where the file ``state`` left off.

    Meaning: the same task, recipe and number of threads give the same weights on the same machine,
             whether or not the run was interrupted behind an epoch.
    Raises:  CheckpointError: ``state`` is not the state of such a run, or of another recipe.
    """

    def __init__(self, task: Task, recipe: Recipe, state: Path | None = None) -> None:
        self.task, self.recipe, self._file = task, recipe, state
        self.curve: list[Epoch] = []
        self._best: dict[str, Tensor] = {}
        self._generator = torch.Generator().manual_seed(recipe.seed)
        self._random = torch.Generator().manual_seed(recipe.seed).get_state()
        # PyTorch's CPU convolutions and pooling are faster on channel-minor tensors.
        task.network.to(memory_format=torch.channels_last)
        self._optimiser = torch.optim.AdamW(_groups(task.network, recipe.weight_decay), fused=True)
        if state is not None and state.exists():
            self._load(state)

    @property
    def best(self) -> Epoch | None:
        """The epoch with the most correct validation pictures, the last of several."""
        return max(self.curve, key=lambda e: (e.correct, e.epoch), default=None)

    def train(self, report: Callable[[Step], None] = lambda step: None) -> None:
        """Train to the end and leave the network at its best epoch."""
        recipe, network = self.recipe, self.task.network
        forward = (
            torch.compile(network, fullgraph=True, dynamic=False) if recipe.compiled else network
        )
        with torch.random.fork_rng(devices=[]):
            torch.set_rng_state(self._random)
            for epoch in range(len(self.curve), recipe.epochs):
                self._epoch(epoch, forward, report)
        self.restore_best()

    def restore_best(self) -> None:
        """Put the weights of the best epoch into the network."""
        if self._best:
            self.task.network.load_state_dict(self._best)
        self.task.network.eval()

    def _epoch(self, epoch: int, forward: Any, report: Callable[[Step], None]) -> None:
        recipe, task, start = self.recipe, self.task, time.monotonic()
        size = recipe.batch_size
        steps = max(1, len(task.training) // size)
        labels = torch.from_numpy(task.training.labels).long()
        order = torch.randperm(len(labels), generator=self._generator)
        task.network.train()
        losses, correct, rate = 0.0, 0, 0.0
        for step in range(steps):
            rate = _learning_rate(recipe, (epoch * steps + step) / (recipe.epochs * steps))
            for group in self._optimiser.param_groups:
                group["lr"] = rate
            chosen = order[step * size : (step + 1) * size]
            x = task.batch(chosen, self._generator)
            scores = forward(x)
            loss = functional.cross_entropy(scores, labels[chosen])
            if task.teacher is not None:
                distilled = distance(scores, task.teacher(x))
                loss = (1 - recipe.distillation) * loss + recipe.distillation * distilled
            self._optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            self._optimiser.step()
            task.network.constrain()
            losses += loss.item()
            correct += int((scores.argmax(dim=1) == labels[chosen]).sum())
            report(Step(epoch + 1, recipe.epochs, step + 1, steps, loss.item()))
        if recipe.calibrated:
            calibrate(task.network, task.training, task.inputs)
        loss_there, right = evaluate(task.network, task.validation, task.inputs)
        self.curve.append(
            Epoch(
                epoch + 1,
                rate,
                losses / steps,
                correct / (steps * min(size, len(labels))),
                loss_there,
                right,
                len(task.validation),
                time.monotonic() - start,
            )
        )
        if self.best is self.curve[-1]:
            self._best = {k: v.clone() for k, v in task.network.state_dict().items()}
        self._save()
        warning = diagnose(self.curve)
        report(
            Step(epoch + 1, recipe.epochs, steps, steps, losses / steps, self.curve[-1], warning)
        )

    def _save(self) -> None:
        if self._file is None:
            return
        content = io.BytesIO()
        state = {
            "recipe": dataclasses.asdict(self.recipe),
            "curve": [dataclasses.asdict(e) for e in self.curve],
            "network": self.task.network.state_dict(),
            "best": self._best,
            "optimiser": self._optimiser.state_dict(),
            "generator": self._generator.get_state(),
            "random": torch.get_rng_state(),
        }
        torch.save(state, content)
        write_atomically(self._file, content.getvalue())

    def _load(self, file: Path) -> None:
        try:
            state = torch.load(file, weights_only=True)
            recipe = Recipe(**state["recipe"])
            curve = [Epoch(**e) for e in state["curve"]]
        except Exception as error:  # whatever pickle, zip and torch make of foreign bytes
            raise CheckpointError(
                f"{file}: is not the state of a training run ({type(error).__name__}); "
                "delete it to begin anew"
            ) from None
        if recipe != self.recipe:
            name = next(
                f.name
                for f in dataclasses.fields(recipe)
                if getattr(recipe, f.name) != getattr(self.recipe, f.name)
            )
            raise CheckpointError(
                f"{file}: is the state of a run with {name} {getattr(recipe, name)}, wanted "
                f"{getattr(self.recipe, name)}; ask for the same to go on, "
                "or delete it to begin anew"
            )
        try:
            self.task.network.load_state_dict(state["network"])
            self._optimiser.load_state_dict(state["optimiser"])
            self._generator.set_state(state["generator"])
        except (KeyError, RuntimeError, ValueError) as error:
            raise CheckpointError(
                f"{file}: is the state of another network ({type(error).__name__}); "
                "delete it to begin anew"
            ) from None
        self.curve, self._best, self._random = curve, state["best"], state["random"]


def distance(logits: Tensor, teacher: Tensor) -> Tensor:
    """Return how far logits (n, classes) are from a teacher's: a scalar, to be made small.

    Meaning: the Kullback-Leibler divergence of both softmaxes at temperature T = 4, times T**2.
    Source:  Hinton et al. 2015, "Distilling the Knowledge in a Neural Network" (arXiv 1503.02531).
    """
    kept = functional.log_softmax(logits / TEMPERATURE, dim=1)
    wanted = functional.log_softmax(teacher / TEMPERATURE, dim=1)
    divergence = functional.kl_div(kept, wanted, reduction="batchmean", log_target=True)
    return divergence * TEMPERATURE**2


@torch.no_grad()
def calibrate(
    network: nn.Module, pictures: Pictures, inputs: Callable[[Any], Tensor], *, limit: int = 2_500
) -> None:
    """Measure BatchNorm's means and variances anew, as averages over unaltered pictures.

    The running averages of training describe altered pictures, and of those the last few batches
    only.  Every sign is taken against a threshold made of them, so that would cost accuracy.
    """
    network.eval()
    norms = [m for m in network.modules() if isinstance(m, nn.BatchNorm1d | nn.BatchNorm2d)]
    before = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        # None: the plain average over all batches since the reset.
        norm.momentum = None
        norm.train()
    for start in range(0, min(limit, len(pictures)), EVALUATION_BATCH):
        network(inputs(pictures.images[start : start + EVALUATION_BATCH]))
    for norm, momentum in zip(norms, before, strict=True):
        norm.momentum = momentum
    network.eval()


@torch.no_grad()
def evaluate(
    network: nn.Module, pictures: Pictures, inputs: Callable[[Any], Tensor]
) -> tuple[float, int]:
    """Return the mean loss, and how many pictures get their largest logit at their label."""
    network.eval()
    loss, correct = 0.0, 0
    for start in range(0, len(pictures), EVALUATION_BATCH):
        part = pictures.part(start, start + EVALUATION_BATCH)
        scores = network(inputs(part.images))
        labels = torch.from_numpy(part.labels).long()
        loss += float(functional.cross_entropy(scores, labels, reduction="sum"))
        correct += int((scores.argmax(dim=1) == labels).sum())
    return loss / max(1, len(pictures)), correct


def _groups(network: nn.Module, decay: float) -> list[dict[str, Any]]:
    binary = {id(m.weight) for m in network.modules() if is_binary(m)}
    decayed: list[Tensor] = []
    others: list[Tensor] = []
    for parameter in network.parameters():
        is_decayed = parameter.dim() > 1 and id(parameter) not in binary
        (decayed if is_decayed else others).append(parameter)
    return [
        {"params": decayed, "weight_decay": decay},
        {"params": others, "weight_decay": 0.0},
    ]


def _learning_rate(recipe: Recipe, done: float) -> float:
    """Return the learning rate when ``done`` (0..1) of all steps are behind."""
    warm_up = min(1.0, done * recipe.epochs)
    return recipe.learning_rate * warm_up * 0.5 * (1 + math.cos(math.pi * done))

"""Trains a network on digits: optimiser steps, and BatchNorm's statistics measured anew.

Three things matter for the accuracy beyond the paper: distorted copies of the digits instead of
the digits themselves, a learning rate that falls to zero, and BatchNorm statistics that are
measured anew on undistorted digits before the network is used.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from bitinfer.train.digits import PREPARED, Digits, normalise
from bitinfer.train.distortion import Distortion, distort
from bitinfer.train.lenet5 import LeNet5

EVALUATION_BATCH = 500


@dataclasses.dataclass(frozen=True, kw_only=True)
class Recipe(Distortion):
    """Everything that decides how a training run ends, up to the rounding of the machine.

    Attributes:
        epochs: passes over the training images.
        seed: of the initial weights, the order of the images and their distortion.
        batch_size: images per optimiser step.
        learning_rate: of Adam, at its highest: reached linearly within the first epoch, then
            falling to 0 along half a cosine.
    """

    epochs: int = 60
    seed: int = 0
    batch_size: int = 128
    learning_rate: float = 3e-3


@dataclasses.dataclass(frozen=True)
class Step:
    """Where a training run stands; ``validation`` (correct, of) only at the end of an epoch."""

    epoch: int
    epochs: int
    step: int
    steps: int
    loss: float
    validation: tuple[int, int] | None = None


def train(
    network: LeNet5,
    training: Digits,
    validation: Digits,
    recipe: Recipe,
    *,
    report: Callable[[Step], None] = lambda step: None,
) -> None:
    """Train ``network`` in place and leave it ready for evaluation.

    Meaning: the same network, digits, recipe and number of threads give the same weights on the
             same machine.  The validation digits are only reported on; nothing depends on them.
    """
    generator = torch.Generator().manual_seed(recipe.seed)
    pixels = torch.from_numpy(training.images).float().mul_(PREPARED.scale)[:, None]
    labels = torch.from_numpy(training.labels).long()
    steps = max(1, len(training) // recipe.batch_size)
    optimiser = torch.optim.Adam(network.parameters())
    # PyTorch's CPU convolutions and pooling are faster on channel-minor tensors.
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    for epoch in range(recipe.epochs):
        network.train()
        order = torch.randperm(len(training), generator=generator)
        for step in range(steps):
            done = (epoch * steps + step) / (recipe.epochs * steps)
            for group in optimiser.param_groups:
                group["lr"] = _learning_rate(recipe, done)
            chosen = order[step * recipe.batch_size : (step + 1) * recipe.batch_size]
            batch = distort(pixels[chosen], recipe, generator=generator)
            batch = batch.sub_(PREPARED.mean[0]).div_(PREPARED.std[0])
            batch = batch.contiguous(memory_format=torch.channels_last)
            loss = functional.cross_entropy(network(batch), labels[chosen])
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            network.constrain()
            report(Step(epoch + 1, recipe.epochs, step + 1, steps, loss.item()))
        calibrate(network, training)
        right = count_correct(network, validation)
        outcome = (right, len(validation))
        report(Step(epoch + 1, recipe.epochs, steps, steps, loss.item(), outcome))


@torch.no_grad()
def calibrate(network: LeNet5, digits: Digits, *, limit: int = 10_000) -> None:
    """Measure BatchNorm's means and variances anew, as averages over undistorted digits.

    The running averages of training describe distorted digits, and of those the last few batches
    only.  Every sign is taken against a threshold made of them, so that would cost accuracy.
    """
    norms = [m for m in network.modules() if isinstance(m, nn.BatchNorm2d)]
    for norm in norms:
        norm.reset_running_stats()
        # None: the plain average over all batches since the reset.
        norm.momentum = None
    network.train()
    for start in range(0, min(limit, len(digits)), EVALUATION_BATCH):
        network(normalise(digits.images[start : start + EVALUATION_BATCH]))
    network.eval()


@torch.no_grad()
def count_correct(network: LeNet5, digits: Digits) -> int:
    """Return how many digits get their largest logit at their label."""
    network.eval()
    correct = 0
    for start in range(0, len(digits), EVALUATION_BATCH):
        found = network(normalise(digits.images[start : start + EVALUATION_BATCH])).argmax(dim=1)
        wanted = digits.labels[start : start + EVALUATION_BATCH]
        correct += int(np.count_nonzero(found.numpy() == wanted))
    return correct


def _learning_rate(recipe: Recipe, done: float) -> float:
    """Return the learning rate when ``done`` (0..1) of all steps are behind."""
    warm_up = min(1.0, done * recipe.epochs)
    return recipe.learning_rate * warm_up * 0.5 * (1 + math.cos(math.pi * done))

"""Recipes for networks on pictures: each takes one from a data set to a model file."""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
import platform
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from bitinfer import modelfile, zoo
from bitinfer._version import __version__
from bitinfer.files import check_writable, write_atomically
from bitinfer.importers.states import find_family
from bitinfer.model import Model, Preprocessing, Provenance
from bitinfer.numerics import normalization_table
from bitinfer.train import charts, curves
from bitinfer.train.bitres import Bitres
from bitinfer.train.digits import read_digits
from bitinfer.train.distortion import MARGIN, Distortion, crop_and_flip, distort
from bitinfer.train.loop import Recipe, Run, Step, Task, evaluate
from bitinfer.train.networks import LeNet5, Nin, VggSmall
from bitinfer.train.pictures import Pictures, read_cifar10
from bitinfer.train.source import torch_source
from bitinfer.train.start import begin_with
from bitinfer.zoo.data import LABELS

DISTORTION = Distortion()

_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX = -1, -2, -4
"""Of glibc's malloc.h."""


@dataclasses.dataclass(frozen=True)
class Spec:
    """A network, and how it is trained unless asked otherwise.

    Attributes:
        name: of the recipe, which ends in that of the data set.
        architecture: in the zoo.
        network: makes the untrained module, with names of the zoo's layers.
        recipe: with its own epochs, and seed 0.
    """

    name: str
    architecture: str
    network: Callable[[], nn.Module]
    recipe: Recipe

    @property
    def preprocessing(self) -> Preprocessing:
        """How a picture becomes the network's input: as checkpoints of the architecture have it."""
        return find_family(self.architecture).PREPROCESSING[self.architecture]

    @property
    def is_mnist(self) -> bool:
        """MNIST; otherwise CIFAR-10."""
        return self.name.endswith("-mnist")


SPECS: Mapping[str, Spec] = {
    spec.name: spec
    for spec in (
        Spec("lenet5-mnist", "xnor-lenet5", LeNet5, Recipe(epochs=60, learning_rate=3e-3)),
        Spec("nin-cifar10", "xnor-nin", Nin, Recipe(epochs=100, learning_rate=3e-3, compiled=True)),
        Spec(
            "vgg-small-cifar10",
            "bnn-vgg-small",
            VggSmall,
            Recipe(epochs=100, learning_rate=3e-3, compiled=True),
        ),
        *(
            Spec(
                f"{name}-cifar10",
                name,
                partial(Bitres, name),
                Recipe(
                    epochs=epochs,
                    learning_rate=2e-3,
                    weight_decay=1e-2,
                    compiled=True,
                    real_epochs=20,
                    distillation=0.9,
                ),
            )
            for name, epochs in (("bitres8", 65), ("bitres11", 60), ("bitres20", 60))
        ),
    )
}


@dataclasses.dataclass(frozen=True)
class Outcome:
    """How many pictures the network gets right, as (correct, of)."""

    validation: tuple[int, int]
    test: tuple[int, int]


class Stopped(KeyboardInterrupt):
    """Training was interrupted behind ``epoch`` epochs; ``best`` (correct, of) is in the output.

    ``best`` is None if nothing was written: there is no epoch yet, or only such with real weights.
    """

    def __init__(self, epoch: int, epochs: int, best: tuple[int, int] | None, state: Path) -> None:
        super().__init__()
        self.epoch, self.epochs, self.best, self.state = epoch, epochs, best, state


def build(spec: Spec, seed: int) -> nn.Module:
    """Return the untrained network of ``seed``; the global generator stays as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return spec.network()


def task(spec: Spec, network: nn.Module, training: Pictures, validation: Pictures) -> Task:
    """Return what the loop trains: digits are distorted, CIFAR-10's pictures cropped."""
    inputs = partial(as_input, preprocessing=spec.preprocessing)
    make = _distorted if spec.is_mnist else _cropped
    return Task(network, training, validation, make(training, spec.preprocessing), inputs)


def as_input(images: Any, preprocessing: Preprocessing) -> Tensor:
    """Return images (n, h, w[, c]) uint8 as input (n, c, h, w), rounded exactly as at inference."""
    p = preprocessing
    images = np.asarray(images)
    if images.ndim == 3:
        images = images[..., None]
    table = normalization_table(p.scale, p.mean, p.std)
    x = torch.from_numpy(table[images, np.arange(images.shape[-1])])
    # (n, h, w, c) seen as (n, c, h, w) is what PyTorch calls channels_last.
    return x.permute(0, 3, 1, 2)


def export(spec: Spec, network: nn.Module, *, notes: tuple[str, ...] = ()) -> Model:
    """Return the network as a model: binary weights packed, labels and preprocessing included."""
    graph, tensors = zoo.build(spec.architecture, torch_source(network, spec.architecture))
    return Model(
        graph=graph,
        tensors=tensors,
        labels=LABELS["mnist" if spec.is_mnist else "cifar10"],
        preprocessing=spec.preprocessing,
        provenance=Provenance(
            importer=f"bitinfer train {spec.name}",
            source="MNIST" if spec.is_mnist else "CIFAR-10",
            versions={
                "bitinfer": __version__,
                "python": platform.python_version(),
                "torch": str(torch.__version__),
            },
            notes=notes,
        ),
    )


def beside(output: Path, suffix: str) -> Path:
    """Return the name of a file beside the model file: its own and ``suffix``."""
    return output.with_name(output.name + suffix)


def run(
    name: str,
    data: Path,
    output: Path,
    recipe: Recipe,
    *,
    threads: int = 1,
    teacher: Callable[[Tensor], Tensor] | None = None,
    start: Model | None = None,
    report: Callable[[Step], None] = lambda step: None,
) -> Outcome:
    """Train the recipe ``name`` on the files under ``data`` and write the model file ``output``.

    Meaning: beside ``output``, with its name and a suffix, are written: .csv and .png, the curves;
             and .state behind every epoch, from which the same call goes on, removed at the end
             (.real-state for the epochs with real weights, which begin a recipe that has them).
             The best epoch on the validation pictures is exported, and only then the test pictures
             are looked at, once.  ``teacher`` gives its logits of the network's input.  A bitres
             network begins with the weights of ``start``.
    Raises:  OutputError, before training, if a file cannot be written; DataError; CheckpointError
             if .state is that of another run, or ``start`` another network; Stopped on SIGINT.
    """
    state = beside(output, ".state")
    for path in (output, state, beside(output, ".csv"), beside(output, ".png")):
        check_writable(path)
    charts.figure(1, 1)  # says before hours of training that there is nothing to draw with
    spec = SPECS[name]
    training, validation, test = (read_digits if spec.is_mnist else read_cifar10)(data)
    torch.set_num_threads(threads)
    keep_freed_memory()
    network = build(spec, recipe.seed)
    if start is not None:
        begin_with(network, start)
    job = dataclasses.replace(task(spec, network, training, validation), teacher=teacher)
    if recipe.real_epochs:
        _train_real_weights(job, recipe, beside(output, ".real-state"), report)
    training_run = Run(job, recipe, state)
    settings = f"epochs {recipe.epochs}, seed {recipe.seed}, threads {threads}"
    if recipe.real_epochs:
        settings += f", behind {recipe.real_epochs} with real weights"
    if teacher is not None:
        settings += ", with a teacher"
    if start is not None:
        settings += f", from weights of {start.graph.name}"
    try:
        training_run.train(report)
    except KeyboardInterrupt:
        best = training_run.best
        epochs = len(training_run.curve)
        if best is not None:
            training_run.restore_best()
            stopped = f"{settings}, stopped behind epoch {epochs}"
            _write(spec, network, output, training_run, (stopped, _count("validation", best)))
        if best is None and recipe.real_epochs:
            before = beside(output, ".real-state")
            raise Stopped(recipe.real_epochs, recipe.real_epochs, None, before) from None
        right = None if best is None else (best.correct, best.total)
        raise Stopped(epochs, recipe.epochs, right, state) from None
    best = training_run.best
    assert best is not None
    inputs = partial(as_input, preprocessing=spec.preprocessing)
    correct = evaluate(network, test, inputs)[1]
    notes = (
        f"{settings}, best epoch {best.epoch}",
        _count("validation", best),
        f"test {correct} of {len(test)} correct",
    )
    _write(spec, network, output, training_run, notes)
    for file in (state, beside(output, ".real-state")):
        file.unlink(missing_ok=True)
    return Outcome((best.correct, best.total), (correct, len(test)))


def _train_real_weights(
    job: Task, recipe: Recipe, state: Path, report: Callable[[Step], None]
) -> None:
    first = dataclasses.replace(recipe, epochs=recipe.real_epochs, real_epochs=0)
    job.network.use_real_weights(real=True)
    before = Run(job, first, state)
    try:
        before.train(report)
    except KeyboardInterrupt:
        raise Stopped(len(before.curve), first.epochs, None, state) from None
    job.network.use_real_weights(real=False)


def keep_freed_memory() -> None:
    """Let glibc keep what is freed, for the whole process; elsewhere nothing happens.

    Every step frees and takes the same maps of megabytes again.  Given back to the system, each of
    their pages is made anew and cleared: in virtual machines up to half of a step's time.
    """
    with contextlib.suppress(AttributeError, OSError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_M_MMAP_MAX, 0)
        mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)
        mallopt(_M_TOP_PAD, 2**28)


def _count(what: str, epoch: curves.Epoch) -> str:
    return f"{what} {epoch.correct} of {epoch.total} correct"


def _write(spec: Spec, network: nn.Module, output: Path, done: Run, notes: tuple[str, ...]) -> None:
    modelfile.save(export(spec, network, notes=notes), output)
    write_atomically(beside(output, ".csv"), curves.to_csv(done.curve))
    write_atomically(beside(output, ".png"), curves.to_png(done.curve, spec.name))


def _distorted(
    pictures: Pictures, prepared: Preprocessing
) -> Callable[[Tensor, torch.Generator], Tensor]:
    pixels = torch.from_numpy(pictures.images).float().mul_(prepared.scale)[:, None]

    def batch(chosen: Tensor, generator: torch.Generator) -> Tensor:
        x = distort(pixels[chosen], DISTORTION, generator=generator)
        x = x.sub_(prepared.mean[0]).div_(prepared.std[0])
        return x.contiguous(memory_format=torch.channels_last)

    return batch


def _cropped(
    pictures: Pictures, prepared: Preprocessing
) -> Callable[[Tensor, torch.Generator], Tensor]:
    margin = (MARGIN, MARGIN)
    images = np.pad(pictures.images, ((0, 0), margin, margin, (0, 0)), "reflect")
    padded = torch.from_numpy(images)
    table = torch.from_numpy(normalization_table(prepared.scale, prepared.mean, prepared.std))
    channels = torch.arange(images.shape[-1])

    def batch(chosen: Tensor, generator: torch.Generator) -> Tensor:
        cropped = crop_and_flip(padded[chosen], generator=generator)
        return table[cropped.long(), channels].permute(0, 3, 1, 2)

    return batch

"""XNOR-Net LeNet-5 on MNIST, from the four files of the data set to a model file.

The network is that of Rastegari et al. 2016 (arXiv 1603.05279) as its authors' PyTorch code lays
it out (train/lenet5.py).
"""

from __future__ import annotations

import dataclasses
import platform
from collections.abc import Callable
from pathlib import Path

import torch

from bitinfer import modelfile, zoo
from bitinfer._version import __version__
from bitinfer.files import check_writable
from bitinfer.model import Model, Provenance
from bitinfer.train.digits import PREPARED, read_digits
from bitinfer.train.lenet5 import LeNet5
from bitinfer.train.loop import Recipe, Step, count_correct, train
from bitinfer.train.source import torch_source
from bitinfer.zoo.data import LABELS

ARCHITECTURE = "xnor-lenet5"


@dataclasses.dataclass(frozen=True)
class Outcome:
    """How many digits the finished network gets right, as (correct, of)."""

    validation: tuple[int, int]
    test: tuple[int, int]


def build(recipe: Recipe) -> LeNet5:
    """Return the untrained network of ``recipe.seed``; the global generator stays as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        return LeNet5()


def export(network: LeNet5, *, notes: tuple[str, ...] = ()) -> Model:
    """Return the network as a model: binary weights packed, labels and preprocessing included."""
    graph, tensors = zoo.build(ARCHITECTURE, torch_source(network, ARCHITECTURE))
    return Model(
        graph=graph,
        tensors=tensors,
        labels=LABELS["mnist"],
        preprocessing=PREPARED,
        provenance=Provenance(
            importer="bitinfer train lenet5-mnist",
            source="MNIST",
            versions={
                "bitinfer": __version__,
                "python": platform.python_version(),
                "torch": str(torch.__version__),
            },
            notes=notes,
        ),
    )


def run(
    data: Path,
    output: Path,
    recipe: Recipe,
    *,
    threads: int = 1,
    report: Callable[[Step], None] = lambda step: None,
) -> Outcome:
    """Train on the MNIST files under ``data`` and write the model file ``output``.

    Meaning: the test digits are looked at once, after the last step.  ``output`` is written whole
             or not at all.
    Cost:    tens of minutes on one core, and some 600 MB of memory, with the default recipe.
    Raises:  OutputError, before training, if ``output`` cannot be written; DataError.
    """
    check_writable(output)
    training, validation, test = read_digits(data)
    torch.set_num_threads(threads)
    network = build(recipe)
    train(network, training, validation, recipe, report=report)
    outcome = Outcome(
        validation=(count_correct(network, validation), len(validation)),
        test=(count_correct(network, test), len(test)),
    )
    notes = (
        f"epochs {recipe.epochs}, seed {recipe.seed}, threads {threads}",
        "validation {} of {} correct".format(*outcome.validation),
        "test {} of {} correct".format(*outcome.test),
    )
    modelfile.save(export(network, notes=notes), output)
    return outcome

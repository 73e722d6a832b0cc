"""The recipe of the float network that teaches those of CIFAR-10, and its file."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from bitinfer.errors import CheckpointError
from bitinfer.files import check_writable, read_regular, write_atomically
from bitinfer.train.loop import Recipe, Run, Step, Task, evaluate
from bitinfer.train.pictures import read_cifar10
from bitinfer.train.recipes import networks
from bitinfer.train.teacher import Teacher

NAME = "teacher-cifar10"
RECIPE = Recipe(epochs=14, learning_rate=4e-3, weight_decay=5e-2, calibrated=False, compiled=True)
PUPIL = "bitres8"
"""Its pictures are prepared as those of this network, and of all bitres networks."""

_LARGEST = 1 << 26


def run(
    data: Path,
    output: Path,
    recipe: Recipe,
    *,
    threads: int = 1,
    report: Callable[[Step], None] = lambda step: None,
) -> networks.Outcome:
    """Train the teacher on CIFAR-10 under ``data`` and write its weights, a .safetensors file.

    Meaning: .state beside ``output`` is kept behind every epoch, and removed at the end; the same
             call goes on from it.
    Raises:  OutputError, before training, if a file cannot be written; DataError; CheckpointError
             if .state is that of another run; Stopped on SIGINT.
    """
    state = networks.beside(output, ".state")
    for path in (output, state):
        check_writable(path)
    training, validation, test = read_cifar10(data)
    torch.set_num_threads(threads)
    networks.keep_freed_memory()
    spec = networks.SPECS[f"{PUPIL}-cifar10"]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        network = Teacher()
    task: Task = networks.task(spec, network, training, validation)
    training_run = Run(task, recipe, state)
    try:
        training_run.train(report)
    except KeyboardInterrupt:
        epochs = len(training_run.curve)
        raise networks.Stopped(epochs, recipe.epochs, None, state) from None
    best = training_run.best
    assert best is not None
    right = evaluate(network, test, task.inputs)[1]
    weights = {k: v.contiguous() for k, v in network.state_dict().items()}
    write_atomically(output, safetensors.torch.save(weights))
    state.unlink(missing_ok=True)
    return networks.Outcome((best.correct, best.total), (right, len(test)))


def load(path: Path, *, compiled: bool) -> Callable[[Tensor], Tensor]:
    """Return what gives the teacher's logits of inputs (n, 3, 32, 32), without gradients.

    Raises: CheckpointError: the file is none that ``run`` wrote.
    """
    network = Teacher().to(memory_format=torch.channels_last)
    try:
        content = read_regular(path, _LARGEST, error=CheckpointError)
        network.load_state_dict(safetensors.torch.load(content))
    except (safetensors.SafetensorError, RuntimeError) as error:
        raise CheckpointError(
            f"{path}: is not a teacher's file ({type(error).__name__}); "
            f"`bitinfer train {NAME}` writes one"
        ) from None
    network.eval().requires_grad_(requires_grad=False)
    forward = torch.compile(network, fullgraph=True, dynamic=False) if compiled else network
    return partial(_ask, forward)


@torch.no_grad()
def _ask(forward: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    return forward(x)

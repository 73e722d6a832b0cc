"""``bitinfer train``: trains one of bitinfer's recipes and writes its model file."""

from __future__ import annotations

import argparse
import contextlib
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bitinfer.cli._common import add_quiet, positive
from bitinfer.cli._terminal import printable, progress

if TYPE_CHECKING:
    from bitinfer.train.loop import Step

RECIPES = ("lenet5-mnist",)

_MAX_SEED = (1 << 63) - 1
_MAX_THREADS = 256
"""As bitinfer.load takes them."""


def add_parser(subparsers: Any) -> None:
    """Register the command and its arguments."""
    parser = subparsers.add_parser(
        "train",
        help="train a network and write its model file",
        description="Train one of bitinfer's recipes with PyTorch and write a model file. "
        "lenet5-mnist is XNOR-Net's LeNet-5; --data names the directory with MNIST's "
        "four files (train-images-idx3-ubyte.gz and so on).",
    )
    parser.add_argument("recipe", choices=RECIPES, metavar="RECIPE", help=", ".join(RECIPES))
    parser.add_argument(
        "--data", type=Path, required=True, metavar="DIR", help="directory of the training data"
    )
    parser.add_argument(
        "-o", "--output", type=Path, required=True, metavar="FILE", help="model file to write"
    )
    parser.add_argument(
        "--epochs", type=positive, metavar="N", help="passes over the data (default: the recipe's)"
    )
    parser.add_argument(
        "--seed", type=_seed, default=0, metavar="N", help="of all random choices (default: 0)"
    )
    parser.add_argument(
        "--threads",
        type=_threads,
        default=1,
        metavar="N",
        help="threads of PyTorch (default: 1); another number rounds differently, so it trains "
        "another network",
    )
    add_quiet(parser)


def run(args: argparse.Namespace) -> int:
    """Train, write the model file and print the accuracy; return the exit code."""
    from bitinfer import files
    from bitinfer.errors import MissingExtraError

    files.check_outputs({"--output": args.output}, sorted(args.data.glob("*idx*")))
    try:
        from bitinfer.train.loop import Recipe
        from bitinfer.train.recipes import lenet5_mnist
    except ModuleNotFoundError as error:
        if error.name != "torch":
            raise
        raise MissingExtraError("training needs PyTorch, which is not installed", "train") from None

    recipe = Recipe(seed=args.seed)
    if args.epochs is not None:
        recipe = Recipe(seed=args.seed, epochs=args.epochs)
    start = time.monotonic()
    with contextlib.ExitStack() as stack:
        outcome = lenet5_mnist.run(
            args.data,
            args.output,
            recipe,
            threads=args.threads,
            report=_reporter(stack, quiet=args.quiet),
        )
    seconds = int(time.monotonic() - start)
    print(f"validation accuracy {_accuracy(outcome.validation)}")
    print(f"test accuracy {_accuracy(outcome.test)}")
    print(
        f"{printable(str(args.output))}: {args.output.stat().st_size / 1000:.1f} kB, "
        f"trained in {seconds // 60} min {seconds % 60} s"
    )
    return 0


def _reporter(stack: contextlib.ExitStack, *, quiet: bool) -> Callable[[Step], None]:
    """Return what shows a step; the display lives until ``stack`` is closed."""
    show: Callable[[int, str], None] | None = None
    validation = ""

    def report(step: Step) -> None:
        nonlocal show, validation
        if show is None:
            # The number of steps is known only once the data has been read.
            show = stack.enter_context(progress(step.epochs * step.steps, quiet=quiet))
        if step.validation is not None:
            validation = f", validation {_accuracy(step.validation)}"
        done = (step.epoch - 1) * step.steps + step.step
        show(done, f"epoch {step.epoch} of {step.epochs}, loss {step.loss:.3f}{validation}")

    return report


def _accuracy(result: tuple[int, int]) -> str:
    correct, total = result
    return f"{100 * correct / total:.2f} % ({correct} of {total})"


def _threads(text: str) -> int:
    value = positive(text)
    if value > _MAX_THREADS:
        raise argparse.ArgumentTypeError(
            f"{value} threads, wanted 1 to {_MAX_THREADS}; PyTorch dies of many more"
        )
    return value


def _seed(text: str) -> int:
    value = int(text) if text.isascii() and text.isdigit() and len(text) < 20 else -1
    if not 0 <= value <= _MAX_SEED:
        raise argparse.ArgumentTypeError(
            f"'{printable(text)}' is not an integer within 0 to {_MAX_SEED}"
        )
    return value

"""``bitinfer train``: trains one of bitinfer's recipes and writes its model file or picture."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import functools
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bitinfer.cli._common import add_quiet, positive
from bitinfer.cli._terminal import note, printable, progress, table

if TYPE_CHECKING:
    from bitinfer.train.loop import Step
    from bitinfer.train.recipes.mlp_cifar10 import Row

NETWORKS = (
    "lenet5-mnist",
    "nin-cifar10",
    "vgg-small-cifar10",
    "bitres8-cifar10",
    "bitres11-cifar10",
    "bitres20-cifar10",
)
TEACHER = "teacher-cifar10"
RECIPES = (*NETWORKS, TEACHER, "half-moon", "mlp-cifar10")

_MAX_SEED = (1 << 63) - 1
_MAX_THREADS = 256
"""As bitinfer.load takes them."""


def add_parser(subparsers: Any) -> None:
    """Register the command and its arguments."""
    parser = subparsers.add_parser(
        "train",
        help="train a network and write its model file",
        description="Train one of bitinfer's recipes. Networks are written as model files, with "
        "their curves (.csv, .png) beside; a run that is stopped goes on with the same command. "
        "teacher-cifar10 writes the weights of a float network for --teacher. "
        "half-moon and mlp-cifar10 train plain networks by hand and write a picture. --data "
        "names the directory with MNIST's four files or with CIFAR-10's binary version.",
    )
    parser.add_argument("recipe", choices=RECIPES, metavar="RECIPE", help=", ".join(RECIPES))
    parser.add_argument(
        "--data",
        type=Path,
        metavar="DIR",
        help="directory of the training data (not for half-moon)",
    )
    parser.add_argument(
        "-o", "--output", type=Path, required=True, metavar="FILE", help="file to write"
    )
    parser.add_argument(
        "--epochs", type=positive, metavar="N", help="passes over the data (default: the recipe's)"
    )
    parser.add_argument(
        "--real-epochs",
        type=positive,
        metavar="N",
        help="of bitres networks: epochs with real weights before those (default: the recipe's, or "
        "--epochs if that is less)",
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
    parser.add_argument(
        "--no-compile",
        action="store_true",
        help="do not compile the steps for CIFAR-10 (which takes a C++ compiler): slower, "
        "and another network",
    )
    parser.add_argument(
        "--teacher",
        type=Path,
        metavar="FILE",
        help="of bitres networks: what teacher-cifar10 wrote; its opinion of every altered picture "
        "is learned beside the label",
    )
    parser.add_argument(
        "--from",
        dest="start",
        type=Path,
        metavar="MODEL",
        help="of bitres networks: begin with the weights of a model file that the same recipe "
        "wrote, as the zoo's, in place of the epochs with real weights",
    )
    parser.add_argument("--activation", metavar="NAME", help="of half-moon (default: relu)")
    parser.add_argument("--loss", metavar="NAME", help="of half-moon (default: cross-entropy)")
    parser.add_argument("--optimiser", metavar="NAME", help="of half-moon (default: adam)")
    parser.add_argument("--rate", type=_rate, metavar="X", help="of half-moon (default: 0.01)")
    add_quiet(parser)


def run(args: argparse.Namespace) -> int:
    """Train, write what the recipe makes, and print what it came to; return the exit code."""
    from bitinfer import files
    from bitinfer.errors import UsageError

    inputs = [] if args.data is None else sorted(args.data.glob("*"))
    inputs += [] if args.start is None else [args.start]
    files.check_outputs({"--output": args.output}, inputs)
    of_half_moon = {n: getattr(args, n) for n in ("activation", "loss", "optimiser", "rate")}
    if args.recipe == "half-moon":
        return _half_moon(args, of_half_moon)
    given = next((name for name, value in of_half_moon.items() if value is not None), None)
    if given is not None:
        raise UsageError(f"--{given} is of half-moon alone, not of {args.recipe}; leave it out")
    for option, value in (("--real-epochs", args.real_epochs), ("--from", args.start)):
        if value is not None and not args.recipe.startswith("bitres"):
            raise UsageError(f"{option} is of bitres networks, not of {args.recipe}; leave it out")
    if args.real_epochs is not None and args.start is not None:
        raise UsageError("--from takes the place of --real-epochs; leave one of them out")
    if args.data is None:
        raise UsageError(
            f"{args.recipe} needs --data, the directory of "
            + ("MNIST" if args.recipe == "lenet5-mnist" else "CIFAR-10")
        )
    return _mlp(args) if args.recipe == "mlp-cifar10" else _network(args)


def _network(args: argparse.Namespace) -> int:
    from bitinfer import modelfile
    from bitinfer.errors import MissingExtraError, UsageError

    try:
        from bitinfer.train.recipes import networks, teacher
    except ModuleNotFoundError as error:
        if error.name != "torch":
            raise
        raise MissingExtraError("training needs PyTorch, which is not installed", "train") from None

    is_teacher = args.recipe == TEACHER
    recipe = teacher.RECIPE if is_teacher else networks.SPECS[args.recipe].recipe
    recipe = dataclasses.replace(recipe, seed=args.seed)
    if args.epochs is not None:
        real = min(recipe.real_epochs, args.epochs)
        recipe = dataclasses.replace(recipe, epochs=args.epochs, real_epochs=real)
    if args.real_epochs is not None:
        recipe = dataclasses.replace(recipe, real_epochs=args.real_epochs)
    start_from = None
    if args.start is not None:
        start_from = modelfile.load(args.start)
        recipe = dataclasses.replace(recipe, real_epochs=0)
    if args.no_compile:
        recipe = dataclasses.replace(recipe, compiled=False)
    if args.teacher is not None and not recipe.distillation:
        raise UsageError(f"--teacher is of bitres networks, not of {args.recipe}; leave it out")
    train: Callable[..., networks.Outcome] = teacher.run
    if not is_teacher:
        asked = args.teacher and teacher.load(args.teacher, compiled=recipe.compiled)
        train = functools.partial(networks.run, args.recipe, teacher=asked, start=start_from)
    start = time.monotonic()
    try:
        with contextlib.ExitStack() as stack:
            outcome = train(
                args.data,
                args.output,
                recipe,
                threads=args.threads,
                report=_reporter(stack, quiet=args.quiet),
            )
    except networks.Stopped as stopped:
        if stopped.epoch == 0:
            note("stopped within the first epoch; nothing is kept")
        elif stopped.best is None:
            note(
                f"stopped behind epoch {stopped.epoch} of {stopped.epochs}, before there is a "
                f"model; the same command goes on from {stopped.state}"
            )
        else:
            note(
                f"stopped behind epoch {stopped.epoch} of {stopped.epochs}; {args.output} is the "
                f"best so far, validation accuracy {_accuracy(stopped.best)}; the same command "
                f"goes on from {stopped.state}"
            )
        raise
    print(f"validation accuracy {_accuracy(outcome.validation)}")
    print(f"test accuracy {_accuracy(outcome.test)}")
    seconds = int(time.monotonic() - start)
    print(
        f"{printable(str(args.output))}: {args.output.stat().st_size / 1000:.1f} kB, "
        f"trained in {seconds // 60} min {seconds % 60} s"
    )
    return 0


def _half_moon(args: argparse.Namespace, options: dict[str, Any]) -> int:
    from bitinfer import names
    from bitinfer.train import by_hand
    from bitinfer.train.recipes import half_moon

    known = {
        "activation": by_hand.ACTIVATIONS[:-1],  # the last, sign, is the twin's
        "loss": by_hand.LOSSES,
        "optimiser": by_hand.OPTIMISERS,
    }
    for name, choices in known.items():
        if options[name] is not None and options[name] not in choices:
            raise names.unknown(name, options[name], choices)
    chosen = {k: v for k, v in options.items() if v is not None and k != "activation"}
    if args.epochs is not None:
        chosen["epochs"] = args.epochs
    settings = dataclasses.replace(half_moon.DEFAULTS, seed=args.seed, **chosen)
    activation = options["activation"] or "relu"
    outcome = half_moon.run(args.output, settings, activation=activation)
    print(f"{activation}: {_accuracy(outcome.real)} of unseen points")
    print(f"binary twin: {_accuracy(outcome.binary)}")
    print(printable(str(args.output)))
    return 0


def _mlp(args: argparse.Namespace) -> int:
    from bitinfer.train.recipes import mlp_cifar10

    def report(done: int, total: int, row: Row) -> None:
        show(done, f"{row.varied}: validation {100 * row.validation:.1f} %")

    epochs = args.epochs or mlp_cifar10.EPOCHS
    with progress(_sweep_size(mlp_cifar10.SWEEP), quiet=args.quiet) as show:
        rows = mlp_cifar10.run(args.data, args.output, epochs=epochs, seed=args.seed, report=report)
    cells = [["varied", "value", "training %", "validation %", "seconds"]]
    for row in rows:
        value = str(getattr(row.setting, row.varied))
        shares = (f"{100 * row.training:.1f}", f"{100 * row.validation:.1f}", f"{row.seconds:.1f}")
        cells.append([row.varied, value, *shares])
    print("\n".join(table(cells, right=frozenset((2, 3, 4)))))
    print(printable(str(args.output)))
    return 0


def _sweep_size(sweep: dict[str, tuple[Any, ...]]) -> int:
    return sum(len(values) for values in sweep.values())


def _reporter(stack: contextlib.ExitStack, *, quiet: bool) -> Callable[[Step], None]:
    """Return what shows a step; the display lives until ``stack`` is closed."""
    show: Callable[[int, str], None] | None = None
    shown = 0
    validation = ""
    warned: set[str] = set()

    def report(step: Step) -> None:
        nonlocal show, shown, validation
        if show is None or shown != step.epochs * step.steps:
            # Known only once the data has been read; epochs with real weights are counted alone.
            stack.close()
            shown = step.epochs * step.steps
            show = stack.enter_context(progress(shown, quiet=quiet))
        if step.end is not None:
            validation = f", validation {_accuracy((step.end.correct, step.end.total))}"
        if step.warning is not None:
            kind = step.warning.partition(" ")[0]
            if kind not in warned:
                warned.add(kind)
                note(step.warning)
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


def _rate(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < 1e6:
        raise argparse.ArgumentTypeError(f"'{printable(text)}' is not a number above 0")
    return value

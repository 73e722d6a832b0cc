"""``bitinfer zoo``: the trained models that are installed with bitinfer."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bitinfer.cli import _common
from bitinfer.cli._terminal import printable, show, table

if TYPE_CHECKING:
    from bitinfer.zoo.shipped import Shipped


def add_parser(subparsers: Any) -> None:
    """Register the command and its arguments."""
    parser = subparsers.add_parser(
        "zoo",
        help="list the trained models that come along, or get one",
        description="'zoo list' lists the trained models that are installed with bitinfer, with "
        "the accuracy measured on the test pictures; 'zoo get NAME' writes one as a file of yours, "
        "with its card, which says how it was trained and what it is not for, beside it.",
    )
    parser.add_argument("action", choices=("list", "get"), metavar="ACTION", help="list or get")
    parser.add_argument("name", nargs="?", metavar="NAME", help="of the model to get")
    parser.add_argument(
        "-o", "--output", type=Path, metavar="FILE", help="file to write (default: NAME.bin)"
    )
    _common.add_json(parser, "zoo")


def run(args: argparse.Namespace) -> int:
    """List the models, or write one."""
    from bitinfer.errors import UsageError
    from bitinfer.zoo.shipped import SHIPPED, find_shipped

    if args.action == "list":
        if args.name is not None or args.output is not None:
            raise UsageError("'zoo list' takes no name and no file; 'zoo get NAME' gets a model")
        models = tuple(SHIPPED.values())
    else:
        if args.name is None:
            raise UsageError(f"'zoo get' wants a name: {', '.join(SHIPPED)}")
        model = find_shipped(args.name)
        models = (model,)
        _get(model, args.output or Path(f"{model.name}.bin"), quiet=args.json)
    if args.json:
        _print_json(models)
    elif args.action == "list":
        _print_table(models)
    return 0


def _get(model: Shipped, output: Path, *, quiet: bool) -> None:
    from bitinfer.errors import OutputError
    from bitinfer.files import check_writable, refuse_dash, write_atomically

    refuse_dash("--output", output)
    check_writable(output)
    card = output.with_suffix(".md")
    if card == output:
        card = output.with_name(output.name + ".md")
    if card.exists() and card.read_bytes() != model.card.read_bytes():
        raise OutputError(
            f"{printable(str(card))}: the model's card would replace this file; name another -o"
        )
    write_atomically(output, model.path.read_bytes())
    write_atomically(card, model.card.read_bytes())
    if not quiet:
        print(f"{printable(str(output))}: {_accuracy(model)}; its card is {printable(str(card))}")


def _print_json(models: tuple[Shipped, ...]) -> None:
    from bitinfer.documents import SCHEMA_VERSION
    from bitinfer.documents import models as documents

    described = tuple(
        documents.ZooModel(
            name=model.name,
            path=str(model.path),
            sha256=_common.file_sha256(str(model.path)),
            bytes=model.path.stat().st_size,
            architecture=model.architecture,
            data_set=model.data_set,
            correct=model.correct,
            total=model.total,
        )
        for model in models
    )
    _common.print_json(documents.Zoo(schema_version=SCHEMA_VERSION, models=described))


def _print_table(models: tuple[Shipped, ...]) -> None:
    rows = [["model", "architecture", "data set", "size", "test accuracy"]]
    for model in models:
        size = f"{model.path.stat().st_size / 1000:.0f} kB"
        rows.append([model.name, model.architecture, model.data_set, size, _accuracy(model)])
    show([[(line, "")] for line in table(rows, right=frozenset((3,)))])


def _accuracy(model: Shipped) -> str:
    low, high = (f"{100 * share:.2f}" for share in model.interval)
    return (
        f"{100 * model.correct / model.total:.2f} % ({model.correct} of {model.total}; "
        f"95 % interval {low} to {high} %)"
    )

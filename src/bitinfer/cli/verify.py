"""``bitinfer verify``: proves that a model computes what its source computes."""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bitinfer.cli import _common
from bitinfer.cli._terminal import busy, printable, show
from bitinfer.cli.convert import add_source_options, source_options

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from bitinfer.documents.verification import Verify
    from bitinfer.model import Model
    from bitinfer.verify import Verification
    from bitinfer.verify.runtime import RuntimeCheck

DIFFERENT = 3
"""Exit code where model and source are not equal."""


def add_parser(subparsers: Any) -> None:
    """Register the command and its arguments."""
    parser = subparsers.add_parser(
        "verify",
        help="prove that a model computes what its source computes",
        description="Run SOURCE in float64, as its framework defines it, and MODEL as it is run "
        "here, on the same inputs; compare every sign and the outputs. Where they part, the layer "
        "is named and what could explain it is tried. The exit code is 3 if they differ.",
    )
    parser.add_argument("model", metavar="MODEL", help="model file")
    parser.add_argument("source", type=Path, metavar="SOURCE", help="what it was converted from")
    add_source_options(parser)
    parser.add_argument(
        "--images", metavar="DATA", help="labelled pictures, as for 'bitinfer eval', as inputs"
    )
    parser.add_argument(
        "--samples",
        type=_common.positive,
        default=8,
        metavar="N",
        help="how many inputs (default: 8)",
    )
    parser.add_argument(
        "--python",
        metavar="FILE",
        help="interpreter of the environment in which the source's framework is installed "
        "(default: this one; torch is always that of this one)",
    )
    parser.add_argument("--html", metavar="FILE", help="write a page with maps of signs")
    _common.add_backend(parser)
    _common.add_json(parser, "verify")
    _common.add_quiet(parser)


def run(args: argparse.Namespace) -> int:
    """Compare, and print or write what was found; returns the exit code."""
    from bitinfer import files, session
    from bitinfer.importers.convert import read_network
    from bitinfer.verify import verify
    from bitinfer.verify.runtime import by_framework

    files.check_outputs({"--html": args.html}, (args.model, args.source, args.network, args.images))
    loaded = session.load(args.model, args.backend)
    with busy(f"verifying {args.model}", quiet=args.quiet):
        source = read_network(args.source, source_options(args))
        x = _inputs(loaded.model, args.images, args.samples)
        result = verify(loaded.model, source, x, args.backend)
        own = _common.main_output(loaded, loaded.run(x))
        runtime = by_framework(
            args.source, source, x, own, network=args.network, python=args.python
        )
    if args.html is not None:
        from bitinfer.verify.page import html

        page = html(result, Path(args.model).name, args.source.name, runtime)
        files.write_atomically(args.html, page.encode())
    if args.json:
        _common.print_json(_document(args, loaded.backend, result, runtime))
    elif not args.quiet or not result.is_equal:
        from bitinfer.verify.page import lines

        found = lines(result, args.model, str(args.source), runtime)
        show([[(printable(line), "")] for line in found])
    return 0 if result.is_equal else DIFFERENT


def _inputs(model: Model, images: str | None, samples: int) -> NDArray[np.float32]:
    import numpy as np

    from bitinfer import datasets
    from bitinfer.errors import DataError
    from bitinfer.verify import normalised, random_inputs

    if images is None:
        return random_inputs(model, samples)
    parts = [pixels for pixels, _ in datasets.load(images, model, limit=samples)]
    if not parts or model.preprocessing is None:
        raise DataError(f"{images}: no picture can be read")
    return normalised(model.preprocessing, np.concatenate(parts))


def _document(
    args: argparse.Namespace, backend: str, result: Verification, runtime: RuntimeCheck | None
) -> Verify:
    from msgspec import UNSET

    from bitinfer.documents import SCHEMA_VERSION, verification
    from bitinfer.verify import page

    first = result.first
    return verification.Verify(
        schema_version=SCHEMA_VERSION,
        model=_common.model_file(args.model),
        source=str(args.source),
        backend=backend,
        equal=result.is_equal,
        samples=result.samples,
        left_out=result.left_out,
        ties=result.ties,
        largest_difference=result.largest,
        largest_output=result.output_scale,
        same_answers=result.same_answers,
        signs=tuple(verification.SignCheck(**dataclasses.asdict(c)) for c in result.signs),
        ran=page.ran(runtime),
        runtime=UNSET
        if runtime is None
        else verification.RuntimeCheck(**dataclasses.asdict(runtime)),
        first_difference=UNSET
        if first is None
        else verification.FirstDifference(
            name=first.name, layers=first.layers, explanations=first.explanations
        ),
    )

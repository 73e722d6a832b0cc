"""``bitinfer batch``: classifies many pictures into a Parquet file."""

from __future__ import annotations

import argparse
import contextlib
import os
from typing import TYPE_CHECKING, Any

from bitinfer.cli import _common, _inputs
from bitinfer.cli._terminal import note, printable, progress, report

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bitinfer.batch import Compute, Input
    from bitinfer.session import Session

_EPILOG = """inputs:
  as for 'bitinfer run': pictures, folders (the pictures in them and their subfolders), quoted globs

A picture that cannot be read has an error in its row, and the others are done. When the command is
interrupted or killed, the same command goes on where it was, and writes the same file. The exit
code is 4 if none of the inputs can be read, 5 if some of them cannot.
"""


def add_parser(subparsers: Any) -> None:
    """Register the command and its arguments."""
    parser = subparsers.add_parser(
        "batch",
        help="classify many pictures into a Parquet file",
        description="Classify many pictures into a Parquet file, a row for each in the order of "
        "the inputs. Needs the extra 'batch'.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("model", metavar="MODEL", help="model file")
    parser.add_argument("inputs", metavar="INPUT", nargs="+", help="picture, folder or glob")
    parser.add_argument(
        "-o", "--output", required=True, metavar="OUT.parquet", help="file to write"
    )
    parser.add_argument(
        "-k",
        "--top-k",
        type=_common.positive,
        default=5,
        metavar="K",
        help="how many classes to name for each picture (default: 5)",
    )
    parser.add_argument(
        "--threads",
        type=_common.count,
        default=0,
        metavar="N",
        help="threads (default: 0, as many as this process may use CPUs)",
    )
    parser.add_argument(
        "--restart", action="store_true", help="forget what an interrupted batch has done"
    )
    parser.add_argument(
        "--ray",
        action="store_true",
        help="compute on the Ray cluster that RAY_ADDRESS names, or on one of this machine's own; "
        "every node must see the model and the inputs under the same paths; needs the extra 'ray'",
    )
    parser.add_argument(
        "--replicas",
        type=_common.positive,
        default=2,
        metavar="N",
        help="processes of the cluster, with --ray (default: 2)",
    )
    _common.add_backend(parser)
    _common.add_quiet(parser)


def run(args: argparse.Namespace) -> int:
    """Classify all inputs, write the file and return the exit code."""
    from bitinfer import backends, batch, files
    from bitinfer.errors import UsageError
    from bitinfer.session import Session

    if args.ray and args.threads:
        raise UsageError("--threads and --ray do not go together; --replicas are the cluster's")
    args.threads = backends.resolve_threads(args.threads)
    session = Session(_common.picture_model(args.model), args.backend)
    passed_over: list[str] = []
    inputs = _listed(args.inputs, passed_over)
    files.check_writable(args.output)  # a folder is none, whether it is an input or not
    files.check_outputs({"--output": args.output}, (args.model, *args.inputs))
    if not args.quiet:
        _common.note_passed_over(passed_over)
    with contextlib.ExitStack() as stack:
        compute = _compute(args, session, stack)
        show = stack.enter_context(progress(len(inputs), quiet=args.quiet))
        try:
            outcome = batch.run(
                inputs,
                args.output,
                compute,
                session=session,
                top_k=args.top_k,
                restart=args.restart,
                report=lambda done, failed: show(done, f"{failed} failed"),
            )
        except KeyboardInterrupt:
            note("interrupted; the same command goes on from here")
            raise
    if outcome.found and not args.quiet:
        note(f"{outcome.found} of {len(inputs)} had been done before")
    print(f"{printable(args.output)}: {outcome.done} pictures, {outcome.failed} failed")
    if outcome.failed:
        report(f"{outcome.failed} of {len(inputs)} inputs failed; the column 'error' says why")
        return 5 if outcome.done else 4
    return 0


def _compute(args: argparse.Namespace, session: Session, stack: contextlib.ExitStack) -> Compute:
    """Return what computes parts: threads here, or a cluster until ``stack`` is left."""
    from bitinfer import batch

    if not args.ray:
        session.bind(pixels=True)
        return batch.threaded(session, args.threads, args.top_k)
    from bitinfer import ray

    stack.enter_context(ray.connected())
    model = os.path.abspath(args.model)  # noqa: PTH100 - as others of the cluster open it
    return ray.clustered(model, args.replicas, args.top_k, args.backend)


def _listed(inputs: Sequence[str], passed_over: list[str]) -> list[Input]:
    from bitinfer.batch import Input
    from bitinfer.errors import UsageError

    if "-" in inputs:
        raise UsageError("batch: pictures come from files; 'bitinfer run' takes one from stdin")
    found = (
        Input(os.path.abspath(name), "" if problem is None else str(problem))  # noqa: PTH100
        for name, problem in _inputs.expand(inputs, passed_over, globs=True)
    )
    return list(found)

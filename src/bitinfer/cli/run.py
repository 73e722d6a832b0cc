"""``bitinfer run``: says what is in pictures."""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bitinfer.cli import _annotations, _common, _inputs, _results
from bitinfer.cli._results import Result
from bitinfer.cli._terminal import note, printable, report, status

if TYPE_CHECKING:
    from bitinfer.session import Session

_EPILOG = """inputs:
  a picture (PNG, JPEG, WebP, BMP, binary PNM), a folder (the pictures in it and its subfolders,
  by their first bytes), a quoted glob such as 'photos/**/*.png' (files only; folders that exist as
  they are written are meant so, brackets included), or - for the bytes of one picture on stdin

Results appear one by one; inputs that cannot be read are reported on stderr, and the others are
done. Files in folders that are no pictures are passed over, counted and named. The exit code is 4
if none of the inputs can be read, 5 if some of them cannot, and 1 if a picture of --annotate cannot
be written; the others are.
The JSON stays valid when the command is interrupted: it then ends early (exit code 130).
"""


def add_parser(subparsers: Any) -> None:
    """Register the command and its arguments."""
    parser = subparsers.add_parser(
        "run",
        help="say what is in pictures",
        description="Classify pictures with a model file.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("model", metavar="MODEL", help="model file")
    parser.add_argument("inputs", metavar="INPUT", nargs="*", help="picture, folder, glob or -")
    parser.add_argument(
        "--files-from",
        metavar="FILE",
        help="read further inputs from a file, or from stdin if it is -: pictures and folders, one "
        "per line or with a NUL after each, as 'find -print0' writes them",
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
        "--scores",
        action="store_true",
        help="also show what the network gave for each class, before it became a probability",
    )
    parser.add_argument(
        "--annotate",
        metavar="DIR",
        type=Path,
        help="also write each picture with its labels below, as PNG, into a new folder",
    )
    _common.add_ground(parser)
    _common.add_threads(parser)
    _common.add_backend(parser)
    _common.add_json(parser, "run")
    parser.add_argument(
        "--jsonl",
        action="store_true",
        help="print each result as JSON on a line of its own: one of the results of --json",
    )
    parser.add_argument(
        "--csv", action="store_true", help="print a table: a row for each class that is named"
    )
    _common.add_quiet(parser)


def run(args: argparse.Namespace) -> int:
    """Classify every input as it comes, and return the exit code."""
    _check(args)
    from PIL import Image

    listed = [] if args.files_from is None else _inputs.read_list(args.files_from)
    session = _common.load_session(args)
    # What is done once is not part of the first picture's stages: importing decoders, and binding
    # the network.
    Image.preinit()
    session.bind(pixels=True)
    folder = None if args.annotate is None else _annotations.Folder(args.annotate)
    done = failed = unwritten = 0
    passed_over: list[str] = []
    sink = _sink(args, session)
    try:
        with _counted(quiet=args.quiet) as show:
            for inputs, globs in ((args.inputs, True), (listed, False)):
                for name, problem in _inputs.expand(inputs, passed_over, globs=globs):
                    if folder is not None and folder.holds(name):
                        continue
                    result = (
                        _classify(session, name, args.top_k, folder, may_be_stdin=globs)
                        if problem is None
                        else Result(name, error=problem)
                    )
                    if result.is_lost and not args.quiet:
                        note(_lost(session, name))
                    if result.error is None:
                        done += 1
                    else:
                        failed += 1
                        report(str(result.error))
                    if result.unwritten is not None:
                        unwritten += 1
                        report(f"{printable(name)}: not annotated: {result.unwritten}")
                    sink.add(result)
                    show(f"{done + failed} inputs done")
    except BrokenPipeError:
        raise
    except BaseException:
        sink.end(passed_over)
        raise
    sink.end(passed_over)
    if not args.quiet:
        _common.note_passed_over(passed_over)
        if failed and done + failed > 1:
            note(f"{failed} of {done + failed} inputs failed")
        if folder is not None:
            missing = f", {unwritten} could not be" if unwritten else ""
            note(f"{folder.count} annotated in {args.annotate}{missing}")
    if unwritten:
        return 1
    if failed:
        return 5 if done else 4
    return 0


@contextlib.contextmanager
def _counted(*, quiet: bool) -> Iterator[Callable[[str], None]]:
    """Yield what shows how far it is, unless the results on the same terminal do."""
    if quiet or (sys.stdout is not None and sys.stdout.isatty()):
        yield lambda text: None
        return
    with status() as show:
        yield show


def _check(args: argparse.Namespace) -> None:
    from bitinfer.errors import UsageError

    if not args.inputs and args.files_from is None:
        raise UsageError("run: INPUT is missing: pictures, folders, globs or -; or --files-from")
    if args.files_from == _inputs.STDIN and _inputs.STDIN in args.inputs:
        raise UsageError("run: a picture and the list of inputs cannot both come on stdin")
    formats = [f"--{name}" for name in ("json", "jsonl", "csv") if getattr(args, name)]
    if len(formats) > 1:
        raise UsageError(f"run: {' and '.join(formats)} do not go together")


def _sink(args: argparse.Namespace, session: Session) -> _results.Sink:
    if args.json:
        return _results.Json(args.model, session.backend)
    if args.jsonl:
        return _results.JsonLines()
    if args.csv:
        return _results.Csv()
    return _results.Text(session, scores=args.scores)


def _classify(
    session: Session,
    name: str,
    top_k: int,
    folder: _annotations.Folder | None,
    *,
    may_be_stdin: bool,
) -> Result:
    from bitinfer.errors import BitInferError, OutputError
    from bitinfer.session import require_finite

    try:
        if may_be_stdin and name == _inputs.STDIN:
            source = _inputs.binary_stdin("the bytes of a picture")
            found = session.examine(source, top_k, name="standard input")
        else:
            found = session.examine(name, top_k)
        require_finite(found.predictions, name)
    except BitInferError as error:
        return Result(name, error=error)
    ms = {
        stage: round(1000 * seconds, 3)
        for stage, seconds in zip(_results.STAGES, found.seconds, strict=True)
    }
    annotated = unwritten = None
    try:
        annotated = None if folder is None else folder.add(name, found)
    except OutputError as error:  # what the picture shows is known all the same
        unwritten = error
    return Result(
        name,
        found.size,
        found.predictions,
        ms,
        is_lost=found.is_lost,
        annotated=annotated,
        unwritten=unwritten,
    )


def _lost(session: Session, name: str) -> str:
    p = session.model.preprocessing
    assert p is not None  # as _common.load_session made sure
    other = "black" if p.ground == "white" else "white"
    return (
        f"{name}: all that is not transparent is {p.ground} too, so that nothing is seen of it; "
        f"see --ground {other} and --invert"
    )

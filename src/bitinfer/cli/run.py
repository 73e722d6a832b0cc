"""``bitinfer run``: says what is in pictures."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import glob
import itertools
import math
import os
import sys
import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from bitinfer.cli import _common
from bitinfer.cli._terminal import Span, note, printable, report, show

if TYPE_CHECKING:
    from bitinfer.errors import BitInferError
    from bitinfer.session import Prediction, Session

_STDIN = "-"
_BAR = 20
_LABEL = 40
_END = "]}"
"""Of the JSON, whose last field are the results."""
_STAGES = ("decode", "preprocess", "inference")

_EPILOG = """inputs:
  a picture (PNG, JPEG, WebP, BMP, binary PNM), a folder (the pictures in it and its subfolders,
  by suffix), a quoted glob such as 'photos/**/*.png' (files only), or - for the bytes of one
  picture on stdin

Results appear one by one; inputs that cannot be read are reported on stderr, and the others are
done. The exit code is 4 if none of the inputs can be read, 5 if some of them cannot.
The JSON stays valid when the command is interrupted: it then ends early (exit code 130).
"""


@dataclasses.dataclass(frozen=True)
class _Result:
    name: str
    size: tuple[int, int] = (0, 0)
    predictions: Sequence[Prediction] = ()
    ms: dict[str, float] = dataclasses.field(default_factory=dict)
    error: BitInferError | None = None


class _Output(Protocol):
    def add(self, result: _Result) -> None: ...


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
    parser.add_argument("inputs", metavar="INPUT", nargs="+", help="picture, folder, glob or -")
    parser.add_argument(
        "-k",
        "--top-k",
        type=_common.positive,
        default=5,
        metavar="K",
        help="how many classes to name for each picture (default: 5)",
    )
    _common.add_backend(parser)
    _common.add_json(parser, "run")
    _common.add_quiet(parser)


def run(args: argparse.Namespace) -> int:
    """Classify every input as it comes, and return the exit code."""
    from PIL import Image

    session = _common.load_session(args.model, args.backend)
    # What is done once is not part of the first picture's stages: importing decoders, and binding
    # the network.
    Image.preinit()
    session.bind(pixels=True)
    done = failed = 0
    output: contextlib.AbstractContextManager[_Output] = (
        _JsonOutput(args.model, session.backend)
        if args.json
        else contextlib.nullcontext(_TextOutput(session))
    )
    with output as sink:
        for name, problem in _expand(args.inputs):
            result = (
                _classify(session, name, args.top_k)
                if problem is None
                else _Result(name, error=problem)
            )
            if result.error is None:
                done += 1
            else:
                failed += 1
                report(str(result.error))
            sink.add(result)
    if failed and done + failed > 1 and not args.quiet:
        note(f"{failed} of {done + failed} inputs failed")
    if failed:
        return 5 if done else 4
    return 0


def _classify(session: Session, name: str, top_k: int) -> _Result:
    from bitinfer import vision
    from bitinfer.errors import BitInferError

    clock = time.perf_counter
    try:
        start = clock()
        image = (
            vision.decode(_stdin(), name="standard input")
            if name == _STDIN
            else vision.decode(name)
        )
        decoded = clock()
        pixels = vision.prepare(
            image, session.model.preprocessing, session.inputs[0].shape, name=name
        )
        prepared = clock()
        output = session.run(pixels)
        finished = clock()
        predictions = session.predictions(_common.main_output(session, output), top_k)
        if not all(math.isfinite(p.probability) for p in predictions):
            raise BitInferError(f"{name}: the network's output is not finite; its values overflow")
    except BitInferError as error:
        return _Result(name, error=error)
    times = (start, decoded, prepared, finished)
    ms = {
        stage: round((after - before) * 1000, 3)
        for stage, before, after in zip(_STAGES, times, times[1:], strict=False)
    }
    return _Result(name, image.size, predictions, ms)


def _stdin() -> Any:
    from bitinfer.errors import ImageError

    if sys.stdin is None:
        raise ImageError("standard input: is closed; pipe the bytes of a picture into it")
    if sys.stdin.isatty():
        raise ImageError("standard input: is a terminal; pipe the bytes of a picture into it")
    return sys.stdin.buffer


def _expand(inputs: Sequence[str]) -> Iterator[tuple[str, BitInferError | None]]:
    """Yield the name of every picture, or what is wrong with an input that stands for none."""
    from bitinfer.errors import ImageError
    from bitinfer.vision import pictures_in

    problems: list[tuple[str, ImageError]] = []  # of subfolders
    for text in inputs:
        found = 0
        try:
            if text == _STDIN or os.path.isfile(text):  # noqa: PTH113 - a NUL is no error yet
                names: Iterator[str] = iter((text,))
            elif os.path.isdir(text):  # noqa: PTH112
                names = pictures_in(text, lambda *problem: problems.append(problem))
            elif glob.has_magic(text) and not os.path.lexists(text):
                # Path.glob takes no absolute pattern.
                matches = glob.glob(text, recursive=True)  # noqa: PTH207
                names = iter(sorted(p for p in matches if not os.path.isdir(p)))  # noqa: PTH112
            else:
                names = iter((text,))
            for name in itertools.chain(names, [None]):
                found += len(problems)
                yield from problems
                problems.clear()
                if name is not None:
                    found += 1
                    yield name, None
        except ImageError as error:
            yield text, error
            continue
        if not found:
            yield text, ImageError(f"{text}: no picture there; see 'bitinfer run --help'")


class _TextOutput:
    """A block of lines for every picture."""

    def __init__(self, session: Session) -> None:
        height, width = session.inputs[0].shape[:2]
        self._target = f"{width}x{height}"
        self._backend = session.backend

    def add(self, result: _Result) -> None:
        if result.error is not None:
            return
        width, height = result.size
        source = f"{width}x{height}"
        sizes = source if source == self._target else f"{source} -> {self._target}"
        lines: list[list[Span]] = [
            [(printable(result.name), "bold"), (f"  ({sizes})", "dim")],
        ]
        labels = [printable(p.label, _LABEL) for p in result.predictions]
        column = max(map(len, labels), default=0)
        for rank, (p, label) in enumerate(zip(result.predictions, labels, strict=True), start=1):
            filled = round(p.probability * _BAR)
            best = "bold green" if rank == 1 else ""
            lines.append(
                [
                    (f"{rank:4}  ", "dim"),
                    (label.ljust(column), best),
                    (f"  {100 * p.probability:5.1f} %  ", best),
                    ("#" * filled, "green"),
                    ("-" * (_BAR - filled), "dim"),
                ]
            )
        stages = " | ".join(f"{stage} {ms:.2f} ms" for stage, ms in result.ms.items())
        lines.append([(f"      {stages} | {self._backend}", "dim")])
        show(lines)


class _JsonOutput:
    """One JSON document, whose results are written as they come, each on a line of its own.

    The comma stands before a result and not after it: nobody knows yet whether another follows.
    """

    def __init__(self, model: str, backend: str) -> None:
        from bitinfer.documents import SCHEMA_VERSION, runs

        self._head = runs.Run(
            schema_version=SCHEMA_VERSION,
            model=_common.model_file(model),
            backend=backend,
            results=(),
        )
        self._separator = ""

    def __enter__(self) -> _JsonOutput:
        _write(f"{_common.to_json(self._head).removesuffix(_END)}\n")
        return self

    def __exit__(self, kind: object, error: object, traceback: object) -> None:
        if not isinstance(error, BrokenPipeError):
            _write(f"{_END}\n")

    def add(self, result: _Result) -> None:
        from bitinfer.documents import runs

        if result.error is None:
            record = runs.RunResult(
                input=result.name,
                predictions=tuple(result.predictions),
                ms=runs.StageTimes(**result.ms),
            )
        else:
            kind, message = type(result.error).__name__, str(result.error)
            failure = runs.Failure(type=kind, message=message)
            record = runs.RunResult(input=result.name, error=failure)
        separator, self._separator = self._separator, ","
        _write(f"{separator}{_common.to_json(record)}\n")


def _write(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()

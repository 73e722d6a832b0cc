"""What ``bitinfer run`` prints of every picture: text, JSON, JSON lines, CSV."""

from __future__ import annotations

import csv
import dataclasses
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

from bitinfer.cli import _common
from bitinfer.cli._terminal import Span, printable, show

if TYPE_CHECKING:
    from bitinfer.documents.runs import RunResult
    from bitinfer.errors import BitInferError
    from bitinfer.session import Prediction, Session

STAGES = ("decode", "preprocess", "inference")

_BAR = 20
_LABEL = 40
_END = "]}"
"""Of the JSON, whose last field are the results until something was passed over."""
_COLUMNS = ("input", "rank", "index", "label", "probability", "score", "error")


@dataclasses.dataclass(frozen=True)
class Result:
    """What came of one input: predictions, or an error; ``ms`` by stage.

    ``is_lost`` is as of session.Classification; ``annotated`` is the file with the labels
    drawn, ``unwritten`` why there is none although it was asked for.
    """

    name: str
    size: tuple[int, int] = (0, 0)
    predictions: Sequence[Prediction] = ()
    ms: dict[str, float] = dataclasses.field(default_factory=dict)
    error: BitInferError | None = None
    is_lost: bool = False
    annotated: str | None = None
    unwritten: BitInferError | None = None


class Sink(Protocol):
    """Where results go, one by one."""

    def add(self, result: Result) -> None:
        """Print a result."""

    def end(self, passed_over: Sequence[str]) -> None:
        """Print what comes last, also when the command is interrupted."""


class Text:
    """A block of lines for every picture; errors go to stderr alone."""

    def __init__(self, session: Session, *, scores: bool) -> None:
        height, width = session.inputs[0].shape[:2]
        self._target = f"{width}x{height}"
        self._backend = session.backend
        self._scores = scores

    def add(self, result: Result) -> None:
        """Print a result."""
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
            score = f"{p.score:12.6g}  " if self._scores else ""
            lines.append(
                [
                    (f"{rank:4}  ", "dim"),
                    (label.ljust(column), best),
                    (f"  {100 * p.probability:5.1f} %  {score}", best),
                    ("#" * filled, "green"),
                    ("-" * (_BAR - filled), "dim"),
                ]
            )
        stages = " | ".join(f"{stage} {ms:.2f} ms" for stage, ms in result.ms.items())
        lines.append([(f"      {stages} | {self._backend}", "dim")])
        show(lines)

    def end(self, passed_over: Sequence[str]) -> None:
        """Print nothing more."""


class Json:
    """One JSON document, whose results are written as they come, each on a line of its own.

    The comma stands before a result and not after it: nobody knows yet whether another follows.
    """

    def __init__(self, model: str, backend: str) -> None:
        from bitinfer.documents import SCHEMA_VERSION, runs

        head = runs.Run(
            schema_version=SCHEMA_VERSION,
            model=_common.model_file(model),
            backend=backend,
            results=(),
        )
        self._separator = ""
        _write(f"{_common.to_json(head).removesuffix(_END)}\n")

    def add(self, result: Result) -> None:
        """Print a result."""
        separator, self._separator = self._separator, ","
        _write(f"{separator}{_common.to_json(_record(result))}\n")

    def end(self, passed_over: Sequence[str]) -> None:
        """Print the end of the document."""
        import json

        others = f', "passed_over": {json.dumps(list(passed_over))}' if passed_over else ""
        _write(f"]{others}}}\n")


class JsonLines:
    """A JSON object on a line for every picture."""

    def add(self, result: Result) -> None:
        """Print a result."""
        _write(f"{_common.to_json(_record(result))}\n")

    def end(self, passed_over: Sequence[str]) -> None:
        """Print nothing more."""


class Csv:
    """A row for every prediction, and one for every input that cannot be read."""

    def __init__(self) -> None:
        self._writer = csv.writer(sys.stdout, lineterminator="\n")
        self._writer.writerow(_COLUMNS)

    def add(self, result: Result) -> None:
        """Print a result."""
        if result.error is not None:
            self._writer.writerow((result.name, "", "", "", "", "", str(result.error)))
        for rank, p in enumerate(result.predictions, start=1):
            self._writer.writerow((result.name, rank, p.index, p.label, p.probability, p.score, ""))
        sys.stdout.flush()

    def end(self, passed_over: Sequence[str]) -> None:
        """Print nothing more."""


def _record(result: Result) -> RunResult:
    import msgspec

    from bitinfer.documents import runs

    if result.error is None:
        return runs.RunResult(
            input=result.name,
            predictions=tuple(result.predictions),
            ms=runs.StageTimes(**result.ms),
            annotated=msgspec.UNSET if result.annotated is None else result.annotated,
        )
    kind, message = type(result.error).__name__, str(result.error)
    return runs.RunResult(input=result.name, error=runs.Failure(type=kind, message=message))


def _write(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()

"""What people see: safe text, colour where a terminal wants it, progress on stderr."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, TextIO

from bitinfer.files import one_line

if TYPE_CHECKING:
    from rich.progress import Progress

Span = tuple[str, str]
"""Text, and its style in rich's words."""

_SECONDS_BETWEEN_LINES = 10.0
_SECONDS_BETWEEN_STATES = 0.5
_SECONDS_BEFORE_BUSY = 1.0
_CLEAR_LINE = "\r\x1b[K"
_clear = ""


def printable(text: str, limit: int | None = None) -> str:
    """Return a file name or label so that it does not steer the terminal, cut to ``limit``."""
    return one_line(text, limit)


def report(message: str) -> None:
    """Print an error on stderr, on one line."""
    _to_stderr(f"bitinfer: error: {printable(message)}")


def note(message: str) -> None:
    """Print a remark on stderr, on one line."""
    _to_stderr(f"bitinfer: {printable(message)}")


def show(lines: Sequence[Sequence[Span]]) -> None:
    """Print lines of result on stdout, in colour if it is a terminal that takes colour."""
    if _wants_colour(sys.stdout):
        from rich.console import Console
        from rich.text import Text

        console = Console(highlight=False, soft_wrap=True)
        for line in lines:
            console.print(Text.assemble(*line))
    else:
        print("\n".join("".join(text for text, _ in line).rstrip() for line in lines))
    sys.stdout.flush()


def table(rows: Sequence[Sequence[str]], *, right: frozenset[int] = frozenset()) -> list[str]:
    """Lay out rows in columns, the columns in ``right`` aligned to the right."""
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            cell.rjust(width) if i in right else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


@contextlib.contextmanager
def progress(total: int, *, quiet: bool = False) -> Iterator[Callable[[int, str], None]]:
    """Yield what is called with the number done and a remark: a bar in a terminal, else lines."""
    if quiet:
        yield lambda done, remark: None
    elif _wants_colour(sys.stderr):
        with _bar(total) as show_bar:
            yield show_bar
    else:
        last = time.monotonic()

        def print_line(done: int, remark: str) -> None:
            nonlocal last
            now = time.monotonic()
            if done == total or now - last >= _SECONDS_BETWEEN_LINES:
                last = now
                note(f"{done} of {total}, {remark}")

        yield print_line


@contextlib.contextmanager
def status() -> Iterator[Callable[[str], None]]:
    """Yield what shows a text in place of the last one, in a terminal, at most twice a second.

    It has no thread of its own, which would disturb what is measured meanwhile.
    """
    if not _wants_colour(sys.stderr):
        yield lambda text: None
        return
    last = time.monotonic()

    def say(text: str) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last >= _SECONDS_BETWEEN_STATES:
            last = now
            _to_stderr(text, end="")

    global _clear  # noqa: PLW0603 - what notes and errors on the same terminal begin with
    _clear = _CLEAR_LINE
    try:
        yield say
    finally:
        _to_stderr("", end="")
        _clear = ""


@contextlib.contextmanager
def busy(what: str, *, quiet: bool = False) -> Iterator[None]:
    """Show in a terminal that something is being done, and for how long; elsewhere nothing.

    What takes less than a second shows nothing.
    """
    if quiet or not _wants_colour(sys.stderr):
        yield
        return
    shown: list[Progress] = []
    began = time.monotonic()

    def show() -> None:
        from rich.console import Console
        from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

        columns = (
            SpinnerColumn(),
            TextColumn("{task.description}", markup=False),
            TimeElapsedColumn(),
        )
        bar = Progress(*columns, console=Console(stderr=True), transient=True)
        task = bar.add_task(printable(what, 100), total=None)
        bar.tasks[task].start_time = bar.get_time() - (time.monotonic() - began)
        bar.start()
        shown.append(bar)

    timer = threading.Timer(_SECONDS_BEFORE_BUSY, show)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        timer.join()
        for bar in shown:
            bar.stop()


@contextlib.contextmanager
def _bar(total: int) -> Iterator[Callable[[int, str], None]]:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    columns = (
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.description}", markup=False),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=total)
        yield lambda done, remark: bar.update(task, completed=done, description=remark)


def _wants_colour(stream: TextIO | None) -> bool:
    return (
        stream is not None
        and stream.isatty()
        and not os.environ.get("NO_COLOR")
        and os.environ.get("TERM") != "dumb"
    )


def _to_stderr(line: str, end: str = "\n") -> None:
    # Nobody can be told that nobody can be told; results and exit code are not lost for it.
    with contextlib.suppress(OSError, ValueError):
        print(f"{_clear}{line}", end=end, file=sys.stderr, flush=True)

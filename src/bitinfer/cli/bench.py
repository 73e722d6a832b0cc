"""``bitinfer bench``: how long a network takes, in batches and with threads."""

from __future__ import annotations

import argparse
import time
from typing import TYPE_CHECKING, Any

from bitinfer.cli import _common, _measuring
from bitinfer.cli._terminal import printable, show, status, table

if TYPE_CHECKING:
    from bitinfer.documents.runs import Bench, BenchResult
    from bitinfer.session import Session

_SECONDS = 2.0
_COLUMNS = (
    ("batch", "batch", "d"),
    ("threads", "threads", "d"),
    ("rounds", "rounds", "d"),
    ("min ms", "min_ms", ".4f"),
    ("median ms", "median_ms", ".4f"),
    ("p90 ms", "p90_ms", ".4f"),
    ("p99 ms", "p99_ms", ".4f"),
    ("samples/s", "samples_per_s", ",.0f"),
    ("GMAC/s", "gmac_per_s", ",.2f"),
)


def add_parser(subparsers: Any) -> None:
    """Register the command and its arguments."""
    parser = subparsers.add_parser(
        "bench",
        help="measure how long a network takes",
        description="Measure latency and throughput of a network through Session.run, Python "
        "included. Batches and numbers of threads are measured in turn, so that a busy moment "
        "strikes all of them. The times are those of a call, the rates those of its median.",
    )
    parser.add_argument("model", metavar="MODEL", help="model file")
    parser.add_argument(
        "--batch",
        type=_positives,
        default=[1],
        metavar="N,...",
        help="samples of a call (default: 1); several are compared",
    )
    parser.add_argument(
        "--threads",
        type=_counts,
        default=[1],
        metavar="N,...",
        help="threads of a call (default: 1; 0: as many as this process may use)",
    )
    parser.add_argument(
        "--seconds",
        type=_seconds,
        metavar="S",
        help=f"time for each batch and number of threads (default: {_SECONDS:g})",
    )
    parser.add_argument(
        "--rounds", type=_common.positive, metavar="N", help="calls of each, instead of --seconds"
    )
    parser.add_argument(
        "--warm-up",
        type=_common.positive,
        default=5,
        metavar="N",
        help="calls of each before those that count (default: 5)",
    )
    parser.add_argument("--image", metavar="PICTURE", help="picture to run; random input otherwise")
    _measuring.add_input(parser)
    _common.add_backend(parser)
    parser.add_argument(
        "--markdown", action="store_true", help="print the result as a Markdown table"
    )
    _common.add_json(parser, "bench")


def run(args: argparse.Namespace) -> int:
    """Measure and print."""
    from bitinfer import session as sessions
    from bitinfer.documents import runs
    from bitinfer.errors import UsageError

    if args.rounds is not None and args.seconds is not None:
        raise UsageError("--rounds and --seconds do not go together")
    if args.markdown and args.json:
        raise UsageError("--markdown and --json do not go together")
    start = time.perf_counter()
    first = sessions.load(args.model, args.backend, args.threads[0])
    loaded = time.perf_counter()
    sample, described = _measuring.make_input(first, args.image, as_float=args.as_float)
    before = time.perf_counter()
    first.run(sample)
    after = time.perf_counter()
    _measuring.check_output(first, sample)
    others = [sessions.Session(first.model, args.backend, n) for n in args.threads[1:]]
    macs = _measuring.total_macs(first)
    answer = runs.Bench(
        **_measuring.head(args.model, first, described, macs),
        load_ms=1000 * (loaded - start),
        first_inference_ms=1000 * (after - before),
        results=tuple(
            _summarize(*combination, macs)
            for combination in _measure([first, *others], sample, args)
        ),
    )
    if args.json:
        _common.print_json(answer)
    elif args.markdown:
        print("\n".join(_as_markdown(answer)))
    else:
        show([[(line, "")] for line in _as_text(answer)])
    return 0


def _measure(
    sessions: list[Session], sample: Any, args: argparse.Namespace
) -> list[tuple[int, int, list[float]]]:
    """Return batch, threads and seconds of every call, for each combination."""
    import numpy as np

    clock = time.perf_counter
    combinations: list[tuple[int, Session, Any, list[float]]] = [
        (batch, session, np.repeat(sample[None], batch, axis=0), [])
        for batch in args.batch
        for session in sessions
    ]
    for _, session, x, _ in combinations:
        for _ in range(args.warm_up):
            session.run(x)
    seconds = len(combinations) * (_SECONDS if args.seconds is None else args.seconds)
    end = clock() + seconds
    rounds = 0
    with status() as say:
        while rounds < args.rounds if args.rounds is not None else rounds < 1 or clock() < end:
            for _, session, x, times in combinations:
                start = clock()
                session.run(x)
                times.append(clock() - start)
            rounds += 1
            left = "" if args.rounds is not None else f", {max(0.0, end - clock()):.0f} s left"
            say(f"{rounds} rounds{left}")
    return [(batch, session.threads, times) for batch, session, _, times in combinations]


def _summarize(batch: int, threads: int, times: list[float], macs: int) -> BenchResult:
    import numpy as np

    from bitinfer.documents import runs

    low, median, p90, p99 = (
        float(v) for v in np.percentile(times, (0, 50, 90, 99), method="inverted_cdf")
    )
    return runs.BenchResult(
        batch=batch,
        threads=threads,
        rounds=len(times),
        min_ms=1000 * low,
        median_ms=1000 * median,
        p90_ms=1000 * p90,
        p99_ms=1000 * p99,
        samples_per_s=batch / median,
        gmac_per_s=macs * batch / median / 1e9,
    )


def _rows(answer: Bench) -> list[list[str]]:
    rows = [[title for title, _, _ in _COLUMNS]]
    rows += [
        [format(getattr(result, field), style) for _, field, style in _COLUMNS]
        for result in answer.results
    ]
    return rows


def _as_text(answer: Bench) -> list[str]:
    return [
        *_measuring.head_lines(answer),
        f"load     {answer.load_ms:.2f} ms, first inference {answer.first_inference_ms:.2f} ms",
        "",
        *table(_rows(answer), right=frozenset(range(len(_COLUMNS)))),
    ]


def _as_markdown(answer: Bench) -> list[str]:
    title, *rows = _rows(answer)
    return [
        f"`{printable(answer.model.path).replace('`', '')}` on {answer.backend}: load "
        f"{answer.load_ms:.2f} ms, first inference {answer.first_inference_ms:.2f} ms",
        "",
        f"| {' | '.join(title)} |",
        f"|{'---:|' * len(title)}",
        *(f"| {' | '.join(row)} |" for row in rows),
    ]


def _positives(text: str) -> list[int]:
    return [_common.positive(part) for part in text.split(",")]


def _counts(text: str) -> list[int]:
    return [_common.count(part) for part in text.split(",")]


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value <= 86_400:
        raise argparse.ArgumentTypeError(
            f"'{printable(text)}' is not a number of seconds above 0 and within a day"
        )
    return value

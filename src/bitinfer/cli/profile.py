"""``bitinfer profile``: what each step of a network takes."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from bitinfer.cli import _common, _measuring
from bitinfer.cli._terminal import note, printable, show, status, table

if TYPE_CHECKING:
    from bitinfer.documents.runs import Profile
    from bitinfer.profiling import StepTime

_NAME = 40


def add_parser(subparsers: Any) -> None:
    """Register the command and its arguments."""
    parser = subparsers.add_parser(
        "profile",
        help="show what each step of a network takes",
        description="Run a network many times and show what each step takes, the longest first. "
        "MAC/cycle is by the shortest time and the measured clock of this core.",
    )
    parser.add_argument("model", metavar="MODEL", help="model file")
    parser.add_argument(
        "image", metavar="IMAGE", nargs="?", help="picture to run; random input otherwise"
    )
    parser.add_argument(
        "--rounds",
        type=_common.positive,
        default=100,
        metavar="N",
        help="calls that are measured (default: 100)",
    )
    _common.add_threads(parser)
    parser.add_argument(
        "--trace",
        metavar="FILE",
        help="write the fastest call as Chrome-trace JSON, with ONNX Runtime's field names",
    )
    _measuring.add_input(parser)
    _common.add_backend(parser)
    _common.add_json(parser, "profile")
    _common.add_quiet(parser)


def run(args: argparse.Namespace) -> int:
    """Measure and print."""
    from bitinfer import files, profiling, session
    from bitinfer.documents import runs

    files.check_outputs({"--trace": args.trace}, (args.model, args.image))
    loaded = session.load(args.model, args.backend, args.threads)
    sample, described = _measuring.make_input(loaded, args.image, as_float=args.as_float)
    _measuring.check_output(loaded, sample)
    with status() as say:
        measured = loaded.measure_steps(
            sample, args.rounds, check=lambda: say(f"measuring {args.rounds} calls")
        )
    steps = profiling.summarize(*measured)
    head = _measuring.head(args.model, loaded, described, sum(step.macs for step in steps))
    answer = runs.Profile(
        **head,
        threads=loaded.threads,
        rounds=args.rounds,
        clock_hz=measured.clock_hz,
        ms=sum(step.ns_median for step in steps) / 1e6,
        share_outside_convolutions=min(1.0, profiling.share_outside_convolutions(steps)),
        steps=tuple(steps),
    )
    if args.trace is not None:
        files.write_atomically(args.trace, profiling.chrome_trace(measured, loaded.backend))
        if not args.quiet:
            note(f"{printable(args.trace)} written")
    if args.json:
        _common.print_json(answer)
    else:
        show([[(line, "")] for line in _as_text(answer)])
    return 0


def _as_text(answer: Profile) -> list[str]:
    from bitinfer import profiling

    clock, steps = answer.clock_hz, answer.steps
    lines = _measuring.head_lines(answer)
    lines += [
        f"clock    {f'{clock / 1e9:.2f} GHz' if clock else 'unknown'}",
        f"time     {answer.ms:.4f} ms, the sum of the medians of {answer.rounds} calls, "
        f"threads: {answer.threads}",
        "",
    ]
    rows = [["share", "median us", "min us", "MMAC", "MAC/cycle", "operation", "kernel", "step"]]
    rows += [_row(step) for step in sorted(steps, key=lambda step: -step.share)]
    lines += table(rows, right=frozenset(range(5)))
    if any(step.reason for step in steps):
        least = f"{100 * profiling.LARGE_SHARE:.0f} %"
        lines += ["", f"what takes over {least}, if it is no convolution or a slow one, and why"]
        lines += table([[f"  {printable(s.name, _NAME)}", s.reason] for s in steps if s.reason])
    lines += ["", *_totals(steps, answer.share_outside_convolutions)]
    return lines


def _row(step: StepTime) -> list[str]:
    return [
        f"{100 * step.share:.1f} %",
        f"{step.ns_median / 1e3:.2f}",
        f"{step.ns_min / 1e3:.2f}",
        f"{step.macs / 1e6:.3f}" if step.macs else "-",
        f"{step.mac_per_cycle:.1f}" if step.mac_per_cycle is not None else "-",
        step.operation,
        step.kernel,
        printable(step.name, _NAME),
    ]


def _totals(steps: Sequence[StepTime], outside: float) -> list[str]:
    shares: dict[str, float] = {}
    for step in steps:
        shares[step.operation] = shares.get(step.operation, 0.0) + step.share
    parts = sorted(shares.items(), key=lambda item: -item[1])
    return [
        f"by operation          {', '.join(f'{name} {100 * s:.1f} %' for name, s in parts)}",
        f"outside convolutions  {100 * outside:.1f} %",
    ]

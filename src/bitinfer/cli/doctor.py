"""``bitinfer doctor``: what is slow or wrong on this machine, and how to mend it."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from bitinfer.cli import _common
from bitinfer.cli._terminal import Span, busy, printable, show

if TYPE_CHECKING:
    from bitinfer.documents.runs import Doctor

_STYLES = {"fault": "bold red", "note": "yellow"}


def add_parser(subparsers: Any) -> None:
    """Register the command and its arguments."""
    parser = subparsers.add_parser(
        "doctor",
        help="say what is slow or wrong here, and how to mend it",
        description="Look for what makes bitinfer slow or wrong on this machine: missing or "
        "foreign parts, capped kernels, a shared or throttled CPU, limits on CPUs. Exits with 1 if "
        "there is a fault. What it prints is what an issue report needs.",
    )
    _common.add_json(parser, "doctor")


def run(args: argparse.Namespace) -> int:
    """Print what is found; return 1 if a fault is among it."""
    with busy("examining this machine", quiet=args.json):
        answer = _examine()
    if args.json:
        _common.print_json(answer)
    else:
        show(_as_text(answer))
    return int(any(finding.level == "fault" for finding in answer.findings))


def _examine() -> Doctor:
    from bitinfer import backends, doctor
    from bitinfer.cli import info
    from bitinfer.documents import SCHEMA_VERSION, runs

    clock = doctor.measure_clock()
    return runs.Doctor(
        schema_version=SCHEMA_VERSION,
        findings=doctor.examine(clock),
        clock_hz=None if clock is None else clock.hz,
        cpu_share=None if clock is None else clock.share,
        usable_cpus=backends.usable_cpus(),
        info=info.describe("auto"),
    )


def _as_text(answer: Doctor) -> list[list[Span]]:
    from bitinfer.cli import info

    lines: list[list[Span]] = []
    for finding in answer.findings:
        lines.append([(f"{finding.level}: {finding.check}", _STYLES[finding.level])])
        lines.append([(f"  {printable(finding.what)}", "")])
        lines.append([(f"  mend: {printable(finding.mend)}", "")])
    faults = sum(finding.level == "fault" for finding in answer.findings)
    counted = {0: "no fault found", 1: "1 fault found"}.get(faults, f"{faults} faults found")
    lines += [[(counted, "bold")], [("", "")], [("for an issue report:", "")], [("", "")]]
    block = info.as_text(answer.info)
    if answer.clock_hz is not None and answer.cpu_share is not None:
        ghz, share = answer.clock_hz / 1e9, 100 * answer.cpu_share
        block.append(f"clock     {ghz:.2f} GHz, {share:.0f} % of a core, as measured")
    block.append(f"cpus      {answer.usable_cpus} that this process may keep busy")
    return [*lines, *([(f"    {line}".rstrip(), "")] for line in block)]

"""``bitinfer report``: benchmark results as a page with charts, or as Markdown."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from bitinfer.cli import _common
from bitinfer.cli._terminal import note, printable

_EPILOG = """FILE is what the benchmarks write:

  pytest bench -k layers --benchmark-json=layers.json
  pytest bench -k figure4 --benchmark-json=figure4.json
  bitinfer report layers.json figure4.json -o report.html

Engines are compared within one file only: only there were they measured in turn. Where the machine
was busy the report says so, and claims nothing from too few undisturbed samples.
"""


def add_parser(subparsers: Any) -> None:
    """Register the command and its arguments."""
    parser = subparsers.add_parser(
        "report",
        help="turn benchmark results into a page with charts",
        description="Turn benchmark results into one HTML page with tables and charts, and into "
        "Markdown; without -o and --markdown, the Markdown is printed.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("files", metavar="FILE", nargs="+", help="JSON of pytest-benchmark")
    parser.add_argument("-o", "--output", metavar="FILE.html", help="write the page here")
    parser.add_argument("--markdown", metavar="FILE.md", help="write the Markdown here")
    _common.add_quiet(parser)


def run(args: argparse.Namespace) -> int:
    """Read the files and write the report."""
    from bitinfer import files
    from bitinfer.report import document, markdown, page, records

    targets = [path for path in (args.output, args.markdown) if path is not None]
    _check_distinct(args.files, targets)
    for path in targets:
        files.check_writable(path)
    blocks = document.build([records.read(path) for path in args.files])
    for path, render in ((args.output, page.render), (args.markdown, markdown.render)):
        if path is not None:
            files.write_atomically(path, render(blocks).encode())
            if not args.quiet:
                note(f"{printable(path)} written")
    if not targets:
        print(markdown.render(blocks), end="")
    return 0


def _check_distinct(sources: list[str], targets: list[str]) -> None:
    """Refuse to write over what is read, or twice to the same file."""
    from bitinfer.errors import UsageError

    seen: set[Path] = set()
    for path in [*dict.fromkeys(sources), *targets]:
        try:
            resolved = Path(path).resolve()
        except (OSError, ValueError, RuntimeError):  # what is wrong with it is said later
            continue
        if resolved in seen and path in targets:
            raise UsageError(f"{path} is named twice; an output needs a name of its own")
        seen.add(resolved)

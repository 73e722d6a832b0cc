"""``bitinfer report``: benchmark results as a page with charts, or as Markdown."""

from __future__ import annotations

import argparse
from typing import Any

from bitinfer.cli import _common
from bitinfer.cli._terminal import busy, note, printable

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

    files.check_outputs({"--output": args.output, "--markdown": args.markdown}, args.files)
    with busy("reading reports", quiet=args.quiet):
        blocks = document.build([records.read(path) for path in args.files])
    for path, render in ((args.output, page.render), (args.markdown, markdown.render)):
        if path is not None:
            files.write_atomically(path, render(blocks).encode())
            if not args.quiet:
                note(f"{printable(path)} written")
    if args.output is None and args.markdown is None:
        print(markdown.render(blocks), end="")
    return 0

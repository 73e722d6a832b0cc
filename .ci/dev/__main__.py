"""The commands of ``./dev``; CONTRIBUTING.md describes them."""

from __future__ import annotations

import argparse
import sys

import checks
import compare
import library
import watch


def main(arguments: list[str]) -> int:
    """Run one command and return its exit code."""
    parser = argparse.ArgumentParser(
        prog="./dev", description=__doc__, epilog="PYTHON=... names another interpreter."
    )
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    for module in (library, watch, checks, compare):
        module.add_commands(commands)
    args, rest = parser.parse_known_args(arguments)
    if rest and not args.passes_on:
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    args.rest = rest
    return int(args.run(args))


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit(130)

"""``./dev watch``: after every edit, build and run the tests that concern the file."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import library
from running import ROOT, run

WATCHED = ("csrc", "src", "tests", ".ci")
KINDS = {".c", ".h", ".inc", ".py"}
PAUSE_S = 0.5
_SHARED = {"conftest.py", "harness.py", "oracle.py", "helpers.py", "strategies.py"}


def add_commands(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command ``watch``."""
    parser = commands.add_parser("watch", help="build and test what an edit concerns, for ever")
    parser.set_defaults(run=lambda args: watch(args.rest), passes_on=True)


def watch(arguments: list[str]) -> int:
    """Look at the files twice a second until interrupted; further arguments are pytest's."""
    seen = times()
    print(f"watching {', '.join(WATCHED)}; Ctrl-C ends it")
    while True:
        time.sleep(PAUSE_S)
        now = times()
        edited = sorted(path for path, changed in now.items() if seen.get(path) != changed)
        seen = now
        if not edited:
            continue
        tests = sorted({test for path in edited for test in concerned(path)})
        print(f"\n{' '.join(map(str, edited))}: {' '.join(tests) or 'no tests'}")
        if library.build() == 0 and tests:
            run(sys.executable, "-m", "pytest", "-q", "-x", *tests, *arguments)


def times() -> dict[Path, int]:
    """Return when each source, by its path in the checkout, was changed."""
    return {
        path.relative_to(ROOT): path.stat().st_mtime_ns
        for folder in WATCHED
        for path in (ROOT / folder).rglob("*")
        if path.suffix in KINDS and path.is_file()
    }


def concerned(path: Path) -> list[str]:
    """Return the tests that concern a file, as pytest takes them.

    Tests are laid out as ``src/`` is: those of ``graph/rules.py`` are in ``tests/graph``, those of
    ``bits.py`` in ``tests/test_bits.py``.
    """
    top, *rest = path.parts
    if top == "tests":
        if path.name in _SHARED:
            return ["tests/backends"]
        if path.name.startswith("test_"):
            return [str(path)] if (ROOT / path).exists() else []
        return [] if len(rest) == 1 else [str(path.parent)]
    if top == "csrc":
        return ["tests/backends", "tests/test_machine_code.py"]
    if top == ".ci":
        return ["tests/test_dev.py", "tests/test_machine_code.py"]
    part = rest[1].removesuffix(".py")
    candidates = (f"tests/{part}", f"tests/test_{part}.py")
    return [test for test in candidates if (ROOT / test).exists()]

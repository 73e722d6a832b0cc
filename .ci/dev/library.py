"""``./dev build``: the C extension, of which only what has changed is compiled."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from running import CSRC, LIBRARY, ROOT, run


def add_commands(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command ``build``."""
    parser = commands.add_parser("build", help="compile what has changed in csrc/, on all cores")
    parser.set_defaults(run=lambda args: build(), passes_on=False)


def build(root: Path = ROOT) -> int:
    """Bring the extension of a checkout up to date; return the exit code.

    setup.py does the work, so that there is one place with the compiler's flags.
    """
    start = time.monotonic()
    code = run(
        *(sys.executable, "-W", "ignore", "setup.py", "-q", "build_ext", "--inplace"),
        root=root,
        BITINFER_REQUIRE_C="1",
    )
    if code == 0 and root == ROOT:
        print(f"{LIBRARY.relative_to(ROOT)} is up to date, {time.monotonic() - start:.1f} s")
    return code


def newer_sources() -> list[Path]:
    """Return the C sources that are newer than the extension; all, if there is none."""
    built = LIBRARY.stat().st_mtime_ns if LIBRARY.exists() else 0
    kinds = {".c", ".h", ".inc"}
    files = (path for path in sorted(CSRC.rglob("*")) if path.suffix in kinds)
    return [path for path in files if path.stat().st_mtime_ns > built]

"""``./dev build`` and ``./dev objects``: the C extension, and what the compiler made of it."""

from __future__ import annotations

import argparse
import platform
import shutil
import sys
import time
from pathlib import Path

import machine_code
from running import CSRC, LIBRARY, ROOT, run


def add_commands(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the commands ``build`` and ``objects``."""
    parser = commands.add_parser("build", help="compile what has changed in csrc/, on all cores")
    parser.set_defaults(run=lambda args: build(), passes_on=False)
    parser = commands.add_parser("objects", help="build, then check the kernels' machine code")
    parser.set_defaults(run=lambda args: build() or check_objects(), passes_on=False)


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


def objects() -> list[Path]:
    """Return the object files of the last build whose sources are still there."""
    folders = (ROOT / "build").glob("temp.*/csrc")
    return sorted(
        path
        for folder in folders
        for path in folder.rglob("*.o")
        if (CSRC / path.relative_to(folder)).with_suffix(".c").exists()
    )


def check_objects() -> int:
    """Say what in the objects breaks a rule of machine_code.py; return 1 if anything does."""
    if platform.machine() != "x86_64" or not shutil.which("objdump"):
        print("SKIP objects: the rules are for x86-64, and need objdump")
        return 0
    report = machine_code.check(objects())
    loops = sum(report.look_up_loops.values())
    print(*report.offences, f"{report.functions} functions, {loops} loops of look-ups", sep="\n")
    return 1 if report.offences or not report.functions else 0

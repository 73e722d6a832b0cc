"""``./dev test``, ``long``, ``lint``, ``format``, ``docs``: what must pass before a merge."""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import library
from running import CSRC, ROOT, run, tool

WARNINGS = ("-std=c11", "-O3", "-Wall", "-Wextra", "-Werror", "-ffp-contract=off")


def add_commands(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the commands ``test``, ``long``, ``lint``, ``format`` and ``docs``."""
    parser = commands.add_parser("test", help="build, then pytest; further arguments are pytest's")
    parser.set_defaults(run=lambda args: test(args.rest), passes_on=True)
    parser = commands.add_parser("long", help="the same with the tests that take minutes")
    parser.set_defaults(run=lambda args: test(["--long", *args.rest]), passes_on=True)
    parser = commands.add_parser("lint", help="ruff, mypy, clang-format, gcc and clang")
    parser.set_defaults(run=lambda args: lint(), passes_on=False)
    parser = commands.add_parser("format", help="lay out all Python and C files")
    parser.set_defaults(run=lambda args: format_all(), passes_on=False)
    parser = commands.add_parser("docs", help="bring generated pages up to date; check all pages")
    parser.set_defaults(run=lambda args: docs(), passes_on=False)


def test(arguments: list[str]) -> int:
    """Build the extension, then run pytest."""
    return library.build() or run(sys.executable, "-m", "pytest", *arguments)


def lint() -> int:
    """Run every check that reads the sources alone, even after one has failed."""
    failed = [name for name, code in _lints() if code]
    print(f"failed: {', '.join(failed)}" if failed else "all checks passed")
    return 1 if failed else 0


def format_all() -> int:
    """Let ruff and clang-format rewrite what is not laid out as configured."""
    files = c_files(".c", ".h", ".inc")
    return run(tool("ruff"), "format") or run(tool("clang-format"), "-i", *files)


def docs() -> int:
    """Make the pages that are made from code, then check all pages."""
    return run(sys.executable, ".ci/check_docs.py", "--write")


def _lints() -> Iterator[tuple[str, int]]:
    """Run the checks, yielding the name and exit code of each."""
    yield "ruff check", run(tool("ruff"), "check")
    yield "ruff format", run(tool("ruff"), "format", "--check")
    yield "mypy", run(sys.executable, "-m", "mypy", "--strict", "src")
    yield "clang-format", check_format()
    for compiler in ("gcc", "clang"):
        if shutil.which(compiler):
            yield f"{compiler} -Werror", check_warnings(compiler)
        else:
            print(f"SKIP {compiler}: not installed")


def c_files(*suffixes: str) -> list[Path]:
    """Return the C files of the library and its tests that have one of these suffixes."""
    files = [*CSRC.rglob("*"), *(ROOT / "tests" / "c").rglob("*")]
    return sorted(path for path in files if path.suffix in suffixes)


def check_format() -> int:
    """Run clang-format over the C files; the exit code says whether it would change one."""
    return run(*(tool("clang-format"), "--dry-run", "--Werror"), *c_files(".c", ".h", ".inc"))


def check_warnings(compiler: str) -> int:
    """Compile every C file with all warnings as errors; return 1 if one has any."""

    def warns(source: Path) -> bool:
        command = [compiler, *WARNINGS, f"-I{CSRC}", "-fsyntax-only", str(source)]
        return subprocess.run(command, check=False).returncode != 0

    files = c_files(".c")
    with ThreadPoolExecutor() as pool:
        bad = sum(pool.map(warns, files))
    print(f"{compiler}: {len(files)} files, {bad} with warnings")
    return 1 if bad else 0

"""Compiles the few C functions that the benchmarks need, where there is a compiler."""

from __future__ import annotations

import ctypes
import os
import shlex
import shutil
import subprocess
import tempfile
from pathlib import Path

FLAGS = ("-std=gnu11", "-O3", "-shared", "-fPIC")
_SOURCES = Path(__file__).with_name("c")


class NoCompilerError(Exception):
    """There is no C compiler, or it refuses."""


def command() -> list[str]:
    """Return how the C compiler is called.

    Raises:
        NoCompilerError: there is none.
    """
    asked = os.environ.get("CC")
    for name in [asked] if asked else ["cc", "gcc", "clang"]:
        words = shlex.split(name)
        if words and shutil.which(words[0]):
            return words
    raise NoCompilerError("no C compiler (CC, cc, gcc, clang)")


def version() -> str:
    """Return the first line that the compiler says about itself."""
    result = subprocess.run([*command(), "--version"], capture_output=True, text=True, check=False)
    return (result.stdout.splitlines() or ["unknown"])[0]


def load(source: str) -> ctypes.CDLL:
    """Compile ``c/<source>`` in a temporary folder and load it.

    Raises:
        NoCompilerError: there is no compiler, or it refuses the file.
    """
    compiler = command()
    with tempfile.TemporaryDirectory(prefix="bitinfer-bench-") as folder:
        library = Path(folder) / "library.so"
        arguments = [*compiler, *FLAGS, "-o", str(library), str(_SOURCES / source)]
        result = subprocess.run(arguments, capture_output=True, text=True, check=False)
        if result.returncode:
            reason = (result.stderr.strip().splitlines() or ["it fails"])[0]
            raise NoCompilerError(f"{compiler[0]} does not compile {source}: {reason}")
        return ctypes.CDLL(str(library))

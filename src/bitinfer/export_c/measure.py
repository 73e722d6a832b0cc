"""How many bytes the code of an exported network takes: compiled, where there is a compiler."""

from __future__ import annotations

import os
import platform
import shlex
import shutil
import subprocess
import tempfile
from pathlib import Path

from bitinfer.export_c import Exported

_SECONDS = 120.0
_OPTIONS = ("-O2", "-c")


def compiler() -> list[str]:
    """Return the command of the C compiler: what CC says, or cc; empty if there is none."""
    command = shlex.split(os.environ.get("CC", "")) or ["cc"]
    return command if shutil.which(command[0]) else []


def code_bytes(exported: Exported) -> int | None:
    """Return the bytes of code and its tables, without the network's constants, on this CPU.

    None if there is no compiler, no program ``size``, or no kernel for this CPU in the export.
    """
    command, size = compiler(), shutil.which("size")
    if not command or size is None:
        return None
    name = f"bitinfer_{exported.network.name}"
    with tempfile.TemporaryDirectory(prefix="bitinfer-export-") as folder:
        Path(folder, f"{name}.c").write_text(exported.code, encoding="utf-8")
        Path(folder, f"{name}.h").write_text(exported.header, encoding="utf-8")
        compile_it = [*command, *_OPTIONS, f"{name}.c", "-o", f"{name}.o"]
        try:
            _run(compile_it, folder)
            printed = _run([size, f"{name}.o"], folder)
        except (OSError, subprocess.SubprocessError):
            return None
    text, data = printed.splitlines()[1].split()[:2]
    return int(text) + int(data)


def compiled_for() -> str:
    """Return which target (backends.native.targets) the compiler compiles for, by this machine."""
    machine = platform.machine()
    return machine if machine in ("x86_64", "aarch64") else "other"


def described_compiler() -> str:
    """Return the compiler's first line about itself, and the options."""
    said = _run([*compiler(), "--version"], ".").splitlines()
    return f"{said[0] if said else compiler()[0]} {_OPTIONS[0]}"


def _run(command: list[str], folder: str) -> str:
    done = subprocess.run(  # noqa: S603 - the user's own compiler
        command, cwd=folder, capture_output=True, text=True, check=True, timeout=_SECONDS
    )
    return done.stdout

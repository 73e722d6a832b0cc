"""What LLVM makes of the compiled kernels, also for CPUs that are not this one."""

from __future__ import annotations

import os
import platform
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("numba")

# Compiles a kernel and does not run it.
COMPILE = """
import sys
from bitinfer.backends.numba.kernels import layers

print(getattr(layers, sys.argv[1]).assembly())
"""


def assembly(kernel: str, tmp_path: Path, cpu: str) -> list[str]:
    """Return the instructions of a kernel, each with its operands, for a CPU."""
    env = os.environ | {
        "NUMBA_CACHE_DIR": str(tmp_path),
        "NUMBA_CPU_NAME": cpu,
        "NUMBA_CPU_FEATURES": "",
    }
    run = subprocess.run(
        [sys.executable, "-c", COMPILE, kernel],
        env=env,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    return [line.strip() for line in run.stdout.splitlines() if re.match(r"\s+[a-z]", line)]


@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="code for x86-64")
@pytest.mark.parametrize(
    ("kernel", "cpu", "wanted"),
    [
        ("bconv2d", "haswell", r"vpshufb\s.*ymm"),
        ("bconv2d", "icelake-server", r"vpopcntb\s.*zmm"),
        ("conv2d", "haswell", r"vfmadd\d+ps\s.*ymm"),
        ("conv2d", "icelake-server", r"vfmadd\d+ps\s.*zmm"),
        ("conv2d_wide", "haswell", r"vfmadd\d+pd\s.*ymm"),
    ],
)
def test_layers_are_computed_in_vectors(kernel: str, cpu: str, wanted: str, tmp_path: Path) -> None:
    lines = assembly(kernel, tmp_path, cpu)
    assert sum(bool(re.match(wanted, line)) for line in lines) >= 4
    assert not any(line.startswith("popcnt") for line in lines)

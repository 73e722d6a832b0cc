"""Compiled kernels keep to their buffers, to the byte; one that does not, dies."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "guard_pages.py"

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="mprotect is called as on Linux")


def run_script(argument: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(SCRIPT), argument], capture_output=True, text=True, timeout=300
    )


def test_kernels_touch_nothing_beside_their_buffers(native_name: str) -> None:
    process = run_script(native_name)
    assert process.returncode == 0, process.stdout + process.stderr
    assert f"guarded runs on {native_name}" in process.stdout


def test_kernels_of_numba_touch_nothing_beside_their_buffers() -> None:
    pytest.importorskip("numba", reason="numba is not installed")
    pytest.importorskip("bitinfer.backends.native._native", reason="the script needs the extension")
    process = run_script("numba")
    assert process.returncode == 0, process.stdout + process.stderr
    assert "guarded runs on numba" in process.stdout


def test_a_read_of_one_byte_too_many_is_death(native_name: str) -> None:
    process = run_script("--overrun")
    assert process.stdout == "True\n"
    assert process.returncode == -signal.SIGSEGV

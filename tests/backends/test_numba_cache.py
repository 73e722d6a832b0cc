"""Compiling takes seconds: a cache saves it, a line on a terminal says it.  The cache may fail."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("numba", reason="numba is not installed")
import numba

from bitinfer.backends.numba.jit import Kernel, addresses
from bitinfer.backends.numba.kernels import moves

RUN = """
import shutil
import sys
import numpy as np
from pathlib import Path
from numba.core import caching

cache, mode = Path(sys.argv[1]), sys.argv[2]
if mode == "nowhere":  # not even in the package or in the home directory
    for owner in vars(caching).values():
        if "_locator_classes" in getattr(owner, "__dict__", ()):
            owner._locator_classes = []
from bitinfer.backends import select
from bitinfer.backends.numba.kernels import elementwise, moves
from bitinfer.plan import Buffer, Plan, steps

if mode == "vanishes":  # between one kernel and the next; a file stands where the directory was
    moves.flatten.address()
    for directory in list(cache.iterdir()):
        shutil.rmtree(directory)
        directory.write_text("")
table = np.arange(256, dtype=np.float32)[:, None]
step = steps.Normalize(name="n", source=0, target=1, table=table)
plan = Plan((Buffer("pixels", (2, 1, 1)), Buffer("float", (2, 1, 1))), (step,), 0, (1,), ("y",))
y = np.empty((1, 2, 1, 1), np.float32)
select("numba").bind(plan).run(np.array([3, 5], np.uint8).reshape(1, 2, 1, 1), [y])
assert y.ravel().tolist() == [3, 5], y
print(elementwise.normalize.cache_hits)
"""


def hits(cache: Path, mode: str = "") -> int:
    """Run a kernel in a new process; return how often the cache had it."""
    run = subprocess.run(
        [sys.executable, "-W", "error", "-c", RUN, str(cache), mode],
        env=os.environ | {"NUMBA_CACHE_DIR": str(cache)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    assert run.stderr == ""  # no progress, since this is no terminal
    return int(run.stdout)


def test_second_process_finds_what_the_first_compiled(tmp_path: Path) -> None:
    assert [hits(tmp_path), hits(tmp_path)] == [0, 1]


def test_nowhere_to_write(tmp_path: Path) -> None:
    assert [hits(tmp_path, "nowhere"), hits(tmp_path, "nowhere")] == [0, 0]


def test_directory_vanishes_before_a_kernel_is_compiled(tmp_path: Path) -> None:
    hits(tmp_path, "vanishes")  # numba then looks elsewhere, where the loops may be from before


@pytest.mark.parametrize("suffix", ["nbi", "nbc"])
def test_damaged_files(tmp_path: Path, suffix: str) -> None:
    hits(tmp_path)
    files = list(tmp_path.rglob(f"*.{suffix}"))
    assert files
    for file in files:
        file.write_bytes(b"junk\n")
    assert hits(tmp_path) == 0


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_terminal_is_told_what_is_compiled_and_nothing_of_what_is_cached(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(numba.config, "CACHE_DIR", str(tmp_path))
    written = []
    for _ in range(2):
        kernels = [Kernel(moves._pad2d), Kernel(moves._flatten)]
        terminal = Terminal()
        monkeypatch.setattr(sys, "stderr", terminal)
        assert all(address > 0 for address in addresses([*kernels, kernels[0]]))
        written.append(terminal.getvalue())
    erase = "\r\x1b[K"
    assert written[0] == (
        f"{erase}compiling kernel 1 of 2 for the backend numba: pad2d"
        f"{erase}compiling kernel 2 of 2 for the backend numba: flatten{erase}"
    )
    assert written[1] == ""

"""The cache of compiled loops may fail in any way; the loops work all the same."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("numba")

RUN = """
import sys
import numpy as np
from pathlib import Path
from numba.core import caching

cache, mode = Path(sys.argv[1]), sys.argv[2]
if mode == "nowhere":  # not even in the package or in the home directory
    for owner in vars(caching).values():
        if "_locator_classes" in getattr(owner, "__dict__", ()):
            owner._locator_classes = []
from bitinfer.backends.numba import loops

if mode == "vanishes":  # between import and first call; a file stands where the directory was
    for directory in cache.iterdir():
        directory.rmdir()
        directory.write_text("")
y = np.empty((2, 1), np.float32)
loops.normalize(np.array([[3], [5]], np.uint8), np.arange(256, dtype=np.float32)[:, None], y)
assert y.tolist() == [[3], [5]], y
print(sum(loops.normalize.stats.cache_hits.values()))
"""


def hits(cache: Path, mode: str = "") -> int:
    """Run a loop in a new process; return how often the cache had it."""
    run = subprocess.run(
        [sys.executable, "-W", "error", "-c", RUN, str(cache), mode],
        env=os.environ | {"NUMBA_CACHE_DIR": str(cache)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    return int(run.stdout)


def test_second_process_finds_what_the_first_compiled(tmp_path: Path) -> None:
    assert [hits(tmp_path), hits(tmp_path)] == [0, 1]


def test_nowhere_to_write(tmp_path: Path) -> None:
    assert [hits(tmp_path, "nowhere"), hits(tmp_path, "nowhere")] == [0, 0]


def test_directory_vanishes_before_the_first_call(tmp_path: Path) -> None:
    assert hits(tmp_path, "vanishes") == 0


@pytest.mark.parametrize("suffix", ["nbi", "nbc"])
def test_damaged_files(tmp_path: Path, suffix: str) -> None:
    hits(tmp_path)
    files = list(tmp_path.rglob(f"*.{suffix}"))
    assert files
    for file in files:
        file.write_bytes(b"junk\n")
    assert hits(tmp_path) == 0

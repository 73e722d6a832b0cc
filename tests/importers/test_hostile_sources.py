"""Wrong files of every format become a network or a typed error, in bounded time and memory."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from samples import READABLE

SCRIPT = Path(__file__).parents[1] / "attack_sources.py"
SHARED = Path(__file__).parents[3] / "shared" / "samples"
MUTANTS = int(os.environ.get("BITINFER_MUTANTS", "100000"))
"""How many of each format the long test makes."""
PART = 5_000
FORMATS = [name for name in READABLE if name != "torch_checkpoint"]
"""Checkpoints have a test of their own, test_hostile_checkpoints.py."""

SANDBOXED = ("keras", "onnx")
"""Those of which some are made in every run; the other readers' own tests damage files, too."""


def attack(name: str, count: int, seed: int, folder: Path | None = None) -> dict[str, Any]:
    if not Path("/proc/self/statm").exists():
        pytest.skip("no /proc: memory cannot be limited to what is there and a bit")
    command = [sys.executable, str(SCRIPT), name, str(count), str(seed)]
    done = subprocess.run(
        [*command, *([] if folder is None else [str(folder)])],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-10_000:] + done.stderr[-3_000:]
    result: dict[str, Any] = json.loads(done.stdout)
    assert result["files"] == count
    return result


@pytest.mark.parametrize("name", SANDBOXED)
def test_some_wrong_files_become_networks_or_typed_errors(
    name: str, request: pytest.FixtureRequest
) -> None:
    result = attack(name, 30, request.config.getoption("--seed"))
    assert result["converted"] < 30
    assert result["reasons"] > 1


@pytest.mark.long
@pytest.mark.parametrize("name", FORMATS)
def test_a_hundred_thousand_wrong_files_become_networks_or_typed_errors(
    name: str, request: pytest.FixtureRequest
) -> None:
    folder = SHARED if SHARED.is_dir() else None
    seed = request.config.getoption("--seed") + 1
    for part, begin in enumerate(range(0, MUTANTS, PART)):
        attack(name, min(PART, MUTANTS - begin), seed + part, folder)

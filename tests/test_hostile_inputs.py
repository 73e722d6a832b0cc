"""Wrong pictures, data sets, label files, mean images and reports are read or refused by name."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

KINDS = ("pictures", "data_sets", "labels", "mean_images", "reports")
SCRIPT = Path(__file__).with_name("attack_inputs.py")


def attack(kind: str, count: int, seed: int) -> None:
    if not Path("/proc/self/statm").exists():
        pytest.skip("no /proc: memory cannot be limited to what is there and a bit")
    done = subprocess.run(
        [sys.executable, str(SCRIPT), kind, str(count), str(seed)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OPENBLAS_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-10_000:] + done.stderr[-3_000:]
    result = json.loads(done.stdout)
    assert result["files"] == count
    assert 0 < result["read"] < count
    assert result["reasons"] > 2


@pytest.mark.parametrize("kind", KINDS)
def test_some_wrong_inputs_are_read_or_refused(kind: str, request: pytest.FixtureRequest) -> None:
    attack(kind, 200, request.config.getoption("--seed"))


@pytest.mark.long
@pytest.mark.parametrize("kind", KINDS)
def test_a_hundred_thousand_wrong_inputs_are_read_or_refused(
    kind: str, request: pytest.FixtureRequest
) -> None:
    for part in range(10):
        attack(kind, 10_000, request.config.getoption("--seed") + 1 + part)

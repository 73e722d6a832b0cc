"""What LLVM makes of the compiled loops, also for CPUs that are not this one."""

from __future__ import annotations

import os
import platform
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("numba")

# Compiles the convolution, with the arguments that a layer gives it, and does not run it.
COMPILE = """
import numba, numpy as np
from bitinfer.backends.interpreted import Extras
from bitinfer.backends.numba import binding, loops
from bitinfer.plan import Buffer, Plan, Window, steps

real = loops.bconv2d
def compile_only(*args):
    signature = tuple(numba.typeof(a) for a in args)
    real.compile(signature)
    print(*real.inspect_asm().values())
loops.bconv2d = compile_only

layer = steps.BinaryConv2d(
    name="layer", source=0, target=1, window=Window((3, 3), padding=(1, 1, 1, 1)), pad_value=0,
    weight=np.zeros((64, 3, 3, 1), np.uint64),
)
plan = Plan((Buffer("bits", (8, 8, 64)), Buffer("float", (8, 8, 64))), (layer,), 0, (1,), ("y",))
binding.bind_step(layer, plan).function(
    np.zeros((8, 8, 1), np.uint64), Extras(), np.zeros((8, 8, 64), np.float32)
)
"""


def assembly(tmp_path: Path, cpu: str) -> list[str]:
    """Return the instructions of the convolution, each with its operands, for a CPU."""
    env = os.environ | {
        "NUMBA_CACHE_DIR": str(tmp_path),
        "NUMBA_CPU_NAME": cpu,
        "NUMBA_CPU_FEATURES": "",
    }
    run = subprocess.run(
        [sys.executable, "-c", COMPILE], env=env, capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr
    return [line.strip() for line in run.stdout.splitlines() if re.match(r"\s+[a-z]", line)]


@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="code for x86-64")
@pytest.mark.parametrize(
    ("cpu", "count"),
    [
        ("haswell", r"vpshufb\s.*ymm"),
        ("icelake-server", r"vpopcntb\s.*zmm"),
    ],
)
def test_signs_are_compared_and_counted_in_vectors(tmp_path: Path, cpu: str, count: str) -> None:
    lines = assembly(tmp_path, cpu)
    assert sum(bool(re.match(count, line)) for line in lines) >= 4
    assert not any(line.startswith("popcnt") for line in lines)

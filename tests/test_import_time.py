"""What an import costs.  The bounds are generous: they catch a slow import, not a slow machine."""

from __future__ import annotations

import importlib.util
import json
import statistics
import subprocess
import sys

import pytest

LIMIT_S = 0.25
"""Of ``import bitinfer`` beyond NumPy; it takes a few milliseconds of the 80 allowed."""


def python(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout


def seconds(code: str) -> float:
    timed = f"import time; t = time.perf_counter(); {code}; print(time.perf_counter() - t)"
    return float(python(timed))


def loaded_by(code: str) -> set[str]:
    return set(json.loads(python(f"import json, sys; {code}; print(json.dumps([*sys.modules]))")))


def test_importing_bitinfer_costs_little_beyond_numpy() -> None:
    pairs = [(seconds("import numpy, bitinfer"), seconds("import numpy")) for _ in range(3)]
    assert statistics.median(both - numpy for both, numpy in pairs) < LIMIT_S


def test_all_that_a_service_needs_costs_little_beyond_numpy() -> None:
    needs = "import numpy; from bitinfer import load, Session, bconv2d, pack"
    pairs = [(seconds(needs), seconds("import numpy")) for _ in range(3)]
    assert statistics.median(both - numpy for both, numpy in pairs) < 2 * LIMIT_S


def test_importing_bitinfer_loads_neither_numpy_nor_the_extension() -> None:
    loaded = loaded_by("import bitinfer; bitinfer.__version__; dir(bitinfer)")
    assert not {name for name in loaded if name.split(".")[0] in {"numpy", "msgspec", "_cffi"}}
    assert {name for name in loaded if name.startswith("bitinfer")} == {
        "bitinfer",
        "bitinfer._version",
    }


def test_loading_a_model_needs_no_picture_library_no_terminal_and_no_training() -> None:
    loaded = loaded_by("import bitinfer; bitinfer.load, bitinfer.bconv2d")
    assert not loaded & {"PIL", "rich", "torch", "numba", "argparse", "bitinfer.cli"}


@pytest.mark.parametrize("argument", ["--version", "--help", "run --help", "info --no-such-option"])
def test_the_command_line_answers_without_numpy(argument: str) -> None:
    if importlib.util.find_spec("bitinfer.cli") is None:
        pytest.skip("there is no command line")
    code = (
        f"import io; sys.stdout = sys.stderr = io.StringIO(); sys.argv[1:] = {argument.split()}\n"
        "try:\n import bitinfer.cli; bitinfer.cli.main()\nexcept SystemExit: pass\n"
        "sys.stdout = sys.__stdout__"
    )
    loaded = loaded_by(f"pass\n{code}\npass")
    assert "bitinfer.cli" in loaded
    assert not loaded & {"numpy", "msgspec", "PIL", "rich", "bitinfer.backends"}

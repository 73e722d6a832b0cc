"""bootstrap.sh: what it says, and with which Python it works.  The Python here only takes notes."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "bootstrap.sh"

PYTHON = """#!/bin/sh
echo "$@" >> "$LOG"
if [ "$*" = "-m venv .venv" ]; then
    mkdir -p .venv/bin
    cp "$0" .venv/bin/python
fi
"""

pytestmark = pytest.mark.skipif(not SCRIPT.exists(), reason="a wheel has no bootstrap.sh")


def bootstrap(
    checkout: Path, tmp_path: Path, *arguments: str, python: str = "python3"
) -> tuple[int, str, str]:
    """Run it in a checkout of that name; return exit code, stderr, and what Python was asked."""
    checkout.mkdir()
    (checkout / "bootstrap.sh").write_bytes(SCRIPT.read_bytes())
    log = tmp_path / "log"
    log.write_text("")
    path = tmp_path / "some tools" / "python3"
    path.parent.mkdir(exist_ok=True)
    path.write_text(PYTHON)
    path.chmod(0o755)
    done = subprocess.run(
        ["sh", str(checkout / "bootstrap.sh"), *arguments],
        env={**os.environ, "LOG": str(log), "PYTHON": python.replace("HERE", str(path.parent))},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return done.returncode, done.stderr, log.read_text()


def test_it_says_what_it_does_before_it_does_it(tmp_path: Path) -> None:
    code, said, asked = bootstrap(tmp_path / "a b", tmp_path, "numba", python="HERE/python3")
    assert code == 0, said
    lines = said.splitlines()
    assert lines[0].startswith("bootstrap.sh: making the virtual environment .venv with ")
    assert lines[1].startswith("bootstrap.sh: installing bitinfer with numba into .venv")
    assert "about a minute" in lines[2]
    assert "-m pip install --quiet --disable-pip-version-check .[numba]" in asked
    assert f"with {tmp_path}/some tools/python3" in lines[0]  # a path with a space


def test_brackets_in_the_path_of_the_checkout_are_named(tmp_path: Path) -> None:
    code, said, asked = bootstrap(tmp_path / "bitinfer [v2]", tmp_path, python="HERE/python3")
    assert code == 1
    assert said == (
        "bootstrap.sh: the path of the checkout holds brackets, which pip takes for extras; "
        "rename it\n"
    )
    assert asked == ""


def test_a_python_that_is_not_there_is_named(tmp_path: Path) -> None:
    code, said, _ = bootstrap(tmp_path / "x", tmp_path, python="HERE/no such python")
    assert code == 1
    assert f"no Python of at least 3.11 among: {tmp_path}/some tools/no such python" in said

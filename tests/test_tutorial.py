"""docs/tutorial.md: its blocks, one after the other, do what a newcomer is promised."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import bitinfer

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "tutorial.md"
pytestmark = pytest.mark.skipif(not PAGE.is_file(), reason="there are no docs beside the tests")


def test_the_blocks_of_the_tutorial_run_in_their_order(tmp_path: Path) -> None:
    pytest.importorskip("bitinfer.backends.native._native", reason="export-c needs the extension")
    for package in ("starlette", "uvicorn"):
        pytest.importorskip(package, reason="the tutorial serves: extra 'serve'")
    for program in ("cc", "curl"):
        if shutil.which(program) is None:
            pytest.skip(f"there is no {program}")
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    shutil.copy(ROOT / "examples" / "lenet5.bin", tmp_path / "model.bin")
    command = tmp_path / "bin" / "bitinfer"
    command.parent.mkdir()
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m bitinfer "$@"\n')
    command.chmod(0o755)
    environment = os.environ | {
        "PATH": f"{command.parent}:{os.environ['PATH']}",
        "PYTHONPATH": str(Path(bitinfer.__file__).parents[1]),
    }
    blocks = re.findall(r"^```(sh|python)\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    assert len(blocks) >= 6
    printed = []
    for kind, code in blocks:
        program = ["sh", "-e", "-c"] if kind == "sh" else [sys.executable, "-c"]
        done = subprocess.run(
            [*program, code],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"{code}\n{done.stderr}"
        printed.append(done.stdout)
    assert re.search(r"^ +1  7 ", printed[0], re.MULTILINE)
    assert any('"label":"7"' in text.replace(" ", "") for text in printed)
    assert re.match(r"\d -?\d", printed[-1].splitlines()[-1])

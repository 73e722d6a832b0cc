"""Fixtures of the command-line tests: a small model file, pictures, and a way to call commands."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import pytest

from bitinfer.cli import main
from helpers import COLOURS, colour_model, encode, save, solid


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What a command left: exit code, stdout, stderr."""

    code: int
    out: str
    err: str


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str]) -> Callable[..., Outcome]:
    """Call a command in this process."""

    def call(*args: object) -> Outcome:
        code = main([str(a) for a in args])
        captured = capsys.readouterr()
        return Outcome(code, captured.out, captured.err)

    return call


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A model file that tells colours apart."""
    return save(colour_model(), tmp_path / "colours.bin")


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """A folder with red.png, green.png and blue.png."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    for colour in COLOURS:
        (folder / f"{colour}.png").write_bytes(encode(solid(colour)))
    return folder

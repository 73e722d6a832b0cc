"""``bitinfer convert --pictures``: one picture that cannot be read does not end the conversion."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from torch_files import state_dict, zip_file

from bitinfer import modelfile
from bitinfer.cli import main

DIGITS = Path(__file__).parents[2] / "examples"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for digit in range(10):
        (tmp_path / "digits" / str(digit)).mkdir(parents=True)
    for digit in (2, 5, 7):
        shutil.copy(DIGITS / f"digit_{digit}.png", tmp_path / "digits" / str(digit))
    (tmp_path / "net.pth").write_bytes(zip_file(state_dict("xnor-lenet5")))
    return tmp_path


def convert(folder: Path, *options: str) -> int:
    data = str(folder / "digits")
    arguments = ["convert", str(folder / "net.pth"), "-o", str(folder / "net.bin")]
    return main([*arguments, "--integer-ends", "--pictures", data, *options])


def test_all_pictures_are_compared(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert convert(folder) == 0
    assert "of 3 pictures" in capsys.readouterr().err


def test_a_bad_picture_is_reported_and_the_model_written(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "digits" / "3" / "bad.png").write_bytes(b"junk")
    assert convert(folder) == 5
    error = capsys.readouterr().err
    assert "bad.png" in error
    assert "of 3 pictures" in error
    assert "1 not read" in error
    assert modelfile.load(folder / "net.bin").graph.input.kind == "uint8"


def test_the_first_pictures_are_enough(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert convert(folder, "--limit", "2") == 0
    assert "of 2 pictures" in capsys.readouterr().err
    assert main(["convert", "x", "-o", "y", "--limit", "2"]) == 2


def test_no_picture_at_all_is_an_error(folder: Path) -> None:
    for digit in (2, 5, 7):
        (folder / "digits" / str(digit) / f"digit_{digit}.png").write_bytes(b"junk")
    assert convert(folder) == 4

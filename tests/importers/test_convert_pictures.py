"""``bitinfer convert --pictures``: one picture that cannot be read does not end the conversion."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torch_files import state_dict, zip_file

from bitinfer import modelfile
from bitinfer.cli import main
from bitinfer.cli._integer_ends import eight_are_enough
from bitinfer.graph import nodes

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


def first_weight(folder: Path) -> np.dtype[Any]:
    model = modelfile.load(folder / "net.bin")
    conv = next(node for node in model.graph.nodes if isinstance(node, nodes.Conv2d))
    return model.tensors[conv.weight].dtype


def test_few_pictures_choose_16_bits(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert convert(folder) == 0
    error = capsys.readouterr().err
    assert "integer ends: 8 bits: top-1" in error
    assert "took 16 bits: fewer than 100 pictures do not tell" in error
    assert first_weight(folder) == np.int16


def test_8_bits_are_taken_where_they_lose_nothing(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for copy in range(33):
        for digit in (2, 5, 7):
            first = folder / "digits" / str(digit) / f"digit_{digit}.png"
            shutil.copy(first, first.with_name(f"copy_{copy}.png"))
    assert convert(folder) == 0
    said = re.search(
        r"took 8 bits: 8 give (\d+) right answers where 16 give (\d+); 0 fewer are allowed",
        capsys.readouterr().err,
    )
    assert said is not None
    assert int(said[1]) >= int(said[2])
    assert first_weight(folder) == np.int8


@pytest.mark.parametrize(("bits", "dtype"), [("8", np.int8), ("16", np.int16)])
def test_bits_can_be_named(folder: Path, bits: str, dtype: Any) -> None:
    arguments = ["convert", str(folder / "net.pth"), "-o", str(folder / "net.bin")]
    assert main([*arguments, "--integer-ends", bits]) == 0
    assert first_weight(folder) == dtype


def test_without_pictures_it_is_16_bits(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["convert", str(folder / "net.pth"), "-o", str(folder / "net.bin")]
    assert main([*arguments, "--integer-ends"]) == 0
    assert "took 16 bits: there are no --pictures" in capsys.readouterr().err
    assert first_weight(folder) == np.int16


def test_a_file_in_the_place_of_the_bits_is_told_where_to_stand(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["convert", "--integer-ends", "net.pth", "-o", "net.bin"]) == 2
    assert "'net.pth' is neither 8 nor 16; a file stands before" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("total", "right_16", "right_8", "takes"),
    [
        (99, 90, 90, False),
        (100, 90, 90, True),
        (100, 90, 95, True),
        (499, 400, 399, False),
        (500, 400, 399, True),
        (1000, 400, 397, False),
    ],
)
def test_8_bits_may_lose_one_of_500_pictures(
    total: int, right_16: int, right_8: int, takes: bool
) -> None:
    assert eight_are_enough(total, right_16, right_8)[0] is takes


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


# --- Model files ---------------------------------------------------------------------------------


def test_model_file_gets_the_ends_that_its_source_would_get(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plain, ends = folder / "plain.bin", folder / "ends.bin"
    assert main(["convert", str(folder / "net.pth"), "-o", str(plain)]) == 0
    assert convert(folder) == 0
    capsys.readouterr()
    data = str(folder / "digits")
    arguments = ["convert", str(plain), "-o", str(ends), "--integer-ends", "--pictures", data]
    assert main(arguments) == 0
    error = capsys.readouterr().err
    assert "took 16 bits: fewer than 100 pictures do not tell" in error
    assert f"wrote {ends}" in error
    wanted, found = modelfile.load(folder / "net.bin"), modelfile.load(ends)
    assert wanted.graph == found.graph
    assert found.provenance == wanted.provenance
    for name, tensor in wanted.tensors.items():
        np.testing.assert_array_equal(found.tensors[name], tensor, err_msg=name)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ((), "give it --integer-ends"),
        (("--integer-ends", "8", "--mean", "0"), "leave out --mean"),
        (("--integer-ends", "8", "--swap-hw"), "leave out --swap-hw"),
        (("--integer-ends", "8", "--scale", "0"), "leave out --scale"),
    ],
)
def test_model_file_is_taken_for_its_ends_alone(
    options: tuple[str, ...], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "m.bin"
    assert main(["convert", str(DIGITS / "lenet5.bin"), "-o", str(output), *options]) != 0
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not output.exists()

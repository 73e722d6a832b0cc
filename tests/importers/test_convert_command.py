"""``bitinfer convert``: writes a model, says what became of each layer, and how it fails."""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

import pytest
from torch_files import state_dict, zip_file

from bitinfer import modelfile, zoo
from bitinfer.cli import convert as command
from bitinfer.cli import main
from bitinfer.errors import ConversionError
from bitinfer.importers import states
from bitinfer.importers.convert import convert as convert_file
from bitinfer.model import Preprocessing


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    path = tmp_path / "lenet.pth.tar"
    path.write_bytes(zip_file({"acc": 99.0, "state_dict": state_dict("xnor-lenet5")}))
    return path


def convert(checkpoint: Path, *options: str) -> int:
    output = checkpoint.with_name("lenet.bin")
    return main(["convert", str(checkpoint), "-o", str(output), *options])


def parse(*arguments: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    command.add_parser(parser.add_subparsers())
    return parser.parse_args(["convert", "net.pth", "--arch", "xnor-nin", "-o", "m", *arguments])


def test_architectures_are_those_of_the_importer() -> None:
    assert tuple(states.ARCHITECTURES) == command.ARCHITECTURES
    assert set(command.ARCHITECTURES) <= set(zoo.ARCHITECTURES)


def test_architectures_of_other_families_are_refused(checkpoint: Path) -> None:
    with pytest.raises(ConversionError, match="no checkpoints of bireal18"):
        convert_file(checkpoint, "bireal18")


def test_module_imports_neither_numpy_nor_the_importer() -> None:
    code = (
        "import sys, bitinfer.cli.convert; "
        "sys.exit('numpy' in sys.modules or 'bitinfer.importers' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_model_is_written_and_every_layer_reported(
    checkpoint: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert convert(checkpoint) == 0
    captured = capsys.readouterr()
    assert captured.out == ""
    model = modelfile.load(checkpoint.with_name("lenet.bin"))
    assert model.labels == tuple("0123456789")
    lines = captured.err.splitlines()
    for name in ("conv1", "bn_conv1", "bin_conv2.conv", "bin_ip1.linear", "ip2"):
        assert any(line.startswith(f"{name} ") for line in lines)
    size = checkpoint.with_name("lenet.bin").stat().st_size
    assert f"wrote {checkpoint.with_name('lenet.bin')}: {size:,} bytes" in lines[-1]
    assert "sha256" in lines[-1]
    assert "times smaller than float32" in lines[-1]


def test_quiet_says_nothing(checkpoint: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert convert(checkpoint, "--quiet") == 0
    assert capsys.readouterr() == ("", "")


def test_options_reach_the_model(checkpoint: Path) -> None:
    labels = checkpoint.with_name("labels.txt")
    labels.write_text("\n".join("abcdefghij"))
    options = ("--labels", str(labels), "--mean=-0.5", "--std", "2", "--scale", "1")
    assert convert(checkpoint, *options, "--resize", "32", "--crop", "28x28", "--swap-hw") == 0
    model = modelfile.load(checkpoint.with_name("lenet.bin"))
    assert model.labels == tuple("abcdefghij")
    assert model.preprocessing == Preprocessing(
        "grey", (-0.5,), (2.0,), scale=1.0, resize=32, crop=(28, 28)
    )
    assert model.provenance is not None
    assert model.provenance.notes == ("height and width swapped",)


def test_sizes_and_numbers_are_parsed() -> None:
    args = parse("--resize", "256x250", "--crop", "227x227", "--mean", "0.1,0.2,3e-1")
    assert (args.resize, args.crop, args.mean) == ((256, 250), (227, 227), (0.1, 0.2, 0.3))
    assert parse("--resize", "256").resize == 256


@pytest.mark.parametrize(
    "arguments",
    [
        ("--crop", "227"),
        ("--crop", "1x2x3"),
        ("--resize", "0"),
        ("--resize", "axb"),
        ("--mean", "1,,2"),
        ("--mean", "nan"),
        ("--std", "1,0,1"),
        ("--scale", "inf"),
        ("--arch", "resnet"),
    ],
)
def test_wrong_usage_exits_2(
    checkpoint: Path, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...]
) -> None:
    assert convert(checkpoint, *arguments) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1
    assert not checkpoint.with_name("lenet.bin").exists()


@pytest.mark.parametrize(
    ("options", "code", "words"),
    [
        (("--arch", "xnor-nin"), 3, "xnor.0.weight is missing"),
        (("--crop", "20x20"), 2, "the input wants (28, 28)"),
        (("--mean", "1,2,3"), 2, "3 numbers for 1 channels"),
        (("--labels", "/nowhere/labels.txt"), 4, "/nowhere/labels.txt"),
        (("-o", "/nowhere/lenet.bin"), 1, "cannot write /nowhere/lenet.bin"),
    ],
)
def test_failures_are_one_line_and_leave_no_file(
    checkpoint: Path,
    capsys: pytest.CaptureFixture[str],
    options: tuple[str, ...],
    code: int,
    words: str,
) -> None:
    assert convert(checkpoint, *options) == code
    (line,) = capsys.readouterr().err.splitlines()
    assert words in line
    assert [path.name for path in checkpoint.parent.iterdir()] == ["lenet.pth.tar"]


def test_damaged_checkpoint_leaves_the_old_model(checkpoint: Path) -> None:
    assert convert(checkpoint) == 0
    before = checkpoint.with_name("lenet.bin").read_bytes()
    checkpoint.write_bytes(checkpoint.read_bytes()[:-1])
    assert convert(checkpoint) == 3
    assert checkpoint.with_name("lenet.bin").read_bytes() == before


def test_checkpoint_is_not_overwritten(
    checkpoint: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = checkpoint.read_bytes()
    assert convert(checkpoint, "-o", str(checkpoint)) == 2
    assert "is an input, which it would replace" in capsys.readouterr().err
    assert checkpoint.read_bytes() == before

"""``bitinfer convert``: writes a model, says what became of each layer, and how it fails."""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx_files
import pytest
from torch_files import state_dict, zip_file

from bitinfer import modelfile, zoo
from bitinfer.cli import convert as command
from bitinfer.cli import main
from bitinfer.errors import ConversionError
from bitinfer.importers import states
from bitinfer.importers.convert import convert as convert_file
from bitinfer.importers.options import Options
from bitinfer.model import Preprocessing

EXAMPLE = Path(__file__).parents[2] / "examples" / "lenet5.bin"


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
    steps = "grey; resize to 28x28 (bilinear); (pixel * 0.00392157 - [0.1307]) / [0.3081]"
    assert lines[-2] == f"pictures: {steps}"
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


def test_colours_ground_and_interpolation_reach_the_model(checkpoint: Path) -> None:
    options = ("--color", "grey", "--ground", "white", "--invert", "--interpolation", "bicubic")
    assert convert(checkpoint, *options) == 0
    model = modelfile.load(checkpoint.with_name("lenet.bin"))
    assert model.preprocessing == Preprocessing(
        "grey",
        (0.1307,),
        (0.3081,),
        resize=(28, 28),
        interpolation="bicubic",
        ground="white",
        invert=True,
    )


def test_a_mean_image_reaches_the_model(
    checkpoint: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image = np.random.default_rng(0).uniform(0, 255, (28, 28))
    np.save(checkpoint.with_name("mean.npy"), image)
    mean = ("--mean-image", str(checkpoint.with_name("mean.npy")))
    assert convert(checkpoint, *mean, "--std", "1", "--scale", "1") == 0
    model = modelfile.load(checkpoint.with_name("lenet.bin"))
    p = model.preprocessing
    assert p is not None
    assert (p.mean, p.mean_image) == ((0.0,), "mean_image")
    assert np.array_equal(model.tensors["mean_image"][..., 0], image.astype(np.float32))
    capsys.readouterr()
    assert convert(checkpoint, *mean, "--mean", "0.5") == 2
    assert convert(checkpoint, *mean, "--integer-ends") == 3
    assert convert(checkpoint, "--mean-image", "/nowhere.npy") == 4
    assert len(capsys.readouterr().err.splitlines()) == 3


def test_colours_that_the_network_does_not_take_are_refused(
    checkpoint: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert convert(checkpoint, "--color", "bgr") == 2
    assert "a bgr picture has 3 channels, the input is (28, 28, 1)" in capsys.readouterr().err


def test_means_of_an_architecture_follow_the_order_of_the_colours() -> None:
    own = Preprocessing("rgb", (1.0, 2.0, 3.0), (4.0, 5.0, 6.0))
    assert Options(color="bgr").replace_in(own) == Preprocessing(
        "bgr", (3.0, 2.0, 1.0), (6.0, 5.0, 4.0)
    )
    assert Options(color="rgb").replace_in(own) == own
    given = Options(color="bgr", mean=(7.0, 8.0, 9.0)).replace_in(own)
    assert (given.mean, given.std) == ((7.0, 8.0, 9.0), (6.0, 5.0, 4.0))


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"\n".join(b"%d" % n for n in range(11)), "11 labels, the network has 10 classes; remove"),
        (b"a\nb", "2 labels, the network has 10 classes; wanted one label per line"),
        (b"0" * 300, "line 1: the label 0000"),
        (b"\xff\xfea", "save the labels as UTF-8"),
    ],
)
def test_wrong_labels_name_their_file(
    checkpoint: Path, capsys: pytest.CaptureFixture[str], data: bytes, words: str
) -> None:
    labels = checkpoint.with_name("labels.txt")
    labels.write_bytes(data)
    assert convert(checkpoint, "--labels", str(labels)) == 4
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"bitinfer: error: {labels}")
    assert words in line


def test_labels_of_another_encoding_are_taken_and_said(
    checkpoint: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    labels = checkpoint.with_name("labels.txt")
    names = tuple("äöüßéèêñçå")
    for encoding in ("utf-16", "latin-1"):
        labels.write_bytes("\r\n".join(names).encode(encoding))
        assert convert(checkpoint, "--labels", str(labels)) == 0
        assert modelfile.load(checkpoint.with_name("lenet.bin")).labels == names
        said = "read as Windows-1252" in capsys.readouterr().err
        assert said == (encoding == "latin-1")


@pytest.mark.parametrize("text", ["256x250", "256X250", "256,250", "256\u00d7250", "256 x 250"])
def test_sizes_are_taken_as_people_write_them(text: str) -> None:
    assert parse("--resize", text).resize == (256, 250)
    assert parse("--crop", text).crop == (256, 250)


def test_fractions_and_negative_numbers_are_taken(checkpoint: Path) -> None:
    assert parse("--scale", "1/255").scale == 1 / 255
    assert parse("--std", "1/4,0.5,2").std == (0.25, 0.5, 2.0)
    assert convert(checkpoint, "--mean", "-0.5", "--std", "2") == 0
    assert convert(checkpoint, "--mean", "-.5,0.25,1") == 2  # three means for one channel


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
        ("--scale", "1/0"),
        ("--scale", "1/2/3"),
        ("--resize", "1" * 99),
        ("--resize", "0x8"),
        ("--color", "cmyk"),
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


@pytest.mark.parametrize("name", ["missing.pth", "folder"])
@pytest.mark.parametrize("verb", ["convert", "verify"])
def test_a_file_that_cannot_be_read_is_named_once(
    name: str, verb: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "folder").mkdir()
    source = str(tmp_path / name)
    output = str(tmp_path / "net.bin")
    others = ["-o", output] if verb == "convert" else []
    model = [str(EXAMPLE)] if verb == "verify" else []
    assert main([verb, *model, source, *others]) == 3
    message = capsys.readouterr().err
    assert message.startswith(f"bitinfer: error: {source}: ")
    assert message.count(source) == 1


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


def write_onnx(path: Path, *, is_half_binary: bool = False) -> Path:
    model = onnx_files.network()
    if is_half_binary:
        (node,) = (n for n in model.graph.node if n.output[0] == "second")
        node.input[1] = "w1"  # the weights that the signs are taken of
    path.write_bytes(model.SerializeToString())
    return path


def test_onnx_model_is_converted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    labels = tmp_path / "labels.txt"
    labels.write_text("a\nb\nc\nd\n")
    source, output = write_onnx(tmp_path / "net.onnx"), tmp_path / "net.bin"
    options = ["--labels", str(labels), "--mean", "0.5", "--std", "0.25", "--strict"]
    assert main(["convert", str(source), "-o", str(output), *options]) == 0
    text = capsys.readouterr().err
    assert "input is binary, and weights are ±alpha" in text
    assert "to make it binary" in text
    model = modelfile.load(output)
    assert model.labels == ("a", "b", "c", "d")
    assert model.preprocessing == Preprocessing(
        color="rgb", mean=(0.5,) * 3, std=(0.25,) * 3, resize=(8, 8)
    )
    assert model.provenance is not None
    assert (model.provenance.importer, model.provenance.source) == ("onnx", "net.onnx")


def test_missing_preprocessing_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = write_onnx(tmp_path / "net.onnx")
    assert main(["convert", str(source), "-o", str(tmp_path / "net.bin")]) == 0
    assert "of which the file does not say how pictures become it" in capsys.readouterr().err
    assert modelfile.load(tmp_path / "net.bin").preprocessing is None


def test_strict_writes_nothing_where_a_layer_is_half_binary(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = write_onnx(tmp_path / "net.onnx", is_half_binary=True)
    output = tmp_path / "net.bin"
    assert main(["convert", str(source), "-o", str(output), "--strict"]) == 3
    assert "--strict: second stays float: input is binary, but" in capsys.readouterr().err
    assert not output.exists()
    assert main(["convert", str(source), "-o", str(output)]) == 0


@pytest.mark.parametrize(
    ("options", "code", "words"),
    [
        (["--arch", "xnor-nin"], 2, "leave out --arch"),
        (["--swap-hw"], 2, "--swap-hw is for state dicts"),
    ],
)
def test_options_for_state_dicts_are_refused(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    options: list[str],
    code: int,
    words: str,
) -> None:
    source = write_onnx(tmp_path / "net.onnx")
    assert main(["convert", str(source), "-o", str(tmp_path / "net.bin"), *options]) == code
    assert words in capsys.readouterr().err


def test_labels_of_another_number_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    labels = tmp_path / "labels.txt"
    labels.write_text("a\nb\n")
    source = write_onnx(tmp_path / "net.onnx")
    options = ["-o", str(tmp_path / "net.bin"), "--labels", str(labels)]
    assert main(["convert", str(source), *options]) == 4
    assert "2 labels, the network has 4 classes" in capsys.readouterr().err

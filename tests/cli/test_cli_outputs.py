"""An option that names an output never replaces an input, whatever links lead to it."""

from __future__ import annotations

import gzip
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from helpers import encode, solid

Call = Callable[..., Any]


def idx(array: np.ndarray) -> bytes:
    sizes = b"".join(n.to_bytes(4, "big") for n in array.shape)
    return gzip.compress(bytes([0, 0, 8, array.ndim]) + sizes + array.tobytes())


@pytest.fixture
def mnist(tmp_path: Path) -> Path:
    folder = tmp_path / "mnist"
    folder.mkdir()
    for name in ("t10k", "train"):
        images = np.zeros((3, 8, 8), np.uint8)
        (folder / f"{name}-images-idx3-ubyte.gz").write_bytes(idx(images))
        (folder / f"{name}-labels-idx1-ubyte.gz").write_bytes(idx(np.arange(3, dtype=np.uint8)))
    return folder


@pytest.fixture
def classes(tmp_path: Path) -> Path:
    folder = tmp_path / "classes"
    for colour in ("red", "green", "blue"):
        (folder / colour).mkdir(parents=True)
        (folder / colour / "a.png").write_bytes(encode(solid(colour)))
    return folder


def names_of(path: Path, how: str) -> Path:
    """Return another name of a file."""
    other = path.with_name(f"other-{path.name}")
    if how == "itself":
        return path
    if how == "symlink":
        other.symlink_to(path)
    elif how == "hard link":
        other.hardlink_to(path)
    else:
        other = Path(os.path.relpath(path))
    return other


WAYS = pytest.mark.parametrize("how", ["itself", "symlink", "hard link", "relative"])


def refused(call: Call, option: str, target: Path, *arguments: object) -> None:
    before = target.read_bytes()
    result = call(*arguments)
    assert result.code == 2
    assert result.err.count("\n") == 1
    assert f"{option}: " in result.err
    assert "is an input, which it would replace; name another file" in result.err
    assert target.read_bytes() == before


@WAYS
def test_eval_keeps_the_model(call: Call, model: Path, classes: Path, how: str) -> None:
    target = names_of(model, how)
    refused(call, "--confusion", model, "eval", model, classes, "--confusion", target)


@WAYS
def test_eval_keeps_what_is_in_the_folder(
    call: Call, model: Path, mnist: Path, classes: Path, how: str
) -> None:
    for data, path in (
        (mnist, mnist / "t10k-labels-idx1-ubyte.gz"),
        (mnist, mnist / "t10k-images-idx3-ubyte.gz"),
        (mnist / "t10k-images-idx3-ubyte.gz", mnist / "t10k-labels-idx1-ubyte.gz"),
        (mnist / "t10k-images-idx3-ubyte.gz", mnist / "t10k-images-idx3-ubyte.gz"),
        (classes, classes / "green" / "a.png"),
    ):
        target = names_of(path, how)
        refused(call, "--confusion", path, "eval", model, data, "--confusion", target)
        if target not in (path, Path(os.path.relpath(path))):
            target.unlink()


def test_eval_replaces_its_own_result_within_the_folder(
    call: Call, model: Path, classes: Path
) -> None:
    for _ in range(2):
        assert call("eval", model, classes, "--confusion", classes / "table.csv").code == 0


@WAYS
def test_train_keeps_its_data(call: Call, mnist: Path, how: str) -> None:
    path = mnist / "train-images-idx3-ubyte.gz"
    target = names_of(path, how)
    refused(call, "--output", path, "train", "lenet5-mnist", "--data", mnist, "-o", target)


@WAYS
def test_profile_keeps_its_inputs(call: Call, model: Path, classes: Path, how: str) -> None:
    picture = classes / "red" / "a.png"
    for path in (model, picture):
        target = names_of(path, how)
        refused(call, "--trace", path, "profile", model, picture, "--trace", target)


@WAYS
def test_convert_keeps_its_inputs(call: Call, tmp_path: Path, classes: Path, how: str) -> None:
    labels, source = tmp_path / "labels.txt", tmp_path / "net.pth"
    labels.write_text("a\nb\n")
    source.write_bytes(b"PK")
    options = ("--labels", labels, "--integer-ends", "--pictures", classes)
    for path in (labels, source, classes / "red" / "a.png"):
        target = names_of(path, how)
        refused(call, "--output", path, "convert", source, *options, "-o", target)


@WAYS
def test_verify_keeps_its_inputs(
    call: Call, model: Path, tmp_path: Path, classes: Path, how: str
) -> None:
    source = tmp_path / "net.onnx"
    source.write_bytes(b"no model: outputs are looked at first")
    for path in (model, source, classes / "red" / "a.png"):
        target = names_of(path, how)
        arguments = (model, source, "--images", classes, "--html", target)
        refused(call, "--html", path, "verify", *arguments)


@WAYS
def test_batch_keeps_its_inputs(call: Call, model: Path, classes: Path, how: str) -> None:
    picture = classes / "red" / "a.png"
    for inputs, path in (((picture,), model), ((picture,), picture), ((classes,), picture)):
        target = names_of(path, how)
        refused(call, "--output", path, "batch", model, *inputs, "-o", target)
        if target not in (path, Path(os.path.relpath(path))):
            target.unlink()


@pytest.mark.parametrize(
    "command",
    [
        "convert net.pth -o -",
        "eval MODEL PICTURES --confusion -",
        "export-c MODEL -o -",
        "profile MODEL --trace -",
        "report x.json -o -",
        "report x.json --markdown -",
        "run MODEL PICTURES --annotate -",
        "train lenet5-mnist --data PICTURES -o -",
        "verify MODEL net.pth --html -",
        "zoo get lenet5-mnist -o -",
    ],
)
def test_no_file_is_called_as_standard_output_is(
    call: Call,
    model: Path,
    classes: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    command: str,
) -> None:
    if command.startswith("export-c"):
        pytest.importorskip("bitinfer.backends.native._native")
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    named = {"MODEL": model, "PICTURES": classes}
    result = call(*(named.get(word, word) for word in command.split()))
    assert result.code == 2
    assert result.err.startswith("bitinfer: error: --")
    assert "nothing is written to standard output; name a file" in result.err
    assert not list(folder.iterdir())


def test_a_dash_in_a_folder_is_a_name(call: Call, model: Path, tmp_path: Path) -> None:
    assert call("profile", model, "--rounds", 1, "--trace", tmp_path / "-").code == 0
    assert (tmp_path / "-").is_file()


def test_zoo_replaces_no_file_by_a_card(call: Call, tmp_path: Path) -> None:
    notes = tmp_path / "net.md"
    notes.write_text("mine")
    result = call("zoo", "get", "lenet5-mnist", "-o", tmp_path / "net.bin")
    assert (result.code, notes.read_text()) == (1, "mine")
    assert "net.md: the model's card would replace this file" in result.err
    assert not (tmp_path / "net.bin").exists()
    notes.unlink()
    for _ in range(2):
        assert call("zoo", "get", "lenet5-mnist", "-o", tmp_path / "net.bin").code == 0


def test_too_many_threads_are_refused_before_anything_is_read(call: Call, tmp_path: Path) -> None:
    for threads in (257, 100_000, 10**30):
        result = call(
            *("train", "lenet5-mnist", "--data", tmp_path, "-o", tmp_path / "x"),
            *("--threads", threads),
        )
        assert result.code == 2
        assert f"{threads} threads, wanted 1 to 256" in result.err

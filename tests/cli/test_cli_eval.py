"""``bitinfer eval``: the figures, the confusion matrix, and what it does with bad data."""

from __future__ import annotations

import csv
import json
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bitinfer.cli.eval import _Score, wilson_interval
from bitinfer.graph import GraphBuilder
from bitinfer.model import Model, Preprocessing
from bitinfer.session import Session
from helpers import COLOURS, colour_model, encode, save, solid

Call = Callable[..., Any]
REFERENCE = "--backend=reference"


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """40 images: every colour is right, but of ten reds that are labelled green."""
    colours = ["red"] * 20 + ["green"] * 10 + ["blue"] * 10
    images = np.stack([np.asarray(solid(colour)) for colour in colours])
    labels = [0] * 10 + [1] * 10 + [1] * 10 + [2] * 10
    np.savez(tmp_path / "data.npz", images=images, labels=np.array(labels))
    return tmp_path / "data.npz"


def test_json_has_the_figures(model: Path, data: Path, call: Call) -> None:
    result = call("eval", "--json", REFERENCE, model, data)
    assert result.code == 0
    document = json.loads(result.out)
    assert (document["top1"], document["correct"], document["total"]) == (0.75, 30, 40)
    low, high = document["top1_interval"]
    assert math.isclose(low, 0.5981, abs_tol=5e-5)
    assert math.isclose(high, 0.8581, abs_tol=5e-5)
    assert document["top5"] == 1.0
    assert document["failed"] == 0
    assert document["backend"].startswith("reference")
    assert document["data"] == {"path": str(data), "kind": "npz"}
    assert document["ms_per_image"] >= 0


def test_text_has_the_figures(model: Path, data: Path, call: Call) -> None:
    result = call("eval", REFERENCE, model, data)
    assert result.code == 0
    assert "75.00 %  30 of 40, 95 % interval 59.81 to 85.81 %" in result.out
    assert result.err == "bitinfer: 40 of 40, top-1 75.00 %\n"
    assert call("eval", "-q", REFERENCE, model, data).err == ""


def test_limit_keeps_the_first(model: Path, data: Path, call: Call) -> None:
    document = json.loads(call("eval", "--json", REFERENCE, "--limit", 11, model, data).out)
    assert (document["correct"], document["total"]) == (10, 11)


def test_confusion_matrix_has_a_row_per_true_class(
    model: Path, data: Path, tmp_path: Path, call: Call
) -> None:
    path = tmp_path / "confusion.csv"
    assert call("eval", REFERENCE, model, data, "--confusion", path).code == 0
    with path.open(newline="") as file:
        rows = list(csv.reader(file))
    assert rows == [
        ["true \\ predicted", *COLOURS],
        ["red", "10", "0", "0"],
        ["green", "10", "10", "0"],
        ["blue", "0", "0", "10"],
    ]


@pytest.mark.parametrize("name", ["missing/confusion.csv", ".", "/proc/confusion.csv"])
def test_confusion_that_cannot_be_written_is_found_before_the_work(
    name: str, model: Path, data: Path, tmp_path: Path, call: Call
) -> None:
    result = call("eval", REFERENCE, model, data, "--confusion", tmp_path / name)
    assert result.code == 1
    assert result.out == ""
    assert result.err.startswith("bitinfer: error: cannot write")
    assert result.err.count("\n") == 1


def test_folder_per_class_with_an_unreadable_picture_is_exit_code_5(
    model: Path, tmp_path: Path, call: Call
) -> None:
    root = tmp_path / "root"
    for colour in COLOURS:
        (root / colour).mkdir(parents=True)
        (root / colour / "a.png").write_bytes(encode(solid(colour)))
    (root / "red" / "b.png").write_text("text")
    result = call("eval", "--json", REFERENCE, model, root)
    assert result.code == 5
    document = json.loads(result.out)
    assert (document["correct"], document["total"], document["failed"]) == (3, 3, 1)
    assert f"{root / 'red' / 'b.png'}: not a picture" in result.err
    assert "1 pictures cannot be read" in call("eval", REFERENCE, model, root).out


@pytest.fixture
def twelve(tmp_path: Path) -> Callable[[int], tuple[Path, Path]]:
    """Make a network of twelve classes and folders numbered from a first number."""

    def make(first: int) -> tuple[Path, Path]:
        b = GraphBuilder("twelve", input_shape=(8, 8, 3))
        x = b.flatten(b.avg_pool2d(b.input, 8), "channels_last")
        plain = Preprocessing(color="rgb", mean=(0.0,) * 3, std=(1.0,) * 3)
        model = Model(*b.build(b.dense(x, np.zeros((12, 3)))), preprocessing=plain)
        for number in range(first, first + 12):
            folder = tmp_path / "twelve" / str(number)
            folder.mkdir(parents=True)
            (folder / "a.png").write_bytes(encode(solid("red")))
        return save(model, tmp_path / "twelve.bin"), tmp_path / "twelve"

    return make


@pytest.mark.parametrize(("first", "rule"), [(0, "numbers"), (1, "numbers from 1")])
def test_the_rule_of_the_classes_is_said(
    first: int, rule: str, twelve: Callable[[int], tuple[Path, Path]], tmp_path: Path, call: Call
) -> None:
    model, root = twelve(first)
    result = call("eval", "--json", REFERENCE, model, root, "--confusion", tmp_path / "c.csv")
    assert result.code == 0
    assert json.loads(result.out)["data"]["classes"] == rule
    assert "--classes order" in result.err  # since torchvision would count otherwise
    text = call("eval", REFERENCE, model, root)
    assert f"classes  folders bear the numbers of the classes, from {first}" in text.out
    as_texts = call("eval", "--json", "--classes=order", REFERENCE, model, root)
    assert json.loads(as_texts.out)["data"]["classes"] == "order"
    assert "order of texts (10 before 2)" in as_texts.err
    refused = call("eval", "--classes=labels", REFERENCE, model, root)
    assert refused.code == 4
    assert "no labels to match" in refused.err


def test_what_is_passed_over_is_counted_and_named(
    model: Path, pictures: Path, tmp_path: Path, call: Call
) -> None:
    root = tmp_path / "root"
    for colour, name in (("red", "a.jfif"), ("green", "b.png"), ("blue", "unnamed")):
        (root / colour).mkdir(parents=True)
        kind = "JPEG" if name == "a.jfif" else "PNG"
        (root / colour / name).write_bytes(encode(solid(colour), kind))
    (root / "red" / "notes.txt").write_text("text")
    (root / "red" / "x.gif").write_bytes(b"GIF89a")
    result = call("eval", "--json", REFERENCE, model, root)
    document = json.loads(result.out)
    assert (result.code, document["correct"], document["total"]) == (0, 3, 3)
    passed_over = [str(root / "red" / name) for name in ("notes.txt", "x.gif")]
    assert document["data"] == {
        "path": str(root),
        "kind": "folder",
        "classes": "labels",
        "passed_over": passed_over,
    }
    named = (
        f"passed over 2 files that are no picture of a kind that is read: {', '.join(passed_over)}"
    )
    assert f"bitinfer: {named}\n" in result.err
    assert (
        "others   2 files are no pictures of a kind that is read"
        in call("eval", "-q", REFERENCE, model, root).out
    )


def test_ground_inversion_and_threads_are_options(model: Path, data: Path, call: Call) -> None:
    result = call("eval", "--json", "--threads=2", "--invert", REFERENCE, model, data)
    assert json.loads(result.out)["correct"] < 30
    same = call("eval", "--json", "--no-invert", "--ground=white", REFERENCE, model, data)
    assert json.loads(same.out)["correct"] == 30


def test_binding_is_no_part_of_the_speed(
    model: Path, data: Path, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    bind = Session._bind

    def slowly(self: Session, dtype: Any) -> Any:
        time.sleep(0.5)
        return bind(self, dtype)

    monkeypatch.setattr(Session, "_bind", slowly)
    result = call("eval", "--json", "--limit=1", REFERENCE, model, data)
    assert json.loads(result.out)["ms_per_image"] < 400


def test_data_without_a_readable_picture_is_exit_code_4(
    model: Path, tmp_path: Path, call: Call
) -> None:
    (tmp_path / "root" / "red").mkdir(parents=True)
    (tmp_path / "root" / "red" / "a.png").write_text("text")
    result = call("eval", "--json", REFERENCE, model, tmp_path / "root")
    assert (result.code, result.out) == (4, "")
    assert "none of its 1 pictures" in result.err


@pytest.mark.parametrize("content", [b"", b"PK\3\4 no zip", b"text"])
def test_data_that_cannot_be_read_are_exit_code_4(
    content: bytes, model: Path, tmp_path: Path, call: Call
) -> None:
    path = tmp_path / "data"
    path.write_bytes(content)
    result = call("eval", REFERENCE, model, path)
    assert (result.code, result.out) == (4, "")
    assert result.err.startswith(f"bitinfer: error: {path}: ")
    assert result.err.count("\n") == 1


def test_missing_data_model_and_backend_have_their_exit_codes(
    model: Path, data: Path, tmp_path: Path, call: Call
) -> None:
    assert call("eval", REFERENCE, model, tmp_path / "none").code == 4
    assert call("eval", REFERENCE, tmp_path / "none", data).code == 3
    assert call("eval", "--backend=native:none", model, data).code == 2
    silent = save(colour_model(preprocessing=None), tmp_path / "silent.bin")
    assert call("eval", REFERENCE, silent, data).code == 3


def test_wilson_interval_agrees_with_published_values() -> None:
    # Newcombe 1998, Table I, method 3.
    for successes, total, low, high in (
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0000, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ):
        found = wilson_interval(successes, total)
        assert np.allclose(found, (low, high), atol=5e-5)
    assert wilson_interval(7, 7)[1] == 1.0


def test_top_5_counts_the_five_best_and_ties_go_to_the_first() -> None:
    score = _Score(8, confusion=True)
    outputs = np.array([[0, 1, 2, 3, 4, 5, 6, 7], [1, 1, 1, 1, 1, 1, 1, 1]], np.float32)
    score.add(outputs, np.array([3, 4]))
    assert (score.top1, score.top5, score.total) == (0, 2, 2)
    score.add(outputs, np.array([2, 0]))
    assert (score.top1, score.top5, score.total) == (1, 3, 4)
    assert score.confusion is not None
    assert score.confusion[0, 0] == score.confusion[3, 7] == 1

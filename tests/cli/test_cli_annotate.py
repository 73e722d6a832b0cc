"""``bitinfer run --annotate``: pictures with their labels, which replace nothing."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from bitinfer import files
from bitinfer.vision.annotating import annotate
from helpers import encode, noise, solid

Call = Callable[..., Any]
REFERENCE = "--backend=reference"


def results(call: Call, *arguments: object) -> tuple[int, list[dict[str, Any]], str]:
    outcome = call("run", REFERENCE, "--jsonl", *arguments)
    return outcome.code, [json.loads(line) for line in outcome.out.splitlines()], outcome.err


def test_every_picture_is_written_with_a_line_for_each_class(
    model: Path, pictures: Path, tmp_path: Path, call: Call
) -> None:
    folder = tmp_path / "new" / "folder"
    code, lines, err = results(call, "-k2", model, pictures, "--annotate", folder)
    assert (code, err) == (0, f"bitinfer: 3 annotated in {folder}\n")
    assert [line["annotated"] for line in lines] == [
        str(folder / f"{colour}.png") for colour in ("blue", "green", "red")
    ]
    for line in lines:
        image = Image.open(line["annotated"])
        one_line = Image.open(BytesIO(_of_one_line(line)))
        assert image.width == one_line.width == 240
        height = image.height - one_line.height  # of a line
        assert image.height == 240 + 2 * height
        before = np.asarray(Image.open(line["input"]).resize((240, 240)))
        assert np.array_equal(np.asarray(image)[:240], before)  # nothing is covered
    assert sorted(folder.iterdir()) == sorted(Path(line["annotated"]) for line in lines)


def _of_one_line(line: dict[str, Any]) -> bytes:
    best = line["predictions"][0]
    return encode(annotate(Image.open(line["input"]), [(best["label"], best["probability"])]))


def test_the_bar_is_as_long_as_the_probability_and_the_text_is_there() -> None:
    picture = noise(100, 300, 3)
    shares = [1.0, 0.5, 0.0]
    image = np.asarray(annotate(picture, [("", share) for share in shares])).astype(int)
    assert np.array_equal(image[:100], np.asarray(picture))
    row = (len(image) - 100) // 3
    for number, share in enumerate(shares):
        edge = image[100 + number * row + 2]  # above the letters
        assert ((edge == (0, 92, 60)).all(axis=1).sum()) == round(300 * share)
    assert ((image == 255).all(axis=2)[100:]).sum() > 30  # the percentages
    long = annotate(picture, [("a very long label " * 50, 0.3)])
    assert long.size == annotate(picture, [("a", 0.3)]).size


@pytest.mark.parametrize("size", [(1, 1), (1, 5000), (5000, 1), (3, 131072), (4000, 3000)])
def test_pictures_of_any_shape_are_annotated(size: tuple[int, int]) -> None:
    image = annotate(Image.new("L", size, 200), [("label", 0.25)])
    assert image.mode == "RGB"
    assert image.width >= 240
    assert image.width * image.height < 5_000_000 + max(240, size[0]) * (size[1] + 120)


def test_names_that_are_taken_get_a_number(
    model: Path, tmp_path: Path, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    inputs = [tmp_path / name for name in ("a/x.png", "b/x.jpg", "c/X.bmp", "x-2.png")]
    for path in inputs:
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(encode(solid("red")))
    stdin = SimpleNamespace(buffer=BytesIO(encode(solid("blue"))), isatty=lambda: False)
    monkeypatch.setattr(sys, "stdin", stdin)
    _, lines, _ = results(call, model, *inputs, "-", "--annotate", tmp_path / "out")
    names = [Path(line["annotated"]).name for line in lines]
    assert names == ["x.png", "x-2.png", "X-3.png", "x-2-2.png", "standard-input.png"]


def test_what_is_written_is_no_input(model: Path, pictures: Path, call: Call) -> None:
    folder = pictures / "annotated"
    inputs = (pictures, f"{pictures}/**/*.png", f"{pictures}/**/*.png")
    code, lines, _ = results(call, model, *inputs, "--annotate", folder)
    assert code == 0
    assert [Path(line["input"]).parent for line in lines] == [pictures] * 9
    assert len(list(folder.iterdir())) == 9


def test_a_folder_with_anything_in_it_is_refused(
    model: Path, pictures: Path, tmp_path: Path, call: Call
) -> None:
    before = {path: path.read_bytes() for path in pictures.iterdir()}
    code, lines, err = results(call, model, pictures, "--annotate", pictures)
    assert (code, lines) == (2, [])
    assert f"{pictures} has files in it" in err
    assert "name a new folder" in err
    assert {path: path.read_bytes() for path in pictures.iterdir()} == before
    for wrong in (model, model / "x", "a\0b"):
        code, lines, err = results(call, model, pictures, "--annotate", wrong)
        assert (code, lines) == (1, [])
        assert err.startswith("bitinfer: error: --annotate: cannot use ")


def test_bad_pictures_leave_no_file_and_the_others_are_done(
    model: Path, pictures: Path, tmp_path: Path, call: Call
) -> None:
    (pictures / "green.png").write_bytes(b"no picture")
    code, lines, err = results(call, model, pictures, "--annotate", tmp_path / "out")
    assert code == 5
    assert "annotated" not in lines[1]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["blue.png", "red.png"]
    assert "2 annotated" in err


def test_pictures_that_cannot_be_written_are_named_and_the_others_are_done(
    model: Path, pictures: Path, tmp_path: Path, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    def replace(source: str, target: str) -> None:
        if not target.endswith("green.png"):
            raise OSError(28, "No space left on device")
        Path(source).rename(target)

    monkeypatch.setattr(files.os, "replace", replace)
    outcome = call("run", REFERENCE, "--json", model, pictures, "--annotate", tmp_path / "out")
    assert outcome.code == 1
    for colour in ("blue", "red"):
        problem = (
            f"{pictures / colour}.png: not annotated: cannot write {tmp_path / 'out' / colour}"
        )
        assert f"{problem}.png: No space left on device\n" in outcome.err
    assert f"1 annotated in {tmp_path / 'out'}, 2 could not be" in outcome.err
    listed = json.loads(outcome.out)["results"]
    assert [result["predictions"][0]["label"] for result in listed] == ["blue", "green", "red"]
    assert ["annotated" in result for result in listed] == [False, True, False]
    (written,) = (tmp_path / "out").iterdir()
    Image.open(written).load()


def test_the_longest_names_that_files_have_do_not_end_the_run(
    model: Path, pictures: Path, tmp_path: Path, call: Call
) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / ("x" * 251 + ".png")).write_bytes((pictures / "red.png").read_bytes())
    code, lines, _ = results(
        call, model, tmp_path / "a", tmp_path / "b", pictures, "--annotate", tmp_path / "new"
    )
    assert (code, len(lines)) == (0, 5)
    assert len({line["annotated"] for line in lines}) == 5

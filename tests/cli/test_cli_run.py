"""``bitinfer run``: what is an input, what is printed, and which exit code comes out."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
import pty
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import numpy as np
import pytest
from PIL import Image

from bitinfer import session
from bitinfer.graph import GraphBuilder
from bitinfer.model import Model, Preprocessing
from helpers import COLOUR_PREPROCESSING, COLOURS, bomb_png, colour_model, encode, save, solid

Call = Callable[..., Any]
REFERENCE = "--backend=reference"


def classify(call: Call, model: Path, *inputs: object) -> tuple[int, dict[str, Any]]:
    result = call("run", "--json", REFERENCE, model, *inputs)
    return result.code, json.loads(result.out)


def labels(document: dict[str, Any]) -> list[str | None]:
    """Return the best label of every result, None where it is an error."""
    results = document["results"]
    return [r["predictions"][0]["label"] if "predictions" in r else None for r in results]


# What is printed


def test_picture_is_classified(model: Path, pictures: Path, call: Call) -> None:
    result = call("run", REFERENCE, model, pictures / "green.png")
    assert result.code == 0
    assert result.err == ""
    name, first, second, third, stages = result.out.splitlines()
    assert name == f"{pictures / 'green.png'}  (8x8)"
    assert first.split() == ["1", "green", "99.9", "%", "#" * 20]
    assert second.split()[:2] == ["2", "red"]
    assert third.split()[4] == "-" * 20
    for word in ("decode", "preprocess", "inference", " ms", "reference"):
        assert word in stages


def test_sizes_before_and_after_preparing_are_shown(
    model: Path, tmp_path: Path, call: Call
) -> None:
    path = tmp_path / "wide.png"
    path.write_bytes(encode(solid("blue", (64, 32))))
    assert "(64x32 -> 8x8)" in call("run", REFERENCE, model, path).out


def test_json_is_the_documented_schema(model: Path, pictures: Path, call: Call) -> None:
    code, document = classify(call, model, pictures / "red.png", pictures / "none.png", "-k2")
    assert code == 5
    assert document.keys() == {"schema_version", "model", "backend", "results"}
    assert document["schema_version"] == 1
    assert document["model"] == {
        "path": str(model),
        "sha256": hashlib.sha256(model.read_bytes()).hexdigest(),
    }
    assert document["backend"].startswith("reference")
    good, bad = document["results"]
    assert good.keys() == {"input", "predictions", "ms"}
    assert good["input"] == str(pictures / "red.png")
    wanted = {"index", "label", "probability", "score"}
    assert [p.keys() for p in good["predictions"]] == [wanted] * 2
    best = good["predictions"][0]
    assert (best["index"], best["label"]) == (0, "red")
    assert 0.99 < best["probability"] <= 1
    assert good["ms"].keys() == {"decode", "preprocess", "inference"}
    assert all(isinstance(v, float) and v >= 0 for v in good["ms"].values())
    assert bad.keys() == {"input", "error"}
    assert bad["error"].keys() == {"type", "message"}
    assert bad["error"]["type"] == "ImageError"


@pytest.mark.parametrize("k", [1, 2, 3, 99])
def test_top_k_names_as_many_classes_as_there_are(
    k: int, model: Path, pictures: Path, call: Call
) -> None:
    for option in (("-k", k), ("--top-k", k)):
        _, document = classify(call, model, pictures / "red.png", *option)
        assert len(document["results"][0]["predictions"]) == min(k, 3)


def test_model_without_labels_numbers_its_classes(
    tmp_path: Path, pictures: Path, call: Call
) -> None:
    model = save(colour_model(labels=()), tmp_path / "m.bin")
    _, document = classify(call, model, pictures / "blue.png")
    assert labels(document) == ["2"]


def test_labels_cannot_steer_the_terminal(tmp_path: Path, pictures: Path, call: Call) -> None:
    model = save(colour_model(labels=("a\x1b[2J\n", "[red]b", "c" * 99)), tmp_path / "m.bin")
    result = call("run", REFERENCE, model, pictures / "red.png")
    assert "\x1b" not in result.out
    assert r"a\x1b[2J\n" in result.out
    assert "[red]b" in result.out
    assert max(map(len, result.out.splitlines()[1:4])) < 100


def test_a_terminal_beside_the_results_is_told_how_far_it_is(model: Path, pictures: Path) -> None:
    leader, follower = pty.openpty()
    code = (
        "import sys; from bitinfer.cli import _terminal, main\n"
        "_terminal._SECONDS_BETWEEN_STATES = 0.0; sys.exit(main())"
    )
    arguments = [REFERENCE, "--jsonl", str(model), str(pictures), "/nowhere"]
    done = subprocess.run(
        [sys.executable, "-c", code, "run", *arguments],
        stdout=subprocess.PIPE,
        stderr=follower,
        env={**os.environ, "TERM": "xterm", "NO_COLOR": ""},
        timeout=60,
        check=False,
    )
    os.close(follower)
    shown = os.read(leader, 65536).decode()
    os.close(leader)
    assert done.returncode == 5
    assert len(done.stdout.splitlines()) == 4
    assert "\r\x1b[K3 inputs done\r\x1b[Kbitinfer: error: /nowhere: " in shown
    assert shown.endswith("\r\x1b[Kbitinfer: 1 of 4 inputs failed\r\n")


@pytest.mark.parametrize("no_color", ["", "1"])
def test_colour_is_for_terminals_that_want_it(no_color: str, model: Path, pictures: Path) -> None:
    leader, follower = pty.openpty()
    environment = {**os.environ, "NO_COLOR": no_color, "TERM": "xterm", "COLUMNS": "40"}
    command = [sys.executable, "-m", "bitinfer", "run", REFERENCE, str(model)]
    subprocess.run(
        [*command, str(pictures / "red.png")],
        stdout=follower,
        stderr=subprocess.PIPE,
        env=environment,
        timeout=60,
        check=True,
    )
    os.close(follower)
    out = os.read(leader, 65536)
    os.close(leader)
    assert (b"\x1b[" in out) == (not no_color)
    assert out.count(b"\n") == 5  # nothing is wrapped


def test_output_that_is_not_finite_is_an_error_and_never_nan(
    model: Path, pictures: Path, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    nan = [session.Prediction(0, "red", float("nan"), 0.0)]
    monkeypatch.setattr(session.Session, "predictions", lambda *args: nan)
    result = call("run", "--json", REFERENCE, model, pictures / "red.png")
    assert result.code == 4
    assert "NaN" not in result.out
    assert "not finite" in json.loads(result.out)["results"][0]["error"]["message"]


def test_first_output_is_the_one_that_the_labels_name(
    tmp_path: Path, pictures: Path, call: Call
) -> None:
    b = GraphBuilder("two", input_shape=(8, 8, 3))
    x = b.flatten(b.avg_pool2d(b.input, 8), "channels_last")
    outputs = b.dense(x, np.eye(3), name="colour"), b.dense(x, -np.eye(3), name="opposite")
    plain = Preprocessing(color="rgb", mean=(0.0,) * 3, std=(1.0,) * 3)
    two = Model(*b.build(*outputs), labels=tuple(COLOURS), preprocessing=plain)
    _, document = classify(call, save(two, tmp_path / "two.bin"), pictures)
    assert labels(document) == ["blue", "green", "red"]


# Inputs


def test_folder_stands_for_its_pictures(model: Path, pictures: Path, call: Call) -> None:
    (pictures / "notes.txt").write_text("no picture")
    (pictures / "red.jfif").write_bytes(encode(solid("red"), "JPEG", quality=100))
    (pictures / "unnamed").write_bytes(encode(solid("green"), "WEBP"))
    (pictures / "more").mkdir()
    (pictures / "more" / "x.bmp").write_bytes(encode(solid("red"), "BMP"))
    code, document = classify(call, model, pictures)
    assert code == 0
    assert labels(document) == ["blue", "green", "red", "red", "green", "red"]
    assert document["passed_over"] == [str(pictures / "notes.txt")]
    assert call("run", REFERENCE, model, pictures).err == (
        "bitinfer: passed over 1 file that is no picture of a kind that is read: "
        f"{pictures / 'notes.txt'}\n"
    )
    assert call("run", "-q", REFERENCE, model, pictures).err == ""


def test_empty_text_as_input_is_named(model: Model, call: Call) -> None:
    assert "an empty text as INPUT" in call("run", REFERENCE, model, "").err


@pytest.mark.parametrize("other", ["model", "picture"])
def test_a_list_that_is_another_file_is_refused(
    other: str, model: Path, pictures: Path, call: Call
) -> None:
    # Its bytes may be names of folders to them that look: "." and "/", between two NULs.
    path = model if other == "model" else pictures / "red.png"
    result = call("run", REFERENCE, model, "--files-from", path)
    assert (result.code, result.out) == (4, "")
    assert f"--files-from {path}: holds no list of names; wanted one per line" in result.err


def test_folder_without_a_picture_says_what_it_holds(
    model: Model, tmp_path: Path, call: Call
) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "notes.txt").write_text("no picture")
    result = call("run", REFERENCE, model, tmp_path / "d")
    assert result.code == 4
    assert f"{tmp_path / 'd'}: no picture there of a kind that is read (PNG, " in result.err
    assert "PNM); passed over: 1; see" in result.err
    assert str(tmp_path / "d" / "notes.txt") in result.err


def test_a_folder_that_cannot_be_listed_is_reported_and_the_others_are_done(
    model: Path, pictures: Path, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    (pictures / "a").mkdir()
    scandir = os.scandir

    def refuse(path: Any) -> Any:
        if Path(path) == pictures / "a":
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    code, document = classify(call, model, pictures)
    assert code == 5
    assert labels(document) == ["blue", "green", "red", None]
    assert document["results"][-1]["error"]["message"] == f"{pictures / 'a'}: Permission denied"


@pytest.mark.parametrize("name", ["Photos [2024]", "[x]", "what?", "*"])
def test_folders_that_exist_as_they_are_written_are_meant_by_a_glob(
    name: str, model: Path, pictures: Path, call: Call
) -> None:
    folder = pictures / name / "sub [1]"
    folder.mkdir(parents=True)
    (folder / "red.png").write_bytes((pictures / "red.png").read_bytes())
    for pattern in (f"{folder}/*.png", f"{pictures}/{name}/*/*.png", f"{pictures}/{name}/**/r*"):
        code, document = classify(call, model, pattern)
        assert (code, labels(document)) == (0, ["red"]), pattern


def test_a_model_in_a_pictures_place_is_named(model: Path, call: Call) -> None:
    result = call("run", REFERENCE, model, model)
    assert result.code == 4
    assert "a bitinfer model file, not a picture" in result.err
    assert "the model file comes first" in result.err


@pytest.mark.parametrize("separator", [b"\n", b"\r\n", b"\0"])
@pytest.mark.parametrize("from_stdin", [False, True])
def test_inputs_come_from_a_list(
    separator: bytes,
    from_stdin: bool,
    model: Path,
    pictures: Path,
    call: Call,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (pictures / "[r]*.png").write_bytes(encode(solid("green")))
    names = [b"[r]*.png", b"red.png", b"none.png"]
    data = separator.join(os.fsencode(pictures) + b"/" + name for name in names) + separator
    path = pictures.parent / "list"
    path.write_bytes(data)
    monkeypatch.setattr(sys, "stdin", stdin_of(data))
    source = "-" if from_stdin else path
    code, document = classify(call, model, "--files-from", source, pictures / "blue.png")
    assert code == 5
    assert labels(document) == ["blue", "green", "red", None]
    _, alone = classify(call, model, f"--files-from={path}")
    assert labels(alone) == ["green", "red", None]


def test_a_list_that_cannot_be_read_is_exit_code_4(model: Path, tmp_path: Path, call: Call) -> None:
    (tmp_path / "list").write_text("\n\n")
    for name, message in (("list", "holds no name"), ("none", "No such file")):
        result = call("run", REFERENCE, model, "--files-from", tmp_path / name)
        assert result.code == 4
        assert result.err.startswith(f"bitinfer: error: --files-from {tmp_path / name}: ")
        assert message in result.err


@pytest.mark.parametrize(
    "options", [(), ("-", "--files-from", "-"), ("a", "--json", "--csv"), ("a", "--csv", "--jsonl")]
)
def test_arguments_that_do_not_fit_together_are_exit_code_2(
    options: tuple[str, ...], model: Path, call: Call
) -> None:
    result = call("run", REFERENCE, model, *options)
    assert result.code == 2
    assert result.err.count("\n") == 1


def test_json_lines_are_the_results_of_the_json(model: Path, pictures: Path, call: Call) -> None:
    inputs = (pictures / "red.png", pictures / "none.png", pictures / "blue.png")
    result = call("run", "--jsonl", REFERENCE, model, *inputs)
    assert result.code == 5
    lines = [json.loads(line) for line in result.out.splitlines()]
    wanted = classify(call, model, *inputs)[1]["results"]
    assert [line.keys() for line in lines] == [record.keys() for record in wanted]
    assert [line.get("predictions") for line in lines] == [r.get("predictions") for r in wanted]


def test_json_lines_come_in_order_each_before_the_next_picture_is_read(
    model: Path, pictures: Path, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [str(pictures / f"{colour}.png") for colour in ("red", "none", "blue", "green", "red")]
    examine, printed = session.Session.examine, io.BytesIO()
    monkeypatch.setattr(sys, "stdin", stdin_of("\n".join(names).encode()))
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(printed, "utf-8", write_through=False))
    seen: list[int] = []

    def count(self: session.Session, name: str, top_k: int = 5) -> Any:
        seen.append(printed.getvalue().count(b"\n"))
        return examine(self, name, top_k)

    monkeypatch.setattr(session.Session, "examine", count)
    assert call("run", "--jsonl", REFERENCE, model, "--files-from", "-").code == 5
    assert seen == list(range(5))
    lines = [json.loads(line) for line in printed.getvalue().splitlines()]
    assert [line["input"] for line in lines] == names
    assert ["error" in line for line in lines] == [False, True, False, False, False]


def test_csv_has_a_row_for_every_class_and_every_error(
    model: Path, pictures: Path, call: Call
) -> None:
    red = pictures / 'a "red", one.png'
    (pictures / "red.png").rename(red)
    result = call("run", "--csv", "-k2", REFERENCE, model, red, pictures / "none.png")
    assert result.code == 5
    first, second, bad = csv.DictReader(io.StringIO(result.out))
    assert (first["input"], first["rank"], first["label"]) == (str(red), "1", "red")
    assert (second["rank"], second["error"]) == ("2", "")
    assert float(first["score"]) > float(second["score"])
    assert (bad["input"], bad["rank"]) == (str(pictures / "none.png"), "")
    assert "No such file" in bad["error"]


def test_scores_are_what_the_network_gave(model: Path, pictures: Path, call: Call) -> None:
    loaded = session.load(model, "reference")
    wanted = loaded.run(loaded.prepare(pictures / "red.png"))
    _, document = classify(call, model, pictures / "red.png")
    predictions = document["results"][0]["predictions"]
    assert {p["index"]: p["score"] for p in predictions} == dict(enumerate(wanted.tolist()))
    shown = call("run", "--scores", REFERENCE, model, pictures / "red.png").out
    assert f"{wanted.max():.6g}" in shown.splitlines()[1].split()


def test_ground_and_inversion_replace_what_the_model_says(
    tmp_path: Path, pictures: Path, call: Call
) -> None:
    path = tmp_path / "clear.png"
    clear = Image.new("RGBA", (8, 8), (0, 0, 0, 0))
    clear.paste((255, 0, 0, 255), (0, 0, 8, 4))
    path.write_bytes(encode(clear))
    loaded = session.load(save(colour_model(), tmp_path / "m.bin"))
    half = loaded.run(loaded.prepare(path))

    def scores(*options: str) -> list[float]:
        _, document = classify(call, tmp_path / "m.bin", path, *options)
        found = sorted(document["results"][0]["predictions"], key=lambda p: p["index"])
        return [p["score"] for p in found]

    assert scores() == half.tolist() == scores("--ground=black", "--no-invert")
    assert scores("--ground=white") == [4.0, 0.0, 0.0]
    assert scores("--ground=white", "--invert") == [-4.0, 0.0, 0.0]
    stored = msgspec.structs.replace(COLOUR_PREPROCESSING, ground="white", invert=True)
    save(colour_model(preprocessing=stored), tmp_path / "m.bin")
    assert scores() == [-4.0, 0.0, 0.0]
    assert scores("--no-invert", "--ground", "black") == half.tolist()


@pytest.mark.parametrize(("ink", "ground"), [("black", "black"), ("white", "white")])
def test_ink_that_does_not_show_on_its_ground_is_said(
    ink: str, ground: str, model: Path, tmp_path: Path, call: Call
) -> None:
    clear = Image.new("RGBA", (8, 8), (0, 0, 0, 0))
    clear.paste(ink, (2, 2, 6, 6))
    path = tmp_path / "clear.png"
    path.write_bytes(encode(clear))
    other = "white" if ground == "black" else "black"
    said = call("run", REFERENCE, "--ground", ground, model, path).err
    assert f"{path}: all that is not transparent is {ground} too" in said
    assert f"see --ground {other} and --invert" in said
    for quiet in (("--ground", other), ("-q", "--ground", ground)):
        assert call("run", REFERENCE, *quiet, model, path).err == ""
    path.write_bytes(encode(Image.new("RGBA", (8, 8), (0, 0, 0, 0))))  # nothing to be seen
    assert call("run", REFERENCE, model, path).err == ""


def test_threads_are_taken_or_refused(model: Path, pictures: Path, call: Call) -> None:
    assert call("run", REFERENCE, "--threads=2", model, pictures / "red.png").code == 0
    assert call("run", REFERENCE, "--threads=0", model, pictures / "red.png").code == 0
    assert call("run", REFERENCE, "--threads=9999", model, pictures / "red.png").code == 2
    assert call("run", REFERENCE, "--threads=-1", model, pictures / "red.png").code == 2


def test_quoted_glob_stands_for_the_files_that_match(
    model: Path, pictures: Path, call: Call
) -> None:
    (pictures / "sub.png").mkdir()
    code, document = classify(call, model, f"{pictures}/*.png", f"{pictures}/[gr]*.png")
    assert code == 0
    assert labels(document) == ["blue", "green", "red", "green", "red"]
    code, document = classify(call, model, f"{pictures.parent}/**/re?.png")
    assert labels(document) == ["red"]


def test_existing_file_is_not_taken_for_a_glob(model: Path, pictures: Path, call: Call) -> None:
    (pictures / "red.png").rename(pictures / "[a].png")
    _, document = classify(call, model, pictures / "[a].png")
    assert labels(document) == ["red"]


@pytest.mark.parametrize("name", ["*.gif", "none.png", "empty", "a\0b"])
def test_input_that_stands_for_nothing_is_an_error(
    name: str, model: Path, pictures: Path, call: Call
) -> None:
    (pictures / "empty").mkdir()
    result = call("run", REFERENCE, model, f"{pictures}/{name}")
    assert result.code == 4
    assert result.out == ""
    assert result.err.startswith(f"bitinfer: error: {pictures}")
    assert result.err.count("\n") == 1


def stdin_of(data: bytes, *, terminal: bool = False) -> Any:
    return SimpleNamespace(buffer=io.BytesIO(data), isatty=lambda: terminal)


def test_dash_is_a_picture_on_stdin(
    model: Path, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", stdin_of(encode(solid("blue"))))
    code, document = classify(call, model, "-")
    assert (code, labels(document)) == (0, ["blue"])
    assert document["results"][0]["input"] == "-"


@pytest.mark.parametrize(
    ("stdin", "message"),
    [
        (stdin_of(b""), "standard input: empty"),
        (stdin_of(b"text"), "standard input: not a picture"),
        (stdin_of(b"", terminal=True), "is a terminal"),
        (None, "is closed"),
    ],
)
def test_stdin_without_a_picture_is_an_error(
    stdin: Any, message: str, model: Path, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", stdin)
    result = call("run", REFERENCE, model, "-")
    assert result.code == 4
    assert message in result.err


# What cannot be read


def test_bad_pictures_become_error_records_and_the_others_go_on(
    model: Path, pictures: Path, call: Call
) -> None:
    (pictures / "a-bomb.png").write_bytes(bomb_png())
    (pictures / "c-text.png").write_text("text")
    (pictures / "h-cut.png").write_bytes(encode(solid("red"))[:-20])
    code, document = classify(call, model, pictures)
    assert code == 5
    assert labels(document) == [None, "blue", None, "green", None, "red"]
    result = call("run", REFERENCE, model, pictures)
    assert result.code == 5
    errors = result.err.splitlines()
    assert [e.startswith("bitinfer: error: ") for e in errors] == [True, True, True, False]
    assert errors[-1] == "bitinfer: 3 of 6 inputs failed"
    assert result.out.count("inference") == 3


def test_exit_code_is_4_if_nothing_can_be_read(model: Path, tmp_path: Path, call: Call) -> None:
    for name in ("a.png", "b.png"):
        (tmp_path / name).write_text("text")
    assert call("run", REFERENCE, model, tmp_path / "a.png").code == 4
    assert call("run", REFERENCE, model, tmp_path / "a.png", tmp_path / "b.png").code == 4
    code, document = classify(call, model, tmp_path / "a.png")
    assert (code, labels(document)) == (4, [None])


def test_pictures_of_the_wrong_size_are_refused_one_by_one(tmp_path: Path, call: Call) -> None:
    plain = Preprocessing(color="rgb", mean=(0.0,) * 3, std=(1.0,) * 3)
    model = save(colour_model(preprocessing=plain), tmp_path / "m.bin")
    (tmp_path / "good.png").write_bytes(encode(solid("red")))
    (tmp_path / "large.png").write_bytes(encode(solid("red", (9, 9))))
    result = call("run", REFERENCE, model, tmp_path / "good.png", tmp_path / "large.png")
    assert result.code == 5
    assert f"{tmp_path / 'large.png'}: 9x9 pixels, the network wants 8x8" in result.err


def test_rejected_model_is_exit_code_3(tmp_path: Path, pictures: Path, call: Call) -> None:
    for data in (b"", b"text", colour_bytes()[:-1], flip(colour_bytes())):
        path = tmp_path / "m.bin"
        path.write_bytes(data)
        result = call("run", "--json", REFERENCE, path, pictures)
        assert result.code == 3
        assert result.out == ""
        assert result.err.startswith(f"bitinfer: error: {path}: ")
        assert result.err.count("\n") == 1


def colour_bytes() -> bytes:
    from bitinfer import modelfile

    return modelfile.to_bytes(colour_model())


def flip(data: bytes) -> bytes:
    return data[:-5] + bytes([data[-5] ^ 1]) + data[-4:]


def test_model_that_takes_no_pictures_is_exit_code_3(
    tmp_path: Path, pictures: Path, call: Call
) -> None:
    b = GraphBuilder("vector", input_shape=(4,))
    vector = save(Model(*b.build(b.dense(b.input, np.eye(4)))), tmp_path / "vector.bin")
    silent = save(colour_model(preprocessing=None), tmp_path / "silent.bin")
    for model, message in ((vector, "vector of 4 values"), (silent, "no preprocessing")):
        result = call("run", REFERENCE, model, pictures)
        assert result.code == 3
        assert f"{model}: " in result.err
        assert message in result.err


def test_unknown_kernel_is_exit_code_2(model: Path, pictures: Path, call: Call) -> None:
    result = call("run", "--backend=native:nonsense", model, pictures)
    assert result.code == 2
    assert result.err.startswith("bitinfer: error: ")


def test_pictures_need_no_write_access(
    model: Path, pictures: Path, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(pictures)
    for path in (pictures, model, *pictures.iterdir()):
        path.chmod(0o555 if path.is_dir() else 0o444)
    try:
        assert call("run", REFERENCE, model, "red.png").code == 0
    finally:
        pictures.chmod(0o755)


def test_quiet_leaves_the_errors(model: Path, pictures: Path, call: Call) -> None:
    result = call("run", "-q", REFERENCE, model, pictures / "red.png", "none.png")
    assert result.err == "bitinfer: error: none.png: No such file or directory\n"


def test_turned_pictures_are_seen_upright(tmp_path: Path, call: Call) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    path = tmp_path / "turned.png"
    path.write_bytes(encode(solid("red", (4, 9)), exif=exif))
    model = save(colour_model(), tmp_path / "m.bin")
    assert "(9x4 -> 8x8)" in call("run", REFERENCE, model, path).out

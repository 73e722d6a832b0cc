"""Batches of pictures to a Parquet file: order, bad files, interruptions."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bitinfer import batch
from bitinfer.batch import Input, Row
from bitinfer.cli import main
from bitinfer.errors import OutputError, UsageError
from bitinfer.session import Session
from helpers import COLOURS, colour_model, encode, save, solid

pq = pytest.importorskip("pyarrow.parquet", reason="the extra 'batch' is not installed")


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return save(colour_model(), tmp_path / "colours.bin")


@pytest.fixture
def session() -> Session:
    return Session(colour_model(), "reference")


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """A folder of 40 pictures, of which 7.png and 23.png are none."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    for number in range(40):
        data = b"no picture" if number in (7, 23) else encode(solid(list(COLOURS)[number % 3]))
        (folder / f"{number:02}.png").write_bytes(data)
    return folder


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch, "ROWS", 4)


def rows(path: Path) -> list[dict[str, Any]]:
    table: list[dict[str, Any]] = pq.read_table(path).to_pylist()
    return table


def call(model: Path, output: Path, *rest: object) -> int:
    return main(["batch", "--backend=reference", str(model), f"-o{output}", *map(str, rest)])


# --- what is written -----------------------------------------------------------------------------


def test_more_threads_than_there_can_be_are_refused(
    model: Path, pictures: Path, tmp_path: Path, capsys: Any
) -> None:
    assert call(model, tmp_path / "out.parquet", "--threads=257", pictures) == 2
    assert "threads is 257, wanted an integer within 0 to 256" in capsys.readouterr().err
    assert not (tmp_path / "out.parquet").exists()


@pytest.mark.parametrize("threads", [1, 3])
def test_rows_are_in_the_order_of_the_inputs_and_bad_files_are_rows(
    model: Path, session: Session, pictures: Path, capsys: Any, threads: int
) -> None:
    output = pictures.parent / "out.parquet"
    assert call(model, output, f"--threads={threads}", "-q", "-k", "2", pictures) == 5
    assert "38 pictures, 2 failed" in capsys.readouterr().out
    table = rows(output)
    assert [Path(row["input"]).name for row in table] == [f"{n:02}.png" for n in range(40)]
    for number, row in enumerate(table):
        if number in (7, 23):
            assert "not a picture" in row["error"]
            assert {row[name] for name in ("index", "label", "probability", "labels")} == {None}
            continue
        wanted = session.classify(row["input"], 2)
        assert row["error"] is None
        assert row["label"] == list(COLOURS)[number % 3] == wanted[0].label
        assert row["indices"] == [p.index for p in wanted]
        assert row["labels"] == [p.label for p in wanted]
        assert row["probabilities"] == [np.float32(p.probability) for p in wanted]
        assert (row["index"], row["probability"]) == (row["indices"][0], row["probabilities"][0])
    assert not output.with_name("out.parquet.parts").exists()


def test_the_file_says_what_made_it(model: Path, pictures: Path) -> None:
    from bitinfer import modelfile

    output = pictures.parent / "out.parquet"
    call(model, output, "-q", pictures)
    metadata = pq.read_schema(output).metadata
    assert metadata[b"bitinfer.model_sha256"].decode() == modelfile.load(model).sha256
    assert metadata[b"bitinfer.backend"] == b"reference"
    assert metadata[b"bitinfer.top_k"] == b"5"


def test_exit_codes(model: Path, pictures: Path, tmp_path: Path, capsys: Any) -> None:
    output = tmp_path / "out.parquet"
    assert call(model, output, "-q", pictures / "00.png") == 0
    assert call(model, output, "-q", pictures / "07.png") == 4
    assert call(model, output, "-q", pictures / "07.png", pictures / "00.png") == 5
    assert call(model, output, "-q", tmp_path / "missing.png") == 4
    assert "No such file" in rows(output)[0]["error"]
    assert call(model, tmp_path / "no" / "out.parquet", "-q", pictures) == 1
    assert call(model, output, "-q", "-") == 2
    assert call(model, output, "-q", "--ray", "--threads=2", pictures) == 2
    capsys.readouterr()


def test_an_output_that_is_a_folder_is_refused_before_any_work(
    model: Path, pictures: Path, capsys: Any
) -> None:
    assert call(model, pictures, "-q", pictures) == 1
    assert "is a directory" in capsys.readouterr().err
    assert not pictures.with_name("pictures.parts").exists()


def test_a_name_that_is_no_text_is_written_as_what_it_is(session: Session, tmp_path: Path) -> None:
    name = os.fsdecode(bytes(tmp_path) + b"/\xff\xfe.png")
    Path(name).write_bytes(encode(solid("red")))
    output = tmp_path / "out.parquet"
    run([Input(name)], output, session)
    (row,) = rows(output)
    assert row["label"] == "red"
    assert "udcff" in row["input"]


# --- going on ------------------------------------------------------------------------------------


def run(inputs: Any, output: Path, session: Session, **options: Any) -> batch.Outcome:
    options = {"top_k": 1, **options}
    compute = options.pop("compute", batch.threaded(session, 2, options["top_k"]))
    return batch.run(inputs, output, compute, session=session, **options)


def stopping_after(count: int, session: Session) -> batch.Compute:
    def compute(parts: Iterable[batch.Part]) -> Iterator[list[Row]]:
        for number, part in enumerate(parts):
            if number == count:
                raise KeyboardInterrupt
            yield [batch.classify_row(session, one, 1) for one in part]

    return compute


@pytest.fixture
def inputs(pictures: Path) -> list[Input]:
    return [Input(str(path)) for path in sorted(pictures.iterdir())]


def test_an_interrupted_batch_goes_on_and_the_file_is_the_same(
    session: Session, inputs: list[Input], tmp_path: Path
) -> None:
    whole, pieced = tmp_path / "whole.parquet", tmp_path / "pieced.parquet"
    assert run(inputs, whole, session) == batch.Outcome(38, 2, 0)
    for done in (2, 3, 0):
        with pytest.raises(KeyboardInterrupt):
            run(inputs, pieced, session, compute=stopping_after(done, session))
        assert not pieced.exists()
    asked: list[int] = []
    outcome = run(inputs, pieced, session, report=lambda done, failed: asked.append(done))
    assert outcome == batch.Outcome(38, 2, 20)
    assert asked[0] == 20
    assert pieced.read_bytes() == whole.read_bytes()


def test_another_batch_does_not_go_on_with_it(
    session: Session, inputs: list[Input], tmp_path: Path
) -> None:
    output = tmp_path / "out.parquet"

    def interrupt() -> None:
        with pytest.raises(KeyboardInterrupt):
            run(inputs, output, session, compute=stopping_after(2, session), restart=True)

    interrupt()
    with pytest.raises(UsageError, match="with other top_k; give --restart"):
        run(inputs, output, session, top_k=2)
    with pytest.raises(UsageError, match="with other inputs"):
        run(inputs[1:], output, session)
    Path(inputs[30].path).write_bytes(encode(solid("blue", (9, 9))))
    with pytest.raises(UsageError, match="with other inputs"):
        run(inputs, output, session)
    other = Session(colour_model(labels=("r", "g", "b")), "reference")
    other.model = type(other.model)(**{**vars_of(other.model), "sha256": "0" * 64})
    with pytest.raises(UsageError, match="other model_sha256, inputs"):
        run(inputs, output, other)
    assert run(inputs, output, session, restart=True).found == 0


def vars_of(model: Any) -> dict[str, Any]:
    import dataclasses

    return {field.name: getattr(model, field.name) for field in dataclasses.fields(model)}


def test_what_is_in_the_way_is_not_touched(
    session: Session, inputs: list[Input], tmp_path: Path
) -> None:
    output = tmp_path / "out.parquet"
    folder = tmp_path / "out.parquet.parts"
    folder.mkdir()
    (folder / "mine.txt").write_text("mine")
    with pytest.raises(UsageError, match="in the way"):
        run(inputs, output, session)
    (folder / "job.json").write_text("[1")
    with pytest.raises(UsageError, match="not what a batch leaves there"):
        run(inputs, output, session)
    assert (folder / "mine.txt").read_text() == "mine"


def test_a_result_of_before_stays_until_the_next_is_complete(
    session: Session, inputs: list[Input], tmp_path: Path
) -> None:
    output = tmp_path / "out.parquet"
    run(inputs[:8], output, session)
    before = output.read_bytes()
    with pytest.raises(KeyboardInterrupt):
        run(inputs, output, session, compute=stopping_after(3, session))
    assert output.read_bytes() == before
    run(inputs, output, session)
    assert len(rows(output)) == 40


def test_a_disk_that_is_full_is_an_output_error(
    session: Session, inputs: list[Input], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: object, data: bytes) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(batch.files, "write_atomically", full)
    with pytest.raises(OutputError, match="No space left"):
        run(inputs, tmp_path / "out.parquet", session)


KILLED = """
import sys, time
from bitinfer import batch, vision
from bitinfer.cli import main

batch.ROWS = 4
decode = vision.decode

def slow(*arguments, **options):
    time.sleep(0.02)
    return decode(*arguments, **options)

vision.decode = slow
sys.exit(main(sys.argv[1:]))
"""


def test_a_batch_that_is_killed_goes_on_and_the_file_is_the_same(
    model: Path, pictures: Path, tmp_path: Path, capsys: Any
) -> None:
    whole, pieced = tmp_path / "whole.parquet", tmp_path / "pieced.parquet"
    assert call(model, whole, "-q", pictures) == 5
    arguments = ["batch", "--backend=reference", str(model), "-o", str(pieced), "-q", str(pictures)]
    parts = tmp_path / "pieced.parquet.parts"
    kills = 0
    while True:
        popen = subprocess.Popen(
            [sys.executable, "-c", KILLED, *arguments],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        seen = len(list(parts.glob("*.arrow")))
        while popen.poll() is None and len(list(parts.glob("*.arrow"))) <= seen + 1:
            time.sleep(0.005)
        if popen.poll() is not None:
            break
        popen.send_signal(signal.SIGKILL)
        popen.wait()
        kills += 1
    assert kills >= 2
    assert popen.returncode == 5
    assert pieced.read_bytes() == whole.read_bytes()
    capsys.readouterr()


def test_without_pyarrow_the_extra_is_named(
    model: Path, pictures: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    assert call(model, pictures.parent / "out.parquet", "-q", pictures) == 2
    assert "'.[batch]'" in capsys.readouterr().err


@pytest.mark.parametrize("used", [["--ray"], []])
def test_without_ray_the_extra_is_named(
    model: Path,
    pictures: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: Any,
    used: list[str],
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    code = call(model, pictures.parent / "out.parquet", "-q", *used, pictures / "00.png")
    assert code == (2 if used else 0)
    if used:
        assert "'.[ray]'" in capsys.readouterr().err

"""``bitinfer bench``: which figures it prints, and what it refuses."""

from __future__ import annotations

import hashlib
import json
import os
import pty
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bitinfer.graph import GraphBuilder
from bitinfer.model import Model
from helpers import binary_model, colour_model, save

Call = Callable[..., Any]
QUICK = ("--rounds=7", "--warm-up=1")


@pytest.fixture
def binary(tmp_path: Path) -> Path:
    """A model file of a network with binary layers."""
    return save(binary_model(), tmp_path / "binary.bin")


MACS = 8 * 8 * 20 * 9 + 8 * 8 * 70 * 180 + 11200
"""Of ``binary``."""


def test_every_batch_and_number_of_threads_has_a_row(binary: Path, call: Call) -> None:
    result = call("bench", binary, *QUICK, "--batch=1,4", "--threads", "1,2")
    assert (result.code, result.err) == (0, "")
    lines = result.out.splitlines()
    assert lines[0] == f"model    {binary}, {MACS / 1e6:.3f} MMAC"
    assert lines[2] == "input    random pixels, 8x8x1"
    assert lines[3].startswith("load     ")
    assert lines[5].split()[:5] == ["batch", "threads", "rounds", "min", "ms"]
    assert [line.split()[:3] for line in lines[6:]] == [
        ["1", "1", "7"],
        ["1", "2", "7"],
        ["4", "1", "7"],
        ["4", "2", "7"],
    ]


def test_json_is_the_documented_schema(binary: Path, call: Call) -> None:
    result = call("bench", "--json", binary, *QUICK, "--batch=3")
    assert (result.code, result.err) == (0, "")
    document = json.loads(result.out)
    assert document["schema_version"] == 1
    assert document["model"] == {
        "path": str(binary),
        "sha256": hashlib.sha256(binary.read_bytes()).hexdigest(),
    }
    assert document["macs"] == MACS
    assert document["load_ms"] > 0
    assert document["first_inference_ms"] > 0
    (row,) = document["results"]
    assert (row["batch"], row["threads"], row["rounds"]) == (3, 1, 7)
    assert 0 < row["min_ms"] <= row["median_ms"] <= row["p90_ms"] <= row["p99_ms"]
    assert row["samples_per_s"] == pytest.approx(3000 / row["median_ms"])
    assert row["gmac_per_s"] == pytest.approx(row["samples_per_s"] * MACS / 1e9)


def test_markdown_is_a_table(binary: Path, call: Call) -> None:
    lines = call("bench", "--markdown", binary, *QUICK, "--batch=1,2").out.splitlines()
    assert lines[2].startswith("| batch | threads | rounds | min ms |")
    assert lines[3] == "|" + "---:|" * 9
    assert [line.split(" | ")[0] for line in lines[4:]] == ["| 1", "| 2"]


def test_seconds_bound_the_time(binary: Path, call: Call) -> None:
    document = json.loads(call("bench", "--json", binary, "--seconds=0.05", "--warm-up=1").out)
    (row,) = document["results"]
    assert row["rounds"] >= 1
    assert row["rounds"] * row["min_ms"] < 1000


def test_what_is_run_is_a_picture_pixels_or_floats(
    model: Path, pictures: Path, tmp_path: Path, call: Call
) -> None:
    def described(*args: object) -> str:
        return str(json.loads(call("bench", "--json", *QUICK, *args).out)["input"])

    assert described(model) == "random pixels, 8x8x3"
    assert described(model, "--float") == "random float32, 8x8x3"
    red = pictures / "red.png"
    assert described(model, "--image", red) == f"{red}, 8x8x3"
    silent = save(colour_model(preprocessing=None), tmp_path / "silent.bin")
    assert described(silent) == "random float32, 8x8x3"


def test_backend_and_threads_are_those_asked_for(model: Path, call: Call) -> None:
    command = ("bench", "--json", model, *QUICK, "--backend=reference", "--threads=0,3")
    document = json.loads(call(*command).out)
    assert document["backend"] == "reference"
    assert document["results"][0]["threads"] >= 1
    assert document["results"][1]["threads"] == 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--batch=0",), "'0' is not an integer of at least 1"),
        (("--batch=1,",), "'' is not an integer of at least 1"),
        (("--batch=x",), "'x' is not an integer of at least 1"),
        (("--threads=-1",), "'-1' is not an integer of at least 0"),
        (("--threads=9999",), "threads is 9999, wanted an integer within 0 to 256"),
        (("--seconds=0",), "'0' is not a number of seconds"),
        (("--seconds=nan",), "'nan' is not a number of seconds"),
        (("--rounds=1", "--seconds=1"), "--rounds and --seconds do not go together"),
        (("--json", "--markdown"), "--markdown and --json do not go together"),
        (("--backend=native:nonsense",), "bitinfer: error: "),
    ],
)
def test_wrong_usage_is_exit_code_2(
    arguments: tuple[str, ...], message: str, model: Path, call: Call
) -> None:
    result = call("bench", model, *arguments)
    assert (result.code, result.out) == (2, "")
    assert message in result.err
    assert result.err.count("\n") == 1


def test_files_that_cannot_be_used_are_exit_codes_3_and_4(
    model: Path, pictures: Path, tmp_path: Path, call: Call
) -> None:
    assert call("bench", tmp_path / "none.bin", *QUICK).code == 3
    (tmp_path / "text.bin").write_text("text")
    assert call("bench", tmp_path / "text.bin", *QUICK).code == 3
    silent = save(colour_model(preprocessing=None), tmp_path / "silent.bin")
    assert call("bench", silent, *QUICK, "--image", pictures / "red.png").code == 3
    assert call("bench", model, *QUICK, "--image", tmp_path / "none.png").code == 4
    result = call("bench", model, *QUICK, "--image", pictures / "red.png", "--float")
    assert result.code == 2
    assert "--float is for random input" in result.err


def test_output_that_is_not_finite_is_an_error(tmp_path: Path, call: Call) -> None:
    b = GraphBuilder("huge", (4,))
    y = b.dense(b.dense(b.input, np.full((4, 4), 1e38)), np.full((4, 4), 1e38))
    result = call("bench", save(Model(*b.build(y)), tmp_path / "huge.bin"), *QUICK)
    assert (result.code, result.out) == (1, "")
    assert "not finite" in result.err


def test_names_cannot_steer_the_terminal(tmp_path: Path, call: Call) -> None:
    model = save(colour_model(), tmp_path / "a\x1b[2J.bin")
    for option in ((), ("--markdown",), ("--json",)):
        result = call("bench", model, *QUICK, *option)
        assert result.code == 0
        assert "\x1b" not in result.out


INTERRUPTED = """
import signal, sys
from bitinfer.cli import main
from bitinfer.session import Session
run, calls = Session.run, []
def count(*args):
    calls.append(1)
    if len(calls) == 20:
        signal.raise_signal(signal.SIGINT)
    return run(*args)
Session.run = count
sys.exit(main(sys.argv[1:]))
"""


def test_interrupt_ends_quietly(model: Path) -> None:
    command = [sys.executable, "-c", INTERRUPTED, "bench", str(model), "--seconds=600"]
    done = subprocess.run(command, capture_output=True, timeout=60, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (130, b"", b"")


def test_closed_pipe_ends_quietly(model: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "bitinfer", "bench", model, *QUICK],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout is not None
    process.stdout.close()
    assert process.stderr is not None
    assert process.stderr.read() == b""
    process.stderr.close()
    assert process.wait(timeout=60) == 141


@pytest.mark.parametrize("no_color", ["", "1"])
def test_a_terminal_is_told_how_far_it_is(no_color: str, model: Path) -> None:
    leader, follower = pty.openpty()
    command = [
        sys.executable,
        "-m",
        "bitinfer",
        "bench",
        "--backend=reference",
        "--seconds=1.2",
        str(model),
    ]
    done = subprocess.run(
        command,
        stdout=subprocess.PIPE,
        stderr=follower,
        env={**os.environ, "NO_COLOR": no_color, "TERM": "xterm"},
        timeout=60,
        check=True,
    )
    os.close(follower)
    shown = b""
    if not no_color:
        shown = os.read(leader, 65536)
    os.close(leader)
    assert (re.search(rb"\d+ rounds, \d+ s left", shown) is not None) == (not no_color)
    assert b"rounds" in done.stdout

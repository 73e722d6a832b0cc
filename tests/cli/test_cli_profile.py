"""``bitinfer profile``: the table of steps, the trace, and what it refuses."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from helpers import binary_model, encode, noise, save

Call = Callable[..., Any]
QUICK = "--rounds=5"


@pytest.fixture
def binary(tmp_path: Path) -> Path:
    """A model file of a network with binary layers."""
    return save(binary_model(), tmp_path / "binary.bin")


def test_steps_are_sorted_by_their_share(binary: Path, call: Call) -> None:
    result = call("profile", binary, QUICK)
    assert (result.code, result.err) == (0, "")
    lines = result.out.splitlines()
    assert lines[2] == "input    random pixels, 8x8x1"
    start = next(i for i, line in enumerate(lines) if line.split()[:1] == ["share"])
    rows = [line.split() for line in lines[start + 1 : lines.index("", start)]]
    assert {"body", "head"} <= {row[-1] for row in rows}
    shares = [float(row[0]) for row in rows]
    assert shares == sorted(shares, reverse=True)
    assert sum(shares) == pytest.approx(100, abs=1)
    assert lines[-2].startswith("by operation          ")
    assert lines[-1].startswith("outside convolutions  ")


def test_what_takes_long_outside_convolutions_says_why(
    binary: Path, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bitinfer.profiling.LARGE_SHARE", 0.0)
    lines = call("profile", binary, QUICK).out.splitlines()
    start = lines.index("what takes over 0 %, if it is no convolution or a slow one, and why")
    rows = [line.split(maxsplit=1) for line in lines[start + 1 : lines.index("", start)]]
    reasons = dict(rows)
    assert reasons["head"].startswith("each weight serves one product of a sample, ")
    assert "body" not in reasons


def test_json_is_the_documented_schema(binary: Path, call: Call) -> None:
    document = json.loads(call("profile", "--json", binary, QUICK, "--threads=2").out)
    assert document["schema_version"] == 1
    assert (document["rounds"], document["threads"]) == (5, 2)
    steps = document["steps"]
    assert {step["name"] for step in steps} >= {"body", "head"}
    assert document["ms"] == pytest.approx(sum(step["ns_median"] for step in steps) / 1e6)
    assert document["macs"] == sum(step["macs"] for step in steps)
    outside = [step["share"] for step in steps if "conv2d" not in step["operation"]]
    assert document["share_outside_convolutions"] == pytest.approx(sum(outside))
    body = next(step for step in steps if step["name"] == "body")
    assert body["macs"] == 8 * 8 * 70 * 180
    assert body.keys() == {
        *("name", "operation", "kernel", "ns_min", "ns_median", "share", "macs", "mac_per_cycle"),
        "reason",
    }


def test_picture_is_run(binary: Path, tmp_path: Path, call: Call) -> None:
    path = tmp_path / "noise.png"
    path.write_bytes(encode(noise(8, 8, 1)))
    document = json.loads(call("profile", "--json", binary, path, QUICK).out)
    assert document["input"] == f"{path}, 8x8x1"


def test_trace_has_the_fields_of_onnx_runtime(binary: Path, tmp_path: Path, call: Call) -> None:
    trace = tmp_path / "trace.json"
    result = call("profile", "--json", binary, QUICK, "--trace", trace)
    assert result.code == 0
    assert result.err == f"bitinfer: {trace} written\n"
    steps = json.loads(result.out)["steps"]
    events = json.loads(trace.read_text())
    for event in events:
        assert event.keys() == {"cat", "pid", "tid", "dur", "ts", "ph", "name", "args"}
        assert event["ph"] == "X"
        assert event["pid"] == os.getpid()
    nodes = [event for event in events if event["cat"] == "Node"]
    assert [node["name"] for node in nodes] == [f"{s['name']}_kernel_time" for s in steps]
    assert [node["args"]["op_name"] for node in nodes] == [s["operation"] for s in steps]
    end = 0.0
    for i, node in enumerate(nodes):
        assert node["ts"] == pytest.approx(end, abs=0.01)
        end = node["ts"] + node["dur"]
        assert node["args"]["node_index"] == str(i)
        assert {"provider", "kernel", "parameter_size", "output_size"} <= node["args"].keys()
    (whole,) = [event for event in events if event["name"] == "model_run"]
    assert whole["cat"] == "Session"
    assert whole["dur"] == pytest.approx(end, abs=0.02)
    first, body = nodes[0]["args"], next(n for n in nodes if n["name"].startswith("body"))["args"]
    assert first["input_type_shape"] == [{"uint8": [1, 8, 8, 1]}]
    assert first["activation_size"] == str(8 * 8)
    assert body["input_type_shape"] == [{"uint64": [1, 8, 8, 1]}]
    assert body["output_type_shape"] == [{"uint64": [1, 8, 8, 2]}]
    assert body["output_size"] == str(8 * 8 * 2 * 8)
    assert 70 * 9 * 8 < int(body["parameter_size"]) <= 70 * (9 * 8 + 4 + 1)


def test_trace_that_cannot_be_written_is_exit_code_1_at_once(
    binary: Path, tmp_path: Path, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    from bitinfer import session

    monkeypatch.setattr(session, "load", lambda *args: pytest.fail("the network was loaded"))
    for path in (tmp_path, tmp_path / "none" / "trace.json", "a\0b"):
        result = call("profile", binary, QUICK, "--trace", path)
        assert (result.code, result.out) == (1, "")
        assert "cannot write" in result.err
    folder = tmp_path / "locked"
    folder.mkdir(mode=0o555)
    if not os.access(folder, os.W_OK):
        assert call("profile", binary, QUICK, "--trace", folder / "t.json").code == 1


def test_trace_may_not_be_written_over_an_input(binary: Path, call: Call) -> None:
    before = binary.read_bytes()
    result = call("profile", binary, QUICK, "--trace", binary)
    assert result.code == 2
    assert "is an input" in result.err
    assert binary.read_bytes() == before


def test_old_trace_stays_when_the_run_fails(model: Path, tmp_path: Path, call: Call) -> None:
    trace = tmp_path / "trace.json"
    trace.write_text("as before")
    assert call("profile", model, tmp_path / "none.png", "--trace", trace).code == 4
    assert trace.read_text() == "as before"
    assert call("profile", tmp_path / "none.bin", "--trace", trace).code == 3
    assert trace.read_text() == "as before"
    assert call("profile", "-q", model, QUICK, "--trace", trace).err == ""
    assert json.loads(trace.read_text())
    assert [p.name for p in tmp_path.iterdir() if "trace" in p.name] == ["trace.json"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--rounds=0",), "'0' is not an integer of at least 1"),
        (("--threads=x",), "'x' is not an integer of at least 0"),
        (("--backend=gpu",), "'gpu' is none of"),
        (("a.png", "b.png"), "unrecognized arguments: b.png"),
    ],
)
def test_wrong_usage_is_exit_code_2(
    arguments: tuple[str, ...], message: str, model: Path, call: Call
) -> None:
    result = call("profile", model, *arguments)
    assert (result.code, result.out) == (2, "")
    assert message in result.err


INTERRUPTED = """
import signal, sys
from bitinfer import profiling
from bitinfer.cli import main
profiling.measure = lambda *args: signal.raise_signal(signal.SIGINT)
sys.exit(main(sys.argv[1:]))
"""


def test_interrupt_ends_quietly_and_leaves_the_old_trace(model: Path, tmp_path: Path) -> None:
    trace = tmp_path / "trace.json"
    trace.write_text("as before")
    command = [sys.executable, "-c", INTERRUPTED, "profile", str(model), "--trace", str(trace)]
    done = subprocess.run(command, capture_output=True, timeout=60, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (128 + signal.SIGINT, b"", b"")
    assert trace.read_text() == "as before"


@pytest.mark.parametrize("backend", ["reference", "numba", "native"])
def test_every_backend_is_timed(backend: str, binary: Path, call: Call) -> None:
    result = call("profile", "--json", binary, QUICK, "--backend", backend)
    if result.code == 2:
        pytest.skip(result.err)
    document = json.loads(result.out)
    assert document["backend"].startswith(backend)
    assert all(step["ns_min"] > 0 for step in document["steps"])

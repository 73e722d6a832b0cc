"""A parser that crashes, spins or swallows memory ends in a typed error, and the caller lives."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bitinfer.errors import CheckpointError
from bitinfer.importers import sandbox
from bitinfer.importers.sandbox import Limits

SHORT = Limits(memory_bytes=1 << 28, seconds=1, answer_bytes=1 << 20)


@pytest.fixture(autouse=True)
def path(monkeypatch: pytest.MonkeyPatch) -> None:
    """The child finds the parsers of the tests, and the package that is being tested."""
    here = Path(__file__).parent
    package = Path(sandbox.__file__).parents[2]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(here), str(package)]))


def run(name: str, data: bytes = b"some bytes", limits: Limits = SHORT) -> Any:
    return sandbox.run(f"misbehaving_parsers:{name}", data, limits)


def refusal(name: str, data: bytes = b"some bytes", limits: Limits = SHORT) -> str:
    with pytest.raises(CheckpointError) as caught:
        run(name, data, limits)
    message = str(caught.value)
    assert len(message) < 400
    return message


def test_plain_data_and_arrays_come_back() -> None:
    data = bytes(range(256)) * 500
    found = run("echo", data)
    assert found["bytes"] == data[:4]
    assert found["sizes"] == [128_000, 1.5, None, True, "text"]
    np.testing.assert_array_equal(found["array"], np.frombuffer(data, np.uint8))
    floats, number, empty = found["map"]["deep"]
    assert floats.dtype == np.dtype("f4")
    assert floats.dtype.isnative
    np.testing.assert_array_equal(floats[:, 0], np.frombuffer(data, np.uint8))
    assert number == 2.5
    assert empty.shape == (0, 3)


def test_crash_is_named_by_its_signal() -> None:
    assert "crashed (SIGSEGV)" in refusal("crash")


def test_abort_quotes_the_last_words() -> None:
    message = refusal("abort")
    assert "crashed (SIGABRT)" in message
    assert "deep inside" in message


def test_endless_loop_ends() -> None:
    start = time.monotonic()
    assert "more than 1 s of CPU time" in refusal("spin")
    assert time.monotonic() - start < 30


@pytest.mark.parametrize("name", ["sleep", "start_another"])
def test_waiting_for_ever_ends(name: str) -> None:
    start = time.monotonic()
    assert "took more than 3 s" in refusal(name)
    assert time.monotonic() - start < 30


@pytest.mark.parametrize("name", ["allocate", "allocate_slowly"])
def test_memory_is_bounded(name: str) -> None:
    assert "wants more than 268435456 bytes" in refusal(name)


def test_endless_recursion_is_an_error() -> None:
    assert "RecursionError" in refusal("recurse")


def test_refusal_of_the_parser_keeps_its_words() -> None:
    assert refusal("refuse") == "the header is\nnot one"


def test_other_errors_are_quoted_on_one_line() -> None:
    message = refusal("fail")
    assert "cannot read this file" in message
    assert "KeyError" in message
    assert message.isprintable()


def test_answer_is_bounded() -> None:
    assert "answers more than 1048576 bytes" in refusal("flood")


def test_objects_are_no_answer() -> None:
    assert "not object" in refusal("return_object")


def test_printing_disturbs_nothing() -> None:
    assert run("print_much") == "done"


def test_files_cannot_be_written(tmp_path: Path) -> None:
    target = tmp_path / "file"
    refusal("write_file", os.fsencode(target))
    assert not target.exists() or target.stat().st_size == 0


def test_end_without_an_answer_is_an_error() -> None:
    assert "answer cannot be read" in refusal("leave_early")


def test_large_input_to_a_parser_that_does_not_read_it() -> None:
    assert "crashed" in refusal("crash", bytes(1 << 22))


def test_forged_answers_are_refused() -> None:
    good = sandbox.pack({"x": np.arange(3)})
    for position in range(len(good)):
        for byte in (0, 0xFF, good[position] ^ 1):
            try:
                sandbox.unpack(good[:position] + bytes([byte]) + good[position + 1 :])
            except (ValueError, TypeError):
                continue

"""Whatever a parser does in its own process, the caller gets a network or a typed error."""

from __future__ import annotations

import time

import msgspec
import numpy as np
import pytest
from misbehaving_reader import parse

from bitinfer.errors import CheckpointError, ConversionError, MissingExtraError
from bitinfer.importers import sandbox


def read(what: str) -> sandbox.Foreign:
    return sandbox.read("misbehaving_reader", what.encode())


@pytest.mark.parametrize("what", ["well", "shout"])
def test_network_comes_back_as_it_was(what: str) -> None:
    found, wanted = read(what), parse(b"well")
    assert found.nodes == wanted.nodes
    assert isinstance(found.nodes[0].attributes["sizes"], tuple)
    assert (found.name, found.layout, found.input, found.input_shape, found.outputs) == (
        "net",
        "NCHW",
        "x",
        (3,),
        ("y",),
    )
    assert found.constants["w"].dtype == np.int8
    np.testing.assert_array_equal(found.constants["w"], wanted.constants["w"])


@pytest.mark.parametrize(
    ("what", "words"),
    [
        ("crash", r"crashed \(SIGSEGV\)"),
        ("eat", "more memory than is allowed"),
        ("end", "its parser failed: exit code 3"),
        ("raise", r"cannot be read: KeyError: .deep\\nwithin"),
        ("nest", "nested too deeply"),
        ("swell", "its constants have 134217728 bytes, the file has 5"),
    ],
)
def test_what_goes_wrong_is_a_typed_error(what: str, words: str) -> None:
    with pytest.raises(CheckpointError, match=words):
        read(what)


def test_typed_errors_stay_what_they_are() -> None:
    with pytest.raises(ConversionError, match="no such thing"):
        read("refuse")
    with pytest.raises(MissingExtraError, match=r"wants a package; .*'\.\[onnx\]'"):
        read("lack")


def test_endless_loop_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandbox, "SECONDS", 1)
    begin = time.monotonic()
    with pytest.raises(CheckpointError, match="took over"):
        read("hang")
    assert time.monotonic() - begin < 30


@pytest.mark.parametrize(
    "array",
    [("O", (1,), b"12345678"), ("f", (2,), b"1234"), ("f", (-1, -1), b"1234"), ("M", (1,), b"")],
)
def test_answer_that_lies_about_arrays_is_refused(array: tuple[object, ...]) -> None:
    kind, shape, data = array
    forged = msgspec.convert([kind, shape, data], sandbox._Array)
    with pytest.raises(CheckpointError, match="w"):
        sandbox._array("w", forged)


@pytest.mark.parametrize("kind", ["CheckpointError", "ConversionError", "MissingExtraError", "?"])
def test_message_of_a_child_is_one_line(kind: str) -> None:
    data = msgspec.msgpack.encode({"error": kind, "message": "a\x7f\n\x1b[2J" * 400, "extra": "\n"})
    with pytest.raises((CheckpointError, ConversionError, MissingExtraError)) as caught:
        sandbox.received(data)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 700

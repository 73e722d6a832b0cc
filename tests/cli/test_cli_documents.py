"""documents/: what the commands print with ``--json`` is what ``--json-schema`` promises."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from bitinfer import documents
from bitinfer.cli import _app
from bitinfer.documents import runs
from helpers import converted

Call = Callable[..., Any]
REFERENCE = "--backend=reference"
DOCS = Path(__file__).parents[2] / "docs" / "command-line.md"


def answers(model: Path, pictures: Path) -> dict[str, tuple[object, ...]]:
    """Arguments with which each command that has --json gives an answer."""
    return {
        "run": (REFERENCE, model, pictures / "red.png", pictures / "none.png"),
        "eval": (REFERENCE, "-q", model, pictures.parent / "classes"),
        "inspect": ("--passes", model),
        "bench": (REFERENCE, "--rounds=2", "--warm-up=1", model),
        "profile": (REFERENCE, "--rounds=2", model),
        "info": (),
        "verify": (REFERENCE, *converted(pictures.parent)),
        "zoo": ("list",),
        "export-c": (model, "-o", pictures.parent / "c"),
        "doctor": (),
    }


def has_json(command: str) -> bool:
    done = subprocess.run(
        [sys.executable, "-m", "bitinfer", command, "--help"], capture_output=True, text=True
    )
    return "--json " in done.stdout


def test_every_command_with_json_has_an_answer_here() -> None:
    assert {c for c in _app.COMMANDS if has_json(c)} == set(documents.COMMANDS)


@pytest.mark.parametrize("command", documents.COMMANDS)
def test_an_answer_is_what_its_schema_says_and_nothing_more(
    command: str, model: Path, pictures: Path, call: Call
) -> None:
    if command == "export-c":
        pytest.importorskip("bitinfer.backends.native._native", reason="there is no extension")
    classes = pictures.parent / "classes"
    for number, colour in enumerate(("red", "green", "blue")):
        (classes / str(number)).mkdir(parents=True)
        (classes / str(number) / "a.png").write_bytes((pictures / f"{colour}.png").read_bytes())
    result = call(command, "--json", *answers(model, pictures)[command])
    codes = {"run": {5}, "doctor": {0, 1}}  # whether there is a fault is the machine's affair
    assert result.code in codes.get(command, {0}), result.err
    document = json.loads(result.out)
    answer = msgspec.convert(document, documents.answer_of(command), strict=True)
    again = documents.plain(answer)
    assert json.loads(json.dumps(again)) == document
    assert list(again) == list(document)


@pytest.mark.parametrize("command", documents.COMMANDS)
def test_the_schema_needs_no_other_argument(command: str, call: Call) -> None:
    result = call(command, "--json-schema")
    assert (result.code, result.err) == (0, "")
    schema = json.loads(result.out)
    assert schema == json.loads(json.dumps(documents.schema(command)))
    fields = schema["$defs"][schema["$ref"].removeprefix("#/$defs/")]
    assert fields["properties"]["schema_version"] == {"enum": [documents.SCHEMA_VERSION]}
    assert call(command, "no-such-file", "--json-schema").out == result.out


@pytest.mark.parametrize("command", documents.COMMANDS)
def test_every_object_of_a_schema_is_described_without_indentation(command: str) -> None:
    for name, part in documents.schema(command)["$defs"].items():
        assert part["description"], name
        assert not part["description"].startswith(f"{name}("), name
        assert "\n    Attributes" not in part["description"], name


def test_fields_that_a_schema_does_not_know_are_no_fault() -> None:
    for command in documents.COMMANDS:
        schema = documents.schema(command)
        root = schema["$defs"][schema["$ref"].removeprefix("#/$defs/")]
        assert root.get("additionalProperties", True)


def test_numbers_that_json_does_not_have_are_refused_in_an_answer(
    model: Path, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = documents.plain
    monkeypatch.setattr(documents, "plain", lambda answer: plain(answer) | {"x": float("nan")})
    result = call("inspect", "--json", model)
    assert (result.code, result.out) == (1, "")


def test_the_documented_answer_is_of_its_schema() -> None:
    shown = re.findall(r"```json\n(.*?)```", DOCS.read_text(), re.DOTALL)
    assert len(shown) == 1
    document = json.loads(shown[0].replace('"sha256": "..."', f'"sha256": "{"0" * 64}"'))
    answer = msgspec.convert(document, runs.Run, strict=True)
    assert json.loads(json.dumps(documents.plain(answer))) == document


def test_head_of_a_schema_ends_quietly() -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "bitinfer", "inspect", "--json-schema"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    assert process.wait(timeout=60) == 141
    assert process.stderr.read() == b""
    process.stderr.close()

"""``bitinfer export-c``: says what the network takes, then writes two files."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("bitinfer.backends.native._native", reason="there is no compiled extension")

import bitinfer
from bitinfer.export_c import measure

Call = Callable[..., Any]


@pytest.fixture(autouse=True)
def measure_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measure, "compiler", list)  # most of these tests need no measurement


def test_rom_and_ram_are_stated_and_two_files_written(
    call: Call, model: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "a" / "b"
    result = call("export-c", model, "-o", folder)
    assert result.code == 0
    assert re.search(r"^x86_64 +[\d,]+ +[\d,]+ +[\d,]+  portable", result.out, re.MULTILINE)
    assert re.search(r"^other +[\d,]+ +[\d,]+ +[\d,]+  portable$", result.out, re.MULTILINE)
    assert "code: not measured" in result.out
    assert "wrote" in result.err
    assert {path.name for path in folder.iterdir()} == {
        "bitinfer_colours.c",
        "bitinfer_colours.h",
    }


def test_json_says_the_bytes_that_the_header_does(call: Call, model: Path, tmp_path: Path) -> None:
    result = call("export-c", model, "-o", tmp_path, "--name", "Net", "--isa", "portable", "--json")
    assert result.code == 0
    document = json.loads(result.out)
    header = Path(document["header"]).read_text()
    for target in document["targets"]:
        assert target["instruction_sets"] == ["portable"]
        assert f"BITINFER_NET_ARENA_BYTES {target['arena_bytes']}\n" in header
        assert f"BITINFER_NET_NETWORK_BYTES {target['network_bytes']}\n" in header
    assert all(kernel.endswith(" portable") for kernel in document["kernels"])
    assert "int bitinfer_Net_run(const uint8_t *pixels, float *logits);" in header


def test_the_code_is_measured_where_there_is_a_compiler(
    call: Call, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()
    if not measure.compiler():
        pytest.skip("there is no C compiler")
    result = call("export-c", model, "-o", tmp_path, "--isa", "portable", "--json")
    code = json.loads(result.out)["code"]
    assert code is None or 2_000 < code["bytes"] < 100_000


def test_quiet_says_nothing(call: Call, model: Path, tmp_path: Path) -> None:
    result = call("export-c", model, "-o", tmp_path, "-q")
    assert (result.code, result.out, result.err) == (0, "", "")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--isa", "avx3"), "did you mean 'avx2'"),
        (("--name", "a b"), "cannot be part of a C name; 'a_b' can"),
        (("--isaa", "avx2"), "did you mean '--isa'"),
        (("--isa", ","), "',' names no instruction set"),
    ],
)
def test_what_cannot_be_is_a_usage_error(
    call: Call, model: Path, tmp_path: Path, options: tuple[str, str], message: str
) -> None:
    result = call("export-c", model, "-o", tmp_path / "c", *options)
    assert result.code == 2
    assert message in result.err
    assert not (tmp_path / "c").exists()


def test_a_folder_that_cannot_be_made_is_an_error(call: Call, model: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    result = call("export-c", model, "-o", tmp_path / "file" / "c")
    assert result.code == 1
    assert "cannot make" in result.err
    result = call("export-c", model, "-o", model)
    assert result.code == 1
    assert result.err.startswith(f"bitinfer: error: cannot make {model}: ")  # before it compiles


def test_a_file_that_is_no_model_is_rejected(call: Call, tmp_path: Path) -> None:
    (tmp_path / "x.bin").write_bytes(b"no model")
    result = call("export-c", tmp_path / "x.bin", "-o", tmp_path)
    assert result.code == 3


def test_without_the_extension_it_says_why(
    call: Call, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [n for n in sys.modules if n.startswith("bitinfer.export_c")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.delattr(bitinfer, "export_c", raising=False)
    monkeypatch.setitem(sys.modules, "bitinfer.backends.native.placing", None)
    result = call("export-c", model, "-o", tmp_path)
    assert result.code == 2
    assert "there is no compiled extension" in result.err

"""``bitinfer report``: files in, page and Markdown out."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from report_files import full, row, write

Call = Callable[..., Any]


def test_page_and_markdown(call: Call, tmp_path: Path) -> None:
    source = full(tmp_path / "x.json")
    page, text = tmp_path / "out.html", tmp_path / "out.md"
    result = call("report", source, "-o", page, "--markdown", text)
    assert (result.code, result.out) == (0, "")
    assert result.err.splitlines() == [f"bitinfer: {page} written", f"bitinfer: {text} written"]
    assert page.read_text().startswith("<!doctype html>")
    assert text.read_text().startswith("# Speed of binary layers")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out.html", "out.md", "x.json"]


def test_markdown_is_printed_without_outputs(call: Call, tmp_path: Path) -> None:
    result = call("report", full(tmp_path / "x.json"))
    assert (result.code, result.err) == (0, "")
    assert result.out.startswith("# Speed of binary layers")
    assert "12.0x" in result.out


def test_quiet(call: Call, tmp_path: Path) -> None:
    result = call("report", "-q", full(tmp_path / "x.json"), "-o", tmp_path / "out.html")
    assert (result.code, result.out, result.err) == (0, "", "")


def test_several_files(call: Call, tmp_path: Path) -> None:
    files = [write(tmp_path / f"{name}.json", row("bitinfer")) for name in ("a", "b")]
    result = call("report", *files)
    assert result.code == 0
    assert "## a.json" in result.out
    assert "## b.json" in result.out


def test_same_input_same_bytes(call: Call, tmp_path: Path) -> None:
    source = full(tmp_path / "x.json")
    pages = [tmp_path / "1.html", tmp_path / "2.html"]
    for page in pages:
        assert call("report", source, "-o", page).code == 0
    assert pages[0].read_bytes() == pages[1].read_bytes()


@pytest.mark.parametrize("content", ["", "{}", "not JSON", '{"benchmarks": []}'])
def test_bad_json_is_exit_code_4_and_writes_nothing(
    call: Call, tmp_path: Path, content: str
) -> None:
    source, page = tmp_path / "x.json", tmp_path / "out.html"
    source.write_text(content)
    page.write_text("as before")
    result = call("report", source, "-o", page)
    assert (result.code, result.out) == (4, "")
    assert result.err.startswith("bitinfer: error: ")
    assert result.err.count("\n") == 1
    assert page.read_text() == "as before"


def test_absent_file_is_exit_code_4(call: Call, tmp_path: Path) -> None:
    result = call("report", tmp_path / "absent.json")
    assert result.code == 4
    assert "absent.json: No such file" in result.err


def test_output_that_cannot_be_written_is_exit_code_1(call: Call, tmp_path: Path) -> None:
    source = full(tmp_path / "x.json")
    assert call("report", source, "-o", tmp_path / "none" / "out.html").code == 1
    assert call("report", source, "--markdown", tmp_path).code == 1


@pytest.mark.parametrize(
    "arguments",
    [
        ("x.json", "-o", "x.json"),
        ("x.json", "--markdown", "./x.json"),
        ("x.json", "-o", "y", "--markdown", "y"),
    ],
)
def test_outputs_need_names_of_their_own(
    call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...]
) -> None:
    monkeypatch.chdir(tmp_path)
    before = full(tmp_path / "x.json").read_bytes()
    result = call("report", *arguments)
    assert result.code == 2
    assert "is an input" in result.err or "is what --output writes" in result.err
    assert (tmp_path / "x.json").read_bytes() == before


def test_no_files_is_wrong_usage(call: Call) -> None:
    assert call("report").code == 2


def test_names_cannot_steer_the_terminal(call: Call, tmp_path: Path) -> None:
    result = call("report", tmp_path / "a\x1b[2J.json")
    assert result.code == 4
    assert "\x1b" not in result.err
    page = tmp_path / "b\x1b[2J.html"
    result = call("report", full(tmp_path / "x.json"), "-o", page)
    assert result.code == 0
    assert "\x1b" not in result.err

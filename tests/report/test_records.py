"""Reading benchmark files: what they hold, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from bitinfer.errors import DataError
from bitinfer.report import records
from report_files import BUSY, document, row, write


def test_rows_by_suite_layer_and_engine(tmp_path: Path) -> None:
    rows = [row(engine, layer=layer) for layer in ("R1", "R3") for engine in ("bitinfer", "b-fp32")]
    run = records.read(write(tmp_path / "x.json", *rows, row("bitinfer", suite="other")))
    assert (run.name, run.date) == ("x.json", "2026-11-21")
    assert list(run.rows) == ["layers", "other"]
    assert list(run.rows["layers"]) == ["R1", "R3"]
    assert list(run.rows["layers"]["R1"]) == ["bitinfer", "b-fp32"]
    assert len(run.all_rows()) == 5


def test_summary_is_made_from_the_samples(tmp_path: Path) -> None:
    run = records.read(write(tmp_path / "x.json", row("bitinfer", [2, 1, 1, 1, 3])))
    summary = run.rows["layers"]["R3"]["bitinfer"].summary
    assert (summary.count, summary.clean, summary.minimum_s) == (5, 5, 1e-3)
    assert summary.mac_per_cycle == pytest.approx(115_605_504 / 3.2e6)


def test_busy_samples_are_seen(tmp_path: Path) -> None:
    run = records.read(write(tmp_path / "x.json", row("bitinfer", vector=BUSY)))
    assert not run.rows["layers"]["R3"]["bitinfer"].summary.is_claimable


def test_other_benchmarks_in_the_file_are_left_out(tmp_path: Path) -> None:
    foreign = {"name": "test_other", "extra_info": {}, "stats": {"data": [1.0]}}
    run = records.read(write(tmp_path / "x.json", foreign, row("bitinfer")))
    assert len(run.all_rows()) == 1


def without(*path: str) -> dict[str, Any]:
    """Return a row that lacks a field."""
    result = row("bitinfer")
    inner = result
    for key in path[:-1]:
        inner = inner[key]
    del inner[path[-1]]
    return result


def with_samples(**columns: Any) -> dict[str, Any]:
    result = row("bitinfer")
    result["extra_info"]["samples"].update(columns)
    return result


@pytest.mark.parametrize(
    "bad",
    [
        without("stats"),
        without("extra_info", "samples"),
        without("extra_info", "samples", "ghz"),
        without("extra_info", "macs"),
        row("bitinfer", []),
        row("bitinfer", [1, -1]),
        row("bitinfer", [1, 0]),
        row("bitinfer", macs=0),
        row("bitinfer", macs=1.5),
        row("bitinfer", macs=1 << 70),
        row("bitinfer", macs="many"),
        row("bitinfer", layer=""),
        row("x" * 61),
        row("bitinfer", shape="x" * 401),
        row("bitinfer", vector_peak=0),
        row("bitinfer", vector_peak=True),
        row("bitinfer", channels=None),
        with_samples(ghz=[]),
        with_samples(cpu_seconds=[1e-3] * 19),
        with_samples(vector=[[4.0]] * 20),
        with_samples(ghz=[None] + [[3.2, 3.2]] * 19),
        with_samples(ghz=[[3.2, "fast"]] * 20),
        with_samples(vector=[[4.0, 1e300]] * 20),
        with_samples(cpu_seconds="all"),
    ],
)
def test_rows_that_do_not_fit_are_refused(tmp_path: Path, bad: dict[str, Any]) -> None:
    path = write(tmp_path / "x.json", row("good"), bad)
    with pytest.raises(DataError, match=r"x\.json") as caught:
        records.read(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "null",
        "{}",
        '{"benchmarks": 1}',
        '{"benchmarks": []}',
        '{"benchmarks": [{"extra_info": {}}]}',
        '{"benchmarks": [null]}',
        '{"benchmarks": ' + "[" * 100_000,
        '{"a": ' + '{"a":' * 100_000,
        '{"benchmarks": [{"extra_info": {"engine": "x"}, "stats": {"data": [NaN]}}]}',
        '{"benchmarks": [{"extra_info": {"engine": "x"}, "stats": {"data": [1e999]}}]}',
        "\x00\x01",
        '{"benchmarks": [{"extra_info": {"engine": "\\ud800"}}]}',
    ],
)
def test_what_is_no_such_file_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "x.json"
    path.write_text(text)
    with pytest.raises(DataError, match=r"x\.json") as caught:
        records.read(path)
    assert "\n" not in str(caught.value)


def test_bytes_that_are_no_text_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    path.write_bytes(b'{"benchmarks": [], "datetime": "\xff\xfe"}')
    with pytest.raises(DataError):
        records.read(path)


def test_two_rows_of_one_engine_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="two rows of bitinfer at R3"):
        records.read(write(tmp_path / "x.json", row("bitinfer"), row("bitinfer")))


def test_two_layers_of_one_name_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="different size"):
        records.read(write(tmp_path / "x.json", row("bitinfer"), row("b-fp32", macs=7)))


def test_huge_files_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(records, "MAX_BYTES", 100)
    with pytest.raises(DataError, match="bytes, results have at most 100"):
        records.read(write(tmp_path / "x.json", row("bitinfer")))


@pytest.mark.parametrize("name", ["absent.json", ".", "a\0b"])
def test_what_cannot_be_opened_is_a_data_error(tmp_path: Path, name: str) -> None:
    with pytest.raises(DataError):
        records.read(f"{tmp_path}/{name}")


@pytest.mark.parametrize("cut", range(0, 2000, 37))
def test_truncated_files_are_refused(tmp_path: Path, cut: int) -> None:
    text = json.dumps(document(row("bitinfer")))
    path = tmp_path / "x.json"
    path.write_text(text[: min(cut, len(text) - 1)])
    with pytest.raises(DataError):
        records.read(path)

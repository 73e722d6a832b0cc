"""Speedups, bounds, the paper's formula, and what a reader is warned of."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from bitinfer.report import analysis, records
from bitinfer.report.records import Row, Run
from report_files import BUSY, row, write


def run_of(tmp_path: Path, *rows: dict[str, Any]) -> Run:
    return records.read(write(tmp_path / "x.json", *rows))


def engines_of(tmp_path: Path, *rows: dict[str, Any]) -> dict[str, Row]:
    return run_of(tmp_path, *rows).rows["layers"]["R3"]


def test_speedup_by_minimum_and_by_median(tmp_path: Path) -> None:
    engines = engines_of(
        tmp_path, row("bitinfer", [1, 2, 2, 2, 2]), row("b-fp32", [10, 30, 30, 30, 30])
    )
    speedup = analysis.speedup(engines, engines["b-fp32"])
    assert speedup is not None
    assert speedup.by_minimum == pytest.approx(10)
    assert speedup.by_median == pytest.approx(15)
    assert speedup.refusal == ""


@pytest.mark.parametrize("busy", ["bitinfer", "b-fp32"])
def test_no_claim_if_either_was_disturbed(tmp_path: Path, busy: str) -> None:
    engines = engines_of(
        tmp_path,
        *(row(n, vector=BUSY if n == busy else (4.0, 4.0)) for n in ("bitinfer", "b-fp32")),
    )
    speedup = analysis.speedup(engines, engines["b-fp32"])
    assert speedup is not None
    assert speedup.refusal == f"0 of 20 samples of {busy} are clean"


def test_no_speedup_of_what_was_not_measured(tmp_path: Path) -> None:
    engines = engines_of(tmp_path, row("b-fp32"))
    assert analysis.speedup(engines, engines["b-fp32"]) is None
    assert analysis.speedup(engines, None) is None


def test_fastest_is_of_its_kind_and_may_be_one_without_claim(tmp_path: Path) -> None:
    engines = engines_of(
        tmp_path,
        row("a-fp32", [3.0] * 9),
        row("b-fp32", [2.0] * 9, vector=BUSY),
        row("c-int8", [1.0] * 9),
    )
    fastest = analysis.fastest(engines, "fp32")
    assert fastest is not None
    assert fastest.engine == "b-fp32"
    assert analysis.fastest(engines, "binary") is None


def test_formula_of_the_paper() -> None:
    """62.27 is the paper's own figure for 256 channels and 3x3 windows."""
    assert analysis.paper_formula(256, 3) == pytest.approx(62.27, abs=0.005)
    assert analysis.paper_formula(1, 1) == pytest.approx(64 / 65)


def test_the_bound_of_a_method_is_named_where_it_is_used(tmp_path: Path) -> None:
    plain = run_of(tmp_path, row("bitinfer"), row("b-fp32", kernel="lookup6"))
    assert [round(bound.mac_per_cycle) for bound in analysis.bounds(plain)] == [448, 341]
    vbmi = run_of(tmp_path, row("bitinfer", kernel="bconv2d lookup6 avx512vbmi"))
    assert [round(bound.mac_per_cycle) for bound in analysis.bounds(vbmi)] == [640, 448, 341]
    pairs = run_of(tmp_path, row("bitinfer-bits", kernel="bconv2d bitpairs avx512vbmi"))
    assert [round(bound.mac_per_cycle) for bound in analysis.bounds(pairs)] == [512, 448, 341]


def test_a_core_that_issues_four_wide_instructions_a_cycle_has_twice_the_bounds(
    tmp_path: Path,
) -> None:
    kernel = "bconv2d bitpairs avx512vbmi"
    run = run_of(tmp_path, row("bitinfer", kernel=kernel, cpu="AMD EPYC (family 26, model 2)"))
    assert [round(bound.mac_per_cycle) for bound in analysis.bounds(run)] == [1024, 683, 448]
    assert "4 a cycle" in analysis.bounds(run)[0].text


def test_bytes_that_must_move(tmp_path: Path) -> None:
    sizes = {"macs": 8000, "input_elements": 80, "weight_elements": 800, "output_elements": 20}
    engines = engines_of(tmp_path, row("bitinfer", **sizes), row("bitinfer-bits", **sizes))
    assert analysis.mac_per_byte(engines["bitinfer"]) == pytest.approx(8000 / (400 + 100))
    assert analysis.mac_per_byte(engines["bitinfer-bits"]) == pytest.approx(8000 / (12.5 + 100))


def test_bandwidth_per_cycle(tmp_path: Path) -> None:
    assert analysis.read_bytes_per_cycle(run_of(tmp_path, row("bitinfer"))) == pytest.approx(20)
    unknown = run_of(tmp_path, row("bitinfer", read_bytes_per_ns=None))
    assert analysis.read_bytes_per_cycle(unknown) is None
    no_clock = run_of(tmp_path, row("bitinfer", ghz=None))
    assert analysis.read_bytes_per_cycle(no_clock) is None


def test_a_quiet_run_needs_no_warning(tmp_path: Path) -> None:
    assert analysis.warnings(run_of(tmp_path, row("bitinfer"), row("b-fp32"))) == []


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"vector": BUSY}, "The machine was busy: 20 of 40"),
        ({"vector": BUSY}, "No claim is made"),
        ({"ms": [1.0] * 10 + [1.5] * 10}, "longer than the minimum"),
        ({"ms": [1.0] * 10}, "Fewer than 20 samples"),
        ({"ghz": None}, "The clock is not known"),
        ({"pinned": False}, "not tied to one CPU"),
        ({"threads": 2}, "more than one thread"),
        ({"commit": "abc-dirty"}, "in no commit"),
    ],
)
def test_warnings_name_the_rows(tmp_path: Path, change: dict[str, Any], words: str) -> None:
    run = run_of(tmp_path, row("good", [1.0] * 19 + [1.01]), row("bad", **change))
    found = [text for text in analysis.warnings(run) if words in text]
    if "machine" in words:
        assert not found  # exactly half are clean
        worse = run_of(tmp_path, row("good", [1.0] * 19), row("bad", **change))
        assert any("The machine was busy: 19 of 39" in text for text in analysis.warnings(worse))
    else:
        assert len(found) == 1
        assert found[0].endswith(": R3 bad.")


def test_long_lists_of_rows_are_cut(tmp_path: Path) -> None:
    rows = [row(f"e{i}", [1.0] * 10) for i in range(15)]
    text = " ".join(analysis.warnings(run_of(tmp_path, *rows, row("good"))))
    assert "R3 e11 and 3 more." in text
    assert "R3 e12" not in text

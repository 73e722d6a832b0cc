"""The report itself: what it states, that it is safe, complete and the same every time."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest

from bitinfer.report import document, markdown, page, records
from bitinfer.report.blocks import Heading, Table
from report_files import BUSY, QUIET, full, row, write

EVIL = '<script>alert("x")</script> | a\n# b `c` [d](e) \x1b[2J & \u202e'


def blocks_of(path: Path) -> list[document.Block]:
    return document.build([records.read(path)])


def texts(path: Path) -> tuple[str, str]:
    blocks = blocks_of(path)
    return markdown.render(blocks), page.render(blocks)


def table_after(blocks: list[document.Block], heading: str) -> Table:
    start = next(i for i, b in enumerate(blocks) if isinstance(b, Heading) and b.text == heading)
    return next(b for b in blocks[start:] if isinstance(b, Table))


def test_times_and_throughput(tmp_path: Path) -> None:
    table = table_after(blocks_of(full(tmp_path / "x.json")), "Times")
    assert table.header[0] == "engine"
    assert table.header[2].startswith("R3: 256 x 14 x 14")
    names = [row[0] for row in table.rows]
    assert names[:4] == ["bitinfer", "bitinfer-bits", "openvino-binary", "onnxruntime-int8"]
    assert table.rows[0][2] == "0.100 / 0.101"
    text, _ = texts(tmp_path / "x.json")
    assert "| 361 |" in text  # 115605504 MAC in 0.1 ms at 3.2 GHz


def test_networks_are_compared_with_the_fastest_of_each_kind(tmp_path: Path) -> None:
    blocks = blocks_of(full(tmp_path / "x.json"))
    times = table_after(blocks, "Whole networks")
    assert times.header == ("engine", "nin: nin, 32x32x3", "bireal18: bireal18, 32x32x3")
    wanted = ["bitinfer", "bitinfer-integer", "bitinfer-integer8", "openvino-int8", "mnn-fp32"]
    assert [row[0] for row in times.rows] == wanted
    assert times.rows[0][1] == "0.500 / 0.505"
    first = "bitinfer against the fastest fp32"
    ratios = next(b for b in blocks if isinstance(b, Table) and first in b.header)
    assert [row[0] for row in ratios.rows] == ["nin", "bireal18"]
    assert ratios.rows[0][1:] == (
        "6.00x, medians 6.00x (mnn-fp32)",
        "2.00x, medians 2.00x (openvino-int8)",
        "7.50x, medians 7.50x (mnn-fp32)",
        "2.50x, medians 2.50x (openvino-int8)",
        "8.57x, medians 8.57x (mnn-fp32)",
        "2.86x, medians 2.86x (openvino-int8)",
    )
    text, html = texts(tmp_path / "x.json")
    assert "Samples: networks" in text
    assert "Speedup of bitinfer, whole networks" in html


def test_narrow_layers_have_a_row_each(tmp_path: Path) -> None:
    times = {"bitinfer-bits": 0.1, "bitinfer-shortcut": 0.2, "x-int8": 0.4, "y-fp32": 1.0}
    rows = [row(engine, [ms] * 20, layer="n", suite="narrow") for engine, ms in times.items()]
    blocks = blocks_of(write(tmp_path / "x.json", *rows))
    table = table_after(blocks, "Narrow layers")
    assert table.header[1:5] == tuple(times)
    assert table.rows[0][1:3] == ("361", "181")
    assert table.rows[0][-2:] == ("4.00x, medians 4.00x (x-int8)", "2.00x, medians 2.00x (x-int8)")
    assert "Samples: narrow" in markdown.render(blocks)


def test_speedup_against_every_engine_and_the_fastest(tmp_path: Path) -> None:
    blocks = blocks_of(full(tmp_path / "x.json"))
    table = table_after(blocks, "Speedup of bitinfer, float32 in and out")
    cells = dict(zip(table.header, table.rows[0], strict=True))
    assert cells["fastest fp32"] == "12.0x, medians 12.0x (mnn-fp32)"
    assert cells["fastest int8"] == "9.00x, medians 9.00x (onnxruntime-int8)"
    assert cells["fastest binary"] == "4.00x, medians 4.00x (openvino-binary)"
    each = blocks[blocks.index(table) + 1]
    assert isinstance(each, Table)
    assert each.header == ("engine", "R1", "R3", "P1")
    assert dict(row[:2] for row in each.rows) == {
        "openvino-binary": "4.00x",
        "onnxruntime-int8": "9.00x",
        "naive-c-fp32": "2000x",
        "numpy-fp32": "30.0x",
        "mnn-fp32": "12.0x",
    }


def test_the_papers_claim_stands_beside_the_honest_one(tmp_path: Path) -> None:
    text, _ = texts(full(tmp_path / "x.json"))
    assert "2000 times as fast as naive C (naive-c-fp32)" in text
    assert "12.0 times as fast as the fastest float engine (mnn-fp32)" in text


def test_nothing_is_claimed_from_a_busy_machine(tmp_path: Path) -> None:
    path = write(
        tmp_path / "x.json", row("bitinfer"), row("naive-c-fp32", [200.0] * 9, vector=BUSY)
    )
    text, html = texts(path)
    assert "not claimed" in text
    assert "no claim against naive C (naive-c-fp32), because only 0 of 9 samples" in text
    assert "200 / 200 ?" in text
    assert "2000" not in text
    assert "Warning: No claim is made" in text
    assert 'class="warning"' in html
    assert "times as fast as naive-c-fp32" not in html  # a mark's text, in the charts
    assert "naive-c-fp32: " not in html


def test_what_a_chart_leaves_out_is_named_with_the_reason(tmp_path: Path) -> None:
    rows = [
        row(engine, layer=layer, vector=BUSY if (engine, layer) in busy else QUIET)
        for busy in [{("mnn-fp32", "R1"), ("mnn-fp32", "R3"), ("bitinfer", "P1")}]
        for layer in ("R1", "R3", "P1")
        for engine in ("bitinfer", "mnn-fp32", "numpy-fp32")
    ]
    _, html = texts(write(tmp_path / "x.json", *rows))
    throughput, speedups, roofline = re.findall(r"<svg.*?</svg>", html, re.DOTALL)
    reason = "where fewer than 5 samples are clean."
    for chart in (throughput, speedups):
        assert f"Missing: mnn-fp32 at R1, R3, {reason}" in chart
        assert f"Missing: bitinfer at P1, {reason}" in chart
        assert ">mnn-fp32</text>" in chart  # in the legend, too
    assert f"Missing: bitinfer at P1, {reason}" in roofline
    assert "numpy-fp32 at" not in html
    heights = [int(h) for h in re.findall(r'<svg viewBox="0 0 900 (\d+)"', html)]
    _, without = texts(full(tmp_path / "y.json"))
    assert "Missing:" not in without
    assert heights[2] == 380 + 18


def test_what_an_engine_does_to_itself_is_named(tmp_path: Path) -> None:
    rows = [row("bitinfer", vector=(4.0, 3.6)), row("mnn-fp32")]
    text, _ = texts(write(tmp_path / "x.json", *rows))
    assert "The own work of these engines leaves less" in text
    assert "R3 bitinfer." in text
    assert "not claimed" not in text


def test_charts_of_figure4_leave_out_what_is_not_claimed(tmp_path: Path) -> None:
    suite = {"suite": "figure4-channels"}
    rows = [row("bitinfer", **suite), row("naive-c-fp32", [200.0] * 9, vector=BUSY, **suite)]
    _, html = texts(write(tmp_path / "x.json", *rows))
    assert "channels 256: 200x" not in html
    assert "Missing: naive-c-fp32 at R3, where fewer than 5 samples are clean." in html
    rows[1] = row("naive-c-fp32", [200.0] * 9, **suite)
    _, html = texts(write(tmp_path / "x.json", *rows))
    assert "channels 256: 200x" in html


def test_figure4_with_its_formula(tmp_path: Path) -> None:
    blocks = blocks_of(full(tmp_path / "x.json"))
    table = table_after(blocks, "Figure 4 of the XNOR-Net paper")
    assert table.header == ("channels", "against naive C", "against the fastest fp32", "formula")
    assert [cells[0] for cells in table.rows] == ["8", "64", "256"]
    assert table.rows[2][1:] == ("2000x", "12.0x, medians 12.0x (mnn-fp32)", "62.3x")


def test_bounds_are_called_hand_counts(tmp_path: Path) -> None:
    text, html = texts(full(tmp_path / "x.json"))
    assert "counted by hand" in text
    assert "448 MAC/cycle: tables of 4-bit groups" in text
    assert "bounds are hand counts" in html


def test_what_was_not_measured_is_left_out(tmp_path: Path) -> None:
    text, html = texts(write(tmp_path / "x.json", row("mnn-fp32")))
    assert "Speedup of bitinfer" not in text
    assert "58x" not in text
    text, html = texts(write(tmp_path / "x.json", row("bitinfer")))
    assert "naive C was not measured" in text
    assert "the fastest float engine was not measured" in text
    assert html.count("<svg") == 3


def test_rows_without_a_clock(tmp_path: Path) -> None:
    text, html = texts(
        write(tmp_path / "x.json", row("bitinfer", ghz=None), row("b-fp32", ghz=None))
    )
    assert "The clock is not known" in text
    assert "Roofline" not in text
    assert "<svg" in html


def test_each_file_is_a_section_of_its_own(tmp_path: Path) -> None:
    runs = [
        records.read(write(tmp_path / "a.json", row("bitinfer", [1.0] * 20))),
        records.read(write(tmp_path / "b.json", row("b-fp32", [9.0] * 20))),
    ]
    text = markdown.render(document.build(runs))
    assert text.index("## a.json") < text.index("## b.json")
    assert "9.00x" not in text  # never compared: they were not sampled in turn


def test_the_same_file_gives_the_same_bytes(tmp_path: Path) -> None:
    assert texts(full(tmp_path / "x.json")) == texts(full(tmp_path / "x.json"))


def test_nothing_tells_where_it_was_measured(tmp_path: Path) -> None:
    text, html = texts(full(tmp_path / "x.json"))
    for part in ("a-host-name", str(tmp_path)):
        assert part not in text
        assert part not in html


class _Checker(HTMLParser):
    """Counts open tags and remembers which there were."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.seen: set[str] = set()
        self.attributes: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.add(tag)
        self.attributes |= {name for name, _ in attrs}
        if tag != "meta":
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.add(tag)
        self.attributes |= {name for name, _ in attrs}

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def check_page(html: str) -> None:
    """Well-formed, and nothing in it that runs or loads anything."""
    checker = _Checker()
    checker.feed(html)
    checker.close()
    assert checker.open == []
    assert not checker.seen & {"script", "link", "img", "iframe", "object", "a", "base"}
    assert not checker.attributes & {"src", "href", "onload", "onerror", "style"}
    assert "default-src 'none'" in html
    assert "url(" not in html
    assert "http://" not in html
    assert "https://" not in html


def test_page_needs_nothing_else(tmp_path: Path) -> None:
    _, html = texts(full(tmp_path / "x.json"))
    check_page(html)


def test_charts_are_well_formed(tmp_path: Path) -> None:
    _, html = texts(full(tmp_path / "x.json"))
    charts = re.findall(r"<svg.*?</svg>", html, re.DOTALL)
    assert len(charts) == 6
    for chart in charts:
        root = ET.fromstring(chart)
        width, height = (float(v) for v in root.attrib["viewBox"].split()[2:])
        for circle in root.iter("circle"):
            assert 0 <= float(circle.attrib["cx"]) <= width
            assert 0 <= float(circle.attrib["cy"]) <= height
        assert root.findtext("title")


@pytest.mark.parametrize(
    "field", ["cpu", "compiler", "commit", "version", "form", "shape", "kernel"]
)
def test_foreign_text_is_only_text(tmp_path: Path, field: str) -> None:
    changes: dict[str, Any] = {field: EVIL}
    text, html = texts(write(tmp_path / "x.json", row("bitinfer", **changes), row("b-fp32")))
    check_page(html)
    assert "<script" not in html
    assert "<script" not in text.replace("\\<", "")
    assert not any(c != "\n" and not c.isprintable() for c in text + html)
    lines = [line for line in text.splitlines() if "alert" in line]
    assert lines
    assert all(line.startswith(("| ", "> ", "Nobody")) for line in lines)


def test_foreign_names_are_only_text(tmp_path: Path) -> None:
    name = "<b>x</b>|`y`\n\x1b-fp32"
    _, html = texts(
        write(tmp_path / "<i>.json", row("bitinfer", layer=name), row(name, layer=name))
    )
    check_page(html)
    assert "<b>" not in html
    assert "<i>" not in html

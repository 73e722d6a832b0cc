"""The page that says where int8 is the better choice."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from bitinfer.report import against_int8, markdown, records
from bitinfer.report.blocks import Block, Heading, Paragraph, Table
from report_files import BUSY, network_row, row, write


def page_of(tmp_path: Path, *rows: dict[str, Any], name: str = "x.json") -> list[Block]:
    return against_int8.build([records.read(write(tmp_path / name, *rows))])


def text_of(blocks: list[Block]) -> str:
    return "\n".join(b.text for b in blocks if isinstance(b, Paragraph))


def tables_of(blocks: list[Block]) -> list[Table]:
    return [b for b in blocks if isinstance(b, Table)]


def networks(*times: tuple[str, float, float], **changes: Any) -> list[dict[str, Any]]:
    rows = []
    for network, ours, int8 in times:
        rows += [
            network_row("bitinfer", [ours] * 20, network=network),
            network_row("x-int8", [int8] * 20, network=network),
        ]
    for made in rows:
        made["extra_info"].update(changes)
    return rows


def test_int8_is_named_where_it_is_better(tmp_path: Path) -> None:
    blocks = page_of(tmp_path, *networks(("a", 2.0, 1.0), ("b", 1.0, 3.0), ("c", 1.0, 1.04)))
    assert "int8 is the better choice: a, c; binary is faster: b." in text_of(blocks)
    (table,) = tables_of(blocks)
    assert [line[-2:] for line in table.rows] == [
        ("0.500x", "int8"),
        ("3.00x", "binary"),
        ("1.04x", "int8"),
    ]


def test_the_faster_of_ours_is_compared_with_the_fastest_int8(tmp_path: Path) -> None:
    rows = [
        network_row(engine, [ms] * 20, network="a")
        for engine, ms in {
            "bitinfer": 2.0,
            "bitinfer-integer": 1.5,
            "bitinfer-integer8": 1.0,
            "x-int8": 9.0,
            "y-int8": 4.0,
            "z-fp32": 0.1,
        }.items()
    ]
    (table,) = tables_of(page_of(tmp_path, *rows))
    assert table.rows[0][1:4] == ("1.00 (bitinfer-integer8)", "4.00 (y-int8)", "4.00x")


def test_layers_and_narrow_layers(tmp_path: Path) -> None:
    rows = [row("bitinfer", [1.0] * 20, layer="R1"), row("x-int8", [2.0] * 20, layer="R1")]
    rows += [
        row(engine, [ms] * 20, layer="n16x8", suite="narrow")
        for engine, ms in (("bitinfer-bits", 0.1), ("bitinfer-shortcut", 3.0), ("x-int8", 2.0))
    ]
    text = text_of(page_of(tmp_path, *rows))
    assert "Of the layers, int8 is the better choice: n16x8; binary is faster: R1." in text


def test_nothing_is_said_from_few_clean_samples(tmp_path: Path) -> None:
    rows = [row("bitinfer", vector=BUSY), row("x-int8", [9.0] * 20)]
    blocks = page_of(tmp_path, *rows)
    assert "too few clean samples to tell: R3." in text_of(blocks)
    assert tables_of(blocks)[0].rows[0][-2:] == ("", "not claimed")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"kernel": "brgconv_avx512_amx_I8"}, "says that it ran on AMX at: a."),
        ({"int8_features": "avx512_vnni amx_int8"}, "This CPU has AMX, and no int8 engine"),
        ({"int8_features": "avx512_vnni"}, "This CPU has no AMX. AMX multiplies"),
        ({}, "Whether this CPU has AMX was not recorded"),
    ],
)
def test_what_amx_has_to_do_with_it(tmp_path: Path, changes: dict[str, str], words: str) -> None:
    assert words in text_of(page_of(tmp_path, *networks(("a", 1.0, 2.0), **changes)))


def test_each_cpu_has_its_own_verdict(tmp_path: Path) -> None:
    runs = [
        records.read(
            write(tmp_path / f"{cpu}.json", *networks(("a", ours, 1.0), cpu=cpu, kernel=""))
        )
        for cpu, ours in (("one", 0.5), ("two", 2.0))
    ]
    blocks = against_int8.build(runs)
    assert [b.text for b in blocks if isinstance(b, Heading)] == [
        "Binary against int8",
        "one",
        "two",
    ]
    assert [table.rows[0][-1] for table in tables_of(blocks)] == ["binary", "int8"]
    assert "## Binary against int8" in markdown.render(blocks)


def test_without_int8_there_is_no_page(tmp_path: Path) -> None:
    assert page_of(tmp_path, row("bitinfer"), row("x-fp32")) == []

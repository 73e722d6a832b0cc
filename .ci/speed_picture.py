"""Draws docs/images/speed.svg from the first file of layers in docs/performance-results.md.

That page is what ``bitinfer report`` writes; nothing else is known here of a measurement.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from bitinfer.report.svg import STYLE, Drawing, log_axis, named_axis

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "docs" / "performance-results.md"
PICTURE = ROOT / "docs" / "images" / "speed.svg"
_FILE = "layers.json"
_ROW = 30
_FRAME = 96

Times = Mapping[str, Mapping[str, float]]
"""The shortest call in milliseconds, by layer and engine."""


def picture() -> str:
    """Return the drawing as an SVG document."""
    section = _section(RESULTS.read_text(), _FILE)
    times = read_times(section)
    series = {
        "bitinfer, binary": [row["bitinfer"] for row in times.values()],
        "OpenVINO, binary": [row.get("openvino-binary") for row in times.values()],
        "the fastest int8 engine": fastest(times, "-int8"),
        "the fastest float32 engine": fastest(times, "-fp32"),
    }
    drawing = Drawing(
        "One layer, one thread: the shortest call",
        log_axis("milliseconds", [ms for found in series.values() for ms in found if ms]),
        named_axis(list(times)),
        height=_FRAME + _ROW * len(times),
    )
    for style, (name, found) in enumerate(series.items()):
        points = [
            (ms, float(i), f"{layer} {name}: {ms:g} ms")
            for i, (layer, ms) in enumerate(zip(times, found, strict=True))
            if ms is not None
        ]
        drawing.marks(name, points, style)
    drawing.footnote("")  # below the name of the axis
    drawing.footnote(
        f"{_fact(section, 'CPU')}, {_fact(section, 'clock')}, one core; {_fact(section, 'date')}. "
        "Int8 and float32: the fastest of the engines there."
    )
    return _document(drawing.render())


def read_times(section: str) -> dict[str, dict[str, float]]:
    """Return what the table below the heading Times holds."""
    lines = section.split("### Times\n", 1)[1].strip().splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("| engine |"))
    _, *layers = (cell.partition(":")[0] for cell in _cells(lines[start]))
    times: dict[str, dict[str, float]] = {layer: {} for layer in layers}
    for line in lines[start + 2 :]:
        if not line.startswith("|"):
            break
        engine, *cells = _cells(line)
        for layer, cell in zip(layers, cells, strict=True):
            if _is_claimed(cell):
                times[layer][engine] = float(cell.partition(" / ")[0])
    return times


def fastest(times: Times, kind: str) -> list[float | None]:
    """Return the shortest time of each layer by an engine whose name ends so."""
    return [
        min((ms for engine, ms in row.items() if engine.endswith(kind)), default=None)
        for row in times.values()
    ]


def _is_claimed(cell: str) -> bool:
    """Tell whether it is a figure without doubt: the report marks the others."""
    return bool(cell) and "?" not in cell


def _section(page: str, name: str) -> str:
    found = re.search(rf"^## {re.escape(name)}\n(.*?)(?=^## |\Z)", page, re.MULTILINE | re.DOTALL)
    if found is None:
        raise SystemExit(f"{RESULTS.name}: nothing from a file {name}")
    return found[1]


def _fact(section: str, name: str) -> str:
    found = re.search(rf"^\| {name} \| (.*) \|$", section, re.MULTILINE)
    return found[1] if found else f"{name} unknown"


def _cells(line: str) -> Sequence[str]:
    return [cell.strip() for cell in line.strip().strip("|").split("|")]


def _document(element: str) -> str:
    """Return the element as a file of its own, on white: a page that shows it may be dark."""
    head, rest = element.split(">", 1)
    head = head.replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ', 1)
    background = '<rect width="100%" height="100%" fill="#ffffff"/>'
    return f"{head}>\n<style>{STYLE}</style>\n{background}{rest}\n"

"""Axes and marks."""

from __future__ import annotations

from xml.etree import ElementTree as ET

import pytest

from bitinfer.report.svg import Drawing, linear_axis, log_axis, named_axis


def test_linear_ticks_are_round_and_few() -> None:
    ticks = linear_axis("", [437.0]).ticks()
    assert [name for _, name in ticks] == ["0", "100", "200", "300", "400"]


def test_log_ticks_are_round_and_inside() -> None:
    axis = log_axis("", [3.0, 480.0])
    assert [name for _, name in axis.ticks()] == ["5", "10", "20", "50", "100", "200", "500"]


@pytest.mark.parametrize("value", [1e-9, 0.03, 1.0, 7.0, 1e6, 3e11])
def test_axes_of_any_single_value(value: float) -> None:
    assert 0 < log_axis("", [value]).place(value) < 1
    assert 0 < linear_axis("", [value]).place(value) < 1
    assert linear_axis("", [value]).ticks()


def test_places() -> None:
    axis = log_axis("", [10.0, 1000.0])
    assert axis.place(100.0) == pytest.approx(0.5)
    assert axis.place(1e9) == 1.0  # what lies outside is drawn at the edge
    assert axis.place(1e-9) == 0.0


def test_names_run_downwards() -> None:
    axis = named_axis(["first", "second"])
    assert axis.place(0) > axis.place(1)
    assert axis.ticks() == [(0.0, "first"), (1.0, "second")]


def test_every_mark_and_line_is_well_formed() -> None:
    drawing = Drawing("a < b", log_axis("x", [1, 10]), linear_axis("y", [5]))
    for style in range(12):
        drawing.marks(f"<{style}>", [(2.0, float(style) / 3, "a & b")], style)
    drawing.line("line", [(1.0, 1.0), (10.0, 5.0)], 3, dashed=True)
    drawing.line("", [], 1)
    drawing.note(9.9, 1.0, "&")
    root = ET.fromstring(drawing.render())
    assert len(list(root.iter("polyline"))) == 2
    texts = [element.text for element in root.iter("text")]
    assert "<11>" in texts
    assert "" not in texts

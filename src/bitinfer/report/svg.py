"""Draws charts as SVG: axes, lines and marks in one plot area, and a legend beside it."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from html import escape

from bitinfer.files import one_line

STYLE = """
svg text { font: 12px system-ui, sans-serif; fill: var(--text, #1b1f24); }
svg .soft { fill: var(--soft, #5b6570); }
svg .grid { stroke: var(--line, #d5dae0); stroke-width: 1; }
svg .title { font-weight: 600; font-size: 14px; }
"""

# Okabe and Ito's colours, which colour-blind people can tell apart, darker where they are pale.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#b58900", "#56a4d9", "#8a6d3b", "#7f7f7f")

_MARKS = ("circle", "square", "diamond", "up", "down", "cross")
_LEFT, _TOP, _RIGHT, _BOTTOM = 70, 40, 230, 46
_LEGEND_STEP = 18
_NEAR_EDGE = 0.93


@dataclasses.dataclass(frozen=True)
class Axis:
    """A range of values, linear or logarithmic, or places numbered from 0 that have names."""

    label: str
    low: float
    high: float
    is_log: bool = False
    names: tuple[str, ...] = ()
    values: tuple[float, ...] = ()
    """Where to put ticks, if not at round numbers."""

    def place(self, value: float) -> float:
        """Return where ``value`` lies: 0 at the low end, 1 at the high end."""
        if self.is_log:
            value, low, high = math.log(value), math.log(self.low), math.log(self.high)
        else:
            low, high = self.low, self.high
        return min(max((value - low) / (high - low), 0.0), 1.0)

    def ticks(self) -> list[tuple[float, str]]:
        """Return values with their names."""
        if self.names:
            return [(float(i), name) for i, name in enumerate(self.names)]
        values = self.values or (_log_ticks if self.is_log else _linear_ticks)(self.low, self.high)
        return [(value, f"{value:g}") for value in values]


def log_axis(label: str, values: Sequence[float], ticks: Sequence[float] = ()) -> Axis:
    """Return a logarithmic axis that has room for ``values``."""
    low, high = min(values), max(values)
    return Axis(label, low / 1.25, high * 1.25, is_log=True, values=tuple(ticks))


def linear_axis(label: str, values: Sequence[float], ticks: Sequence[float] = ()) -> Axis:
    """Return an axis from 0 that has room for ``values``."""
    return Axis(label, 0.0, 1.08 * max(values), values=tuple(ticks))


def named_axis(names: Sequence[str]) -> Axis:
    """Return an axis of names, the first at the high end."""
    return Axis("", len(names) - 0.4, -0.6, names=tuple(names))


def _linear_ticks(low: float, high: float) -> tuple[float, ...]:
    step = 10.0 ** math.floor(math.log10(high - low))
    step = next(s for s in (step / 5, step / 2, step, 2 * step) if (high - low) / s <= 8)
    first, last = math.ceil(low / step), math.floor(high / step)
    return tuple(i * step for i in range(first, last + 1))


def _log_ticks(low: float, high: float) -> tuple[float, ...]:
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    steps = (1, 2, 5) if len(decades) <= 5 else (1,)
    values = (step * 10.0**decade for decade in decades for step in steps)
    return tuple(value for value in values if low <= value <= high)


class Drawing:
    """One chart.  Coordinates are values of the axes; everything is escaped."""

    def __init__(self, title: str, x: Axis, y: Axis, *, height: int = 380) -> None:
        self._title = title
        self._x, self._y = x, y
        self._width, self._height = 900, height
        self._parts: list[str] = []
        self._legend: list[tuple[str, str, int, bool]] = []
        self._footnotes: list[str] = []
        self._draw_axes()

    def marks(self, name: str, points: Sequence[tuple[float, float, str]], style: int) -> None:
        """Draw marks (x, y, what a pointer is told); a name of "" is not in the legend."""
        colour = COLOURS[style % len(COLOURS)]
        if name:
            self._legend.append((name, colour, style, False))
        for x, y, text in points:
            shape = _mark(style, self._at_x(x), self._at_y(y))
            self._parts.append(f'<g fill="{colour}"><title>{plain(text)}</title>{shape}</g>')

    def line(
        self, name: str, points: Sequence[tuple[float, float]], style: int, *, dashed: bool = False
    ) -> None:
        """Draw a line through points; a name of "" is not in the legend."""
        colour = COLOURS[style % len(COLOURS)]
        if name:
            self._legend.append((name, colour, -1, dashed))
        path = " ".join(f"{self._at_x(x):.1f},{self._at_y(y):.1f}" for x, y in points)
        dash = ' stroke-dasharray="6 4"' if dashed else ""
        self._parts.append(
            f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="1.8"{dash}/>'
        )

    def note(self, x: float, y: float, text: str) -> None:
        """Write a few letters beside a point."""
        is_right = self._x.place(x) > _NEAR_EDGE
        offset, anchor = (-7, "end") if is_right else (7, "start")
        self._parts.append(_label(self._at_x(x) + offset, self._at_y(y) - 6, text, anchor))

    def footnote(self, text: str) -> None:
        """Write a line below the chart."""
        self._footnotes.append(text)

    def render(self) -> str:
        """Return the element."""
        legend = [self._legend_entry(i, *entry) for i, entry in enumerate(self._legend)]
        height = max(self._height, _TOP + _LEGEND_STEP * len(legend) + 10)
        notes = [
            _label(_LEFT, height + _LEGEND_STEP * i, text, "start")
            for i, text in enumerate(self._footnotes)
        ]
        height += _LEGEND_STEP * len(notes)
        return "\n".join(
            [
                f'<svg viewBox="0 0 {self._width} {height}" width="{self._width}" '
                f'height="{height}" role="img">',
                f"<title>{plain(self._title)}</title>",
                f'<text class="title" x="{_LEFT}" y="22">{plain(self._title)}</text>',
                *self._parts,
                *legend,
                *notes,
                "</svg>",
            ]
        )

    def _at_x(self, value: float) -> float:
        return _LEFT + self._x.place(value) * (self._width - _LEFT - _RIGHT)

    def _at_y(self, value: float) -> float:
        return self._height - _BOTTOM - self._y.place(value) * (self._height - _TOP - _BOTTOM)

    def _draw_axes(self) -> None:
        left, right = _LEFT, self._width - _RIGHT
        top, bottom = _TOP, self._height - _BOTTOM
        for value, name in self._x.ticks():
            x = self._at_x(value)
            self._parts.append(_grid(x, top, x, bottom))
            self._parts.append(_label(x, bottom + 17, name, "middle"))
        for value, name in self._y.ticks():
            y = self._at_y(value)
            self._parts.append(_grid(left, y, right, y))
            self._parts.append(_label(left - 8, y + 4, name, "end"))
        self._parts.append(_label((left + right) / 2, bottom + 36, self._x.label, "middle"))
        if self._y.label:
            self._parts.append(
                f'<text class="soft" text-anchor="middle" transform="translate(18 '
                f'{(top + bottom) / 2:.1f}) rotate(-90)">{plain(self._y.label)}</text>'
            )

    def _legend_entry(self, index: int, name: str, colour: str, mark: int, dashed: bool) -> str:
        x, y = self._width - _RIGHT + 24, _TOP + _LEGEND_STEP * index + 6
        if mark >= 0:
            sign = f'<g fill="{colour}">{_mark(mark, x, y)}</g>'
        else:
            dash = ' stroke-dasharray="5 3"' if dashed else ""
            sign = (
                f'<line x1="{x - 9}" y1="{y}" x2="{x + 9}" y2="{y}" stroke="{colour}" '
                f'stroke-width="2"{dash}/>'
            )
        return f'{sign}<text x="{x + 16}" y="{y + 4}">{plain(name)}</text>'


def _grid(x1: float, y1: float, x2: float, y2: float) -> str:
    return f'<line class="grid" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>'


def _label(x: float, y: float, text: str, anchor: str) -> str:
    return f'<text class="soft" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{plain(text)}</text>'


def _mark(style: int, x: float, y: float) -> str:
    corners: tuple[tuple[float, float], ...]
    match _MARKS[style % len(_MARKS)]:
        case "circle":
            return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4.5"/>'
        case "square":
            return f'<rect x="{x - 4:.1f}" y="{y - 4:.1f}" width="8" height="8"/>'
        case "diamond":
            corners = ((0, -6), (6, 0), (0, 6), (-6, 0))
        case "up":
            corners = ((0, -5.5), (5.5, 4.5), (-5.5, 4.5))
        case "down":
            corners = ((0, 5.5), (5.5, -4.5), (-5.5, -4.5))
        case _:
            arm = ((-5, -2), (-2, -2), (-2, -5), (2, -5), (2, -2), (5, -2))
            corners = (*arm, (5, 2), (2, 2), (2, 5), (-2, 5), (-2, 2), (-5, 2))
    points = " ".join(f"{x + dx:.1f},{y + dy:.1f}" for dx, dy in corners)
    return f'<polygon points="{points}"/>'


def plain(text: str) -> str:
    """Escape what is special in HTML and SVG, control characters as well: some are not allowed."""
    return escape(one_line(text, None))

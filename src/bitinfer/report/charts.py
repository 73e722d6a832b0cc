"""The charts of the report.  Rows that support no claim are not drawn, but named as missing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from bitinfer.report import analysis
from bitinfer.report.analysis import Bound, significant
from bitinfer.report.records import Row
from bitinfer.report.samples import MIN_CLEAN
from bitinfer.report.svg import Drawing, linear_axis, log_axis, named_axis

Layers = Mapping[str, Mapping[str, Row]]

_NOTHING = 1.0
"""Stands in for the values of a chart that has none."""

_CURVE_STEPS = 60
_NAMED = 12


def throughput(layers: Layers) -> Drawing:
    """MAC/cycle of every engine at every layer."""
    names = list(layers)
    series = {
        engine: [
            (value, float(i), f"{layer} {engine}: {significant(value)} MAC/cycle")
            for i, (layer, engines) in enumerate(layers.items())
            if engine in engines and (value := _claimed(engines[engine])) is not None
        ]
        for engine in analysis.engine_names(layers)
    }
    values = [x for points in series.values() for x, _, _ in points] or [_NOTHING]
    drawing = Drawing(
        "Throughput of all engines",
        log_axis("MAC/cycle", values),
        named_axis(names),
        height=_height(names),
    )
    for style, (engine, points) in enumerate(series.items()):
        drawing.marks(engine, points, style)
    _name_missing(drawing, analysis.missing(layers, series))
    return drawing


def speedups(layers: Layers, title: str = "Speedup of bitinfer, float32 in and out") -> Drawing:
    """Speedup of ours against every engine with another name."""
    names = list(layers)
    others = [
        name
        for kind in ("fp32", "int8", "binary")
        for name in analysis.rivals(analysis.engine_names(layers), kind)
    ]
    series: dict[str, list[tuple[float, float, str]]] = {other: [] for other in others}
    for other in others:
        for i, (layer, engines) in enumerate(layers.items()):
            ratio = analysis.speedup(engines, engines.get(other))
            if ratio is not None and not ratio.refusal:
                text = f"{layer}: {significant(ratio.by_minimum)} times as fast as {other}"
                series[other].append((ratio.by_minimum, float(i), text))
    values = [x for points in series.values() for x, _, _ in points] or [_NOTHING]
    drawing = Drawing(
        title,
        log_axis("times as fast", [*values, 1.0]),
        named_axis(names),
        height=_height(names),
    )
    for style, (other, points) in enumerate(series.items()):
        drawing.marks(other, points, style)
    _name_missing(drawing, analysis.missing(layers, [analysis.OURS, *others]))
    return drawing


def figure4(layers: Layers, suite: str) -> Drawing:
    """Speedup against channels or window size, with the paper's formula."""
    by_channels = suite == analysis.CHANNELS
    measured: dict[str, list[tuple[float, float]]] = {
        "against naive C": [],
        "against the fastest fp32": [],
    }
    naive, best = measured.values()
    infos = [next(iter(engines.values())).info for engines in layers.values()]
    xs = [float(info.channels if by_channels else info.kernel_size) for info in infos]
    for x, engines in zip(xs, layers.values(), strict=True):
        for points, rival in (
            (naive, engines.get(analysis.NAIVE)),
            (best, analysis.fastest(engines, "fp32")),
        ):
            ratio = analysis.speedup(engines, rival)
            if ratio is not None and not ratio.refusal:
                points.append((x, ratio.by_minimum))
    low, high = min(xs), max(xs)
    steps = [low * (high / low) ** (i / _CURVE_STEPS) for i in range(_CURVE_STEPS + 1)]
    fixed = infos[0]
    formula = [
        (
            x,
            analysis.paper_formula(x, fixed.kernel_size)
            if by_channels
            else analysis.paper_formula(fixed.channels, x),
        )
        for x in steps
    ]
    ys = [y for points in (naive, best, formula) for _, y in points]
    label = "channels" if by_channels else "window size"
    drawing = Drawing(
        f"Figure 4 of the XNOR-Net paper: speedup against {label}",
        (log_axis if by_channels else linear_axis)(label, xs, xs),
        log_axis("times as fast", ys),
    )
    rivals_used = {
        row.engine
        for engines in layers.values()
        for row in (engines.get(analysis.NAIVE), analysis.fastest(engines, "fp32"))
        if row is not None
    }
    _name_missing(drawing, analysis.missing(layers, [analysis.OURS, *sorted(rivals_used)]))
    for style, (name, points) in enumerate(measured.items()):
        drawing.line(name, points, style)
        drawing.marks("", [(x, y, f"{label} {x:g}: {significant(y)}x") for x, y in points], style)
    drawing.line("formula of the paper", formula, len(measured), dashed=True)
    return drawing


def roofline(rows: Sequence[Row], bounds: Sequence[Bound], bandwidth: float | None) -> Drawing:
    """MAC/cycle against MAC per byte that must move, below the hand-counted bounds."""
    series: dict[str, list[tuple[float, float, str]]] = {}
    for row in rows:
        value = _claimed(row)
        if value is not None:
            text = f"{row.layer} {row.engine}: {significant(value)} MAC/cycle"
            point = (analysis.mac_per_byte(row), value, text)
            series.setdefault(row.engine, []).append(point)
    points = [point for members in series.values() for point in members]
    xs = [x for x, _, _ in points] or [_NOTHING]
    ys = [*(y for _, y, _ in points), *(bound.mac_per_cycle for bound in bounds)]
    x_axis, y_axis = log_axis("MAC per byte that must move", xs), log_axis("MAC/cycle", ys)
    drawing = Drawing("Roofline; bounds are hand counts", x_axis, y_axis)
    for i, bound in enumerate(bounds):
        ends = [(x_axis.low, bound.mac_per_cycle), (x_axis.high, bound.mac_per_cycle)]
        drawing.line(f"bound {bound.mac_per_cycle:.0f}", ends, i + 2, dashed=True)
    if bandwidth is not None:
        top = min(x_axis.high, y_axis.high / bandwidth)
        start = max(x_axis.low, y_axis.low / bandwidth)
        if start < top:
            ends = [(start, start * bandwidth), (top, top * bandwidth)]
            drawing.line(f"{bandwidth:.0f} bytes a cycle", ends, 7, dashed=True)
    for style, (engine, members) in enumerate(series.items()):
        drawing.marks(engine, members, style)
        for x, y, text in members:
            drawing.note(x, y, text.partition(" ")[0])
    absent: dict[str, list[str]] = {}
    for row in rows:
        if not row.summary.is_claimable:
            absent.setdefault(row.engine, []).append(row.layer)
    _name_missing(drawing, absent)
    return drawing


def _name_missing(drawing: Drawing, missing: Mapping[str, Sequence[str]]) -> None:
    """Say below the chart which engines are not drawn where, and why."""
    for engine, layers in missing.items():
        shown = ", ".join(layers[:_NAMED])
        more = f" and {len(layers) - _NAMED} more" if len(layers) > _NAMED else ""
        drawing.footnote(
            f"Missing: {engine} at {shown}{more}, where fewer than {MIN_CLEAN} samples are clean."
        )


def _claimed(row: Row) -> float | None:
    return row.summary.mac_per_cycle if row.summary.is_claimable else None


def _height(names: Sequence[str]) -> int:
    return 86 + 26 * max(len(names), 4)

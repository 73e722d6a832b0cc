"""The result of a comparison as text, and as an HTML page with maps of signs."""

from __future__ import annotations

from html import escape
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bitinfer.report.blocks import Block, Chart, Heading, Paragraph, Table
from bitinfer.report.page import render
from bitinfer.verify.compare import Verification
from bitinfer.verify.differences import Difference
from bitinfer.verify.runtime import RuntimeCheck

Array = NDArray[Any]

MAX_SIDE = 64
"""Pixels of a map that are drawn along each axis."""
MAX_CHANNELS = 4
_CELL = 5
_COLOURS = {
    "negative": "#2f6f9f",
    "positive": "#e8c468",
    "different": "#c0392b",
    "equal": "#e5e9ed",
}


EVALUATOR = "bitinfer's own evaluator, float64"


def ran(check: RuntimeCheck | None) -> tuple[str, ...]:
    """Return what has run the source."""
    return (EVALUATOR,) if check is None or check.failure else (EVALUATOR, check.name)


def runtime_line(check: RuntimeCheck | None, samples: int) -> str:
    """Return in words what a framework's own runtime has."""
    if check is None:
        return "no runtime of its framework is installed, or there is none that could be asked"
    if check.failure:
        return f"{check.name} does not run the source: {check.failure}"
    return (
        f"{check.name}: outputs of {check.close} of {samples} samples are close to the model's, at "
        f"most {check.largest:.3g} apart"
    )


def lines(
    result: Verification, model: str, source: str, runtime: RuntimeCheck | None = None
) -> list[str]:
    """Return the result in words; ``runtime`` is what the source's framework has."""
    total = f"{result.samples} samples, {sum(c.compared for c in result.signs):,} signs compared"
    text = [f"{model} and {source}: {'equal' if result.is_equal else 'DIFFERENT'}; {total}"]
    text += [
        f"  {check.name}{f' (into {check.layer})' if check.layer else ''}: {check.differing:,} of "
        f"{check.compared:,} signs differ, {check.ties:,} ties, {check.ties_differing:,} of them "
        "to the other side"
        for check in result.signs
    ]
    text.append(
        f"outputs: at most {result.largest:.3g} apart, of up to {result.output_scale:.3g}; "
        f"{result.same_answers} of {result.samples} answers the same"
    )
    if result.left_out:
        text.append(
            f"{result.left_out} samples are left out behind a sign that is a tie and fell to the "
            "other side: their value is at the threshold, within the rounding of float32"
        )
    if result.first is not None:
        text += _of_difference(result.first)
    text.append(f"the source was run by {' and '.join(ran(runtime))}")
    return [*text, runtime_line(runtime, result.samples)]


def _of_difference(first: Difference) -> list[str]:
    layers = ", ".join(first.layers) or "no layer"
    text = [f"they part at {first.name}, which follows from {layers}"]
    if not first.explanations:
        return [*text, "nothing that was tried explains it"]
    return [*text, *(f"it would be equal if the source had: {e}" for e in first.explanations)]


class _Maps:
    """Source, model and where they differ, side by side, as SVG."""

    def __init__(self, title: str, source: Array, model: Array) -> None:
        self.title = title
        self.source = source
        self.model = model

    def render(self) -> str:
        height, width = self.source.shape
        step = (width + 2) * _CELL
        differs = self.source != self.model
        panels = (
            ("source", np.where(self.source < 0, "negative", "positive")),
            ("model", np.where(self.model < 0, "negative", "positive")),
            ("difference", np.where(differs, "different", "equal")),
        )
        parts = [
            f'<svg role="img" width="{3 * step}" height="{height * _CELL + 24}">',
            f"<title>{escape(self.title)}</title>",
        ]
        for i, (name, kinds) in enumerate(panels):
            parts.append(f'<text x="{i * step}" y="14" font-size="12">{name}</text>')
            for kind, colour in _COLOURS.items():
                cells = "".join(
                    f"M{i * step + x * _CELL} {20 + y * _CELL}h{_CELL}v{_CELL}h-{_CELL}z"
                    for y, x in np.argwhere(kinds == kind)
                )
                if cells:
                    parts.append(f'<path fill="{colour}" d="{cells}"/>')
        return "".join([*parts, "</svg>"])


def html(result: Verification, model: str, source: str, runtime: RuntimeCheck | None = None) -> str:
    """Return the result as one page, with the maps of the first sign that differs."""
    title = "Comparison with the source"
    first, *others = lines(result, model, source, runtime)
    blocks: list[Block] = [
        Heading(1, title),
        Paragraph(first, is_warning=not result.is_equal),
        *(Paragraph(line.strip()) for line in others if not line.startswith("  ")),
    ]
    if result.signs:
        header = ("sign", "layer", "compared", "differ", "ties", "to the other side")
        rows = tuple(
            (
                c.name,
                c.layer,
                *(f"{n:,}" for n in (c.compared, c.differing, c.ties, c.ties_differing)),
            )
            for c in result.signs
        )
        blocks += [Heading(2, "Signs"), Table(header, rows)]
    if result.first is not None:
        blocks += [Heading(2, f"Where they part: {result.first.name}"), *_maps(result.first)]
    return render(blocks, title)


def _maps(first: Difference) -> list[Block]:
    """Draw the channels that differ most; a vector in rows."""
    source, model = (_as_map(np.asarray(v)) for v in (first.source, first.model))
    counts = (np.sign(source) != np.sign(model)).sum(axis=(0, 1))
    blocks: list[Block] = []
    for channel in np.argsort(-counts, kind="stable")[:MAX_CHANNELS]:
        text = f"channel {channel}: {counts[channel]} of {source[..., channel].size} signs differ"
        maps = (np.sign(v[:MAX_SIDE, :MAX_SIDE, channel]) for v in (source, model))
        blocks += [Paragraph(text), Chart(_Maps(text, *maps))]
    return blocks


def _as_map(value: Array) -> Array:
    if value.ndim == 3:
        return value
    width = min(MAX_SIDE, value.size)
    padded = np.ones(-(-value.size // width) * width)
    padded[: value.size] = value.reshape(-1)
    return padded.reshape(-1, width, 1)

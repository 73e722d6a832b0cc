"""Renders a report as Markdown, without the charts."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from bitinfer.files import one_line
from bitinfer.report.blocks import Block, Chart, Heading, Paragraph, Table

_SPECIAL = re.compile(r"([\\`*_\[\]<>|~#&])")


def render(blocks: Iterable[Block]) -> str:
    """Return the text; foreign words in it cannot become markup."""
    parts = []
    for block in blocks:
        match block:
            case Heading():
                parts.append(f"{'#' * block.level} {escape(block.text)}")
            case Paragraph():
                parts.append(f"{'> Warning: ' if block.is_warning else ''}{escape(block.text)}")
            case Table():
                parts.append(_table(block))
            case Chart():
                continue
    return "\n\n".join(parts) + "\n"


def escape(text: str) -> str:
    """Return ``text`` on one line, with what is special in Markdown escaped."""
    return _SPECIAL.sub(r"\\\1", one_line(text, None))


def _table(table: Table) -> str:
    lines = [
        _row([escape(cell) for cell in table.header]),
        _row(["---", *["---:"] * (len(table.header) - 1)]),
    ]
    lines += [_row([escape(cell) for cell in row]) for row in table.rows]
    return "\n".join(lines)


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"

"""Renders a report as one HTML file that needs nothing else: no script, no fonts, no network."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape

from bitinfer.report import svg
from bitinfer.report.blocks import Block, Chart, Heading, Paragraph, Table
from bitinfer.report.document import TITLE
from bitinfer.report.svg import plain

_STYLE = """
:root { color-scheme: light dark; --text: #1b1f24; --soft: #5b6570; --line: #d5dae0;
  --ground: #ffffff; --warn: #fff3cd; }
@media (prefers-color-scheme: dark) { :root { --text: #e3e7eb; --soft: #9aa5b1; --line: #3a424c;
  --ground: #15191e; --warn: #4a3c10; } }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--text); background: var(--ground);
  max-width: 112rem; margin: 2rem auto; padding: 0 1rem; }
h2 { border-top: 1px solid var(--line); padding-top: 1.5rem; margin-top: 2.5rem; }
p { max-width: 48rem; }
.warning { background: var(--warn); padding: 0.5rem 0.8rem; border-radius: 4px; }
.scroll { overflow-x: auto; margin: 1rem 0; }
table { border-collapse: collapse; font-size: 0.85rem; font-variant-numeric: tabular-nums; }
th, td { border-bottom: 1px solid var(--line); padding: 0.25rem 0.6rem; text-align: right;
  vertical-align: top; }
th:first-child, td:first-child { text-align: left; white-space: nowrap; position: sticky; left: 0;
  background: var(--ground); }
th { color: var(--soft); font-weight: 600; }
svg { max-width: 100%; height: auto; display: block; margin: 1rem 0; }
"""


def render(blocks: Iterable[Block], title: str = TITLE) -> str:
    """Return the page; foreign words in it cannot become markup."""
    parts = [
        "<!doctype html>",
        '<html lang="en">',
        '<meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        '<meta http-equiv="Content-Security-Policy" '
        "content=\"default-src 'none'; style-src 'unsafe-inline'\">",
        f"<title>{escape(title)}</title>",
        f"<style>{_STYLE}{svg.STYLE}</style>",
    ]
    for block in blocks:
        match block:
            case Heading():
                parts.append(f"<h{block.level}>{plain(block.text)}</h{block.level}>")
            case Paragraph():
                kind = ' class="warning"' if block.is_warning else ""
                parts.append(f"<p{kind}>{plain(block.text)}</p>")
            case Table():
                parts.append(_table(block))
            case Chart():
                parts.append(block.drawing.render())
    return "\n".join([*parts, "</html>"]) + "\n"


def _table(table: Table) -> str:
    head = "".join(f'<th scope="col">{plain(cell)}</th>' for cell in table.header)
    lines = [f"<thead><tr>{head}</tr></thead>"] if any(table.header) else []
    lines.append("<tbody>")
    for first, *others in table.rows:
        cells = "".join(f"<td>{plain(cell)}</td>" for cell in others)
        lines.append(f'<tr><th scope="row">{plain(first)}</th>{cells}</tr>')
    return "\n".join(['<div class="scroll"><table>', *lines, "</tbody></table></div>"])

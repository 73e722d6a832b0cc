"""What a report consists of: blocks of plain text, tables and charts."""

from __future__ import annotations

import dataclasses
from typing import Protocol, TypeAlias


class Drawable(Protocol):
    """What an HTML page shows as SVG."""

    def render(self) -> str:
        """Return the SVG element."""
        ...


@dataclasses.dataclass(frozen=True)
class Heading:
    """A heading; level 1 is the title."""

    level: int
    text: str


@dataclasses.dataclass(frozen=True)
class Paragraph:
    """Plain text; a warning stands out."""

    text: str
    is_warning: bool = False


@dataclasses.dataclass(frozen=True)
class Table:
    """Cells of plain text; the first column is text, the others are figures."""

    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclasses.dataclass(frozen=True)
class Chart:
    """A drawing, for those who can show one."""

    drawing: Drawable


Block: TypeAlias = Heading | Paragraph | Table | Chart

"""docs/importing.md says of every construct what importing it gives."""

from __future__ import annotations

import constructs
import pytest


def test_table_is_what_importing_gives() -> None:
    page = constructs.PAGE.read_text(encoding="utf-8")
    assert constructs.HEAD in page
    assert constructs.updated(page) == page, "run python tests/importers/constructs.py"


@pytest.mark.parametrize("format_", constructs.FORMATS)
def test_every_format_has_constructs_that_become_bits(format_: str) -> None:
    cells = [constructs.cell(row.get(format_)) for row in constructs.ROWS.values()]
    assert "bits" in cells

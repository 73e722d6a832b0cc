"""The folder of ``bitinfer run --annotate``: pictures with their labels below, as PNG."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import TYPE_CHECKING

from bitinfer.cli._terminal import printable

if TYPE_CHECKING:
    from bitinfer.session import Classification

_LABEL = 100
_STEM = 240
"""Bytes of a name: file systems take 255, with a number and the suffix."""


class Folder:
    """A folder that is empty at first, so that nothing in it can be an input or be replaced.

    Raises:
        UsageError: there is something in it, or it is ``-``.
        OutputError: it cannot be made or read.
    """

    def __init__(self, path: Path) -> None:
        from bitinfer.errors import OutputError, UsageError
        from bitinfer.files import refuse_dash

        refuse_dash("--annotate", path)
        try:
            path.mkdir(parents=True, exist_ok=True)
            with os.scandir(path) as entries:
                taken = next(entries, None)
            self._place = path.resolve()
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or error
            raise OutputError(f"--annotate: cannot use {path}: {reason}") from error
        if taken is not None:
            raise UsageError(
                f"--annotate: {path} has files in it, such as {printable(taken.name, _LABEL)}; "
                "name a new folder"
            )
        self._path = path
        self._names: set[str] = set()
        self.count = 0

    def holds(self, name: str) -> bool:
        """Tell whether a file lies here, and so is no input but a result."""
        try:
            return self.count > 0 and Path(name).resolve().is_relative_to(self._place)
        except (OSError, ValueError):
            return False

    def add(self, name: str, found: Classification) -> str:
        """Write the picture of an input with its labels; return where.

        It is called as the input, but with the suffix ``.png``; where that is taken, with a number.

        Raises:
            OutputError: it cannot be written.
        """
        from bitinfer import files
        from bitinfer.vision.annotating import annotate

        lines = [(printable(p.label, _LABEL), p.probability) for p in found.predictions]
        data = io.BytesIO()
        annotate(found.picture, lines).save(data, "PNG")
        stem = Path(name).stem if name != "-" else "standard-input"
        stem = os.fsencode(stem)[:_STEM].decode(errors="ignore")
        target, number = f"{stem}.png", 1
        while target.casefold() in self._names:
            number += 1
            target = f"{stem}-{number}.png"
        self._names.add(target.casefold())
        path = self._path / target
        files.write_atomically(path, data.getvalue())
        self.count += 1
        return str(path)

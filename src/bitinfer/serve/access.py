"""One line for each request, written a few at a time so that requests do not wait for it."""

from __future__ import annotations

import asyncio
import sys

from bitinfer.files import one_line

_INTERVAL_S = 0.05


class AccessLog:
    """Lines on stderr: client, method, path, status, bytes of the body, milliseconds.

    Neither bodies nor what stands behind a ``?`` are written.
    """

    def __init__(self) -> None:
        self._lines: list[str] = []

    def add(
        self, client: str, method: str, path: str, *, status: int, size: int, seconds: float
    ) -> None:
        """Note a request; called by the event loop."""
        if not self._lines:
            asyncio.get_running_loop().call_later(_INTERVAL_S, self.flush)
        where = f"{one_line(method, 10)} {one_line(path, 100)}"
        self._lines.append(f"{client} {where} {status} {size}B {seconds * 1e3:.2f}ms\n")

    def flush(self) -> None:
        """Write what has been noted."""
        lines, self._lines = self._lines, []
        if lines and sys.stderr is not None:
            sys.stderr.write("".join(lines))
            sys.stderr.flush()

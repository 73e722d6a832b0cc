"""The command line: ``bitinfer COMMAND ...``, one module per command.

This module imports next to nothing, so that an interrupt during any other import ends quietly.
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import sys
from collections.abc import Sequence

_INTERRUPTED = 130
_BROKEN_PIPE = 141
"""What a shell reports for a program that SIGPIPE has ended."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code (see ``bitinfer --help``)."""
    code = 0
    try:
        _stand_in_for_closed_streams()
        from bitinfer.cli._app import run_command

        code = run_command(sys.argv[1:] if argv is None else list(argv))
        sys.stdout.flush()
    except KeyboardInterrupt:
        code = _INTERRUPTED
    except BrokenPipeError:
        code = _BROKEN_PIPE
        _silence_stdout()
    except OSError as error:  # a full disk, for instance
        _silence_stdout()
        if code == 0:
            code = 1
            message = f"bitinfer: error: cannot write the output: {error.strerror or error}\n"
            with contextlib.suppress(OSError):
                os.write(2, message.encode())
    return code


class _ClosedOutput(io.TextIOBase):
    """Standard output that the caller has closed: what is written to it is lost, and says so."""

    def write(self, text: str) -> int:
        """Raise OSError."""
        raise OSError(errno.EBADF, os.strerror(errno.EBADF))


def _stand_in_for_closed_streams() -> None:
    """Keep files that are opened from becoming a standard stream that the caller has closed."""
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest that is free, which is this one
    if sys.stdout is None:
        sys.stdout = _ClosedOutput()
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w")  # noqa: PTH123, SIM115 - pathlib costs time


def _silence_stdout() -> None:
    """Send what is left in the buffer nowhere, where flushing it would fail again at exit."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, sys.stdout.fileno())
    except (AttributeError, OSError, ValueError):
        pass  # a stream without a descriptor has nothing that could fail at exit
    finally:
        os.close(nowhere)

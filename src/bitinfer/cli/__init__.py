"""The command line: ``bitinfer COMMAND ...``, one module per command.

This module imports next to nothing, so that an interrupt during any other import ends quietly.
"""

from __future__ import annotations

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
        if sys.stdout is None:  # closed by the caller, who wants no output
            sys.stdout = open(os.devnull, "w")  # noqa: PTH123, SIM115 - pathlib costs time
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
            os.write(2, message.encode())
    return code


def _silence_stdout() -> None:
    """Send what is left in the buffer nowhere, where flushing it would fail again at exit."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, sys.stdout.fileno())
    except (AttributeError, OSError, ValueError):
        pass  # a stream without a descriptor has nothing that could fail at exit
    finally:
        os.close(nowhere)

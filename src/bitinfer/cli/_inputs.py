"""Which pictures the inputs of ``bitinfer run`` stand for."""

from __future__ import annotations

import glob
import os
import stat
import sys
from collections.abc import Iterator, Sequence
from typing import Any

from bitinfer.errors import BitInferError, ImageError, InputError

STDIN = "-"
MAX_LIST_BYTES = 1 << 28
"""Longest list of inputs: some million names."""

_LONGEST_NAME = 4096
"""Linux's PATH_MAX."""

Found = tuple[str, BitInferError | None]
"""The name of a picture, or of an input and what is wrong with it."""


def expand(inputs: Sequence[str], passed_over: list[str], *, globs: bool) -> Iterator[Found]:
    """Yield the pictures that the inputs stand for, or what is wrong with one that has none.

    ``globs`` says whether ``*``, ``?`` and ``[ ]`` stand for names.  Files in folders that are no
    pictures are added to ``passed_over``.
    """
    from bitinfer.vision.containers import WANTED

    for text in inputs:
        count, before = 0, len(passed_over)
        for found in _expand_one(text, passed_over, globs=globs):
            count += 1
            yield found
        if not count:
            others = len(passed_over) - before
            kinds = f" of a kind that is read ({WANTED})" if others else ""
            reason = f"; passed over: {others}" if others else ""
            yield (
                text,
                ImageError(f"{text}: no picture there{kinds}{reason}; see 'bitinfer run --help'"),
            )


def read_list(source: str) -> list[str]:
    """Return the names in a file, or on stdin if it is ``-``: one per line, or NUL after each.

    The file may be a pipe.

    Raises:
        InputError: the list cannot be read, is too long, or has no name.
    """
    from bitinfer.importers.detect import is_model_file
    from bitinfer.vision.containers import HEAD_BYTES, kind_of

    where = "standard input" if source == STDIN else source
    try:
        if source == STDIN:
            data = binary_stdin("a list of inputs").read(MAX_LIST_BYTES + 1)
        else:
            with open(source, "rb") as file:  # noqa: PTH123 - a plain str
                data = file.read(MAX_LIST_BYTES + 1)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"--files-from {where}: {reason}") from error
    if len(data) > MAX_LIST_BYTES:
        raise InputError(f"--files-from {where}: over {MAX_LIST_BYTES} bytes; split the list")
    data = data.removeprefix(b"\xef\xbb\xbf")
    parts = data.split(b"\0") if b"\0" in data else data.replace(b"\r\n", b"\n").split(b"\n")
    names = [os.fsdecode(part) for part in parts if part.strip()]
    # A name may begin as a PNM does: 'P5 12.png'.
    is_picture = kind_of(data[:HEAD_BYTES]) not in (None, "PNM")
    if is_picture or is_model_file(data) or any(len(part) > _LONGEST_NAME for part in parts):
        raise InputError(f"--files-from {where}: holds no list of names; wanted one per line")
    if not names:
        raise InputError(f"--files-from {where}: holds no name; wanted one per line")
    return names


def binary_stdin(wanted: str) -> Any:
    """Return the standard input as bytes.

    Raises:
        ImageError: it is a terminal, or closed.
    """
    if sys.stdin is None:
        raise ImageError(f"standard input: is closed; pipe {wanted} into it")
    if sys.stdin.isatty():
        raise ImageError(f"standard input: is a terminal; pipe {wanted} into it")
    return sys.stdin.buffer


def _expand_one(text: str, passed_over: list[str], *, globs: bool) -> Iterator[Found]:
    from bitinfer.vision import entries_in

    if not text:
        yield text, ImageError("an empty text as INPUT, wanted a picture, a folder or a glob")
    elif os.path.isdir(text):  # noqa: PTH112 - a NUL is no error yet
        for entry in entries_in(text):
            if entry.problem is not None:
                yield entry.path, entry.problem
            elif entry.is_picture:
                yield entry.path, None
            else:
                passed_over.append(entry.path)
    elif globs and glob.has_magic(text) and not os.path.lexists(text):
        # Path.glob takes no absolute pattern.
        matches = glob.glob(_escape_what_exists(text), recursive=True)  # noqa: PTH207
        for path in sorted(p for p in matches if not os.path.isdir(p)):  # noqa: PTH112
            yield path, None
    elif globs and _is_pipe(text):
        yield text, ImageError(f"{text}: a pipe; for a picture on standard input, the input is -")
    else:
        yield text, None


def _is_pipe(path: str) -> bool:
    try:
        return stat.S_ISFIFO(os.stat(path).st_mode)  # noqa: PTH116
    except (OSError, ValueError):
        return False


def _escape_what_exists(pattern: str) -> str:
    """Return the pattern with its first folders as they are written, where they so exist.

    In ``Photos [2024]/*.png`` the brackets belong to the name of a folder.
    """
    end = -1
    while (following := pattern.find(os.sep, end + 1)) >= 0:
        if not os.path.isdir(pattern[: following + 1]):  # noqa: PTH112
            break
        end = following
    return glob.escape(pattern[: end + 1]) + pattern[end + 1 :]

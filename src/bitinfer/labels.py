"""Reads the names of classes from the text files that people keep them in."""

from __future__ import annotations

import codecs
import dataclasses
import os
import re

from bitinfer.errors import InputError
from bitinfer.files import one_line, read_regular

MAX_BYTES = 1 << 24
MAX_LENGTH = 256
"""Most characters of a label, as of every name in a model file."""

_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),  # before UTF-16's, which it begins with
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_LINE_END = re.compile(r"\r\n|\r|\n")


@dataclasses.dataclass(frozen=True)
class LabelFile:
    """Names of classes, the file that they are from, and how it was read.

    Attributes:
        path: of the file, for messages.
        names: in the order of the classes.
        remark: what was assumed about the encoding, or empty.
    """

    path: str
    names: tuple[str, ...]
    remark: str = ""


def read(path: str | os.PathLike[str]) -> LabelFile:
    """Read one label per line; empty lines at the end do not count.

    Text is UTF-8, or UTF-16 or UTF-32 if it begins with their mark or has their zeros; what is none
    of these is taken for Windows-1252, which Latin-1 is a part of, and ``remark`` says so.

    Raises:
        InputError: the file cannot be read, or a label is too long.
    """
    where = os.fsdecode(path)
    data = read_regular(path, MAX_BYTES, error=InputError, what="lists of labels")
    encoding, mark = _encoding(data)
    remark = ""
    try:
        text = data[mark:].decode(encoding)
    except UnicodeDecodeError as error:
        if encoding != "utf-8" or mark or b"\0" in data:
            raise InputError(
                f"{where}: no text of {encoding} as it seemed; save the labels as UTF-8"
            ) from error
        text = data.decode("cp1252", "replace")
        remark = f"{where}: not UTF-8, read as Windows-1252 (Latin-1)"
    lines = [line.strip() for line in _LINE_END.split(text)]
    while lines and not lines[-1]:
        lines.pop()
    if not lines:
        raise InputError(f"{where}: holds no label; wanted one per line")
    for number, line in enumerate(lines, start=1):
        if len(line) > MAX_LENGTH:
            raise InputError(
                f"{where}, line {number}: the label {one_line(line, 40)} has {len(line)} "
                f"characters, at most {MAX_LENGTH} are allowed; wanted one label per line"
            )
    return LabelFile(where, tuple(lines), remark)


def _encoding(data: bytes) -> tuple[str, int]:
    """Return the encoding, and how many bytes its mark takes."""
    for mark, encoding in _MARKS:
        if data.startswith(mark):
            return encoding, len(mark)
    # Without a mark UTF-16 shows by the zeros beside ASCII.
    head = data[:4096]
    if len(data) % 2 == 0 and head:
        if head[1::2].count(0) * 4 > len(head):
            return "utf-16-le", 0
        if head[::2].count(0) * 4 > len(head):
            return "utf-16-be", 0
    return "utf-8", 0

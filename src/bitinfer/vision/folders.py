"""Which files of a folder are pictures: by their first bytes, or meant to be by their names."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator
from pathlib import Path

from bitinfer.errors import ImageError
from bitinfer.files import open_regular
from bitinfer.vision.containers import HEAD_BYTES, kind_of

SUFFIXES = frozenset(
    (".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".bmp", ".ppm", ".pgm", ".pbm", ".pnm")
)
"""A file so named is meant to be a picture: if its content is none, that is an error."""


@dataclasses.dataclass(frozen=True)
class Entry:
    """A file or folder that was found.

    Attributes:
        path: of it.
        is_picture: whether to read it; what is no picture is passed over.
        problem: why a folder cannot be looked into.
    """

    path: str
    is_picture: bool
    problem: ImageError | None = None


def entries_in(folder: str | os.PathLike[str]) -> Iterator[Entry]:
    """Yield every file of a folder and its subfolders, sorted folder by folder, pictures or not.

    A file is a picture if its first bytes or its suffix say so.  Hidden files and folders are left
    out; links to folders are not followed, and are entries that are no picture.  What cannot be
    listed is an entry with a problem, and the rest goes on.
    """
    problems: list[Entry] = []

    def note(error: OSError) -> None:
        reason = ImageError(f"{error.filename}: {error.strerror or error}")
        problems.append(Entry(str(error.filename), is_picture=False, problem=reason))

    for where, folders, files in os.walk(folder, onerror=note):
        yield from problems
        problems.clear()
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in folders:
            if Path(where, name).is_symlink():
                yield Entry(str(Path(where, name)), is_picture=False)
        for name in sorted(files):
            if not name.startswith("."):
                yield _entry(str(Path(where, name)))
    yield from problems


def is_picture(head: bytes) -> bool:
    """Tell whether a file that begins with ``head`` is a picture of a kind that is read."""
    return kind_of(head) is not None


def _entry(path: str) -> Entry:
    if Path(path).suffix.lower() in SUFFIXES:
        return Entry(path, is_picture=True)
    try:
        with open_regular(path) as file:
            return Entry(path, is_picture=is_picture(file.read(HEAD_BYTES)))
    except OSError:  # a pipe, or not for us to read: nothing says that it is a picture
        return Entry(path, is_picture=False)

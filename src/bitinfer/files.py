"""What every part needs that reads or writes files of strangers: once, and light to import.

Reading waits for nothing and is bounded.  Writing leaves the old file or the new one, never half of
one.  Foreign text in a message stays on one line.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, BinaryIO

from bitinfer.errors import BitInferError, OutputError, UsageError

StrPath = str | os.PathLike[str]

_RESULTS = (".csv", ".html", ".json", ".jsonl", ".log", ".md")
"""Suffixes of what commands write; in a folder of inputs such files are none."""

_STREAM_CHUNK = 1 << 20


def open_regular(path: StrPath) -> BinaryIO:
    """Open a regular file for reading.  Raises OSError for any other kind, and never waits."""
    if not os.fspath(path):
        raise FileNotFoundError(errno.ENOENT, "an empty path, wanted the name of a file")
    # Without O_NONBLOCK, a named pipe that nobody writes to would be waited for.
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
    mode = os.fstat(descriptor).st_mode
    if not stat.S_ISREG(mode):
        os.close(descriptor)
        if stat.S_ISDIR(mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        raise OSError(errno.EINVAL, "not a regular file; copy its content into one")
    return os.fdopen(descriptor, "rb")


def read_regular(
    path: StrPath,
    limit: int,
    *,
    error: type[BitInferError],
    what: str = "such files",
    name: str | None = None,
) -> bytes:
    """Return the bytes of a regular file.  Its size is checked before anything is read.

    Raises:
        error: the file cannot be read, is no regular file, or has over ``limit`` bytes.  The
            message calls it ``name`` (default: its path), and its kind ``what``.
        MemoryError: it does not fit into memory.
    """
    name = (os.fsdecode(path) or "''") if name is None else name or "''"
    try:
        with open_regular(path) as file:
            size = os.fstat(file.fileno()).st_size
            if size <= limit:
                return file.read(size)
    except OSError as problem:
        raise error(f"{name}: {problem.strerror or problem}") from problem
    except ValueError as problem:  # a NUL in the path
        raise error(f"{one_line(name)}: {problem}") from problem
    raise error(f"{name}: {size} bytes, {what} have at most {limit}")


def read_source(
    source: Any,
    limit: int,
    *,
    error: type[BitInferError],
    what: str = "such files",
    name: str | None = None,
    or_else: str = "",
) -> bytes:
    """Return the bytes that ``source`` stands for: a path, a buffer of bytes, or a binary file.

    A file is read from where it stands, to its end or a little beyond ``limit`` bytes.
    ``or_else`` names what else the caller takes, with a comma behind it, for the message.

    Raises:
        error: as :func:`read_regular`, and if ``source`` is none of these.
        MemoryError: it does not fit into memory.
    """
    if isinstance(source, str | os.PathLike):
        return read_regular(source, limit, error=error, what=what, name=name)
    prefix = "" if name is None else f"{name}: "
    try:
        data = _read_stream(source, limit) if hasattr(source, "read") else memoryview(source)
    except (OSError, ValueError) as problem:
        raise error(f"{prefix}cannot be read: {one_line(problem)}") from problem
    except TypeError as problem:
        raise error(
            f"{prefix}came as {type(source).__name__}, wanted a path, bytes or another buffer of "
            f"bytes, {or_else}or a file opened in binary mode"
        ) from problem
    if data.nbytes > limit:
        raise error(f"{prefix}over {limit} bytes, more than {what} may have")
    return bytes(data)


def _read_stream(file: Any, limit: int) -> memoryview:
    parts = []
    size = 0
    while size <= limit and (part := file.read(_STREAM_CHUNK)):
        parts.append(memoryview(part))
        size += len(part)
    return memoryview(b"".join(parts))


def write_atomically(path: StrPath, data: bytes) -> None:
    """Write ``data`` to a temporary file beside ``path``, then rename it to ``path``.

    Raises:
        OutputError: the file cannot be written; whatever was at ``path`` is untouched.
    """
    target = os.fsdecode(path)
    try:
        target = _regular_target(target)
        descriptor, name = _create_beside(target)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(name, target)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(name)
            raise
    except (OSError, ValueError) as error:
        raise _cannot_write(target, error) from error


def check_writable(path: StrPath) -> None:
    """Raise OutputError now if :func:`write_atomically` could not write to ``path`` later."""
    target = os.fsdecode(path)
    try:
        target = _regular_target(target)
        descriptor, name = _create_beside(target)
        os.close(descriptor)
        os.unlink(name)
    except (OSError, ValueError) as error:
        raise _cannot_write(target, error) from error


def check_outputs(outputs: Mapping[str, StrPath | None], inputs: Iterable[StrPath | None]) -> None:
    """Refuse outputs that would replace an input or one another, or cannot be written at all.

    ``outputs`` are by the option that names them; None is not asked for.  An input that is a folder
    stands for all files in it but results of other commands; a file with ``images`` in its name
    also for those beside it with ``labels``.  A file is known by what it is, not by its name: links
    lead to the same one.

    Raises:
        UsageError: an output is an input, or another output, or ``-``.
        OutputError: it could not be written to.
    """
    wanted = {option: path for option, path in outputs.items() if path is not None}
    for option, output in wanted.items():
        refuse_dash(option, output)
    here = {option: identity for option, path in wanted.items() if (identity := _identity(path))}
    for path in inputs if here else ():
        for found in () if path is None else _files_of(path):
            for option, identity in here.items():
                if _identity(found) == identity:
                    raise UsageError(
                        f"{option}: {os.fsdecode(wanted[option])} is an input, which it would "
                        "replace; name another file"
                    )
    places: dict[str, str] = {}
    for option, path in wanted.items():
        try:
            place = os.path.realpath(path)
        except ValueError:  # a NUL in the path, which check_writable refuses
            place = os.fsdecode(path)
        if place in places:
            raise UsageError(
                f"{option}: {os.fsdecode(path)} is what {places[place]} writes; name another file"
            )
        places[place] = option
        check_writable(path)


def refuse_dash(option: str, path: StrPath) -> None:
    """Raise UsageError for ``-``: elsewhere that is standard output, here it would be a name."""
    if os.fsdecode(path) == "-":
        raise UsageError(
            f"{option}: nothing is written to standard output; name a file, or ./- if it is to be "
            "called so"
        )


def _identity(path: StrPath) -> tuple[int, int] | None:
    """Return what tells a file from all others; None if there is none."""
    try:
        status = os.stat(path)
    except (OSError, ValueError):
        return None
    return status.st_dev, status.st_ino


def _files_of(path: StrPath) -> Iterator[StrPath]:
    """Yield the files that an input stands for."""
    yield path
    with contextlib.suppress(ValueError):
        folder, name = os.path.split(os.fsdecode(path))
        if os.path.isdir(path):
            for where, _, names in os.walk(path):
                yield from (os.path.join(where, n) for n in names if not n.endswith(_RESULTS))
        elif "images" in name:
            with contextlib.suppress(OSError):
                names = [n for n in os.listdir(folder or ".") if "labels" in n]
                yield from (os.path.join(folder, n) for n in names)


def one_line(text: object, limit: int | None = 120) -> str:
    """Return foreign text that can neither break a line nor steer a terminal.

    Control characters are escaped, and what is longer than ``limit`` characters is cut.
    """
    text = str(text)
    if limit is not None:
        text = text[: limit + 1]
    if text.isprintable():
        safe = text
    else:
        safe = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
    return safe if limit is None or len(safe) <= limit else f"{safe[: limit - 3]}..."


def _regular_target(path: str) -> str:
    """Follow links, so that they stay, and refuse what a rename would destroy."""
    target = os.path.realpath(path)
    try:
        mode = os.stat(target).st_mode
    except FileNotFoundError:
        return target
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, "is a directory")
    if not stat.S_ISREG(mode):
        raise OSError(errno.EINVAL, "is not a regular file")
    return target


def _create_beside(target: str) -> tuple[int, str]:
    """Create an empty file in the folder of ``target``; return its descriptor and its name."""
    # Not mkstemp, whose files are private: the mode must follow the umask, as any other file's.
    name = os.path.join(os.path.dirname(target), f".bitinfer-{os.urandom(8).hex()}")
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_CLOEXEC", 0)
    return os.open(name, flags, 0o666), name


def _cannot_write(target: str, error: OSError | ValueError) -> OutputError:
    reason = error.strerror if isinstance(error, OSError) else None  # ValueError: NUL in the path
    return OutputError(f"cannot write {target}: {reason or error}")

"""The bytes of a source: those of a file, or of a folder that holds one network, as an archive.

BNN-PYNQ keeps a network as a folder of some hundred small files.  It becomes a zip archive in
memory, the same for the same files, which is told apart and read as any other file is.
"""

from __future__ import annotations

import io
import os
import re
import zipfile
from pathlib import Path

from bitinfer.errors import CheckpointError
from bitinfer.files import read_regular
from bitinfer.importers import detect
from bitinfer.importers.readers.torch_checkpoint import read_file

MAX_FILES = 1 << 14
MAX_BYTES = 1 << 28
_FIRST = "0-0-weights.bin"
_FILE = re.compile(r"(?:\d{1,3}-\d{1,4}-(?:weights|thres)\.bin|classes\.txt)")


def read_source(path: str | os.PathLike[str]) -> bytes:
    """Return the bytes of the file at ``path``, or of BNN-PYNQ's folder there as an archive.

    Raises:
        CheckpointError: it cannot be read, or is another folder.
    """
    if not (Path(path) / _FIRST).is_file():
        detect.refuse_directory(path)
        return read_file(path)
    names = sorted(entry.name for entry in Path(path).iterdir() if _FILE.fullmatch(entry.name))
    if len(names) > MAX_FILES:
        raise CheckpointError(f"{os.fspath(path)}: {len(names)} files, at most {MAX_FILES}")
    target, left = io.BytesIO(), MAX_BYTES
    with zipfile.ZipFile(target, "w") as archive:
        for name in names:
            data = read_regular(Path(path) / name, left, error=CheckpointError, what="all of them")
            left -= len(data)
            archive.writestr(zipfile.ZipInfo(name), data)
    return target.getvalue()

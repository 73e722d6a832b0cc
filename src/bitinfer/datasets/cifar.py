"""CIFAR-10 and CIFAR-100 as their authors publish them (cs.toronto.edu/~kriz/cifar.html).

The version for Python is a pickle, which is decoded and never executed; the binary version is one
record per picture: CIFAR-10 a byte of label, CIFAR-100 a coarse and a fine one, then 3072 pixels.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from bitinfer.datasets.base import Dataset, Labels, Target
from bitinfer.datasets.pickles import Call, unpickle
from bitinfer.errors import DataError
from bitinfer.files import one_line, read_regular
from bitinfer.vision import Pixels

MAX_BYTES = 1 << 28
"""Largest file; CIFAR-100's training set has 155 MB."""
PICTURE_BYTES = 3 * 32 * 32

_TEST_FILES = ("test_batch", "test_batch.bin", "test", "test.bin")
_FOLDERS = ("cifar-10-batches-py", "cifar-10-batches-bin", "cifar-100-python", "cifar-100-binary")
_COARSE_CLASSES, _FINE_CLASSES = 20, 100


def find_cifar(folder: Path) -> list[Path]:
    """Return the files with test pictures in a folder, or in one that the archives unpack to."""
    for inner in (folder, *(folder / name for name in _FOLDERS)):
        if found := [inner / name for name in _TEST_FILES if (inner / name).is_file()]:
            return found
    return []


def is_binary(path: Path, size: int) -> bool:
    """Tell whether a file looks like the binary version, by its name and its length."""
    records = (PICTURE_BYTES + 1, PICTURE_BYTES + 2)
    return path.suffix == ".bin" and size > 0 and any(size % record == 0 for record in records)


def load_cifar(path: Path, target: Target) -> Dataset:
    """Open one file of CIFAR, of either version.

    Raises:
        DataError: the file is damaged, or its labels are no classes of the network.
    """
    data = read_regular(path, MAX_BYTES, error=DataError, what="CIFAR's files")
    if path.suffix == ".bin":
        pixels, labels = _from_records(data, target, path)
    else:
        pixels, labels = _from_pickle(data, target, path)
    if pixels.size != len(labels) * PICTURE_BYTES or not len(labels):
        raise DataError(
            f"{path}: {pixels.size} bytes of pixels for {len(labels)} labels, wanted "
            f"{PICTURE_BYTES} for each"
        )
    target.check_labels(labels[: target.limit], str(path))
    images = np.moveaxis(pixels.reshape(-1, 3, 32, 32), 1, -1)
    return target.in_memory("cifar", str(path), images, labels)


def _from_records(data: bytes, target: Target, path: Path) -> tuple[Pixels, Labels]:
    lengths = (PICTURE_BYTES + 1, PICTURE_BYTES + 2)
    fitting = [length for length in lengths if len(data) % length == 0]
    # 3073 pictures of the one are as long as 3074 of the other.
    length = lengths[target.classes in (_COARSE_CLASSES, _FINE_CLASSES)]
    if length not in fitting:
        if not fitting:
            raise DataError(f"{path}: {len(data)} bytes, wanted records of {lengths} bytes")
        length = fitting[0]
    records = np.frombuffer(data, np.uint8).reshape(-1, length)
    fine = length == lengths[1] and target.classes != _COARSE_CLASSES
    return records[:, length - PICTURE_BYTES :], records[:, int(fine)].astype(np.int64)


def _from_pickle(data: bytes, target: Target, path: Path) -> tuple[Pixels, Labels]:
    try:
        content = unpickle(data)
    except ValueError as error:
        raise DataError(
            f"{path}: no file of CIFAR's that can be read: {one_line(error)}"
        ) from error
    fields = (
        {k.decode("latin-1") if isinstance(k, bytes) else k: v for k, v in content.items()}
        if isinstance(content, dict)
        else {}
    )
    names = ["labels", "fine_labels", "coarse_labels"]
    if target.classes == _COARSE_CLASSES:
        names.reverse()
    labels = next((fields[name] for name in names if isinstance(fields.get(name), list)), None)
    pixels = _bytes_of(fields.get("data"))
    if labels is None or pixels is None:
        raise DataError(
            f"{path}: a pickle without CIFAR's 'data' (an array of bytes) and 'labels' (a list)"
        )
    if not all(type(label) is int and 0 <= label < 1 << 31 for label in labels):
        raise DataError(f"{path}: labels are not whole numbers of at least 0")
    return np.frombuffer(pixels, np.uint8), np.array(labels, np.int64)


def _bytes_of(array: Any) -> bytes | None:
    """Return the elements of a pickled array of bytes in C's order, else None."""
    if not isinstance(array, Call):
        return None
    if array.name.endswith(" _reconstruct") and isinstance(array.state, tuple):
        if len(array.state) != 5:
            return None
        _, _, kind, in_columns, content = array.state
    elif array.name.endswith(" _frombuffer") and len(array.arguments) == 4:
        content, kind, _, order = array.arguments
        in_columns = order != "C"
    else:
        return None
    is_bytes = isinstance(kind, Call) and kind.arguments[:1] in (("u1",), ("uint8",))
    if in_columns or not is_bytes:
        return None
    if isinstance(content, str):  # as Python 2 wrote it
        return content.encode("latin-1")
    return bytes(content) if isinstance(content, bytes | bytearray) else None

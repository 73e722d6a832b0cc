"""Labelled pictures in NumPy's ``.npz``.  Nothing is unpickled."""

from __future__ import annotations

import contextlib
import math
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np

from bitinfer import npy, vision
from bitinfer.datasets.base import MAX_IMAGES, Batch, Dataset, Target, read_exactly, reading
from bitinfer.errors import DataError
from bitinfer.files import open_regular


def load_npz(path: Path, target: Target) -> Dataset:
    """Open an ``.npz`` with ``images`` (N, H, W[, C]) uint8 and integer ``labels`` (N,).

    Raises:
        DataError: it is damaged or does not fit the network; while iterating, too.
    """
    with reading(path), open_regular(path) as file, zipfile.ZipFile(file) as archive:
        with _open_array(archive, "labels", path) as (stream, shape, dtype):
            if dtype.kind not in "iu" or len(shape) != 1 or shape[0] > MAX_IMAGES:
                raise DataError(f"{path}: labels are {dtype} {shape}, wanted integers of (N,)")
            total = min(shape[0], target.limit)
            labels = np.frombuffer(read_exactly(stream, total * dtype.itemsize), dtype)
            count = shape[0]
        with _open_array(archive, "images", path) as (_, shape, dtype):
            _check_images(path, shape, dtype, count)
    target.check_labels(labels, str(path))  # as they are: uint64 may be out of int64's range
    wide = labels.astype(np.int64)
    image_shape = shape[1:]
    step = target.batch_for(image_shape)

    def read() -> Iterator[Batch]:
        with (
            reading(path),
            open_regular(path) as file,
            zipfile.ZipFile(file) as archive,
            _open_array(archive, "images", path) as (stream, *_),
        ):
            for start in range(0, total, step):
                n = min(step, total - start)
                data = read_exactly(stream, n * math.prod(image_shape))
                images = np.frombuffer(data, np.uint8).reshape(n, *image_shape)
                yield target.fit(images, str(path)), wide[start : start + n]

    return Dataset("npz", str(path), total, read)


def _check_images(path: Path, shape: tuple[int, ...], dtype: np.dtype[Any], count: int) -> None:
    if dtype != np.uint8 or len(shape) not in (3, 4):
        raise DataError(f"{path}: images are {dtype} {shape}, wanted uint8 of (N, H, W[, C])")
    if 0 in shape:
        raise DataError(f"{path}: images are {shape}: there are none, wanted one at least")
    if len(shape) == 4 and shape[3] not in (1, 3):
        mend = "transpose them" if shape[1] in (1, 3) else "drop the others"
        raise DataError(
            f"{path}: images are {shape}, wanted 1 or 3 channels on the last axis; {mend}"
        )
    if shape[0] != count:
        raise DataError(f"{path}: {shape[0]} images for {count} labels")
    if shape[1] * shape[2] > vision.MAX_PIXELS:
        raise DataError(f"{path}: images are {shape}, at most {vision.MAX_PIXELS} pixels each")


@contextlib.contextmanager
def _open_array(
    archive: zipfile.ZipFile, name: str, path: Path
) -> Iterator[tuple[IO[bytes], tuple[int, ...], np.dtype[Any]]]:
    """Open one array of an .npz behind its header, without reading its content."""
    try:
        info = archive.getinfo(f"{name}.npy")
    except KeyError:
        arrays = any(member.endswith(".npy") for member in archive.namelist())
        mend = "wanted images and labels" if arrays else "unpack it, it is a zip of other files"
        raise DataError(f"{path}: holds no array {name!r}; {mend}") from None
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise DataError(f"{path}: {name!r} is compressed in a way that NumPy does not use")
    with archive.open(info) as stream:
        shape, in_columns, dtype = npy.read_header(stream)
        if in_columns and len(shape) > 1:
            raise DataError(f"{path}: {name!r} is in Fortran order; save it by rows")
        yield stream, shape, dtype

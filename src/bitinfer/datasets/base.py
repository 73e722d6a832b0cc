"""What the readers of labelled pictures share: what pictures must fit, and bounded reading."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import os
import zipfile
import zlib
from collections.abc import Callable, Iterator
from typing import IO, Any, Literal

import numpy as np
from numpy.typing import NDArray

from bitinfer import vision
from bitinfer.errors import DataError, ImageError, ModelFileError
from bitinfer.files import one_line
from bitinfer.model import Preprocessing
from bitinfer.vision import Pixels

MAX_IMAGES = 1 << 24
MAX_BATCH_BYTES = 1 << 26
"""Batches of large pictures become smaller than asked for."""

Labels = NDArray[np.int64]
Batch = tuple[Pixels, Labels]
PathLike = str | os.PathLike[str]

Kind = Literal["idx", "npz", "cifar", "folder"]
ClassRule = Literal["labels", "numbers", "numbers from 1", "order"]
"""How names of folders become classes: they are the model's labels; or the numbers of the classes,
from 0 or from 1; or they stand in the order of the classes, sorted as texts."""

_CHUNK = 1 << 20


@dataclasses.dataclass(frozen=True)
class Dataset:
    """Batches of pictures with their labels; every iteration reads them anew.

    Attributes:
        kind: where they come from.
        path: what was read: the folder or file within what was asked for.
        total: how many pictures an iteration goes through.
        classes: how the folders' names became classes (``folder`` only).
        notes: what whoever wants an accuracy should be told about the classes.
        passed_over: files in the folders that are no pictures.
    """

    kind: Kind
    path: str
    total: int
    _read: Callable[[], Iterator[Batch]] = dataclasses.field(repr=False)
    classes: ClassRule | None = None
    notes: tuple[str, ...] = ()
    passed_over: tuple[str, ...] = ()

    def __iter__(self) -> Iterator[Batch]:
        return self._read()


@dataclasses.dataclass(frozen=True)
class Target:
    """What pictures and labels must fit."""

    preprocessing: Preprocessing
    input_shape: tuple[int, ...]
    labels: tuple[str, ...]
    classes: int
    batch_size: int
    limit: int

    def in_memory(self, kind: Kind, path: str, images: Pixels, labels: Labels) -> Dataset:
        """Return pictures (n, H, W[, C]) that are in memory as a data set; labels (n,)."""
        total = min(len(images), self.limit)
        step = self.batch_for(images.shape[1:])

        def read() -> Iterator[Batch]:
            for start in range(0, total, step):
                stop = min(start + step, total)
                yield self.fit(images[start:stop], path), labels[start:stop]

        return Dataset(kind, path, total, read)

    def fit(self, images: Pixels, name: str) -> Pixels:
        """Bring (n, H, W) or (n, H, W, C) bytes to the network's input."""
        if images.ndim == 3:
            images = images[..., None]
        if vision.keeps_pixels(self.preprocessing, images.shape[1:], self.input_shape):
            return images
        try:
            return np.stack(
                [
                    vision.prepare(
                        vision.from_pixels(image), self.preprocessing, self.input_shape, name=name
                    )
                    for image in images
                ]
            )
        except ImageError as error:
            raise DataError(str(error)) from error

    def check_labels(self, labels: NDArray[np.integer[Any]], name: str) -> None:
        """Raise DataError unless every label is a class of the network."""
        if labels.size and not 0 <= labels.min() <= labels.max() < self.classes:
            raise DataError(
                f"{name}: labels are within {labels.min()} to {labels.max()}, the network's "
                f"{self.classes} classes are 0 to {self.classes - 1}"
            )

    def batch_for(self, shape: tuple[int, ...]) -> int:
        """Return how many pictures of a shape one batch takes."""
        return max(1, min(self.batch_size, MAX_BATCH_BYTES // math.prod(shape)))


def read_exactly(stream: IO[bytes], size: int) -> bytearray:
    """Read ``size`` bytes, growing with what is really there; raises EOFError if it is less."""
    data = bytearray()
    while len(data) < size:
        part = stream.read(min(_CHUNK, size - len(data)))
        if not part:
            raise EOFError(f"ends {size - len(data)} bytes too early")
        data += part
    return data


@contextlib.contextmanager
def reading(path: PathLike) -> Iterator[None]:
    """Turn everything that reading a file may raise into a DataError that names the file."""
    try:
        yield
    except (DataError, ImageError, ModelFileError):
        raise
    except OSError as error:
        raise DataError(f"{path}: {error.strerror or error}") from error
    except (
        EOFError,
        MemoryError,
        NotImplementedError,
        RuntimeError,
        ValueError,
        zipfile.BadZipFile,
        zlib.error,
    ) as error:
        reason = one_line(error, 160) or type(error).__name__
        raise DataError(f"{path}: truncated or damaged data ({reason})") from error

"""Reads labelled pictures to evaluate a network with: MNIST's idx files, .npz, a folder per class.

    for images, labels in datasets.load("data/mnist", model):
        ...                              # uint8 (n, H, W, C) as the network wants it, int64 (n,)

Files come from strangers: nothing is unpickled, sizes are checked against what the headers say,
and a compressed file costs no more memory than the limits below.
"""

from __future__ import annotations

import contextlib
import dataclasses
import gzip
import itertools
import math
import os
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any, Literal, cast

import numpy as np
from numpy.typing import NDArray

from bitinfer import vision
from bitinfer.errors import DataError, ImageError, ModelFileError
from bitinfer.files import open_regular
from bitinfer.model import Model, Preprocessing
from bitinfer.vision import Pixels

MAX_IDX_BYTES = 1 << 30
"""Largest content of an idx file, which is read whole."""
MAX_IMAGES = 1 << 24
MAX_BATCH_BYTES = 1 << 26
"""Batches of large pictures become smaller than asked for."""

Labels = NDArray[np.int64]
Batch = tuple[Pixels, Labels]
PathLike = str | os.PathLike[str]

_CHUNK = 1 << 20
_MNIST_IMAGES = ("images-idx3-ubyte", "images.idx3-ubyte")


@dataclasses.dataclass(frozen=True)
class Dataset:
    """Batches of pictures with their labels; every iteration reads them anew.

    Attributes:
        kind: where they come from.
        total: how many pictures an iteration goes through.
    """

    kind: Literal["idx", "npz", "folder"]
    total: int
    _read: Callable[[], Iterator[Batch]] = dataclasses.field(repr=False)

    def __iter__(self) -> Iterator[Batch]:
        return self._read()


@dataclasses.dataclass(frozen=True)
class _Target:
    """What pictures and labels must fit."""

    preprocessing: Preprocessing
    input_shape: tuple[int, ...]
    labels: tuple[str, ...]
    classes: int
    batch_size: int
    limit: int

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

    def check_labels(self, labels: Labels, name: str) -> None:
        """Raise DataError unless every label is a class of the network."""
        if labels.size and not 0 <= labels.min() <= labels.max() < self.classes:
            raise DataError(
                f"{name}: labels are within {labels.min()} to {labels.max()}, the network's "
                f"{self.classes} classes are 0 to {self.classes - 1}"
            )

    def batch_for(self, shape: tuple[int, ...]) -> int:
        """Return how many pictures of a shape one batch takes."""
        return max(1, min(self.batch_size, MAX_BATCH_BYTES // math.prod(shape)))


def load(
    path: PathLike,
    model: Model,
    *,
    batch_size: int = 32,
    limit: int | None = None,
    on_error: Callable[[ImageError], None] | None = None,
) -> Dataset:
    """Open evaluation data for ``model``; what it is shows from its content.

    * a directory that holds MNIST's ``t10k-images-idx3-ubyte[.gz]``, or an idx images file with
      the labels file beside it;
    * an ``.npz`` with ``images`` (N, H, W) or (N, H, W, C) uint8 and integer ``labels`` (N,);
    * a directory with one folder of pictures per class, in the order of the classes or with their
      labels as names.  The classes take turns, so that ``limit`` keeps them balanced.

    Pictures in folders that cannot be read are passed to ``on_error`` and left out.

    Raises:
        DataError: the data cannot be read or do not fit the network; while iterating, too.
        ImageError: a picture cannot be read, and there is no ``on_error``.
        ModelFileError: the model does not say how a picture becomes its input.
    """
    if model.preprocessing is None:
        raise ModelFileError(vision.describe_lack(model.graph.input.shape))
    target = _Target(
        preprocessing=model.preprocessing,
        input_shape=model.graph.input.shape,
        labels=model.labels,
        classes=math.prod(model.checked.values[model.graph.outputs[0]].shape),
        batch_size=batch_size,
        limit=MAX_IMAGES if limit is None else limit,
    )
    path = Path(path)
    if not path.is_dir():
        with _reading(path), open_regular(path) as file:
            is_zip = file.read(4) == b"PK\3\4"
        return _load_npz(path, target) if is_zip else _load_idx(path, target)
    if images := _find_mnist(path, "t10k"):
        return _load_idx(images, target)
    return _load_folders(path, target, on_error)


def read_idx(path: PathLike) -> Pixels:
    """Read an idx file of bytes, compressed by gzip or not (yann.lecun.com/exdb/mnist).

    Raises:
        DataError: the file cannot be read, or its size is not what its header says.
    """
    with _reading(path), open_regular(path) as file:
        compressed = file.read(2) == b"\x1f\x8b"
        file.seek(0)
        stream = cast(IO[bytes], gzip.GzipFile(fileobj=file)) if compressed else file
        magic = stream.read(4)
        if len(magic) != 4 or magic[:3] != b"\0\0\x08" or not 1 <= magic[3] <= 4:
            raise DataError(
                f"{path}: starts with {magic.hex(' ')}, wanted an idx file of bytes "
                "(00 00 08 and 1 to 4 axes), an .npz, or a directory"
            )
        sizes = _read_exactly(stream, 4 * magic[3])
        shape = tuple(int.from_bytes(sizes[i : i + 4], "big") for i in range(0, len(sizes), 4))
        wanted = math.prod(shape)
        if wanted > MAX_IDX_BYTES:
            raise DataError(
                f"{path}: the header speaks of {shape}, at most {MAX_IDX_BYTES} bytes are read"
            )
        data = _read_exactly(stream, wanted)
        if stream.read(1):
            raise DataError(f"{path}: goes on after the {wanted} bytes that its header speaks of")
    return np.frombuffer(data, np.uint8).reshape(shape)


def _load_idx(path: Path, target: _Target) -> Dataset:
    labels_path = _labels_beside(path)
    images = read_idx(path)
    labels = read_idx(labels_path)
    if images.ndim != 3 or 0 in images.shape or images.shape[0] > MAX_IMAGES:
        raise DataError(f"{path}: holds {images.shape}, wanted images of (N, H, W), N >= 1")
    if labels.shape != images.shape[:1]:
        raise DataError(
            f"{labels_path}: holds {labels.shape}, wanted {images.shape[0]} labels for {path}"
        )
    total = min(len(images), target.limit)
    wide = labels[:total].astype(np.int64)
    target.check_labels(wide, str(labels_path))
    step = target.batch_for(images.shape[1:])

    def read() -> Iterator[Batch]:
        for start in range(0, total, step):
            stop = min(start + step, total)
            yield target.fit(images[start:stop], str(path)), wide[start:stop]

    return Dataset("idx", total, read)


def _find_mnist(folder: Path, prefix: str) -> Path | None:
    for name in _MNIST_IMAGES:
        for suffix in ("", ".gz"):
            path = folder / f"{prefix}-{name}{suffix}"
            if path.is_file():
                return path
    return None


def _labels_beside(images: Path) -> Path:
    stem = images.name.removesuffix(".gz")
    labels = stem.replace("images", "labels").replace("idx3", "idx1")
    if labels != stem:
        for path in (images.with_name(labels), images.with_name(f"{labels}.gz")):
            if path.is_file():
                return path
    raise DataError(
        f"{images}: no labels beside it; wanted {labels if labels != stem else '*-labels-idx1-*'} "
        "or the same with .gz, next to a file named *-images-idx3-*"
    )


def _load_npz(path: Path, target: _Target) -> Dataset:
    with _reading(path), open_regular(path) as file, zipfile.ZipFile(file) as archive:
        with _open_array(archive, "labels", path) as (stream, shape, dtype):
            if dtype.kind not in "iu" or len(shape) != 1 or shape[0] > MAX_IMAGES:
                raise DataError(f"{path}: labels are {dtype} {shape}, wanted integers of (N,)")
            total = min(shape[0], target.limit)
            labels = np.frombuffer(_read_exactly(stream, total * dtype.itemsize), dtype)
            count = shape[0]
        with _open_array(archive, "images", path) as (_, shape, dtype):
            _check_images(path, shape, dtype, count)
    wide = labels.astype(np.int64)
    target.check_labels(wide, str(path))
    image_shape = shape[1:]
    step = target.batch_for(image_shape)

    def read() -> Iterator[Batch]:
        with (
            _reading(path),
            open_regular(path) as file,
            zipfile.ZipFile(file) as archive,
            _open_array(archive, "images", path) as (stream, *_),
        ):
            for start in range(0, total, step):
                n = min(step, total - start)
                data = _read_exactly(stream, n * math.prod(image_shape))
                images = np.frombuffer(data, np.uint8).reshape(n, *image_shape)
                yield target.fit(images, str(path)), wide[start : start + n]

    return Dataset("npz", total, read)


def _check_images(path: Path, shape: tuple[int, ...], dtype: np.dtype[Any], count: int) -> None:
    if dtype != np.uint8 or len(shape) not in (3, 4) or 0 in shape:
        raise DataError(f"{path}: images are {dtype} {shape}, wanted uint8 of (N, H, W[, C])")
    if len(shape) == 4 and shape[3] not in (1, 3):
        raise DataError(
            f"{path}: images are {shape}, wanted 1 or 3 channels on the last axis; transpose them"
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
        raise DataError(f"{path}: holds no array {name!r}, wanted images and labels") from None
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise DataError(f"{path}: {name!r} is compressed in a way that NumPy does not use")
    with archive.open(info) as stream:
        version = np.lib.format.read_magic(stream)
        if version == (1, 0):
            shape, in_columns, dtype = np.lib.format.read_array_header_1_0(stream)
        elif version == (2, 0):
            shape, in_columns, dtype = np.lib.format.read_array_header_2_0(stream)
        else:
            raise DataError(f"{path}: {name!r} is .npy version {version}, wanted 1.0 or 2.0")
        if in_columns and len(shape) > 1:
            raise DataError(f"{path}: {name!r} is in Fortran order; save it by rows")
        yield stream, shape, dtype


def _load_folders(
    path: Path, target: _Target, on_error: Callable[[ImageError], None] | None
) -> Dataset:
    with _reading(path):
        folders = sorted(
            entry.name
            for entry in os.scandir(path)
            if entry.is_dir() and not entry.name.startswith(".")
        )
    if not folders:
        raise DataError(
            f"{path}: wanted MNIST's t10k-images-idx3-ubyte[.gz] or a folder per class in it"
        )
    indices = _class_indices(folders, target, path)
    refuse = None if on_error is None else lambda _, error: on_error(error)
    by_class = (
        [(picture, index) for picture in vision.pictures_in(path / folder, refuse)]
        for folder, index in zip(folders, indices, strict=True)
    )
    # One of each class in turn.
    turns = itertools.zip_longest(*by_class)
    samples = [sample for turn in turns for sample in turn if sample is not None][: target.limit]
    if not samples:
        raise DataError(f"{path}: no picture in its folders ({', '.join(sorted(vision.SUFFIXES))})")
    step = target.batch_for(target.input_shape)

    def read() -> Iterator[Batch]:
        images: list[Pixels] = []
        labels: list[int] = []
        for number, (picture, index) in enumerate(samples, start=1):
            try:
                image = vision.decode(picture)
                images.append(
                    vision.prepare(image, target.preprocessing, target.input_shape, name=picture)
                )
                labels.append(index)
            except ImageError as error:
                if on_error is None:
                    raise
                on_error(error)
            if images and (len(images) == step or number == len(samples)):
                yield np.stack(images), np.array(labels, np.int64)
                images, labels = [], []

    return Dataset("folder", len(samples), read)


def _class_indices(folders: list[str], target: _Target, path: Path) -> list[int]:
    """Return the class of every folder: by the model's labels, by number, or by order."""
    spelled = Counter(_spelling(label) for label in target.labels)
    index = {_spelling(label): i for i, label in enumerate(target.labels)}
    known = [folder for folder in folders if spelled[_spelling(folder)] == 1]
    if len(known) == len(folders):
        return [index[_spelling(folder)] for folder in folders]
    if not known and all(f.isascii() and f.isdecimal() and len(f) < 10 for f in folders):
        numbers = [int(folder) for folder in folders]
        if max(numbers) < target.classes and len(set(numbers)) == len(numbers):
            return numbers
    if not known and len(folders) == target.classes:
        return list(range(len(folders)))
    stranger = next(folder for folder in folders if folder not in known)
    if target.labels:
        raise DataError(
            f"{path}: folder {stranger!r} is not the name of exactly one of the model's "
            f"{target.classes} labels; name the folders as 'bitinfer inspect' shows the labels"
        )
    raise DataError(
        f"{path}: {len(folders)} folders for {target.classes} classes, and the model has no labels "
        "to match them with; name the folders by class number, from 0"
    )


def _spelling(name: str) -> str:
    return name.casefold().replace("_", " ").replace("-", " ").strip()


def _read_exactly(stream: IO[bytes], size: int) -> bytearray:
    """Read ``size`` bytes, growing with what is really there; raises EOFError if it is less."""
    data = bytearray()
    while len(data) < size:
        part = stream.read(min(_CHUNK, size - len(data)))
        if not part:
            raise EOFError(f"ends {size - len(data)} bytes too early")
        data += part
    return data


@contextlib.contextmanager
def _reading(path: PathLike) -> Iterator[None]:
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
        reason = " ".join(str(error).split())[:160] or type(error).__name__
        raise DataError(f"{path}: truncated or damaged data ({reason})") from error

"""MNIST's idx files (yann.lecun.com/exdb/mnist), and those of its successors."""

from __future__ import annotations

import gzip
import math
from pathlib import Path
from typing import IO, cast

import numpy as np

from bitinfer.datasets.base import MAX_IMAGES, Dataset, PathLike, Target, read_exactly, reading
from bitinfer.errors import DataError
from bitinfer.files import open_regular
from bitinfer.vision import Pixels

MAX_IDX_BYTES = 1 << 30
"""Largest content of an idx file, which is read whole."""

_SUCCESSORS = ("MNIST", "FashionMNIST", "KMNIST", "QMNIST", "EMNIST")
"""Names of torchvision's folders."""
_IMAGES = ("images-idx3-ubyte", "images.idx3-ubyte")


def read_idx(path: PathLike) -> Pixels:
    """Read an idx file of bytes, compressed by gzip or not (yann.lecun.com/exdb/mnist).

    Raises:
        DataError: the file cannot be read, or its size is not what its header says.
    """
    with reading(path), open_regular(path) as file:
        compressed = file.read(2) == b"\x1f\x8b"
        file.seek(0)
        stream = cast(IO[bytes], gzip.GzipFile(fileobj=file)) if compressed else file
        magic = stream.read(4)
        if len(magic) != 4 or magic[:3] != b"\0\0\x08" or not 1 <= magic[3] <= 4:
            raise DataError(
                f"{path}: starts with {magic.hex(' ') or 'nothing'}, wanted an idx file of bytes "
                "(00 00 08 and 1 to 4 axes), an .npz, CIFAR's test_batch, or a directory"
            )
        sizes = read_exactly(stream, 4 * magic[3])
        shape = tuple(int.from_bytes(sizes[i : i + 4], "big") for i in range(0, len(sizes), 4))
        wanted = math.prod(shape)
        if wanted > MAX_IDX_BYTES:
            raise DataError(
                f"{path}: the header speaks of {shape}, at most {MAX_IDX_BYTES} bytes are read"
            )
        data = read_exactly(stream, wanted)
        if stream.read(1):
            raise DataError(f"{path}: goes on after the {wanted} bytes that its header speaks of")
    return np.frombuffer(data, np.uint8).reshape(shape)


def load_idx(path: Path, target: Target) -> Dataset:
    """Open a file of images with the file of labels beside it.

    Raises:
        DataError: one of them is missing or damaged, or does not fit the other or the network.
    """
    images = read_idx(path)
    labels_path = _labels_beside(path)
    labels = read_idx(labels_path)
    if images.ndim != 3 or 0 in images.shape or images.shape[0] > MAX_IMAGES:
        raise DataError(f"{path}: holds {images.shape}, wanted images of (N, H, W), N >= 1")
    if labels.shape != images.shape[:1]:
        raise DataError(
            f"{labels_path}: holds {labels.shape}, wanted {images.shape[0]} labels for {path}"
        )
    wide = labels.astype(np.int64)
    target.check_labels(wide[: target.limit], str(labels_path))
    return target.in_memory("idx", str(path), images, wide)


def find_mnist(folder: Path, prefix: str) -> list[Path]:
    """Return the images files of ``prefix`` in a folder, or in ``raw`` where torchvision has them.

    torchvision's root has a folder for each of MNIST and its successors, with ``raw`` in it.
    """
    for inner in ((folder,), (folder / "raw",), sorted(folder.glob("*/raw"))):
        found = [images for place in inner if (images := _images_in(place, prefix))]
        if found:
            return found
    return []


def find_raw(folder: Path) -> Path | None:
    """Return the folder that torchvision made for such files in its root, with none in it."""
    if folder.name in _SUCCESSORS and (folder / "raw").is_dir():
        return folder / "raw"
    places = (folder / name / "raw" for name in _SUCCESSORS)
    return next((place for place in places if place.is_dir()), None)


def _images_in(folder: Path, prefix: str) -> Path | None:
    for name in _IMAGES:
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
    if "labels" in stem and "images" not in stem:
        raise DataError(f"{images}: labels by its name; wanted the file of images beside it")
    raise DataError(
        f"{images}: no labels beside it; wanted {labels if labels != stem else '*-labels-idx1-*'} "
        "or the same with .gz, next to a file named *-images-idx3-*"
    )

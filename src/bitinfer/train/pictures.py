"""Labelled pictures in memory, and CIFAR-10 read from its files."""

from __future__ import annotations

import dataclasses
import lzma
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bitinfer.errors import DataError
from bitinfer.files import read_regular
from bitinfer.zoo.data import LABELS

VALIDATION_IMAGES = 5000
"""Of CIFAR-10's training pictures, the last: never trained on."""

_SIDE = 32
_BYTES = _SIDE * _SIDE * 3
_LARGEST = 60_000
"""Pictures in all of CIFAR-10."""


@dataclasses.dataclass(frozen=True, eq=False)
class Pictures:
    """Some pictures: images (n, h, w) or (n, h, w, c) uint8; labels (n,) uint8."""

    images: NDArray[np.uint8]
    labels: NDArray[np.uint8]

    def __len__(self) -> int:
        return len(self.images)

    def part(self, start: int, stop: int | None) -> Pictures:
        """Return the pictures from ``start`` up to ``stop``."""
        return Pictures(self.images[start:stop], self.labels[start:stop])


def read_cifar10(data: Path) -> tuple[Pictures, Pictures, Pictures]:
    """Read CIFAR-10 under ``data`` as (training, validation, test) pictures, (n, 32, 32, 3) RGB.

    Meaning: ``data`` holds either the files of cifar-10-binary.tar.gz (data_batch_1.bin to 5 and
             test_batch.bin), or train_rgb.u8.xz and train_labels.u8 (pixels of all pictures one
             after the other, and labels), and the same with ``test`` in place of ``train``, or
             with ``test1000`` for the first thousand test pictures.
    Raises:  DataError: files are missing, damaged, or hold something else.
    """
    if (data / "data_batch_1.bin").is_file():
        batches = [_read_batch(data / f"data_batch_{i}.bin") for i in range(1, 6)]
        train = Pictures(
            np.concatenate([b.images for b in batches]), np.concatenate([b.labels for b in batches])
        )
        test = _read_batch(data / "test_batch.bin")
    elif (data / "train_rgb.u8.xz").is_file():
        train = _read_raw(data, "train")
        test = _read_raw(data, "test" if (data / "test_rgb.u8.xz").is_file() else "test1000")
    else:
        raise DataError(
            f"{data}: holds neither data_batch_1.bin nor train_rgb.u8.xz; --data names the "
            "directory of CIFAR-10's binary version"
        )
    if len(train) <= VALIDATION_IMAGES:
        raise DataError(
            f"{data}: {len(train)} training pictures, wanted more than the {VALIDATION_IMAGES} "
            "that are held out for validation"
        )
    split = len(train) - VALIDATION_IMAGES
    return train.part(0, split), train.part(split, None), test


def _read_batch(path: Path) -> Pictures:
    """Read records of a label and 3 x 32 x 32 bytes, colour by colour."""
    content = _read(path, _LARGEST * (_BYTES + 1))
    if not content or len(content) % (_BYTES + 1):
        raise DataError(
            f"{path}: {len(content)} bytes are no whole number of records of {_BYTES + 1}"
        )
    records = np.frombuffer(content, np.uint8).reshape(-1, _BYTES + 1)
    planes = records[:, 1:].reshape(-1, 3, _SIDE, _SIDE)
    return _checked(path, np.ascontiguousarray(planes.transpose(0, 2, 3, 1)), records[:, 0].copy())


def _read_raw(data: Path, name: str) -> Pictures:
    path = data / f"{name}_rgb.u8.xz"
    limit = _LARGEST * _BYTES
    try:
        # No more than the limit is unpacked, whatever the file would grow to.
        content = lzma.LZMADecompressor().decompress(_read(path, limit), limit + 1)
    except (lzma.LZMAError, EOFError) as error:
        raise DataError(f"{path}: damaged: {error}") from None
    if not content or len(content) % _BYTES or len(content) > limit:
        raise DataError(
            f"{path}: {len(content)} bytes are no whole number of 32 x 32 x 3, up to {_LARGEST}"
        )
    images = np.frombuffer(bytearray(content), np.uint8).reshape(-1, _SIDE, _SIDE, 3)
    labels = np.frombuffer(bytearray(_read(data / f"{name}_labels.u8", _LARGEST)), np.uint8)
    return _checked(path, images, labels)


def _checked(path: Path, images: NDArray[np.uint8], labels: NDArray[np.uint8]) -> Pictures:
    classes = len(LABELS["cifar10"])
    if len(labels) != len(images) or labels.max() >= classes:
        raise DataError(
            f"{path}: {len(labels)} labels of {len(images)} pictures, wanted one of 0 to "
            f"{classes - 1} for each"
        )
    return Pictures(images, labels)


def _read(path: Path, limit: int) -> bytes:
    return read_regular(path, limit, error=DataError)

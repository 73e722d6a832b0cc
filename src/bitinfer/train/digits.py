"""MNIST's digits, read from its files."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from bitinfer import datasets
from bitinfer.errors import DataError
from bitinfer.train.pictures import Pictures
from bitinfer.zoo.data import LABELS

SIDE = 28
VALIDATION_IMAGES = 5_000
"""How many images at the end of the training set are never trained on."""


def read_digits(data: Path) -> tuple[Pictures, Pictures, Pictures]:
    """Read the four MNIST files under ``data`` as (training, validation, test) digits.

    Raises:
        DataError: a file is missing, damaged, or does not hold MNIST's shapes.
    """
    train, test = _read_pair(data, "train"), _read_pair(data, "t10k")
    if len(train) <= VALIDATION_IMAGES:
        raise DataError(
            f"{data}: {len(train)} training images, wanted more than the {VALIDATION_IMAGES} "
            "that are held out for validation"
        )
    split = len(train) - VALIDATION_IMAGES
    return (
        Pictures(train.images[:split], train.labels[:split]),
        Pictures(train.images[split:], train.labels[split:]),
        test,
    )


def _read_pair(data: Path, prefix: str) -> Pictures:
    images = datasets.read_idx(_find(data, f"{prefix}-images-idx3-ubyte"))
    labels = datasets.read_idx(_find(data, f"{prefix}-labels-idx1-ubyte"))
    if images.dtype != np.uint8 or images.shape[1:] != (SIDE, SIDE):
        raise DataError(
            f"{data}: the {prefix} images are {images.dtype} of shape {images.shape}, "
            f"wanted uint8 (n, {SIDE}, {SIDE})"
        )
    if labels.dtype != np.uint8 or labels.shape != images.shape[:1]:
        raise DataError(
            f"{data}: the {prefix} labels are {labels.dtype} of shape {labels.shape}, "
            f"wanted uint8 ({len(images)},)"
        )
    if len(labels) == 0 or labels.max() >= len(LABELS["mnist"]):
        raise DataError(f"{data}: the {prefix} labels are empty or not all within 0 to 9")
    # PyTorch wants arrays that it may write to.
    return Pictures(np.array(images), np.array(labels))


def _find(data: Path, name: str) -> Path:
    # Unpacked copies often bear a dot before idx.
    for stem in (name, name.replace("-idx", ".idx")):
        for candidate in (data / f"{stem}.gz", data / stem):
            if candidate.is_file():
                return candidate
    raise DataError(f"{data}: holds neither {name}.gz nor {name}; --data names MNIST's directory")

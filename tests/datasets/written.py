"""Writes small data sets, and reads them again."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path
from typing import Any

import numpy as np

from bitinfer import datasets
from helpers import encode, solid


def idx(array: np.ndarray, *, kind: int = 8) -> bytes:
    sizes = struct.pack(f">{array.ndim}I", *array.shape)
    return bytes((0, 0, kind, array.ndim)) + sizes + array.astype(np.uint8).tobytes()


def mnist(folder: Path, *, count: int = 5, suffix: str = "", prefix: str = "t10k") -> Path:
    pixels = np.arange(count * 8 * 8).reshape(count, 8, 8) % 251
    labels = np.arange(count) % 3
    wrap = gzip.compress if suffix else bytes
    images = folder / f"{prefix}-images-idx3-ubyte{suffix}"
    images.write_bytes(wrap(idx(pixels)))
    (folder / f"{prefix}-labels-idx1-ubyte{suffix}").write_bytes(wrap(idx(labels)))
    return images


def npz(path: Path, **arrays: Any) -> Path:
    np.savez_compressed(path, **arrays)
    return path


def read(data: datasets.Dataset) -> tuple[np.ndarray, list[int]]:
    batches = list(data)
    return np.concatenate([b[0] for b in batches]), np.concatenate([b[1] for b in batches]).tolist()


def folders(root: Path, names: dict[str, str], *, count: int = 2) -> Path:
    """Write ``count`` pictures of a colour into each folder of {folder: colour}."""
    for folder, colour in names.items():
        (root / folder).mkdir(parents=True)
        for i in range(count):
            (root / folder / f"{i}.png").write_bytes(encode(solid(colour)))
    return root

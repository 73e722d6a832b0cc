"""Mean images: what Caffe subtracts from every pixel, pixel by pixel."""

from __future__ import annotations

import io
import os

import numpy as np
from numpy.typing import NDArray

from bitinfer import npy
from bitinfer.errors import InputError
from bitinfer.files import read_regular
from bitinfer.model import Preprocessing
from bitinfer.vision.preparing import centre

MAX_BYTES = 1 << 26

_Image = NDArray[np.float32]


def read_mean_image(
    path: str | os.PathLike[str], preprocessing: Preprocessing, input_shape: tuple[int, ...]
) -> _Image:
    """Return the mean image in a file, as float32 (H, W, C) of the input's size.

    Meaning: the file is NumPy's ``.npy`` with (H, W), (H, W, C), (C, H, W) or either of these
             behind an axis of 1, or Caffe's ``.binaryproto`` (BlobProto of caffe.proto).  Values
             are in the units of pixels, 0 to 255, and channels in the order of ``color``.
             An image of the size that pictures are resized to is cropped as they are.
    Raises:  InputError if it cannot be read or has another size.
    """
    where = os.fsdecode(path)
    data = read_regular(path, MAX_BYTES, error=InputError, what="mean images")
    try:
        values = (
            npy.read_numbers(io.BytesIO(data), MAX_BYTES)
            if data.startswith(b"\x93NUMPY")
            else _from_blob(data)
        )
    except (ValueError, EOFError, IndexError, OverflowError, MemoryError) as error:
        raise InputError(
            f"{where}: no mean image that can be read ({error}); wanted an array of numbers as "
            ".npy, or Caffe's .binaryproto"
        ) from error
    image = _as_map(values, input_shape[2])
    if image is None:
        raise InputError(
            f"{where}: a mean image of shape {values.shape}, wanted (H, W, {input_shape[2]}) or "
            f"({input_shape[2]}, H, W)"
        )
    resize = preprocessing.resize
    resized = (resize, resize) if isinstance(resize, int) else resize
    if image.shape[:2] != input_shape[:2]:
        if image.shape[:2] != resized:
            sizes = [f"{h}x{w}" for h, w in (input_shape[:2], resized or input_shape[:2])]
            raise InputError(
                f"{where}: a mean image of {image.shape[0]}x{image.shape[1]}, wanted "
                f"{' or '.join(dict.fromkeys(sizes))} (height x width)"
            )
        top, left = (
            centre(have, want) for have, want in zip(image.shape[:2], input_shape[:2], strict=True)
        )
        image = image[top : top + input_shape[0], left : left + input_shape[1]]
    if not (image.min() >= 0 and image.max() <= 255):  # nor is NaN
        raise InputError(f"{where}: the mean image is not within 0 to 255, as pixels are")
    return np.ascontiguousarray(image, np.float32)


def _as_map(values: NDArray[np.float64], channels: int) -> NDArray[np.float64] | None:
    """Return the values as (H, W, C), or None."""
    if values.ndim == 4 and values.shape[0] == 1:
        values = values[0]
    if values.ndim == 2 and channels == 1:
        values = values[..., None]
    if values.ndim != 3 or 0 in values.shape:
        return None
    if values.shape[2] == channels:
        return values
    return np.moveaxis(values, 0, -1) if values.shape[0] == channels else None


def _from_blob(data: bytes) -> NDArray[np.float64]:
    """Read a BlobProto: num, channels, height, width are fields 1 to 4, data is field 5."""
    sizes = [1, 1, 1, 1]
    parts: list[bytes] = []
    at = 0
    while at < len(data):
        key, at = _varint(data, at)
        field, kind = key >> 3, key & 7
        if kind == 0:
            value, at = _varint(data, at)
            if 1 <= field <= 4:
                sizes[field - 1] = value
            continue
        length = {1: 8, 5: 4}.get(kind)
        if length is None:
            if kind != 2:
                raise ValueError("no protocol buffer")
            length, at = _varint(data, at)
        if at + length > len(data):
            raise ValueError("cut short")
        if field == 5 and kind in (2, 5):
            parts.append(data[at : at + length])
        at += length
    joined = b"".join(parts)
    if len(joined) % 4 or not joined:
        raise ValueError("no Caffe blob")
    with np.errstate(invalid="ignore"):
        values = np.frombuffer(joined, "<f4").astype(np.float64)
    if values.size != np.prod([float(size) for size in sizes]):
        raise ValueError(f"{values.size} numbers for a blob of {sizes}")
    return values.reshape(sizes)


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """Return the number at a place, and the place behind it."""
    value = 0
    for shift in range(0, 64, 7):
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise ValueError("no protocol buffer")

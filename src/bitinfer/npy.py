"""Reads the header of NumPy's ``.npy`` (numpy.lib.format), and nothing that it does not need.

NumPy's own reader parses the header as Python, with errors and warnings of Python's tokenizer.
"""

from __future__ import annotations

import re
from typing import IO

import numpy as np
from numpy.typing import NDArray

MAX_HEADER_BYTES = 1 << 16

_MAGIC = b"\x93NUMPY"
_LENGTH_BYTES = {1: 2, 2: 4, 3: 4}
"""By major version."""
# The types of plain arrays that NumPy writes: of other letters, some are read with a warning.
_HEADER = re.compile(
    rb"\{'descr': ?'([<>|=]?[biufcSUO]\d{0,3})', ?'fortran_order': ?(True|False), "
    rb"?'shape': ?\(((?:\d{1,18}L?,? ?){0,32})\),? ?\}\s*"
)

Header = tuple[tuple[int, ...], bool, "np.dtype[np.generic]"]


def read_header(stream: IO[bytes]) -> Header:
    """Return shape, whether the array is in Fortran's order, and its type; leave the elements.

    Raises:
        ValueError: no such header, or one of an array with fields.
        EOFError: it is cut short.
    """
    start = _read(stream, 8)
    if not start.startswith(_MAGIC) or start[6] not in _LENGTH_BYTES:
        raise ValueError("no .npy of version 1 to 3")
    length = int.from_bytes(_read(stream, _LENGTH_BYTES[start[6]]), "little")
    if length > MAX_HEADER_BYTES:
        raise ValueError(f"a header of {length} bytes")
    match = _HEADER.fullmatch(_read(stream, length))
    if match is None:
        raise ValueError("a header that describes no plain array")
    shape = tuple(int(text) for text in re.findall(rb"\d+", match[3]))
    try:
        dtype = np.dtype(match[1].decode())
    except TypeError as error:
        raise ValueError(f"elements of the type {match[1].decode()}") from error
    return shape, match[2] == b"True", dtype


def read_numbers(stream: IO[bytes], limit: int) -> NDArray[np.float64]:
    """Return an array of at most ``limit`` real numbers.

    Raises:
        ValueError, EOFError: as :func:`read_header`, or it holds something else, or more.
    """
    shape, in_columns, dtype = read_header(stream)
    count = 1
    for extent in shape:
        count *= extent
    if dtype.kind not in "fiu" or count > limit:
        raise ValueError(f"an array {dtype}{shape}")
    values = np.frombuffer(_read(stream, count * dtype.itemsize), dtype)
    with np.errstate(all="ignore"):
        return values.astype(np.float64).reshape(shape, order="F" if in_columns else "C")


def _read(stream: IO[bytes], size: int) -> bytes:
    data = stream.read(size)
    if len(data) != size:
        raise EOFError(f"ends {size - len(data)} bytes too early")
    return data

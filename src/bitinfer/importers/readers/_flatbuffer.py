"""FlatBuffers and FlexBuffers as tables of numbers, every access within the bytes that are there.

Source: google/flatbuffers, docs/source/Internals.md and FlexBuffers.md.
"""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bitinfer.errors import CheckpointError

MAX_TABLES = 1 << 20


class Table:
    """A table: fields by their position in the schema, each with a default where it is missing."""

    def __init__(self, data: bytes, at: int) -> None:
        self._data = data
        self._at = at
        start = at - _number(data, "<i", at)
        self._start = start
        self._size = _number(data, "<H", start)

    @classmethod
    def root(cls, data: bytes) -> Table:
        """Return the table that a buffer begins with."""
        return cls(data, _number(data, "<I", 0))

    def _field(self, index: int) -> int | None:
        offset = 4 + 2 * index
        if offset + 2 > self._size:
            return None
        found = _number(self._data, "<H", self._start + offset)
        return self._at + found if found else None

    def number(self, index: int, kind: str, default: float = 0) -> Any:
        """Return a number of the struct type ``kind``."""
        at = self._field(index)
        return default if at is None else _number(self._data, f"<{kind}", at)

    def _pointed(self, index: int) -> int | None:
        at = self._field(index)
        return None if at is None else at + int(_number(self._data, "<I", at))

    def table(self, index: int) -> Table | None:
        """Return a table."""
        at = self._pointed(index)
        return None if at is None else Table(self._data, at)

    def tables(self, index: int) -> list[Table]:
        """Return a vector of tables."""
        at = self._pointed(index)
        if at is None:
            return []
        count = _number(self._data, "<I", at)
        if count > min(MAX_TABLES, len(self._data) // 4):
            raise CheckpointError(f"{count} tables in {len(self._data)} bytes")
        places = (at + 4 + 4 * i for i in range(count))
        return [Table(self._data, place + _number(self._data, "<I", place)) for place in places]

    def array(self, index: int, dtype: str) -> NDArray[Any] | None:
        """Return a vector of numbers; None where it is missing."""
        at = self._pointed(index)
        if at is None:
            return None
        count = _number(self._data, "<I", at)
        if at + 4 + count * np.dtype(dtype).itemsize > len(self._data):
            raise CheckpointError(f"a vector of {count} numbers at {at} of {len(self._data)} bytes")
        return np.frombuffer(self._data, dtype, count, at + 4)

    def integers(self, index: int) -> tuple[int, ...]:
        """Return a vector of 32-bit whole numbers."""
        array = self.array(index, "<i4")
        return () if array is None else tuple(int(n) for n in array)

    def text(self, index: int) -> str:
        """Return a string; empty where it is missing."""
        array = self.array(index, "u1")
        return "" if array is None else array.tobytes().decode("utf-8", "replace")


def flexible_map(data: bytes) -> dict[str, int]:
    """Return the whole numbers and truth values of a FlexBuffer whose root is a map."""
    if len(data) < 3:
        raise CheckpointError("options of under three bytes")
    packed, width = data[-2], data[-1]
    if packed >> 2 != _MAP:
        raise CheckpointError("options that are no map")
    place = len(data) - 2 - width
    at = place - _unsigned(data, place, width)
    width = 1 << (packed & 3)
    count = _unsigned(data, at - width, width)
    place = at - 3 * width
    keys = place - _unsigned(data, place, width)
    key_width = _unsigned(data, at - 2 * width, width)
    result: dict[str, int] = {}
    if count > len(data):
        raise CheckpointError(f"{count} options in {len(data)} bytes")
    for i in range(count):
        place = keys + i * key_width
        begin = place - _unsigned(data, place, key_width)
        if not 0 <= begin < len(data):
            raise CheckpointError("an option whose name is outside")
        name = data[begin : data.find(b"\0", begin)].decode("utf-8", "replace")
        kind = _unsigned(data, at + count * width + i, 1) >> 2
        value = _unsigned(data, at + i * width, width)
        if kind == _INT and value >> (8 * width - 1):
            value -= 1 << (8 * width)
        if kind in (_INT, _UINT, _BOOL):
            result[name] = value
    return result


_INT, _UINT, _MAP, _BOOL = 1, 2, 9, 26


def _unsigned(data: bytes, at: int, width: int) -> int:
    if width not in (1, 2, 4, 8) or not 0 <= at <= len(data) - width:
        raise CheckpointError(f"a number of {width} bytes at {at} of {len(data)}")
    return int.from_bytes(data[at : at + width], "little")


def _number(data: bytes, kind: str, at: int) -> Any:
    if not 0 <= at <= len(data) - struct.calcsize(kind):
        raise CheckpointError(f"points to {at} of {len(data)} bytes")
    return struct.unpack_from(kind, data, at)[0]

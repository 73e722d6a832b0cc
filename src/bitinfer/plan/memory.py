"""Places buffers in one arena: two buffers share bytes only if they never live at the same time."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

ALIGNMENT = 64
"""Bytes: a cache line, and the widest vector register."""


@dataclasses.dataclass(frozen=True)
class Request:
    """Bytes that are wanted from step ``first`` to step ``last``, both included."""

    size: int
    first: int
    last: int


def place(requests: Sequence[Request]) -> tuple[list[int], int]:
    """Return the offset of every request and the size of the arena, in bytes.

    Largest first, each at the lowest offset where it overlaps no request that is alive with it
    (greedy by size: Pisarchyk and Lee 2020, "Efficient memory management for deep neural net
    inference", section 5.2).
    """
    offsets = [0] * len(requests)
    placed: list[int] = []
    total = 0
    for index in sorted(range(len(requests)), key=lambda i: (-requests[i].size, i)):
        request = requests[index]
        if request.size == 0:
            continue
        size = _aligned(request.size)
        rivals = sorted(
            (offsets[i], _aligned(requests[i].size))
            for i in placed
            if requests[i].first <= request.last and request.first <= requests[i].last
        )
        offset = 0
        for start, length in rivals:
            if offset + size <= start:
                break
            offset = max(offset, start + length)
        offsets[index] = offset
        placed.append(index)
        total = max(total, offset + size)
    return offsets, total


def _aligned(size: int) -> int:
    return -(-size // ALIGNMENT) * ALIGNMENT

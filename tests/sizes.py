"""Sizes at which vector code goes wrong."""

from __future__ import annotations

CHANNELS = (1, 3, 20, 63, 64, 65, 96, 127, 128, 129, 500)
"""Below, at and above one and two words; common in networks; a multiple of nothing."""

OUTPUTS = (1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 33, 65, 97, 129, 193)
"""Below, at and above the blocks of outputs that kernels work on, and where other kernels begin."""


def simd_sizes(limit: int) -> list[int]:
    """Return the powers of two, once, twice and thrice, each -1, +0 and +1, up to ``limit``."""
    sizes = {
        (1 << power) * times + offset
        for power in range(limit.bit_length())
        for times in (1, 2, 3)
        for offset in (-1, 0, 1)
    }
    return sorted(size for size in sizes if 1 <= size <= limit)

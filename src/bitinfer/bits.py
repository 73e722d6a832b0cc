"""The bit convention: how signs become words, written here once.

* A *sign* is -1 or +1.  Bit 1 means negative: ``x < 0``.  Zero, -0.0 and NaN are not negative: +1.
* Signs are packed along the last axis (channels, of NHWC) into uint64 words.
  Sign ``i`` is bit ``i % 64`` of word ``i // 64``; the words are little-endian in files.
* Bits past the end of the axis are 0 in every operand, so that XOR never counts them:

      dot(a, b) = K - 2 * popcount(a XOR b)          K = number of signs, not of bits

* The maximum of signs is the AND of their bits.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bitinfer.errors import ShapeError

WORD_BITS = 64

Words = NDArray[np.uint64]
Floats = NDArray[np.float32]


def words_for(length: int) -> int:
    """Return how many words hold ``length`` signs."""
    return -(-length // WORD_BITS)


@dataclasses.dataclass(frozen=True, eq=False)
class BitTensor:
    """Signs packed along the last axis.

    Attributes:
        words: uint64, shape ``(..., words_for(length))``, bits past ``length`` are 0.
        length: number of signs along the last axis.

    Raises:
        ShapeError: ``words`` is not uint64, has another number of words, or a stray bit is set.
    """

    words: Words
    length: int

    def __post_init__(self) -> None:
        if self.words.dtype != np.uint64:
            raise ShapeError(f"BitTensor: words are {self.words.dtype}, wanted uint64")
        if self.length < 1 or self.words.ndim < 1 or self.words.shape[-1] != words_for(self.length):
            raise ShapeError(
                f"BitTensor: words of shape {self.words.shape} cannot hold {self.length} signs "
                f"along the last axis, which takes {words_for(max(self.length, 0))} words"
            )
        if has_stray_bits(self.words, self.length):
            raise ShapeError(
                f"BitTensor: bits past the {self.length} signs are set; they must be 0"
            )

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape counted in signs."""
        return (*self.words.shape[:-1], self.length)

    def unpack(self) -> Floats:
        """Return the signs as float32 -1.0 and +1.0, shape :attr:`shape`."""
        return unpack(self.words, self.length)


def pack(x: NDArray[Any]) -> BitTensor:
    """Pack the signs of ``x`` along its last axis.

    Shapes:  x (..., K), any real dtype  ->  BitTensor of words (..., ceil(K / 64)).
    Meaning: bit 1 where ``x < 0``; 0, -0.0 and NaN give bit 0 (+1).
    Raises:  ShapeError if ``x`` has no axis, an empty last axis or complex values.
    """
    x = np.asarray(x)
    if x.ndim == 0 or x.shape[-1] == 0:
        raise ShapeError(f"pack: x has shape {x.shape}, wanted at least one sign on the last axis")
    if x.dtype.kind not in "biuf":
        raise ShapeError(f"pack: x is {x.dtype}, wanted real numbers")
    length = x.shape[-1]
    octets = np.packbits(x < 0, axis=-1, bitorder="little")
    padded = np.zeros((*x.shape[:-1], words_for(length) * 8), np.uint8)
    padded[..., : octets.shape[-1]] = octets
    return BitTensor(padded.view("<u8").astype(np.uint64, copy=False), length)


def unpack(words: Words, length: int) -> Floats:
    """Return the signs of ``words`` as float32 -1.0 and +1.0.

    Shapes:  words (..., ceil(length / 64)) uint64  ->  (..., length).
    """
    octets = np.ascontiguousarray(words).astype("<u8", copy=False).view(np.uint8)
    bits = np.unpackbits(octets, axis=-1, count=length, bitorder="little")
    return np.float32(1) - np.float32(2) * bits.astype(np.float32)


def has_stray_bits(words: Words, length: int) -> bool:
    """Tell whether a bit past ``length`` is set in the last word of any row."""
    used = length % WORD_BITS
    if used == 0:
        return False
    return bool(np.any(words[..., -1] >> np.uint64(used)))

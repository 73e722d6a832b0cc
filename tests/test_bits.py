"""bits.py against the bit convention spelled out sign by sign."""

from __future__ import annotations

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import bitinfer
import oracle
from bitinfer import bits
from bitinfer.errors import ShapeError
from sizes import simd_sizes

reals = hnp.arrays(
    st.sampled_from([np.float32, np.float64, np.float16, np.int8, np.int64, np.uint8, np.bool_]),
    hnp.array_shapes(min_dims=1, max_dims=3, max_side=140),
)


@pytest.mark.parametrize("length", simd_sizes(200))
def test_sign_i_is_bit_i_mod_64_of_word_i_div_64(length: int, rng: np.random.Generator) -> None:
    x = rng.standard_normal((2, 3, length))
    packed = bits.pack(x)
    assert packed.words.dtype == np.uint64
    assert np.array_equal(packed.words, oracle.bits_of(x))
    assert packed.shape == x.shape
    assert np.array_equal(packed.unpack(), oracle.signs(x))
    assert packed.unpack().dtype == np.float32


@hypothesis.given(reals)
@hypothesis.settings(max_examples=40)
def test_packing_and_unpacking_gives_the_signs_of_any_real_array(x: np.ndarray) -> None:
    packed = bitinfer.pack(x)
    assert np.array_equal(bitinfer.unpack(packed.words, packed.length), oracle.signs(x))
    assert not bits.has_stray_bits(packed.words, packed.length)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_zero_minus_zero_and_nan_are_plus_one_but_minus_infinity_is_not(dtype: type) -> None:
    tiny = -np.finfo(dtype).smallest_subnormal
    x = np.array([0.0, -0.0, np.nan, -np.nan, np.inf, -np.inf, tiny, -tiny], dtype)
    assert bits.pack(x).unpack().tolist() == [1, 1, 1, 1, 1, -1, -1, 1]


def test_unsigned_numbers_and_booleans_are_never_negative() -> None:
    for dtype in (np.uint8, np.uint64, np.bool_):
        assert bits.pack(np.array([0, 1], dtype)).words.tolist() == [0]


def test_a_view_with_strides_packs_as_its_copy_does(rng: np.random.Generator) -> None:
    x = rng.standard_normal((70, 9))[::-1, ::2].T
    assert np.array_equal(bits.pack(x).words, bits.pack(x.copy()).words)
    words = bits.pack(rng.standard_normal((4, 6, 200))).words[::2, ::-3]
    assert np.array_equal(bits.unpack(words, 200), bits.unpack(words.copy(), 200))


def test_words_for_counts_whole_words() -> None:
    assert [bits.words_for(n) for n in (0, 1, 63, 64, 65, 128, 129)] == [0, 1, 1, 1, 2, 2, 3]


@pytest.mark.parametrize(
    "x", [np.float32(1), np.zeros((3, 0)), np.zeros(3, complex), np.array(["a"]), np.array([None])]
)
def test_what_has_no_signs_cannot_be_packed(x: object) -> None:
    with pytest.raises(ShapeError, match=r"^pack: x "):
        bits.pack(x)


def test_arrays_with_an_empty_leading_axis_have_no_words() -> None:
    packed = bits.pack(np.zeros((0, 70)))
    assert packed.words.shape == (0, 2)
    assert packed.unpack().shape == (0, 70)


@pytest.mark.parametrize(
    ("words", "length", "message"),
    [
        (np.zeros(1, np.int64), 64, "int64, wanted uint64"),
        (np.zeros((2, 2), np.uint64), 64, "takes 1 words"),
        (np.zeros((2, 1), np.uint64), 65, "takes 2 words"),
        (np.zeros(1, np.uint64), 0, "cannot hold 0 signs"),
        (np.zeros(1, np.uint64), -1, "cannot hold -1 signs"),
        (np.uint64(0), 1, "cannot hold 1 signs"),
        (np.array([1 << 63], np.uint64), 63, "bits past the 63 signs"),
        (np.array([[0, 2], [0, 0]], np.uint64), 65, "bits past the 65 signs"),
    ],
)
def test_words_that_do_not_hold_the_signs_are_refused(
    words: np.ndarray, length: int, message: str
) -> None:
    with pytest.raises(ShapeError, match=message):
        bitinfer.BitTensor(words, length)


@pytest.mark.parametrize("length", [1, 63, 64, 65, 127, 128])
def test_every_stray_bit_is_seen(length: int) -> None:
    for bit in range(64):
        words = np.zeros((2, bits.words_for(length)), np.uint64)
        words[1, -1] = np.uint64(1) << np.uint64(bit)
        is_stray = (words.shape[1] - 1) * 64 + bit >= length
        assert bits.has_stray_bits(words, length) == is_stray


def test_dot_is_k_minus_twice_the_mismatches(rng: np.random.Generator) -> None:
    for length in (1, 3, 64, 65, 500):
        a, b = rng.standard_normal((2, length))
        mismatches = sum(int(word).bit_count() for word in bits.pack(a).words ^ bits.pack(b).words)
        assert length - 2 * mismatches == oracle.signs(a) @ oracle.signs(b)

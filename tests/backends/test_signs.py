"""Steps whose result is packed signs: packing, max-pool, flattening; compared word for word."""

from __future__ import annotations

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

import oracle
from bitinfer.backends import Backend, select
from bitinfer.plan import Buffer, Window, steps
from harness import known_backends, run_step
from sizes import CHANNELS, simd_sizes
from strategies import extents, pairs, seeds

SPECIAL = np.array([0.0, -0.0, np.nan, -np.nan, np.inf, -np.inf, 1e-45, -1e-45, 1, -1], np.float32)


def pack(backend: Backend, x: np.ndarray) -> np.ndarray:
    step = steps.PackSigns(name="pack", source=0, target=1)
    return run_step(backend, step, Buffer("float", x.shape), Buffer("bits", x.shape), x)


@pytest.mark.parametrize("channels", simd_sizes(300))
def test_packing_sets_the_bit_of_every_negative_number_and_no_other(
    backend: Backend, channels: int, rng: np.random.Generator
) -> None:
    for shape in ((channels,), (1, 1, channels), (3, 2, channels)):
        x = rng.standard_normal(shape, np.float32)
        assert np.array_equal(pack(backend, x), oracle.bits_of(x))


@pytest.mark.parametrize("channels", CHANNELS)
def test_rows_of_one_sign_pack_to_words_of_one_bit_value(backend: Backend, channels: int) -> None:
    for value, bit in ((-1, 1), (1, 0)):
        words = pack(backend, np.full((2, channels, 1), value, np.float32).reshape(2, 1, channels))
        assert oracle.signs_of(words, channels).tolist() == [[[1 - 2 * bit] * channels]] * 2
        assert np.array_equal(words, oracle.bits_of(np.full((2, 1, channels), value)))


def test_packing_calls_nothing_negative_but_what_is_less_than_zero(backend: Backend) -> None:
    for shift in range(8):
        x = np.tile(np.roll(SPECIAL, shift), 20)
        assert np.array_equal(pack(backend, x), oracle.bits_of(x))


@hypothesis.given(extents, st.integers(1, 140), pairs, pairs, st.integers(0, 80), seeds)
def test_the_maximum_of_signs_is_plus_one_where_any_tap_in_the_map_is(
    extent: tuple[int, int],
    channels: int,
    kernel: tuple[int, int],
    stride: tuple[int, int],
    padding_seed: int,
    seed: int,
) -> None:
    rng = np.random.default_rng(seed)
    kernel = (min(kernel[0], extent[0]), min(kernel[1], extent[1]))
    padding = tuple((padding_seed // (i + 1)) % kernel[i // 2] for i in range(4))
    signs = oracle.signs(rng.standard_normal((*extent, channels)) + 1)
    out = oracle.window_shape(extent, kernel, stride, padding)
    step = steps.MaxPool2d(name="p", source=0, target=1, window=Window(kernel, stride, padding))
    wanted = oracle.bits_of(oracle.pool2d(signs, "max", kernel, stride, padding))
    for name, reason in known_backends():
        if reason:
            continue
        words = run_step(
            select(name),
            step,
            Buffer("bits", signs.shape),
            Buffer("bits", (*out, channels)),
            oracle.bits_of(signs),
        )
        assert np.array_equal(words, wanted)


@pytest.mark.parametrize("channels", CHANNELS)
@pytest.mark.parametrize("order", ["channels_first", "channels_last"])
def test_flattened_signs_are_packed_anew(
    backend: Backend, order: str, channels: int, rng: np.random.Generator
) -> None:
    for shape in ((1, 1, channels), (3, 2, channels), (channels,)):
        signs = oracle.signs(rng.standard_normal(shape))
        step = steps.Flatten(name="f", source=0, target=1, channels_first=order == "channels_first")
        source, target = Buffer("bits", shape), Buffer("bits", (signs.size,))
        words = run_step(backend, step, source, target, oracle.bits_of(signs))
        assert np.array_equal(words, oracle.bits_of(oracle.flatten(signs, order)))

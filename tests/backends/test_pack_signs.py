"""Packing of floats, pixels and int8 to signs, against a threshold per channel."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from bitinfer import bits
from bitinfer.backends import Backend
from bitinfer.graph import GraphBuilder
from bitinfer.model import Model
from bitinfer.plan import Buffer, Plan, steps
from bitinfer.session import Session

CHANNELS = [1, 3, 7, 8, 9, 20, 31, 32, 33, 63, 64, 65, 96, 127, 128, 130, 200]
DTYPES: dict[Any, Any] = {"float": np.float32, "pixels": np.uint8, "int8": np.int8}


def pack(backend: Backend, kind: Any, x: NDArray[Any], threshold: Any) -> NDArray[np.uint64]:
    plan = Plan(
        (Buffer(kind, x.shape), Buffer("bits", x.shape)),
        (steps.PackSigns(name="pack", source=0, target=1, threshold=threshold),),
        0,
        (1,),
        ("pack",),
    )
    result = np.full((1, *x.shape[:-1], bits.words_for(x.shape[-1])), 2**64 - 1, np.uint64)
    backend.bind(plan).run(np.ascontiguousarray(x[None]), [result])
    return result[0]


@pytest.mark.parametrize("has_threshold", [False, True])
@pytest.mark.parametrize("kind", ["float", "pixels", "int8"])
@pytest.mark.parametrize("channels", CHANNELS)
def test_bit_is_set_below_the_threshold(
    backend: Backend, channels: int, kind: Any, has_threshold: bool, rng: np.random.Generator
) -> None:
    low, high = {"float": (-9, 9), "pixels": (0, 256), "int8": (-128, 128)}[kind]
    x = rng.integers(low, high, (3, 2, channels)).astype(DTYPES[kind])
    threshold = None
    if has_threshold:
        threshold = (rng.integers(2 * low, 2 * high, channels) / 2).astype(np.float32)
    # The comparison, one number at a time, as Python integers and floats.
    limits = [0.0] * channels if threshold is None else [float(t) for t in threshold]
    expected = np.zeros((3, 2, bits.words_for(channels)), np.uint64)
    for place in np.ndindex(x.shape):
        if float(x[place]) < limits[place[-1]]:
            word = (*place[:-1], place[-1] // 64)
            expected[word] |= np.uint64(1 << (place[-1] % 64))
    assert np.array_equal(pack(backend, kind, x, threshold), expected)


def test_zeros_and_nan_are_not_negative(backend: Backend) -> None:
    specials = [0.0, -0.0, np.nan, -np.nan, np.inf, -np.inf, 1e-45, -1e-45]
    x = np.tile(np.array(specials, np.float32), 25).reshape(1, 1, 200)
    assert np.signbit(x[0, 0, 1])
    packed = pack(backend, "float", x, None)
    wanted = np.tile([0, 0, 0, 0, 0, 1, 0, 1], 25)
    unpacked = (packed.reshape(-1)[:, None] >> np.arange(64, dtype=np.uint64)) & np.uint64(1)
    assert np.array_equal(unpacked.reshape(-1)[:200], wanted)


@pytest.mark.parametrize("channels", [1, 7, 8, 16, 24, 31, 33, 64, 71, 130])
@pytest.mark.parametrize("threads", [1, 2])
def test_no_number_is_overlooked_where_signs_are_taken_at_once(
    channels: int, threads: int, backend_name: str
) -> None:
    b = GraphBuilder("g", (3, 2, channels))
    b.bconv2d(b.sign(b.input), np.ones((2, 1, 1, channels), np.int8), name="y")
    session = Session(Model(*b.build("y")), backend_name, threads)
    x = np.resize(np.array([3.4e38, -3.4e38, 1e-45, 0.0, -0.0], np.float32), (2, 3, 2, channels))
    assert np.isfinite(session.run(x)).all()
    for channel in range(channels):
        for pixel, value in (((0, 0), np.nan), ((1, 1), np.inf), ((2, 1), -np.inf)):
            x[(0, *pixel, channel)], kept = value, x[(0, *pixel, channel)]
            assert np.isnan(session.run(x[0])).all()
            if channel in (0, channels - 1):
                assert [np.isnan(y).all() for y in session.run(x)] == [True, False]
            x[(0, *pixel, channel)] = kept


def test_channels_that_no_sign_is_taken_of_are_looked_at_too(backend_name: str) -> None:
    b = GraphBuilder("g", (2, 2, 48))
    part = b.sign(b.slice_channels(b.input, 16, 48))
    b.bconv2d(part, np.ones((2, 1, 1, 32), np.int8), name="y")
    session = Session(Model(*b.build("y")), backend_name)
    x = np.ones((2, 2, 48), np.float32)
    assert np.isfinite(session.run(x)).all()
    x[1, 1, 3] = np.inf
    assert np.isnan(session.run(x)).all()

"""The reader of safetensors: equal to the package's own, and typed errors for anything else."""

from __future__ import annotations

import json
import random
from typing import Any

import numpy as np
import pytest
import safetensors.numpy

from bitinfer.errors import CheckpointError
from bitinfer.importers.readers._unpickle import Inert
from bitinfer.importers.readers.safetensors import from_bytes

TYPES = ["f8", "f4", "f2", "i8", "i4", "i2", "i1", "u8", "u4", "u2", "u1", "?"]


def sample() -> dict[str, Any]:
    rng = np.random.default_rng(0)
    found: dict[str, Any] = {f"t.{t}": rng.integers(0, 2, (2, 3)).astype(t) for t in TYPES}
    return {**found, "scalar": np.asarray(1.5, np.float32), "none": np.zeros((0, 3), np.float32)}


def file(header: Any, body: bytes = b"") -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + body


def entry(dtype: str, shape: Any, begin: Any, end: Any) -> dict[str, Any]:
    return {"w": {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}}


def test_reads_what_the_package_writes() -> None:
    wanted = sample()
    found = from_bytes(safetensors.numpy.save(wanted, {"format": "pt"}))
    assert set(found) == set(wanted)
    for name, array in wanted.items():
        np.testing.assert_array_equal(found[name], array)
        assert found[name].dtype == array.dtype


def test_bfloat16_is_widened() -> None:
    body = np.array([1.5, -2.0], np.float32).view(np.uint32) >> 16
    found = from_bytes(file(entry("BF16", [2], 0, 4), body.astype("<u2").tobytes()))
    np.testing.assert_array_equal(found["w"], np.array([1.5, -2.0], np.float32))


def test_other_types_are_inert() -> None:
    found = from_bytes(file(entry("F8_E4M3", [4], 0, 4), bytes(4)))
    assert isinstance(found["w"], Inert)
    assert found["w"].name == "a tensor of F8_E4M3"


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{}",
        file({})[:9],
        file(b"{"),
        file(b'{"a": 1}'),
        file(b"\xff\xfe{}"),
        file(entry("F32", [2], 0, 4), bytes(8)),
        file(entry("F32", [2], 0, 8), bytes(7)),
        file(entry("F32", [2], -8, 0), bytes(8)),
        file(entry("F32", [-2, -1], 0, 8), bytes(8)),
        file(entry("F32", [1 << 62, 1 << 62], 0, 8), bytes(8)),
        file(entry("F32", [0, 1 << 63], 0, 0)),
        file(entry("F32", [1] * 40, 0, 4), bytes(4)),
        file(entry("F32", "ab", 0, 4), bytes(4)),
        file(b'{"a":' + b"[" * 100_000),
        file({**entry("U8", [4], 0, 4), "v": entry("U8", [4], 2, 6)["w"]}, bytes(6)),
    ],
)
def test_damaged_file_is_refused(data: bytes) -> None:
    with pytest.raises(CheckpointError) as caught:
        from_bytes(data)
    assert str(caught.value).isprintable()


def test_every_changed_byte_loads_or_raises() -> None:
    data = safetensors.numpy.save({"a.weight": np.ones((2, 2), np.float32)})
    rng = random.Random(0)
    for position in range(len(data)):
        for byte in (0, 0xFF, data[position] ^ 1, rng.randrange(256)):
            try:
                from_bytes(data[:position] + bytes([byte]) + data[position + 1 :])
            except CheckpointError as error:
                assert str(error).isprintable()  # noqa: PT017 - any other error fails the test
        try:
            from_bytes(data[:position])
        except CheckpointError:
            continue
        raise AssertionError(f"{position} of {len(data)} bytes were read")

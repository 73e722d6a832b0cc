"""npy.py: it reads what NumPy writes, and refuses everything else quietly."""

from __future__ import annotations

import contextlib
import io
import string
import warnings

import numpy as np
import pytest

from bitinfer import npy


def saved(array: np.ndarray, version: tuple[int, int] | None = None) -> bytes:
    file = io.BytesIO()
    np.lib.format.write_array(file, array, version=version)
    return file.getvalue()


@pytest.mark.parametrize("dtype", ["u1", "i1", "<i4", ">i8", "f2", "<f4", ">f8"])
@pytest.mark.parametrize("shape", [(), (3,), (0, 2), (2, 3, 4), (1,) * 20])
@pytest.mark.parametrize("version", [(1, 0), (2, 0), (3, 0)])
@pytest.mark.parametrize("order", ["C", "F"])
def test_what_numpy_writes_is_read(
    dtype: str, shape: tuple[int, ...], version: tuple[int, int], order: str
) -> None:
    count = int(np.prod(shape))
    array = np.asarray(np.arange(count).reshape(shape).astype(dtype), order=order)  # type: ignore[call-overload]
    data = saved(array, version)
    file = io.BytesIO(data)
    found, in_columns, kind = npy.read_header(file)
    assert (found, kind) == (shape, array.dtype)
    assert in_columns == (np.isfortran(array))
    assert len(data) - file.tell() == array.nbytes
    assert np.array_equal(npy.read_numbers(io.BytesIO(data), 1000), array)


def test_shapes_of_python_2_are_read() -> None:
    text = b"{'descr': '<f4', 'fortran_order': False, 'shape': (2L, 3L), }      \n"
    data = b"\x93NUMPY\x01\0" + len(text).to_bytes(2, "little") + text
    assert npy.read_header(io.BytesIO(data)) == ((2, 3), False, np.dtype("<f4"))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x93NUMPY",
        b"\x93NUMPY\x09\0" + bytes(99),
        b"\x93NUMPY\x02\0\xff\xff\xff\xff",
        saved(np.zeros(3))[:-1],
        saved(np.zeros(3, [("a", "f4")])),
        saved(np.zeros(3, complex)),
        saved(np.array(["text"])),
        saved(np.zeros(1001)),
        saved(np.zeros(3)).replace(b"<f8", b"<f9"),
        saved(np.zeros(3)).replace(b"(3,)", b"((((("),
        saved(np.zeros(3)).replace(b"(3,)", b"(-3)"),
    ],
)
def test_everything_else_is_a_value_or_eof_error(data: bytes) -> None:
    with pytest.raises((ValueError, EOFError)):
        npy.read_numbers(io.BytesIO(data), 1000)


@pytest.mark.parametrize("letter", string.ascii_letters)
def test_types_are_read_or_refused_without_a_warning(letter: str) -> None:
    for name in (f"<{letter}8", f"|{letter}", f"{letter}1"):
        text = f"{{'descr': '{name}', 'fortran_order': False, 'shape': (3,), }}\n".encode()
        data = b"\x93NUMPY\x01\0" + len(text).to_bytes(2, "little") + text
        with warnings.catch_warnings(), contextlib.suppress(ValueError):
            warnings.simplefilter("error")
            npy.read_header(io.BytesIO(data))


def test_damaged_headers_are_refused_quietly() -> None:
    good = bytearray(saved(np.ones((2, 3), np.float32)))
    rng = np.random.default_rng(0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(5000):
            data = good.copy()
            for _ in range(rng.integers(1, 4)):
                data[rng.integers(len(data) - 24)] = rng.integers(256)
            try:
                npy.read_numbers(io.BytesIO(data), 1000)
            except (ValueError, EOFError):
                continue

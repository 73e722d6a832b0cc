"""Writes the record of a step into the C struct that kernels read."""

from __future__ import annotations

import functools
import operator
from collections.abc import Sequence
from typing import Any

import numpy as np

from bitinfer.backends.native import load_library
from bitinfer.backends.native.records import Array, Record

_native = load_library()
_ffi, _lib = _native.ffi, _native.lib

FIELDS: dict[str, str] = {name: f.type.cname for name, f in _ffi.typeof("bi_step").fields}
"""The fields of a ``bi_step``, in their order, and their C types."""

STEP_BYTES: int = _ffi.sizeof("bi_step")


def new_step() -> Any:
    """Return a ``bi_step *`` to a struct whose fields are all 0."""
    return _ffi.new("bi_step *")


def write(struct: Any, record: Record) -> Sequence[Any]:
    """Write a record into a ``bi_step``; return what must live as long as the struct is used.

    Kernel, weight of a layer, scratch and places of buffers are left as they are.
    """
    kept: list[Any] = []
    for name, number in record.numbers.items():
        setattr(struct, name, number)
    for name, constants in record.constants.items():
        setattr(struct, name, functools.reduce(operator.or_, map(_constant, constants)))
    for name, array in record.arrays.items():
        array = np.ascontiguousarray(array)
        kept.append(array)
        setattr(struct, name, pointer_to(FIELDS[name], array))
    return kept


def pointer_to(ctype: str, array: Array) -> Any:
    """Return a C pointer to the elements of a contiguous array, which its caller keeps alive."""
    return _ffi.cast(ctype, _ffi.from_buffer(array.reshape(-1)))


def _constant(name: str) -> int:
    value: int = getattr(_lib, name)
    return value

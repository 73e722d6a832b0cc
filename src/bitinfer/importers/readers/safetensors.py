"""Reads safetensors files: named tensors behind a JSON header, without anything to run.

The header is checked here, since the package ``safetensors`` copies what it is given in native code
that aborts where there is no memory.  Format: huggingface/safetensors, README.md, "Format".
"""

from __future__ import annotations

import itertools
import math
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from bitinfer.errors import CheckpointError
from bitinfer.files import one_line
from bitinfer.importers.readers._unpickle import Inert, quoted

MAX_HEADER_BYTES = 100_000_000
"""As the package has it."""
MAX_TENSORS = 1 << 17
MAX_AXES = 32

_DTYPES = {
    "F64": "<f8",
    "F32": "<f4",
    "F16": "<f2",
    "BF16": "<u2",
    "I64": "<i8",
    "I32": "<i4",
    "I16": "<i2",
    "I8": "<i1",
    "U64": "<u8",
    "U32": "<u4",
    "U16": "<u2",
    "U8": "<u1",
    "BOOL": "<u1",
}
"""Types of elements that NumPy can hold; tensors of others become inert tags."""


class _Tensor(msgspec.Struct):
    dtype: str
    shape: tuple[int, ...]
    data_offsets: tuple[int, int]


def from_bytes(data: bytes) -> dict[str, Any]:
    """Return the tensors by name as arrays; bfloat16 is widened to float32.

    Cost:    memory for twice ``data``.
    Raises:  CheckpointError if this is no safetensors file, or a damaged one.
    """
    length = int.from_bytes(data[:8], "little")
    start = 8 + length
    if len(data) < 10 or data[8:9] != b"{" or start > len(data) or length > MAX_HEADER_BYTES:
        raise CheckpointError("this is no safetensors file, or a truncated one")
    try:
        header = msgspec.json.decode(data[8:start], type=dict[str, msgspec.Raw])
        notes = msgspec.json.decode(header.pop("__metadata__", b"{}"), type=dict[str, str])
        if "bitinfer" in notes:
            raise CheckpointError("this is a model file of bitinfer, no state dict")
        if len(header) > MAX_TENSORS:
            raise CheckpointError(f"{len(header)} tensors, at most {MAX_TENSORS}")
        tensors = {k: msgspec.json.decode(v, type=_Tensor) for k, v in header.items()}
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise CheckpointError(f"the header of the safetensors file: {one_line(error)}") from error
    ends = sorted(tensor.data_offsets for tensor in tensors.values())
    if any(begin < end for (_, end), (begin, _) in itertools.pairwise(ends)):
        raise CheckpointError("tensors of the safetensors file overlap")
    body = memoryview(data)[start:]
    return {name: _array(name, tensor, body) for name, tensor in tensors.items()}


def _array(name: str, tensor: _Tensor, body: memoryview) -> NDArray[Any] | Inert:
    begin, end = tensor.data_offsets
    if not 0 <= begin <= end <= len(body):
        raise CheckpointError(f"{quoted(name)} lies from byte {begin} to {end} of {len(body)}")
    if tensor.dtype not in _DTYPES:
        return Inert(f"a tensor of {one_line(tensor.dtype, 20)}")
    dtype = np.dtype(_DTYPES[tensor.dtype])
    is_shape = len(tensor.shape) <= MAX_AXES and all(n >= 0 for n in tensor.shape)
    if not is_shape or math.prod(tensor.shape) * dtype.itemsize != end - begin:
        raise CheckpointError(
            f"{quoted(name)} has {end - begin} bytes, wanted {one_line(tensor.dtype, 20)} of shape "
            f"{one_line(tensor.shape, 80)}"
        )
    try:
        raw = np.frombuffer(body[begin:end], dtype).reshape(tensor.shape)
    except ValueError as error:  # an axis of 0 beside one that is too large
        raise CheckpointError(f"{quoted(name)}: {error}") from error
    if tensor.dtype == "BF16":
        return (raw.astype(np.uint32) << np.uint32(16)).view(np.float32)
    return raw != 0 if tensor.dtype == "BOOL" else raw.astype(dtype.newbyteorder("="))

"""Reads what ``torch.save`` wrote, without torch and without executing anything from the file.

Two containers, told apart by their first bytes:

    zip       (torch >= 1.6)  members NAME/data.pkl and NAME/data/KEY, one per storage; stored, not
              compressed; NAME/byteorder says ``little`` or ``big``
    stream    (older, and ``_use_new_zipfile_serialization=False``)  pickles of a magic number, a
              protocol version, facts on the machine, the object, and the keys of the storages;
              then for each key a u64 little-endian number of elements and the elements

Any bytes either load or raise CheckpointError.  Time and memory are bounded by the size of the
file: opcodes, members, values and the bytes of all tensors are counted against limits, and every
storage must have exactly the size that the pickle claims.

Source: torch/serialization.py (_legacy_save, _save), caffe2/serialize/inline_container.cc.
"""

from __future__ import annotations

import io
import math
import os
import re
import struct
import zipfile
import zlib
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from bitinfer.errors import CheckpointError
from bitinfer.files import read_regular
from bitinfer.importers.readers._unpickle import (
    MAX_PICKLE_BYTES,
    MAX_STEPS,
    Global,
    Inert,
    NumpyRef,
    StorageRef,
    TensorRef,
    quoted,
    unpickle,
)

MAX_FILE_BYTES = 1 << 32
MAX_MEMBERS = 1 << 18
MAX_DEPTH = 64

_ZIP_START = b"PK\x03\x04"
_ZIP_ENTRY = b"PK\x01\x02"
_LOCAL_HEADER = struct.Struct("<4s22x2H")
_STREAM_MAGIC = 0x1950A86A20F9469CFC6C
_STREAM_VERSION = 1001

# torch's class -> type of the elements in the file, little-endian.
_DTYPES = {
    "DoubleStorage": "<f8",
    "FloatStorage": "<f4",
    "HalfStorage": "<f2",
    "BFloat16Storage": "<u2",
    "LongStorage": "<i8",
    "IntStorage": "<i4",
    "ShortStorage": "<i2",
    "CharStorage": "<i1",
    "ByteStorage": "<u1",
    "BoolStorage": "<u1",
}

# torch's other classes, which no weight here has: bytes of an element.
_SKIPPED = {
    "ComplexDoubleStorage": 16,
    "ComplexFloatStorage": 8,
    "ComplexHalfStorage": 4,
    "QInt32Storage": 4,
    "QInt8Storage": 1,
    "QUInt8Storage": 1,
    "QUInt4x2Storage": 1,
    "QUInt2x4Storage": 1,
    "UntypedStorage": 1,
}


def read_checkpoint(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read the checkpoint at ``path`` as nested dicts, lists and tuples with NumPy arrays.

    Meaning: see :func:`from_bytes`.
    Raises:  CheckpointError if the file cannot be read or is not a checkpoint of torch.
    """
    data = read_file(path)
    try:
        return from_bytes(data)
    except CheckpointError as error:
        raise CheckpointError(f"{os.fspath(path)}: {error}") from error.__cause__


def read_file(path: str | os.PathLike[str]) -> bytes:
    """Return the bytes of the regular file at ``path``, or raise CheckpointError."""
    return read_regular(path, MAX_FILE_BYTES, error=CheckpointError, what="checkpoints")


def from_bytes(data: bytes) -> dict[str, Any]:
    """Return the checkpoint in ``data`` as nested dicts, lists and tuples with NumPy arrays.

    Meaning: tensors and NumPy arrays become contiguous arrays in native byte order, bfloat16
             widened to float32; parameters become their tensor, OrderedDict becomes dict.  What
             would need code to run (optimisers, NumPy scalars, argparse.Namespace) and tensors of
             other types (complex, quantized, sparse) become inert tags.  Dict entries whose key is
             not text are left out.  A list or tuple of dicts becomes a dict, with its indices as
             keys.
    Cost:    memory for at most 4 times ``data`` beside it, and for MAX_STEPS small values.
    Raises:  CheckpointError for anything else, in time proportional to ``data``.
    """
    try:
        if data.startswith(_ZIP_START):
            root, container = _open_zip(data)
        else:
            root, container = _open_stream(data)
        result = _Resolver(container).resolve(root)
    except RecursionError as error:
        raise CheckpointError("the values are nested too deeply") from error
    except MemoryError as error:
        raise CheckpointError("the checkpoint takes more memory than this machine has") from error
    if isinstance(result, Global | Inert):
        raise CheckpointError(
            f"holds one {quoted(result.name)}, wanted a dict of tensors; "
            "save model.state_dict() instead of the model"
        )
    if isinstance(result, list | tuple) and any(isinstance(value, dict) for value in result):
        result = {str(index): value for index, value in enumerate(result)}
    if not isinstance(result, dict):
        what = "tensor" if isinstance(result, np.ndarray) else type(result).__name__
        raise CheckpointError(f"holds one {what}, wanted a dict of tensors")
    return result


class _Container:
    """The storages of one file: where each lies in ``data``, in bytes (start, end)."""

    def __init__(
        self, data: bytes, spans: Mapping[str, tuple[int, int]], *, is_big_endian: bool
    ) -> None:
        self.data = data
        self.spans = spans
        self.is_big_endian = is_big_endian

    def dtype(self, kind: str) -> np.dtype[Any]:
        """Return the type of the elements of torch's storage class ``kind``, as in the file."""
        if kind not in _DTYPES:
            raise CheckpointError(
                f"a storage has the class {quoted(kind)}, which is none of {', '.join(_DTYPES)}"
            )
        code = _DTYPES[kind]
        return np.dtype(code.replace("<", ">") if self.is_big_endian else code)

    def itemsize(self, kind: str) -> int:
        """Return the bytes of an element of a storage class, one whose tensors are not read too."""
        return _SKIPPED[kind] if kind in _SKIPPED else self.dtype(kind).itemsize

    def span(self, storage: StorageRef) -> tuple[int, int]:
        """Return where the elements of ``storage`` lie, once their size is what it should be."""
        if storage.key not in self.spans:
            raise CheckpointError(f"storage {quoted(storage.key)} is not in the file")
        begin, end = self.spans[storage.key]
        itemsize = self.dtype(storage.kind).itemsize
        if end - begin != storage.numel * itemsize:
            raise CheckpointError(
                f"storage {quoted(storage.key)} has {end - begin} bytes, wanted "
                f"{storage.numel} x {itemsize}"
            )
        return begin + storage.start * itemsize, begin + (storage.start + storage.count) * itemsize


def _open_zip(data: bytes) -> tuple[Any, _Container]:
    # zipfile makes an object of every entry before it can be asked how many there are.
    if data.count(_ZIP_ENTRY) > MAX_MEMBERS:
        raise CheckpointError(f"the zip archive has more than {MAX_MEMBERS} members")
    try:
        members = zipfile.ZipFile(io.BytesIO(data)).infolist()
    except Exception as error:  # zipfile lets its struct, codec and index errors through
        raise CheckpointError(f"damaged zip archive: {quoted(error)}") from error
    spans: dict[str, tuple[int, int]] = {}
    total = 0
    for member in members:
        if member.filename in spans:
            raise CheckpointError(f"member {quoted(member.filename)} stands twice in the archive")
        spans[member.filename] = begin, end = _member_span(data, member)
        total += end - begin
        if total > len(data):
            raise CheckpointError("the members of the archive overlap")
    roots = [n for n in spans if n.count("/") == 1 and n.endswith("/data.pkl")]
    if len(roots) != 1:
        raise CheckpointError(
            f"a zip archive with {len(roots)} members called NAME/data.pkl, wanted 1: "
            "not a checkpoint of torch"
        )
    prefix = roots[0].removesuffix("data.pkl")
    begin, end = spans[roots[0]]
    if end - begin > MAX_PICKLE_BYTES:
        raise CheckpointError(f"data.pkl has {end - begin} bytes, at most {MAX_PICKLE_BYTES}")
    root = unpickle(data[begin:end]).value
    begin, end = spans.get(prefix + "byteorder", (0, 0))
    order = data[begin : min(end, begin + 16)] or b"little"
    if order not in (b"little", b"big"):
        raise CheckpointError(f"byteorder is {order!r}, wanted little or big")
    start = prefix + "data/"
    storages = {n.removeprefix(start): span for n, span in spans.items() if n.startswith(start)}
    return root, _Container(data, storages, is_big_endian=order == b"big")


def _member_span(data: bytes, member: zipfile.ZipInfo) -> tuple[int, int]:
    """Return where the bytes of a stored member lie in the archive."""
    where = f"member {quoted(member.filename)}"
    parts = member.filename.split("/")
    if member.filename.startswith("/") or ".." in parts or "\\" in member.filename:
        raise CheckpointError(f"{where}: the name leads out of the archive")
    if member.flag_bits & 0x2061:
        raise CheckpointError(f"{where}: is encrypted or a patch; torch writes neither")
    if member.compress_type != zipfile.ZIP_STORED or member.compress_size != member.file_size:
        raise CheckpointError(
            f"{where}: is compressed, which torch never does: packed again? use the original file"
        )
    header = data[member.header_offset : member.header_offset + _LOCAL_HEADER.size]
    if member.header_offset < 0 or len(header) < _LOCAL_HEADER.size:
        raise CheckpointError(f"{where}: begins outside the file")
    magic, name_length, extra_length = _LOCAL_HEADER.unpack(header)
    begin = member.header_offset + _LOCAL_HEADER.size + name_length + extra_length
    end = begin + member.file_size
    if magic != _ZIP_START or end > len(data):
        raise CheckpointError(f"{where}: is truncated")
    if zlib.crc32(memoryview(data)[begin:end]) != member.CRC:
        raise CheckpointError(f"{where}: the checksum does not match: the file is damaged")
    return begin, end


def _open_stream(data: bytes) -> tuple[Any, _Container]:
    try:
        magic = unpickle(data)
    except CheckpointError:
        magic = None
    if magic is None or type(magic.value) is not int or magic.value != _STREAM_MAGIC:
        raise CheckpointError("not a checkpoint of torch: neither its zip nor its stream format")
    version = unpickle(data, magic.end)
    if type(version.value) is not int or version.value != _STREAM_VERSION:
        raise CheckpointError(f"the version of the stream is not {_STREAM_VERSION}")
    writer = unpickle(data, version.end)
    if not isinstance(writer.value, dict) or writer.value.get("little_endian") is not True:
        raise CheckpointError("the stream was not written by a little-endian machine")
    root = unpickle(data, writer.end)
    keys = unpickle(data, root.end)
    if not isinstance(keys.value, list) or not all(isinstance(k, str) for k in keys.value):
        raise CheckpointError("the keys of the storages are not a list of texts")
    spans: dict[str, tuple[int, int]] = {}
    container = _Container(data, spans, is_big_endian=False)
    position = keys.end
    for key in keys.value:
        if key in spans or key not in root.storages:
            raise CheckpointError(f"storage {quoted(key)} stands twice or belongs to no tensor")
        begin = position + 8
        itemsize = container.itemsize(root.storages[key].kind)
        position = begin + int.from_bytes(data[position:begin], "little") * itemsize
        if position > len(data):
            raise CheckpointError(
                f"truncated: storage {quoted(key)} ends at byte {position} of {len(data)}"
            )
        spans[key] = begin, position
    if position != len(data):
        raise CheckpointError(f"{len(data) - position} bytes follow the last storage")
    return root.value, container


class _Resolver:
    """Turns the value of a pickle into a tree of its own, with an array for every tensor."""

    def __init__(self, container: _Container) -> None:
        self.container = container
        self.arrays: dict[int, NDArray[Any] | Inert] = {}
        # Shared parts are copied wherever they stand, so a small pickle can describe a large tree.
        self.values_left = min(MAX_STEPS, len(container.data))
        self.bytes_left = 4 * len(container.data) + (1 << 20)

    def resolve(self, value: Any, depth: int = 0) -> Any:
        self.values_left -= 1
        if self.values_left < 0 or depth > MAX_DEPTH:
            raise CheckpointError(
                f"the values are nested over {MAX_DEPTH} deep, or repeat one another too often"
            )
        match value:
            case dict():
                return {k: self.resolve(v, depth + 1) for k, v in value.items()}
            case list():
                return [self.resolve(v, depth + 1) for v in value]
            case tuple():
                return tuple(self.resolve(v, depth + 1) for v in value)
            case TensorRef() if value.storage.kind not in _DTYPES:
                return Inert(f"torch.{value.storage.kind}")
            case TensorRef():
                if id(value) not in self.arrays:
                    self.arrays[id(value)] = self.read(value)
                return self.arrays[id(value)]
            case NumpyRef():
                if id(value) not in self.arrays:
                    self.arrays[id(value)] = self.read_numpy(value)
                return self.arrays[id(value)]
            case StorageRef():
                return Inert(f"torch.{value.kind}")
            case _:
                return value

    def read_numpy(self, value: NumpyRef) -> NDArray[Any] | Inert:
        """Return a copy of a NumPy array in native byte order; a tag, if it holds no numbers."""
        kind = None if value.type is None else value.type.code
        if kind is None or not re.fullmatch("[<>|=]?(f[248]|[iu][1248]|b1)", kind):
            return Inert("numpy.ndarray")
        dtype = np.dtype(kind)
        size = dtype.itemsize * math.prod(value.shape)
        self.bytes_left -= dtype.itemsize * math.prod(max(n, 1) for n in value.shape)
        if size != len(value.data) or self.bytes_left < 0:
            raise CheckpointError(
                f"a NumPy array of shape {value.shape} has {len(value.data)} bytes, wanted {size}"
            )
        order: Literal["F", "C"] = "F" if value.is_fortran else "C"
        flat = np.frombuffer(value.data, dtype)
        return flat.reshape(value.shape, order=order).astype(dtype.newbyteorder("="), order="C")

    def read(self, tensor: TensorRef) -> NDArray[Any]:
        """Return a contiguous copy of ``tensor`` in native byte order."""
        kind = tensor.storage.kind
        dtype = self.container.dtype(kind)
        begin, end = self.container.span(tensor.storage)
        if 0 not in tensor.size:
            last = tensor.offset + sum(
                (n - 1) * s for n, s in zip(tensor.size, tensor.stride, strict=True)
            )
            if last >= tensor.storage.count:
                raise CheckpointError(
                    f"a tensor of shape {tensor.size} reaches element {last} of a storage of "
                    f"{tensor.storage.count}"
                )
        # Twice: bfloat16 becomes float32.  An axis of 0 counts as 1, for NumPy's own limit.
        self.bytes_left -= 2 * dtype.itemsize * math.prod(max(n, 1) for n in tensor.size)
        if self.bytes_left < 0:
            raise CheckpointError("the tensors take over 4 times as many bytes as the whole file")
        if 0 in tensor.size:
            raw = np.zeros(tensor.size, dtype.newbyteorder("="))
        else:
            raw = np.ndarray(
                tensor.size,
                dtype,
                memoryview(self.container.data)[begin:end],
                tensor.offset * dtype.itemsize,
                # The stride of a single element is never used, and may be any number.
                tuple(
                    s * dtype.itemsize if n > 1 else 0
                    for n, s in zip(tensor.size, tensor.stride, strict=True)
                ),
            ).astype(dtype.newbyteorder("="), order="C")
        if kind == "BFloat16Storage":
            return (raw.astype(np.uint32) << np.uint32(16)).view(np.float32)
        return raw != 0 if kind == "BoolStorage" else raw

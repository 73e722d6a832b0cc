"""Bytes to models and back: ``model.bin``, a safetensors file with one metadata key, ``bitinfer``.

Layout, from byte 0 (docs/file-format.md has the details):

    u64 little-endian          length of the header
    header                     JSON: {"__metadata__": {"bitinfer": TEXT}, tensor name: {...}, ...}
    tensor bytes               without gaps, to the end of the file

TEXT is one JSON object: sha256, format_version, graph, labels, preprocessing, provenance.  The
first field is the SHA-256 of the whole file with these 64 digits replaced by zeros.

The checksum finds accidents.  It is no defence against an attacker, who recomputes it: every bound
is checked without it, so any bytes either load or raise ModelFileError, and loading takes memory in
proportion to the file.  The file is read, not mapped: a mapped file that is cut short kills the
process.

The tensors are taken out of the file here: the safetensors package copies them in native code that
panics where memory runs out, which no caller can handle.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from typing import Any

import msgspec
import numpy as np
import safetensors.numpy
from numpy.typing import NDArray

from bitinfer.errors import GraphError, ModelFileError, ShapeError
from bitinfer.files import one_line, read_source, write_atomically
from bitinfer.graph.nodes import Graph
from bitinfer.model import Model, Preprocessing, Provenance

FORMAT_VERSION = 1

MAX_FILE_BYTES = 1 << 31
MAX_HEADER_BYTES = 1 << 24
MAX_HEADER_VALUES = 1 << 20
"""Commas and brackets in the header: a parsed value takes up to 40 times the bytes of its text."""
MAX_TENSORS = 1 << 16
MAX_RANK = 8

_DTYPES = {"F32": "<f4", "U64": "<u8", "I16": "<i2", "I8": "<i1", "U8": "<u1"}
TENSOR_TYPES = tuple(_DTYPES)

_SPARE_BYTES = 1 << 20

_LEFT_OUT: dict[str, dict[str, Any]] = {
    "input": {"kind": "float"},
    "conv2d": {"alpha": None, "offset": None, "epilogue": None},
    "dense": {"alpha": None, "epilogue": None},
    "bconv2d": {"epilogue": None},
    "bdense": {"epilogue": None},
    "sign": {"threshold": None, "flip": None},
    "max_pool2d": {"minimum": None},
    "preprocessing": {"ground": "black", "invert": False, "mean_image": None},
}
"""Fields that the first files did not have, by what has them: written only where they say
something, so that a network gives the same bytes as ever."""

# Zip and pickle (PyTorch), HDF5 (Keras), ONNX's protocol buffer, NumPy.
_CHECKPOINTS = (
    *(b"PK\3\4", b"\x80\2", b"\x80\3", b"\x80\4", b"\x89HDF\r\n", b"\x93NUMPY"),
    *(b"\x08\x06\x12", b"\x08\x07\x12", b"\x08\x08\x12", b"\x08\x09\x12", b"\x08\x0a\x12"),
)
_PICTURES = (b"\x89PNG\r\n", b"\xff\xd8\xff", b"GIF8", b"BM", b"P4\n", b"P5\n", b"P6\n")

_PREFIX = b'{"__metadata__":{"bitinfer":"{\\"sha256\\":\\"'
_DIGEST_START = 8 + len(_PREFIX)
_DIGEST_END = _DIGEST_START + 64
_BLANK_DIGEST = "0" * 64


class _Header(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    sha256: str
    format_version: int
    graph: Graph
    labels: tuple[str, ...]
    preprocessing: Preprocessing | None
    provenance: Provenance | None


def save(model: Model, path: str | os.PathLike[str]) -> str:
    """Write ``model`` to ``path`` and return the SHA-256 that the file bears.

    The same model gives the same bytes.  The file is written beside ``path`` and renamed: whoever
    looks at ``path`` sees the old file or the new one, never half of one.

    Raises:
        GraphError, ShapeError: the parts of the model do not fit together.
        OutputError: the file cannot be written.
    """
    data = to_bytes(model)
    write_atomically(path, data)
    return data[_DIGEST_START:_DIGEST_END].decode()


def to_bytes(model: Model) -> bytes:
    """Return the bytes of the model file.  Raises GraphError or ShapeError where parts misfit."""
    _ = model.checked
    header = _Header(
        sha256=_BLANK_DIGEST,
        format_version=FORMAT_VERSION,
        graph=model.graph,
        labels=model.labels,
        preprocessing=model.preprocessing,
        provenance=model.provenance,
    )
    fields = msgspec.json.decode(msgspec.json.encode(header, order="deterministic"))
    _drop_unused(fields)
    text = msgspec.json.encode(fields).decode()
    tensors = {name: np.ascontiguousarray(t) for name, t in model.tensors.items()}
    # Asked for beforehand, since safetensors panics where it gets none: its copies and the result.
    bytearray(2 * sum(t.nbytes for t in tensors.values()) + 4 * len(text) + _SPARE_BYTES)
    blank = safetensors.numpy.save(tensors, {"bitinfer": text})
    if not blank[8:].startswith(_PREFIX + _BLANK_DIGEST.encode()):
        raise AssertionError("safetensors writes its header in an unexpected form")
    digest = hashlib.sha256(blank).hexdigest().encode()
    return blank[:_DIGEST_START] + digest + blank[_DIGEST_END:]


def _drop_unused(header: dict[str, Any]) -> None:
    """Leave out the fields of _LEFT_OUT that say nothing."""
    graph = header["graph"]
    records = [("input", graph["input"]), *((node["op"], node) for node in graph["nodes"])]
    if header["preprocessing"] is not None:
        records.append(("preprocessing", header["preprocessing"]))
    for kind, record in records:
        for name, default in _LEFT_OUT.get(kind, {}).items():
            if record[name] == default:
                del record[name]


def load(source: Any) -> Model:
    """Read and check a model file: its path, its bytes in any buffer, or a binary file.

    Raises:
        ModelFileError: the file cannot be read, or is not an intact model file of a known version.
    """
    data = read_source(source, MAX_FILE_BYTES, error=ModelFileError, what="model files")
    try:
        return from_bytes(data)
    except ModelFileError as error:
        where = f"{os.fsdecode(source)}: " if isinstance(source, str | os.PathLike) else ""
        raise ModelFileError(f"{where}{error}") from error.__cause__


def from_bytes(data: bytes) -> Model:
    """Check the bytes of a model file and return the model.

    Raises:
        ModelFileError: the bytes are not an intact model file of a known version.
    """
    digest = _check_digest(data)
    header_bytes = data[8 : 8 + int.from_bytes(data[:8], "little")]
    if sum(header_bytes.count(c) for c in (b",", b"[", b"{")) > MAX_HEADER_VALUES:
        raise ModelFileError(f"the header holds over {MAX_HEADER_VALUES} values")
    outer = _parse_json(header_bytes, "header")
    text = outer["__metadata__"].get("bitinfer") if isinstance(outer, dict) else None
    if outer["__metadata__"].keys() != {"bitinfer"} or not isinstance(text, str):
        raise ModelFileError("the metadata does not consist of one text named 'bitinfer'")
    _check_tensor_table(outer)
    fields = _parse_json(_as_utf8(text), "metadata")
    version = fields.get("format_version") if isinstance(fields, dict) else None
    if version != FORMAT_VERSION or isinstance(version, bool):
        raise ModelFileError(
            f"format_version is {one_line(version)}, this bitinfer reads {FORMAT_VERSION}; "
            "update bitinfer or convert the network again"
        )
    try:
        header = msgspec.convert(fields, _Header)
    except (msgspec.ValidationError, UnicodeEncodeError) as error:
        raise ModelFileError(f"metadata: {one_line(error)}") from error
    except RecursionError as error:
        raise ModelFileError("the metadata is nested too deeply") from error
    _check_text(header)
    tensors = _read_tensors(outer, memoryview(data)[8 + len(header_bytes) :])
    model = Model(
        graph=header.graph,
        tensors=tensors,
        labels=header.labels,
        preprocessing=header.preprocessing,
        provenance=header.provenance,
        sha256=digest,
    )
    try:
        _ = model.checked
    except (GraphError, ShapeError) as error:
        raise ModelFileError(one_line(error, 300)) from error
    return model


def _check_digest(data: bytes) -> str:
    if not data.startswith(_PREFIX, 8) and (stranger := _name_stranger(data)):
        raise ModelFileError(stranger)
    if len(data) < 8 or len(data) - 8 < int.from_bytes(data[:8], "little"):
        raise ModelFileError(f"{len(data)} bytes: truncated, or not a bitinfer model file")
    if int.from_bytes(data[:8], "little") > MAX_HEADER_BYTES:
        raise ModelFileError(f"the header is longer than {MAX_HEADER_BYTES} bytes")
    if not data.startswith(_PREFIX, 8):
        raise ModelFileError(
            "not a bitinfer model file; other formats become one with 'bitinfer convert'"
        )
    written = data[_DIGEST_START:_DIGEST_END]
    digest = hashlib.sha256(data[:_DIGEST_START])
    digest.update(_BLANK_DIGEST.encode())
    digest.update(memoryview(data)[_DIGEST_END:])
    if written != digest.hexdigest().encode():
        raise ModelFileError("the checksum does not match: the file is damaged; copy it again")
    return digest.hexdigest()


def _name_stranger(data: bytes) -> str | None:
    """Say what a file is whose first bytes are those of a checkpoint or a picture, else None."""
    if data.startswith(_CHECKPOINTS) or data[4:8] == b"TFL3":
        return (
            "a checkpoint of another framework, where a model file is wanted; "
            "make one of it with 'bitinfer convert'"
        )
    if data.startswith(_PICTURES) or data[8:12] == b"WEBP":
        return "a picture, where a model file is wanted; the model file comes first"
    if data.lstrip()[:1] == b"<":
        return "a web page, where a model file is wanted; download the file itself"
    if data.startswith(b"version https://git-lfs"):
        return "a pointer of Git LFS to a file, not the file; get it with 'git lfs pull'"
    return None


def _as_utf8(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        raise ModelFileError("metadata: not Unicode text") from error


def _check_tensor_table(outer: dict[str, Any]) -> None:
    """Check which types, how many tensors, of which rank, and that nothing else is said."""
    if len(outer) > MAX_TENSORS:
        raise ModelFileError(f"{len(outer)} tensors, at most {MAX_TENSORS} are allowed")
    for name, entry in outer.items():
        if name == "__metadata__":
            continue
        if not isinstance(entry, dict) or entry.keys() != {"dtype", "shape", "data_offsets"}:
            raise ModelFileError(
                f"tensor {one_line(name)}: wanted dtype, shape and data_offsets alone"
            )
        if entry["dtype"] not in TENSOR_TYPES:
            raise ModelFileError(
                f"tensor {one_line(name)}: the type is none of {', '.join(TENSOR_TYPES)}"
            )
        shape = entry["shape"]
        if not isinstance(shape, list) or not 1 <= len(shape) <= MAX_RANK:
            raise ModelFileError(f"tensor {one_line(name)}: the shape has not 1 to {MAX_RANK} axes")


def _read_tensors(outer: dict[str, Any], data: memoryview) -> dict[str, NDArray[Any]]:
    """Return copies of the tensors, which must fill ``data`` one after the other, without gaps."""
    entries = {name: entry for name, entry in outer.items() if name != "__metadata__"}
    for name, entry in entries.items():
        numbers = entry["data_offsets"]
        if not isinstance(numbers, list) or len(numbers) != 2:
            raise ModelFileError(f"tensors: {one_line(name)}: data_offsets are not two numbers")
        if not all(type(n) is int and 0 <= n < 1 << 62 for n in (*numbers, *entry["shape"])):
            raise ModelFileError(f"tensors: {one_line(name)}: shape or data_offsets are no sizes")
    end = 0
    for name, entry in sorted(entries.items(), key=lambda item: item[1]["data_offsets"]):
        begin, stop = entry["data_offsets"]
        wanted = np.dtype(_DTYPES[entry["dtype"]]).itemsize * math.prod(entry["shape"])
        if begin != end or stop - begin != wanted:
            raise ModelFileError(
                f"tensors: {one_line(name)} lies in bytes {begin} to {stop}, wanted {wanted} bytes "
                f"from {end} on"
            )
        end = stop
    if end != len(data):
        raise ModelFileError(f"tensors: {len(data)} bytes, the table wants {end}")
    result = {}
    for name, entry in entries.items():
        dtype, (begin, stop) = np.dtype(_DTYPES[entry["dtype"]]), entry["data_offsets"]
        flat = np.array(data[begin:stop], np.uint8).view(dtype)
        result[name] = flat.astype(dtype.newbyteorder("="), copy=False).reshape(entry["shape"])
    return result


def _parse_json(data: bytes, where: str) -> Any:
    def reject_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        result = dict(pairs)
        if len(result) != len(pairs):
            raise ModelFileError(f"{where}: a key stands twice in one JSON object")
        return result

    def reject_constant(text: str) -> Any:
        raise ModelFileError(f"{where}: {text} is not a JSON number")

    def finite(text: str) -> float:
        value = float(text)
        if not math.isfinite(value):
            raise ModelFileError(f"{where}: the number {one_line(text)} is too large")
        return value

    try:
        return json.loads(
            data.decode("utf-8"),
            object_pairs_hook=reject_duplicates,
            parse_constant=reject_constant,
            parse_float=finite,
        )
    except RecursionError as error:
        raise ModelFileError(f"{where}: nested too deeply") from error
    except ModelFileError:
        raise
    except ValueError as error:
        raise ModelFileError(f"{where}: not JSON: {one_line(error)}") from error


def _check_text(header: _Header) -> None:
    """Refuse text with lone surrogates, which JSON can spell but nothing can print."""
    try:
        msgspec.json.encode(header)
    except UnicodeEncodeError as error:
        raise ModelFileError("metadata: a name or label is not Unicode text") from error

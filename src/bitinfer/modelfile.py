"""Reads and writes ``model.bin``: a safetensors file with one metadata key, ``bitinfer``.

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
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import functools
import hashlib
import json
import math
import os
import secrets
import stat
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import msgspec
import numpy as np
import safetensors
import safetensors.numpy
from numpy.typing import NDArray

from bitinfer import numerics
from bitinfer.errors import GraphError, ModelFileError, OutputError, ShapeError
from bitinfer.graph import CheckedGraph, Value, check
from bitinfer.graph.nodes import Graph, Layer, Record

FORMAT_VERSION = 1

MAX_FILE_BYTES = 1 << 31
MAX_HEADER_BYTES = 1 << 24
MAX_HEADER_VALUES = 1 << 20
"""Commas and brackets in the header: a parsed value takes up to 40 times the bytes of its text."""
MAX_TENSORS = 1 << 16
MAX_RANK = 8
MAX_LABELS = 1 << 16
MAX_NAME_LENGTH = 256

TENSOR_TYPES = ("F32", "U64", "I16", "I8", "U8")

_LEFT_OUT: dict[str, dict[str, Any]] = {
    "input": {"kind": "float"},
    "conv2d": {"alpha": None, "offset": None, "epilogue": None},
    "dense": {"alpha": None, "epilogue": None},
    "bconv2d": {"epilogue": None},
    "bdense": {"epilogue": None},
    "sign": {"threshold": None, "flip": None},
    "max_pool2d": {"minimum": None},
}
"""Fields that the first files did not have, by operation: written only where they say something, so
that a network gives the same bytes as ever."""

_PREFIX = b'{"__metadata__":{"bitinfer":"{\\"sha256\\":\\"'
_DIGEST_START = 8 + len(_PREFIX)
_DIGEST_END = _DIGEST_START + 64
_BLANK_DIGEST = "0" * 64


class Preprocessing(Record, frozen=True):
    """From a picture to the input of the network, in this order (vision.py does it).

    Attributes:
        color: ``rgb`` (3 channels) or ``grey`` (1 channel).
        resize: (height, width) exactly, or one number for the shorter side, or None.
        crop: centred (height, width), or None.
        interpolation: how pixels are resampled.
        scale, mean, std: ``x = (pixel * scale - mean[c]) / std[c]``, pixel 0..255.
    """

    color: Literal["rgb", "grey"]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    scale: float = 1 / 255
    resize: tuple[int, int] | int | None = None
    crop: tuple[int, int] | None = None
    interpolation: Literal["nearest", "box", "bilinear", "bicubic", "lanczos"] = "bilinear"


class Provenance(Record, frozen=True):
    """Where the network came from: file name and SHA-256 of the source, importer, versions."""

    importer: str
    source: str = ""
    source_sha256: str = ""
    versions: dict[str, str] = msgspec.field(default_factory=dict)
    notes: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True, eq=False)
class Model:
    """Everything that a model file holds.  ``values`` is what shape inference found."""

    graph: Graph
    tensors: Mapping[str, NDArray[Any]]
    labels: tuple[str, ...] = ()
    preprocessing: Preprocessing | None = None
    provenance: Provenance | None = None
    sha256: str = ""

    @functools.cached_property
    def checked(self) -> CheckedGraph:
        """The graph with its tensors, checked once.  Raises GraphError or ShapeError."""
        return check(self.graph, self.tensors)

    @property
    def values(self) -> Mapping[str, Value]:
        """Kind and shape of every value."""
        return self.checked.values


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
    _check_model(model)
    header = _Header(
        sha256=_BLANK_DIGEST,
        format_version=FORMAT_VERSION,
        graph=model.graph,
        labels=model.labels,
        preprocessing=model.preprocessing,
        provenance=model.provenance,
    )
    fields = msgspec.json.decode(msgspec.json.encode(header, order="deterministic"))
    _drop_unused(fields["graph"])
    text = msgspec.json.encode(fields).decode()
    tensors = {name: np.ascontiguousarray(t) for name, t in model.tensors.items()}
    blank = safetensors.numpy.save(tensors, {"bitinfer": text})
    if not blank[8:].startswith(_PREFIX + _BLANK_DIGEST.encode()):
        raise AssertionError("safetensors writes its header in an unexpected form")
    digest = hashlib.sha256(blank).hexdigest().encode()
    return blank[:_DIGEST_START] + digest + blank[_DIGEST_END:]


def _drop_unused(graph: dict[str, Any]) -> None:
    """Leave out the fields of _LEFT_OUT that say nothing."""
    for record in (graph["input"], *graph["nodes"]):
        for name, default in _LEFT_OUT.get(record.get("op", "input"), {}).items():
            if record[name] == default:
                del record[name]


def load(path: str | os.PathLike[str]) -> Model:
    """Read and check the model file at ``path``.

    Raises:
        ModelFileError: the file cannot be read, or is not an intact model file of a known version.
    """
    try:
        # Without O_NONBLOCK, a named pipe that nobody writes to would be waited for.
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
        with os.fdopen(descriptor, "rb") as file:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise ModelFileError(f"{os.fspath(path)}: not a regular file")
            if status.st_size > MAX_FILE_BYTES:
                raise ModelFileError(
                    f"{os.fspath(path)}: {status.st_size} bytes, "
                    f"model files have at most {MAX_FILE_BYTES}"
                )
            data = file.read(status.st_size)
    except OSError as error:
        raise ModelFileError(f"{os.fspath(path)}: {error.strerror or error}") from error
    except ValueError as error:  # a NUL in the path
        if isinstance(error, ModelFileError):
            raise
        raise ModelFileError(f"{_excerpt(path)}: {error}") from error
    try:
        return from_bytes(data)
    except ModelFileError as error:
        raise ModelFileError(f"{os.fspath(path)}: {error}") from error.__cause__


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
            f"format_version is {_excerpt(version)}, this bitinfer reads {FORMAT_VERSION}; "
            "update bitinfer or convert the network again"
        )
    try:
        header = msgspec.convert(fields, _Header)
        tensors = safetensors.numpy.load(data)
    except msgspec.ValidationError as error:
        raise ModelFileError(f"metadata: {_excerpt(error)}") from error
    except (safetensors.SafetensorError, ValueError, OverflowError, KeyError) as error:
        raise ModelFileError(f"tensors: {_excerpt(error)}") from error
    except RecursionError as error:
        raise ModelFileError("the metadata is nested too deeply") from error
    _check_text(header)
    model = Model(
        graph=header.graph,
        tensors=tensors,
        labels=header.labels,
        preprocessing=header.preprocessing,
        provenance=header.provenance,
        sha256=digest,
    )
    try:
        _check_model(model)
    except (GraphError, ShapeError) as error:
        raise ModelFileError(_excerpt(error, 300)) from error
    return model


def write_atomically(path: str | os.PathLike[str], data: bytes) -> None:
    """Write ``data`` to a temporary file beside ``path``, then rename it to ``path``.

    Raises:
        OutputError: the file cannot be written; whatever was at ``path`` is untouched.
    """
    target = Path(path)
    try:
        target = _regular_target(target)
        # Not mkstemp, whose files are private: the mode must follow the umask, as any other file's.
        name = target.with_name(f".{target.name}.{secrets.token_hex(8)}")
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        descriptor = os.open(name, flags, 0o666)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(name, target)  # noqa: PTH105
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(name)  # noqa: PTH108
            raise
    except (OSError, ValueError) as error:
        raise _cannot_write(target, error) from error


def check_writable(path: str | os.PathLike[str]) -> None:
    """Raise OutputError now if :func:`write_atomically` could not write to ``path`` later."""
    target = Path(path)
    try:
        target = _regular_target(target)
        with tempfile.TemporaryFile(dir=target.parent):
            pass
    except (OSError, ValueError) as error:
        raise _cannot_write(target, error) from error


def _regular_target(path: Path) -> Path:
    """Follow links, so that they stay, and refuse what a rename would destroy."""
    target = Path(os.path.realpath(path))
    if target.is_dir():
        raise IsADirectoryError(errno.EISDIR, "is a directory")
    if target.exists() and not target.is_file():
        raise OSError(errno.EINVAL, "is not a regular file")
    return target


def _cannot_write(target: Path, error: OSError | ValueError) -> OutputError:
    reason = error.strerror if isinstance(error, OSError) else None  # ValueError: NUL in the path
    return OutputError(f"cannot write {target}: {reason or error}")


def _check_digest(data: bytes) -> str:
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


def _as_utf8(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        raise ModelFileError("metadata: not Unicode text") from error


def _check_tensor_table(outer: dict[str, Any]) -> None:
    """Check what safetensors leaves open: which types, how many tensors, of which rank, no more."""
    if len(outer) > MAX_TENSORS:
        raise ModelFileError(f"{len(outer)} tensors, at most {MAX_TENSORS} are allowed")
    for name, entry in outer.items():
        if name == "__metadata__":
            continue
        if not isinstance(entry, dict) or entry.keys() != {"dtype", "shape", "data_offsets"}:
            raise ModelFileError(
                f"tensor {_excerpt(name)}: wanted dtype, shape and data_offsets alone"
            )
        if entry["dtype"] not in TENSOR_TYPES:
            raise ModelFileError(
                f"tensor {_excerpt(name)}: the type is none of {', '.join(TENSOR_TYPES)}"
            )
        shape = entry["shape"]
        if not isinstance(shape, list) or not 1 <= len(shape) <= MAX_RANK:
            raise ModelFileError(f"tensor {_excerpt(name)}: the shape has not 1 to {MAX_RANK} axes")


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
            raise ModelFileError(f"{where}: the number {_excerpt(text)} is too large")
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
        raise ModelFileError(f"{where}: not JSON: {_excerpt(error)}") from error


def _check_model(model: Model) -> None:
    for node in model.graph.nodes:
        if isinstance(node, Layer) and node.epilogue is not None:
            raise GraphError(
                f"node {_excerpt(node.name)}: an epilogue is made by passes, not stored"
            )
    values = model.values
    names = [model.graph.name, *values, *model.tensors, *model.labels]
    if longest := max((n for n in names if len(n) > MAX_NAME_LENGTH), default=None, key=len):
        raise GraphError(f"the name {_excerpt(longest)} has over {MAX_NAME_LENGTH} characters")
    if len(model.labels) > MAX_LABELS:
        raise GraphError(f"{len(model.labels)} labels, at most {MAX_LABELS} are allowed")
    classes = math.prod(values[model.graph.outputs[0]].shape)
    if model.labels and len(model.labels) != classes:
        raise ShapeError(f"{len(model.labels)} labels for an output of {classes} classes")
    if model.preprocessing is not None:
        _check_preprocessing(model.preprocessing, model.graph.input.shape)


def _check_preprocessing(p: Preprocessing, shape: tuple[int, ...]) -> None:
    channels = 1 if p.color == "grey" else 3
    if shape[-1] != channels or len(shape) != 3:
        raise ShapeError(
            f"preprocessing: a {p.color} picture has {channels} channels, the input is {shape}"
        )
    if len(p.mean) != channels or len(p.std) != channels:
        raise ShapeError(
            f"preprocessing: {len(p.mean)} means and {len(p.std)} stds for {channels} channels"
        )
    if not all(math.isfinite(v) for v in (*p.mean, *p.std, p.scale)) or not all(
        abs(v) >= 1e-12 for v in p.std
    ):
        raise ShapeError("preprocessing: scale, mean and std must be finite, std not 0")
    if not np.isfinite(numerics.normalization_table(p.scale, p.mean, p.std)).all():
        raise ShapeError("preprocessing: some normalised pixel is too large for float32")
    resize = (p.resize, p.resize) if isinstance(p.resize, int) else (p.resize or ())
    if not all(1 <= v <= 1 << 14 for v in (*resize, *(p.crop or ()))):
        raise ShapeError("preprocessing: resize and crop must be within 1 to 16384 pixels")
    fixed = p.crop or (p.resize if isinstance(p.resize, tuple) else None)
    if fixed is not None and fixed != shape[:2]:
        raise ShapeError(f"preprocessing makes {fixed} pixels, the input wants {shape[:2]}")


def _check_text(header: _Header) -> None:
    """Refuse text with lone surrogates, which JSON can spell but nothing can print."""
    try:
        msgspec.json.encode(header)
    except UnicodeEncodeError as error:
        raise ModelFileError("metadata: a name or label is not Unicode text") from error


def _excerpt(value: object, limit: int = 120) -> str:
    """Return foreign text on one line, without control characters, cut to ``limit``."""
    text = str(value)
    text = "".join(c if c.isprintable() else "?" for c in text[: limit + 1])
    return text if len(text) <= limit else text[: limit - 3] + "..."

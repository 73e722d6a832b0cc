"""What a file is, from its first bytes and its structure: never from its name.

:data:`FORMATS` lists what can be told apart.  Some have a reader (readers/); the others are what
people pass by mistake, or what cannot be imported, each with what to do about it.
"""

from __future__ import annotations

import dataclasses
import io
import os
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

from bitinfer.errors import CheckpointError

MAX_MEMBERS = 1 << 18
_HEAD = 1024
"""Bytes at the beginning that texts are recognised by."""


@dataclasses.dataclass(frozen=True)
class Format:
    """A kind of file.

    Attributes:
        title: what it is, behind "this is".
        fits: whether some bytes are such a file.
        reader: module in readers/ that reads it; empty where nothing does.
        advice: what to do with a file that no reader reads.
        has_network_apart: whether a second file may describe the network.
        has_shape_apart: whether neither says how large the input is.
        has_two_paths: whether the framework computes bits otherwise than floats.
    """

    title: str
    fits: Callable[[bytes], bool]
    reader: str = ""
    advice: str = ""
    has_network_apart: bool = False
    has_shape_apart: bool = False
    has_two_paths: bool = False


def _starts(*starts: bytes) -> Callable[[bytes], bool]:
    return lambda data: data.startswith(starts)


def _text_starts(*starts: str) -> Callable[[bytes], bool]:
    def fits(data: bytes) -> bool:
        text = data[:_HEAD].decode("utf-8-sig", "replace").lstrip().lower()
        return text.startswith(starts)

    return fits


def _members(data: bytes) -> list[str]:
    """Return the names in a zip archive; none where it is damaged."""
    # zipfile makes an object of every entry before it can be asked how many there are.
    if not data.startswith(b"PK\x03\x04") or data.count(b"PK\x01\x02") > MAX_MEMBERS:
        return []
    try:
        return zipfile.ZipFile(io.BytesIO(data)).namelist()
    except Exception:  # zipfile lets its struct, codec and index errors through
        return []


def _zip_with(*names: str) -> Callable[[bytes], bool]:
    """Recognise an archive with all these members, or folders, at its top or in a folder there."""

    def fits(data: bytes) -> bool:
        if not all(name.encode() in data for name in names):  # much quicker than the directory
            return False
        members = _members(data)
        members += [name.partition("/")[2] for name in members]
        return all(
            any(m == name or (name.endswith("/") and m.startswith(name)) for m in members)
            for name in names
        )

    return fits


def _is_damaged_zip(data: bytes) -> bool:
    return data.startswith(b"PK\x03\x04") and b"PK\x05\x06" not in data


def _is_safetensors(data: bytes) -> bool:
    if len(data) < 10 or data[8:9] != b"{":
        return False
    length = int.from_bytes(data[:8], "little")
    return 2 <= length <= 100_000_000 and b'"data_offsets"' in data[8 : 8 + min(length, 1 << 20)]


def is_model_file(data: bytes) -> bool:
    """Return whether a file that begins with ``data`` is one of bitinfer's own."""
    return len(data) > 8 and data.startswith(b'{"__metadata__":{"bitinfer":', 8)


def _is_onnx(data: bytes) -> bool:
    """Recognise a ModelProto: field 1, ir_version, then one of its other fields.

    onnx.proto3: 2 producer_name, 3 producer_version, 4 domain, 5 model_version, 6 doc_string,
    7 graph, 8 opset_import.
    """
    return (
        len(data) > 3
        and data[0] == 0x08
        and 1 <= data[1] < 32
        and (data[2] in (0x12, 0x1A, 0x22, 0x28, 0x32, 0x3A, 0x42))
    )


def _is_darknet_weights(data: bytes) -> bool:
    """Major 0, minor 1 or 2, revision below 10 (parser.c, load_weights_upto)."""
    if len(data) < 20:
        return False
    major, minor, revision = struct.unpack("<3i", data[:12])
    return major == 0 and minor in (1, 2) and 0 <= revision < 10


def _is_torch_stream(data: bytes) -> bool:
    # The magic number 0x1950a86a20f9469cfc6c, pickled first, behind the opcodes of any protocol.
    return b"\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19" in data[:32]


def _is_pickle(data: bytes) -> bool:
    return len(data) > 2 and data[0] == 0x80 and data[1] <= 5


def _is_picture(data: bytes) -> bool:
    return (
        data.startswith((b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"GIF8"))
        or (data[:4] == b"RIFF" and data[8:12] == b"WEBP")
        or (data[:2] == b"BM" and data[2:6] == len(data).to_bytes(8, "little")[:4])
    )


_SAVE_STATE = "save the weights instead: torch.save(model.state_dict(), FILE)"
_UNPACK = "unpack it first"

FORMATS: tuple[Format, ...] = (
    Format(
        "an empty file",
        lambda data: not data,
        advice="the download or the copy failed; get it again",
    ),
    Format(
        "a bitinfer model file",
        is_model_file,
        advice="it needs no conversion: run it, or give it --integer-ends; what 'verify' compares "
        "with is the file that it was converted from",
    ),
    Format(
        "a web page",
        _text_starts("<!doctype html", "<html", "<head", "<?xml"),
        advice="download the file itself, not the page that shows it",
    ),
    Format(
        "a Git LFS pointer",
        _starts(b"version https://git-lfs"),
        advice="fetch what it points to: git lfs pull",
    ),
    Format(
        "a truncated archive",
        _is_damaged_zip,
        advice="it begins like a checkpoint and has no end; download it again",
    ),
    Format("a TorchScript archive", _zip_with("constants.pkl", "code/"), advice=_SAVE_STATE),
    Format("a torch.export archive", _zip_with("archive_format"), advice=_SAVE_STATE),
    Format("a PyTorch checkpoint", _zip_with("data.pkl"), "torch_checkpoint"),
    Format("a PyTorch checkpoint", _is_torch_stream, "torch_checkpoint"),
    Format("a Keras model (.keras)", _zip_with("metadata.json", "config.json"), "keras"),
    Format("an archive of BNN-PYNQ's bits (.npz)", _zip_with("w0_bits.npy", "t0.npy"), "bnn_pynq"),
    Format("a folder of BNN-PYNQ's parameters", _zip_with("0-0-weights.bin"), "bnn_pynq"),
    Format(
        "a zip archive",
        _starts(b"PK\x03\x04", b"PK\x05\x06"),
        advice=_UNPACK + ", and pass the checkpoint in it",
    ),
    Format("a pickle of Python", _is_pickle, advice="it could run anything; " + _SAVE_STATE),
    Format(
        "an HDF5 file, as Keras writes",
        _starts(b"\x89HDF\r\n\x1a\n"),
        "keras",
        has_network_apart=True,
    ),
    Format("a TensorFlow Lite model", lambda data: data[4:8] == b"TFL3", "tflite"),
    Format("a safetensors file", _is_safetensors, "safetensors"),
    Format("an ONNX model", _is_onnx, "onnx"),
    Format(
        "a picture",
        _is_picture,
        advice="pictures are classified with 'bitinfer run'",
    ),
    Format("a tar archive", lambda data: data[257:262] == b"ustar", advice=_UNPACK),
    Format(
        "a compressed file",
        _starts(b"\x1f\x8b", b"BZh", b"\xfd7zXZ\x00", b"7z\xbc\xaf\x27\x1c", b"\x28\xb5\x2f\xfd"),
        advice=_UNPACK,
    ),
    Format(
        "darknet's .cfg",
        _text_starts("[net]", "[network]"),
        advice="pass its .weights, and this file as --network",
    ),
    Format(
        "darknet's .weights",
        _is_darknet_weights,
        "darknet",
        has_network_apart=True,
        has_two_paths=True,
    ),
    Format(
        "MXNet's .params",
        _starts((0x112).to_bytes(8, "little") + bytes(8)),
        "mxnet",
        has_network_apart=True,
        has_shape_apart=True,
    ),
    Format(
        "a NumPy array",
        _starts(b"\x93NUMPY"),
        advice="one array is no network",
    ),
    Format(
        "a JSON document",
        _text_starts("{", "["),
        advice="it holds no weights; pass their file, and this one as --network",
    ),
)
"""What files are told apart as, the first that fits."""

UNKNOWN = Format(
    "no format that is known here", lambda data: True, advice="see docs/command-line.md"
)


def identify(data: bytes) -> Format:
    """Return the first of FORMATS that ``data`` fits, else UNKNOWN."""
    return next((f for f in FORMATS if f.fits(data)), UNKNOWN)


def require_reader(data: bytes) -> Format:
    """Return the format of ``data``, or raise CheckpointError with what it is and what to do."""
    found = identify(data)
    if not found.reader:
        begins = f" (it begins with {data[:8].hex(' ')})" if found is UNKNOWN else ""
        raise CheckpointError(f"this is {found.title}{begins}: {found.advice}")
    return found


def refuse_directory(path: str | os.PathLike[str]) -> None:
    """Raise CheckpointError, saying what to do, if ``path`` is a directory."""
    if Path(path).is_dir():
        raise CheckpointError(
            f"{os.fspath(path)}: this is a directory: pass the file in it that holds the weights"
        )

"""Writes checkpoints in both of torch's formats, without torch and without the pickle module.

A tensor is an array; what else a pickle can say is said with Name, Call, Built and Persistent.
"""

from __future__ import annotations

import io
import struct
import zipfile
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from bitinfer import zoo

MAGIC = 0x1950A86A20F9469CFC6C
KINDS = {
    "float64": "DoubleStorage",
    "float32": "FloatStorage",
    "float16": "HalfStorage",
    "int64": "LongStorage",
    "int32": "IntStorage",
    "int16": "ShortStorage",
    "int8": "CharStorage",
    "uint8": "ByteStorage",
    "bool": "BoolStorage",
}


class Name(NamedTuple):
    """GLOBAL."""

    module: str
    name: str


class Call(NamedTuple):
    """REDUCE."""

    function: Any
    arguments: tuple[Any, ...]


class Built(NamedTuple):
    """BUILD: a value with attributes."""

    value: Any
    state: Any


class Persistent(NamedTuple):
    """BINPERSID."""

    identity: tuple[Any, ...]


class Raw(bytes):
    """Opcodes, as they are."""


ORDERED_DICT = Name("collections", "OrderedDict")
REBUILD = Name("torch._utils", "_rebuild_tensor_v2")


def _integer(value: int) -> bytes:
    if 0 <= value < 256:
        return b"K" + bytes([value])
    if -(1 << 31) <= value < 1 << 31:
        return b"J" + struct.pack("<i", value)
    octets = value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)
    return b"\x8a" + bytes([len(octets)]) + octets


class Writer:
    """Pickles values, protocol 2; keeps (elements, bytes) of every storage, by key."""

    def __init__(
        self, *, is_stream: bool = False, is_python2: bool = False, byte_order: str = "<"
    ) -> None:
        self.storages: dict[str, tuple[int, bytes]] = {}
        self.is_stream = is_stream
        self.is_python2 = is_python2
        self.byte_order = byte_order
        self._memo: dict[str, int] = {}

    def pickled(self, value: Any) -> bytes:
        self._memo = {}
        return b"\x80\x02" + self.opcodes(value) + b"."

    def opcodes(self, value: Any) -> bytes:
        match value:
            case None | True | False:
                return {None: b"N", True: b"\x88", False: b"\x89"}[value]
            case Raw():
                return bytes(value)
            case bytes():
                return b"U" + bytes([len(value)]) + value
            case str():
                return self._text(value)
            case int():
                return _integer(value)
            case float():
                return b"G" + struct.pack(">d", value)
            case Name():
                return f"c{value.module}\n{value.name}\n".encode()
            case Call():
                return self.opcodes(value.function) + self.opcodes(value.arguments) + b"R"
            case Built():
                return self.opcodes(value.value) + self.opcodes(value.state) + b"b"
            case Persistent():
                return self.opcodes(value.identity) + b"Q"
            case list():
                return b"](" + b"".join(map(self.opcodes, value)) + b"e"
            case tuple():
                return b"(" + b"".join(map(self.opcodes, value)) + b"t"
            case dict():
                items = [self.opcodes(part) for item in value.items() for part in item]
                return b"}(" + b"".join(items) + b"u"
            case np.ndarray():
                return self.opcodes(self.tensor(value))
        raise TypeError(type(value))

    def tensor(self, array: NDArray[Any], kind: str | None = None) -> Call:
        """Put the elements into a storage and return the call that rebuilds the tensor."""
        key = str(len(self.storages))
        octets = array.astype(array.dtype.newbyteorder(self.byte_order)).tobytes()
        self.storages[key] = array.size, octets
        storage = self.storage(kind or KINDS[array.dtype.name], key, array.size)
        strides = np.ascontiguousarray(array).strides if array.ndim else ()
        steps = tuple(s // array.itemsize for s in strides)
        return Call(REBUILD, (storage, 0, array.shape, steps, False, Call(ORDERED_DICT, ())))

    def storage(self, kind: str, key: str, numel: int) -> Persistent:
        view = (None,) if self.is_stream else ()
        return Persistent(("storage", Name("torch", kind), key, "cpu", numel, *view))

    def _text(self, value: str) -> bytes:
        # As picklers do: a text is written once and fetched from the memo later.
        if value in self._memo:
            return b"h" + bytes([self._memo[value]])
        octets = value.encode()
        if self.is_python2:
            written = b"U" + bytes([len(octets)]) + octets
        else:
            written = b"X" + struct.pack("<I", len(octets)) + octets
        if len(self._memo) < 256:
            self._memo[value] = len(self._memo)
            written += b"q" + bytes([self._memo[value]])
        return written


def zip_file(
    value: Any, *, byte_order: str | None = "little", writer: Writer | None = None
) -> bytes:
    """Return what ``torch.save(value)`` writes; ``writer`` may hold storages already."""
    writer = writer or Writer(byte_order=">" if byte_order == "big" else "<")
    members = {"data.pkl": writer.pickled(value)}
    if byte_order is not None:
        members["byteorder"] = byte_order.encode()
    members |= {f"data/{key}": octets for key, (_, octets) in writer.storages.items()}
    members["version"] = b"3\n"
    return archive({f"net/{name}": octets for name, octets in members.items()})


def archive(members: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    """Return a zip archive with these members."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as target:
        for name, octets in members.items():
            target.writestr(zipfile.ZipInfo(name), octets, compression)
    return file.getvalue()


def stream_file(value: Any, *, writer: Writer | None = None) -> bytes:
    """Return what torch.save writes with ``_use_new_zipfile_serialization=False``."""
    writer = writer or Writer(is_stream=True)
    system = {"protocol_version": 1001, "little_endian": True, "type_sizes": {"int": 4}}
    head = writer.pickled(MAGIC) + writer.pickled(1001) + writer.pickled(system)
    body = writer.pickled(value)
    storages = dict(sorted(writer.storages.items()))
    tail = b"".join(struct.pack("<Q", count) + octets for count, octets in storages.values())
    return head + body + writer.pickled(list(storages)) + tail


def state_dict(arch: str, seed: int = 0, classes: int | None = None) -> dict[str, NDArray[Any]]:
    """Return random weights of an architecture of the zoo, named and laid out as PyTorch does."""
    source = _StateDictSource(seed)
    zoo.build(arch, source, classes=classes)
    return source.state


class _StateDictSource(zoo.RandomParameters):
    def __init__(self, seed: int) -> None:
        super().__init__(seed)
        self.state: dict[str, NDArray[Any]] = {}

    def layer(self, name: str, shape: tuple[int, ...], **kwargs: Any) -> zoo.LayerParameters:
        parameters = super().layer(name, shape, **kwargs)
        weight = parameters.weight
        self.state[f"{name}.weight"] = weight.transpose(0, 3, 1, 2) if weight.ndim == 4 else weight
        self.state[f"{name}.bias"] = parameters.bias
        return parameters

    def norm(self, name: str, channels: int, **kwargs: Any) -> zoo.NormParameters:
        parameters = super().norm(name, channels, **kwargs)
        if parameters.gamma is not None and parameters.beta is not None:
            self.state[f"{name}.weight"] = parameters.gamma
            self.state[f"{name}.bias"] = parameters.beta
        self.state[f"{name}.running_mean"] = parameters.mean
        self.state[f"{name}.running_var"] = parameters.variance
        self.state[f"{name}.num_batches_tracked"] = np.array(7)
        return parameters

"""Takes model files apart and puts them together again, wrong, but with a checksum that is right.

Knows the format from its description alone: nothing of modelfile.py is used to write.
"""

from __future__ import annotations

import copy
import dataclasses
import hashlib
import json
import math
import re
from collections.abc import Callable
from typing import Any

import numpy as np

from bitinfer import modelfile
from bitinfer.graph import check
from bitinfer.model import Model, Preprocessing, Provenance
from graph_examples import every_node, only_integers, only_windows

Table = dict[str, Any]
BLANK = "0" * 64


@dataclasses.dataclass
class Parts:
    """A model file in parts.

    Attributes:
        fields: the JSON object in the metadata, ``sha256`` first.
        table: the safetensors header without its metadata: name to dtype, shape, data_offsets.
        data: the bytes of the tensors.
    """

    fields: Table
    table: Table
    data: bytes

    def text(self) -> str:
        """Return the metadata text, its digest blank."""
        return _dump({**self.fields, "sha256": BLANK})

    def header(self, text: str | None = None) -> bytes:
        """Return the safetensors header, of another text if one is given."""
        metadata = {"bitinfer": self.text() if text is None else text}
        header = _dump({"__metadata__": metadata, **self.table}).encode()
        return header + b" " * (-len(header) % 8)

    def node(self, op: str, number: int = 0) -> Table:
        """Return the node ``number`` of an operation, to be changed."""
        return [node for node in self.fields["graph"]["nodes"] if node["op"] == op][number]


def _dump(value: object) -> str:
    text = json.dumps(value, separators=(",", ":"), ensure_ascii=False)
    return re.sub("[\ud800-\udfff]", lambda match: f"\\u{ord(match[0]):04x}", text)


def example() -> bytes:
    """Return a good model file with every node, labels, preprocessing and provenance."""
    graph, tensors = every_node()
    classes = math.prod(check(graph, tensors).values[graph.outputs[0]].shape)
    return modelfile.to_bytes(
        Model(
            graph,
            tensors,
            labels=tuple(f"class {i}" for i in range(classes)),
            preprocessing=Preprocessing(
                color="rgb", mean=(0.5, 0.25, 0.0), std=(0.5, 1.0, 2.0), resize=12, crop=(9, 8)
            ),
            provenance=Provenance("tests", "a file", "0" * 64, {"bitinfer": "0"}, ("a note",)),
        )
    )


def loose_example() -> bytes:
    """Return a good model file in which many changes still fit."""
    return modelfile.to_bytes(Model(*only_windows()))


def integer_example() -> bytes:
    """Return a good model file of pixels and integers, in which many changes still fit."""
    return modelfile.to_bytes(Model(*only_integers()))


def take_apart(data: bytes) -> Parts:
    """Return the parts of a good model file."""
    length = int.from_bytes(data[:8], "little")
    table = json.loads(data[8 : 8 + length])
    fields = json.loads(table.pop("__metadata__")["bitinfer"])
    return Parts(fields, table, data[8 + length :])


def assemble(header: bytes, data: bytes) -> bytes:
    """Return the file of a header and tensor bytes, with the checksum that it needs."""
    return seal(len(header).to_bytes(8, "little") + header + data)


def seal(data: bytes) -> bytes:
    """Return a file with the first digest in it made right, wherever that stands."""
    mark = rb"{\"sha256\":\""
    start = data.find(mark) + len(mark)
    if start < len(mark):
        return data
    blank = data[:start] + BLANK.encode() + data[start + 64 :]
    return blank[:start] + hashlib.sha256(blank).hexdigest().encode() + blank[start + 64 :]


def build(parts: Parts) -> bytes:
    """Return the file of the parts."""
    return assemble(parts.header(), parts.data)


def edited(data: bytes, change: Callable[[Parts], Any]) -> bytes:
    """Return a file whose parts ``change`` has changed."""
    parts = take_apart(data)
    change(parts)
    return build(parts)


def with_text(data: bytes, change: Callable[[str], str]) -> bytes:
    """Return a file whose metadata text ``change`` has changed."""
    parts = take_apart(data)
    return assemble(parts.header(change(parts.text())), parts.data)


def with_header(data: bytes, change: Callable[[bytes], bytes]) -> bytes:
    """Return a file whose header ``change`` has changed."""
    parts = take_apart(data)
    return assemble(change(parts.header()), parts.data)


class Mutator:
    """Makes wrong files of a good one, all with the right checksum.

    A fifth are changed byte by byte, the others in their structure, so that many get far.
    """

    NUMBERS = (
        *(-1, 0, 1, 2, 3, 7, 63, 64, 65, 255, 256, 1 << 14, (1 << 14) + 1, 1 << 20, 1 << 24),
        *((1 << 31) - 1, 1 << 31, 1 << 32, (1 << 63) - 1, 1 << 63, 1 << 64, -(1 << 63), 10**400),
        *(0.5, -0.0, 1e-320, 1e38, 1e39, 1.7e308),
    )
    OTHERS = (None, True, False, "", "x", "x" * 300, "\ud800", "\0", "../x", [], {}, [[]], [0] * 9)

    def __init__(self, data: bytes, seed: int) -> None:
        self.good = data
        self.parts = take_apart(data)
        self.rng = np.random.default_rng(seed)
        self.strings = list(self._strings(self.parts.fields["graph"]))

    def __call__(self) -> bytes:
        """Return one more file."""
        if self.rng.random() < 0.2:
            return self.change_bytes()
        parts = copy.deepcopy(self.parts)
        for _ in range(self.rng.choice([1, 1, 1, 2, 4])):
            self.change_structure(parts)
        return build(parts)

    def change_bytes(self) -> bytes:
        """Set, flip, insert or delete a few bytes; mend the header's length half of the time."""
        data = bytearray(self.good)
        length = int.from_bytes(data[:8], "little")
        for _ in range(self.rng.integers(1, 5)):
            end = 8 + length if self.rng.random() < 0.7 else len(data)
            at = int(self.rng.integers(0, min(end, len(data))))
            match self.rng.integers(0, 6):
                case 0:
                    data[at] = int(self.rng.integers(0, 256))
                case 1:
                    data[at] ^= 1 << int(self.rng.integers(0, 8))
                case 2:
                    data[at : at + 1] = self.rng.choice([b"9", b"-", b"0", b'"', b"[", b"}", b","])
                case 3:
                    data[at:at] = self.rng.bytes(int(self.rng.integers(1, 5)))
                case 4:
                    del data[at : at + int(self.rng.integers(1, 5))]
                case _:
                    value = self.rng.choice([0, 1, 0x7F, 0x80, 0xFF])
                    data[at : at + 8] = bytes([value]) * len(data[at : at + 8])
        if self.rng.random() < 0.5:
            data[:8] = max(length + len(data) - len(self.good), 0).to_bytes(8, "little")
        return seal(bytes(data))

    def change_structure(self, parts: Parts) -> None:
        """Change one place in the graph, elsewhere in the metadata, in the table or in the data."""
        where = self.rng.random()
        if where < 0.6:
            self._change_somewhere(parts.fields["graph"])
        elif where < 0.7:
            self._change_somewhere({k: v for k, v in parts.fields.items() if k != "sha256"})
        elif where < 0.8:
            self._change_somewhere(parts.table)
        elif where < 0.97:
            data = bytearray(parts.data)
            at = int(self.rng.integers(0, len(data) // 4)) * 4
            value = self.rng.choice(np.array([np.nan, np.inf, 3e38, 0, -1, 1e-45], np.float32))
            data[at : at + 4] = np.float32(value).tobytes()
            parts.data = bytes(data)
        else:
            cut = int(self.rng.integers(1, 9))
            parts.data = parts.data[:-cut] if self.rng.random() < 0.5 else parts.data + b"\0" * cut

    def _change_somewhere(self, root: Any) -> None:
        places = list(self._places(root))
        if not places:
            return
        container, key = places[self.rng.integers(0, len(places))]
        value = container[key]
        match self.rng.choice([0, 1, 2, 3, 3, 3, 3, 4, 4, 5, 6, 7]):
            case 0:
                del container[key]
            case 1 if isinstance(container, list):
                container.insert(key, copy.deepcopy(value))
            case 1:
                container[str(key) + "_"] = copy.deepcopy(value)
            case 2 if isinstance(container, list):
                other = int(self.rng.integers(0, len(container)))
                container[key], container[other] = container[other], container[key]
            case 3 if isinstance(value, int | float) and not isinstance(value, bool):
                container[key] = value + int(self.rng.choice([-2, -1, 1, 2]))
            case 3 | 4 if isinstance(value, str):
                container[key] = self.strings[self.rng.integers(0, len(self.strings))]
            case 2 | 3 | 4 | 5:
                container[key] = self.NUMBERS[self.rng.integers(0, len(self.NUMBERS))]
            case 6:
                container[key] = copy.deepcopy(self.OTHERS[self.rng.integers(0, len(self.OTHERS))])
            case _:
                other, from_key = places[self.rng.integers(0, len(places))]
                if from_key in (other if isinstance(other, dict) else range(len(other))):
                    container[key] = copy.deepcopy(other[from_key])

    def _places(self, value: Any) -> Any:
        keys = value if isinstance(value, dict) else range(len(value))
        for key in keys:
            yield value, key
            if isinstance(value[key], dict | list):
                yield from self._places(value[key])

    def _strings(self, value: Any) -> Any:
        for container, key in self._places(value):
            if isinstance(container[key], str):
                yield container[key]

"""Small TensorFlow Lite models, written with flatbuffers by the positions of schema.fbs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import flatbuffers
import numpy as np
from flatbuffers import flexbuffers
from numpy.typing import NDArray

Array = NDArray[Any]
FLOAT, INT32, INT8 = 0, 2, 9
CODES = {
    "ADD": 0,
    "AVERAGE_POOL_2D": 1,
    "CONCATENATION": 2,
    "CONV_2D": 3,
    "DEPTHWISE_CONV_2D": 4,
    "FULLY_CONNECTED": 9,
    "MAX_POOL_2D": 17,
    "MUL": 18,
    "RESHAPE": 22,
    "SOFTMAX": 25,
    "TANH": 28,
    "PAD": 34,
    "MEAN": 40,
    "SHAPE": 77,
    "LEAKY_RELU": 98,
    "ROUND": 116,
}
Number = tuple[str, float]
_PREPEND = {"b": "Int8", "B": "Uint8", "i": "Int32", "I": "Uint32", "f": "Float32"}


def number(kind: str, value: float) -> Number:
    return (kind, value)


def _write(b: flatbuffers.Builder, value: Any) -> int:
    if isinstance(value, str):
        return int(b.CreateString(value))
    if isinstance(value, bytes):
        return int(b.CreateByteVector(value))
    if isinstance(value, np.ndarray):
        return int(b.CreateNumpyVector(value))
    if isinstance(value, list):
        places = [_write(b, item) for item in value]
        b.StartVector(4, len(places), 4)
        for place in reversed(places):
            b.PrependUOffsetTRelative(place)
        return int(b.EndVector())
    written = {k: v if isinstance(v, tuple) else _write(b, v) for k, v in value.items()}
    b.StartObject(max(written, default=0) + 1)
    for index, field in written.items():
        if isinstance(field, tuple):
            getattr(b, f"Prepend{_PREPEND[field[0]]}Slot")(index, field[1], None)
        else:
            b.PrependUOffsetTRelativeSlot(index, field, 0)
    return int(b.EndObject())


class Builder:
    """Collects tensors and operators; every method returns the name of what it makes."""

    def __init__(self, *shape: int) -> None:
        self.names: list[str] = []
        self.tensors: list[dict[int, Any]] = []
        self.buffers: list[dict[int, Any]] = [{}]
        self.codes: list[str] = []
        self.operators: list[dict[int, Any]] = []
        self.tensor("x", (1, *shape))

    def tensor(self, name: str, shape: Sequence[int], kind: int = FLOAT, buffer: int = 0) -> str:
        self.names.append(name)
        fields: dict[int, Any] = {0: np.array(shape, np.int32), 3: name}
        self.tensors.append({**fields, 1: number("b", kind), 2: number("I", buffer)})
        return name

    def constant(self, name: str, value: Array) -> str:
        kind = {"f": FLOAT, "i": INT32}[value.dtype.kind]
        value = value.astype(np.float32 if kind == FLOAT else np.int32)
        self.buffers.append({0: value.tobytes()})
        return self.tensor(name, value.shape, kind, len(self.buffers) - 1)

    def add(
        self,
        operation: str,
        inputs: Sequence[str],
        shape: Sequence[int],
        *,
        kind: int = FLOAT,
        options: Mapping[int, Any] | None = None,
        custom: Mapping[str, int] | None = None,
        name: str = "",
    ) -> str:
        """``options`` are built-in ones by their positions; ``shape`` is without the batch."""
        name = self.tensor(name or f"{operation.lower()}_{len(self.operators)}", (1, *shape), kind)
        if operation not in self.codes:
            self.codes.append(operation)
        ids = [self.names.index(i) if i else -1 for i in inputs]
        fields: dict[int, Any] = {
            0: number("I", self.codes.index(operation)),
            1: np.array(ids, np.int32),
            2: np.array([self.names.index(name)], np.int32),
        }
        if options is not None:
            fields |= {3: number("B", 1), 4: dict(options)}
        if custom is not None:
            fields[5] = bytes(flexbuffers.Dumps(dict(custom)))
        self.operators.append(fields)
        return name

    def model(self, *outputs: str) -> bytes:
        codes = []
        for name in self.codes:
            code = CODES.get(name, 32)
            fields: dict[int, Any] = {0: number("b", min(code, 127)), 3: number("i", code)}
            codes.append(fields if name in CODES else {**fields, 1: name})
        graph = {
            0: self.tensors,
            1: np.array([0], np.int32),
            2: np.array([self.names.index(o) for o in outputs], np.int32),
            3: self.operators,
            4: "net",
        }
        b = flatbuffers.Builder(1024)
        root = _write(b, {0: number("I", 3), 1: codes, 2: [graph], 4: self.buffers})
        b.Finish(root, b"TFL3")
        return bytes(b.Output())


def packed(signs: Array) -> Array:
    """Signs (..., C) as words of 32 bits, 1 for -1, the rest 0."""
    count = -(-signs.shape[-1] // 32) * 32
    padded = np.zeros((*signs.shape[:-1], count), np.uint8)
    padded[..., : signs.shape[-1]] = signs < 0
    return np.packbits(padded, axis=-1, bitorder="little").view("<i4")


def random(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def bipolar(*shape: int, seed: int = 0) -> Array:
    return np.where(random(*shape, seed=seed) < 0, np.float32(-1), np.float32(1))


def bconv(
    b: Builder,
    x: str,
    weight: Array,
    shape: Sequence[int],
    *,
    threshold: Array | None = None,
    multiplier: Array | None = None,
    bias: Array | None = None,
    **custom: int,
) -> str:
    """A convolution of bits; ``shape`` is what comes out."""
    at = f"b{len(b.operators)}"
    filters = b.constant(f"{at}.filter", packed(weight))
    options = {
        "channels_in": weight.shape[3],
        "padding": 1,
        "stride_height": 1,
        "stride_width": 1,
        "dilation_height_factor": 1,
        "dilation_width_factor": 1,
        "fused_activation_function": 0,
        "pad_values": 0,
        **custom,
    }
    if threshold is not None:
        limit = b.constant(f"{at}.threshold", threshold)
        words = (*shape[:-1], -(-shape[-1] // 32))
        inputs = [x, filters, "", "", limit]
        return b.add("LceBconv2d", inputs, words, kind=INT32, custom=options)
    count = weight.shape[0]
    scale = b.constant(
        f"{at}.scale", np.ones(count, np.float32) if multiplier is None else multiplier
    )
    shift = b.constant(f"{at}.bias", np.zeros(count, np.float32) if bias is None else bias)
    return b.add("LceBconv2d", [x, filters, scale, shift, ""], shape, custom=options)


def network() -> bytes:
    """Bits between two convolutions, a maximum of them, and a dense layer."""
    b = Builder(6, 6, 40)
    x = b.add("LceQuantize", ["x"], (6, 6, 2), kind=INT32)
    x = bconv(b, x, bipolar(36, 3, 3, 40), (4, 4, 36), threshold=np.arange(150, 186))
    pool = {
        "filter_height": 2,
        "filter_width": 2,
        "stride_height": 2,
        "stride_width": 2,
        "padding": 1,
    }
    x = b.add("LceBMaxPool2d", [x], (2, 2, 2), kind=INT32, custom=pool)
    x = b.add("LceDequantize", [x], (2, 2, 36))
    shape = b.constant("shape", np.array([1, -1]))
    x = b.add("RESHAPE", [x, shape], (144,))
    weight = b.constant("w", bipolar(5, 144, seed=1) * 0.5)
    x = b.add("FULLY_CONNECTED", [x, weight, b.constant("b", random(5))], (5,), options={})
    return b.model(x)


def int8_network(where: str) -> bytes:
    """A binary convolution with int8 before it or behind it, as LCE's converter makes them."""
    b = Builder(6, 6, 32)
    if where == "input":
        b.tensors[0][1] = number("b", INT8)
    x = b.add("LceQuantize", ["x"], (6, 6, 1), kind=INT32)
    x = bconv(b, x, bipolar(36, 3, 3, 32), (4, 4, 36))
    if where == "output":
        b.tensors[-1][1] = number("b", INT8)
    return b.model(b.add("MEAN", [x, b.constant("axes", np.array([1, 2]))], (36,), options={}))

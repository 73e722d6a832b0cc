"""Reads darknet's weights beside their .cfg; xnor=1 as its float path computes it, or its bits.

darknet disagrees with itself.  Its float path, which networks are trained and validated with, pads
binary layers with 0; its CPU path of bits, after calculate_binary_weights, with the bit 0, which is
-1, and without AVX2 it fills no bits at all of layers that are not padded, such as 1x1, whose
outputs are then constants (im2col_cpu_custom_bin).  ``bit_path`` asks for the border of -1; what
is a defect is not reproduced.  sign(0) is -1 on both.

Source: AlexeyAB/darknet, src/parser.c (load_convolutional_weights), src/convolutional_layer.c,
src/gemm.c, src/blas.c (normalize_cpu), src/activations.h.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Mapping

import numpy as np

from bitinfer.bits import Floats
from bitinfer.errors import CheckpointError, ConversionError
from bitinfer.files import one_line
from bitinfer.importers.binary import PLAIN
from bitinfer.importers.foreign import Attribute, Foreign, ForeignNode

EPSILON = 1e-5
MAX_LAYERS = 10_000
MAX_ELEMENTS = 1 << 28

Section = Mapping[str, str]
Shape = tuple[int, ...]


def from_bytes(data: bytes, network: bytes = b"", *, bit_path: bool = False) -> Foreign:
    """Return the network.

    Meaning: ``network`` is the .cfg; with ``bit_path``, binary layers pad with -1, otherwise 0.
    Raises:  CheckpointError if there is none, or the weights do not fit it; ConversionError if a
             section has no counterpart.
    """
    if not network:
        raise CheckpointError("it holds weights without their network: pass its .cfg as --network")
    sections = _sections(network)
    try:
        return _Reader(data, sections, -1.0 if bit_path else 0.0).read()
    except (ValueError, KeyError, ArithmeticError) as error:
        if isinstance(error, CheckpointError | ConversionError):
            raise
        raise CheckpointError(f"the .cfg does not fit: {one_line(error)}") from error


def _sections(network: bytes) -> list[tuple[str, dict[str, str]]]:
    result: list[tuple[str, dict[str, str]]] = []
    for line in network.decode("utf-8-sig", "replace").splitlines():
        line = line.partition("#")[0].strip()
        if line.startswith("["):
            result.append((line.strip("[] ").lower(), {}))
        elif line and not line.startswith(";"):
            key, equals, value = line.partition("=")
            if not equals or not result:
                raise CheckpointError(f"the .cfg has a line {one_line(line, 40)!r}")
            result[-1][1][key.strip()] = value.strip()
    if not result or result[0][0] not in ("net", "network") or len(result) > MAX_LAYERS:
        raise CheckpointError("the .cfg does not begin with [net]")
    return result


class _Reader:
    """Reads one section after the other, and its weights where the last one's ended."""

    def __init__(
        self, data: bytes, sections: list[tuple[str, dict[str, str]]], pad_value: float
    ) -> None:
        self.data = data
        self.pad_value = pad_value
        self.sections = sections
        if len(data) < 16:
            raise CheckpointError("it is shorter than darknet's header")
        major, minor, _ = struct.unpack("<3i", data[:12])
        if major != 0 or not 0 <= minor < 10:
            raise CheckpointError(f"these are no weights of darknet: version {major}.{minor}")
        # The number of pictures seen has 8 bytes since version 0.2.
        self.at = 20 if 10 * major + minor >= 2 else 16
        self.nodes: list[ForeignNode] = []
        self.constants: dict[str, Floats] = {}
        self.made: list[str] = []
        self.shapes: dict[str, Shape] = {}

    def read(self) -> Foreign:
        _, net = self.sections[0]
        shape = tuple(int(net.get(key, 0)) for key in ("channels", "height", "width"))
        if min(shape) < 1 or math.prod(shape) > MAX_ELEMENTS:
            raise CheckpointError(f"the .cfg has an input of {shape}")
        self.shapes["input"] = shape
        x = "input"
        for number, (kind, section) in enumerate(self.sections[1:]):
            name = f"{number}.{kind}"
            handler = _HANDLERS.get(kind)
            if handler is None:
                raise ConversionError(f"{one_line(name)}: there is no such section here")
            try:
                x = handler(self, name, section, x)
            except (CheckpointError, ConversionError) as error:
                raise type(error)(f"{name}: {error}") from error
            self.made.append(x)
        if self.at != len(self.data):
            raise CheckpointError(
                f"{len(self.data) - self.at} bytes are left behind the last layer: "
                "do .cfg and .weights belong together?"
            )
        nodes, constants = tuple(self.nodes), self.constants
        return Foreign("darknet", "NCHW", "input", shape, nodes, constants, (x,))

    def floats(self, *shape: int) -> Floats:
        """Return the next numbers of the file."""
        count = math.prod(shape)
        if not 0 < count <= MAX_ELEMENTS or self.at + 4 * count > len(self.data):
            left = (len(self.data) - self.at) // 4
            raise CheckpointError(f"{left} numbers are left, wanted {count} in the shape {shape}")
        found = np.frombuffer(self.data, "<f4", count, self.at).reshape(shape)
        if not np.isfinite(found).all():
            raise CheckpointError(f"the numbers at {self.at} hold NaN or infinity")
        self.at += 4 * count
        return found.astype(np.float32)

    def constant(self, name: str, value: Floats) -> str:
        self.constants[name] = value
        return name

    def add(
        self, name: str, word: str, inputs: tuple[str, ...], shape: Shape, /, **more: Attribute
    ) -> str:
        if min(shape) < 1 or math.prod(shape) > MAX_ELEMENTS:
            raise CheckpointError(f"a value of shape {shape}")
        self.nodes.append(ForeignNode(name, word, inputs, more))
        self.shapes[name] = shape
        return name

    def map(self, x: str) -> Shape:
        if len(self.shapes[x]) != 3:
            raise CheckpointError(f"an input of shape {self.shapes[x]}, wanted a map")
        return self.shapes[x]

    def earlier(self, index: int) -> str:
        """Return what a section made; from the end if ``index`` is negative."""
        if not -len(self.made) <= index < len(self.made):
            raise CheckpointError(f"reads the section {index}, of which {len(self.made)} are there")
        return self.made[index]


def _number(section: Section, key: str, default: int) -> int:
    return int(section.get(key, default))


def _norm(r: _Reader, name: str, x: str, parts: tuple[Floats, Floats, Floats], bias: Floats) -> str:
    scale, mean, variance = parts
    names = [
        r.constant(f"{name}.{what}", value)
        for what, value in (("scale", scale), ("bias", bias), ("mean", mean), ("var", variance))
    ]
    return r.add(f"{name}.norm", "batch_norm", (x, *names), r.shapes[x], epsilon=EPSILON)


def _convolutional(r: _Reader, name: str, section: Section, x: str) -> str:
    channels, height, width = r.map(x)
    size, filters = _number(section, "size", 1), _number(section, "filters", 1)
    stride, groups = _number(section, "stride", 1), _number(section, "groups", 1)
    dilation = _number(section, "dilation", 1)
    stride_x, stride_y = (_number(section, f"stride_{axis}", stride) for axis in "xy")
    pad = size // 2 if _number(section, "pad", 0) else _number(section, "padding", 0)
    pad *= dilation
    if min(size, filters, stride_x, stride_y, groups, dilation) < 1 or channels % groups:
        raise CheckpointError(f"size {size}, filters {filters}, groups {groups} of {channels}")
    bias, parts = r.floats(filters), None
    if _number(section, "batch_normalize", 0):
        parts = (r.floats(filters), r.floats(filters), r.floats(filters))
    weight = r.floats(filters, channels // groups, size, size)
    is_binary = bool(_number(section, "xnor", 0))
    if is_binary:
        signs = np.where(weight > 0, np.float32(1), np.float32(-1))
        weight = signs * PLAIN.split(weight)[1].reshape(-1, 1, 1, 1)
        strict = {"at_zero": -1, "low": -1.0, "high": 1.0}
        x = r.add(f"{name}.sign", "sign", (x,), r.shapes[x], **strict)
    elif _number(section, "binary", 0):
        raise ConversionError("binary=1: only xnor=1 is read")
    inputs: tuple[str, ...] = (x, r.constant(f"{name}.weight", weight))
    if parts is None:
        inputs += (r.constant(f"{name}.bias", bias),)
    reach = dilation * (size - 1) + 1
    out = ((height + 2 * pad - reach) // stride_y + 1, (width + 2 * pad - reach) // stride_x + 1)
    x = r.add(
        name,
        "conv",
        inputs,
        (filters, *out),
        axes="OIHW",
        strides=(stride_y, stride_x),
        pads=(pad, pad, pad, pad),
        dilations=(dilation, dilation),
        groups=groups,
        pad_value=r.pad_value if is_binary else 0.0,
        counts="sums",
    )
    if parts is not None:
        x = _norm(r, name, x, parts, bias)
    return _activation(r, name, section.get("activation", "logistic"), x)


def _connected(r: _Reader, name: str, section: Section, x: str) -> str:
    inputs, outputs = math.prod(r.shapes[x]), _number(section, "output", 1)
    bias, weight = r.floats(outputs), r.floats(outputs, inputs)
    parts = None
    if _number(section, "batch_normalize", 0):
        parts = (r.floats(outputs), r.floats(outputs), r.floats(outputs))
    if len(r.shapes[x]) > 1:
        x = r.add(f"{name}.flat", "flatten", (x,), (inputs,))
    names: tuple[str, ...] = (x, r.constant(f"{name}.weight", weight))
    if parts is None:
        names += (r.constant(f"{name}.bias", bias),)
    x = r.add(name, "dense", names, (outputs,), axes="OI", counts="sums")
    if parts is not None:
        x = _norm(r, name, x, parts, bias)
    return _activation(r, name, section.get("activation", "logistic"), x)


def _activation(r: _Reader, name: str, kind: str, x: str) -> str:
    name, shape = f"{name}.{kind}", r.shapes[x]
    match kind:
        case "linear":
            return x
        case "leaky":
            slope = r.constant(f"{name}.slope", np.asarray(0.1, np.float32))
            return r.add(name, "prelu", (x, slope), shape)
        case "relu" | "tanh":
            return r.add(name, kind, (x,), shape)
        case "relu6":
            return r.add(name, "clip", (x,), shape, low=0.0, high=6.0)
        case "hardtan":
            return r.add(name, "clip", (x,), shape, low=-1.0, high=1.0)
        case "logistic":
            return r.add(name, "sigmoid", (x,), shape)
    raise ConversionError(f"the activation {one_line(kind)} is not there")


def _maxpool(r: _Reader, name: str, section: Section, x: str) -> str:
    channels, height, width = r.map(x)
    stride = _number(section, "stride", 1)
    size = _number(section, "size", stride)
    pad = _number(section, "padding", size - 1)
    if min(size, stride) < 1 or pad < 0:
        raise CheckpointError(f"size {size}, stride {stride}, padding {pad}")
    sides = (pad // 2, pad - pad // 2)
    out = ((height + pad - size) // stride + 1, (width + pad - size) // stride + 1)
    window = {"kernel": (size, size), "strides": (stride, stride), "pads": sides + sides}
    return r.add(name, "max_pool", (x,), (channels, *out), **window)


def _avgpool(r: _Reader, name: str, section: Section, x: str) -> str:
    channels, _, _ = r.map(x)
    x = r.add(name, "global_avg_pool", (x,), (channels, 1, 1))
    return r.add(f"{name}.flat", "flatten", (x,), (channels,))


def _softmax(r: _Reader, name: str, section: Section, x: str) -> str:
    if _number(section, "groups", 1) != 1 or len(r.shapes[x]) != 1:
        raise ConversionError("a softmax in groups, or of a map")
    return r.add(name, "softmax", (x,), r.shapes[x])


def _shortcut(r: _Reader, name: str, section: Section, x: str) -> str:
    other = r.earlier(int(section["from"]))
    if r.shapes[other] != r.shapes[x]:
        raise ConversionError(f"adds {r.shapes[other]} to {r.shapes[x]}")
    total = r.add(name, "add", (x, other), r.shapes[x])
    return _activation(r, name, section.get("activation", "linear"), total)


def _route(r: _Reader, name: str, section: Section, x: str) -> str:
    if _number(section, "groups", 1) != 1:
        raise ConversionError("a route of groups")
    parts = tuple(r.earlier(int(index)) for index in section["layers"].split(","))
    if len(parts) == 1:
        return parts[0]
    shapes = [r.map(part) for part in parts]
    if len({shape[1:] for shape in shapes}) != 1:
        raise CheckpointError(f"joins {shapes}")
    shape = (sum(s[0] for s in shapes), *shapes[0][1:])
    return r.add(name, "concat", parts, shape, axis=0)


def _same(r: _Reader, name: str, section: Section, x: str) -> str:
    return x


_HANDLERS: Mapping[str, Callable[[_Reader, str, Section, str], str]] = {
    "convolutional": _convolutional,
    "conv": _convolutional,
    "connected": _connected,
    "conn": _connected,
    "maxpool": _maxpool,
    "max": _maxpool,
    "avgpool": _avgpool,
    "avg": _avgpool,
    "softmax": _softmax,
    "soft": _softmax,
    "shortcut": _shortcut,
    "route": _route,
    "dropout": _same,
    "cost": _same,
}
"""By section, what writes it."""

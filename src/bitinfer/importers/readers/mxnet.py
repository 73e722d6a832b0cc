"""Reads MXNet's .params beside their symbol.json, with BMXNet's binary layers of both versions.

BMXNet v1 has operators of its own (QActivation, QConvolution, QFullyConnected), which count
agreements, pad with +1, and keep packed weights as floats whose bits are the signs.  BMXNet v2
writes stock operators.  Source: apache/mxnet 1.9, src/ndarray/ndarray.cc (NDArray::Load);
hpi-xnor/BMXNet, smd_hpi/src/q_convolution-inl.h, binary_layer.h, xnor_cpu.h.
"""

from __future__ import annotations

import json
import math
import struct
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bitinfer.errors import CheckpointError, ConversionError
from bitinfer.files import one_line
from bitinfer.importers.foreign import Foreign
from bitinfer.importers.readers import _mxnet_operators
from bitinfer.importers.readers._graph_draft import MAX_ELEMENTS
from bitinfer.importers.readers._mxnet_graph import MxnetGraph, MxnetNode

Array = NDArray[Any]
Shape = tuple[int, ...]

MAX_NODES = 100_000
MAX_AXES = 8
_LIST_MAGIC = 0x112
_MAGICS = {0xF993FAC8: "<q", 0xF993FAC9: "<q", 0xF993FACA: "<q"}
_TYPES = {0: "<f4", 1: "<f8", 2: "<f2", 3: "u1", 4: "<i4", 5: "i1", 6: "<i8"}


def from_bytes(data: bytes, network: bytes = b"", shape: Shape | None = None) -> Foreign:
    """Return the network.

    Shapes:  shape (C, H, W) or (C,) of one input, which MXNet keeps in neither file.
    Meaning: ``network`` is the symbol.json.
    Raises:  CheckpointError if either is missing or does not fit; ConversionError if an operator
             has no counterpart.
    """
    if data[:8] != struct.pack("<Q", _LIST_MAGIC):
        raise CheckpointError("these are no .params of MXNet")
    arrays = _arrays(data)
    if not network or shape is None:
        raise CheckpointError(
            "it holds weights without their network: pass X-symbol.json as --network, and the size "
            "of the input as --input-shape HxWxC"
        )
    graph = MxnetGraph(arrays, shape)
    try:
        symbol = json.loads(network)
        outputs = _walk(graph, symbol)
    except (ValueError, KeyError, IndexError, TypeError, ArithmeticError) as error:
        if isinstance(error, CheckpointError | ConversionError):
            raise
        raise CheckpointError(f"the symbol.json does not fit: {one_line(error)}") from error
    used = {name for node in graph.nodes for name in node.inputs}
    constants = {n: a for n, a in graph.constants.items() if n in used}
    nodes = tuple(graph.nodes)
    return Foreign("mxnet", "NCHW", graph.input, shape, nodes, constants, outputs)


def _walk(graph: MxnetGraph, symbol: Any) -> tuple[str, ...]:
    items = symbol["nodes"]
    if not isinstance(items, list) or not 0 < len(items) <= MAX_NODES:
        raise CheckpointError("the symbol.json has no nodes, or too many")
    names: list[str] = []
    for item in items:
        name, operation = str(item["name"]), str(item["op"])
        names.append(name)
        if operation == "null":
            if name not in graph.constants:
                graph.take_input(name)
            continue
        attributes: dict[str, Any] = {}
        for key in ("param", "attr", "attrs"):
            if isinstance(item.get(key), dict):
                attributes |= item[key]
        sources = (names[source[0]] for source in item["inputs"])
        inputs = tuple(graph.alias.get(source, source) for source in sources)
        where = f"{one_line(name)} ({one_line(operation)})"
        try:
            _mxnet_operators.write(graph, MxnetNode(name, operation, attributes, inputs))
        except (CheckpointError, ConversionError) as error:
            raise type(error)(f"{where}: {error}") from error
        except (ValueError, KeyError, IndexError, TypeError, SyntaxError) as error:
            raise CheckpointError(f"{where}: {one_line(error)}") from error
    return tuple(graph.alias.get(names[h[0]], names[h[0]]) for h in symbol["heads"])


def _arrays(data: bytes) -> dict[str, Array]:
    """Return the arrays of a list by their names."""
    at = 16

    def take(kind: str) -> Any:
        nonlocal at
        size = struct.calcsize(kind)
        if at + size > len(data):
            raise CheckpointError(f"it ends at {len(data)}, within a header")
        value = struct.unpack_from(kind, data, at)
        at += size
        return value[0]

    def array() -> Array:
        nonlocal at
        first = take("<I")
        dims = "<I"
        if first in _MAGICS:
            dims = _MAGICS[first]
            if first != 0xF993FAC8 and take("<i") != 0:
                raise ConversionError("a sparse array: save the weights dense")
            first = take("<i")
        if not 0 <= first <= MAX_AXES:
            raise CheckpointError(f"an array of {first} axes, at most {MAX_AXES}")
        shape = tuple(take(dims) for _ in range(first))
        if first == 0:
            return np.zeros(())
        take("<i"), take("<i")
        kind = take("<i")
        if kind not in _TYPES or any(not 0 <= n <= MAX_ELEMENTS for n in shape):
            raise CheckpointError(f"an array of type {kind} and shape {shape}")
        count = math.prod(shape)
        size = count * np.dtype(_TYPES[kind]).itemsize
        if count > MAX_ELEMENTS or at + size > len(data):
            raise CheckpointError(f"an array of shape {shape} in {len(data) - at} bytes")
        found = np.frombuffer(data, _TYPES[kind], count, at).reshape(shape)
        at += size
        return found

    count = take("<Q")
    if count > len(data) // 8:
        raise CheckpointError(f"{count} arrays in {len(data)} bytes")
    arrays = [array() for _ in range(count)]
    names: list[str] = []
    for _ in range(take("<Q") if count else 0):
        length = take("<Q")
        if at + length > len(data):
            raise CheckpointError("a name reaches beyond the end")
        names.append(data[at : at + length].decode("utf-8", "replace").partition(":")[2])
        at += length
    if len(names) != len(arrays):
        raise CheckpointError(f"{len(arrays)} arrays and {len(names)} names")
    return dict(zip(names, arrays, strict=True))

"""Reads networks of BNN-PYNQ, their weights as bits and their thresholds: a folder, or an .npz.

``w0_bits``, ``w0_shape``, ``t0``, ``w1_bits``, ...: packed signs (least significant bit first, 1
for +1) of (outputs, inputs), and a threshold per output.  A bit of the next layer is 1 where more
weights agree than the threshold says; of the last layer the output is agreements less threshold.
A folder is read from an archive of its files (folder.py, _bnn_pynq_folder.py).

LFC, dense: the picture is one bit a pixel, 1 from 127.5 on, and padded with bits 0 to whole words,
which the weights there meet as they are stored.  CNV: the picture is ``2 * pixel / 255 - 1`` in
multiples of 1/128, the first thresholds are in 1/256, a maximum of bits stands behind the second
and the fourth convolution, and the last layer has no thresholds.  Source: Xilinx/BNN-PYNQ,
bnn/src/library/host/foldedmv-offload.cpp, bnn/src/training/finnthesizer.py; Umuroglu et al. 2017.
"""

from __future__ import annotations

import io
import math
import re
import zipfile
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bitinfer.bits import Floats
from bitinfer.errors import CheckpointError, ConversionError
from bitinfer.files import one_line
from bitinfer.importers.foreign import Attribute, Foreign, ForeignNode
from bitinfer.importers.readers import _bnn_pynq_folder
from bitinfer.importers.readers._bnn_pynq_folder import CNV_NEURONS, CNV_SYNAPSES, Layers

Array = NDArray[Any]

MAX_BYTES = 1 << 30
MAX_LAYERS = 64
MAX_LABELS = 1 << 16
HALF = 127.5
"""From here on a pixel is +1."""
CNV_STEP = 2.0**-7
"""Of CNV's input."""
_FIRST = "0-0-weights.bin"
_MEMBER = re.compile(r"(?:w\d+_(?:bits|shape)|t\d+)\.npy")


_CONVOLUTIONS = 6
_POOLED = (1, 3)
"""Convolutions of CNV that a maximum follows."""
_SIGNS: dict[str, Attribute] = {"at_zero": 1, "low": -1.0, "high": 1.0}
_BEYOND = 2.0**24
"""What no sum reaches, and float32 still holds exactly."""


def from_bytes(data: bytes) -> Foreign:
    """Return the network: pixels 0 to 255 of a picture to one number a class.

    Raises:
        CheckpointError: these are no such arrays or files.
        ConversionError: weights or activations have 2 bits.
    """
    try:
        archive = zipfile.ZipFile(io.BytesIO(data))
        size = sum(member.file_size for member in archive.infolist())
        is_folder = _FIRST in archive.namelist()
    except Exception as error:  # zipfile lets its struct, codec and index errors through
        raise CheckpointError(f"this is no archive of BNN-PYNQ: {one_line(error)}") from error
    if size > MAX_BYTES:
        raise CheckpointError(f"it unpacks to over {MAX_BYTES} bytes")
    labels: tuple[str, ...] = ()
    if is_folder:
        try:
            layers = _bnn_pynq_folder.read(archive)
            labels = _labels(archive)
        except (CheckpointError, ConversionError):
            raise
        except Exception as error:  # of zipfile and zlib
            raise CheckpointError(f"this is damaged: {one_line(error)}") from error
    else:
        layers = _layers(_arrays(archive))
    if tuple(weight.shape for weight, _ in layers) == tuple(
        zip(CNV_NEURONS, CNV_SYNAPSES, strict=True)
    ):
        return _cnv(layers, labels)
    return _dense(layers, labels)


class _Writer:
    """Nodes and constants as far as they are written."""

    def __init__(self) -> None:
        self.nodes: list[ForeignNode] = []
        self.constants: dict[str, Array] = {}

    def add(self, name: str, word: str, *inputs: str, **attributes: Attribute) -> str:
        self.nodes.append(ForeignNode(name, word, inputs, attributes))
        return name

    def constant(self, name: str, value: Any) -> str:
        self.constants[name] = np.asarray(value, np.float32)
        return name

    def above(self, name: str, x: str, limit: Array) -> str:
        """Write the difference with a limit per output."""
        limit = np.clip(limit.astype(np.float64), -_BEYOND, _BEYOND)
        return self.add(f"{name}.margin", "subtract", x, self.constant(f"{name}.limit", limit))

    def bits(self, name: str, x: str, limit: Array) -> str:
        """Write the bits of what is at or above a limit per output."""
        return self.add(f"{name}.bits", "sign", self.above(name, x, limit), **_SIGNS)

    def classes(self, x: str, width: int, count: int) -> str:
        """Write the outputs that stand for classes; the others fill whole words."""
        return self.add("classes", "slice", x, axis=0, begin=0, end=count) if count < width else x

    def foreign(
        self, name: str, shape: tuple[int, ...], x: str, labels: tuple[str, ...]
    ) -> Foreign:
        nodes = tuple(self.nodes)
        return Foreign(name, "NHWC", "input", shape, nodes, self.constants, (x,), labels)


def _dense(layers: Layers, labels: tuple[str, ...]) -> Foreign:
    w = _Writer()
    side = math.isqrt(layers[0][0].shape[1])
    x = w.add("pixels", "flatten", "input")
    half = w.constant("half", HALF)
    x = w.add("bits", "sign", w.add("pixels.margin", "subtract", x, half), **_SIGNS)
    width = side * side
    for i, (weight, threshold) in enumerate(layers):
        if threshold is None:
            raise CheckpointError(f"layer {i} has no thresholds")
        if weight.shape[1] < width or (i and weight.shape[1] != width):
            raise CheckpointError(f"w{i} has {weight.shape[1]} inputs, the layer before {width}")
        # Padding is the bit 0, which agrees with the weights that are -1.
        limit = threshold - np.count_nonzero(weight[:, width:] < 0, axis=1).astype(np.float64)
        weight = np.ascontiguousarray(weight[:, :width])
        name = f"layer{i}"
        x = w.add(name, "dense", x, w.constant(f"w{i}", weight), axes="OI", counts="agreements")
        width = weight.shape[0]
        is_last = i == len(layers) - 1
        x = w.above(name, x, limit) if is_last else w.bits(name, x, limit + 1)
    # Outputs that fill the last words have thresholds that no agreements reach.
    last, threshold = layers[-1]
    count = int(np.count_nonzero(threshold < last.shape[1])) or width
    return w.foreign("bnn-pynq", (side, side, 1), w.classes(x, width, count), labels)


def _cnv(layers: Layers, labels: tuple[str, ...]) -> Foreign:
    w = _Writer()
    x = w.add("scaled", "multiply", "input", w.constant("scale", 2 / 255))
    x = w.add("centred", "subtract", x, w.constant("one", 1.0))
    x = w.add("quantized", "quantize", x, scale=CNV_STEP)
    attributes: dict[str, Attribute] = {
        "strides": (1, 1),
        "pads": (0, 0, 0, 0),
        "dilations": (1, 1),
        "groups": 1,
        "pad_value": 0.0,
    }
    for i, (weight, threshold) in enumerate(layers):
        name, is_first, is_last = f"layer{i}", i == 0, i == len(layers) - 1
        if threshold is None and not is_last:
            raise CheckpointError(f"layer {i} has no thresholds")
        counts = "sums" if is_first else "agreements"
        if i < _CONVOLUTIONS:
            kernels = w.constant(f"w{i}", weight.reshape(len(weight), 3, 3, -1))
            x = w.add(name, "conv", x, kernels, axes="OHWI", counts=counts, **attributes)
        else:
            if i == _CONVOLUTIONS:
                x = w.add("flat", "flatten", x)
            x = w.add(name, "dense", x, w.constant(f"w{i}", weight), axes="OI", counts=counts)
        if threshold is not None and not is_last:
            # Twice the sum of the first layer, in 1/256, is above the threshold.
            limit = (threshold // 2 + 1) * CNV_STEP if is_first else threshold + 1
            x = w.bits(name, x, limit)
        if i in _POOLED:
            x = w.add(f"pool{i}", "max_pool", x, kernel=(2, 2), strides=(2, 2), pads=(0, 0, 0, 0))
    # Outputs that fill the last words have weights of +1 alone.
    last, threshold = layers[-1]
    if threshold is not None:
        x = w.above(name, x, threshold)
    count = len(labels) or int(np.flatnonzero((last < 0).any(axis=1)).max(initial=0)) + 1
    return w.foreign("bnn-pynq-cnv", (32, 32, 3), w.classes(x, len(last), count), labels)


def _labels(archive: zipfile.ZipFile) -> tuple[str, ...]:
    """Return the lines of classes.txt."""
    if "classes.txt" not in archive.namelist():
        return ()
    lines = archive.read("classes.txt").decode("utf-8", "replace").splitlines()
    return tuple(one_line(line.strip(), 100) for line in lines if line.strip())[:MAX_LABELS]


def _layers(arrays: dict[str, Array]) -> Layers:
    count = sum(name.endswith("_bits") for name in arrays)
    if not 0 < count <= MAX_LAYERS:
        raise CheckpointError(f"{count} layers, wanted w0_bits, w0_shape, t0 and so on")
    return [_layer(arrays, i, count) for i in range(count)]


def _arrays(archive: zipfile.ZipFile) -> dict[str, Array]:
    try:
        result = {}
        for member in archive.infolist():
            if _MEMBER.fullmatch(member.filename):
                with archive.open(member) as file:
                    array = np.lib.format.read_array(file, allow_pickle=False)
                result[member.filename.removesuffix(".npy")] = array
    except Exception as error:  # zipfile and NumPy let errors of many kinds through
        raise CheckpointError(f"this is no .npz of BNN-PYNQ: {one_line(error)}") from error
    return result


def _layer(arrays: dict[str, Array], index: int, count: int) -> tuple[Floats, Array | None]:
    """Return a layer; the last of CNV has no thresholds."""
    try:
        bits, shape = arrays[f"w{index}_bits"], arrays[f"w{index}_shape"].reshape(-1)
        is_bare = count == len(CNV_NEURONS) and index == count - 1 and f"t{index}" not in arrays
        threshold = None if is_bare else arrays[f"t{index}"].reshape(-1)
    except KeyError as error:
        raise CheckpointError(f"{error} is missing") from error
    kinds = (bits.dtype.kind, shape.dtype.kind, "i" if threshold is None else threshold.dtype.kind)
    if kinds[0] != "u" or kinds[1] not in "iu" or kinds[2] not in "iu" or shape.size not in (2, 4):
        raise CheckpointError(f"layer {index}: arrays of other types than bits and whole numbers")
    outputs, inputs = int(shape[0]), math.prod(int(n) for n in shape[1:])
    fits = threshold is None or threshold.size == outputs
    if min(outputs, inputs) < 1 or outputs * inputs > 8 * bits.nbytes or not fits:
        raise CheckpointError(f"layer {index}: {bits.nbytes} bytes for {outputs} x {inputs}")
    found = np.unpackbits(bits.view(np.uint8).reshape(-1), bitorder="little")[: outputs * inputs]
    if threshold is not None:
        threshold = threshold.astype(np.int64)
    return (2 * found.astype(np.float32) - 1).reshape(outputs, inputs), threshold

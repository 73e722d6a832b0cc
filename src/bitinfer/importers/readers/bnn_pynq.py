"""Reads dense networks of BNN-PYNQ, their weights as bits and their thresholds, from an .npz.

``w0_bits``, ``w0_shape``, ``t0``, ``w1_bits``, ...: packed signs (least significant bit first, 1
for +1) of (outputs, inputs), and a threshold per output.  A bit of the next layer is 1 where more
weights agree than the threshold says; of the last layer the output is agreements less threshold.
The picture is one bit a pixel, 1 from 127.5 on, and padded with bits 0 to whole words, which the
weights there meet as they are stored.  Source: Xilinx/BNN-PYNQ, bnn/src/library/host/foldedmv-
offload.cpp and bnn/src/training/finnthesizer.py; Umuroglu et al. 2017.
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
from bitinfer.errors import CheckpointError
from bitinfer.files import one_line
from bitinfer.importers.foreign import Foreign, ForeignNode

Array = NDArray[Any]

MAX_BYTES = 1 << 30
MAX_LAYERS = 64
HALF = 127.5
"""From here on a pixel is +1."""
_MEMBER = re.compile(r"(?:w\d+_(?:bits|shape)|t\d+)\.npy")


def from_bytes(data: bytes) -> Foreign:
    """Return the network: pixels 0 to 255 of a square grey picture to one number a class.

    Raises:
        CheckpointError: these are no such arrays.
    """
    arrays = _arrays(data)
    count = sum(name.endswith("_bits") for name in arrays)
    if not 0 < count <= MAX_LAYERS:
        raise CheckpointError(f"{count} layers, wanted w0_bits, w0_shape, t0 and so on")
    layers = [_layer(arrays, i) for i in range(count)]
    padded = layers[0][0].shape[1]
    side = math.isqrt(padded)
    nodes: list[ForeignNode] = []
    constants: dict[str, Array] = {"half": np.asarray(HALF, np.float32)}

    def add(name: str, word: str, *inputs: str, **attributes: float | str | tuple[int, ...]) -> str:
        nodes.append(ForeignNode(name, word, inputs, attributes))
        return name

    signs = {"at_zero": 1, "low": -1.0, "high": 1.0}
    x = add("pixels", "flatten", "input")
    x = add("bits", "sign", add("pixels.margin", "subtract", x, "half"), **signs)
    width = side * side
    for i, (weight, threshold) in enumerate(layers):
        if weight.shape[1] < width or (i and weight.shape[1] != width):
            raise CheckpointError(f"w{i} has {weight.shape[1]} inputs, the layer before {width}")
        # Padding is the bit 0, which agrees with the weights that are -1.
        agreed = np.count_nonzero(weight[:, width:] < 0, axis=1)
        constants[f"w{i}"] = np.ascontiguousarray(weight[:, :width])
        x = add(f"layer{i}", "dense", x, f"w{i}", axes="OI", counts="agreements")
        is_last = i == len(layers) - 1
        limit = threshold.astype(np.float64) - agreed + (0 if is_last else 1)
        constants[f"t{i}"] = np.clip(limit, -(2.0**24), 2.0**24).astype(np.float32)
        x = add(f"layer{i}.margin", "subtract", x, f"t{i}")
        if not is_last:
            x = add(f"layer{i}.bits", "sign", x, **signs)
        width = weight.shape[0]
    # Outputs that fill the last words have thresholds that no agreements reach.
    classes = int(np.count_nonzero(layers[-1][1] < layers[-1][0].shape[1]))
    if 0 < classes < width:
        x = add("classes", "slice", x, axis=0, begin=0, end=classes)
    return Foreign("bnn-pynq", "NCHW", "input", (1, side, side), tuple(nodes), constants, (x,))


def _arrays(data: bytes) -> dict[str, Array]:
    try:
        archive = zipfile.ZipFile(io.BytesIO(data))
        members = [m for m in archive.infolist() if _MEMBER.fullmatch(m.filename)]
        if sum(m.file_size for m in members) > MAX_BYTES:
            raise CheckpointError(f"it unpacks to over {MAX_BYTES} bytes")
        result = {}
        for member in members:
            with archive.open(member) as file:
                array = np.lib.format.read_array(file, allow_pickle=False)
            result[member.filename.removesuffix(".npy")] = array
    except CheckpointError:
        raise
    except Exception as error:  # zipfile and NumPy let errors of many kinds through
        raise CheckpointError(f"this is no .npz of BNN-PYNQ: {one_line(error)}") from error
    return result


def _layer(arrays: dict[str, Array], index: int) -> tuple[Floats, Array]:
    try:
        bits, shape = arrays[f"w{index}_bits"], arrays[f"w{index}_shape"].reshape(-1)
        threshold = arrays[f"t{index}"].reshape(-1)
    except KeyError as error:
        raise CheckpointError(f"{error} is missing") from error
    kinds = (bits.dtype.kind, shape.dtype.kind, threshold.dtype.kind)
    if kinds[0] != "u" or kinds[1] not in "iu" or kinds[2] not in "iu" or shape.size != 2:
        raise CheckpointError(f"layer {index}: arrays of other types than bits and whole numbers")
    outputs, inputs = int(shape[0]), int(shape[1])
    if min(outputs, inputs) < 1 or outputs * inputs > 8 * bits.nbytes or threshold.size != outputs:
        raise CheckpointError(f"layer {index}: {bits.nbytes} bytes for {outputs} x {inputs}")
    found = np.unpackbits(bits.view(np.uint8).reshape(-1), bitorder="little")[: outputs * inputs]
    return (2 * found.astype(np.float32) - 1).reshape(outputs, inputs), threshold

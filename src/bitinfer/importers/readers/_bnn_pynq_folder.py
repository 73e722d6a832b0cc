"""The parameters of BNN-PYNQ as it keeps them: a file per layer and processing element.

``L-P-weights.bin`` has words of 64 bits, little-endian, each with SIMD bits, 1 for +1; neuron
``i * PE + P`` has its synapses in order, a group of SIMD to a word.  ``L-P-thres.bin`` has one
64-bit number per neuron.  PE is how many files there are; how many bits of a word count follows
from the sizes of the layers: those of a convolutional layer are (kh, kw, Cin).  Source: in
Xilinx/BNN-PYNQ, bnn/src/training/finnthesizer.py (BNNProcElemMem), bnn/src/network/*/hw/config.h.
"""

from __future__ import annotations

import math
import re
import zipfile
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bitinfer.bits import Floats
from bitinfer.errors import CheckpointError, ConversionError

Array = NDArray[Any]
Layers = list[tuple[Floats, Array | None]]
"""Weights (outputs, inputs) of -1 and +1, and thresholds (outputs,); None where there are none."""

CNV_NEURONS = (64, 64, 128, 128, 256, 256, 512, 512, 64)
CNV_SYNAPSES = (27, 9 * 64, 9 * 64, 9 * 128, 9 * 128, 9 * 256, 256, 512, 512)
_MNIST_SYNAPSES = 832
"""784 pixels, padded to whole words."""
_WORD = 8
_FILE = re.compile(r"(\d{1,3})-(\d{1,4})-(weights|thres)\.bin")

Parts = Mapping[tuple[int, str], list[bytes]]
"""By layer and kind, the files of its processing elements in order."""


def read(archive: zipfile.ZipFile) -> Layers:
    """Return the layers in an archive of such files.

    Raises:
        CheckpointError: files are missing, or their sizes do not fit together.
        ConversionError: these are weights or activations of 2 bits.
    """
    parts = _parts(archive)
    count = 1 + max(layer for layer, _ in parts)
    depths = [_depth(parts, layer) for layer in range(count)]
    neurons: tuple[int, ...] = tuple(n for n, _ in depths)
    synapses: tuple[int, ...]
    if count == len(CNV_NEURONS) and neurons in (CNV_NEURONS, (*CNV_NEURONS[:-1], 0)):
        neurons, synapses = CNV_NEURONS, CNV_SYNAPSES
    else:
        synapses = (_MNIST_SYNAPSES, *neurons[:-1])
    layers: Layers = []
    for layer, (outputs, inputs) in enumerate(zip(neurons, synapses, strict=True)):
        weight = _weight(parts[layer, "weights"], outputs, inputs, layer)
        found = parts.get((layer, "thres"))
        thresholds = None
        if found is not None:
            columns = [np.frombuffer(data, "<i8") for data in found]
            thresholds = np.stack(columns, axis=1).reshape(-1)
        layers.append((weight, thresholds))
    return layers


def _parts(archive: zipfile.ZipFile) -> Parts:
    by_place: dict[tuple[int, str], dict[int, bytes]] = {}
    for member in archive.infolist():
        match = _FILE.fullmatch(member.filename)
        if match is not None:
            layer, element, kind = match.groups()
            by_place.setdefault((int(layer), kind), {})[int(element)] = archive.read(member)
    result = {}
    for (layer, kind), files in by_place.items():
        if sorted(files) != list(range(len(files))):
            raise CheckpointError(f"layer {layer}: not all of {layer}-0-{kind}.bin and so on")
        if len({len(data) for data in files.values()}) != 1 or len(files[0]) % _WORD:
            raise CheckpointError(f"layer {layer}: its files of {kind} are truncated")
        result[layer, kind] = [files[i] for i in range(len(files))]
    return result


def _depth(parts: Parts, layer: int) -> tuple[int, int]:
    """Return the neurons of a layer, 0 without thresholds, and the words of all its files."""
    weights, thresholds = parts.get((layer, "weights")), parts.get((layer, "thres"))
    if weights is None:
        raise CheckpointError(f"layer {layer}: {layer}-0-weights.bin is missing")
    words = sum(len(data) for data in weights) // _WORD
    if thresholds is None:
        return 0, words
    if len(thresholds) != len(weights):
        raise CheckpointError(
            f"layer {layer}: {len(weights)} files of weights, {len(thresholds)} of thresholds"
        )
    return sum(len(data) for data in thresholds) // _WORD, words


def _weight(files: list[bytes], outputs: int, inputs: int, layer: int) -> Floats:
    elements, size = len(files), outputs * inputs
    words = sum(len(data) for data in files) // _WORD
    if not size or not words or size % words or outputs % elements:
        raise CheckpointError(
            f"layer {layer}: {words} words for {outputs} x {inputs} weights, which are those of no "
            "network with 1 bit (CNV, LFC, SFC) of BNN-PYNQ"
        )
    simd = size // words
    if simd > 64 or inputs % simd:
        raise ConversionError(
            f"layer {layer}: {words} words for {outputs} x {inputs} weights: weights or "
            "activations of 2 bits are not read"
        )
    octets = np.stack([np.frombuffer(data, np.uint8) for data in files])
    bits = np.unpackbits(octets.reshape(elements, -1, _WORD), axis=-1, bitorder="little")
    bits = bits[..., :simd].reshape(elements, outputs // elements, inputs)
    signs = bits.swapaxes(0, 1).reshape(outputs, inputs)
    assert math.prod(signs.shape) == size
    return 2 * signs.astype(np.float32) - 1

"""darknet's weights beside their .cfg compute what its float path computes, or its bits."""

from __future__ import annotations

import random as random_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import small_files
from numpy.typing import NDArray

from bitinfer import session
from bitinfer.errors import BitInferError, CheckpointError, ConversionError
from bitinfer.importers.convert import convert
from bitinfer.importers.options import Options
from bitinfer.importers.readers import darknet as reader
from bitinfer.importers.recognise import recognise
from bitinfer.model import Model

Array = NDArray[Any]


def convolve(x: Array, weight: Array, value: float) -> Array:
    """(N, C, H, W) with (O, C, 3, 3), in float64, a border of one pixel."""
    padded = np.pad(x.astype(np.float64), ((0, 0), (0, 0), (1, 1), (1, 1)), constant_values=value)
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(2, 3))
    return np.einsum("ncyxhw,ochw->noyx", windows, weight)


@pytest.mark.parametrize("bit_path", [False, True])
def test_layers_compute_what_darknet_defines(bit_path: bool) -> None:
    data, cfg = small_files.darknet()
    found = recognise(reader.from_bytes(data, cfg, bit_path=bit_path))
    assert [o.became for o in found.layers if len(o.shape) > 1] == ["float", "binary", "float"]
    x = small_files.random(2, 3, 6, 6, seed=20)
    b0, w0, bias, scale, mean, variance, w1, b2, w2 = small_files.darknet_arrays()
    y = convolve(x, w0, 0) + b0.reshape(-1, 1, 1)
    y = np.where(y > 0, y, np.float32(0.1) * y)
    signs = np.where(w1 > 0, 1, -1) * np.abs(w1).mean((1, 2, 3), keepdims=True)
    y = convolve(np.where(y > 0, 1, -1), signs, -1 if bit_path else 0)
    column = (p.reshape(-1, 1, 1) for p in (mean, variance, scale, bias))
    m, v, s, b = column
    y = (y - m) / np.sqrt(v + 1e-5) * s + b
    y = y.reshape(2, 5, 3, 2, 3, 2).max((3, 5)).reshape(2, -1) @ w2.T + b2
    model = Model(graph=found.graph, tensors=found.tensors)
    result = session.Session(model, "reference").run(np.ascontiguousarray(x.transpose(0, 2, 3, 1)))
    np.testing.assert_allclose(result, y, atol=1e-4)


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        (b"[maxpool]", b"[yolo]", "2.yolo: there is no such section here"),
        (b"output=4", b"output=5", "numbers are left, wanted 225"),
        (b"output=4", b"output=3", "bytes are left behind the last layer"),
        (b"xnor=1", b"binary=1", "only xnor=1 is read"),
        (b"activation=leaky", b"activation=mish", "the activation mish is not there"),
        (b"width=6", b"width=0", "an input of"),
        (b"size=2", b"size=two", "the .cfg does not fit: invalid literal"),
        (b"[net]", b"[convolutional]", "does not begin with"),
    ],
)
def test_what_does_not_fit_is_named(old: bytes, new: bytes, words: str) -> None:
    data, cfg = small_files.darknet()
    with pytest.raises((CheckpointError, ConversionError)) as caught:
        reader.from_bytes(data, cfg.replace(old, new, 1))
    assert words in str(caught.value)


def test_weights_alone_are_refused() -> None:
    with pytest.raises(CheckpointError, match=r"pass its \.cfg as --network"):
        reader.from_bytes(small_files.darknet()[0])


def test_altered_cfg_is_read_or_refused() -> None:
    data, cfg = small_files.darknet()
    rng = random_module.Random(1)
    ends = set()
    for _ in range(300):
        mutant = bytearray(cfg)
        for _ in range(rng.randrange(1, 4)):
            mutant[rng.randrange(len(mutant))] = rng.choice(b"0123456789=[]-xnor\n")
        try:
            recognise(reader.from_bytes(data, bytes(mutant)))
            ends.add("read")
        except BitInferError as error:
            ends.add(type(error).__name__)
    assert ends == {"read", "CheckpointError", "ConversionError"}


def test_sample_computes_what_darknets_float_path_computed(shared: Path) -> None:
    folder = shared / "samples" / "darknet"
    network = (folder / "tiny_xnor.cfg").read_bytes()
    with np.load(folder / "tiny_xnor.npz") as stored:
        x, plain, bits = (stored[k] for k in ("x", "plain_7", "bits_1"))
    x = np.ascontiguousarray(x.transpose(0, 2, 3, 1))
    model, report = convert(folder / "tiny_xnor.weights", options=Options(network=network))
    result = session.Session(model, "reference").run(x)
    np.testing.assert_allclose(result, plain, atol=1e-4, rtol=0)
    assert not any(o.half_binary for o in report.layers)
    # Its path of bits: the first binary layer, which is padded.  (The second is not, and darknet
    # without AVX2 leaves its bits empty.)
    first = network[: network.index(b"[maxpool]")]
    data = (folder / "tiny_xnor.weights").read_bytes()
    end = 20 + 4 * (16 * 4 + 16 * 27 + 24 * 4 + 24 * 144)
    found = recognise(reader.from_bytes(data[:end], first, bit_path=True))
    model = Model(graph=found.graph, tensors=found.tensors)
    result = session.Session(model, "reference").run(x)
    np.testing.assert_allclose(np.moveaxis(np.asarray(result), -1, 1), bits, atol=1e-4, rtol=0)

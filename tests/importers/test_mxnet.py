"""MXNet's files compute what BMXNet's layers are defined to: agreements, packed words, borders."""

from __future__ import annotations

import random as random_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import small_files
from numpy.typing import NDArray
from small_files import Symbol, bipolar, packed, params, random

from bitinfer import session
from bitinfer.errors import BitInferError, CheckpointError, ConversionError
from bitinfer.importers.convert import convert
from bitinfer.importers.options import Options
from bitinfer.importers.readers import mxnet as reader
from bitinfer.importers.recognise import Recognised, recognise
from bitinfer.model import Model

Array = NDArray[Any]


def run(found: Recognised, x: Array) -> Array:
    if x.ndim == 4:
        x = x.transpose(0, 2, 3, 1)
    model = Model(graph=found.graph, tensors=found.tensors)
    return np.asarray(session.Session(model, "reference").run(np.ascontiguousarray(x)))


def became(found: Recognised) -> list[str]:
    return [o.became for o in found.layers if len(o.shape) > 1]


def convolve(x: Array, weight: Array, pad: int, value: float) -> Array:
    pads = ((0, 0), (0, 0), (pad, pad), (pad, pad))
    padded = np.pad(x.astype(np.float64), pads, constant_values=value)
    windows = np.lib.stride_tricks.sliding_window_view(padded, weight.shape[2:], axis=(2, 3))
    return np.einsum("ncyxhw,ochw->noyx", windows, weight)


def sign(x: Array) -> Array:
    return np.where(x >= 0, 1.0, -1.0)


@pytest.mark.parametrize("magic", [None, 0xF993FAC8, 0xF993FAC9, 0xF993FACA])
def test_network_of_bmxnet_v1_in_every_format_of_arrays(magic: int | None) -> None:
    _, symbol = small_files.mxnet()
    arrays = small_files.mxnet_arrays()
    found = recognise(reader.from_bytes(params(arrays, magic), symbol, (3, 6, 6)))
    assert became(found) == ["float", "binary", "float"]
    x = random(2, 3, 6, 6, seed=20)
    y = convolve(x, arrays["c0_weight"], 0, 0) + arrays["c0_bias"].reshape(-1, 1, 1)
    mean, variance, beta = (
        arrays[f"n0_{part}"].reshape(-1, 1, 1) for part in ("moving_mean", "moving_var", "beta")
    )
    # fix_gamma is the default: gamma counts as 1 whatever is stored.
    y = (y - mean) / np.sqrt(variance + 1e-3) + beta
    signs = bipolar(4 * 64 * 9, seed=6).reshape(4, 64, 3, 3)
    y = (convolve(sign(y), signs, 1, 1) + 64 * 9) / 2
    wanted = y.mean((2, 3)) @ arrays["f_weight"].T + arrays["f_bias"]
    np.testing.assert_allclose(run(found, x), wanted, rtol=1e-5, atol=1e-3)


@pytest.mark.parametrize("word", ["<f4", "<f8", None])
def test_dense_layers_are_packed_by_columns(word: str | None) -> None:
    s = Symbol("attr")
    more = {"binarized_weights_only": "True"} if word else {}
    s.add("QFullyConnected", "f", "data", "f_weight", num_hidden="5", no_bias="True", **more)
    signs = bipolar(5, 128)
    weight = signs * np.float32(0.3)
    if word:
        weight = np.ascontiguousarray(packed(signs, word).T).reshape(-1)
    found = recognise(reader.from_bytes(params({"f_weight": weight}), s.text(), (128,)))
    assert became(found) == ["binary"]
    x = random(3, 128, seed=2)
    np.testing.assert_array_equal(run(found, x), (sign(x) @ signs.T + 128) / 2)


def test_stock_operators() -> None:
    s = Symbol("param")
    x = s.add("_mul_scalar", "m", "data", scalar="0.5")
    x = s.add("Pooling", "p", x, kernel="(2, 2)", stride="(2, 2)", pooling_convention="full")
    x = s.add("LeakyReLU", "l", x, act_type="leaky", slope="0.1")
    y = s.add("Activation", "t", x, act_type="tanh")
    x = s.add("Concat", "c", x, s.add("elemwise_add", "a", x, y), dim="1")
    x = s.add("_rminus_scalar", "r", x, scalar="2")
    x = s.add("FullyConnected", "f", x, "f_weight", num_hidden="3", no_bias="True")
    weight = random(3, 54)
    found = recognise(reader.from_bytes(params({"f_weight": weight}), s.text(), (3, 5, 5)))
    x = random(2, 3, 5, 5, seed=1)
    padded = np.pad(0.5 * x, ((0, 0), (0, 0), (0, 1), (0, 1)), constant_values=-np.inf)
    y = padded.reshape(2, 3, 3, 2, 3, 2).max((3, 5))
    y = np.where(y < 0, 0.1 * y, y)
    y = 2 - np.concatenate([y, y + np.tanh(y)], axis=1)
    np.testing.assert_allclose(run(found, x), y.reshape(2, -1) @ weight.T, atol=1e-4)


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (lambda s: s.add("LRN", "x", "data"), "x (LRN): there is no such operator here"),
        (lambda s: s.add("QActivation", "x", "data", act_bit="2"), "act_bit is 2"),
        (lambda s: s.add("Activation", "x", "data", act_type="softsign"), "act_type softsign"),
        (
            lambda s: s.add("Convolution", "x", "data", "data", kernel="(1, 1)", num_filter="2"),
            "the weight is missing or depends on the input",
        ),
    ],
)
def test_what_has_no_counterpart_is_named(build: Any, words: str) -> None:
    s = Symbol()
    build(s)
    with pytest.raises((CheckpointError, ConversionError)) as caught:
        reader.from_bytes(params({"w": random(2)}), s.text(), (3, 6, 6))
    assert words in str(caught.value)


def test_weights_alone_are_refused() -> None:
    with pytest.raises(CheckpointError, match=r"X-symbol\.json as --network"):
        reader.from_bytes(small_files.mxnet()[0])


def test_damaged_files_are_read_or_refused() -> None:
    files = small_files.mxnet()
    rng = random_module.Random(1)
    ends = set()
    for _ in range(300):
        parts = [bytearray(part) for part in files]
        for _ in range(rng.randrange(1, 4)):
            part = rng.choice(parts)
            part[rng.randrange(min(len(part), 2000))] = rng.choice([0, 1, 34, 49, 57, 255])
        try:
            recognise(reader.from_bytes(bytes(parts[0]), bytes(parts[1]), (3, 6, 6)))
            ends.add("read")
        except BitInferError as error:
            ends.add(type(error).__name__)
    assert ends == {"read", "CheckpointError", "ConversionError"}


def test_sample_computes_what_mxnet_computed(shared: Path) -> None:
    folder = shared / "samples" / "mxnet"
    network = (folder / "bmx_style-symbol.json").read_bytes()
    options = Options(network=network, input_shape=(12, 12, 3))
    model, report = convert(folder / "bmx_style-0000.params", options=options)
    with np.load(folder / "bmx_style.npz") as stored:
        x, wanted = stored["x"], stored["y"]
    result = session.Session(model, "reference").run(np.ascontiguousarray(x.transpose(0, 2, 3, 1)))
    np.testing.assert_allclose(result, wanted, atol=1e-4, rtol=0)
    assert [o.became for o in report.layers if len(o.shape) > 1] == ["float", "binary", "float"]

"""TensorFlow Lite models of Larq Compute Engine compute what its kernels are defined to."""

from __future__ import annotations

import random as random_module
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tflite_files
from numpy.typing import NDArray
from tflite_files import INT8, INT32, Builder, bconv, bipolar, number, random

from bitinfer import session
from bitinfer.errors import BitInferError, CheckpointError, ConversionError
from bitinfer.importers.convert import convert
from bitinfer.importers.readers import tflite as reader
from bitinfer.importers.readers._flatbuffer import flexible_map
from bitinfer.importers.recognise import Recognised, recognise
from bitinfer.model import Model

Array = NDArray[Any]


def imported(b: Builder, *outputs: str) -> Recognised:
    return recognise(reader.from_bytes(b.model(*outputs)))


def run(found: Recognised, x: Array) -> Array:
    model = Model(graph=found.graph, tensors=found.tensors)
    return np.asarray(session.Session(model, "reference").run(x))


def became(found: Recognised) -> list[str]:
    return [o.became for o in found.layers if len(o.shape) > 1]


def convolve(x: Array, weight: Array, pad: int = 0, value: float = 0, stride: int = 1) -> Array:
    """(N, H, W, C) with (O, kh, kw, C), in float64."""
    pads = ((0, 0), (pad, pad), (pad, pad), (0, 0))
    padded = np.pad(x.astype(np.float64), pads, constant_values=value)
    windows = np.lib.stride_tricks.sliding_window_view(padded, weight.shape[1:3], axis=(1, 2))
    return np.einsum("nyxchw,ohwc->nyxo", windows[:, ::stride, ::stride], weight)


def sign(x: Array) -> Array:
    return np.where(x >= 0, 1.0, -1.0)


def quantize(b: Builder, *shape: int) -> str:
    return b.add("LceQuantize", ["x"], (*shape[:-1], -(-shape[-1] // 32)), kind=INT32)


# --- Larq Compute Engine -------------------------------------------------------------------------


@pytest.mark.parametrize("channels", [5, 32, 40, 70])
@pytest.mark.parametrize("pad_values", [0, 1])
@pytest.mark.parametrize("activation", [0, 1])
def test_convolution_of_bits_to_floats(channels: int, pad_values: int, activation: int) -> None:
    b = Builder(5, 5, channels)
    weight, scale, bias = bipolar(7, 3, 3, channels), random(7, seed=1), random(7, seed=2)
    x = bconv(
        b,
        quantize(b, 5, 5, channels),
        weight,
        (5, 5, 7),
        multiplier=scale,
        bias=bias,
        padding=0,
        pad_values=pad_values,
        fused_activation_function=activation,
    )
    found = imported(b, x)
    assert became(found) == ["binary"]
    x = random(2, 5, 5, channels, seed=3)
    dot = convolve(sign(x), weight, 1, pad_values)
    wanted = np.maximum(dot, 0 if activation else -np.inf) * scale + bias
    np.testing.assert_allclose(run(found, x), wanted, rtol=1e-6, atol=1e-4)


def test_convolution_of_bits_to_bits() -> None:
    """A bit is set, for -1, where more taps disagree than the threshold says."""
    b = Builder(6, 6, 40)
    weight = bipolar(33, 3, 3, 40)
    threshold = np.linspace(170, 190, 33).round().astype(np.int32)
    threshold[:2] = -1, np.iinfo(np.int32).max
    x = bconv(b, quantize(b, 6, 6, 40), weight, (4, 4, 33), threshold=threshold)
    x = b.add("LceDequantize", [x], (4, 4, 33))
    found = imported(b, x)
    x = random(2, 6, 6, 40, seed=3)
    disagreements = (360 - convolve(sign(x), weight)) / 2
    wanted = np.where(disagreements > threshold, -1, 1)
    assert (wanted[..., 0] == -1).all()
    assert (wanted[..., 1] == 1).all()
    assert abs(wanted[..., 2:].mean()) < 0.9
    np.testing.assert_array_equal(run(found, x), wanted)


def test_groups_are_seen_from_the_words() -> None:
    b = Builder(4, 4, 64)
    weight = bipolar(6, 2, 2, 32)
    x = bconv(b, quantize(b, 4, 4, 64), weight, (3, 3, 6), channels_in=64)
    found = imported(b, x)
    x = random(1, 4, 4, 64, seed=1)
    halves = [
        convolve(sign(x[..., i * 32 : i * 32 + 32]), weight[i * 3 : i * 3 + 3]) for i in (0, 1)
    ]
    np.testing.assert_array_equal(run(found, x), np.concatenate(halves, axis=-1))


def test_dense_layers_behind_dequantize_are_binary_again() -> None:
    found = recognise(reader.from_bytes(tflite_files.network()))
    assert became(found) == ["binary", "binary"]
    x = random(2, 6, 6, 40, seed=3)
    disagreements = (360 - convolve(sign(x), bipolar(36, 3, 3, 40))) / 2
    bits = np.where(disagreements > np.arange(150, 186), -1, 1)
    bits = bits.reshape(2, 2, 2, 2, 2, 36).max((2, 4)).reshape(2, -1)
    wanted = bits @ (bipolar(5, 144, seed=1) * 0.5).T + random(5)
    np.testing.assert_allclose(run(found, x), wanted, atol=1e-5)


@pytest.mark.parametrize(
    "options", [{"a": 1, "longer_name": 300, "z": -7}, {"one": 1 << 40}, {"flag": True}]
)
def test_flexible_options(options: Any) -> None:
    assert flexible_map(bytes(tflite_files.flexbuffers.Dumps(options))) == options


# --- Float operators -----------------------------------------------------------------------------


def conv_options(first: int, activation: int = 0) -> dict[int, Any]:
    """Padding SAME, stride 2, as of CONV_2D and DEPTHWISE_CONV_2D."""
    common = {0: number("b", 0), 1: number("i", 2), 2: number("i", 2)}
    return {**common, first: number("b", activation)}


def test_operators_of_floats() -> None:
    b = Builder(8, 8, 3)
    weight, bias = random(6, 3, 3, 3), random(6, seed=1)
    inputs = ["x", b.constant("w", weight), b.constant("b", bias)]
    x = b.add("CONV_2D", inputs, (4, 4, 6), options=conv_options(3, 1))
    depth = random(1, 2, 2, 6, seed=2)
    inputs = [x, b.constant("d", depth), b.constant("db", np.zeros(6, np.float32))]
    y = b.add("DEPTHWISE_CONV_2D", inputs, (2, 2, 6), options=conv_options(4))
    pool = {**conv_options(5), 3: number("i", 2), 4: number("i", 2)}
    x = b.add("AVERAGE_POOL_2D", [x], (2, 2, 6), options=pool)
    x = b.add("ADD", [x, y], (2, 2, 6), options={0: number("b", 3)})
    x = b.add("MUL", [x, b.constant("m", random(6, seed=4))], (2, 2, 6), options={})
    x = b.add("LEAKY_RELU", [x], (2, 2, 6), options={0: number("f", 0.5)})
    pads = b.constant("pads", np.array([[0, 0], [1, 0], [0, 1], [0, 0]]))
    x = b.add("PAD", [x, pads], (3, 3, 6))
    x = b.add("CONCATENATION", [x, x], (3, 3, 12), options={0: number("i", 3)})
    x = b.add("MEAN", [x, b.constant("axes", np.array([1, 2]))], (12,), options={})
    x = b.add("SOFTMAX", [b.add("TANH", [x], (12,))], (12,), options={0: number("f", 1.0)})
    found = imported(b, x)

    x = random(1, 8, 8, 3, seed=9)
    padded = np.pad(x, ((0, 0), (0, 1), (0, 1), (0, 0)))
    first = np.maximum(convolve(padded, weight, stride=2) + bias, 0)
    blocks = first.reshape(1, 2, 2, 2, 2, 6)
    deep = (blocks * depth.reshape(2, 1, 2, 6)[None, None].reshape(1, 1, 2, 1, 2, 6)).sum((2, 4))
    y = np.clip(blocks.mean((2, 4)) + deep, 0, 6) * random(6, seed=4)
    y = np.pad(np.where(y < 0, 0.5 * y, y), ((0, 0), (1, 0), (0, 1), (0, 0)))
    y = np.exp(np.tanh(np.concatenate([y, y], axis=-1).mean((1, 2))))
    np.testing.assert_allclose(run(found, x), y / y.sum(), atol=1e-5)


# --- Refused by name -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (
            lambda b: b.add("ROUND", ["x"], (6, 6, 3)),
            r"\(built-in operator 116\): there is no such",
        ),
        (lambda b: b.add("MyOp", ["x"], (6, 6, 3), custom={}), r"\(MyOp\): there is no such"),
        (lambda b: b.add("TANH", ["x"], (6, 6, 3), kind=INT8), "is int8: models of integers"),
        (
            lambda b: bconv(b, quantize(b, 6, 6, 3), bipolar(2, 3, 3, 3), (4, 4, 2), channels_in=9),
            "channels_in is 9, the input has 3",
        ),
        (
            lambda b: bconv(b, quantize(b, 6, 6, 3), bipolar(2, 9, 9, 3), (1, 1, 2)),
            "a window of 9 pixels over 6",
        ),
        (
            lambda b: b.add("ADD", ["x", b.constant("c", np.ones((1,) * 60, np.float32))], (6, 6)),
            "c: a tensor of 60 axes, at most 8",
        ),
        (
            lambda b: b.add("PAD", ["x", b.constant("p", np.ones((3, 2, 9), np.int32))], (6, 6)),
            r"borders of the shape \(3, 2, 9\), wanted two for each of 4 axes",
        ),
    ],
)
def test_what_has_no_counterpart_is_named(build: Callable[[Builder], str], words: str) -> None:
    b = Builder(6, 6, 3)
    with pytest.raises((CheckpointError, ConversionError), match=words):
        imported(b, build(b))


@pytest.mark.parametrize("seed", range(3))
def test_damaged_files_are_read_or_refused_at_once(seed: int) -> None:
    rng = random_module.Random(seed)
    data = tflite_files.network()
    ends = set()
    for _ in range(150):
        mutant = bytearray(data)
        for _ in range(rng.randrange(1, 8)):
            mutant[rng.randrange(8, len(mutant))] = rng.choice([0, 1, 127, 128, 255])
        if rng.random() < 0.1:
            mutant = mutant[: rng.randrange(8, len(mutant))]
        begin = time.monotonic()
        try:
            recognise(reader.from_bytes(bytes(mutant)))
            ends.add("read")
        except BitInferError as error:
            assert isinstance(error, CheckpointError | ConversionError)  # noqa: PT017
            ends.add(type(error).__name__)
        assert time.monotonic() - begin < 5
    assert ends == {"read", "CheckpointError", "ConversionError"}


# --- Files of the framework itself ---------------------------------------------------------------


@pytest.mark.parametrize("name", ["binarynet", "quicknet", "packed", "dilated"])
def test_samples_compute_what_larq_compute_engine_computed(shared: Path, name: str) -> None:
    folder = shared / "samples" / "larq"
    model, report = convert(folder / f"{name}.lce.tflite")
    with np.load(folder / f"{name}.lce.npz") as stored:
        result = session.Session(model, "reference").run(stored["x"])
        np.testing.assert_allclose(result, stored["y"], atol=1e-4, rtol=0)
    keras, _ = convert(folder / f"{name}.h5")
    ours, theirs = (
        sorted(t.tobytes() for t in m.tensors.values() if t.dtype == np.uint64)
        for m in (model, keras)
    )
    assert len(ours) == len(theirs)
    assert not any(o.half_binary for o in report.layers)


@pytest.mark.parametrize("where", ["input", "output"])
def test_int8_around_binary_layers_is_refused_by_name(where: str) -> None:
    data = tflite_files.int8_network(where)
    with pytest.raises(ConversionError, match="is int8: models of integers are not read; convert"):
        reader.from_bytes(data)


def test_samples_that_cannot_be_read_are_refused_by_name(shared: Path) -> None:
    with pytest.raises(ConversionError, match="do_re_fa"):
        convert(shared / "samples" / "larq" / "lab.lce.tflite")
    with pytest.raises(ConversionError, match="is int8: models of integers are not read"):
        convert(shared / "weights" / "mlperf_tiny" / "mlperf_tiny_resnet8_int8.tflite")

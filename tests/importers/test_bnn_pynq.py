"""Bits and thresholds of BNN-PYNQ: agreements above a threshold, padding, classes."""

from __future__ import annotations

import gzip
import io
import random as random_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import small_files
from numpy.typing import NDArray

from bitinfer import session
from bitinfer.errors import BitInferError, CheckpointError
from bitinfer.importers.convert import convert
from bitinfer.importers.readers import bnn_pynq as reader
from bitinfer.importers.recognise import recognise
from bitinfer.model import Model

Array = NDArray[Any]


def test_agreements_are_counted_and_compared() -> None:
    found = recognise(reader.from_bytes(small_files.bnn_pynq()))
    assert [o.became for o in found.layers] == ["binary", "binary"]
    pixels = np.random.default_rng(1).integers(0, 256, (50, 4, 4, 1)).astype(np.float32)
    pixels[0, 0, 0], pixels[0, 0, 1] = 127.5, 127.0
    bits = np.zeros((50, 24), bool)
    bits[:, :16] = pixels.reshape(50, 16) >= 127.5
    arrays = small_files.bnn_pynq_arrays()
    for i, (outputs, inputs) in enumerate(((20, 24), (8, 20))):
        weight = small_files.bipolar(outputs, inputs, seed=i) > 0
        agreements = (bits[:, None] == weight[None]).sum(axis=2)
        bits = agreements > arrays[f"t{i}"]
    wanted = (agreements - arrays["t1"])[:, :3]
    model = Model(graph=found.graph, tensors=found.tensors)
    np.testing.assert_array_equal(session.Session(model, "reference").run(pixels), wanted)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"t0": None}, "'t0' is missing"),
        ({"t0": np.zeros(3, np.int32)}, "layer 0: 60 bytes for 20 x 24"),
        ({"w1_shape": np.array([8, 999])}, "layer 1: 20 bytes for 8 x 999"),
        ({"w1_shape": np.array([8, 12])}, "w1 has 12 inputs, the layer before 20"),
        ({"w0_bits": np.zeros(60, np.float32)}, "other types than bits"),
    ],
)
def test_what_does_not_fit_is_named(changes: dict[str, Any], words: str) -> None:
    arrays = {**small_files.bnn_pynq_arrays(), **changes}
    file = io.BytesIO()
    np.savez(file, **{name: array for name, array in arrays.items() if array is not None})
    with pytest.raises(CheckpointError, match=words):
        reader.from_bytes(file.getvalue())


def test_damaged_files_are_read_or_refused() -> None:
    data = small_files.bnn_pynq()
    rng = random_module.Random(1)
    for _ in range(200):
        mutant = bytearray(data)
        for _ in range(rng.randrange(1, 5)):
            mutant[rng.randrange(len(mutant))] = rng.randrange(256)
        try:
            recognise(reader.from_bytes(bytes(mutant)))
        except BitInferError as error:
            assert isinstance(error, CheckpointError)  # noqa: PT017


def test_real_network_has_the_accuracy_of_its_source(shared: Path) -> None:
    def read(name: str, skip: int) -> Array:
        with gzip.open(shared / "data" / "mnist" / name) as file:
            return np.frombuffer(file.read(), np.uint8)[skip:]

    pixels = read("t10k-images-idx3-ubyte.gz", 16).reshape(-1, 28, 28, 1)
    labels = read("t10k-labels-idx1-ubyte.gz", 8)
    model, _ = convert(shared / "weights" / "bnn_pynq_lfc" / "lfcW1A1_mnist.npz")
    outputs = np.asarray(session.Session(model).run(pixels.astype(np.float32)))
    assert outputs.shape == (10_000, 10)
    assert int((outputs.argmax(axis=1) == labels).sum()) == 9834
    with np.load(shared / "weights" / "reference_logits.npz") as stored:
        np.testing.assert_array_equal(outputs[:100].argmax(1), stored["bnn_pynq_lfc"].argmax(1))

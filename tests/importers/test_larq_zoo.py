"""Every architecture of Larq Zoo, built by Larq Zoo itself with random weights, is imported whole.

LARQ_PYTHON names the interpreter of an environment with larq-zoo 2.4.0, tensorflow-cpu 2.19.1,
tf-keras 2.19.0, larq 0.14.0, protobuf 3.20.3 and NumPy 1.26.4, which are not those that bitinfer
runs with.
"""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import h5py
import numpy as np
import pytest

from bitinfer.errors import ConversionError
from bitinfer.importers.convert import convert, read_network
from bitinfer.session import Session
from bitinfer.verify import verify

PYTHON = os.environ.get("LARQ_PYTHON", "")
WRITER = Path(__file__).with_name("larq_zoo_writer.py")

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(not PYTHON, reason="LARQ_PYTHON names no interpreter with larq-zoo"),
]

NAMES = (
    *("BinaryAlexNet", "XNORNet", "BiRealNet", "BinaryResNetE18", "RealToBinaryNet"),
    *("BinaryDenseNet28", "BinaryDenseNet37", "BinaryDenseNet37Dilated", "BinaryDenseNet45"),
    *("QuickNetSmall", "QuickNet", "QuickNetLarge", "MeliusNet22"),
)


def quantized_layers(path: Path) -> int:
    """Return how many layers quantize both their input and their kernel."""
    with h5py.File(path) as file:
        layers = json.loads(file.attrs["model_config"])["config"]["layers"]
    both = ("input_quantizer", "kernel_quantizer")
    return sum(all(layer["config"].get(key) for key in both) for layer in layers)


def built(name: str, folder: Path) -> Path:
    done = subprocess.run(
        [PYTHON, str(WRITER), name, str(folder)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return folder / "net.h5"


@pytest.mark.parametrize("name", NAMES)
def test_architecture_computes_what_keras_computes(name: str, tmp_path: Path) -> None:
    path = built(name, tmp_path)
    model, report = convert(path)
    became = [o.became for o in report.layers if len(o.shape) > 1]
    assert became.count("binary") == quantized_layers(path) > 0
    assert not any(o.half_binary for o in report.layers)
    with np.load(path.with_suffix(".npz")) as stored:
        x, wanted = stored["x"], stored["y"]
    result = np.asarray(Session(model).run(x))
    if not np.allclose(result, wanted, rtol=0, atol=1e-3 * np.abs(wanted).max()):
        # A sign that is a tie in Keras's float32 changes what is behind it.
        found = verify(model, read_network(path), x)
        assert found.is_equal, found.first
        assert found.ties


def test_two_bits_are_refused_by_name(tmp_path: Path) -> None:
    path = built("DoReFaNet", tmp_path)
    with pytest.raises(ConversionError, match=r"quant_conv2d \(QuantConv2D\): DoReFa of 2 bits"):
        convert(path)

"""ONNX Runtime beside a converted model: what it says, and what it cannot run."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import numpy as np
import onnx_files
import pytest

from bitinfer.cli import main
from bitinfer.importers.convert import convert
from bitinfer.session import Session
from bitinfer.verify import runtime

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("onnxruntime") is None, reason="onnxruntime is not installed"
)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "net.onnx"
    path.write_bytes(onnx_files.network().SerializeToString())
    return path


def test_outputs_are_those_of_the_model(source: Path) -> None:
    model, _ = convert(source)
    x = onnx_files.random(3, 8, 8, 3, seed=4)
    ours = np.asarray(Session(model, "reference").run(x))
    check = runtime.onnx_runtime(source, x, ours, "NCHW")
    assert check is not None
    assert (check.close, check.failure) == (3, "")
    assert check.largest < 1e-4
    ours[1] += 1
    other = runtime.onnx_runtime(source, x, ours, "NCHW")
    assert other is not None
    assert other.close == 2
    assert abs(other.largest - 1) < 1e-3


def test_what_it_cannot_run_is_said(tmp_path: Path) -> None:
    b = onnx_files.Builder(["n", 4])
    scale = b.constant("s", np.float32(1))
    x = b.add("BipolarQuant", "x", scale, domain=onnx_files.QONNX)
    path = tmp_path / "net.onnx"
    path.write_bytes(b.model(x).SerializeToString())
    check = runtime.onnx_runtime(path, np.zeros((1, 4), np.float32), np.zeros((1, 4)), None)
    assert check is not None
    assert "qonnx.custom_op.general" in check.failure


def test_command_names_it(source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = tmp_path / "net.bin"
    assert main(["convert", "-q", str(source), "-o", str(model)]) == 0
    assert main(["verify", "--backend=reference", str(model), str(source)]) == 0
    assert "outputs of 8 of 8 samples are close to the model's" in capsys.readouterr().out
    assert main(["verify", "--backend=reference", "--json", str(model), str(source)]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["runtime"]["close"] == 8
    assert answer["runtime"]["name"].startswith("onnxruntime ")

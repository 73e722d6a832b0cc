"""A framework's own runtime beside a converted model: what it says, and what it cannot run."""

from __future__ import annotations

import importlib.util
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import onnx_files
import pytest
import torch_networks
from torch_files import zip_file

from bitinfer.cli import main
from bitinfer.importers.convert import convert, read_network
from bitinfer.model import Model
from bitinfer.session import Session
from bitinfer.verify import by_torch, random_inputs, runtime
from bitinfer.verify.runtime import Runtime

needs_onnxruntime = pytest.mark.skipif(
    importlib.util.find_spec("onnxruntime") is None, reason="onnxruntime is not installed"
)
PYTHON = os.environ.get("LARQ_PYTHON", "")
"""Interpreter of an environment with larq, TensorFlow, tf-keras and larq-compute-engine."""

needs_larq = pytest.mark.skipif(
    not PYTHON, reason="LARQ_PYTHON names no interpreter of an environment with larq"
)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "net.onnx"
    path.write_bytes(onnx_files.network().SerializeToString())
    return path


def check(path: Path, model: Model, x: Any, ours: Any, **options: Any) -> runtime.RuntimeCheck:
    found = runtime.by_framework(path, read_network(path), x, ours, **options)
    assert found is not None
    return found


@needs_onnxruntime
def test_outputs_are_those_of_the_model(source: Path) -> None:
    model, _ = convert(source)
    x = onnx_files.random(3, 8, 8, 3, seed=4)
    ours = np.asarray(Session(model, "reference").run(x))
    found = check(source, model, x, ours)
    assert found.name.startswith("onnxruntime ")
    assert (found.close, found.failure) == (3, "")
    assert found.largest < 1e-4
    ours[1] += 1
    other = check(source, model, x, ours)
    assert other.close == 2
    assert abs(other.largest - 1) < 1e-3


@needs_onnxruntime
def test_what_it_cannot_run_is_said(tmp_path: Path) -> None:
    b = onnx_files.Builder(["n", 4])
    scale = b.constant("s", np.float32(1))
    x = b.add("BipolarQuant", "x", scale, domain=onnx_files.QONNX)
    path = tmp_path / "net.onnx"
    path.write_bytes(b.model(x).SerializeToString())
    if importlib.util.find_spec("qonnx") is not None:
        pytest.skip("qonnx is installed, and runs it")
    model, _ = convert(path)
    found = check(path, model, np.zeros((1, 4), np.float32), np.zeros((1, 4)))
    assert "qonnx.custom_op.general" in found.failure


@needs_onnxruntime
def test_command_names_it(source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model, page = tmp_path / "net.bin", tmp_path / "page.html"
    assert main(["convert", "-q", str(source), "-o", str(model)]) == 0
    pair = ["--backend=reference", str(model), str(source)]
    assert main(["verify", *pair, "--html", str(page)]) == 0
    out = capsys.readouterr().out
    assert "outputs of 8 of 8 samples are close to the model's" in out
    assert "the source was run by bitinfer's own evaluator, float64 and onnxruntime " in out
    assert "onnxruntime " in page.read_text(encoding="utf-8")
    assert main(["verify", "--json", *pair]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["runtime"]["close"] == 8
    assert answer["ran"] == ["bitinfer's own evaluator, float64", answer["runtime"]["name"]]


def test_absent_runtime_is_said(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: Any
) -> None:
    absent = Runtime("nothing", "no_such_module_anywhere", "import no_such_module_anywhere")
    monkeypatch.setattr(runtime, "RUNTIMES", {"onnx": (absent,)})
    model = tmp_path / "net.bin"
    assert main(["convert", "-q", str(source), "-o", str(model)]) == 0
    import sys

    for python in ([], ["--python", sys.executable]):
        command = ["verify", "--json", "--backend=reference", *python, str(model), str(source)]
        assert main(command) == 0
        answer = json.loads(capsys.readouterr().out)
        assert answer["ran"] == ["bitinfer's own evaluator, float64"]
        assert "runtime" not in answer
    assert main(["verify", "--backend=reference", str(model), str(source)]) == 0
    assert "no runtime of its framework is installed" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("raise ValueError('cannot read it')", "cannot read it"),
        ("y, title = [np.zeros(3)] * len(x), 'two\\nlines'", ""),
        ("y, title = [np.zeros(3)] * len(x), 'made up 1.0'", "its output has (2, 3), the model's"),
        ("y, title = [0.0], 'made up'", "its answer is"),
        ("os._exit(9)", "exit code 9"),
    ],
)
def test_runtime_that_fails_is_reported(
    source: Path, monkeypatch: pytest.MonkeyPatch, code: str, words: str
) -> None:
    import sys

    model, _ = convert(source)
    monkeypatch.setattr(runtime, "RUNTIMES", {"onnx": (Runtime("made up", "json", code),)})
    x = onnx_files.random(2, 8, 8, 3, seed=4)
    found = check(source, model, x, np.zeros((2, 5)), python=sys.executable)
    assert found.failure
    assert words in found.failure


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_state_dict_runs_by_torch(
    tmp_path: Path, suffix: str, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("torch")
    state = torch_networks.vgg_state((8, 8, 16, 16, 16, 8), 16, 10)
    path, output = tmp_path / f"net{suffix}", tmp_path / "net.bin"
    if suffix == ".pth":
        path.write_bytes(zip_file({"state_dict": state}))
    else:
        import safetensors.numpy

        path.write_bytes(safetensors.numpy.save(state))
    assert main(["convert", "-q", str(path), "-o", str(output), "--verify"]) == 0
    assert main(["verify", "--json", str(output), str(path)]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["equal"]
    assert answer["runtime"]["close"] == 8
    assert answer["runtime"]["name"].startswith("torch ")


def test_torch_computes_what_the_evaluator_does(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    state = torch_networks.resnet_state(8, 2, 10)
    path = tmp_path / "net.pth"
    path.write_bytes(zip_file({"state_dict": state}))
    model, _ = convert(path)
    x = np.moveaxis(random_inputs(model, 2), -1, 1)
    name, y = by_torch.run(read_network(path), np.ascontiguousarray(x))
    assert name == f"torch {torch.__version__}, float32"
    wanted = torch_networks.resnet(state, torch.from_numpy(x.astype(np.float64))).numpy()
    np.testing.assert_allclose(y, wanted, atol=1e-4 * np.abs(wanted).max())


@needs_larq
@pytest.mark.long
@pytest.mark.parametrize(
    "name",
    [
        "larq/binarynet.h5",
        "larq/binarynet.keras",
        "larq/dilated.keras",
        "larq_old/tf284.keras",
        "larq/binarynet.lce.tflite",
        "larq/packed.lce.tflite",
        "larq/quicknet.lce.tflite",
    ],
)
def test_sample_runs_in_its_own_framework(shared: Path, name: str) -> None:
    path = shared / "samples" / name
    model, _ = convert(path)
    x = random_inputs(model, 2)
    found = check(path, model, x, np.asarray(Session(model).run(x)), python=PYTHON)
    assert (found.close, found.failure) == (2, "")

"""``bitinfer.export``: a module in memory becomes a model file that computes what it computes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import bitinfer
from bitinfer import modelfile
from bitinfer.errors import ConversionError, InputError, OutputError
from bitinfer.model import Preprocessing

torch = pytest.importorskip("torch")
pytest.importorskip("onnxscript")
nn = torch.nn


class Sign(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Any) -> Any:
        return torch.where(x >= 0, 1.0, -1.0)

    @staticmethod
    def backward(ctx: Any, grad: Any) -> Any:
        return grad


class BinaryConv(nn.Conv2d):
    def forward(self, x: Any) -> Any:
        alpha = self.weight.abs().mean((1, 2, 3), keepdim=True)
        return self._conv_forward(Sign.apply(x), Sign.apply(self.weight) * alpha, self.bias)


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.drop = nn.Dropout(0.5)
        self.second = BinaryConv(8, 16, 3, padding=1)
        self.pool = nn.AvgPool2d(2)
        self.last = nn.Linear(16 * 16, 5)

    def forward(self, x: Any) -> Any:
        x = self.drop(self.norm(self.first(x)))
        return self.last(torch.flatten(self.pool(self.second(x)), 1))


def net() -> Any:
    torch.manual_seed(3)
    result = Net()
    result.norm.running_mean.normal_()
    result.norm.weight.data.normal_()
    result.norm.bias.data.normal_()
    return result


PREPROCESSING = Preprocessing(color="rgb", mean=(0.5,) * 3, std=(0.5,) * 3, resize=(8, 8))


def test_module_is_written_as_it_evaluates(tmp_path: Path) -> None:
    module, path = net(), tmp_path / "net.bin"
    assert module.training
    report = bitinfer.export(
        module, torch.zeros(2, 3, 8, 8), path, labels=[*"abcde"], preprocess=PREPROCESSING
    )
    assert module.training
    assert module.drop.training
    outcomes = {o.name: o.became for o in report.layers if len(o.shape) > 1}
    assert [*outcomes.values()] == ["float", "binary", "float"]
    assert report.findings == ()
    model = modelfile.load(path)
    assert model.labels == (*"abcde",)
    assert model.preprocessing == PREPROCESSING
    assert model.provenance is not None
    assert model.provenance.versions["torch"] == torch.__version__
    x = torch.randn(3, 3, 8, 8)
    with torch.no_grad():
        wanted = module.eval()(x).numpy()
    result = bitinfer.load(path, "reference").run(np.moveaxis(x.numpy(), 1, -1).copy())
    np.testing.assert_allclose(result, wanted, atol=1e-4)


def test_what_does_not_fit_is_refused(tmp_path: Path) -> None:
    example = torch.zeros(1, 3, 8, 8)
    with pytest.raises(InputError, match="2 labels, the network has 5 classes"):
        bitinfer.export(net(), example, tmp_path / "net.bin", labels=["a", "b"])
    with pytest.raises(ConversionError, match=r"torch\.export: "):
        bitinfer.export(net(), torch.zeros(1, 4, 8, 8), tmp_path / "net.bin")
    assert not (tmp_path / "net.bin").exists()
    with pytest.raises(OutputError):
        bitinfer.export(net(), example, tmp_path / "nowhere" / "net.bin")


def test_node_without_counterpart_is_named(tmp_path: Path) -> None:
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.InstanceNorm2d(4))
    with pytest.raises(ConversionError, match="InstanceNormalization"):
        bitinfer.export(module, torch.zeros(1, 3, 8, 8), tmp_path / "net.bin")


class Clamped(nn.Module):
    """The straight-through estimator that clamps the same value twice."""

    def forward(self, x: Any) -> Any:
        return (torch.where(x >= 0, 1.0, -1.0) - x.clamp(-1, 1)).detach() + x.clamp(-1, 1)


def test_value_that_is_clamped_twice_keeps_its_bounds(tmp_path: Path) -> None:
    x = torch.linspace(-3, 3, 8).reshape(2, 4)
    bitinfer.export(Clamped(), x, tmp_path / "m.bin")
    np.testing.assert_allclose(bitinfer.load(tmp_path / "m.bin").run(x.numpy()), Clamped()(x))


@pytest.mark.parametrize(("model", "example"), [("net", torch.zeros(1)), (nn.ReLU(), np.zeros(1))])
def test_what_is_no_module_or_no_tensor_is_refused(
    model: Any, example: Any, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=r"export: came .*, wanted a torch"):
        bitinfer.export(model, example, tmp_path / "m.bin")


def test_reason_is_the_first_cause_and_not_the_advice_around_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        try:
            raise ValueError("No ONNX function for signbit\nand more")
        except ValueError as error:
            raise RuntimeError("Failed. \x1b[96mThis is step 3/3\x1b[0m") from error

    monkeypatch.setattr(torch.onnx, "export", fail)
    with pytest.raises(ConversionError, match=r"^torch\.export: ValueError: No ONNX .* signbit$"):
        bitinfer.export(nn.ReLU(), torch.zeros(1, 2), tmp_path / "m.bin")

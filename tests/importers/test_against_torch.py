"""Converted networks give what PyTorch gives for the same checkpoint.

The modules are written from the framework's description, not from the zoo: names of parameters,
order of BatchNorm, sign, convolution, bias, ReLU and pooling are what is being tested.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torch_files import state_dict

from bitinfer import session
from bitinfer.importers.convert import convert
from bitinfer.importers.options import Options

torch = pytest.importorskip("torch")
nn = torch.nn


class Block(nn.Module):
    """BatchNorm, sign, convolution or dense layer, ReLU; ``channels`` of the BatchNorm."""

    def __init__(self, layer: Any, channels: int, is_map: bool = True) -> None:
        super().__init__()
        self.bn = (nn.BatchNorm2d if is_map else nn.BatchNorm1d)(channels, eps=1e-4)
        self.is_linear = isinstance(layer, nn.Linear)
        if self.is_linear:
            self.linear = layer
        else:
            self.conv = layer

    def forward(self, x: Any) -> Any:
        x = torch.sign(self.bn(x))
        if self.is_linear:
            return torch.relu(self.linear(x.flatten(1)))
        return torch.relu(self.conv(x))


def block(cin: int, cout: int, kernel: int, padding: int = 0) -> Block:
    return Block(nn.Conv2d(cin, cout, kernel, padding=padding), cin)


class LeNet5(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 20, 5)
        self.bn_conv1 = nn.BatchNorm2d(20, eps=1e-4, affine=False)
        self.bin_conv2 = block(20, 50, 5)
        self.bin_ip1 = Block(nn.Linear(800, 500), 50)
        self.ip2 = nn.Linear(500, 10)

    def forward(self, x: Any) -> Any:
        x = torch.max_pool2d(torch.relu(self.bn_conv1(self.conv1(x))), 2)
        x = torch.max_pool2d(self.bin_conv2(x), 2)
        return self.ip2(self.bin_ip1(x))


class Nin(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.xnor = nn.Sequential(
            nn.Conv2d(3, 192, 5, padding=2),
            nn.BatchNorm2d(192, eps=1e-4, affine=False),
            nn.ReLU(),
            block(192, 160, 1),
            block(160, 96, 1),
            nn.MaxPool2d(3, 2, 1),
            block(96, 192, 5, 2),
            block(192, 192, 1),
            block(192, 192, 1),
            nn.AvgPool2d(3, 2, 1),
            block(192, 192, 3, 1),
            block(192, 192, 1),
            nn.BatchNorm2d(192, eps=1e-4, affine=False),
            nn.Conv2d(192, 10, 1),
            nn.ReLU(),
            nn.AvgPool2d(8, 1),
        )

    def forward(self, x: Any) -> Any:
        return self.xnor(x).flatten(1)


class AlexNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 96, 11, 4),
            nn.BatchNorm2d(96, eps=1e-4),
            nn.ReLU(),
            nn.MaxPool2d(3, 2),
            block(96, 256, 5, 2),
            nn.MaxPool2d(3, 2),
            block(256, 384, 3, 1),
            block(384, 384, 3, 1),
            block(384, 256, 3, 1),
            nn.MaxPool2d(3, 2),
        )
        self.classifier = nn.Sequential(
            Block(nn.Linear(9216, 4096), 9216, is_map=False),
            Block(nn.Linear(4096, 4096), 4096, is_map=False),
            nn.BatchNorm1d(4096, eps=1e-3),
            nn.Dropout(),
            nn.Linear(4096, 1000),
        )

    def forward(self, x: Any) -> Any:
        return self.classifier(self.features(x).flatten(1))


def binarise(net: Any) -> None:
    """What BinOp does to every convolution and dense layer but the first and the last."""
    layers = [m for m in net.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    for layer in layers[1:-1]:
        w = layer.weight.data
        w = (w - w.mean(1, keepdim=True)).clamp(-1, 1)
        alpha = w.abs().flatten(1).mean(1).reshape(-1, *[1] * (w.ndim - 1))
        layer.weight.data = w.sign() * alpha


CASES = {
    "xnor-lenet5": (LeNet5, True),
    "xnor-nin": (Nin, True),
    "xnor-alexnet": (AlexNet, False),
}


@pytest.mark.parametrize(
    ("arch", "swap_hw"),
    [
        ("xnor-lenet5", False),
        ("xnor-lenet5", True),
        ("xnor-nin", False),
        ("xnor-nin", True),
        ("xnor-alexnet", True),
    ],
)
def test_outputs_agree_with_torch(tmp_path: Path, arch: str, swap_hw: bool) -> None:
    make, clamps = CASES[arch]
    state = state_dict(arch, seed=11)
    for key in [k for k in state if k.endswith("bn.weight")]:
        state[key][::5] *= -1  # the clamp of LeNet-5 and NIN shows, and its absence in AlexNet
    net = make()
    net.load_state_dict({k: torch.from_numpy(np.ascontiguousarray(v)) for k, v in state.items()})
    torch.save({"epoch": 3, "state_dict": net.state_dict()}, tmp_path / "net.pth.tar")
    model, report = convert(tmp_path / "net.pth.tar", options=Options(swap_hw=swap_hw))
    (tmp_path / "net.pth.tar").unlink()
    assert report.parameters == sum(
        v.size for k, v in state.items() if not k.endswith("num_batches_tracked")
    )

    net.eval()
    binarise(net)
    if clamps:
        for norm in (m for m in net.modules() if isinstance(m, nn.BatchNorm2d) and m.affine):
            norm.weight.data.clamp_(min=0.01)
    network = session.Session(model)
    x = np.random.default_rng(2).standard_normal((3, *network.inputs[0].shape), np.float32)
    axes = (0, 3, 2, 1) if swap_hw else (0, 3, 1, 2)
    with torch.no_grad():
        wanted = net(torch.from_numpy(np.ascontiguousarray(x.transpose(axes)))).numpy()
    differences = np.abs(network.run(x) - wanted).max(axis=1) / np.abs(wanted).max()
    # A value within rounding of a sign's threshold may fall on the other side, and shows.
    assert np.median(differences) < 1e-5, differences
    assert differences.max() < 0.1, differences

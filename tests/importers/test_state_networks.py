"""State dicts of BinaryNet.pytorch, Bi-Real-Net and ReActNet compute what torch computes."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
import torch_networks as nets
from numpy.typing import NDArray
from torch_files import state_dict, zip_file

from bitinfer import session
from bitinfer.errors import CheckpointError, ConversionError
from bitinfer.importers import states
from bitinfer.importers.convert import convert, read_network
from bitinfer.importers.options import Options
from bitinfer.importers.outcome import Conversion
from bitinfer.importers.recognise import recognise
from bitinfer.importers.simulate import simulate
from bitinfer.importers.states import bireal, reactnet, xnor_modules
from bitinfer.importers.states.modules import StateNetwork
from bitinfer.importers.states.state_dict import StateDict
from bitinfer.model import Model
from bitinfer.verify import random_inputs, verify

Array = NDArray[Any]

NARROW = (8, 16, 24, 32)
NARROW_MOBILE = (8, 16, 32, 32, 64)


def written(path: Path, state: nets.State, suffix: str = ".pth") -> Path:
    path = path / f"net{suffix}"
    if suffix == ".safetensors":
        path.write_bytes(safetensors.numpy.save(state))
    else:
        wrapped = {f"module.{name}": value for name, value in state.items()}
        path.write_bytes(zip_file({"epoch": 3, "state_dict": wrapped, "best_prec1": 0.5}))
    return path


def assert_equal(model: Model, forward: Callable[..., Any], state: nets.State, n: int = 2) -> None:
    torch = pytest.importorskip("torch")
    x = random_inputs(model, n, seed=5)
    wanted = forward(state, torch.from_numpy(np.moveaxis(x, -1, 1).astype(np.float64))).numpy()
    found = np.asarray(session.Session(model).run(x))
    np.testing.assert_allclose(found, wanted, atol=1e-4 * max(1.0, np.abs(wanted).max()))


def kinds(report: Conversion) -> list[str]:
    return [o.became for o in report.layers if len(o.shape) > 1]


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_vgg_of_any_width(tmp_path: Path, suffix: str) -> None:
    state = nets.vgg_state((24, 24, 32, 32, 40, 16), 48, 10)
    path = written(tmp_path, state, suffix)
    model, report = convert(path)
    assert kinds(report) == ["binary weights", *["binary"] * 8]
    assert model.provenance is not None
    assert model.provenance.importer == "binary_net"
    assert model.labels[3] == "cat"
    assert_equal(model, nets.vgg, state)
    x = random_inputs(model, 2)
    assert verify(model, read_network(path), x).is_equal


def test_resnet_for_cifar(tmp_path: Path) -> None:
    state = nets.resnet_state(16, 2, 10)
    model, report = convert(written(tmp_path, state))
    assert kinds(report) == ["binary weights", *["binary"] * 15]
    assert_equal(model, nets.resnet, state)


def test_alexnet(tmp_path: Path) -> None:
    state = nets.alexnet_state((16, 24, 32, 24, 16), 64, 11)
    model, report = convert(written(tmp_path, state))
    assert kinds(report) == ["binary weights", *["binary"] * 7]
    assert model.graph.input.shape == (224, 224, 3)
    assert_equal(model, nets.alexnet, state, n=1)


def narrow(network: StateNetwork, state: nets.State) -> tuple[Model, tuple[str, ...]]:
    found = recognise(network.network(StateDict(state)))
    became = tuple(o.became for o in found.layers if len(o.shape) > 1)
    return Model(graph=found.graph, tensors=found.tensors), became


@pytest.mark.parametrize("moves", [False, True])
def test_narrow_bireal_and_reactnet_resnet(monkeypatch: pytest.MonkeyPatch, moves: bool) -> None:
    monkeypatch.setattr(bireal, "WIDTHS", NARROW)
    monkeypatch.setattr(bireal, "SIDE", 64)
    state = nets.bireal_state((2, 1, 3, 1), NARROW, 7, moves=moves)
    model, became = narrow(bireal.NETWORK, state)
    assert sorted(became) == ["binary"] * 7 + ["float"] * 5
    assert_equal(model, nets.bireal, state)


def test_narrow_reactnet_a(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reactnet, "WIDTHS", NARROW_MOBILE)
    monkeypatch.setattr(reactnet, "SIDE", 64)
    state = nets.reactnet_state(NARROW_MOBILE, 7)
    # The first block doubles its channels at the same size, as 32 to 64 do in the whole network.
    monkeypatch.setattr(reactnet, "FULL_SIZE", NARROW_MOBILE[1])
    model, became = narrow(reactnet.NETWORK, state)
    assert became == ("float", *["binary"] * 11, "float")
    assert_equal(model, nets.reactnet, state)


WHOLE = {
    "bireal18": lambda: nets.bireal_state((4,) * 4, bireal.WIDTHS, 1000),
    "bireal34": lambda: nets.bireal_state((6, 8, 12, 6), bireal.WIDTHS, 1000),
    "reactnet18": lambda: nets.bireal_state((4,) * 4, bireal.WIDTHS, 1000, moves=True),
    "reactnet-a": lambda: nets.reactnet_state(reactnet.WIDTHS, 1000),
}


@pytest.mark.long
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("name", WHOLE)
def test_whole_network(tmp_path: Path, name: str, suffix: str) -> None:
    state = WHOLE[name]()
    path = written(tmp_path, state, suffix)
    model, report = convert(path)
    floats = [o for o in report.layers if o.became == "float" and len(o.shape) > 1]
    kernels = [o.shape for o in floats if "downsample" not in o.name]
    assert len(kernels) == 2, "only the first and the last layer are real"
    assert model.preprocessing is not None
    assert model.preprocessing.crop == (224, 224)
    # A few of its millions of signs are ties, which float32 rounds to either side: what torch has
    # in float64 is compared with the source in float64, and the model with that, ties counted.
    torch = pytest.importorskip("torch")
    source = read_network(path)
    x = random_inputs(model, 1, seed=5)
    batch = np.moveaxis(x, -1, 1).astype(np.float64)
    forward = nets.reactnet if name == "reactnet-a" else nets.bireal
    wanted = forward(state, torch.from_numpy(batch)).numpy()
    found = simulate(source, batch)[source.outputs[0]]
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-5 * np.abs(wanted).max())
    result = verify(model, source, x)
    assert result.is_equal, result.first


def test_missing_weight_is_named(tmp_path: Path) -> None:
    state = nets.vgg_state((8,) * 6, 8, 10)
    del state["features.8.running_var"]
    with pytest.raises(CheckpointError, match=r"features\.8\.running_var is missing"):
        convert(written(tmp_path, state))


def test_left_over_weight_is_named(tmp_path: Path) -> None:
    state = nets.resnet_state(8, 2, 10)
    state["layer4.0.conv1.weight"] = np.ones((8, 8, 3, 3), np.float32)
    with pytest.raises(
        CheckpointError, match=r"layer4\.0\.conv1\.weight' is no part of BinaryNet's"
    ):
        convert(written(tmp_path, state))


def test_unknown_weights_list_the_networks(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"AdaBin.*Bi-Real-Net.*ReActNet-A.*BinaryNet's VGG"):
        convert(written(tmp_path, {"a.weight": np.ones((2, 2), np.float32)}))


@pytest.mark.parametrize("name", ["xnor-lenet5", "xnor-nin"])
@pytest.mark.parametrize("swap_hw", [False, True])
def test_model_of_xnor_net_is_what_its_modules_compute(
    tmp_path: Path, name: str, swap_hw: bool
) -> None:
    path = written(tmp_path, state_dict(name))
    options = Options(swap_hw=swap_hw)
    model, _ = convert(path, options=options)
    result = verify(model, read_network(path, options), random_inputs(model, 2), "auto")
    assert result.is_equal, result.first
    assert result.signs


def test_modules_of_every_architecture_of_xnor_net_are_written() -> None:
    names = {network.title for network in xnor_modules.NETWORKS}
    assert names == set(states.xnor_net.SIGNATURES)


@pytest.mark.long
def test_alexnet_of_xnor_net_is_what_its_modules_compute(tmp_path: Path) -> None:
    path = written(tmp_path, state_dict("xnor-alexnet"))
    model, _ = convert(path)
    assert verify(model, read_network(path), random_inputs(model, 1)).is_equal


def test_own_network_has_nothing_to_be_compared_with(tmp_path: Path) -> None:
    path = written(tmp_path, state_dict("bitres11"))
    with pytest.raises(ConversionError, match="not known here apart from bitinfer's own"):
        read_network(path)


def test_signatures_fit_one_network_each() -> None:
    made = {
        "BinaryNet's VGG": nets.vgg_state((8,) * 6, 8, 10),
        "BinaryNet's ResNet for CIFAR": nets.resnet_state(8, 2, 10),
        "BinaryNet's AlexNet": nets.alexnet_state((8,) * 5, 8, 10),
        "Bi-Real-Net": nets.bireal_state((4, 1, 1, 1), bireal.WIDTHS, 5),
    }
    for title, state in made.items():
        fitting = [n.title for n in states.NETWORKS if n.fits(StateDict(state))]
        assert fitting == [title]
        found = states.find_architecture(StateDict(state))
        assert isinstance(found, StateNetwork)
        assert dataclasses.replace(found).title == title

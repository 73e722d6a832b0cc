"""AdaBin's checkpoints: two values per filter and per activation, and the published network."""

from __future__ import annotations

import lzma
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from torch_files import zip_file

from bitinfer import session
from bitinfer.errors import CheckpointError
from bitinfer.importers.convert import convert, read_network
from bitinfer.importers.states import adabin
from bitinfer.model import Preprocessing
from bitinfer.numerics import normalization_table
from bitinfer.verify import normalised, verify
from bitinfer.zoo.data import IMAGENET_MEAN, IMAGENET_STD

Array = NDArray[Any]


def random(*shape: int, seed: int) -> Array:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def checkpoint() -> dict[str, Array]:
    """One block a stage; some layers have a negative alpha, one channel a negative scale."""
    state: dict[str, Array] = {"conv1.weight": random(16, 3, 3, 3, seed=0)}

    def norm(name: str, channels: int, seed: int) -> None:
        for i, part in enumerate(("weight", "bias", "running_mean")):
            state[f"{name}.{part}"] = random(channels, seed=seed + i) * np.float32(0.5)
        state[f"{name}.running_var"] = np.abs(random(channels, seed=seed + 3)) + np.float32(0.5)

    def nonlinear(name: str, channels: int, seed: int) -> None:
        state[f"{name}.pos_scale"] = np.abs(random(channels, seed=seed)) + np.float32(0.1)
        state[f"{name}.neg_scale"] = random(channels, seed=seed + 1)

    norm("bn1", 16, 10)
    nonlinear("nonlinear1", 16, 20)
    channels = 16
    for stage, width in enumerate(adabin.WIDTHS, 1):
        for i in (1, 2):
            name, seed = f"layer{stage}.0", 100 * stage + 30 * i
            inputs = channels if i == 1 else width
            state[f"{name}.conv{i}.weight"] = random(width, inputs, 3, 3, seed=seed)
            state[f"{name}.conv{i}.binary_a.alpha_a"] = np.asarray(
                0.8 if i == 1 else -0.7, np.float32
            )
            state[f"{name}.conv{i}.binary_a.beta_a"] = np.asarray(0.3, np.float32)
            norm(f"{name}.bn{i}", width, seed + 5)
            nonlinear(f"{name}.nonlinear{i}", width, seed + 10)
        channels = width
    state["layer2.0.nonlinear1.pos_scale"][3] = -0.5
    norm("bn2", 64, 50)
    state["linear.weight"], state["linear.bias"] = random(10, 64, seed=60), random(10, seed=61)
    return state


def expected(state: dict[str, Array], x: Any) -> Any:
    """The network of resnet1w1a.py, in torch and float64."""
    import torch
    from torch.nn import functional

    t = {name: torch.from_numpy(np.asarray(value, np.float64)) for name, value in state.items()}

    def norm(x: Any, name: str) -> Any:
        mean, var = t[f"{name}.running_mean"], t[f"{name}.running_var"]
        return functional.batch_norm(x, mean, var, t[f"{name}.weight"], t[f"{name}.bias"])

    def nonlinear(x: Any, name: str) -> Any:
        pos, neg = (t[f"{name}.{p}_scale"].reshape(1, -1, 1, 1) for p in ("pos", "neg"))
        return functional.relu(x) * pos - functional.relu(-x) * neg

    def conv(x: Any, name: str, stride: int) -> Any:
        alpha, beta = t[f"{name}.binary_a.alpha_a"], t[f"{name}.binary_a.beta_a"]
        x = alpha * (torch.sign((x - beta) / alpha) + beta)
        w = t[f"{name}.weight"]
        mean = w.mean((1, 2, 3), keepdim=True)
        deviation = ((w - mean) ** 2).mean((1, 2, 3), keepdim=True).sqrt()
        return functional.conv2d(x, mean + deviation * torch.sign(w - mean), None, stride, 1)

    y = nonlinear(norm(functional.conv2d(x, t["conv1.weight"], None, 1, 1), "bn1"), "nonlinear1")
    channels = 16
    for stage, width in enumerate(adabin.WIDTHS, 1):
        name, stride = f"layer{stage}.0", 1 if stage == 1 else 2
        short = y
        if stage > 1:
            side = (width - channels) // 2
            short = functional.pad(y[:, :, ::2, ::2], (0, 0, 0, 0, side, side))
        y = nonlinear(
            norm(conv(y, f"{name}.conv1", stride), f"{name}.bn1") + short, f"{name}.nonlinear1"
        )
        y = nonlinear(norm(conv(y, f"{name}.conv2", 1), f"{name}.bn2") + y, f"{name}.nonlinear2")
        channels = width
    return (norm(y.mean((2, 3)), "bn2") @ t["linear.weight"].T + t["linear.bias"]).numpy()


def write(path: Path, state: dict[str, Array]) -> Path:
    path.write_bytes(zip_file({"state_dict": {f"module.{k}": v for k, v in state.items()}}))
    return path


def test_small_network_computes_what_its_source_computes(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    state = checkpoint()
    path = write(tmp_path / "net.th", state)
    model, report = convert(path)
    layers = [o for o in report.layers if len(o.shape) > 1]
    assert [o.became for o in layers] == ["float", *["binary"] * 6, "float"]
    assert model.preprocessing == Preprocessing("rgb", IMAGENET_MEAN, IMAGENET_STD, resize=(32, 32))
    assert model.labels[3] == "cat"
    x = random(2, 32, 32, 3, seed=70)
    wanted = expected(state, torch.from_numpy(np.moveaxis(x, -1, 1).astype(np.float64)))
    result = verify(model, read_network(path), x, "reference")
    assert result.is_equal
    np.testing.assert_allclose(session.Session(model, "reference").run(x), wanted, atol=1e-3)


def test_missing_weight_is_named(tmp_path: Path) -> None:
    state = checkpoint()
    del state["layer2.0.bn1.weight"]
    with pytest.raises(
        CheckpointError, match=r"layer2\.0\.bn1\.weight is missing; AdaBin's ResNet"
    ):
        convert(write(tmp_path / "net.th", state))


def test_published_network_has_its_accuracy(shared: Path) -> None:
    path = shared / "weights" / "adabin_resnet20" / "adabin_resnet20_1w1a.th"
    model, report = convert(path)
    assert sum(o.became == "binary" for o in report.layers) == 18
    cifar = shared / "data" / "cifar10"
    pixels = np.frombuffer(lzma.decompress((cifar / "test1000_rgb.u8.xz").read_bytes()), np.uint8)
    pixels = pixels.reshape(1000, 32, 32, 3)
    labels = np.fromfile(cifar / "test1000_labels.u8", np.uint8)
    outputs = np.asarray(session.Session(model).run(pixels))
    assert int((outputs.argmax(axis=1) == labels).sum()) == 890
    with np.load(path.with_name("adabin_resnet20_1w1a.logits100.npz")) as stored:
        wanted = stored["y"]
    assert (outputs[:100].argmax(axis=1) == wanted.argmax(axis=1)).all()
    # In two or three of the pictures a sign is a tie, which falls as a backend rounds float sums.
    close = np.abs(outputs[:100] - wanted).max(axis=1) <= 1e-3
    assert int(close.sum()) >= 97
    assert model.preprocessing is not None
    x = normalised(model.preprocessing, pixels[:20])
    table = normalization_table(1 / 255, IMAGENET_MEAN, IMAGENET_STD)
    assert x[0, 0, 0, 0] == table[pixels[0, 0, 0, 0], 0]
    result = verify(model, read_network(path), x)
    assert result.is_equal
    assert result.left_out == 0

"""The trained models that come along: small, described, and as right as their cards say."""

from __future__ import annotations

import lzma
import re
from pathlib import Path

import numpy as np
import pytest

import bitinfer
from bitinfer import datasets, modelfile, zoo
from bitinfer.errors import UnknownNameError
from bitinfer.zoo.shipped import _FOLDER, SHIPPED, Shipped, find_shipped

ROOT = Path(__file__).parents[2]
MNIST = ROOT.parent / "shared" / "data" / "mnist"
CIFAR10 = MNIST.parent / "cifar10"


def test_models_and_cards_are_all_that_is_there() -> None:
    wanted = {path.name for model in SHIPPED.values() for path in (model.path, model.card)}
    assert {path.name for path in _FOLDER.iterdir()} == wanted


@pytest.mark.parametrize("name", SHIPPED)
def test_model_is_small_and_of_its_architecture(name: str) -> None:
    model = SHIPPED[name]
    assert model.name == name
    assert model.path.stat().st_size < 1_000_000
    loaded = modelfile.load(model.path)
    assert loaded.graph.input.shape == zoo.find(model.architecture).input_shape
    assert loaded.provenance is not None
    assert f"test {model.correct} of {model.total} correct" in loaded.provenance.notes


@pytest.mark.parametrize("name", SHIPPED)
def test_card_says_what_the_list_says(name: str) -> None:
    model, text = SHIPPED[name], SHIPPED[name].card.read_text()
    low, high = model.interval
    assert text.startswith(f"# {name}\n")
    for part in (
        f"{model.correct:,} of the {model.total:,}",
        f"{100 * model.correct / model.total:.2f} %",
        f"{100 * low:.2f} to {100 * high:.2f} %",
        f"| {model.path.stat().st_size / 1000:.0f} kB |",
        "bitinfer train ",
        "seed",
        "| latency |",
        "**Not for:**",
    ):
        assert part in text, part


def test_interval_is_wilsons() -> None:
    # Newcombe 1998, table 1, method 3: 81 of 263, and 0 of 20.
    low, high = Shipped("", "", "mnist", 81, 263).interval
    assert (round(low, 4), round(high, 4)) == (0.2553, 0.3662)
    low, high = Shipped("", "", "mnist", 0, 20).interval
    assert (round(low, 4), round(high, 4)) == (0.0, 0.1611)


def test_unknown_model_is_named() -> None:
    with pytest.raises(UnknownNameError, match=re.escape("unknown model 'lenet'")):
        find_shipped("lenet")


def test_example_is_the_model_of_the_zoo() -> None:
    example = ROOT / "examples" / "lenet5.bin"
    assert example.read_bytes() == SHIPPED["lenet5-mnist"].path.read_bytes()


def test_lenet5_gets_exactly_its_cards_digits_right() -> None:
    if not MNIST.is_dir():
        pytest.skip(f"MNIST is not at {MNIST}")
    images = datasets.read_idx(MNIST / "t10k-images-idx3-ubyte.gz")
    labels = datasets.read_idx(MNIST / "t10k-labels-idx1-ubyte.gz")
    assert_card_is_exact("lenet5-mnist", images[..., None], labels)


@pytest.mark.parametrize("name", [n for n in SHIPPED if n.endswith("-cifar10")])
def test_networks_for_cifar10_get_exactly_their_cards_pictures_right(name: str) -> None:
    if not CIFAR10.is_dir():
        pytest.skip(f"CIFAR-10 is not at {CIFAR10}")
    pixels = np.frombuffer(lzma.decompress((CIFAR10 / "test1000_rgb.u8.xz").read_bytes()), np.uint8)
    labels = np.frombuffer((CIFAR10 / "test1000_labels.u8").read_bytes(), np.uint8)
    assert_card_is_exact(name, pixels.reshape(-1, 32, 32, 3), labels)


def assert_card_is_exact(name: str, images: np.ndarray, labels: np.ndarray) -> None:
    model = SHIPPED[name]
    logits = bitinfer.load(model.path).run(images)
    right = int((logits.argmax(axis=1) == labels).sum())
    assert (right, len(labels)) == (model.correct, model.total)

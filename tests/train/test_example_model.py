"""examples/lenet5.bin is what the recipe makes: small, accurate, and right about the pictures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import bitinfer
from bitinfer import datasets, modelfile

ROOT = Path(__file__).parents[2]
MODEL = ROOT / "examples" / "lenet5.bin"
MNIST = ROOT.parent / "shared" / "data" / "mnist"
PICTURES = sorted((ROOT / "examples").glob("digit_*.png"))


def test_file_is_small_and_bears_its_provenance() -> None:
    assert MODEL.stat().st_size < 200_000
    provenance = modelfile.load(MODEL).provenance
    assert provenance is not None
    assert provenance.importer == "bitinfer train lenet5-mnist"


def test_there_are_three_pictures() -> None:
    assert len(PICTURES) == 3


@pytest.mark.parametrize("picture", PICTURES, ids=lambda path: path.stem)
def test_picture_is_recognised(picture: Path) -> None:
    best = bitinfer.load(MODEL).classify(picture, top_k=1)[0]
    assert best.label == picture.stem.removeprefix("digit_")
    assert best.probability > 0.9


def test_at_least_99_2_percent_of_the_test_images_are_recognised() -> None:
    if not MNIST.is_dir():
        pytest.skip(f"MNIST is not at {MNIST}")
    images = datasets.read_idx(MNIST / "t10k-images-idx3-ubyte.gz")
    labels = datasets.read_idx(MNIST / "t10k-labels-idx1-ubyte.gz")
    logits = bitinfer.load(MODEL).run(images[..., None])
    assert np.count_nonzero(logits.argmax(axis=1) == labels) >= 9920

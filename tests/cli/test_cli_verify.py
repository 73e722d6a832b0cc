"""``bitinfer verify`` and ``convert --verify``: equal, different, and what is written."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bitinfer import modelfile
from helpers import COLOURS, colour_model, converted, save

Call = Callable[..., Any]
REFERENCE = "--backend=reference"


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path]:
    return converted(tmp_path)


def damage(model: Path) -> None:
    """Turn the signs of a filter of the second layer round."""
    found = modelfile.load(model)
    tensors = {name: array.copy() for name, array in found.tensors.items()}
    weight = tensors["layer1.weight"]
    weight[0] = ~weight[0] & np.uint64((1 << 20) - 1)
    save(dataclasses.replace(found, tensors=tensors, sha256=""), model)


def test_model_equals_its_source(pair: tuple[Path, Path], call: Call) -> None:
    result = call("verify", REFERENCE, *pair)
    assert result.code == 0
    assert "equal; 8 samples" in result.out
    assert "8 of 8 answers the same" in result.out
    assert call("verify", "-q", REFERENCE, *pair).out == ""


def test_other_model_is_told_apart(pair: tuple[Path, Path], call: Call, tmp_path: Path) -> None:
    model, source = pair
    damage(model)
    page = tmp_path / "page.html"
    result = call("verify", "-q", REFERENCE, model, source, "--html", page)
    assert result.code == 3
    assert "they part at layer1.margin, which follows from layer1" in result.out
    text = page.read_text()
    assert "DIFFERENT" in text
    assert "<svg" in text
    answer = json.loads(call("verify", "--json", REFERENCE, model, source).out)
    assert not answer["equal"]
    assert answer["first_difference"]["layers"] == ["layer1"]
    assert [s["differing"] for s in answer["signs"]] == [0, 0]


def test_pictures_are_taken_as_inputs(pair: tuple[Path, Path], call: Call, tmp_path: Path) -> None:
    images = np.random.default_rng(1).integers(0, 256, (5, 5, 5), dtype=np.uint8)
    np.savez(tmp_path / "data.npz", images=images, labels=np.zeros(5, int))
    result = call("verify", REFERENCE, *pair, "--images", tmp_path / "data.npz", "--samples", 4)
    assert (result.code, "equal; 4 samples" in result.out) == (0, True)


def test_another_network_is_refused(pair: tuple[Path, Path], call: Call, tmp_path: Path) -> None:
    other = save(colour_model(labels=tuple(COLOURS)), tmp_path / "other.bin")
    result = call("verify", REFERENCE, other, pair[1])
    assert result.code == 3
    assert "the source takes (5, 5, 1), the model (8, 8, 3)" in result.err


def test_conversion_is_verified_before_it_is_written(
    pair: tuple[Path, Path], call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "out.bin"
    result = call("convert", pair[1], "-o", output, "--scale", 1, "--verify")
    assert result.code == 0
    assert "the model and bits.npz: equal" in result.err
    from bitinfer.importers import convert

    output.unlink()
    read = convert.read_network
    monkeypatch.setattr(convert, "read_network", lambda *args: negated(read(*args)))
    result = call("convert", pair[1], "-o", output, "--scale", 1, "--verify")
    assert result.code == 3
    assert "--verify: the model and bits.npz: DIFFERENT" in result.err
    assert not output.exists()


def negated(source: Any) -> Any:
    return dataclasses.replace(
        source, constants={**source.constants, "w0": -source.constants["w0"]}
    )

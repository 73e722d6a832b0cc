"""model.py: a model is checked whole, once, wherever it comes from."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from bitinfer import model, modelfile, session
from bitinfer.errors import GraphError, ShapeError
from bitinfer.graph import CheckedGraph, Graph, check
from bitinfer.model import MAX_NAME_LENGTH, MAX_PICTURE_SIDE
from bitinfer.session import Session
from helpers import COLOUR_PREPROCESSING, COLOURS, colour_model

TOO_LARGE = msgspec.structs.replace(COLOUR_PREPROCESSING, resize=MAX_PICTURE_SIDE + 1)


@pytest.fixture
def checks(monkeypatch: pytest.MonkeyPatch) -> list[Graph]:
    """The graphs that are checked whole from now on, whoever asks for it."""
    seen: list[Graph] = []

    def count(graph: Graph, tensors: Any) -> CheckedGraph:
        seen.append(graph)
        return check(graph, tensors)

    monkeypatch.setattr(model, "check", count)
    return seen


def test_a_model_from_a_file_is_checked_once(tmp_path: Path, checks: list[Graph]) -> None:
    modelfile.save(colour_model(), tmp_path / "m.bin")
    checks.clear()
    loaded = session.load(tmp_path / "m.bin", "reference")
    loaded.warmup()
    loaded.warmup(pixels=True)
    assert len(checks) == 1


def test_a_model_made_in_memory_is_checked_once(checks: list[Graph]) -> None:
    model = colour_model()
    checks.clear()
    for _ in range(2):
        Session(model, "reference").warmup(pixels=True)
    assert modelfile.to_bytes(model)
    assert len(checks) == 1
    assert model.checked.values is model.checked.values


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"labels": ("a",)}, ShapeError, "1 labels for an output of"),
        ({"labels": ("x" * (MAX_NAME_LENGTH + 1),) * len(COLOURS)}, GraphError, "256 characters"),
        ({"preprocessing": TOO_LARGE}, ShapeError, "resize and crop must be within 1 to 16384"),
        ({"tensors": {}}, GraphError, "there is no tensor"),
    ],
    ids=["labels", "names", "preprocessing", "tensors"],
)
def test_a_model_in_memory_is_held_to_the_same_rules_as_a_file(
    change: dict[str, Any], error: type[Exception], message: str
) -> None:
    model = dataclasses.replace(colour_model(), **change)
    with pytest.raises(error, match=message):
        Session(model, "reference")
    with pytest.raises(error, match=message):
        modelfile.to_bytes(model)


def test_a_changed_model_is_checked_anew() -> None:
    model = colour_model()
    name, tensor = next(iter(model.tensors.items()))
    assert model.checked
    tensors = {**model.tensors, name: np.full_like(tensor, np.nan)}
    other = dataclasses.replace(model, tensors=tensors)
    with pytest.raises((GraphError, ShapeError)):
        _ = other.checked

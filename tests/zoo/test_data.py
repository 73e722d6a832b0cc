"""Labels and preprocessing fit the networks that are trained on the data sets."""

from __future__ import annotations

import pytest

from bitinfer import modelfile, zoo
from bitinfer.graph import GraphBuilder
from bitinfer.importers.states import ARCHITECTURES
from bitinfer.modelfile import Model
from bitinfer.zoo.data import LABELS, PREPROCESSING

CLASSES = {"mnist": 10, "cifar10": 10, "imagenet": 0}


def test_every_data_set_has_its_classes() -> None:
    assert {name: len(labels) for name, labels in LABELS.items()} == CLASSES
    assert all(len(set(labels)) == len(labels) for labels in LABELS.values())


@pytest.mark.parametrize("key", PREPROCESSING, ids="-".join)
def test_preprocessing_is_accepted_by_a_model_of_its_size(key: tuple[str, str]) -> None:
    p = PREPROCESSING[key]  # type: ignore[index]
    size = p.crop or p.resize
    assert isinstance(size, tuple)
    builder = GraphBuilder("net", (*size, len(p.mean)))
    graph, tensors = builder.build(builder.relu(builder.input))
    modelfile.to_bytes(Model(graph=graph, tensors=tensors, preprocessing=p))


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_architectures_that_are_imported_take_what_their_preprocessing_makes(name: str) -> None:
    p = ARCHITECTURES[name].PREPROCESSING[name]
    assert (p.crop or p.resize) == zoo.find(name).input_shape[:2]
    assert len(p.mean) == zoo.find(name).input_shape[2]

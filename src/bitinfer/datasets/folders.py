"""A folder of pictures per class, and which class each folder stands for."""

from __future__ import annotations

import itertools
import os
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal

import numpy as np

from bitinfer import vision
from bitinfer.datasets.base import Batch, ClassRule, Dataset, Target, reading
from bitinfer.errors import DataError, ImageError
from bitinfer.files import one_line
from bitinfer.vision import Pixels

Classes = Literal["auto", "labels", "numbers", "order"]
"""The rule that the caller wants: see :func:`class_indices`."""

_NAMED = 10
_DIGITS = 9
"""Longer names are no numbers of classes."""

_ImageErrors = Callable[[ImageError], None] | None


def load_folders(
    path: Path, target: Target, on_error: _ImageErrors, classes: Classes = "auto"
) -> Dataset:
    """Open a folder with one folder of pictures per class; the classes take turns.

    Raises:
        DataError: the folders name no classes of the network, or hold no pictures.
        ImageError: a folder cannot be listed, and there is no ``on_error``.
    """
    folders = subfolders(path)
    if not folders:
        raise DataError(
            f"{path}: wanted MNIST's t10k-images-idx3-ubyte[.gz], CIFAR's test_batch or "
            "test_batch.bin, or a folder per class in it"
        )
    rule, indices = class_indices(folders, target, path, classes)
    passed_over: list[str] = []
    by_class = [
        [(picture, index) for picture in _pictures(path / folder, passed_over, on_error)]
        for folder, index in zip(folders, indices, strict=True)
    ]
    # One of each class in turn.
    turns = itertools.zip_longest(*by_class)
    samples = [sample for turn in turns for sample in turn if sample is not None][: target.limit]
    if not samples:
        others = f"; {len(passed_over)} files in them are none" if passed_over else ""
        raise DataError(f"{path}: no picture in its folders{others}")
    step = target.batch_for(target.input_shape)

    def read() -> Iterator[Batch]:
        images: list[Pixels] = []
        labels: list[int] = []
        for number, (picture, index) in enumerate(samples, start=1):
            try:
                image = vision.decode(picture, target.preprocessing)
                images.append(
                    vision.prepare(image, target.preprocessing, target.input_shape, name=picture)
                )
                labels.append(index)
            except ImageError as error:
                if on_error is None:
                    raise
                on_error(error)
            if images and (len(images) == step or number == len(samples)):
                yield np.stack(images), np.array(labels, np.int64)
                images, labels = [], []

    notes = [_confusable(folders, indices, rule, path)]
    if empty := [name for name, found in zip(folders, by_class, strict=True) if not found]:
        more = ", ..." if len(empty) > _NAMED else ""
        notes.append(f"{path}: no picture in {', '.join(map(one_line, empty[:_NAMED]))}{more}")
    return Dataset(
        kind="folder",
        path=str(path),
        total=len(samples),
        _read=read,
        classes=rule,
        notes=tuple(filter(None, notes)),
        passed_over=tuple(passed_over),
    )


def subfolders(path: Path) -> list[str]:
    """Return the names of the folders in a folder, sorted as texts, without hidden ones.

    Raises:
        DataError: the folder cannot be listed.
    """
    with reading(path):
        names = [entry.name for entry in os.scandir(path) if not entry.name.startswith(".")]
        # A link that leads round in a circle is no folder to isdir, and an error to DirEntry.
        return sorted(name for name in names if os.path.isdir(path / name))  # noqa: PTH112


def class_indices(
    folders: list[str], target: Target, path: Path, classes: Classes = "auto"
) -> tuple[ClassRule, list[int]]:
    """Return the rule by which folders are classes, and the class of each.

    ``auto`` takes the first rule that fits:

    1. ``labels``: every folder bears one label of the model, but for case, composition of letters,
       and spaces, dashes and underscores.
    2. ``numbers``: every name is a whole number: of the classes from 0, or from 1 where the number
       of classes itself is among them and 0 is not.
    3. ``order``: there are as many folders as classes; sorted as texts they are the classes in
       order, as torchvision's ImageFolder counts them.

    Raises:
        DataError: no rule fits, or not the one that is asked for.
    """
    rules = {"labels": _by_label, "numbers": _by_number, "order": _by_order}
    for name in rules if classes == "auto" else [classes]:
        found = rules[name](folders, target)
        if found is not None:
            return found
    raise DataError(f"{path}: {_refusal(folders, target, classes)}")


_Indices = tuple[ClassRule, list[int]] | None


def _by_label(folders: list[str], target: Target) -> _Indices:
    known = _known(folders, target)
    if len(known) != len(folders):
        return None
    index = {_spelling(label): i for i, label in enumerate(target.labels)}
    return "labels", [index[_spelling(folder)] for folder in folders]


def _by_number(folders: list[str], target: Target) -> _Indices:
    if not all(f.isascii() and f.isdecimal() and len(f) <= _DIGITS for f in folders):
        return None
    numbers = [int(folder) for folder in folders]
    if len(set(numbers)) != len(numbers):
        return None
    if max(numbers) < target.classes:
        return "numbers", numbers
    if max(numbers) == target.classes and min(numbers) >= 1:
        return "numbers from 1", [number - 1 for number in numbers]
    return None


def _by_order(folders: list[str], target: Target) -> _Indices:
    if len(folders) != target.classes or _known(folders, target):
        return None
    return "order", list(range(len(folders)))


def _known(folders: list[str], target: Target) -> list[str]:
    """Return the folders that bear exactly one label."""
    spelled = Counter(_spelling(label) for label in target.labels)
    return [folder for folder in folders if spelled[_spelling(folder)] == 1]


def _refusal(folders: list[str], target: Target, classes: Classes) -> str:
    known = _known(folders, target)
    stranger = one_line(next((f for f in folders if f not in known), folders[0]))
    if target.labels and classes in ("auto", "labels"):
        return (
            f"folder '{stranger}' is not the name of exactly one of the model's {target.classes} "
            "labels; name the folders as 'bitinfer inspect' shows the labels"
        )
    if classes == "labels":
        return "the model has no labels to match folders with; see --classes"
    if classes == "numbers":
        return (
            f"its folders are not numbers of the network's {target.classes} classes, "
            "each once, from 0 or from 1; see --classes"
        )
    return (
        f"{len(folders)} folders for {target.classes} classes"
        + (", some of them labels" if known else ", and the model has no labels to match them with")
        + "; name the folders by class number, from 0"
    )


def _confusable(folders: list[str], indices: list[int], rule: ClassRule, path: Path) -> str:
    """Say so where the same folders are other classes to torchvision."""
    if rule == "order":
        if all(f.isascii() and f.isdecimal() for f in folders):
            return f"{path}: folders named by numbers count in the order of texts (10 before 2)"
        return ""
    if rule == "labels" or indices == sorted(indices):
        return ""
    return (
        f"{path}: folders count as class {rule}; torchvision's ImageFolder sorts them as texts "
        "(10 before 2): for a network trained with it, use --classes order"
    )


def _spelling(name: str) -> str:
    """Return a name without what keyboards and file systems do to it: case, composition, joints."""
    name = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", name).casefold())
    return " ".join(name.replace("_", " ").replace("-", " ").split())


def _pictures(folder: Path, passed_over: list[str], on_error: _ImageErrors) -> Iterator[str]:
    """Yield the pictures in a folder; note what is passed over, report what cannot be listed."""
    for entry in vision.entries_in(folder):
        if entry.problem is not None:
            if on_error is None:
                raise entry.problem
            on_error(entry.problem)
        elif entry.is_picture:
            yield entry.path
        else:
            passed_over.append(entry.path)

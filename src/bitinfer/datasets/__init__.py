"""Reads labelled pictures to evaluate a network with.

    for images, labels in datasets.load("data/mnist", model):
        ...                              # uint8 (n, H, W, C) as the network wants it, int64 (n,)

Files come from strangers: nothing in a pickle is executed, sizes are checked against what the
headers say, and a compressed file costs no more memory than the limits of its reader.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from pathlib import Path

from bitinfer import vision
from bitinfer.datasets import cifar, folders, idx
from bitinfer.datasets.base import MAX_IMAGES, Batch, ClassRule, Dataset, PathLike, Target, reading
from bitinfer.datasets.folders import Classes
from bitinfer.datasets.idx import read_idx
from bitinfer.datasets.npz import load_npz
from bitinfer.errors import DataError, ImageError, ModelFileError
from bitinfer.files import open_regular
from bitinfer.model import Model

__all__ = ["Batch", "ClassRule", "Classes", "Dataset", "load", "read_idx"]

_TRAINING = frozenset(("train", "training"))
_TESTING = frozenset(("val", "valid", "validation", "test", "testing"))
_PICKLE_PROTOCOLS = (b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")


def load(
    path: PathLike,
    model: Model,
    *,
    batch_size: int = 32,
    limit: int | None = None,
    classes: Classes = "auto",
    on_error: Callable[[ImageError], None] | None = None,
) -> Dataset:
    """Open evaluation data for ``model``; what it is shows from its content.

    * a directory that holds MNIST's ``t10k-images-idx3-ubyte[.gz]``, or an idx images file with
      the labels file beside it;
    * an ``.npz`` with ``images`` (N, H, W) or (N, H, W, C) uint8 and integer ``labels`` (N,);
    * CIFAR's ``test_batch`` or ``test_batch.bin`` (CIFAR-100: ``test``, ``test.bin``), or the
      directory with it;
    * a directory with one folder of pictures per class: ``classes`` says how their names become
      classes (:func:`folders.class_indices`).  The classes take turns, so that ``limit`` keeps them
      balanced.

    The directory may also be the root that torchvision's MNIST or CIFAR10 was given, or hold one
    folder for training and one for testing, of which that for testing is taken.

    Pictures in folders that cannot be read are passed to ``on_error`` and left out.

    Raises:
        DataError: the data cannot be read or do not fit the network; while iterating, too.
        ImageError: a picture cannot be read, and there is no ``on_error``.
        ModelFileError: the model does not say how a picture becomes its input.
    """
    if model.preprocessing is None:
        raise ModelFileError(vision.describe_lack(model.graph.input.shape))
    target = Target(
        preprocessing=model.preprocessing,
        input_shape=model.graph.input.shape,
        labels=model.labels,
        classes=math.prod(model.checked.values[model.graph.outputs[0]].shape),
        batch_size=batch_size,
        limit=MAX_IMAGES if limit is None else limit,
    )
    path = Path(path)
    if not path.is_dir():
        return _load_file(path, target)
    if images := idx.find_mnist(path, "t10k"):
        return idx.load_idx(_only_one(path, images), target)
    if found := cifar.find_cifar(path):
        return cifar.load_cifar(_only_one(path, found), target)
    if raw := idx.find_raw(path):
        raise DataError(f"{raw}: holds no t10k-images-idx3-ubyte[.gz]; download MNIST's files")
    return folders.load_folders(_testing_part(path, target), target, on_error, classes)


def _load_file(path: Path, target: Target) -> Dataset:
    with reading(path), open_regular(path) as file:
        head = file.read(512)
        size = os.fstat(file.fileno()).st_size
    if head.startswith(b"PK\3\4"):
        return load_npz(path, target)
    if head.startswith(b"\x93NUMPY"):
        raise DataError(
            f"{path}: one array alone (.npy); wanted an .npz with images and labels, which "
            "numpy.savez writes"
        )
    if head[8:].startswith(b'{"__metadata__":{"bitinfer"'):
        raise DataError(f"{path}: a bitinfer model file, where data are wanted; it comes first")
    if vision.is_picture(head):
        raise DataError(
            f"{path}: one picture; wanted a folder per class of them (bitinfer run takes pictures)"
        )
    if head[257:262] == b"ustar" or path.name.casefold().endswith((".tar.gz", ".tgz")):
        raise DataError(f"{path}: an archive of files; unpack it and name the folder")
    if head.startswith(_PICKLE_PROTOCOLS) or cifar.is_binary(path, size):
        return cifar.load_cifar(path, target)
    return idx.load_idx(path, target)


def _only_one(path: Path, found: list[Path]) -> Path:
    if len(found) > 1:
        names = " and ".join(str(file.relative_to(path)) for file in found)
        raise DataError(f"{path}: holds {names}; name the one that is meant")
    return found[0]


def _testing_part(path: Path, target: Target) -> Path:
    """Return the folder within that holds the test pictures, if it is split into such parts."""
    names = folders.subfolders(path)
    parts = {name for name in names if name.casefold() in _TRAINING | _TESTING}
    if not parts or parts != set(names) or set(names) <= set(target.labels):
        return path
    testing = sorted(name for name in parts if name.casefold() in _TESTING)
    if len(testing) != 1:
        raise DataError(
            f"{path}: holds the parts {', '.join(names)}; name the one that is meant, such as "
            f"{path / (testing or names)[0]}"
        )
    return path / testing[0]

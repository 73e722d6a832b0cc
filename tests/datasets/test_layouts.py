"""Data sets as others lay them out, and which class a folder stands for."""

from __future__ import annotations

import contextlib
import io
import pickle
import unicodedata
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from written import folders, mnist, read

from bitinfer import datasets, modelfile
from bitinfer.datasets.pickles import Call, unpickle
from bitinfer.errors import DataError
from bitinfer.graph import GraphBuilder
from bitinfer.model import Model, Preprocessing
from helpers import colour_model, encode, solid

PLAIN = Preprocessing(color="rgb", mean=(0.0,) * 3, std=(1.0,) * 3)


def network(classes: int, *, size: int = 8, labels: tuple[str, ...] = ()) -> Model:
    b = GraphBuilder("any", input_shape=(size, size, 3))
    x = b.flatten(b.avg_pool2d(b.input, size), "channels_last")
    graph = b.build(b.dense(x, np.zeros((classes, 3))))
    return Model(*graph, labels=labels, preprocessing=PLAIN)


def classes_of(root: Path, names: list[str], model: Model, **options: Any) -> dict[str, int]:
    """Return the class of every folder, told apart by how many pictures it has."""
    for count, name in enumerate(names, start=1):
        (root / name).mkdir(parents=True)
        for i in range(count):
            (root / name / f"{i}.png").write_bytes(encode(solid("red")))
    labels = read(datasets.load(root, model, **options))[1]
    counts = {labels.count(label): label for label in set(labels)}
    return {name: counts[count] for count, name in enumerate(names, start=1)}


# Which class a folder is


def test_numbers_count_from_0_or_from_1_and_never_as_texts(tmp_path: Path) -> None:
    for first in (0, 1):
        names = [str(n) for n in range(first, first + 12)]
        wanted = {name: int(name) - first for name in names}
        assert classes_of(tmp_path / str(first), names, network(12)) == wanted


def test_texts_are_sorted_where_that_is_asked_for(tmp_path: Path) -> None:
    names = [str(n) for n in range(12)]
    wanted = {name: i for i, name in enumerate(sorted(names))}
    assert classes_of(tmp_path, names, network(12), classes="order") == wanted


def test_the_rule_and_what_it_may_be_confused_with_are_said(tmp_path: Path) -> None:
    folders(tmp_path / "a", {str(n): "red" for n in range(12)}, count=1)
    data = datasets.load(tmp_path / "a", network(12))
    assert data.classes == "numbers"
    assert "--classes order" in data.notes[0]
    data = datasets.load(tmp_path / "a", network(12), classes="order")
    assert data.classes == "order"
    assert "10 before 2" in data.notes[0]
    folders(tmp_path / "b", {f"{n:02}": "red" for n in range(12)}, count=1)
    assert datasets.load(tmp_path / "b", network(12)).notes == ()
    folders(tmp_path / "c", {"red": "red", "blue": "blue"})
    data = datasets.load(tmp_path / "c", colour_model())
    assert (data.classes, data.notes) == ("labels", ())


@pytest.mark.parametrize(
    ("names", "classes"),
    [(["0", "1", "12"], "numbers"), (["a", "b"], "order"), (["1", "01", "2"], "numbers")],
)
def test_a_rule_that_does_not_fit_is_refused(
    names: list[str], classes: str, tmp_path: Path
) -> None:
    folders(tmp_path, dict.fromkeys(names, "red"))
    with pytest.raises(DataError):
        datasets.load(tmp_path, network(3), classes=classes)


@pytest.mark.parametrize("form", ["NFC", "NFD", "NFKC", "NFKD"])
def test_labels_match_in_every_form_of_unicode(form: Any, tmp_path: Path) -> None:
    labels = ("café", "Straße", "ångström", "ﬁsh", "blue-green algae")
    names = ["café", "STRASSE", "Ångström", "fish", "Blue_Green  Algae"]
    spelled = [unicodedata.normalize(form, name) for name in names]
    found = classes_of(tmp_path, spelled, network(5, labels=labels))
    assert list(found.values()) == [0, 1, 2, 3, 4]


def test_brackets_in_names_are_no_wildcards(tmp_path: Path) -> None:
    root = folders(tmp_path / "set [v2]", {"red": "red", "blue": "blue"})
    assert datasets.load(root, colour_model()).total == 4


def test_classes_without_a_picture_are_named(tmp_path: Path) -> None:
    folders(tmp_path, {"red": "red", "blue": "blue"})
    (tmp_path / "green").mkdir()
    data = datasets.load(tmp_path, colour_model())
    assert (data.total, data.notes) == (4, (f"{tmp_path}: no picture in green",))


def test_other_files_are_passed_over_by_name(tmp_path: Path) -> None:
    folders(tmp_path, {"red": "red", "blue": "blue"})
    (tmp_path / "red" / "x.tif").write_bytes(b"II*\0")
    data = datasets.load(tmp_path, colour_model())
    assert data.passed_over == (str(tmp_path / "red" / "x.tif"),)


# Folders around the data


@pytest.mark.parametrize("place", ["raw", "MNIST/raw", "FashionMNIST/raw"])
def test_the_root_that_torchvision_was_given_is_taken(place: str, tmp_path: Path) -> None:
    (tmp_path / place).mkdir(parents=True)
    images = mnist(tmp_path / place)
    data = datasets.load(tmp_path, colour_model())
    assert (data.kind, data.path, data.total) == ("idx", str(images), 5)


@pytest.mark.parametrize("inner", ["", "MNIST"])
def test_a_root_of_torchvision_without_files_says_what_is_missing(
    inner: str, tmp_path: Path
) -> None:
    (tmp_path / "MNIST" / "raw").mkdir(parents=True)
    with pytest.raises(DataError, match=r"MNIST/raw: holds no t10k-images-idx3-ubyte"):
        datasets.load(tmp_path / inner, colour_model())


def test_of_two_data_sets_one_must_be_named(tmp_path: Path) -> None:
    for name in ("MNIST", "KMNIST"):
        (tmp_path / name / "raw").mkdir(parents=True)
        mnist(tmp_path / name / "raw")
    with pytest.raises(DataError, match=r"KMNIST/raw/t10k.* and MNIST/raw/t10k.*name the one"):
        datasets.load(tmp_path, colour_model())


@pytest.mark.parametrize("part", ["val", "test", "Validation"])
def test_the_part_for_testing_is_taken(part: str, tmp_path: Path) -> None:
    folders(tmp_path / part, {"red": "red", "blue": "blue"})
    folders(tmp_path / "train", {"red": "red", "blue": "blue"}, count=9)
    data = datasets.load(tmp_path, colour_model())
    assert (data.path, data.total) == (str(tmp_path / part), 4)


def test_of_several_parts_for_testing_one_must_be_named(tmp_path: Path) -> None:
    for part in ("train", "val", "test"):
        folders(tmp_path / part, {"red": "red"})
    with pytest.raises(DataError, match=f"train, val; name the one .*{tmp_path}/test"):
        datasets.load(tmp_path, colour_model())


def test_parts_that_are_labels_are_classes(tmp_path: Path) -> None:
    folders(tmp_path, {"train": "red", "test": "blue"})
    data = datasets.load(tmp_path, network(3, labels=("train", "test", "bus")))
    assert (data.path, data.classes) == (str(tmp_path), "labels")


# CIFAR


def cifar_pixels(count: int) -> np.ndarray:
    return np.random.default_rng(2).integers(0, 256, (count, 3072), dtype=np.uint8)


def as_pictures(pixels: np.ndarray) -> np.ndarray:
    return pixels.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)


def as_python_2_wrote_it(pixels: np.ndarray, labels: list[int]) -> bytes:
    """Write the pickle of the published test_batch, opcode by opcode."""
    rows = pixels.tobytes()
    shape = pickle.dumps(pixels.shape, 2)[2:-1]
    numbers = b"](" + b"".join(b"K" + bytes([n]) for n in labels) + b"e"
    array = (
        b"cnumpy.core.multiarray\n_reconstruct\nq\x01(cnumpy\nndarray\nq\x02K\0\x85U\x01bq\x03t"
        b"q\x04Rq\x05(K\x01" + shape.replace(b"q\0", b"") + b"cnumpy\ndtype\nq\x06(U\x02u1K\0K\x01t"
        b"q\x07Rq\x08(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\0tq\x09b\x89"
        b"T" + len(rows).to_bytes(4, "little") + rows + b"q\x0atq\x0bb"
    )
    return (
        b"\x80\x02}q\x00(U\x0bbatch_labelU\x05test."
        b"U\x06labels" + numbers + b"U\x04data" + array + b"U\tfilenames](U\x05a.pngeu."
    )


def python_version(path: Path, protocol: int, pixels: np.ndarray, labels: list[int]) -> Path:
    if protocol == 0:
        path.write_bytes(as_python_2_wrote_it(pixels, labels))
    else:
        content = {b"data": pixels, b"labels": labels, b"filenames": [b"a.png"] * len(labels)}
        path.write_bytes(pickle.dumps(content, protocol))
    return path


@pytest.mark.parametrize("protocol", [0, 2, 3, 4, 5], ids=lambda p: f"protocol {p or 'Python 2'}")
def test_cifar_for_python_is_read(protocol: int, tmp_path: Path) -> None:
    pixels, labels = cifar_pixels(7), [3, 0, 9, 1, 1, 2, 8]
    inner = tmp_path / "cifar-10-batches-py"
    inner.mkdir()
    path = python_version(inner / "test_batch", protocol, pixels, labels)
    for place in (tmp_path, inner, path):
        data = datasets.load(place, network(10, size=32), batch_size=3)
        assert (data.kind, data.path) == ("cifar", str(path))
        found, numbers = read(data)
        assert np.array_equal(found, as_pictures(pixels))
        assert numbers == labels


@pytest.mark.parametrize(
    ("classes", "wanted"), [(10, "labels"), (100, "fine_labels"), (20, "coarse_labels")]
)
@pytest.mark.parametrize("binary", [False, True])
def test_cifar_100_has_two_kinds_of_labels(
    classes: int, wanted: str, binary: bool, tmp_path: Path
) -> None:
    pixels = cifar_pixels(6)
    coarse, fine = [0, 1, 2, 3, 4, 19], [5, 99, 7, 8, 9, 50]
    if binary:
        heads = [[c, f] for c, f in zip(coarse, fine, strict=True)]
        if classes == 10:
            heads = [[c % 10] for c in coarse]
        path = tmp_path / ("test_batch.bin" if classes == 10 else "test.bin")
        path.write_bytes(
            b"".join(bytes(h) + p.tobytes() for h, p in zip(heads, pixels, strict=True))
        )
    else:
        path = tmp_path / ("test_batch" if classes == 10 else "test")
        content = {"data": pixels, "fine_labels": fine, "coarse_labels": coarse}
        if classes == 10:
            content = {"data": pixels, "labels": [c % 10 for c in coarse]}
        path.write_bytes(pickle.dumps(content, 2))
    found, numbers = read(datasets.load(tmp_path, network(classes, size=32)))
    assert np.array_equal(found, as_pictures(pixels))
    by_kind = {"labels": [c % 10 for c in coarse], "fine_labels": fine, "coarse_labels": coarse}
    assert numbers == by_kind[wanted]


class Trap:
    sprung = False

    def __reduce__(self) -> tuple[Any, ...]:
        return setattr, (Trap, "sprung", True)


def test_nothing_in_a_pickle_is_executed(tmp_path: Path) -> None:
    content = {"data": cifar_pixels(2), "labels": [0, 1], "x": Trap()}
    (tmp_path / "test_batch").write_bytes(pickle.dumps(content, 2))
    assert read(datasets.load(tmp_path, network(10, size=32)))[1] == [0, 1]
    assert not Trap.sprung


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"labels": [0]}, "without CIFAR's 'data'"),
        ({"data": cifar_pixels(2)}, "without CIFAR's 'data'"),
        ({"data": cifar_pixels(2).astype(np.int64), "labels": [0, 1]}, "an array of bytes"),
        ({"data": np.asfortranarray(cifar_pixels(2)), "labels": [0, 1]}, "an array of bytes"),
        ({"data": cifar_pixels(2), "labels": [0]}, "6144 bytes of pixels for 1 labels"),
        ({"data": cifar_pixels(1), "labels": [10]}, "the network's 10 classes are 0 to 9"),
        ({"data": cifar_pixels(1), "labels": [-1]}, "whole numbers of at least 0"),
        ({"data": cifar_pixels(1), "labels": ["0"]}, "whole numbers of at least 0"),
        ([1, 2], "without CIFAR's 'data'"),
    ],
    ids=str,
)
@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_pickles_that_are_not_cifar_are_data_errors(
    content: object, message: str, protocol: int, tmp_path: Path
) -> None:
    path = tmp_path / "test_batch"
    path.write_bytes(pickle.dumps(content, protocol))
    with pytest.raises(DataError, match=message) as caught:
        datasets.load(path, network(10, size=32))
    assert str(caught.value).startswith(str(path))


def test_damaged_pickles_load_or_are_data_errors(tmp_path: Path) -> None:
    path = tmp_path / "test_batch"
    good = as_python_2_wrote_it(cifar_pixels(1), [3])
    places = [*range(180), *range(len(good) - 60, len(good))]
    rng = np.random.default_rng(5)
    for _ in range(1500):
        data = bytearray(good)
        data[places[rng.integers(len(places))]] = rng.integers(256)
        path.write_bytes(data)
        with contextlib.suppress(DataError):
            read(datasets.load(path, network(10, size=32)))
    for end in (*range(0, 180, 3), len(good) - 1):
        path.write_bytes(good[:end])
        with pytest.raises(DataError):
            datasets.load(path, network(10, size=32))


@pytest.mark.parametrize(
    "data",
    [
        b"\x80\x02" + b"N0" * 400_000 + b"N.",
        b"\x80\x02N" + b"r\xff\xff\xff\x7f" + b".",
        b"\x80\x02cos\nsystem\nN.",
        b"\x80\x02(((((.",
        b"\x80\x02]q\0h\0a.",
    ],
    ids=["endless", "memo", "global", "marks", "itself"],
)
def test_hostile_pickles_are_values_or_value_errors(data: bytes) -> None:
    try:
        value = unpickle(data)
    except ValueError:
        return
    assert value is None or isinstance(value, list | Call)


def test_a_binary_file_of_another_length_is_refused(tmp_path: Path) -> None:
    (tmp_path / "test_batch.bin").write_bytes(bytes(3075))
    with pytest.raises(DataError, match="3075 bytes, wanted records"):
        datasets.load(tmp_path, network(10, size=32))


# What is no data set


def zipped(name: str) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr(name, b"x")
    return file.getvalue()


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("test_batch", b"x\n", "wanted an idx file"),
        ("a.npy", b"\x93NUMPY\x01\0", r"one array alone \(\.npy\); wanted an \.npz"),
        ("digits", b"", "starts with nothing, wanted an idx file"),
        ("cifar-10-python.tar.gz", b"\x1f\x8b", "an archive of files; unpack it"),
        ("x", bytes(257) + b"ustar", "an archive of files; unpack it"),
        ("m.bin", modelfile.to_bytes(colour_model()), "a bitinfer model file, where data are"),
        ("a.png", encode(solid("red")), "one picture; wanted a folder per class"),
        ("pictures.zip", zipped("red/a.png"), "a zip of other files"),
    ],
)
def test_other_files_say_what_is_wanted(
    name: str, data: bytes, message: str, tmp_path: Path
) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(DataError, match=message):
        datasets.load(tmp_path / name, colour_model())

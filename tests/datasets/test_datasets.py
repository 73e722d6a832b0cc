"""Readers of evaluation data: what they accept, and what damaged or hostile files do."""

from __future__ import annotations

import contextlib
import gzip
import io
import pickle
import struct
import tracemalloc
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from written import folders, idx, mnist, npz, read

from bitinfer import datasets
from bitinfer.errors import DataError, ImageError, ModelFileError
from bitinfer.model import Preprocessing
from helpers import COLOURS, colour_model

PLAIN = Preprocessing(color="rgb", mean=(0.0,) * 3, std=(1.0,) * 3)


def pixels(count: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (count, *shape), dtype=np.uint8)


# idx


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_idx_is_read_compressed_or_not(suffix: str, tmp_path: Path) -> None:
    images = datasets.read_idx(mnist(tmp_path, suffix=suffix))
    assert images.shape == (5, 8, 8)
    assert images.dtype == np.uint8
    assert images.ravel()[:4].tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_mnist_is_found_in_a_directory_or_by_its_images(suffix: str, tmp_path: Path) -> None:
    images = mnist(tmp_path, suffix=suffix)
    mnist(tmp_path, count=9, prefix="train")
    for path in (tmp_path, images):
        data = datasets.load(path, colour_model(), batch_size=2)
        assert (data.kind, data.total) == ("idx", 5)
        read_images, labels = read(data)
        assert labels == [0, 1, 2, 0, 1]
        assert read_images.shape == (5, 8, 8, 3)  # grey in all three colours
        assert np.array_equal(read_images[..., 1], datasets.read_idx(images))


def test_compression_of_images_and_labels_may_differ(tmp_path: Path) -> None:
    images = mnist(tmp_path)
    labels = tmp_path / "t10k-labels-idx1-ubyte"
    (tmp_path / f"{labels.name}.gz").write_bytes(gzip.compress(labels.read_bytes()))
    labels.unlink()
    assert datasets.load(images, colour_model()).total == 5


def test_batches_cover_everything_once_and_again(tmp_path: Path) -> None:
    mnist(tmp_path)
    data = datasets.load(tmp_path, colour_model(), batch_size=2)
    assert [len(labels) for _, labels in data] == [2, 2, 1]
    assert [len(labels) for _, labels in data] == [2, 2, 1]


def test_limit_keeps_the_first(tmp_path: Path) -> None:
    mnist(tmp_path)
    data = datasets.load(tmp_path, colour_model(), batch_size=2, limit=3)
    assert data.total == 3
    assert read(data)[1] == [0, 1, 2]


GOOD = idx(np.zeros((2, 3, 4)))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "wanted an idx"),
        (b"\0\0\x08", "wanted an idx"),
        (b"hello world", "wanted an idx"),
        (b"\0\0\x0d\x03" + GOOD[4:], "wanted an idx"),
        (b"\0\0\x08\x00", "wanted an idx"),
        (b"\0\0\x08\xff", "wanted an idx"),
        (GOOD[:-1], "1 bytes too early"),
        (GOOD[:9], "too early"),
        (GOOD + b"x", "goes on after the 24 bytes"),
        (b"\0\0\x08\x04" + b"\xff" * 16, "at most"),
        (gzip.compress(GOOD, mtime=0)[:-9], "truncated or damaged"),
        (gzip.compress(GOOD, mtime=0)[:10] + b"\xff" * 20, "truncated or damaged"),
        (gzip.compress(GOOD + b"x", mtime=0), "goes on"),
    ],
)
def test_damaged_idx_is_a_data_error(data: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "images-idx3-ubyte"
    path.write_bytes(data)
    with pytest.raises(DataError, match=message) as caught:
        datasets.read_idx(path)
    assert str(caught.value).startswith(str(path))


@pytest.mark.parametrize("claimed", [(1, 2, 2), (1 << 20, 32, 32)], ids=["little", "much"])
def test_gzip_bomb_takes_no_more_memory_than_its_header_claims(
    claimed: tuple[int, ...], tmp_path: Path
) -> None:
    header = bytes((0, 0, 8, 3)) + struct.pack(">3I", *claimed)
    path = tmp_path / "bomb.gz"
    path.write_bytes(gzip.compress(header + bytes(50_000_000)))
    limit = 4 << 20 if claimed[0] == 1 else 120 << 20
    tracemalloc.start()
    with pytest.raises(DataError):
        datasets.read_idx(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < limit


def test_images_without_labels_say_which_file_is_missing(tmp_path: Path) -> None:
    images = mnist(tmp_path)
    (tmp_path / "t10k-labels-idx1-ubyte").unlink()
    with pytest.raises(DataError, match="wanted t10k-labels-idx1-ubyte"):
        datasets.load(images, colour_model())
    labels = images.rename(tmp_path / "train-labels-idx1-ubyte")
    with pytest.raises(DataError, match="labels by its name; wanted the file of images"):
        datasets.load(labels, colour_model())
    other = labels.rename(tmp_path / "digits")
    with pytest.raises(DataError, match="no labels beside it"):
        datasets.load(other, colour_model())


def test_labels_must_fit_images_and_network(tmp_path: Path) -> None:
    images = mnist(tmp_path)
    labels = tmp_path / "t10k-labels-idx1-ubyte"
    labels.write_bytes(idx(np.zeros(4)))
    with pytest.raises(DataError, match="wanted 5 labels"):
        datasets.load(images, colour_model())
    labels.write_bytes(idx(np.array([0, 1, 2, 3, 0])))
    with pytest.raises(DataError, match="0 to 3, the network's 3 classes are 0 to 2"):
        datasets.load(images, colour_model())


def test_images_are_resized_as_the_model_says_or_refused(tmp_path: Path) -> None:
    path = npz(tmp_path / "d.npz", images=pixels(3, 16, 12, 3), labels=np.arange(3))
    images, _ = read(datasets.load(path, colour_model()))
    assert images.shape == (3, 8, 8, 3)
    data = datasets.load(path, colour_model(preprocessing=PLAIN))
    with pytest.raises(DataError, match="12x16 pixels, the network wants 8x8"):
        read(data)


def test_model_without_preprocessing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match="no preprocessing"):
        datasets.load(mnist(tmp_path), colour_model(preprocessing=None))


# npz


@pytest.mark.parametrize("dtype", [np.uint8, np.int32, np.int64, ">u2"])
def test_npz_keeps_pixels_and_labels(dtype: Any, tmp_path: Path) -> None:
    wanted = pixels(7, 8, 8, 3)
    path = npz(tmp_path / "d.npz", images=wanted, labels=(np.arange(7) % 3).astype(dtype))
    data = datasets.load(path, colour_model(), batch_size=3)
    assert (data.kind, data.total) == ("npz", 7)
    images, labels = read(data)
    assert np.array_equal(images, wanted)
    assert labels == [0, 1, 2, 0, 1, 2, 0]


def test_npz_may_hold_grey_images_and_stored_members(tmp_path: Path) -> None:
    wanted = pixels(2, 8, 8)
    np.savez(tmp_path / "d.npz", images=wanted, labels=np.array([1, 2]), extra=np.zeros(3))
    images, _ = read(datasets.load(tmp_path / "d.npz", colour_model()))
    assert all(np.array_equal(images[..., c], wanted) for c in range(3))


def test_npz_of_four_axes_may_have_one_channel(tmp_path: Path) -> None:
    wanted = pixels(2, 8, 8, 1)
    path = npz(tmp_path / "d.npz", images=wanted, labels=np.array([1, 2]))
    images, _ = read(datasets.load(path, colour_model()))
    assert np.array_equal(images[..., :1], wanted)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"labels": np.zeros(1, int)}, "no array 'images'"),
        ({"images": pixels(1, 8, 8)}, "no array 'labels'"),
        ({"images": np.zeros((1, 8, 8)), "labels": np.zeros(1, int)}, "wanted uint8"),
        ({"images": pixels(1, 3, 8, 8), "labels": np.zeros(1, int)}, "last axis"),
        ({"images": pixels(1, 8), "labels": np.zeros(1, int)}, "wanted uint8 of"),
        ({"images": pixels(0, 8, 8), "labels": np.zeros(0, int)}, "there are none, wanted one"),
        ({"images": pixels(1, 8, 8, 4), "labels": np.zeros(1, int)}, "drop the others"),
        ({"images": pixels(1, 8, 8), "labels": np.array([1 << 63], np.uint64)}, "within 9223372"),
        ({"images": pixels(2, 8, 8), "labels": np.zeros(1, int)}, "2 images for 1 labels"),
        ({"images": pixels(1, 8, 8), "labels": np.zeros(1)}, "wanted integers"),
        ({"images": pixels(1, 8, 8), "labels": np.zeros((1, 1), int)}, "wanted integers"),
        ({"images": pixels(1, 8, 8), "labels": np.array([-1])}, "classes are 0 to 2"),
        (
            {"images": np.asfortranarray(pixels(3, 8, 8)), "labels": np.zeros(3, int)},
            "Fortran order",
        ),
    ],
    ids=lambda v: v if isinstance(v, str) else "",
)
def test_npz_that_does_not_fit_is_a_data_error(
    arrays: dict[str, np.ndarray], message: str, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match=message):
        datasets.load(npz(tmp_path / "d.npz", **arrays), colour_model())


class Trap:
    sprung = False

    def __reduce__(self) -> tuple[Any, ...]:
        return setattr, (Trap, "sprung", True)


def test_pickled_arrays_are_refused_and_not_executed(tmp_path: Path) -> None:
    pickle.loads(pickle.dumps(Trap()))
    assert Trap.sprung
    Trap.sprung = False
    labels = np.array([Trap()], dtype=object)
    with pytest.raises(DataError, match="object"):
        datasets.load(
            npz(tmp_path / "d.npz", images=pixels(1, 8, 8), labels=labels), colour_model()
        )
    assert not Trap.sprung


def npy_header(shape: tuple[int, ...]) -> bytes:
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        file, {"descr": "|u1", "fortran_order": False, "shape": shape}
    )
    return file.getvalue()


@pytest.mark.parametrize(
    "shape", [(1, 16384, 16384, 3), (1 << 40, 8, 8), (4, 8, 8), (1 << 24, 8, 8)], ids=str
)
def test_zip_bomb_costs_little_memory(shape: tuple[int, ...], tmp_path: Path) -> None:
    path = tmp_path / "bomb.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("labels.npy", npy_header(shape[:1]) + bytes(min(shape[0], 1 << 24)))
        archive.writestr("images.npy", npy_header(shape) + bytes(30_000_000))
    tracemalloc.start()
    with contextlib.suppress(DataError):
        for _ in datasets.load(path, colour_model(), limit=None if shape[0] < 99 else 1000):
            pass
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8 << 20


def damaged(good: bytes) -> Iterator[bytes]:
    rng = np.random.default_rng(3)
    for length in range(0, len(good), 37):
        yield good[:length]
    for _ in range(200):
        data = bytearray(good)
        data[rng.integers(len(data))] ^= 1 << rng.integers(8)
        yield bytes(data)


def test_damaged_npz_loads_or_is_a_data_error(tmp_path: Path) -> None:
    path = npz(tmp_path / "d.npz", images=pixels(2, 8, 8, 3), labels=np.array([0, 1]))
    for data in damaged(path.read_bytes()):
        path.write_bytes(data)
        with contextlib.suppress(DataError):
            read(datasets.load(path, colour_model()))


def test_leaving_early_closes_the_file(tmp_path: Path) -> None:
    path = npz(tmp_path / "d.npz", images=pixels(9, 8, 8, 3), labels=np.zeros(9, int))
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in datasets.load(path, colour_model(), batch_size=1):
        break
    assert len(list(Path("/proc/self/fd").iterdir())) == before


# A folder per class


def seen(data: datasets.Dataset) -> list[tuple[str, int]]:
    """Return (colour of the picture, label) of every sample."""
    colours = list(COLOURS)
    images, labels = read(data)
    return [
        (colours[int(np.argmax(image[0, 0]))], label)
        for image, label in zip(images, labels, strict=True)
    ]


def test_folders_named_as_labels_get_the_index_of_the_label(tmp_path: Path) -> None:
    folders(tmp_path, {"Blue": "blue", "red": "red"})
    data = datasets.load(tmp_path, colour_model())
    assert (data.kind, data.total) == ("folder", 4)
    assert sorted(seen(data)) == [("blue", 2), ("blue", 2), ("red", 0), ("red", 0)]


def test_link_that_leads_round_in_a_circle_is_no_class(tmp_path: Path) -> None:
    folders(tmp_path, {"blue": "blue", "red": "red"})
    (tmp_path / "green").symlink_to("green")
    assert datasets.load(tmp_path, colour_model()).total == 4


def test_classes_take_turns_so_that_a_limit_keeps_them_balanced(tmp_path: Path) -> None:
    folders(tmp_path, {"red": "red", "green": "green", "blue": "blue"}, count=5)
    data = datasets.load(tmp_path, colour_model(), limit=6)
    assert sorted(read(data)[1]) == [0, 0, 1, 1, 2, 2]


def test_numbered_folders_are_numbers_and_not_words(tmp_path: Path) -> None:
    folders(tmp_path, {"2": "blue", "0": "red"}, count=1)
    assert sorted(seen(datasets.load(tmp_path, colour_model(labels=())))) == [
        ("blue", 2),
        ("red", 0),
    ]


def test_other_names_count_in_sorted_order_if_there_is_one_for_each_class(tmp_path: Path) -> None:
    folders(tmp_path, {"c": "blue", "a": "red", "b": "green"}, count=1)
    for labels in ((), tuple(COLOURS)):
        data = datasets.load(tmp_path, colour_model(labels=labels))
        assert sorted(seen(data)) == [("blue", 2), ("green", 1), ("red", 0)]


@pytest.mark.parametrize(
    ("names", "labels"),
    [
        (("red", "violet"), tuple(COLOURS)),
        (("x", "y"), ()),
        (("0", "7"), ()),
        (("a", "b", "c", "d"), ()),
        (("red", "green", "blue"), ("red", "red", "blue")),
    ],
)
def test_folders_that_name_no_class_are_refused(
    names: tuple[str, ...], labels: tuple[str, ...], tmp_path: Path
) -> None:
    folders(tmp_path, dict.fromkeys(names, "red"))
    with pytest.raises(DataError, match="folder"):
        datasets.load(tmp_path, colour_model(labels=labels))


def test_unreadable_pictures_are_handed_over_and_the_others_go_on(tmp_path: Path) -> None:
    folders(tmp_path, {"red": "red", "blue": "blue"})
    (tmp_path / "red" / "zz.png").write_text("text")
    with pytest.raises(ImageError, match=r"zz\.png"):
        read(datasets.load(tmp_path, colour_model()))
    errors: list[ImageError] = []
    data = datasets.load(tmp_path, colour_model(), on_error=errors.append, batch_size=3)
    assert len(read(data)[1]) == 4
    assert len(errors) == 1


def test_directory_without_data_says_what_is_wanted(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="folder per class"):
        datasets.load(tmp_path, colour_model())
    (tmp_path / "red").mkdir()
    with pytest.raises(DataError, match="no picture"):
        datasets.load(tmp_path, colour_model())


@pytest.mark.parametrize("name", ["none", "/dev/zero"])
def test_missing_files_and_devices_are_data_errors(name: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=name):
        datasets.load(tmp_path / name, colour_model())

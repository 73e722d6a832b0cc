"""half-moon and mlp-cifar10: what they learn, write and refuse; and CIFAR-10's files."""

from __future__ import annotations

import csv
import dataclasses
import io
import lzma
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("matplotlib")

from bitinfer.errors import DataError, OutputError
from bitinfer.train import pictures as pictures_module
from bitinfer.train.pictures import read_cifar10
from bitinfer.train.recipes import half_moon, mlp_cifar10


def make_pictures(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Noise, and a bright row of pixels whose place tells the label."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 10, count).astype(np.uint8)
    images = rng.integers(0, 80, (count, 32, 32, 3)).astype(np.uint8)
    images[np.arange(count), 3 * labels] = 255
    return images, labels


def write_raw(directory: Path, name: str, images: np.ndarray, labels: np.ndarray) -> None:
    (directory / f"{name}_rgb.u8.xz").write_bytes(lzma.compress(images.tobytes()))
    (directory / f"{name}_labels.u8").write_bytes(labels.tobytes())


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(pictures_module, "VALIDATION_IMAGES", 100)
    directory = tmp_path / "cifar10"
    directory.mkdir()
    write_raw(directory, "train", *make_pictures(400, 0))
    write_raw(directory, "test1000", *make_pictures(50, 1))
    return directory


def is_picture(path: Path) -> bool:
    with Image.open(path) as image:
        colours = image.convert("RGB").getcolors(1 << 24)
    return colours is not None and len(colours) > 20


def test_half_moon_tells_the_moons_apart_and_draws_them(tmp_path: Path) -> None:
    output = tmp_path / "moons.png"
    settings = dataclasses.replace(half_moon.DEFAULTS, epochs=60)
    outcome = half_moon.run(output, settings)
    assert outcome.real[0] >= 0.98 * outcome.real[1]
    assert outcome.binary[0] >= 0.93 * outcome.binary[1]
    assert all(len(losses) == 60 and losses[-1] < losses[0] / 2 for losses in outcome.losses)
    assert is_picture(output)


def test_half_moon_is_the_same_for_the_same_seed(tmp_path: Path) -> None:
    settings = dataclasses.replace(half_moon.DEFAULTS, epochs=2)
    files = [tmp_path / name for name in ("a.png", "b.png", "other.png")]
    for file, seed in zip(files, (1, 1, 2), strict=True):
        half_moon.run(file, dataclasses.replace(settings, seed=seed))
    a, b, other = (file.read_bytes() for file in files)
    assert a == b
    assert a != other


def test_unwritable_output_is_found_before_training(tmp_path: Path, data: Path) -> None:
    with pytest.raises(OutputError):
        half_moon.run(tmp_path / "nowhere" / "moons.png")
    with pytest.raises(OutputError):
        mlp_cifar10.run(tmp_path / "no data", tmp_path / "nowhere" / "sweep.png")


def test_sweep_varies_one_thing_at_a_time(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(mlp_cifar10.SWEEP, "width", (8, 128))
    monkeypatch.setitem(mlp_cifar10.SWEEP, "activation", ("relu", "maxout", "binary"))
    reported = []
    output = tmp_path / "sweep.png"
    rows = mlp_cifar10.run(
        data, output, epochs=3, report=lambda done, total, row: reported.append((done, total, row))
    )
    assert [row for _, _, row in reported] == rows
    assert [row.varied for row in rows] == ["width"] * 2 + ["depth"] * 4 + ["rate"] * 4 + [
        "l2"
    ] * 4 + ["activation"] * 3
    base = dataclasses.asdict(mlp_cifar10.Setting())
    for row in rows:
        differing = {k for k, v in dataclasses.asdict(row.setting).items() if v != base[k]}
        assert differing <= {row.varied}
    assert max(row.validation for row in rows) > 0.5
    assert is_picture(output)
    table = list(csv.DictReader(io.StringIO((tmp_path / "sweep.csv").read_text())))
    assert [float(line["validation"]) for line in table] == [round(r.validation, 4) for r in rows]


def test_held_out_pictures_are_the_last(data: Path) -> None:
    training, validation, test = read_cifar10(data)
    images, labels = make_pictures(400, 0)
    np.testing.assert_array_equal(training.images, images[:300])
    np.testing.assert_array_equal(validation.images, images[300:])
    np.testing.assert_array_equal(validation.labels, labels[300:])
    np.testing.assert_array_equal(test.labels, make_pictures(50, 1)[1])


def test_binary_version_is_read_colour_by_colour(data: Path, tmp_path: Path) -> None:
    directory = tmp_path / "cifar-10-batches-bin"
    directory.mkdir()
    images, labels = make_pictures(400, 0)
    records = np.concatenate(
        [labels[:, None], images.transpose(0, 3, 1, 2).reshape(400, -1)], axis=1
    )
    for number in range(5):
        part = records[80 * number : 80 * (number + 1)]
        (directory / f"data_batch_{number + 1}.bin").write_bytes(part.tobytes())
    (directory / "test_batch.bin").write_bytes(records[:7].tobytes())
    training, validation, test = read_cifar10(directory)
    np.testing.assert_array_equal(np.concatenate([training.images, validation.images]), images)
    np.testing.assert_array_equal(test.labels, labels[:7])


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("train_rgb.u8.xz", b"no xz", "damaged"),
        ("train_rgb.u8.xz", lzma.compress(b"1" * 3071), "3071 bytes are no whole number"),
        ("train_rgb.u8.xz", lzma.compress(b""), "0 bytes"),
        ("train_labels.u8", b"\0" * 399, "399 labels of 400 pictures"),
        ("train_labels.u8", b"\x0a" * 400, "one of 0 to 9"),
        ("train_labels.u8", None, "train_labels.u8: No such file"),
        ("train_rgb.u8.xz", None, "holds neither data_batch_1.bin nor train_rgb.u8.xz"),
        ("data_batch_1.bin", b"12", "2 bytes are no whole number of records"),
    ],
)
def test_files_of_another_form_are_refused(
    data: Path, name: str, content: bytes | None, message: str
) -> None:
    if content is None:
        (data / name).unlink()
    else:
        (data / name).write_bytes(content)
    with pytest.raises(DataError, match=message) as caught:
        read_cifar10(data)
    assert "\n" not in str(caught.value)


def test_too_few_pictures_are_refused(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pictures_module, "VALIDATION_IMAGES", 400)
    with pytest.raises(DataError, match="400 training pictures"):
        read_cifar10(data)


def test_unpacking_stops_at_the_size_of_the_whole_data_set(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bomb = lzma.compress(bytes(1 << 22))
    (data / "train_rgb.u8.xz").write_bytes(bomb)
    monkeypatch.setattr(pictures_module, "_LARGEST", 300)
    assert len(bomb) < 300 * 3072
    with pytest.raises(DataError, match=r"921601 bytes are no whole number .* up to 300"):
        read_cifar10(data)

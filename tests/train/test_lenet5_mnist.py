"""The LeNet-5 recipe on a handful of made-up digits: what it reads, trains and writes."""

from __future__ import annotations

import dataclasses
import gzip
import struct
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from bitinfer import modelfile  # noqa: E402 - torch decides whether there is anything to import
from bitinfer.errors import DataError, OutputError  # noqa: E402
from bitinfer.importers.convert import convert  # noqa: E402
from bitinfer.train import digits as digits_module  # noqa: E402
from bitinfer.train.digits import Digits, normalise, read_digits  # noqa: E402
from bitinfer.train.distortion import distort  # noqa: E402
from bitinfer.train.lenet5 import LeNet5  # noqa: E402
from bitinfer.train.loop import Recipe, Step, count_correct, train  # noqa: E402
from bitinfer.train.recipes import lenet5_mnist  # noqa: E402

SMALL = Recipe(epochs=1, batch_size=20)
STILL = dataclasses.replace(SMALL, rotation=0, stretch=0, shear=0, shift=0, warp=0)


@pytest.fixture(autouse=True)
def one_thread():
    """Tiny networks run fastest on one thread, and the number is global in PyTorch."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def make_digits(count: int, *, seed: int = 0) -> Digits:
    """Bright bars whose place tells the label: enough for a network to learn something."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 10, count).astype(np.uint8)
    images = rng.integers(0, 60, (count, 28, 28)).astype(np.uint8)
    for image, label in zip(images, labels, strict=True):
        image[4 + 2 * label : 6 + 2 * label, 4:24] = 255
    return Digits(images, labels)


def write_idx(path: Path, array: np.ndarray) -> None:
    header = struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape)
    path.write_bytes(gzip.compress(header + array.tobytes(), mtime=0))


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory with four small files of MNIST's form; 20 digits are held out."""
    monkeypatch.setattr(digits_module, "VALIDATION_IMAGES", 20)
    directory = tmp_path / "mnist"
    directory.mkdir()
    for prefix, digits in {"train": make_digits(80), "t10k": make_digits(30, seed=1)}.items():
        write_idx(directory / f"{prefix}-images-idx3-ubyte.gz", digits.images)
        write_idx(directory / f"{prefix}-labels-idx1-ubyte.gz", digits.labels)
    return directory


@pytest.fixture
def network() -> LeNet5:
    """A network that has seen a few steps, so that no parameter is at its initial value."""
    result = lenet5_mnist.build(SMALL)
    train(result, make_digits(200), make_digits(20, seed=1), SMALL)
    return result


def test_network_maps_pictures_to_ten_logits() -> None:
    assert lenet5_mnist.build(SMALL)(torch.zeros(3, 1, 28, 28)).shape == (3, 10)


def test_last_training_images_are_held_out(data: Path) -> None:
    training, validation, test = read_digits(data)
    everything = make_digits(80)
    np.testing.assert_array_equal(training.images, everything.images[:60])
    np.testing.assert_array_equal(validation.images, everything.images[60:])
    np.testing.assert_array_equal(validation.labels, everything.labels[60:])
    np.testing.assert_array_equal(test.labels, make_digits(30, seed=1).labels)


def test_no_distortion_is_the_picture_itself() -> None:
    pixels = torch.rand(4, 1, 28, 28)
    same = distort(pixels, STILL, generator=torch.Generator())
    torch.testing.assert_close(same, pixels, rtol=0, atol=1e-5)


def test_distortion_follows_the_generator_and_stays_within_black_and_white() -> None:
    pixels = torch.rand(4, 1, 28, 28)
    a, b, other = (
        distort(pixels, SMALL, generator=torch.Generator().manual_seed(seed)) for seed in (1, 1, 2)
    )
    assert torch.equal(a, b)
    assert not torch.equal(a, other)
    assert a.shape == pixels.shape
    assert a.min() >= 0
    assert a.max() <= 1 + 1e-6


def test_shift_moves_a_dot_by_at_most_its_pixels() -> None:
    recipe = dataclasses.replace(STILL, shift=2.0)
    pixels = torch.zeros(200, 1, 28, 28)
    pixels[:, :, 14, 14] = 1
    moved = distort(pixels, recipe, generator=torch.Generator())
    _, _, rows, columns = torch.nonzero(moved > 0.3, as_tuple=True)
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (12, 16, 12, 16)


def test_same_seed_gives_the_same_file_and_another_seed_another(tmp_path: Path, data: Path) -> None:
    files = [tmp_path / name for name in ("a.bin", "b.bin", "other.bin")]
    for file, seed in zip(files, (3, 3, 4), strict=True):
        lenet5_mnist.run(data, file, dataclasses.replace(SMALL, seed=seed))
    a, b, other = (file.read_bytes() for file in files)
    assert a == b
    assert a != other


def test_training_learns() -> None:
    network = lenet5_mnist.build(STILL)
    reports: list[Step] = []
    recipe = dataclasses.replace(STILL, epochs=4)
    train(network, make_digits(400), make_digits(100, seed=1), recipe, report=reports.append)
    assert count_correct(network, make_digits(100, seed=2)) >= 80
    assert [r.epoch for r in reports if r.validation is not None] == [1, 2, 3, 4]
    assert (reports[-1].step, reports[-1].steps) == (20, 20)


def test_training_leaves_the_global_generator_alone(data: Path, tmp_path: Path) -> None:
    torch.manual_seed(5)
    wanted = torch.rand(3)
    torch.manual_seed(5)
    lenet5_mnist.run(data, tmp_path / "m.bin", SMALL)
    assert torch.equal(torch.rand(3), wanted)


def test_export_says_how_pictures_become_inputs(network: LeNet5) -> None:
    model = lenet5_mnist.export(network, notes=("a note",))
    assert model.labels == tuple("0123456789")
    assert model.preprocessing is not None
    assert model.preprocessing.resize == (28, 28)
    assert model.provenance is not None
    assert model.provenance.notes == ("a note",)
    assert len(modelfile.to_bytes(model)) < 200_000


@pytest.mark.parametrize("backend", ["reference", "auto"])
def test_exported_network_agrees_with_torch(backend: str, network: LeNet5, tmp_path: Path) -> None:
    import bitinfer

    path = tmp_path / "model.bin"
    modelfile.save(lenet5_mnist.export(network), path)
    x = normalise(make_digits(40, seed=3).images)
    with torch.no_grad():
        wanted = network(x).numpy()
    found = bitinfer.load(path, backend=backend).run(x.permute(0, 2, 3, 1).contiguous().numpy())
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-4)


def test_interrupted_training_leaves_the_old_file(data: Path, tmp_path: Path) -> None:
    output = tmp_path / "model.bin"
    output.write_bytes(b"old")

    def interrupt(step: Step) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        lenet5_mnist.run(data, output, SMALL, report=interrupt)
    assert output.read_bytes() == b"old"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["mnist", "model.bin"]


def test_output_is_checked_before_anything_is_read(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="no-such-directory"):
        lenet5_mnist.run(tmp_path / "nothing", tmp_path / "no-such-directory" / "m.bin", SMALL)


def test_missing_file_is_named(data: Path, tmp_path: Path) -> None:
    (data / "t10k-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(DataError, match="t10k-labels-idx1-ubyte"):
        lenet5_mnist.run(data, tmp_path / "m.bin", SMALL)


@pytest.mark.parametrize(
    ("name", "array"),
    [
        ("train-images-idx3-ubyte.gz", np.zeros((80, 28, 27), np.uint8)),
        ("train-labels-idx1-ubyte.gz", np.zeros(79, np.uint8)),
        ("t10k-labels-idx1-ubyte.gz", np.full(30, 10, np.uint8)),
    ],
    ids=["another side", "another count", "another class"],
)
def test_files_of_another_form_are_refused(data: Path, name: str, array: np.ndarray) -> None:
    write_idx(data / name, array)
    with pytest.raises(DataError):
        read_digits(data)


def test_training_set_without_anything_to_train_on_is_refused(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(digits_module, "VALIDATION_IMAGES", 80)
    with pytest.raises(DataError, match="80 training images"):
        read_digits(data)


@pytest.mark.parametrize("wrap", [False, True], ids=["module", "DataParallel"])
def test_saved_and_converted_is_the_direct_export_byte_by_byte(
    network: LeNet5, tmp_path: Path, wrap: bool
) -> None:
    state = network.state_dict()
    if wrap:
        state = {f"module.{name}": value for name, value in state.items()}
    torch.save({"acc": 99.0, "state_dict": state}, tmp_path / "lenet5.best.pth.tar")
    converted, report = convert(tmp_path / "lenet5.best.pth.tar")
    direct, again = (
        modelfile.to_bytes(dataclasses.replace(model, provenance=None))
        for model in (lenet5_mnist.export(network), converted)
    )
    assert direct == again
    assert [o.name for o in report.layers if o.is_binary] == ["bin_conv2.conv", "bin_ip1.linear"]


def test_no_gamma_of_training_is_raised_and_no_weight_is_left_out(
    network: LeNet5, tmp_path: Path
) -> None:
    torch.save(network.state_dict(), tmp_path / "net.pth")
    _, report = convert(tmp_path / "net.pth")
    assert not any(f.kind == "raised gammas" for o in report.layers for f in o.findings)
    assert report.parameters == sum(
        v.numel() for k, v in network.state_dict().items() if "num_batches" not in k
    )

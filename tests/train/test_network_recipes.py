"""The recipes for networks on a handful of made-up pictures: what they read, train and write."""

from __future__ import annotations

import csv
import dataclasses
import gzip
import io
import struct
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("matplotlib")

import bitinfer  # noqa: E402 - torch decides whether there is anything to import
from bitinfer import modelfile  # noqa: E402
from bitinfer.errors import CheckpointError, DataError, OutputError  # noqa: E402
from bitinfer.importers.convert import convert  # noqa: E402
from bitinfer.train import digits as digits_module  # noqa: E402
from bitinfer.train import loop  # noqa: E402
from bitinfer.train.digits import read_digits  # noqa: E402
from bitinfer.train.distortion import Distortion, crop_and_flip, distort  # noqa: E402
from bitinfer.train.loop import Recipe, Run, Step, evaluate  # noqa: E402
from bitinfer.train.pictures import Pictures  # noqa: E402
from bitinfer.train.recipes import networks  # noqa: E402
from bitinfer.train.recipes.networks import SPECS, as_input, build, export, run, task  # noqa: E402
from bitinfer.train.signs import surrogates  # noqa: E402

SMALL = Recipe(epochs=1, batch_size=20, learning_rate=3e-3)
LENET = SPECS["lenet5-mnist"]


pytestmark = pytest.mark.usefixtures("one_thread")


def make_digits(count: int, *, seed: int = 0) -> Pictures:
    """Bright bars whose place tells the label: enough for a network to learn something."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 10, count).astype(np.uint8)
    images = rng.integers(0, 60, (count, 28, 28)).astype(np.uint8)
    for image, label in zip(images, labels, strict=True):
        image[4 + 2 * label : 6 + 2 * label, 4:24] = 255
    return Pictures(images, labels)


def make_pictures(count: int, *, seed: int = 0) -> Pictures:
    """The same in colour, 32 x 32."""
    digits = make_digits(count, seed=seed)
    images = np.pad(digits.images, ((0, 0), (2, 2), (2, 2)))[..., None].repeat(3, axis=3)
    return Pictures(images, digits.labels)


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


def trained(name: str) -> torch.nn.Module:
    """Return a network that has seen two steps, so that no parameter is at its initial value."""
    spec = SPECS[name]
    network = build(spec, seed=0)
    make = make_digits if spec.is_mnist else make_pictures
    training = make(16)
    recipe = dataclasses.replace(SMALL, batch_size=8)
    Run(task(spec, network, training, make(8, seed=1)), recipe).train()
    return network


# --- Networks and their export -------------------------------------------------------------------


@pytest.mark.parametrize("name", SPECS)
def test_exported_network_agrees_with_torch_picture_by_picture(name: str, tmp_path: Path) -> None:
    """Through the file, from pixels: integer first layers, thresholds and all."""
    spec, network = SPECS[name], trained(name)
    path = tmp_path / "model.bin"
    modelfile.save(export(spec, network), path)
    images = (make_digits if spec.is_mnist else make_pictures)(12, seed=3).images
    images = images if images.ndim == 4 else images[..., None]
    session = bitinfer.load(path)
    with torch.no_grad():
        wanted = network.eval()(as_input(images, spec.preprocessing)).numpy()
    network.double()
    compared = 0
    for image, logits in zip(images, wanted, strict=True):
        if _closest_to_a_threshold(network, as_input(image[None], spec.preprocessing)) < 1e-6:
            continue  # float32 may round it to either side, here and in torch
        found = session.run(image[None])[0]
        np.testing.assert_allclose(found, logits, rtol=1e-3, atol=2e-3)
        assert found.argmax() == logits.argmax()
        compared += 1
    assert compared >= 9


@torch.no_grad()
def _closest_to_a_threshold(network: torch.nn.Module, x: torch.Tensor) -> float:
    """Of one picture: the smallest distance of an activation from where its sign turns."""
    with surrogates() as points:
        network(x.double())
    # Signs of weights, with a filter in every row, are recorded beside them.
    return min(float(p.abs().min()) for p in points if len(p) == 1)


@pytest.mark.parametrize("name", SPECS)
def test_saved_and_converted_is_the_direct_export_byte_by_byte(name: str, tmp_path: Path) -> None:
    spec, network = SPECS[name], trained(name)
    torch.save({"acc": 99.0, "state_dict": network.state_dict()}, tmp_path / "best.pth.tar")
    converted, report = convert(tmp_path / "best.pth.tar")
    direct, again = (
        modelfile.to_bytes(dataclasses.replace(model, provenance=None))
        for model in (export(spec, network), converted)
    )
    assert direct == again
    assert not any(f.kind == "raised gammas" for o in report.layers for f in o.findings)
    assert report.parameters == sum(
        v.numel() for k, v in network.state_dict().items() if "num_batches" not in k
    )


def test_export_says_how_pictures_become_inputs() -> None:
    model = export(LENET, build(LENET, 0), notes=("a note",))
    assert model.labels == tuple("0123456789")
    assert model.preprocessing is not None
    assert model.preprocessing.resize == (28, 28)
    assert model.provenance is not None
    assert model.provenance.notes == ("a note",)
    assert len(modelfile.to_bytes(model)) < 200_000


# --- Altered copies ------------------------------------------------------------------------------


def test_no_distortion_is_the_picture_itself() -> None:
    pixels = torch.rand(4, 1, 28, 28)
    still = Distortion(rotation=0, stretch=0, shear=0, shift=0, warp=0)
    same = distort(pixels, still, generator=torch.Generator())
    torch.testing.assert_close(same, pixels, rtol=0, atol=1e-5)


def test_distortion_follows_the_generator_and_stays_within_black_and_white() -> None:
    pixels = torch.rand(4, 1, 28, 28)
    a, b, other = (
        distort(pixels, Distortion(), generator=torch.Generator().manual_seed(seed))
        for seed in (1, 1, 2)
    )
    assert torch.equal(a, b)
    assert not torch.equal(a, other)
    assert a.shape == pixels.shape
    assert a.min() >= 0
    assert a.max() <= 1 + 1e-6


def test_shift_moves_a_dot_by_at_most_its_pixels() -> None:
    limits = Distortion(rotation=0, stretch=0, shear=0, shift=2.0, warp=0)
    pixels = torch.zeros(200, 1, 28, 28)
    pixels[:, :, 14, 14] = 1
    moved = distort(pixels, limits, generator=torch.Generator())
    _, _, rows, columns = torch.nonzero(moved > 0.3, as_tuple=True)
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (12, 16, 12, 16)


def test_crops_are_windows_of_the_padded_picture_half_of_them_turned() -> None:
    padded = torch.arange(400 * 14 * 15 * 2).reshape(400, 14, 15, 2)
    crops = crop_and_flip(padded, generator=torch.Generator().manual_seed(0))
    assert crops.shape == (400, 6, 7, 2)
    turned = 0
    for picture, crop in zip(padded, crops, strict=True):
        is_turned = bool(crop[0, 0, 0] > crop[0, -1, 0])
        crop = crop.flip(1) if is_turned else crop
        turned += is_turned
        row, column = divmod((int(crop[0, 0, 0] - picture[0, 0, 0])) // 2, 15)
        assert torch.equal(crop, picture[row : row + 6, column : column + 7])
    assert 150 < turned < 250


# --- The loop ------------------------------------------------------------------------------------


def lenet_run(recipe: Recipe, state: Path | None = None, images: int = 80) -> Run:
    network = build(LENET, recipe.seed)
    return Run(task(LENET, network, make_digits(images), make_digits(40, seed=1)), recipe, state)


def weights(run: Run) -> dict[str, np.ndarray]:
    return {k: v.numpy() for k, v in run.task.network.state_dict().items()}


def test_training_learns_and_reports() -> None:
    reports: list[Step] = []
    learner = lenet_run(dataclasses.replace(SMALL, epochs=6), images=300)
    learner.train(reports.append)
    test = make_digits(100, seed=2)
    assert evaluate(learner.task.network, test, learner.task.inputs)[1] >= 80
    assert [r.epoch for r in reports if r.end is not None] == [1, 2, 3, 4, 5, 6]
    assert (reports[-1].step, reports[-1].steps) == (15, 15)
    assert learner.best is not None
    assert learner.best.correct == max(e.correct for e in learner.curve)
    assert learner.curve[-1].training_loss < learner.curve[0].training_loss / 2


@pytest.mark.parametrize("stop_in", [2, 3])
def test_interrupted_run_ends_in_the_same_weights(stop_in: int, tmp_path: Path) -> None:
    recipe = dataclasses.replace(SMALL, epochs=3)
    whole = lenet_run(recipe)
    whole.train()

    def interrupt(step: Step) -> None:
        if (step.epoch, step.step) == (stop_in, 2):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        lenet_run(recipe, tmp_path / "state").train(interrupt)
    resumed = lenet_run(recipe, tmp_path / "state")
    assert len(resumed.curve) == stop_in - 1
    resumed.train()
    assert [dataclasses.replace(e, seconds=0) for e in resumed.curve] == [
        dataclasses.replace(e, seconds=0) for e in whole.curve
    ]
    for name, value in weights(whole).items():
        np.testing.assert_array_equal(weights(resumed)[name], value, err_msg=name)


def test_state_of_another_recipe_or_network_or_nothing_is_refused(tmp_path: Path) -> None:
    state = tmp_path / "m.state"
    lenet_run(SMALL, state).train()
    with pytest.raises(CheckpointError, match="with epochs 1, wanted 2; ask for the same"):
        lenet_run(dataclasses.replace(SMALL, epochs=2), state)
    spec = SPECS["nin-cifar10"]
    with pytest.raises(CheckpointError, match="another network"):
        Run(task(spec, build(spec, 0), make_pictures(4), make_pictures(4)), SMALL, state)
    for content in (b"", b"PK\3\4 no zip", state.read_bytes()[:-100]):
        state.write_bytes(content)
        with pytest.raises(CheckpointError, match="not the state of a training run") as caught:
            lenet_run(SMALL, state)
        assert "\n" not in str(caught.value)


def test_best_epoch_is_kept_not_the_last(monkeypatch: pytest.MonkeyPatch) -> None:
    counts = iter([(0.5, 30), (0.5, 39), (0.5, 20)])
    seen = []

    def evaluate_as_told(network, pictures, inputs):
        seen.append({k: v.clone() for k, v in network.state_dict().items()})
        return next(counts)

    monkeypatch.setattr(loop, "evaluate", evaluate_as_told)
    learner = lenet_run(dataclasses.replace(SMALL, epochs=3))
    learner.train()
    assert learner.best is not None
    assert learner.best.epoch == 2
    for name, value in learner.task.network.state_dict().items():
        assert torch.equal(value, seen[1][name])


def test_float_weights_decay_and_binary_ones_do_not() -> None:
    learner = lenet_run(SMALL)
    decayed, others = learner._optimiser.param_groups
    network = learner.task.network
    assert {id(p) for p in decayed["params"]} == {id(network.conv1.weight), id(network.ip2.weight)}
    assert id(network.bin_ip1.linear.weight) in {id(p) for p in others["params"]}
    assert others["weight_decay"] == 0


def test_calibration_measures_plain_averages() -> None:
    network = build(LENET, 0)
    digits = make_digits(1000)
    loop.calibrate(network, digits, task(LENET, network, digits, digits).inputs)
    with torch.no_grad():
        x = network.conv1(as_input(digits.images, LENET.preprocessing))
    torch.testing.assert_close(network.bn_conv1.running_mean, x.mean((0, 2, 3)))
    assert network.bn_conv1.momentum == 0.1
    assert not network.training


# --- From files to a model file ------------------------------------------------------------------


def test_same_seed_gives_the_same_file_and_another_seed_another(tmp_path: Path, data: Path) -> None:
    files = [tmp_path / name for name in ("a.bin", "b.bin", "other.bin")]
    for file, seed in zip(files, (3, 3, 4), strict=True):
        run("lenet5-mnist", data, file, dataclasses.replace(SMALL, seed=seed))
    a, b, other = (file.read_bytes() for file in files)
    assert a == b
    assert a != other


def test_curves_are_beside_the_model_and_the_state_is_gone(tmp_path: Path, data: Path) -> None:
    output = tmp_path / "m.bin"
    outcome = run("lenet5-mnist", data, output, dataclasses.replace(SMALL, epochs=2))
    names = sorted(p.name for p in tmp_path.iterdir())
    assert names == ["m.bin", "m.bin.csv", "m.bin.png", "mnist"]
    rows = list(csv.DictReader(io.StringIO((tmp_path / "m.bin.csv").read_text())))
    assert [row["epoch"] for row in rows] == ["1", "2"]
    assert max(int(row["correct"]) for row in rows) == outcome.validation[0]
    assert (tmp_path / "m.bin.png").read_bytes().startswith(b"\x89PNG")
    provenance = modelfile.load(output).provenance
    assert provenance is not None
    assert provenance.notes[1:] == (
        f"validation {outcome.validation[0]} of 20 correct",
        f"test {outcome.test[0]} of 30 correct",
    )


def test_training_leaves_the_global_generator_alone(data: Path, tmp_path: Path) -> None:
    torch.manual_seed(5)
    wanted = torch.rand(3)
    torch.manual_seed(5)
    run("lenet5-mnist", data, tmp_path / "m.bin", SMALL)
    assert torch.equal(torch.rand(3), wanted)


def test_stopped_in_the_first_epoch_the_old_file_stays(data: Path, tmp_path: Path) -> None:
    output = tmp_path / "model.bin"
    output.write_bytes(b"old")

    def interrupt(step: Step) -> None:
        raise KeyboardInterrupt

    with pytest.raises(networks.Stopped) as caught:
        run("lenet5-mnist", data, output, SMALL, report=interrupt)
    assert caught.value.best is None
    assert output.read_bytes() == b"old"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["mnist", "model.bin"]


def test_stopped_later_the_best_is_written_and_the_same_call_goes_on(
    data: Path, tmp_path: Path
) -> None:
    recipe = dataclasses.replace(SMALL, epochs=3)
    run("lenet5-mnist", data, tmp_path / "whole.bin", recipe)

    def interrupt(step: Step) -> None:
        if step.epoch == 3:
            raise KeyboardInterrupt

    output = tmp_path / "m.bin"
    with pytest.raises(networks.Stopped) as caught:
        run("lenet5-mnist", data, output, recipe, report=interrupt)
    assert (caught.value.epoch, caught.value.epochs) == (2, 3)
    assert caught.value.best is not None
    provenance = modelfile.load(output).provenance
    assert provenance is not None
    assert "stopped behind epoch 2" in provenance.notes[0]
    assert len(provenance.notes) == 2  # the test digits were not looked at
    run("lenet5-mnist", data, output, recipe)
    assert output.read_bytes() == (tmp_path / "whole.bin").read_bytes()


def test_output_is_checked_before_anything_is_read(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="no-such-directory"):
        run("lenet5-mnist", tmp_path / "nothing", tmp_path / "no-such-directory" / "m.bin", SMALL)


# --- MNIST's files -------------------------------------------------------------------------------


def test_last_training_images_are_held_out(data: Path) -> None:
    training, validation, test = read_digits(data)
    everything = make_digits(80)
    np.testing.assert_array_equal(training.images, everything.images[:60])
    np.testing.assert_array_equal(validation.images, everything.images[60:])
    np.testing.assert_array_equal(validation.labels, everything.labels[60:])
    np.testing.assert_array_equal(test.labels, make_digits(30, seed=1).labels)


def test_missing_file_is_named(data: Path, tmp_path: Path) -> None:
    (data / "t10k-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(DataError, match="t10k-labels-idx1-ubyte"):
        run("lenet5-mnist", data, tmp_path / "m.bin", SMALL)


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

"""Real weights first, binary ones then, beside a teacher: recipes of bitres networks."""

from __future__ import annotations

import dataclasses
import lzma
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("matplotlib")

from torch.nn import functional  # noqa: E402 - torch decides whether there is anything to import

from bitinfer import modelfile  # noqa: E402
from bitinfer.errors import CheckpointError  # noqa: E402
from bitinfer.integer_ends import integer_ends  # noqa: E402
from bitinfer.train import loop, pictures  # noqa: E402
from bitinfer.train.bitres import SignConv2d  # noqa: E402
from bitinfer.train.loop import Recipe, Step  # noqa: E402
from bitinfer.train.recipes import networks, teacher  # noqa: E402
from bitinfer.train.signs import sign  # noqa: E402
from bitinfer.train.start import LATENT, begin_with  # noqa: E402
from bitinfer.zoo.shipped import SHIPPED  # noqa: E402

NAME = "bitres8-cifar10"
SMALL = Recipe(epochs=2, real_epochs=1, batch_size=20, learning_rate=3e-3, distillation=0.9)


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory of CIFAR-10's form with 60 pictures, of which 20 are held out, and 10 to test."""
    monkeypatch.setattr(pictures, "VALIDATION_IMAGES", 20)
    rng = np.random.default_rng(0)
    directory = tmp_path / "cifar10"
    directory.mkdir()
    for name, count in (("train", 60), ("test", 10)):
        images = rng.integers(0, 256, (count, 32, 32, 3), np.uint8)
        (directory / f"{name}_rgb.u8.xz").write_bytes(lzma.compress(images.tobytes()))
        (directory / f"{name}_labels.u8").write_bytes(bytes(i % 10 for i in range(count)))
    return directory


@pytest.fixture
def taught(tmp_path: Path) -> Path:
    """A teacher's file, untrained."""
    path = tmp_path / "teacher.safetensors"
    torch.manual_seed(0)
    weights = teacher.Teacher().state_dict()
    path.write_bytes(teacher.safetensors.torch.save(weights))
    return path


@pytest.mark.parametrize(
    ("cin", "cout", "stride", "side"),
    [(64, 64, 1, 6), (64, 128, 2, 6), (8, 128, 1, 5), (130, 136, 1, 4), (128, 136, 2, 4)],
)
def test_gradients_of_the_convolution_are_those_of_pytorch(
    cin: int, cout: int, stride: int, side: int
) -> None:
    """Signs and small integers: every sum is exact in bfloat16, so nothing may differ."""
    generator = torch.Generator().manual_seed(0)

    def signs(*shape: int) -> torch.Tensor:
        return torch.randint(0, 2, shape, generator=generator) * 2.0 - 1

    layer = SignConv2d(cin, cout, stride)
    with torch.no_grad():
        layer.weight.copy_(signs(*layer.weight.shape) / 2)
    x = signs(2, cin, side, side).requires_grad_()
    y = layer.train()(x)
    # One output in seven: sums of at most 256 terms of size 1.
    chosen = (torch.rand(y.shape, generator=generator) < 1 / 7).float() * signs(*y.shape)
    y.backward(chosen)
    found = x.grad, layer.weight.grad

    x.grad = layer.weight.grad = None
    plain = functional.conv2d(x, sign(layer.weight), stride=stride, padding=1)
    plain.backward(chosen)
    for ours, wanted in zip(found, (x.grad, layer.weight.grad), strict=True):
        torch.testing.assert_close(ours, wanted, rtol=0, atol=0)


def test_distance_is_the_divergence_at_temperature_four_times_its_square() -> None:
    logits, wanted = torch.randn(2, 3, 10, dtype=torch.float64)
    p, q = (torch.softmax(x / 4, dim=1) for x in (wanted, logits))
    by_hand = 16 * (p * (p.log() - q.log())).sum(dim=1).mean()
    torch.testing.assert_close(loop.distance(logits, wanted), by_hand)
    assert loop.distance(wanted, wanted) == 0


def test_real_weights_are_taken_as_they_are_only_in_the_first_step(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        seen.append(self.has_real_weights)
        return original(self, x)

    original = SignConv2d.forward
    monkeypatch.setattr(SignConv2d, "forward", forward)
    networks.run(NAME, data, tmp_path / "m.bin", SMALL)
    turn = seen.index(False)
    assert 0 < turn < len(seen)
    assert not any(seen[turn:])


@pytest.mark.parametrize("stop_at", [(1, 2), (2, 2)], ids=str)
def test_stopped_in_either_step_the_same_call_ends_in_the_same_file(
    stop_at: tuple[int, int], data: Path, tmp_path: Path, taught: Path
) -> None:
    """``stop_at``: the step, and its epoch; two of each."""
    recipe = dataclasses.replace(SMALL, real_epochs=2)
    ask = teacher.load(taught, compiled=False)
    networks.run(NAME, data, tmp_path / "whole.bin", recipe, teacher=ask)
    step = 1

    def interrupt(at: Step) -> None:
        nonlocal step
        if (step, at.epoch) == stop_at and at.end is None:
            raise KeyboardInterrupt
        step += at.end is not None and at.epoch == at.epochs

    output = tmp_path / "m.bin"
    with pytest.raises(networks.Stopped) as caught:
        networks.run(NAME, data, output, recipe, teacher=ask, report=interrupt)
    assert (caught.value.best is not None) == output.exists() == (stop_at == (2, 2))
    assert caught.value.state.exists()
    networks.run(NAME, data, output, recipe, teacher=ask)
    assert output.read_bytes() == (tmp_path / "whole.bin").read_bytes()
    assert not list(tmp_path.glob("*state"))
    provenance = modelfile.load(output).provenance
    assert provenance is not None
    assert "behind 2 with real weights, with a teacher" in provenance.notes[0]


def test_a_network_begins_with_the_weights_of_a_model_and_is_the_same_until_it_is_trained() -> None:
    spec = networks.SPECS[NAME]
    trained = networks.build(spec, 1)
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for value in trained.state_dict().values():
            if value.dtype.is_floating_point:
                value.copy_(torch.rand(value.shape, generator=generator) - 0.4)
        for module in trained.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.running_var.abs_()
    model = networks.export(spec, trained)
    network = networks.build(spec, 0)
    begin_with(network, model)
    again = networks.export(spec, network)
    assert again.graph == model.graph
    for name, tensor in model.tensors.items():
        assert np.array_equal(again.tensors[name], tensor), name
    latent = network.blocks[0].conv.weight.abs()
    assert torch.equal(latent, torch.full_like(latent, LATENT))


def test_training_goes_on_from_a_model(data: Path, tmp_path: Path) -> None:
    recipe = dataclasses.replace(SMALL, epochs=1, real_epochs=0)
    networks.run(NAME, data, tmp_path / "first.bin", recipe)
    first = modelfile.load(tmp_path / "first.bin")
    still = dataclasses.replace(recipe, learning_rate=0.0)
    networks.run(NAME, data, tmp_path / "further.bin", still, start=first)
    further = modelfile.load(tmp_path / "further.bin")
    assert further.provenance is not None
    assert "from weights of bitres8" in further.provenance.notes[0]
    for name, tensor in first.tensors.items():
        if tensor.dtype == np.uint64:
            assert np.array_equal(further.tensors[name], tensor)


@pytest.mark.parametrize("is_other", [True, False])
def test_a_model_of_another_layout_or_with_integer_ends_is_no_beginning(is_other: bool) -> None:
    name = "bitres11" if is_other else "bitres8"
    model = modelfile.load(SHIPPED[f"{name}-cifar10"].path)
    model = model if is_other else integer_ends(model).model
    with pytest.raises(CheckpointError, match="begin with a model that the same recipe wrote"):
        begin_with(networks.build(networks.SPECS[NAME], 0), model)


def test_a_teacher_changes_what_is_learned(data: Path, tmp_path: Path, taught: Path) -> None:
    recipe = dataclasses.replace(SMALL, epochs=1, real_epochs=0)
    networks.run(NAME, data, tmp_path / "alone.bin", recipe)
    ask = teacher.load(taught, compiled=False)
    networks.run(NAME, data, tmp_path / "taught.bin", recipe, teacher=ask)
    alone, with_teacher = (modelfile.load(tmp_path / f"{n}.bin") for n in ("alone", "taught"))
    name = "classifier.weight"
    assert not np.array_equal(alone.tensors[name], with_teacher.tensors[name])


def test_a_teacher_is_asked_in_every_batch_of_both_steps(data: Path, tmp_path: Path) -> None:
    asked = 0

    def ask(x: torch.Tensor) -> torch.Tensor:
        nonlocal asked
        asked += 1
        return torch.zeros(len(x), 10)

    networks.run(NAME, data, tmp_path / "m.bin", SMALL, teacher=ask)
    batches = 40 // SMALL.batch_size
    assert asked == batches * (SMALL.real_epochs + SMALL.epochs)


def test_teacher_is_trained_written_and_read_again(data: Path, tmp_path: Path) -> None:
    output = tmp_path / "t.safetensors"
    recipe = dataclasses.replace(teacher.RECIPE, epochs=1, batch_size=20, compiled=False)
    outcome = teacher.run(data, output, recipe)
    assert outcome.validation[1] == 20
    assert not list(tmp_path.glob("*state"))
    logits = teacher.load(output, compiled=False)(torch.zeros(2, 3, 32, 32))
    assert logits.shape == (2, 10)
    assert not logits.requires_grad


@pytest.mark.parametrize("content", [b"", b"<html>", b"\x08\0\0\0\0\0\0\0{}      "])
def test_a_file_that_is_no_teachers_is_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "no.safetensors"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match="is not a teacher's file") as caught:
        teacher.load(path, compiled=False)
    assert "\n" not in str(caught.value)

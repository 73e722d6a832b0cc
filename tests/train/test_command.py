"""``bitinfer train``: its arguments, its output, and what it says when something is missing."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import pytest

from bitinfer.cli import main
from bitinfer.cli import train as command
from bitinfer.errors import DataError, MissingExtraError, OutputError
from bitinfer.zoo.shipped import SHIPPED


def parse(*arguments: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    command.add_parser(parser.add_subparsers())
    return parser.parse_args(["train", *arguments])


def test_defaults_leave_the_epochs_to_the_recipe() -> None:
    args = parse("lenet5-mnist", "--data", "d", "-o", "m.bin")
    assert (args.epochs, args.seed, args.threads) == (None, 0, 1)
    assert (args.data, args.output) == (Path("d"), Path("m.bin"))


@pytest.mark.parametrize(
    "arguments",
    [
        ("alexnet", "--data", "d", "-o", "m.bin"),
        ("lenet5-mnist", "--data", "d"),
        ("half-moon", "-o", "m.png", "--rate", "0"),
        ("half-moon", "-o", "m.png", "--rate", "nan"),
        ("lenet5-mnist", "--data", "d", "-o", "m.bin", "--epochs", "0"),
        ("lenet5-mnist", "--data", "d", "-o", "m.bin", "--threads", "-1"),
        ("lenet5-mnist", "--data", "d", "-o", "m.bin", "--seed", "-1"),
        ("lenet5-mnist", "--data", "d", "-o", "m.bin", "--seed", "x"),
    ],
    ids=["recipe", "no output", "rate 0", "no rate", "no epochs", "threads", "seed", "no number"],
)
def test_usage_errors(arguments: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        parse(*arguments)
    assert caught.value.code == 2
    assert "Traceback" not in capsys.readouterr().err


def test_without_torch_the_error_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    recipes = sys.modules.get("bitinfer.train.recipes")
    if recipes is not None:
        monkeypatch.delattr(recipes, "networks", raising=False)
    for name in [n for n in sys.modules if n.startswith("bitinfer.train")]:
        monkeypatch.delitem(sys.modules, name)
    with pytest.raises(MissingExtraError, match=r"pip install '\.\[train\]'") as caught:
        command.run(parse("lenet5-mnist", "--data", str(tmp_path), "-o", str(tmp_path / "m.bin")))
    assert "\n" not in str(caught.value)


def test_wrong_directory_is_a_data_error(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    with pytest.raises(DataError, match="--data"):
        command.run(parse("lenet5-mnist", "--data", str(tmp_path), "-o", str(tmp_path / "m.bin")))


def test_unwritable_output_is_an_output_error(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    with pytest.raises(OutputError):
        command.run(parse("lenet5-mnist", "--data", str(tmp_path), "-o", str(tmp_path)))


@pytest.mark.parametrize("options", [(), ("--quiet",)], ids=["lines", "quiet"])
def test_result_is_on_stdout_and_progress_on_stderr(
    options: tuple[str, ...],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    pytest.importorskip("torch")
    from bitinfer.train.curves import Epoch
    from bitinfer.train.loop import Step
    from bitinfer.train.recipes import networks

    def run(name, data, output, recipe, *, threads, teacher, start, report):
        assert (name, recipe.seed, recipe.epochs) == ("lenet5-mnist", 3, 1)
        report(Step(1, recipe.epochs, 1, 2, 0.5))
        end = Epoch(1, 0.1, 0.25, 0.9, 0.3, 4, 5, 1.0)
        report(Step(1, recipe.epochs, 2, 2, 0.25, end, "over-fitting since"))
        output.write_bytes(b"model")
        return networks.Outcome(validation=(4, 5), test=(9935, 10000))

    monkeypatch.setattr(networks, "run", run)
    output = tmp_path / "m.bin"
    arguments = ("--data", "d", "-o", str(output), "--epochs", "1", "--seed", "3", *options)
    assert command.run(parse("lenet5-mnist", *arguments)) == 0
    out, err = capsys.readouterr()
    assert "test accuracy 99.35 % (9935 of 10000)" in out
    assert str(output) in out
    last = "bitinfer: 2 of 2, epoch 1 of 1, loss 0.250, validation 80.00 % (4 of 5)\n"
    # A warning is no progress: --quiet keeps it.
    assert err == "bitinfer: over-fitting since\n" + ("" if options else last)


def test_epochs_with_real_weights_are_counted_alone(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    pytest.importorskip("torch")
    from bitinfer.train.loop import Step
    from bitinfer.train.recipes import networks

    def run(name, data, output, recipe, *, threads, teacher, start, report):
        for epochs in (recipe.real_epochs, recipe.epochs):
            report(Step(epochs, epochs, 4, 4, 0.5))
        output.write_bytes(b"model")
        return networks.Outcome(validation=(4, 5), test=(9, 10))

    monkeypatch.setattr(networks, "run", run)
    arguments = ("--data", "d", "-o", str(tmp_path / "m.bin"), "--epochs", "7")
    assert command.run(parse("bitres8-cifar10", *arguments, "--real-epochs", "2")) == 0
    lines = capsys.readouterr().err.splitlines()
    assert lines == [
        "bitinfer: 8 of 8, epoch 2 of 2, loss 0.500",
        "bitinfer: 28 of 28, epoch 7 of 7, loss 0.500",
    ]


def test_exit_codes_and_one_line_on_stderr(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    pytest.importorskip("torch")
    from bitinfer.train.recipes import networks

    arguments = ["train", "lenet5-mnist", "--data", str(tmp_path), "-o", str(tmp_path / "m.bin")]
    assert main(arguments) == 4
    assert capsys.readouterr().err.count("\n") == 1

    def interrupt(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(networks, "run", interrupt)
    assert main(arguments) == 130
    assert capsys.readouterr().err == ""


def test_interrupted_run_says_how_to_go_on(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    pytest.importorskip("torch")
    from bitinfer.train.recipes import networks

    stopped = [networks.Stopped(7, 30, (4, 5), Path("m.bin.state"))]
    stopped.append(networks.Stopped(0, 30, None, Path("m.bin.state")))
    stopped.append(networks.Stopped(3, 20, None, Path("m.bin.real-state")))

    def interrupt(*args, **kwargs):
        raise stopped.pop(0)

    monkeypatch.setattr(networks, "run", interrupt)
    arguments = ["train", "nin-cifar10", "--data", "d", "-o", "m.bin"]
    assert main(arguments) == 130
    assert capsys.readouterr().err == (
        "bitinfer: stopped behind epoch 7 of 30; m.bin is the best so far, validation accuracy "
        "80.00 % (4 of 5); the same command goes on from m.bin.state\n"
    )
    assert main(arguments) == 130
    assert "nothing is kept" in capsys.readouterr().err
    assert main(arguments) == 130
    assert "the same command goes on from m.bin.real-state" in capsys.readouterr().err


@pytest.mark.parametrize("threads", ["257", "1000", "100000", "999999999", "0", "1.5"])
def test_threads_beyond_reason_are_refused_in_one_line(
    threads: str, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["train", "lenet5-mnist", "--data", "d", "-o", "m.bin", "--threads", threads]
    assert main(arguments) == 2
    message = capsys.readouterr().err
    assert "argument --threads" in message
    assert message.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("lenet5-mnist",), "lenet5-mnist needs --data, the directory of MNIST"),
        (("mlp-cifar10",), "mlp-cifar10 needs --data, the directory of CIFAR-10"),
        (("mlp-cifar10", "--data", "d", "--loss", "x"), "--loss is of half-moon alone"),
        (
            ("lenet5-mnist", "--data", "d", "--teacher", "t"),
            "--teacher is of bitres networks, not of lenet5-mnist",
        ),
        (("half-moon", "--activation", "gelu"), "unknown activation 'gelu'"),
        (("half-moon", "--activation", "sign"), "unknown activation 'sign'"),
        (("half-moon", "--loss", "hinge"), "unknown loss 'hinge'"),
        (("half-moon", "--optimiser", "adm"), "did you mean 'adam'"),
    ],
)
def test_options_that_do_not_fit_are_named(
    arguments: tuple[str, ...],
    message: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    if "--teacher" in arguments:
        pytest.importorskip("torch")
    assert main(["train", *arguments, "-o", str(tmp_path / "m.png")]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_half_moon_prints_both_accuracies(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("matplotlib")
    output = tmp_path / "moons.png"
    options = ["--activation", "maxout", "--optimiser", "momentum", "--rate", "0.05"]
    assert main(["train", "half-moon", "-o", str(output), "--epochs", "40", *options]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("maxout: ")
    assert lines[1].startswith("binary twin: ")
    assert output.read_bytes().startswith(b"\x89PNG")


def test_sweep_is_printed_as_a_table(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from bitinfer.train.recipes import mlp_cifar10

    def run(data, output, *, epochs, seed, report):
        assert (epochs, seed) == (mlp_cifar10.EPOCHS, 0)
        row = mlp_cifar10.Row("width", mlp_cifar10.Setting(width=32), 0.5, 0.45, 1.25)
        report(1, 1, row)
        return [row]

    monkeypatch.setattr(mlp_cifar10, "run", run)
    arguments = ["train", "mlp-cifar10", "--data", "d", "-o", str(tmp_path / "sweep.png")]
    assert main(arguments) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["varied", "value", "training", "%", "validation", "%", "seconds"]
    assert lines[1].split() == ["width", "32", "50.0", "45.0", "1.2"]


def test_teacher_is_written_by_a_recipe_of_its_own(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("torch")
    from bitinfer.train.recipes import networks, teacher

    output = tmp_path / "t.safetensors"

    def run(data, path, recipe, *, threads, report):
        assert (recipe.epochs, recipe.seed, threads) == (3, 5, 1)
        path.write_bytes(b"weights")
        return networks.Outcome((4, 5), (3, 4))

    monkeypatch.setattr(teacher, "run", run)
    arguments = ["train", "teacher-cifar10", "--data", "d", "-o", str(output), "--epochs", "3"]
    assert main([*arguments, "--seed", "5"]) == 0
    assert "test accuracy 75.00 % (3 of 4)" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "wanted"),
    [
        ((), (65, 20)),
        (("--epochs", "12"), (12, 12)),
        (("--epochs", "30"), (30, 20)),
        (("--epochs", "30", "--real-epochs", "6"), (30, 6)),
        (("--epochs", "3", "--real-epochs", "6"), (3, 6)),
        (("--epochs", "30", "--from", str(SHIPPED["bitres8-cifar10"].path)), (30, 0)),
    ],
    ids=lambda value: " ".join(map(str, value)),
)
def test_epochs_of_both_steps(
    options: tuple[str, ...],
    wanted: tuple[int, int],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pytest.importorskip("torch")
    from bitinfer.train.recipes import networks

    def run(name, data, path, recipe, *, threads, teacher, start, report):
        assert (recipe.epochs, recipe.real_epochs) == wanted
        assert (start is None) == ("--from" not in options)
        path.write_bytes(b"model")
        return networks.Outcome((4, 5), (3, 4))

    monkeypatch.setattr(networks, "run", run)
    output = str(tmp_path / "m.bin")
    assert main(["train", "bitres8-cifar10", "--data", "d", "-o", output, *options]) == 0


@pytest.mark.parametrize("option", [("--real-epochs", "2"), ("--from", "m.bin")], ids=str)
def test_real_epochs_and_a_beginning_are_refused_for_other_networks(
    option: tuple[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("lenet5-mnist", "teacher-cifar10"):
        assert main(["train", name, "--data", "d", "-o", str(tmp_path / "m"), *option]) == 2
        assert f"{option[0]} is of bitres networks, not of {name}" in capsys.readouterr().err


def test_a_beginning_is_not_asked_for_beside_real_epochs_nor_written_over(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = str(tmp_path / "m.bin")
    arguments = ["train", "bitres8-cifar10", "--data", str(tmp_path), "--from", path]
    assert main([*arguments, "-o", str(tmp_path / "n.bin"), "--real-epochs", "1"]) == 2
    assert "--from takes the place of --real-epochs" in capsys.readouterr().err
    (tmp_path / "m.bin").write_bytes(b"model")
    assert main([*arguments, "-o", path]) == 2
    assert (tmp_path / "m.bin").read_bytes() == b"model"

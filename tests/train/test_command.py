"""``bitinfer train``: its arguments, its output, and what it says when something is missing."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import pytest

from bitinfer.cli import main
from bitinfer.cli import train as command
from bitinfer.errors import DataError, MissingExtraError, OutputError


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
        ("lenet5-mnist", "-o", "m.bin"),
        ("lenet5-mnist", "--data", "d"),
        ("lenet5-mnist", "--data", "d", "-o", "m.bin", "--epochs", "0"),
        ("lenet5-mnist", "--data", "d", "-o", "m.bin", "--threads", "-1"),
        ("lenet5-mnist", "--data", "d", "-o", "m.bin", "--seed", "-1"),
        ("lenet5-mnist", "--data", "d", "-o", "m.bin", "--seed", "x"),
    ],
    ids=["recipe", "no data", "no output", "no epochs", "threads", "seed", "no number"],
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
    for name in [n for n in sys.modules if n.startswith("bitinfer.train")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.delattr("bitinfer.train.lenet5_mnist", raising=False)
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
    from bitinfer.train import lenet5_mnist

    def run(data, output, recipe, *, threads, report):
        assert (recipe.seed, recipe.epochs) == (3, 1)
        report(lenet5_mnist.Step(1, recipe.epochs, 1, 2, 0.5))
        report(lenet5_mnist.Step(1, recipe.epochs, 2, 2, 0.25, (4, 5)))
        output.write_bytes(b"model")
        return lenet5_mnist.Outcome(validation=(4, 5), test=(9935, 10000))

    monkeypatch.setattr(lenet5_mnist, "run", run)
    output = tmp_path / "m.bin"
    arguments = ("--data", "d", "-o", str(output), "--epochs", "1", "--seed", "3", *options)
    assert command.run(parse("lenet5-mnist", *arguments)) == 0
    out, err = capsys.readouterr()
    assert "test accuracy 99.35 % (9935 of 10000)" in out
    assert str(output) in out
    last = "bitinfer: 2 of 2, epoch 1 of 1, loss 0.250, validation 80.00 % (4 of 5)\n"
    assert err == ("" if options else last)


def test_exit_codes_and_one_line_on_stderr(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    pytest.importorskip("torch")
    from bitinfer.train import lenet5_mnist

    arguments = ["train", "lenet5-mnist", "--data", str(tmp_path), "-o", str(tmp_path / "m.bin")]
    assert main(arguments) == 4
    assert capsys.readouterr().err.count("\n") == 1

    def interrupt(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(lenet5_mnist, "run", interrupt)
    assert main(arguments) == 130
    assert capsys.readouterr().err == ""

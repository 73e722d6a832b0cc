"""The frame around the commands: usage, exit codes, imports, pipes, interrupts."""

from __future__ import annotations

import argparse
import contextlib
import importlib
import itertools
import json
import os
import pty
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from bitinfer import errors
from bitinfer._version import __version__
from bitinfer.cli import _app, main
from bitinfer.cli._terminal import printable
from helpers import run_process

REFERENCE = "--backend=reference"

# Usage


def test_version_is_printed(call: Callable[..., Any]) -> None:
    result = call("--version")
    assert (result.code, result.out, result.err) == (0, f"bitinfer {__version__}\n", "")


def test_the_table_of_common_options_says_which_command_takes_which() -> None:
    page = (Path(__file__).parents[2] / "docs" / "command-line.md").read_text()
    lines = iter(page[page.index("## Common options") :].splitlines())
    _, _, *rows = itertools.takewhile(
        lambda line: line.startswith("|"),
        itertools.dropwhile(lambda line: not line.startswith("|"), lines),
    )
    for row in rows:
        options, takers = row.strip("|").split("|")
        wanted = re.findall(r"`([\w-]+)`", takers)
        for option in re.findall(r"(-{1,2}[a-z-]+)", options):
            assert wanted == [c for c in _app.COMMANDS if option in options_of(c)], option


def options_of(command: str) -> set[str]:
    parser = argparse.ArgumentParser()
    subparsers = parser.add_subparsers()
    importlib.import_module(f"bitinfer.cli.{command.replace('-', '_')}").add_parser(subparsers)
    own = subparsers.choices[command]
    return {name for action in own._actions for name in action.option_strings} | {"--traceback"}


@pytest.mark.parametrize("asked", [("help",), ("help", "run"), ("help", "run", "x")])
def test_help_is_a_command_too(asked: tuple[str, ...], call: Callable[..., Any]) -> None:
    result = call(*asked)
    assert result == call(*asked[1:2], "--help")
    assert result.code == 0
    assert call("help", "rnu").code == 2


def test_help_lists_every_command_and_exit_code(call: Callable[..., Any]) -> None:
    result = call("--help")
    assert result.code == 0
    assert result.err == ""
    for word in (*_app.COMMANDS, "130", "interrupted"):
        assert word in result.out


@pytest.mark.parametrize("command", _app.COMMANDS)
def test_every_command_explains_itself(command: str, call: Callable[..., Any]) -> None:
    result = call(command, "--help")
    assert result.code == 0
    assert result.out.startswith(f"usage: bitinfer {command}")
    assert "--traceback" in result.out


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ((), "a command is missing: run, convert"),
        (("rnu",), "unknown command 'rnu'; did you mean 'run'?"),
        (("insepct", "x"), "did you mean 'inspect'?"),
        (("convert", "s", "-o", "m", "--resize", "0"), "'0' is not an integer of at least 1"),
        (("-",), "unknown command '-'; choose from run, convert"),
        (("xyzzy",), "choose from run, convert"),
        (("--foo",), "unrecognized arguments: --foo"),
        (("--foo", "run"), "unrecognized arguments: --foo"),
        (("run",), "run: the following arguments are required: MODEL, INPUT"),
        (("run", "m", "i", "--foo"), "run: unrecognized arguments: --foo"),
        (("run", "m", "i", "-k", "0"), "'0' is not an integer of at least 1"),
        (("run", "m", "i", "-k", "x"), "'x' is not an integer of at least 1"),
        (("run", "m", "i", "--threads", "-1"), "'-1' is not an integer of at least 0"),
        (("run", "m", "i", "--backend", "gpu"), "'gpu' is none of auto, native"),
        (("run", "m", "i", "--js"), "unrecognized arguments: --js"),
        (("a\x1b[31m",), r"unknown command 'a\x1b[31m'"),
    ],
)
def test_wrong_usage_is_one_line_and_exit_code_2(
    args: tuple[str, ...], message: str, call: Callable[..., Any]
) -> None:
    result = call(*args)
    assert result.code == 2
    assert result.out == ""
    assert result.err.startswith("bitinfer: error: ")
    assert result.err.count("\n") == 1
    assert message in result.err
    assert "--help" in result.err


def test_options_may_stand_anywhere(model: Path, pictures: Path, call: Callable[..., Any]) -> None:
    red, blue = pictures / "red.png", pictures / "blue.png"
    result = call("run", "--json", model, red, "-k", "1", blue, REFERENCE)
    assert result.code == 0
    assert len(json.loads(result.out)["results"]) == 2


def test_file_names_may_begin_with_a_dash(
    model: Path, pictures: Path, call: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(pictures)
    Path("red.png").rename("-k.png")
    result = call("run", REFERENCE, "--json", "--", model, "-k.png")
    assert result.code == 0
    assert json.loads(result.out)["results"][0]["input"] == "-k.png"


# Errors


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.BackendError("x"), 2),
        (errors.ModelFileError("x"), 3),
        (errors.CheckpointError("x"), 3),
        (errors.ShapeError("x"), 3),
        (errors.GraphError("x"), 3),
        (errors.InputError("x"), 4),
        (errors.ImageError("x"), 4),
        (errors.DataError("x"), 4),
        (errors.OutputError("x"), 1),
        (errors.BitInferError("x"), 1),
        (MemoryError(), 1),
        (OSError(28, "No space left on device"), 1),
        (ZeroDivisionError("x"), 1),
        (KeyboardInterrupt(), 130),
        (BrokenPipeError(), 141),
    ],
    ids=lambda v: type(v).__name__ if isinstance(v, BaseException) else "",
)
def test_every_error_has_its_exit_code(
    error: BaseException, code: int, call: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(args: object) -> int:
        raise error

    def add_parser(subparsers: Any) -> None:
        subparsers.add_parser("info")

    module = SimpleNamespace(add_parser=add_parser, run=fail)
    monkeypatch.setattr(_app, "_module", lambda name: module)
    monkeypatch.setattr("bitinfer.cli._silence_stdout", lambda: None)
    result = call("info")
    assert result.code == code
    quiet = isinstance(error, KeyboardInterrupt | BrokenPipeError)
    assert result.err.count("\n") == (0 if quiet else 1)
    assert "Traceback" not in result.err
    if isinstance(error, ZeroDivisionError):
        assert "internal error: ZeroDivisionError: x" in result.err


def test_traceback_is_shown_where_it_is_asked_for(tmp_path: Path, call: Callable[..., Any]) -> None:
    for args in (("--traceback", "inspect", tmp_path), ("inspect", tmp_path, "--traceback")):
        result = call(*args)
        assert result.code == 3
        assert "Traceback (most recent call last)" in result.err
        assert result.err.splitlines()[-1].startswith("bitinfer: error: ")


def test_control_characters_of_names_stay_out_of_the_terminal(
    tmp_path: Path, call: Callable[..., Any]
) -> None:
    result = call("inspect", tmp_path / "a\x1b]0;owned\x07\n\u202e\udcff.bin")
    assert result.code == 3
    assert result.err.count("\n") == 1
    assert r"a\x1b]0;owned\x07\n\u202e\udcff.bin" in result.err


def test_printable_text_is_left_alone_or_cut() -> None:
    assert printable("Käse, 猫") == "Käse, 猫"
    assert printable("x" * 50, 10) == "xxxxxxx..."


# Imports


@pytest.mark.parametrize(
    ("args", "code"),
    [
        (("--version",), 0),
        (("--help",), 0),
        *(((command, "--help"), 0) for command in _app.COMMANDS),
        (("rnu",), 2),
        (("run",), 2),
        (("eval", "m"), 2),
    ],
    ids=str,
)
def test_help_and_usage_errors_import_neither_numpy_nor_the_extension(
    args: tuple[str, ...], code: int
) -> None:
    script = (
        "import sys; from bitinfer.cli import main; code = main(sys.argv[1:]); "
        "heavy = {'numpy', 'PIL', 'rich', 'msgspec', 'safetensors', '_cffi_backend', 'torch', "
        "'numba', 'bitinfer.backends', 'bitinfer.modelfile'} & set(sys.modules); "
        "print(heavy, file=sys.stderr) if heavy else None; sys.exit(99 if heavy else code)"
    )
    process = subprocess.run(
        [sys.executable, "-c", script, *args], capture_output=True, timeout=60, check=False
    )
    assert process.returncode == code, process.stderr.decode()


def test_version_takes_less_than_a_fifth_of_a_second() -> None:
    times = []
    for _ in range(5):
        start = time.perf_counter()
        assert run_process("--version").returncode == 0
        times.append(time.perf_counter() - start)
    assert min(times) < 0.2


# Pipes


def test_closed_pipe_ends_quietly(model: Path, pictures: Path) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "bitinfer", "run", REFERENCE]
    process = subprocess.run(
        [*command, model, pictures],
        stdout=writer,
        stderr=subprocess.PIPE,
        timeout=60,
        check=False,
    )
    os.close(writer)
    assert process.returncode == 141
    assert process.stderr == b""


@pytest.mark.parametrize("options", [(), ("--json",)], ids=str)
def test_head_ends_a_long_batch_quietly(
    options: tuple[str, ...], model: Path, pictures: Path
) -> None:
    inputs = [str(pictures / "red.png")] * 3000
    process = subprocess.Popen(
        [sys.executable, "-m", "bitinfer", "run", REFERENCE, *options, model, *inputs],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout is not None
    assert process.stderr is not None
    assert process.stdout.readline()
    process.stdout.close()
    assert process.wait(timeout=60) == 141
    assert process.stderr.read() == b""
    process.stderr.close()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
@pytest.mark.parametrize("options", [(), ("--json",)], ids=str)
def test_full_disk_is_an_error(options: tuple[str, ...], model: Path) -> None:
    with Path("/dev/full").open("wb") as full:
        process = subprocess.run(
            [sys.executable, "-m", "bitinfer", "inspect", *options, model],
            stdout=full,
            stderr=subprocess.PIPE,
            timeout=60,
            check=False,
        )
    assert process.returncode == 1
    message = b"bitinfer: error: cannot write the output: No space left on device\n"
    assert process.stderr == message


def test_labels_that_the_terminal_cannot_show_are_escaped(tmp_path: Path, pictures: Path) -> None:
    from helpers import colour_model, save

    model = save(colour_model(labels=("rouge é", "猫", "blue")), tmp_path / "m.bin")
    environment = {**os.environ, "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}
    process = run_process("run", REFERENCE, model, pictures, env=environment)
    assert process.returncode == 0
    assert rb"rouge \xe9" in process.stdout


# Interrupts


def test_interrupt_ends_quietly_and_leaves_valid_json(model: Path, pictures: Path) -> None:
    red = pictures / "red.png"
    process = subprocess.Popen(
        [sys.executable, "-m", "bitinfer", "run", REFERENCE, "--json", model, red, "-"],
        stdin=subprocess.PIPE,  # stays open: the command waits for it
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout is not None
    head = process.stdout.readline() + process.stdout.readline()
    process.send_signal(signal.SIGINT)
    rest, error = process.communicate(timeout=60)
    assert process.returncode == 130
    assert error == b""
    document = json.loads(head + rest)
    assert [r["predictions"][0]["label"] for r in document["results"]] == ["red"]


INTERRUPTED_IMPORT = """
import signal, sys
class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == sys.argv[1]:
            signal.raise_signal(signal.SIGINT)
sys.meta_path.insert(0, Finder())
from bitinfer.cli import main
sys.exit(main(sys.argv[2:]))
"""


@pytest.mark.parametrize(
    "name",
    [
        "argparse",
        "bitinfer.cli._app",
        "bitinfer.cli.run",
        "numpy",
        "numpy.linalg",
        "msgspec",
        "safetensors",
        "PIL.Image",
        "PIL.PngImagePlugin",
        "bitinfer.session",
        "bitinfer.backends",
    ],
)
def test_interrupt_during_an_import_ends_quietly(name: str, model: Path, pictures: Path) -> None:
    command = [sys.executable, "-c", INTERRUPTED_IMPORT, name, "run", REFERENCE]
    process = subprocess.run(
        [*command, model, pictures / "red.png"], capture_output=True, timeout=60, check=False
    )
    assert (process.returncode, process.stdout, process.stderr) == (130, b"", b"")


def test_main_takes_the_arguments_of_the_process(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["bitinfer", "--version"])
    assert main() == 0
    assert __version__ in capsys.readouterr().out


@pytest.mark.parametrize(("no_color", "after"), [("", 0.1), ("1", 0.1), ("", 9)])
def test_a_terminal_sees_that_something_takes_long(no_color: str, after: float) -> None:
    leader, follower = pty.openpty()
    code = (
        "import sys, time; from bitinfer.cli import _terminal\n"
        "_terminal._SECONDS_BEFORE_BUSY = float(sys.argv[1])\n"
        "with _terminal.busy('converting x'): time.sleep(0.6)"
    )
    subprocess.run(
        [sys.executable, "-c", code, str(after)],
        stderr=follower,
        env={**os.environ, "NO_COLOR": no_color, "TERM": "xterm"},
        timeout=60,
        check=True,
    )
    os.set_blocking(leader, False)
    shown = b""
    with contextlib.suppress(BlockingIOError):
        shown = os.read(leader, 65536)
    os.close(follower)
    os.close(leader)
    assert (b"converting x" in shown) == (not no_color and after < 1)

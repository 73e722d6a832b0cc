"""``bitinfer completion``, and what an unknown option is answered with."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from typing import Any

import pytest

from bitinfer.cli import _app

Call = Callable[..., Any]


def script(call: Call, shell: str) -> str:
    result = call("completion", shell)
    assert (result.code, result.err) == (0, "")
    return str(result.out)


def completed(call: Call, *words: str) -> set[str]:
    """What bash offers for the last of these words."""
    if shutil.which("bash") is None:
        pytest.skip("there is no bash")
    given = " ".join(f"'{word}'" for word in words)
    ask = f"COMP_WORDS=({given}); COMP_CWORD={len(words) - 1}; _bitinfer; printf '%s\\n' "
    code = f'{script(call, "bash")}\n{ask}"${{COMPREPLY[@]}}"'
    done = subprocess.run(
        ["bash", "--norc", "-c", code], capture_output=True, text=True, check=False
    )
    assert done.stderr == ""
    return set(done.stdout.split())


def test_bash_completes_commands(call: Call) -> None:
    assert completed(call, "bitinfer", "") >= {*_app.COMMANDS, "--version"}
    assert completed(call, "bitinfer", "pro") == {"profile"}


def test_bash_completes_the_options_of_the_command_and_no_others(call: Call) -> None:
    assert completed(call, "bitinfer", "export-c", "m.bin", "--is") == {"--isa"}
    assert completed(call, "bitinfer", "info", "--isa") == set()
    assert completed(call, "bitinfer", "run", "--trace") == {"--traceback"}


def test_bash_completes_values(call: Call) -> None:
    found = completed(call, "bitinfer", "convert", "--arch", "")
    assert "xnor-nin" in found
    assert "--output" not in found
    assert completed(call, "bitinfer", "completion", "f") == {"fish"}


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_script_names_every_command_and_option(call: Call, shell: str) -> None:
    text = script(call, shell)
    for name, (_, parser) in _app.every_parser().items():
        assert name in text
        for action in parser._actions:
            for option in action.option_strings:
                assert (option if shell != "fish" else option.lstrip("-")) in text, option


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_shell_takes_its_script(call: Call, shell: str) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"there is no {shell}")
    done = subprocess.run(
        [shell, "-n"], input=script(call, shell), capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_an_unknown_shell_is_an_error(call: Call) -> None:
    assert call("completion", "tcsh").code == 2


def test_an_option_that_was_meant_is_named(call: Call) -> None:
    result = call("info", "--bakend", "reference")
    assert result.code == 2
    assert "did you mean '--backend'?" in result.err
    assert "\n" not in result.err.rstrip("\n")


def test_an_option_that_is_like_no_other_is_not_guessed_at(call: Call) -> None:
    result = call("info", "--zzzzzz")
    assert result.code == 2
    assert "did you mean" not in result.err

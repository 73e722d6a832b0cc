"""Commands keep to their streams, whichever of them are closed, full, or unreadable."""

from __future__ import annotations

import getpass
import itertools
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from bitinfer.cli import main

CLOSED = [set(c) for n in range(4) for c in itertools.combinations((0, 1, 2), n)]


def start(
    arguments: list[object], closed: set[int], **streams: object
) -> subprocess.CompletedProcess[str]:
    """Run a command as a shell does that was told to close some streams."""
    ends = " ".join({0: "<&-", 1: ">&-", 2: "2>&-"}[number] for number in sorted(closed))
    return subprocess.run(
        [
            "sh",
            "-c",
            f'exec "$@" {ends}',
            "sh",
            sys.executable,
            "-m",
            "bitinfer",
            *map(str, arguments),
        ],
        **{
            "stdin": subprocess.DEVNULL,
            "stdout": subprocess.PIPE,
            "stderr": subprocess.PIPE,
            **streams,
        },
        text=True,
        timeout=120,
        check=False,
    )  # type: ignore[call-overload]


@pytest.mark.parametrize("closed", CLOSED, ids=lambda closed: "".join(map(str, closed)) or "none")
def test_nothing_but_results_comes_on_stdout(model: Path, pictures: Path, closed: set[int]) -> None:
    picture = pictures / "red.png"
    done = start(["run", "--json", model, picture, "/nowhere"], closed)
    if 1 in closed:
        assert done.returncode == 1
        assert done.stdout == ""
        assert 2 in closed or "cannot write the output: Bad file descriptor" in done.stderr
    else:
        assert done.returncode == 5
        first, second = json.loads(done.stdout)["results"]
        assert first["predictions"][0]["label"] == "red"
        assert second["error"]["type"] == "ImageError"
        assert (done.stderr == "") == (2 in closed)


@pytest.mark.parametrize("command", ["inspect", "eval", "info", "bench"])
def test_a_result_that_cannot_be_written_is_an_error(
    model: Path, pictures: Path, command: str
) -> None:
    for colour in ("red", "green", "blue"):
        (pictures / colour).mkdir()
        (pictures / f"{colour}.png").rename(pictures / colour / "a.png")
    arguments = {"info": [], "eval": [model, pictures], "bench": [model, "--rounds", 2]}
    for options in ([], ["--json"]):
        done = start([command, *arguments.get(command, [model]), *options], {1})
        assert done.returncode == 1
        assert done.stderr.splitlines()[-1].startswith("bitinfer: error: cannot write the output:")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")
def test_help_that_cannot_be_written_is_an_error() -> None:
    with Path("/dev/full").open("w") as full:
        done = start(["--help"], set(), stdout=full, env={**os.environ, "PYTHONUNBUFFERED": "1"})
    assert done.returncode == 1
    assert "No space left on device" in done.stderr


def test_a_full_stderr_costs_no_result(model: Path, pictures: Path) -> None:
    with Path("/dev/full").open("wb") as full:
        done = start(["run", "--json", model, pictures, "/nowhere"], set(), stderr=full)
    assert len(json.loads(done.stdout)["results"]) == 4
    assert done.returncode == 5


def test_a_file_never_takes_the_place_of_a_closed_stream(model: Path, tmp_path: Path) -> None:
    # What a library prints natively would otherwise end in the first file that is opened.
    source = "import os, bitinfer.cli as c; c.main(['info'])\n"
    source += "open('{}', 'w').write(str(os.open('/', 0)))"
    target = tmp_path / "number"
    for closed in CLOSED:
        ends = " ".join({0: "<&-", 1: ">&-", 2: "2>&-"}[number] for number in sorted(closed))
        command = [sys.executable, "-c", source.format(target)]
        subprocess.run(
            ["sh", "-c", f'exec "$@" {ends}', "sh", *command],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
            capture_output=True,
            check=True,
        )
        assert int(target.read_text()) > 2


def test_stdin_that_is_closed_is_not_called_a_terminal(model: Path) -> None:
    done = start(["run", model, "-"], {0})
    assert done.returncode == 4
    assert done.stderr.startswith("bitinfer: error: standard input: is closed")


def run_without_root(work: Callable[[], None]) -> None:
    """Do something in a child that obeys the modes of files."""
    if os.getuid() != 0:
        return work()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            os.setuid(65534)
            work()
            code = 0
        finally:
            os._exit(code)
    assert os.waitpid(child, 0)[1] == 0
    return None


@pytest.mark.parametrize("command", ["run", "eval"])
def test_an_unreadable_subfolder_does_not_end_the_rest(
    model: Path, pictures: Path, tmp_path: Path, command: str
) -> None:
    for colour in ("red", "green", "blue"):
        (pictures / colour).mkdir()
        (pictures / f"{colour}.png").rename(pictures / colour / "a.png")
    # All is imported before: another user may not read Python's own files.
    assert main([command, str(model), str(pictures), "--json"]) == 0
    closed = pictures / "green" / "closed"
    closed.mkdir(mode=0)
    for path in (tmp_path, *tmp_path.parents):
        if path.stat().st_mode & 0o055 != 0o055 and path.owner() == getpass.getuser():
            path.chmod(path.stat().st_mode | 0o055)
    answer = tmp_path / "answer.json"
    answer.touch()
    answer.chmod(0o666)

    def work() -> None:
        with answer.open("w") as sys.stdout:
            assert main([command, str(model), str(pictures), "--json"]) == 5

    run_without_root(work)
    closed.chmod(0o700)
    found = json.loads(answer.read_text())
    if command == "eval":
        assert (found["total"], found["failed"]) == (3, 1)
    else:
        assert [("error" in result, Path(result["input"]).name) for result in found["results"]] == [
            (False, "a.png"),
            (False, "a.png"),
            (True, "closed"),
            (False, "a.png"),
        ]

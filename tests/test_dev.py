"""``./dev``, and what it keeps true in a checkout."""

from __future__ import annotations

import argparse
import importlib.util
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import bitinfer

ROOT = Path(__file__).parents[1]
TOOLS = ROOT / ".ci" / "dev"

pytestmark = pytest.mark.skipif(not TOOLS.is_dir(), reason="there is no ./dev beside the tests")


@pytest.fixture(scope="module")
def tools() -> ModuleType:
    """What imports the modules of ./dev."""
    sys.path.insert(0, str(TOOLS))
    import library

    return library


def test_the_extension_is_not_older_than_its_sources(tools: ModuleType) -> None:
    if ROOT not in Path(bitinfer.__file__).parents or ".venv" in Path(bitinfer.__file__).parts:
        pytest.skip("bitinfer is installed, not run from this checkout")
    if importlib.util.find_spec("bitinfer.backends.native._native") is None:
        pytest.skip("bitinfer was built without a C compiler")
    newer = [str(path.relative_to(ROOT)) for path in tools.newer_sources()]
    assert not newer, f"run ./dev build: newer than the extension are {', '.join(newer)}"


def dev(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(ROOT / "dev"), *arguments],
        env={**os.environ, "PYTHON": sys.executable, **variables},
        capture_output=True,
        text=True,
    )


def test_every_command_is_in_its_help_and_in_contributing() -> None:
    shown = re.findall(r"^    (\w+) ", dev("--help").stdout, re.MULTILINE)
    described = re.findall(r"`\./dev (\w+)", (ROOT / "CONTRIBUTING.md").read_text())
    assert {"build", "watch", "test", "long", "lint", "compare", "docs"} <= set(shown)
    assert set(described) == set(shown)


def test_what_cannot_be_done_is_said_and_gives_2() -> None:
    assert dev("nonsense").returncode == 2
    assert dev("lint", "--nonsense").returncode == 2
    done = dev("build", PYTHON="/nowhere/python")
    assert (done.returncode, done.stdout) == (2, "")
    assert "/nowhere/python" in done.stderr


@pytest.mark.parametrize(
    ("file", "tests"),
    [
        ("src/bitinfer/bits.py", ["tests/test_bits.py"]),
        ("src/bitinfer/graph/builder.py", ["tests/graph"]),
        ("tests/test_bits.py", ["tests/test_bits.py"]),
        ("tests/zoo/small.py", ["tests/zoo"]),
        ("tests/oracle.py", ["tests/backends"]),
        ("csrc/kernels/pool/max_body.inc", ["tests/backends", "tests/test_machine_code.py"]),
        ("src/bitinfer/_version.py", []),
    ],
)
def test_an_edit_concerns_the_tests_of_its_part(
    tools: ModuleType, file: str, tests: list[str]
) -> None:
    import watch

    assert watch.concerned(Path(file)) == tests


class FakeSide:
    """A build whose calls take as long as it is told, with a core of its own."""

    def __init__(self, *seconds: float) -> None:
        self.seconds = list(seconds)

    def ask(self, **question: Any) -> dict[str, Any]:
        match question:
            case {"open": _}:
                self.now = self.seconds.pop(0) if len(self.seconds) > 1 else self.seconds[0]
                return {"seconds": self.now, "result": "r", "backend": "native"}
            case {"first": _}:
                return {"seconds": self.seconds[0]}
            case {"sample": _}:
                times = {"seconds": self.now, "cpu_seconds": self.now}
                return {**times, "ghz": [3.0, 3.0], "vector": [1e9, 1e9]}
        return {}


@pytest.mark.parametrize(
    ("head", "options", "code", "lines"),
    [
        ([1e-3], [], 0, 1),
        ([0.9e-3], [], 0, 1),
        ([1.1e-3], [], 1, 3),
        ([1.1e-3, 1.1e-3, 1e-3], [], 0, 3),
        ([1.02e-3], [], 0, 1),
        ([1.1e-3], ["--load"], 1, 3),
    ],
)
def test_a_case_fails_if_it_is_slower_three_times(
    tools: ModuleType,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    head: list[float],
    options: list[str],
    code: int,
    lines: int,
) -> None:
    if not (ROOT / "bench").is_dir():
        pytest.skip("there are no benchmarks beside the tests")
    import compare

    monkeypatch.syspath_prepend(str(ROOT / "bench"))
    parser = argparse.ArgumentParser()
    compare.add_commands(parser.add_subparsers())
    args = parser.parse_args(["compare", "a", "b", "--rounds", "10", *options])
    sides: Any = (FakeSide(1e-3), FakeSide(*head))
    assert compare.judge(sides, [Path("R3.bin")], args) == code
    assert capsys.readouterr().out.count("R3  ") == lines


def test_a_build_compiles_what_has_changed_and_nothing_else(tmp_path: Path) -> None:
    if not shutil.which("gcc"):
        pytest.skip("there is no C compiler")
    pytest.importorskip("setuptools")
    package = tmp_path / "src" / "bitinfer" / "backends" / "native"
    package.mkdir(parents=True)
    for name in ("setup.py", "src/bitinfer/backends/native/_build.py"):
        shutil.copy(ROOT / name, tmp_path / name)
    (tmp_path / "pyproject.toml").write_text(
        '[project]\nname = "x"\nversion = "1"\n[tool.setuptools]\npackage-dir = {"" = "src"}\n'
    )
    csrc = tmp_path / "csrc"
    csrc.mkdir()
    (csrc / "bitinfer.h").write_text("/* cdef-begin */ int one(void); /* cdef-end */\n")
    (csrc / "one.h").write_text("#define ONE 1\n")
    (csrc / "one.c").write_text('#include "one.h"\nint one(void) { return ONE; }\n')
    (csrc / "two.c").write_text("int two(void) { return 2; }\n")

    def build(**variables: str) -> tuple[int, set[str]]:
        """Build; return the exit code and which of the objects are new."""
        before = objects()
        done = subprocess.run(
            [sys.executable, "-W", "ignore", "setup.py", "-q", "build_ext", "--inplace"],
            cwd=tmp_path,
            env={**os.environ, "BITINFER_REQUIRE_C": "1", **variables},
            capture_output=True,
        )
        now = objects()
        return done.returncode, {name for name in now if now[name] != before.get(name)}

    def objects() -> dict[str, int]:
        paths = (tmp_path / "build").rglob("csrc/*.o")
        return {path.name: path.stat().st_ino for path in paths}

    assert build() == (0, {"one.o", "two.o"})
    (extension,) = package.glob("_native*.so")
    assert build() == (0, set())
    (csrc / "one.h").write_text("#define ONE 3\n")
    assert build() == (0, {"one.o"})
    assert extension.stat().st_mtime_ns > (csrc / "one.h").stat().st_mtime_ns
    assert build(CFLAGS="-DOTHER") == (0, {"one.o", "two.o"})
    (csrc / "two.c").write_text("int two(void) { return 2\n")
    assert build(CFLAGS="-DOTHER")[0] != 0

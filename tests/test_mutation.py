"""The tests themselves: each of the mistakes in mutants.py makes them fail."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import mutants
from bitinfer.backends import cpu_features
from kernel_list import Kernel, listed_kernels
from mutants import MUTANTS, THREAD_MUTANTS, Mutant

TESTS = Path(__file__).parent
KERNEL_TESTS = [
    str(TESTS / "plan" / "test_joins.py"),
    *(
        str(TESTS / "backends" / f"test_{name}.py")
        for name in (
            *("kernels", "signs", "binary_dense", "float_layers"),
            *("binary_conv", "networks", "executors", "epilogues", "taking_turns"),
        )
    ),
]

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(mutants.compiler() is None, reason="there is no C compiler"),
    pytest.mark.skipif(not mutants.CSRC.is_dir(), reason="there are no C sources beside the tests"),
]


def run_kernel_tests(library: Path) -> subprocess.CompletedProcess[str]:
    """Run the tests of native kernels on a library, up to the first failure."""
    return subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "-p", "no:cacheprovider"),
            *("-x", "-q", "-k", "native or drawn or exact_at", *KERNEL_TESTS),
        ],
        env={**os.environ, "BITINFER_TEST_LIBRARY": str(library)},
        capture_output=True,
        text=True,
    )


def finds_something(command: list[str]) -> bool:
    """Run a C test up to the first failure, or to its end."""
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        if any(line.startswith("FAILED") for line in process.stdout):
            process.kill()
            return True
        return process.wait() != 0


def test_a_library_without_a_mistake_passes(tmp_path: Path) -> None:
    library, program = mutants.build(tmp_path, None)
    tested = run_kernel_tests(library)
    assert tested.returncode == 0, tested.stdout
    assert " passed" in tested.stdout
    subprocess.run([program], check=True, capture_output=True)


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.what.replace(" ", "-"))
def test_a_mistake_in_a_kernel_is_found(mutant: Mutant, tmp_path: Path) -> None:
    if not cpu_features().get(mutant.isa, mutant.isa == "portable"):
        pytest.skip(f"this CPU has no {mutant.isa}")
    is_float = "/conv2d/" in mutant.file
    test = "check_conv2d.c" if is_float else "kernels/*.c"
    library, program = mutants.build(tmp_path, mutant, test)
    assert finds_something([str(program), *([] if is_float else ["100"])])
    tested = run_kernel_tests(library)
    found_by_pytest = tested.returncode not in (0, 5) and "usage:" not in tested.stderr
    # Python always asks for all rows at once.
    assert found_by_pytest or mutant.what.startswith("rows begin")


@pytest.mark.parametrize(
    "mutant",
    [None, *(mutant for mutant in MUTANTS if mutant.isa == "neon")],
    ids=lambda m: m.what.replace(" ", "-") if m else "none",
)
def test_a_mistake_in_a_kernel_for_neon_is_found_by_emulation(
    mutant: Mutant | None, tmp_path: Path
) -> None:
    for program in (mutants.EMULATED, mutants.EMULATOR[0]):
        if shutil.which(program) is None:
            pytest.skip(f"there is no {program}")
    _, test = mutants.build(tmp_path, mutant, cc=mutants.EMULATED)
    found = any(
        finds_something([*mutants.EMULATOR, str(test), "100", "bconv2d", method, "neon"])
        for method in ("pixels4", "lookup4")
    )
    assert found == (mutant is not None)


@pytest.mark.parametrize(
    "mutant", [None, *THREAD_MUTANTS], ids=lambda m: m.what.replace(" ", "-") if m else "none"
)
def test_a_mistake_in_the_thread_pool_is_found(mutant: Mutant | None, tmp_path: Path) -> None:
    _, program = mutants.build(tmp_path, mutant, "check_threads.c")
    try:
        code = subprocess.run([program], capture_output=True, timeout=20).returncode
    except subprocess.TimeoutExpired:  # it hangs
        code = -1
    assert (code != 0) == (mutant is not None)


@pytest.mark.parametrize(
    "kernel",
    [kernel for kernel in listed_kernels() if kernel.runs_here],
    ids=lambda kernel: "-".join(kernel[:3]),
)
def test_the_suite_of_a_kernel_reaches_it(kernel: Kernel, tmp_path: Path) -> None:
    library, program = mutants.build(tmp_path, mutants.trap(kernel))
    suite = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-x", "-q"]
    suite += ["-k", "-".join(kernel[:3]), str(TESTS / "backends" / "test_kernels.py")]
    environment = {**os.environ, "BITINFER_TEST_LIBRARY": str(library)}
    tested = subprocess.run(suite, env=environment, capture_output=True, text=True)
    assert tested.returncode == -signal.SIGILL, tested.stdout
    if kernel.operation in ("conv2d", "dense"):
        return  # tests/c/check_conv2d.c is about these
    assert subprocess.run([program, "10", *kernel[:3]]).returncode == -signal.SIGILL

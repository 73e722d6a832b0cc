"""backends/__init__.py: which backend answers, and what it says of the others."""

from __future__ import annotations

import builtins
import importlib
import subprocess
import sys
from typing import Any

import pytest

from bitinfer import backends
from bitinfer.backends import ENVIRONMENT_VARIABLE, NAMES, cpu_features, kernels, select, status
from bitinfer.errors import BackendError, MissingExtraError
from bitinfer.plan.steps import OPERATIONS
from harness import known_backends


@pytest.fixture(autouse=True)
def no_forced_backend(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(ENVIRONMENT_VARIABLE, raising=False)


def test_a_backend_is_what_it_was_asked_for(backend_name: str) -> None:
    backend = select(backend_name)
    assert backend.name == backend_name.partition(":")[0]
    assert backend.label == backend_name


def test_every_operation_has_a_kernel_on_every_backend(backend_name: str) -> None:
    assert set(kernels(backend_name)) == set(OPERATIONS.values())


def test_auto_takes_the_first_backend_that_is_there() -> None:
    first = next(s.name for s in status() if s.available)
    assert select("auto").name == select().name == first


def test_the_environment_forces_auto_but_not_a_backend_asked_for_by_name(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(ENVIRONMENT_VARIABLE, "reference")
    assert select().label == "reference"
    for name, reason in known_backends():
        if not reason:
            assert select(name).label == name
            monkeypatch.setenv(ENVIRONMENT_VARIABLE, f" {name} ")
            assert select("auto").label == name
    monkeypatch.setenv(ENVIRONMENT_VARIABLE, "auto")
    assert select().name in NAMES
    monkeypatch.setenv(ENVIRONMENT_VARIABLE, "")
    assert select().name in NAMES


def test_a_wrong_name_in_the_environment_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ENVIRONMENT_VARIABLE, "gpu")
    with pytest.raises(BackendError, match="BITINFER_KERNELS=gpu: unknown backend 'gpu'"):
        select()


@pytest.mark.parametrize(
    "name", ["", "Native", "native:", ":", "numba:avx2", "reference:", "cuda", "auto:avx2", "nativ"]
)
def test_an_unknown_name_is_an_error_that_lists_the_known_ones(name: str) -> None:
    with pytest.raises(BackendError, match="choose auto, native, numba, reference"):
        select(name)


def test_an_unknown_instruction_set_is_an_error_that_lists_the_known_ones(native_name: str) -> None:
    with pytest.raises(BackendError, match="native:mmx: there is no such name; this CPU runs port"):
        select("native:mmx")


def test_an_instruction_set_caps_every_kernel(native_name: str) -> None:
    order = list(cpu_features())
    cap = order.index(native_name.partition(":")[2])
    assert all(order.index(isa) <= cap for isa in kernels(native_name).values())


def test_native_alone_means_the_best_instruction_set_of_this_cpu(native_name: str) -> None:
    best = [isa for isa, runs in cpu_features().items() if runs][-1]
    assert kernels("native") == kernels(f"native:{best}")


def test_every_kernel_in_the_list_serves_under_some_name(native_name: str) -> None:
    native = importlib.import_module("bitinfer.backends.native").load_library()
    listed = {
        (
            native.ffi.string(native.lib.bi_kernel_operation(i)).decode(),
            native.ffi.string(native.lib.bi_kernel_isa(i)).decode(),
        )
        for i in range(native.lib.bi_kernel_count())
        if native.lib.bi_kernel_runs_here(i)
    }
    served = {
        item
        for name, reason in known_backends()
        if name.startswith("native:") and not reason
        for item in kernels(name).items()
    }
    assert served == listed
    assert {operation for operation, isa in listed if isa == "portable"} == {*OPERATIONS.values()}


def test_status_names_every_backend_and_the_reference_is_always_there() -> None:
    assert tuple(s.name for s in status()) == NAMES
    assert status()[-1].available
    assert all(bool(s.reason) != s.available for s in status())


def without(monkeypatch: pytest.MonkeyPatch, module: str) -> None:
    """Make ``module`` fail to import."""
    usual, usual_import = importlib.import_module, builtins.__import__

    def import_module(name: str, *args: Any) -> Any:
        if name == module:
            raise ImportError(f"No module named {name!r}")
        return usual(name, *args)

    def import_statement(name: str, *args: Any) -> Any:
        if name == module:
            raise ImportError(f"No module named {name!r}")
        return usual_import(name, *args)

    monkeypatch.setattr(importlib, "import_module", import_module)
    monkeypatch.setattr(builtins, "__import__", import_statement)


def test_without_the_extension_numba_or_numpy_answers_and_says_why(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    without(monkeypatch, "bitinfer.backends.native._native")
    assert select("auto").name != "native"
    native = status()[0]
    assert (native.available, cpu_features()) == (False, {})
    assert "No module named 'bitinfer.backends.native._native'" in native.reason
    assert "install a C compiler" in native.reason
    for name in ("native", "native:avx2"):
        with pytest.raises(BackendError, match="'native' is not available: the C extension"):
            select(name)


def test_without_numba_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    without(monkeypatch, "numba")
    wanted = r"'numba'; in the checkout: pip install '\.\[numba\]'"
    with pytest.raises(MissingExtraError, match=wanted) as caught:
        select("numba")
    assert caught.value.extra == "numba"
    monkeypatch.setenv(backends.ENVIRONMENT_VARIABLE, "numba")
    with pytest.raises(MissingExtraError, match=f"BITINFER_KERNELS=numba: .*{wanted}"):
        select("auto")
    assert not backends.status()[1].available


def test_choosing_one_backend_imports_no_other() -> None:
    code = (
        "import sys; from bitinfer.backends import select; select('reference');"
        "print([m for m in sys.modules if m.startswith(('numba', 'bitinfer.backends.n'))])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"

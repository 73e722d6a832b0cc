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
from bitinfer.plan import Buffer, Plan, operations, steps
from bitinfer.plan.steps import Window
from harness import known_backends
from kernel_list import listed_kernels


@pytest.fixture(autouse=True)
def no_forced_backend(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(ENVIRONMENT_VARIABLE, raising=False)


def test_a_backend_is_what_it_was_asked_for(backend_name: str) -> None:
    backend = select(backend_name)
    assert backend.name == backend_name.partition(":")[0]
    assert backend.label == backend_name


def test_every_operation_has_a_kernel_on_every_backend(backend_name: str) -> None:
    assert set(kernels(backend_name)) == set(operations())


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


def isa_of(kernel: str) -> str:
    return kernel.partition(" ")[2]


def test_an_instruction_set_caps_every_kernel(native_name: str) -> None:
    order = list(cpu_features())
    cap = order.index(native_name.partition(":")[2])
    for names in kernels(native_name).values():
        assert all(order.index(isa_of(name)) <= cap for name in names)


def test_native_alone_means_the_best_instruction_set_of_this_cpu(native_name: str) -> None:
    best = [isa for isa, runs in cpu_features().items() if runs][-1]
    assert kernels("native") == kernels(f"native:{best}")


def test_every_kernel_in_the_list_serves_under_some_name(native_name: str) -> None:
    served = {
        (operation, *kernel.split())
        for name, reason in known_backends()
        if name.startswith("native:") and not reason
        for operation, names in kernels(name).items()
        for kernel in names
    }
    listed = {kernel[:3] for kernel in listed_kernels() if kernel.runs_here}
    assert served == listed
    portable = {operation for operation, _, isa in listed if isa == "portable"}
    assert portable == {*operations()}


def test_a_method_can_be_forced_and_is_part_of_the_label(native_name: str) -> None:
    for operation, method, isa, *_ in listed_kernels():
        if native_name != f"native:{isa}":
            continue
        backend = select(f"{native_name},{operation}={method}")
        assert backend.label == f"{native_name},{operation}={method}"
        assert select(backend.label).label == backend.label
        assert backend.kernels()[operation][0] == f"{method} {isa}"
        assert {name.split()[0] for name in backend.kernels()[operation]} == {method}
        others = {k: v for k, v in backend.kernels().items() if k != operation}
        assert others.items() <= kernels(native_name).items()


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        ("bconv=words", "native:bconv=words: there is no such operation; choose activate, add, "),
        ("bconv2d=word", "native:bconv2d=word: there is no such method; choose "),
        ("bconv2d=", "native:bconv2d=: there is no such method; choose "),
        ("portable,popcnt", "there is no such name|wanted one instruction set|this CPU lacks it"),
        ("bdense=scalar,bdense=scalar", "bdense is given twice"),
        ("portable,,", "native:: there is no such name"),
    ],
)
def test_a_choice_that_makes_no_sense_is_an_error_that_says_what_would(
    native_name: str, choice: str, message: str
) -> None:
    with pytest.raises(BackendError, match=message):
        select(f"native:{choice}")


def test_a_method_that_no_kernel_has_here_is_an_error_that_names_the_others(
    native_name: str,
) -> None:
    forced = {k.operation: k.method for k in listed_kernels() if k.isa != "portable"}
    for operation, method in forced.items():
        if method in (k.method for k in listed_kernels(operation) if k.isa == "portable"):
            continue
        with pytest.raises(
            BackendError, match=f"native:{operation}={method}: .* up to portable; choose "
        ):
            select(f"native:portable,{operation}={method}")


def test_a_step_that_a_forced_method_does_not_take_is_named_when_it_is_bound(
    native_name: str,
) -> None:
    backend = select("native:portable,max_pool2d=strip")
    step = steps.MaxPool2d(name="small", source=0, target=1, window=Window((2, 2)))
    plan = Plan((Buffer("float", (4, 4, 3)), Buffer("float", (3, 3, 3))), (step,), 0, (1,), ("y",))
    with pytest.raises(
        BackendError,
        match="native:max_pool2d=strip: step 'small' is not one that strip portable takes; "
        "other methods of max_pool2d: signs, windows",
    ):
        backend.bind(plan)


def test_status_names_every_backend_and_the_reference_is_always_there() -> None:
    assert tuple(s.name for s in status()) == NAMES
    assert status()[-1].available
    assert all(bool(s.reason) != s.available for s in status())


def without(monkeypatch: pytest.MonkeyPatch, module: str) -> None:
    """Make ``module`` fail to import."""
    usual, usual_import = importlib.import_module, builtins.__import__

    def import_module(name: str, *args: Any) -> Any:
        if name == module:
            raise ModuleNotFoundError(f"No module named {name!r}")
        return usual(name, *args)

    def import_statement(name: str, *args: Any, **kwargs: Any) -> Any:
        if name == module:
            raise ModuleNotFoundError(f"No module named {name!r}")
        return usual_import(name, *args, **kwargs)

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

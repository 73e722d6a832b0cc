"""The Numba backend says what it runs: compiled loops are numba, what NumPy does is numpy."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import pytest

from bitinfer import zoo
from bitinfer.backends import reference
from bitinfer.graph import check, passes
from bitinfer.plan import Plan, Step, lower
from bitinfer.plan.cost import macs
from graph_examples import every_node

pytest.importorskip("numba", reason="numba is not installed")
from bitinfer.backends.numba import NumbaBackend, binding

NUMPY_ONLY = ("activate", "affine", "copy_channels", "flatten", "softmax")

BY_NUMPY = frozenset(
    (
        "binary-densenet28",
        "bireal18",
        "bnn-pynq-cnv",
        "quicknet",
        "quicknet-large",
        "quicknet-small",
        "reactnet-a",
        "real-to-bin",
        "xnor-alexnet",
        "xnor-lenet5",
        "xnor-nin",
        "xnor-resnet18",
    )
)
"""Networks with a layer of over 1 % of the multiplications that the loops do not know yet."""


def by_numpy(plan: Plan) -> list[Step]:
    """Return the steps that the Numba backend hands to NumPy, by the names that it gives."""
    names = (binding.bind_step(step, plan).kernel for step in plan.steps)
    return [step for step, name in zip(plan.steps, names, strict=True) if name == reference.KERNEL]


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(
            name, marks=pytest.mark.xfail(reason="the loops lack its epilogues", strict=True)
        )
        if name in BY_NUMPY
        else name
        for name in zoo.ARCHITECTURES
    ],
)
def test_no_layer_of_weight_is_left_to_numpy(name: str) -> None:
    checked = passes.optimise(check(*zoo.build(name, zoo.RandomParameters(0))))
    plan = lower(checked)
    total = sum(macs(step, plan) for step in plan.steps)
    heavy = [step.name for step in by_numpy(plan) if macs(step, plan) > total / 100]
    assert heavy == []


def test_a_step_is_called_numpy_exactly_if_the_reference_backend_binds_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    checked = check(*every_node())
    for plan in (lower(checked), lower(passes.optimise(checked))):
        bound: list[Step] = []
        real = reference.bind_step

        def spy(step: Step, plan: Plan, bound: Any = bound, real: Any = real) -> Any:
            bound.append(step)
            return real(step, plan)

        monkeypatch.setattr(reference, "bind_step", spy)
        assert by_numpy(plan) == bound
        monkeypatch.setattr(reference, "bind_step", real)
        executor = NumbaBackend().bind(plan)
        kernels = NumbaBackend().kernels()
        for step, name in zip(plan.steps, executor.kernels, strict=True):
            assert name in kernels[step.operation]
            assert name == ("numpy" if step in bound else "numba")
            assert name == "numpy" or step.operation not in NUMPY_ONLY


def test_numba_without_its_compiler_is_absent_and_says_why() -> None:
    script = """
from bitinfer import backends
from bitinfer.errors import BitInferError
status = {s.name: s for s in backends.status()}["numba"]
assert not status.available
assert "switched off by NUMBA_DISABLE_JIT" in status.reason, status.reason
assert "pip install" not in status.reason, status.reason
assert backends.select("auto").name != "numba"
try:
    backends.select("numba")
except BitInferError as error:
    assert "NUMBA_DISABLE_JIT" in str(error), error
    assert "pip install" not in str(error), error
else:
    raise AssertionError("numba was selected")
"""
    env = os.environ | {"NUMBA_DISABLE_JIT": "1"}
    done = subprocess.run(
        [sys.executable, "-c", script], env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr

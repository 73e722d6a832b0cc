"""The Numba backend says what it runs: compiled kernels, for every step of every network."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest

from bitinfer import zoo
from bitinfer.backends import reference
from bitinfer.graph import check, passes
from bitinfer.plan import Plan, lower, operations
from graph_examples import every_node, only_integers

pytest.importorskip("numba", reason="numba is not installed")
from bitinfer.backends.numba import NumbaBackend
from bitinfer.backends.numba.binding import bind_step
from bitinfer.backends.numba.jit import Kernel
from bitinfer.backends.numba.kernels import elementwise, layers, moves, pools

KERNELS = [
    kernel
    for module in (elementwise, layers, moves, pools)
    for kernel in vars(module).values()
    if isinstance(kernel, Kernel)
]


@pytest.fixture
def no_numpy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every function of the reference backend fail."""

    def fail(*_: object) -> None:
        raise AssertionError("NumPy was to run a step")

    monkeypatch.setattr(reference, "bind_step", fail)


def plans_of(name: str) -> list[Plan]:
    """Return what is run of a network of the zoo: for floats, and for pixels."""
    graph, tensors = zoo.build(name, zoo.RandomParameters(0))
    checked = passes.optimise(check(graph, tensors))
    table = np.zeros((256, graph.input.shape[-1]), np.float32)
    return [lower(checked), lower(checked, table)]


@pytest.mark.parametrize("name", zoo.ARCHITECTURES)
@pytest.mark.usefixtures("no_numpy")
def test_every_step_of_every_network_is_compiled(name: str) -> None:
    for plan in plans_of(name):
        assert all(bind_step(step, plan).kernel in KERNELS for step in plan.steps)


def test_what_can_be_compiled_is_as_much_as_the_documentation_says() -> None:
    assert len(KERNELS) == len({kernel.name for kernel in KERNELS}) == 18


@pytest.mark.usefixtures("no_numpy")
def test_the_names_are_those_of_the_list_and_the_list_has_every_operation() -> None:
    kernels = NumbaBackend().kernels()
    assert kernels == dict.fromkeys(operations(), ("numba",))
    seen = set()
    for make in (every_node, only_integers):
        checked = check(*make())
        for plan in (lower(checked), lower(passes.optimise(checked))):
            executor = NumbaBackend().bind(plan)
            for step, name in zip(plan.steps, executor.kernels, strict=True):
                assert (name,) == kernels[step.operation]
                seen.add(step.operation)
    assert seen == set(operations()) - {"normalize"}


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

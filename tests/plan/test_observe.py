"""plan/observe.py: every value of a network, on every backend, before and behind all passes."""

from __future__ import annotations

import numpy as np
import pytest

from bitinfer import zoo
from bitinfer.backends import Backend, select
from bitinfer.graph import CheckedGraph, check, passes
from bitinfer.graph.nodes import node_values
from bitinfer.plan import lower
from bitinfer.plan.observe import named, new_outputs, observe
from graph_examples import every_node
from harness import Array, bind, right_values, run_executor


def values_of(backend: Backend, checked: CheckedGraph, x: Array) -> dict[str, Array]:
    plan = observe(lower(checked))
    return {n: v[0] for n, v in named(plan, run_executor(bind(backend, plan), plan, x)).items()}


def test_every_value_is_handed_out_by_its_name_and_shape() -> None:
    checked = passes.optimise(check(*every_node()))
    plan = observe(lower(checked))
    names = [name for node in checked.graph.nodes for name in node_values(node)]
    assert list(plan.output_names) == names
    for name, output in named(plan, new_outputs(plan, 2)).items():
        value = checked.values[name]
        assert output.shape == (2, *value.shape)
        assert (output.dtype == np.int8) == (value.kind in ("sign", "int8"))
    assert plan.lifetimes() == {}


def test_the_pixels_that_a_step_normalises_are_no_value_of_the_network() -> None:
    checked = check(*every_node())
    table = np.zeros((256, 3), np.float32)
    plan = observe(lower(checked, table))
    assert plan.input not in plan.outputs


def test_the_values_are_those_of_the_oracle(backend: Backend) -> None:
    graph, tensors = every_node()
    x = np.random.default_rng(4).standard_normal((1, 9, 8, 3)).astype(np.float32)
    wanted, _ = right_values(graph, tensors, x[0])
    got = values_of(backend, check(graph, tensors), x)
    first_sign = next(name for name, value in got.items() if value.dtype == np.int8)
    for name, value in got.items():
        np.testing.assert_allclose(value, wanted[name], rtol=1e-4, atol=1e-4, err_msg=name)
        if name == first_sign:
            break


@pytest.mark.parametrize("name", ["xnor-lenet5", "bireal18", "quicknet"])
def test_a_value_behind_all_passes_equals_the_imported_one_that_it_stands_for(name: str) -> None:
    graph, tensors = zoo.build(name, zoo.RandomParameters(3))
    before = check(graph, tensors)
    after = passes.optimise(before)
    x = np.random.default_rng(5).standard_normal((1, *graph.input.shape)).astype(np.float32)
    backend = select()
    wanted, got = values_of(backend, before, x), values_of(backend, after, x)
    compared = 0
    for value, imported in after.lineage.same_as.items():
        if value not in got:
            continue
        a, b = got[value].astype(np.float64), wanted[imported].astype(np.float64)
        assert a.shape == b.shape, (value, imported)
        close = np.isclose(a, b, rtol=1e-3, atol=1e-3 * (np.abs(b).max() + 1))
        assert close.mean() > 0.97, (value, imported, close.mean())
        compared += 1
    assert compared > len(after.graph.nodes) // 2

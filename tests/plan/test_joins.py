"""plan/joins.py: what is joined shares a buffer, and every value stays what it was."""

from __future__ import annotations

from typing import Any

import hypothesis
import numpy as np
import pytest

from bitinfer import zoo
from bitinfer.backends import Backend, select
from bitinfer.errors import BitInferError
from bitinfer.graph import Graph, GraphBuilder, check, passes
from bitinfer.model import Model
from bitinfer.plan import Plan, lower, share_joins, steps
from bitinfer.plan.observe import named, new_outputs, observe
from bitinfer.session import Session
from graph_examples import grown
from strategies import networks


def copies(plan: Plan) -> list[steps.CopyChannels]:
    return [step for step in plan.steps if isinstance(step, steps.CopyChannels)]


def run(plan: Plan, backend: Backend, x: Any) -> list[Any]:
    outputs = [
        np.full((len(x), *plan.buffers[b].stored_shape), 9, plan.buffers[b].dtype)
        for b in plan.outputs
    ]
    backend.bind(plan).run(x, outputs)
    return outputs


def assert_same(plan: Plan, backend: Backend | None = None) -> Plan:
    """Check that a plan computes the same with shared joins, and return that one."""
    joined = share_joins(plan)
    reference = select("reference")
    shape = plan.buffers[plan.input].shape
    x = np.random.default_rng(1).standard_normal((2, *shape)).astype(np.float32)
    wanted = run(plan, reference, x)
    for right, found in zip(wanted, run(joined, backend or reference, x), strict=True):
        np.testing.assert_array_equal(found, right)
    return joined


@pytest.mark.parametrize("growth", [4, 40, 72])
def test_appended_channels_are_written_where_they_stay(growth: int, backend: Backend) -> None:
    plan = lower(passes.optimise(check(*grown(3, growth))))
    joined = assert_same(plan, backend)
    assert len(copies(plan)) == 3 * (2 + 2 + 2)
    (first,) = copies(joined)  # what no convolution makes
    assert (first.to, first.count) == (0, 5)
    assert joined.buffers[first.target].shape[-1] == 5 + 3 * growth
    layers = [step for step in joined.steps if isinstance(step, steps.BinaryConv2d)]
    assert {step.target for step in layers} == {first.target}
    places = [5 + block * growth for block in range(3) for _ in range(2)]
    assert [step.to for step in layers] == places
    added = [step for step in layers if step.epilogue.residual is not None]
    assert [(step.epilogue.residual, step.residual_begin) for step in added] == [
        (first.target, at) for at in places[1::2]
    ]
    assert set(joined.values) < set(plan.values)


@pytest.mark.parametrize("outputs", [7, 48, 80])
def test_layers_write_floats_and_signs_of_a_joined_map(outputs: int, backend: Backend) -> None:
    """With a shortcut, an activation, and signs beside the floats."""
    rng = np.random.default_rng(0)
    b = GraphBuilder("joined", (4, 3, outputs))
    signs = b.sign(b.input)

    def made(name: str) -> str:
        weight = rng.standard_normal((outputs, 3, 3, outputs))
        y = b.bconv2d(signs, weight, alpha=rng.random(outputs), padding=1, pad_value=-1)
        y = b.add(y, b.input)
        return b.rprelu(y, *rng.standard_normal((3, outputs)), name=name) if name == "b" else y

    first, second = made("a"), made("b")
    weight = rng.standard_normal((3, 1, 1, outputs))
    other = b.bconv2d(b.sign(first, threshold=rng.standard_normal(outputs)), weight)
    both = b.sigmoid(b.concat(first, second, first))
    plan = lower(passes.optimise(check(*b.build(both, other))))
    joined = assert_same(plan, backend)
    assert (len(copies(plan)), len(copies(joined))) == (3, 1)
    layers = [step for step in joined.steps if isinstance(step, steps.BinaryConv2d)]
    assert [step.to for step in layers[:2]] == [0, outputs]
    assert layers[0].epilogue.signs is not None


def test_the_signs_of_a_slice_are_packed_where_it_lies(backend: Backend) -> None:
    b = GraphBuilder("g", (2, 3, 80))
    x = b.relu(b.input)
    part = b.sign(b.slice_channels(x, 3, 75), threshold=np.linspace(-1, 1, 72))
    y = b.bconv2d(part, np.linspace(-1, 1, 8 * 72).reshape(8, 1, 1, 72))
    plan = lower(check(*b.build(y)))
    joined = assert_same(plan, backend)
    assert not copies(joined)
    (pack,) = [step for step in joined.steps if isinstance(step, steps.PackSigns)]
    assert pack.begin == 3


@pytest.mark.parametrize("is_read_again", [False, True])
def test_what_is_read_again_later_is_not_written_over(*, is_read_again: bool) -> None:
    b = GraphBuilder("g", (2, 2, 6))
    x = b.concat(b.relu(b.input), b.sigmoid(b.input))
    second = b.concat(b.slice_channels(x, 0, 6), b.clip(b.input, -1, 1))
    ends = [b.sigmoid(second)]
    if is_read_again:
        ends.append(b.relu(x))  # all of the first join, when the second one is there
    joined = assert_same(lower(check(*b.build(*ends))))
    assert [step.count for step in copies(joined)] == [6] * (4 if is_read_again else 3)
    assert len({step.target for step in copies(joined)}) == (2 if is_read_again else 1)


def test_a_map_joined_with_itself() -> None:
    b = GraphBuilder("g", (2, 2, 3))
    x = b.relu(b.input)
    plan = lower(check(*b.build(b.sigmoid(b.concat(x, x)))))
    assert len(copies(assert_same(plan))) == 2


def test_arrays_of_the_caller_stay_whole() -> None:
    b = GraphBuilder("g", (2, 2, 4))
    x = b.concat(b.input, b.relu(b.input))
    plan = lower(check(*b.build(b.slice_channels(x, 2, 6), x)))
    assert len(copies(assert_same(plan))) == 3


@hypothesis.given(networks())
def test_every_network_computes_the_same(network: tuple[Graph, dict[str, Any]]) -> None:
    graph, tensors = network
    if graph.input.kind == "float":
        plan = lower(passes.optimise(check(graph, tensors)))
        joined = assert_same(plan)
        assert len(joined.steps) <= len(plan.steps)


@pytest.mark.parametrize(
    ("name", "before", "after"),
    [("meliusnet22", 102, 4), ("binary-densenet28", 46, 4), ("reactnet-a", 10, 0)],
)
def test_networks_that_append_copy_what_no_binary_layer_makes(
    name: str, before: int, after: int
) -> None:
    plan = lower(passes.optimise(check(*zoo.build(name, zoo.RandomParameters(0)))))
    joined = share_joins(plan)
    assert (len(copies(plan)), len(copies(joined))) == (before, after)


def test_every_value_of_a_joined_network_is_observed_as_it_was(backend_name: str) -> None:
    model = Model(*grown(3, 8))
    session = Session(model, backend_name)
    x = np.random.default_rng(2).standard_normal((2, 3, 5, 5)).astype(np.float32)
    session.run(x)
    plan, values = session.observe(x)
    assert [*values] == [name for name in plan.values if name != model.graph.input.name]
    wanted = observe(lower(passes.optimise(model.checked)))
    outputs = new_outputs(wanted, len(x))
    select("reference").bind(wanted).run(x, outputs)
    for name, value in named(wanted, outputs).items():
        np.testing.assert_allclose(values[name], value, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("backend_name", ["native", "numba"])
def test_no_part_of_an_output_is_written(backend_name: str) -> None:
    try:
        backend = select(backend_name)
    except BitInferError as error:
        pytest.skip(str(error))
    plan = share_joins(lower(passes.optimise(check(*grown(2, 8)))))
    with pytest.raises(ValueError, match="part of an input or output"):
        backend.bind(observe(plan))

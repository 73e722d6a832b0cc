"""plan/: what a graph becomes."""

from __future__ import annotations

from typing import Any

import hypothesis
import numpy as np
import pytest

from bitinfer import numerics
from bitinfer.errors import ShapeError
from bitinfer.graph import Graph, GraphBuilder, infer
from bitinfer.plan import Buffer, Plan, lower, steps
from graph_examples import every_node
from strategies import networks


def test_every_node_type_becomes_the_step_of_its_name() -> None:
    graph, tensors = every_node()
    plan = lower(graph, tensors)
    made = [(node.name, node.__struct_config__.tag) for node in graph.nodes]
    renamed = {"sign": "pack_signs", "batch_norm": "affine", "relu": "activate"}
    wanted = [(name, renamed.get(tag, tag)) for name, tag in made]
    assert [(step.name, step.operation) for step in plan.steps] == wanted
    assert {step.operation for step in plan.steps} == {*steps.OPERATIONS.values()} - {"normalize"}


@hypothesis.given(networks())
def test_steps_read_what_is_written_and_write_each_buffer_once(
    network: tuple[Graph, dict[str, Any]],
) -> None:
    graph, tensors = network
    plan = lower(graph, tensors)
    values = infer(graph, tensors)
    written = {plan.input}
    for step, node in zip(plan.steps, graph.nodes, strict=True):
        assert set(step.sources) <= written
        assert step.target not in written
        written.add(step.target)
        kind = "bits" if values[node.name].kind == "sign" else "float"
        assert plan.buffers[step.target] == Buffer(kind, values[node.name].shape)
    assert written == set(range(len(plan.buffers)))
    assert plan.output_names == graph.outputs


@hypothesis.given(networks())
def test_a_buffer_lives_from_the_step_that_writes_it_to_the_last_that_reads_it(
    network: tuple[Graph, dict[str, Any]],
) -> None:
    plan = lower(*network)
    spans = plan.lifetimes()
    assert set(spans) == set(range(len(plan.buffers))) - {plan.input, *plan.outputs}
    for buffer, (first, last) in spans.items():
        assert plan.steps[first].target == buffer
        readers = [i for i, step in enumerate(plan.steps) if buffer in step.sources]
        assert last == max(readers, default=first)


def test_pixels_are_normalised_by_a_step_of_their_own(rng: np.random.Generator) -> None:
    b = GraphBuilder("g", (2, 2, 3))
    graph, tensors = b.build(b.relu(b.input))
    table = rng.standard_normal((256, 3), np.float32)
    plan = lower(graph, tensors, table)
    first = plan.steps[0]
    assert isinstance(first, steps.Normalize)
    assert first.table is table
    assert plan.buffers[plan.input] == Buffer("pixels", (2, 2, 3))
    assert plan.buffers[first.target] == Buffer("float", (2, 2, 3))
    assert plan.steps[1].source == first.target
    assert [s.operation for s in lower(graph, tensors).steps] == ["activate"]


def test_pixels_are_normalised_by_the_convolutions_if_only_they_read_them(
    rng: np.random.Generator,
) -> None:
    b = GraphBuilder("g", (2, 2, 3))
    x = b.conv2d(b.input, np.ones((4, 1, 1, 3)))
    y = b.conv2d(b.input, np.ones((4, 1, 1, 3)))
    table = rng.standard_normal((256, 3), np.float32)
    plan = lower(*b.build(b.add(x, y)), table)
    assert [step.operation for step in plan.steps] == ["conv2d", "conv2d", "add"]
    assert all(s.table is table for s in plan.steps if isinstance(s, steps.Conv2d))
    assert plan.buffers[plan.input] == Buffer("pixels", (2, 2, 3))


def test_batch_norm_becomes_the_affine_of_numerics(rng: np.random.Generator) -> None:
    mean, variance, gamma, beta = rng.random((4, 5), np.float32)
    b = GraphBuilder("g", (5,))
    plan = lower(*b.build(b.batch_norm(b.input, mean, variance, gamma, beta, epsilon=0.01)))
    scale, shift = numerics.batch_norm_affine(mean, variance, gamma, beta, 0.01)
    assert np.array_equal(plan.steps[0].scale, scale)
    assert np.array_equal(plan.steps[0].shift, shift)


def test_weights_are_handed_on_as_the_graph_holds_them() -> None:
    graph, tensors = every_node()
    for step, node in zip(lower(graph, tensors).steps, graph.nodes, strict=True):
        if isinstance(step, steps.BinaryConv2d):
            assert step.weight is tensors[node.weight]
            assert step.window == steps.Window(
                tensors[node.weight].shape[1:3],
                node.stride,
                node.padding,
                node.dilation,
                node.groups,
            )
            assert step.pad_value == node.pad_value


def test_a_graph_that_does_not_fit_is_not_lowered() -> None:
    graph, tensors = every_node()
    name = next(n for n in tensors if n.endswith("weight"))
    with pytest.raises(ShapeError):
        lower(graph, {**tensors, name: np.ones((1, 1), np.float32)})


@pytest.mark.parametrize(
    ("buffer", "stored", "size"),
    [
        (Buffer("float", (2, 3, 70)), (2, 3, 70), 1680),
        (Buffer("bits", (2, 3, 70)), (2, 3, 2), 96),
        (Buffer("bits", (64,)), (1,), 8),
        (Buffer("pixels", (2, 3, 3)), (2, 3, 3), 18),
    ],
)
def test_a_buffer_knows_how_it_is_stored(
    buffer: Buffer, stored: tuple[int, ...], size: int
) -> None:
    assert buffer.stored_shape == stored
    assert buffer.size_bytes == size


def test_a_value_read_by_nobody_still_has_a_place() -> None:
    b = GraphBuilder("g", (4,))
    b.relu(b.input, name="unread")
    plan = lower(*b.build(b.softmax(b.input)))
    assert plan.lifetimes() == {1: (0, 0)}
    assert isinstance(plan, Plan)

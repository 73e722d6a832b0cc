"""plan/: what a graph becomes."""

from __future__ import annotations

from typing import Any

import hypothesis
import msgspec
import numpy as np
import pytest

from bitinfer import numerics
from bitinfer.bits import pack
from bitinfer.errors import ShapeError
from bitinfer.graph import Graph, GraphBuilder, check, nodes
from bitinfer.graph.nodes import node_inputs
from bitinfer.plan import Buffer, NodeStep, Plan, lower, operations, steps
from graph_examples import every_node
from strategies import networks


def test_every_node_type_becomes_the_step_of_its_name() -> None:
    graph, tensors = every_node()
    plan = lower(check(graph, tensors))
    made = [(node.name, node.operation) for node in graph.nodes]
    renamed = {
        "sign": "pack_signs",
        "batch_norm": "affine",
        **dict.fromkeys(("relu", "clip", "prelu", "rprelu", "sigmoid"), "activate"),
        **dict.fromkeys(("concat", "slice_channels"), "copy_channels"),
        "reshape": "flatten",
    }
    times = {node.name: len(node_inputs(node)) for node in graph.nodes if "concat" in node.name}
    wanted = [(n, renamed.get(tag, tag)) for n, tag in made for _ in range(times.get(n, 1))]
    assert [(step.name, step.operation) for step in plan.steps] == wanted
    assert {step.operation for step in plan.steps} == {*operations()} - {"normalize"}


KINDS = {"sign": "bits", "float": "float", "int8": "int8", "uint8": "pixels"}


@hypothesis.given(networks())
def test_steps_read_what_is_written_and_write_each_buffer_once(
    network: tuple[Graph, dict[str, Any]],
) -> None:
    graph, tensors = network
    plan = lower(check(graph, tensors))
    values = check(graph, tensors).values
    written = {plan.input}
    made = {node.name: node for node in graph.nodes}
    unfilled: dict[int, int] = {}  # channels that the steps of a concat have not written yet
    for step in plan.steps:
        value = values[step.name]
        assert set(step.sources) <= written - {b for b, count in unfilled.items() if count}
        if isinstance(step, steps.CopyChannels) and isinstance(made[step.name], nodes.Concat):
            left = unfilled.get(step.target, value.shape[-1])
            assert step.to == value.shape[-1] - left
            unfilled[step.target] = left - step.count
        else:
            assert not set(step.targets) & written
        written.update(step.targets)
        assert plan.buffers[step.target] == Buffer(KINDS[value.kind], value.shape)
    assert written == set(range(len(plan.buffers)))
    assert not any(unfilled.values())
    assert plan.output_names == graph.outputs


@hypothesis.given(networks())
def test_a_buffer_lives_from_the_step_that_writes_it_to_the_last_that_touches_it(
    network: tuple[Graph, dict[str, Any]],
) -> None:
    plan = lower(check(*network))
    spans = plan.lifetimes()
    assert set(spans) == set(range(len(plan.buffers))) - {plan.input, *plan.outputs}
    for buffer, (first, last) in spans.items():
        touch = [i for i, s in enumerate(plan.steps) if buffer in (*s.sources, *s.targets)]
        assert buffer in plan.steps[first].targets
        assert (first, last) == (touch[0], touch[-1])


def test_pixels_are_normalised_by_a_step_of_their_own(rng: np.random.Generator) -> None:
    b = GraphBuilder("g", (2, 2, 3))
    graph, tensors = b.build(b.relu(b.input), b.conv2d(b.input, np.ones((1, 1, 1, 3))))
    table = rng.standard_normal((256, 3), np.float32)
    plan = lower(check(graph, tensors), table)
    first = plan.steps[0]
    assert isinstance(first, steps.Normalize)
    assert first.table is table
    assert plan.buffers[plan.input] == Buffer("pixels", (2, 2, 3))
    assert plan.buffers[first.target] == Buffer("float", (2, 2, 3))
    assert plan.steps[1].source == plan.steps[2].source == first.target
    assert [s.operation for s in lower(check(graph, tensors)).steps] == ["activate", "conv2d"]


def test_pixels_are_normalised_by_the_convolutions_that_alone_read_them(
    rng: np.random.Generator,
) -> None:
    b = GraphBuilder("g", (2, 2, 3))
    x = b.conv2d(b.input, np.ones((1, 1, 1, 3)))
    graph, tensors = b.build(
        b.conv2d(x, np.ones((1, 1, 1, 1))), b.conv2d(b.input, np.ones((2, 1, 1, 3)))
    )
    table = rng.standard_normal((256, 3), np.float32)
    plan = lower(check(graph, tensors), table)
    assert [step.source == plan.input for step in plan.steps] == [True, False, True]
    assert plan.steps[0].table is plan.steps[2].table is table
    assert plan.steps[1].table is None
    assert all(step.table is None for step in lower(check(graph, tensors)).steps)


def test_integers_stay_what_they_are(rng: np.random.Generator) -> None:
    b = GraphBuilder("g", (2, 2, 3), input_kind="uint8")
    x = b.conv2d(b.input, np.ones((4, 1, 1, 3), np.int16), offset=[1, 2, 3], alpha=[1] * 4)
    x = b.conv2d(b.quantize(x, 0.5), pack(np.ones((2, 1, 1, 4))))
    plan = lower(check(*b.build(x)))
    assert [buffer.kind for buffer in plan.buffers] == ["pixels", "float", "int8", "float"]
    first, quantize, last = plan.steps
    assert isinstance(first, steps.Conv2d)
    assert first.offset is b.tensors["conv2d_0.offset"]
    assert first.epilogue.alpha is b.tensors["conv2d_0.alpha"]
    assert isinstance(quantize, NodeStep)
    assert quantize.node == nodes.Quantize(name="quantize_0", input="conv2d_0", scale=0.5)
    assert last.weight is b.tensors["conv2d_1.weight"]


def test_an_epilogue_becomes_that_of_the_step() -> None:
    b = GraphBuilder("g", (3, 3, 4))
    b.bconv2d(b.sign(b.input), np.ones((4, 1, 1, 4)), alpha=[2] * 4, name="y")
    floats = dict(zip("lios", np.arange(16, dtype=np.float32).reshape(4, 4), strict=True))
    tensors = {**b.tensors, **floats, "t": np.ones(4, np.float32), "f": np.ones(4, np.uint8)}
    epilogue = nodes.Epilogue(
        floor="l",
        residual="input",
        activation=nodes.Activation("rprelu", shift_in="i", slope="s", shift_out="o"),
        threshold="t",
        flip="f",
        signs="bits",
    )
    layer = msgspec.structs.replace(b._nodes[-1], epilogue=epilogue)
    graph = Graph("g", b._input, (b._nodes[0], layer), ("y",))
    plan = lower(check(graph, tensors))
    step = plan.steps[-1]
    assert isinstance(step, steps.BinaryConv2d)
    e, a = step.epilogue, step.epilogue.activation
    assert (step.sources, step.targets) == ((1, 0), (2, 3))
    assert [buffer.kind for buffer in plan.buffers] == ["float", "bits", "float", "bits"]
    assert (e.residual, e.signs, e.beta, e.threshold) == (0, 3, None, None)
    assert e.sign_threshold is tensors["t"]
    assert e.flip is not None
    assert e.flip.dtype == np.bool_
    assert e.floor is floats["l"]
    assert e.alpha is tensors["y.alpha"]
    assert a is not None
    assert (a.shift_in is floats["i"], a.slope is floats["s"]) == (True, True)
    whole = msgspec.structs.replace(layer, alpha=None, epilogue=nodes.Epilogue(threshold="t"))
    del tensors["y.alpha"], tensors["f"]
    integers = {"y.weight": tensors["y.weight"], "t": np.ones(4, np.int32)}
    relu = nodes.Relu(name="end", input="input")
    plan = lower(check(Graph("g", b._input, (b._nodes[0], whole, relu), ("end",)), integers))
    assert plan.steps[1].epilogue.threshold is integers["t"]
    assert plan.steps[1].epilogue.sign_threshold is None
    assert plan.buffers[plan.steps[1].target].kind == "bits"


def test_batch_norm_becomes_the_affine_of_numerics(rng: np.random.Generator) -> None:
    mean, variance, gamma, beta = rng.random((4, 5), np.float32)
    b = GraphBuilder("g", (5,))
    plan = lower(check(*b.build(b.batch_norm(b.input, mean, variance, gamma, beta, epsilon=0.01))))
    wanted = numerics.batch_norm(mean, variance, gamma, beta, 0.01)
    assert all(np.array_equal(a, b) for a, b in zip(plan.steps[0].norm, wanted, strict=True))


def test_weights_are_handed_on_as_the_graph_holds_them() -> None:
    graph, tensors = every_node()
    made = {node.name: node for node in graph.nodes}
    for step in lower(check(graph, tensors)).steps:
        node = made[step.name]
        if isinstance(step, steps.Layer):
            assert step.weight is tensors[node.weight]
        if isinstance(step, steps.BinaryConv2d):
            assert step.window == steps.Window(
                tensors[node.weight].shape[1:3],
                node.stride,
                node.padding,
                node.dilation,
                node.groups,
            )
            assert step.pad_value == node.pad_value


@pytest.mark.parametrize(("channels", "transposes"), [(1, False), (2, True)])
def test_floats_of_one_channel_are_flattened_in_place(*, channels: int, transposes: bool) -> None:
    b = GraphBuilder("g", (3, 4, channels))
    plan = lower(check(*b.build(b.softmax(b.flatten(b.input, "channels_first")))))
    step = plan.steps[0]
    assert isinstance(step, steps.Flatten)
    assert step.channels_first == transposes


def test_a_graph_that_does_not_fit_is_not_lowered() -> None:
    graph, tensors = every_node()
    name = next(n for n in tensors if n.endswith("weight"))
    with pytest.raises(ShapeError):
        lower(check(graph, {**tensors, name: np.ones((1, 1), np.float32)}))


@pytest.mark.parametrize(
    ("buffer", "stored", "size"),
    [
        (Buffer("float", (2, 3, 70)), (2, 3, 70), 1680),
        (Buffer("bits", (2, 3, 70)), (2, 3, 2), 96),
        (Buffer("bits", (64,)), (1,), 8),
        (Buffer("pixels", (2, 3, 3)), (2, 3, 3), 18),
        (Buffer("int8", (2, 3, 5)), (2, 3, 5), 30),
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
    plan = lower(check(*b.build(b.softmax(b.input))))
    assert plan.lifetimes() == {1: (0, 0)}
    assert isinstance(plan, Plan)

"""graph/checked.py: what fits, what does not, and the limits that keep hostile files small."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import hypothesis
import msgspec
import numpy as np
import pytest
from hypothesis import strategies as st

import oracle
from bitinfer.bits import pack
from bitinfer.errors import GraphError, ShapeError
from bitinfer.graph import Graph, GraphBuilder, Value, check, checks, nodes, operations
from strategies import networks, paddings, pairs

Add = Callable[[GraphBuilder], str]


def build(shape: tuple[int, ...], add: Add) -> dict[str, Value]:
    b = GraphBuilder("g", shape)
    graph, tensors = b.build(add(b))
    return check(graph, tensors).values


def ones(*shape: int) -> np.ndarray:
    return np.ones(shape, np.float32)


def int8(*shape: int) -> np.ndarray:
    return np.ones(shape, np.int8)


@pytest.mark.parametrize(
    ("shape", "add", "value"),
    [
        ((5, 6, 3), lambda b: b.conv2d(b.input, ones(4, 3, 2, 3)), (3, 5, 4)),
        ((5, 6, 3), lambda b: b.conv2d(b.input, ones(4, 1, 1, 3), stride=2), (3, 3, 4)),
        ((5, 6, 4), lambda b: b.conv2d(b.input, ones(6, 1, 1, 2), groups=2), (5, 6, 6)),
        ((5, 6, 3), lambda b: b.bconv2d(b.sign(b.input), ones(2, 3, 3, 3), padding=1), (5, 6, 2)),
        ((5, 6, 3), lambda b: b.bconv2d(b.sign(b.input), ones(2, 2, 3, 3), dilation=2), (3, 2, 2)),
        ((7,), lambda b: b.dense(b.input, ones(3, 7)), (3,)),
        ((7,), lambda b: b.bdense(b.sign(b.input), ones(3, 7)), (3,)),
        ((5, 6, 4), lambda b: b.beta_map(b.input, kernel=3, padding=(0, 1, 2, 3), groups=2),
         (4, 9, 2)),
        ((7,), lambda b: b.beta_map(b.input), (1,)),
        ((5, 6, 3), lambda b: b.max_pool2d(b.input, 3, 2, padding=1), (3, 3, 3)),
        ((5, 6, 3), lambda b: b.avg_pool2d(b.input, (5, 6)), (1, 1, 3)),
        ((5, 6, 3), lambda b: b.flatten(b.input, "channels_first"), (90,)),
        ((7,), lambda b: b.flatten(b.input, "channels_last"), (7,)),
        ((7,), lambda b: b.softmax(b.input), (7,)),
        ((5, 6, 3), lambda b: b.relu(b.input), (5, 6, 3)),
        ((5, 6, 3), lambda b: b.batch_norm(b.input, ones(3), ones(3)), (5, 6, 3)),
        ((5, 6, 3), lambda b: b.conv2d(b.quantize(b.input, 1), int8(4, 1, 1, 3)), (5, 6, 4)),
        ((5, 6, 66), lambda b: b.conv2d(b.input, pack(ones(2, 3, 3, 33)), groups=2), (3, 4, 2)),
        ((7,), lambda b: b.dense(b.quantize(b.input, 1), pack(ones(3, 7))), (3,)),
        ((7,), lambda b: b.clip(b.input, -1, 1), (7,)),
        ((5, 6, 3), lambda b: b.prelu(b.input, ones(3)), (5, 6, 3)),
        ((5, 6, 3), lambda b: b.rprelu(b.input, *ones(3, 3)), (5, 6, 3)),
        ((5, 6, 3), lambda b: b.sigmoid(b.input), (5, 6, 3)),
        ((5, 6, 3), lambda b: b.add(b.input, b.input), (5, 6, 3)),
        ((5, 6, 3), lambda b: b.multiply(b.input, b.global_pool2d(b.input)), (5, 6, 3)),
        ((5, 6, 3), lambda b: b.concat(b.input, b.input, b.relu(b.input)), (5, 6, 9)),
        ((7,), lambda b: b.concat(b.input, b.dense(b.input, ones(3, 7))), (10,)),
        ((5, 6, 3), lambda b: b.slice_channels(b.input, 1, 3), (5, 6, 2)),
        ((5, 6, 4), lambda b: b.shuffle_channels(b.input, 2), (5, 6, 4)),
        ((5, 6, 3), lambda b: b.pad2d(b.input, (1, 2, 3, 4), 0.5), (8, 13, 3)),
        ((5, 6, 3), lambda b: b.global_pool2d(b.input, "max"), (3,)),
        ((5, 6, 3), lambda b: b.reshape(b.input, (90,)), (90,)),
        ((90,), lambda b: b.reshape(b.input, (3, 5, 6)), (3, 5, 6)),
    ],
)  # fmt: skip
def test_shapes_are_inferred(shape: tuple[int, ...], add: Add, value: tuple[int, ...]) -> None:
    assert list(build(shape, add).values())[-1] == Value("float", value)


def test_signs_stay_signs_through_max_pool_and_flatten() -> None:
    values = build(
        (4, 4, 3),
        lambda b: b.bdense(
            b.flatten(b.max_pool2d(b.sign(b.input), 2), "channels_last"), ones(1, 12)
        ),
    )
    assert [value.kind for value in values.values()] == ["float", "sign", "sign", "sign", "float"]


@hypothesis.given(
    st.tuples(st.integers(1, 20), st.integers(1, 20)),
    st.tuples(st.integers(1, 6), st.integers(1, 6)),
    pairs,
    paddings(),
    pairs,
)
def test_a_window_has_as_many_outputs_as_there_are_places_where_it_fits(
    extent: tuple[int, int],
    kernel: tuple[int, int],
    stride: tuple[int, int],
    padding: tuple[int, int, int, int],
    dilation: tuple[int, int],
) -> None:
    wanted = oracle.window_shape(extent, kernel, stride, padding, dilation)
    if min(wanted) > 0:
        assert checks.window_output(extent, kernel, stride, padding, dilation) == wanted
    else:
        with pytest.raises(ShapeError, match="padded map has only"):
            checks.window_output(extent, kernel, stride, padding, dilation)


@hypothesis.given(networks())
def test_drawn_networks_fit_together(network: tuple[Graph, dict[str, Any]]) -> None:
    graph, tensors = network
    values = check(graph, tensors).values
    assert list(values) == [graph.input.name, *(node.name for node in graph.nodes)]
    for node in graph.nodes:
        assert operations(node, values, tensors) >= math.prod(values[node.name].shape)


@pytest.mark.parametrize(
    ("shape", "add", "count"),
    [
        ((6, 6, 4), lambda b: b.conv2d(b.input, ones(8, 3, 3, 2), groups=2, padding=1),
         36 * 8 * 9 * 2),
        ((6, 6, 64), lambda b: b.bconv2d(b.sign(b.input), ones(8, 3, 3, 64)), 16 * 8 * 9 * 64),
        ((100,), lambda b: b.dense(b.input, ones(7, 100)), 700),
        ((100,), lambda b: b.bdense(b.sign(b.input), ones(7, 100)), 700),
        ((6, 6, 4), lambda b: b.max_pool2d(b.input, 2), 9 * 4 * 4),
        ((6, 6, 4), lambda b: b.beta_map(b.input, kernel=3), 6 * 6 * 4 + 16 * 9),
        ((6, 6, 4), lambda b: b.relu(b.input), 144),
    ],
)  # fmt: skip
def test_operations_are_the_nominal_multiply_accumulates(
    shape: tuple[int, ...], add: Add, count: int
) -> None:
    b = GraphBuilder("g", shape)
    graph, tensors = b.build(add(b))
    assert operations(graph.nodes[-1], check(graph, tensors).values, tensors) == count


SIGNS = "the input is a sign value, wanted float"
FLOATS = "the input is a float value, wanted sign"


@pytest.mark.parametrize(
    ("shape", "add", "error", "message"),
    [
        ((4, 4), lambda b: b.relu(b.input), ShapeError, r"wanted \(H, W, C\) or \(C,\)"),
        ((), lambda b: b.relu(b.input), ShapeError, "wanted"),
        ((0, 4, 3), lambda b: b.relu(b.input), ShapeError, "axis of 0"),
        ((4, 4, -3), lambda b: b.relu(b.input), ShapeError, "axis of 0"),
        ((4,), lambda b: b.relu("nothing"), GraphError, "'nothing' is no earlier value"),
        ((4,), lambda b: b.relu("relu_0"), GraphError, "'relu_0' is no earlier value"),
        ((4,), lambda b: b.relu(b.input, name=""), GraphError, "empty or taken"),
        ((4,), lambda b: b.relu(b.input, name="input"), GraphError, "empty or taken"),
        ((4,), lambda b: b.sign(b.input), GraphError, "'sign_0' is sign, wanted float|sign"),
        ((4,), lambda b: b.input, GraphError, "1 to"),
        ((4,), lambda b: b.relu(b.sign(b.input)), GraphError, SIGNS),
        ((4,), lambda b: b.softmax(b.sign(b.input)), GraphError, SIGNS),
        ((4,), lambda b: b.sign(b.sign(b.input)), GraphError, SIGNS),
        ((4,), lambda b: b.beta_map(b.sign(b.input)), GraphError, SIGNS),
        ((4,), lambda b: b.dense(b.sign(b.input), ones(2, 4)), GraphError, SIGNS),
        ((4,), lambda b: b.bdense(b.input, ones(2, 4)), GraphError, FLOATS),
        ((4, 4, 1), lambda b: b.bconv2d(b.input, ones(2, 1, 1, 1)), GraphError, FLOATS),
        ((4, 4, 1), lambda b: b.conv2d(b.sign(b.input), ones(2, 1, 1, 1)), GraphError, SIGNS),
        ((4, 4, 1), lambda b: b.avg_pool2d(b.sign(b.input), 2), GraphError, SIGNS),
        ((4, 4, 1), lambda b: b.batch_norm(b.sign(b.input), [0], [1]), GraphError, SIGNS),
        ((4, 4, 1), lambda b: b.softmax(b.input), ShapeError, r"wanted \(C,\)"),
        ((4, 4, 1), lambda b: b.dense(b.input, ones(2, 16)), ShapeError, r"wanted \(C,\)"),
        ((4,), lambda b: b.conv2d(b.input, ones(2, 1, 1, 4)), ShapeError, r"wanted \(H, W, C\)"),
        ((4,), lambda b: b.max_pool2d(b.input, 1), ShapeError, r"wanted \(H, W, C\)"),
        ((4, 4, 1), lambda b: b.conv2d(b.input, ones(2, 4)), ShapeError, "Cout, kh, kw"),
        ((4,), lambda b: b.dense(b.input, ones(2, 4, 1)), ShapeError, "two axes"),
        ((4,), lambda b: b.dense(b.input, ones(2, 5)), ShapeError, r"int8 of \(2, 4\)"),
        ((4,), lambda b: b.dense(b.input, ones(0, 4)), ShapeError, "wanted float32"),
        ((4,), lambda b: b.dense(b.input, ones(2, 4), ones(3)), ShapeError, r"of \(2,\)"),
        ((4,), lambda b: b.bdense(b.sign(b.input), ones(2, 65)), ShapeError, "for 4 signs"),
        ((4,), lambda b: b.bdense(b.sign(b.input), ones(2, 4), alpha=ones(3)), ShapeError, "alpha"),
        ((4, 4, 3), lambda b: b.conv2d(b.input, ones(2, 1, 1, 1), groups=3), ShapeError, "groups"),
        ((4, 4, 3), lambda b: b.conv2d(b.input, ones(2, 1, 1, 3), groups=0), ShapeError, "groups"),
        ((4, 4, 3), lambda b: b.conv2d(b.input, ones(2, 1, 1, 3), groups=-1), ShapeError, "groups"),
        ((4, 4, 3), lambda b: b.beta_map(b.input, groups=2), ShapeError, "groups"),
        ((4,), lambda b: b.beta_map(b.input, groups=2), ShapeError, "one scale"),
        ((4, 4, 3), lambda b: b.conv2d(b.input, ones(2, 5, 1, 3)), ShapeError, "5 pixels"),
        ((4, 4, 3), lambda b: b.conv2d(b.input, ones(2, 3, 1, 3), dilation=2), ShapeError,
         "5 pixels"),
        ((4, 4, 3), lambda b: b.conv2d(b.input, ones(2, 1, 1, 3), stride=0), ShapeError, "stride"),
        ((4, 4, 3), lambda b: b.conv2d(b.input, ones(2, 1, 1, 3), stride=-1), ShapeError, "stride"),
        ((4, 4, 3), lambda b: b.conv2d(b.input, ones(2, 1, 1, 3), dilation=0), ShapeError,
         "dilation"),
        ((4, 4, 3), lambda b: b.conv2d(b.input, ones(2, 1, 1, 3), padding=-1), ShapeError,
         "padding"),
        ((4, 4, 3), lambda b: b.conv2d(b.input, ones(2, 0, 1, 3)), ShapeError, "wanted float32"),
        ((4, 4, 3), lambda b: b.max_pool2d(b.input, 0, 1), ShapeError, "kernel"),
        ((4, 4, 3), lambda b: b.max_pool2d(b.input, 2, padding=2), ShapeError, "outside the map"),
        ((4, 4, 3), lambda b: b.avg_pool2d(b.input, 3, padding=(0, 3, 0, 0)), ShapeError,
         "outside the map"),
        ((4, 4, 3), lambda b: b.batch_norm(b.input, [0] * 3, [1, 1, -1]), ShapeError, "variance"),
        ((4, 4, 3), lambda b: b.batch_norm(b.input, [0] * 3, [0] * 3, epsilon=0), ShapeError,
         "variance"),
        ((4, 4, 3), lambda b: b.batch_norm(b.input, [0] * 3, [1] * 3, epsilon=-1e-9), ShapeError,
         "epsilon"),
        ((4, 4, 3), lambda b: b.batch_norm(b.input, [0] * 3, [1] * 3, epsilon=math.nan),
         ShapeError, "epsilon"),
        ((4, 4, 3), lambda b: b.batch_norm(b.input, [0] * 3, [1] * 4), ShapeError, "variance"),
        ((4, 4, 3), lambda b: b.batch_norm(b.input, [0] * 3, [1e-28] * 3, [3e38] * 3, epsilon=0),
         ShapeError, "too large for float32"),
        ((4, 4, 3), lambda b: b.batch_norm(b.input, [-3e38] * 3, [1] * 3, None, [3e38] * 3,
         epsilon=0), ShapeError, "too large for float32"),
        ((4, 4, 3), lambda b: b.batch_norm(b.input, [math.nan] * 3, [1] * 3), ShapeError, "NaN"),
        ((4,), lambda b: b.dense(b.input, [[1, math.inf, 1, 1]]), ShapeError, "NaN or infinity"),
        ((4, 4, 1), lambda b: b.bconv2d(b.sign(b.input), ones(2, 1, 1, 1), pad_value=2),
         ShapeError, "pad_value"),
        ((4,), lambda b: b.quantize(b.sign(b.input), 1), GraphError, SIGNS),
        ((4,), lambda b: b.add(b.sign(b.input), b.input), GraphError, SIGNS),
        ((4,), lambda b: b.add(b.input, b.sign(b.input)), ShapeError, "'sign_0' is sign of"),
        ((4,), lambda b: b.add(b.input, b.quantize(b.input, 1)), ShapeError, "is int8 of"),
        ((4,), lambda b: b.add(b.input, b.slice_channels(b.input, 0, 1)), ShapeError, "other"),
        ((4, 4, 3), lambda b: b.multiply(b.global_pool2d(b.input), b.input), ShapeError, "other"),
        ((4, 4, 3), lambda b: b.multiply(b.input, b.max_pool2d(b.input, 4)), ShapeError, "other"),
        ((4, 4, 3), lambda b: b.concat(b.input, b.max_pool2d(b.input, 2)), ShapeError, "height"),
        ((4, 4, 3), lambda b: b.concat(b.input, b.sign(b.input)), ShapeError, "'sign_0' is sign"),
        ((4, 4, 3), lambda b: b.concat(b.input, b.global_pool2d(b.input)), ShapeError, "height"),
        ((4, 4, 3), lambda b: b.slice_channels(b.input, 1, 4), ShapeError, "channels 1 to 4 of 3"),
        ((4, 4, 3), lambda b: b.slice_channels(b.input, -1, 2), ShapeError, "channels -1 to 2"),
        ((4, 4, 3), lambda b: b.slice_channels(b.input, 2, 2), ShapeError, "channels 2 to 2"),
        ((4, 4, 3), lambda b: b.shuffle_channels(b.input, 2), ShapeError, "do not divide 3"),
        ((4, 4, 3), lambda b: b.shuffle_channels(b.input, 0), ShapeError, "do not divide 3"),
        ((4, 4, 3), lambda b: b.pad2d(b.input, -1), ShapeError, "padding"),
        ((4, 4, 3), lambda b: b.pad2d(b.input, 1 << 14), ShapeError, "bytes"),
        ((4, 4, 3), lambda b: b.pad2d(b.input, 1 << 60), ShapeError, "padding"),
        ((4, 4, 3), lambda b: b.pad2d(b.input, 1, math.nan), ShapeError, "finite float32"),
        ((4, 4, 3), lambda b: b.pad2d(b.input, 1, 1e39), ShapeError, "finite float32"),
        ((4, 4, 3), lambda b: b.pad2d(b.sign(b.input), 1, 0), ShapeError, "wanted -1 or 1"),
        ((4, 4, 3), lambda b: b.pad2d(b.quantize(b.input, 1), 1), GraphError, "int8 value"),
        ((4,), lambda b: b.pad2d(b.input, 1), ShapeError, r"wanted \(H, W, C\)"),
        ((4,), lambda b: b.global_pool2d(b.input), ShapeError, r"wanted \(H, W, C\)"),
        ((4, 4, 3), lambda b: b.reshape(b.input, (6, 8)), ShapeError, "cannot become"),
        ((4, 4, 3), lambda b: b.reshape(b.input, (2, 2, 2, 6)), ShapeError, "cannot become"),
        ((4, 4, 3), lambda b: b.reshape(b.input, (47,)), ShapeError, "cannot become"),
        ((4, 4, 3), lambda b: b.reshape(b.input, (-4, -4, 3)), ShapeError, "axis of 0"),
        ((4, 4, 3), lambda b: b.reshape(b.sign(b.input), (48,)), GraphError, SIGNS),
        ((4,), lambda b: b.clip(b.input, 1, -1), ShapeError, "in this order"),
        ((4,), lambda b: b.clip(b.input, math.nan, 1), ShapeError, "finite"),
        ((4,), lambda b: b.clip(b.input, 0, math.inf), ShapeError, "finite"),
        ((4,), lambda b: b.clip(b.input, -1e39, 0), ShapeError, "too large for float32"),
        ((4,), lambda b: b.prelu(b.input, ones(3)), ShapeError, "slope"),
        ((4,), lambda b: b.prelu(b.input, [1, 1, 1, math.inf]), ShapeError, "NaN or infinity"),
        ((4,), lambda b: b.rprelu(b.input, ones(4), ones(4), ones(3)), ShapeError, "shift_out"),
        ((4,), lambda b: b.quantize(b.input, 0), ShapeError, "scale"),
        ((4,), lambda b: b.quantize(b.input, -1), ShapeError, "scale"),
        ((4,), lambda b: b.quantize(b.input, math.nan), ShapeError, "scale"),
        ((4,), lambda b: b.quantize(b.input, 1e31), ShapeError, "scale"),
        ((4,), lambda b: b.sign(b.input, threshold=ones(3)), ShapeError, "threshold"),
        ((4,), lambda b: b.sign(b.input, threshold=[0, 0, 0, math.nan]), ShapeError, "NaN"),
        ((4,), lambda b: b.dense(b.quantize(b.input, 1), ones(2, 4)), GraphError, "not float32"),
        ((4,), lambda b: b.dense(b.input, pack(-ones(2, 5))), ShapeError, "bits set past"),
        ((4,), lambda b: b.dense(b.input, int8(2, 4), alpha=ones(3)), ShapeError, "alpha"),
        ((4, 4, 3), lambda b: b.conv2d(b.input, int8(2, 1, 1, 3), offset=ones(3)), GraphError,
         "offset"),
        ((4, 4, 3), lambda b: b.conv2d(b.quantize(b.input, 1), int8(2, 1, 1, 3), offset=ones(2)),
         ShapeError, "offset"),
        ((4, 4, 3), lambda b: b.conv2d(b.quantize(b.input, 1), int8(2, 1, 1, 3),
         offset=[1e38] * 3), ShapeError, "too large for float32"),
        ((4, 4, 3), lambda b: b.conv2d(b.quantize(b.input, 1), pack(ones(2, 1, 1, 3)),
         offset=[1e30] * 3, alpha=[1, -1e9]), ShapeError, "too large for float32"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused(
    shape: tuple[int, ...], add: Add, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        build(shape, add)


@pytest.mark.parametrize(
    ("beta", "message"),
    [
        (lambda b: b.beta_map(b.input, kernel=3), r"wanted float of shape \(3, 3, 2\)"),
        (lambda b: b.beta_map(b.input, kernel=2), r"wanted float of shape \(3, 3, 2\)"),
        (lambda b: b.sign(b.input), "is sign of shape"),
    ],
)
def test_a_beta_map_must_have_one_scale_for_each_pixel_and_group(beta: Add, message: str) -> None:
    b = GraphBuilder("g", (4, 4, 4))
    scale = beta(b)
    b.bconv2d(b.sign(b.input), ones(2, 2, 2, 2), groups=2, beta=scale)
    with pytest.raises(ShapeError, match=message):
        b.build("bconv2d_0")


def one_layer() -> tuple[Graph, dict[str, Any]]:
    b = GraphBuilder("g", (4,))
    return b.build(b.bdense(b.sign(b.input), ones(2, 4)))


def test_stray_bits_of_a_weight_are_refused() -> None:
    graph, tensors = one_layer()
    tensors["bdense_0.weight"] = tensors["bdense_0.weight"] | np.uint64(16)
    with pytest.raises(ShapeError, match="bits set past its 4 signs"):
        check(graph, tensors)


@pytest.mark.parametrize(
    "wrong", [np.ones((2, 1), np.int64), np.ones((2, 1), np.float32), np.ones((2, 2), np.uint64)]
)
def test_a_binary_weight_must_be_words(wrong: np.ndarray) -> None:
    graph, _ = one_layer()
    with pytest.raises(ShapeError, match="wanted uint64"):
        check(graph, {"bdense_0.weight": wrong})


def test_a_float_tensor_must_be_float32() -> None:
    b = GraphBuilder("g", (4,))
    graph, tensors = b.build(b.dense(b.input, ones(2, 4)))
    with pytest.raises(ShapeError, match="is float64"):
        check(graph, {name: t.astype(np.float64) for name, t in tensors.items()})


def test_tensors_and_nodes_must_belong_to_each_other() -> None:
    graph, tensors = one_layer()
    with pytest.raises(GraphError, match=r"no tensor 'bdense_0\.weight'"):
        check(graph, {})
    with pytest.raises(GraphError, match="'spare' is used by no node"):
        check(graph, {**tensors, "spare": ones(1)})


@pytest.mark.parametrize(
    ("outputs", "message"),
    [
        ((), "outputs are empty"),
        (("bdense_0", "bdense_0"), "twice"),
        (("nothing",), "'nothing' is no node"),
        (("input",), "'input' is no node"),
        (("sign_0",), "is a sign value"),
    ],
)
def test_outputs_must_be_float_values_of_nodes(outputs: tuple[str, ...], message: str) -> None:
    graph, tensors = one_layer()
    with pytest.raises(GraphError, match=message):
        check(Graph(graph.name, graph.input, graph.nodes, outputs), tensors)


def test_the_input_must_have_a_name() -> None:
    b = GraphBuilder("g", (4,), input_name="")
    b.relu("")
    with pytest.raises(GraphError, match="name"):
        b.build("relu_0")


@pytest.mark.parametrize(
    ("shape", "add", "message"),
    [
        ((1 << 15, 1, 1), lambda b: b.relu(b.input), "axis of 0, above"),
        (((1 << 20) + 1,), lambda b: b.relu(b.input), "channels"),
        ((1 << 14, 1 << 14, 1), lambda b: b.relu(b.input), "bytes"),
        ((1, 1, 1), lambda b: b.conv2d(b.input, ones(1, 1, 1, 1), padding=1 << 14), "axis of 0|by"),
        ((1, 1, 1), lambda b: b.conv2d(b.input, ones(1, 1, 1, 1), padding=1 << 62), "padding"),
        ((1, 1, 1), lambda b: b.conv2d(b.input, ones(1, 1, 1, 1), stride=1 << 62), "stride"),
        ((1 << 12, 1 << 12, 1), lambda b: b.max_pool2d(b.input, 256, 1), "operations"),
        ((1024, 1024, 64), lambda b: b.bconv2d(b.sign(b.input), ones(64, 9, 9, 64)), "operations"),
    ],
)
def test_what_is_too_large_is_refused_before_it_is_allocated(
    shape: tuple[int, ...], add: Add, message: str
) -> None:
    with pytest.raises(ShapeError, match=message):
        build(shape, add)


@pytest.mark.parametrize(
    "add",
    [
        lambda b: b.conv2d(b.input, ones(1, 1, 1, 1), padding=1 << 14, stride=1 << 14),
        lambda b: b.bconv2d(b.sign(b.input), ones(1, 1, 1, 1), padding=1 << 14, stride=1 << 14),
        lambda b: b.beta_map(b.input, padding=1 << 14, stride=1 << 14),
        lambda b: b.max_pool2d(b.input, 1 << 14, 1 << 14, padding=(1 << 14) - 1),
    ],
)
def test_a_padded_map_counts_as_a_value_since_a_backend_may_make_it(add: Add) -> None:
    with pytest.raises(ShapeError, match="padded"):
        build((1, 1, 1), add)


def test_all_values_together_are_limited_since_all_may_live_at_once() -> None:
    b = GraphBuilder("g", (1 << 10, 1 << 10, 64))
    names = [b.relu(b.input) for _ in range(64)]
    with pytest.raises(ShapeError, match="all values"):
        b.build(*names)


def test_more_nodes_than_allowed_are_refused() -> None:
    node = nodes.Relu(name="a", input="x")
    graph = Graph("g", nodes.Input("x", (1,)), (node,) * (checks.MAX_NODES + 1), ("a",))
    with pytest.raises(GraphError, match="nodes"):
        check(graph, {})


def test_a_reduction_beyond_the_integers_of_float32_is_refused() -> None:
    weight = np.zeros((1, 257, 256, 4), np.uint64)
    graph = Graph(
        "g",
        nodes.Input("x", (257, 256, 256)),
        (nodes.Sign(name="s", input="x"), nodes.BinaryConv2d(name="y", input="s", weight="w")),
        ("y",),
    )
    with pytest.raises(ShapeError, match="inexact"):
        check(graph, {"w": weight})


def test_two_nodes_may_not_share_a_tensor() -> None:
    b = GraphBuilder("g", (4,))
    x = b.dense(b.input, np.ones((4, 4)), name="first")
    b.dense(x, np.ones((4, 4)), name="second")
    first, second = b._nodes
    b._nodes[1] = msgspec.structs.replace(second, weight=first.weight)
    del b.tensors[second.weight]
    with pytest.raises(GraphError, match=r"'first\.weight' is in use already"):
        b.build("second")


# --- integers ------------------------------------------------------------------------------------


def from_pixels(shape: tuple[int, ...], add: Add) -> dict[str, Value]:
    b = GraphBuilder("g", shape, input_kind="uint8")
    graph, tensors = b.build(add(b))
    return check(graph, tensors).values


@pytest.mark.parametrize(
    "add",
    [
        lambda b: b.conv2d(b.input, int8(2, 3, 3, 3)),
        lambda b: b.conv2d(b.input, int8(2, 3, 3, 3), offset=[1, 2, 3], alpha=ones(2)),
        lambda b: b.conv2d(b.input, pack(ones(2, 3, 3, 3))),
        lambda b: b.bconv2d(b.sign(b.input, threshold=[100] * 3), ones(2, 3, 3, 3)),
    ],
)
def test_pixels_are_read_by_layers_of_integers_and_by_sign(add: Add) -> None:
    values = list(from_pixels((4, 4, 3), add).values())
    assert (values[0], values[-1]) == (Value("uint8", (4, 4, 3)), Value("float", (2, 2, 2)))


@pytest.mark.parametrize(
    "add",
    [
        lambda b: b.conv2d(b.input, ones(2, 3, 3, 3)),
        lambda b: b.relu(b.input),
        lambda b: b.max_pool2d(b.input, 2),
        lambda b: b.avg_pool2d(b.input, 2),
        lambda b: b.flatten(b.input, "channels_last"),
        lambda b: b.reshape(b.input, (48,)),
        lambda b: b.beta_map(b.input),
        lambda b: b.quantize(b.input, 1),
        lambda b: b.add(b.input, b.input),
        lambda b: b.concat(b.input, b.input),
        lambda b: b.pad2d(b.input, 1),
        lambda b: b.global_pool2d(b.input),
        lambda b: b.bconv2d(b.input, ones(2, 3, 3, 3)),
    ],
)
def test_nothing_else_reads_pixels(add: Add) -> None:
    with pytest.raises(GraphError, match="uint8"):
        from_pixels((4, 4, 3), add)


@pytest.mark.parametrize(("kind", "largest"), [("uint8", 255), ("int8", 128)])
def test_integer_sums_fit_in_32_bits(kind: str, largest: int) -> None:
    length = (2**31 - 1) // (largest * 2**15)
    for channels, error in ((length, None), (length + 1, "may exceed")):
        weight = np.full((1, channels), -(2**15), np.int16)
        b = GraphBuilder("g", (channels,), input_kind="uint8" if kind == "uint8" else "float")
        x = b.input if kind == "uint8" else b.quantize(b.input, 1)
        b.dense(x, weight, name="y")
        if error is None:
            b.build("y")
        else:
            with pytest.raises(ShapeError, match=error):
                b.build("y")


def test_the_sum_of_every_output_is_checked() -> None:
    weight = np.zeros((3, 2**12, 2**8, 1), np.int16)
    weight[2] = 100
    b = GraphBuilder("g", (2**12, 2**8, 1), input_kind="uint8")
    b.conv2d(b.input, weight, name="y")
    with pytest.raises(ShapeError, match="may exceed"):
        b.build("y")


def test_a_concat_cannot_ask_for_any_number_of_steps() -> None:
    b = GraphBuilder("g", (1,))
    for _ in range(3):
        b.concat(b.input, *[b.input] * (checks.MAX_READS // 3))
    with pytest.raises(GraphError, match="read more than"):
        b.build("concat_0")

"""graph/builder.py: names, defaults, and what it makes of arrays."""

from __future__ import annotations

import inspect
from typing import Any

import numpy as np
import pytest

import oracle
from bitinfer.bits import pack
from bitinfer.errors import GraphError, ShapeError
from bitinfer.graph import GraphBuilder, nodes
from bitinfer.graph.builder import as_padding, as_pair
from graph_examples import Numbers
from node_examples import EXAMPLES, add_missing, network


def test_one_number_stands_for_both_axes_and_all_sides() -> None:
    assert as_pair(3) == (3, 3)
    assert as_pair((1, 2)) == (1, 2)
    assert as_padding(1) == (1, 1, 1, 1)
    assert as_padding((1, 2)) == (1, 1, 2, 2)
    assert as_padding((1, 2, 3, 4)) == (1, 2, 3, 4)


def test_numpy_integers_are_integers() -> None:
    assert as_pair(np.int64(3)) == (3, 3)
    assert as_padding(np.int32(1)) == (1, 1, 1, 1)
    assert all(type(v) is int for v in as_pair((np.int64(1), np.int64(2))))
    assert all(type(v) is int for v in as_padding((np.int64(1), np.int64(2))))


def test_fractions_are_no_pixels() -> None:
    with pytest.raises(ShapeError):
        as_pair(1.5)
    with pytest.raises(ShapeError):
        as_padding((1, 2.0))


def test_names_are_the_operation_and_a_counter() -> None:
    b = GraphBuilder("g", (4,))
    assert [b.relu(b.input), b.sign("relu_0"), b.relu("relu_0")] == ["relu_0", "sign_0", "relu_1"]
    assert b.relu("relu_1", name="last") == "last"
    graph, tensors = b.build("last")
    assert [node.name for node in graph.nodes] == ["relu_0", "sign_0", "relu_1", "last"]
    assert graph.outputs == ("last",)
    assert graph.input == nodes.Input("input", (4,))
    assert tensors == {}


def test_binary_weights_are_packed_and_float_weights_are_float32(rng: np.random.Generator) -> None:
    weight = rng.standard_normal((6, 3, 2, 35))
    b = GraphBuilder("g", (5, 5, 70))
    x = b.bconv2d(b.sign(b.input), weight, alpha=[1] * 6, groups=2, name="layer")
    b.conv2d(x, rng.standard_normal((2, 1, 1, 6)), [0, 1], name="last")
    _, tensors = b.build("last")
    assert np.array_equal(tensors["layer.weight"], oracle.bits_of(weight))
    assert tensors["layer.alpha"].dtype == np.float32
    assert tensors["last.weight"].dtype == tensors["last.bias"].dtype == np.float32


def test_pools_step_by_their_kernel_unless_told() -> None:
    b = GraphBuilder("g", (6, 6, 1))
    b.avg_pool2d(b.max_pool2d(b.input, (2, 3)), 1, 2)
    graph, _ = b.build("avg_pool2d_0")
    assert [(node.kernel, node.stride) for node in graph.nodes] == [
        ((2, 3), (2, 3)),
        ((1, 1), (2, 2)),
    ]


def test_a_graph_that_does_not_fit_is_not_built() -> None:
    b = GraphBuilder("g", (4, 4, 3))
    b.conv2d(b.input, np.ones((2, 3, 3, 4)))
    with pytest.raises(ShapeError, match="conv2d_0"):
        b.build("conv2d_0")


def test_a_name_given_twice_is_refused() -> None:
    b = GraphBuilder("g", (4,))
    b.relu(b.relu(b.input, name="relu_1"))
    with pytest.raises(GraphError, match="'relu_1'"):
        b.build("relu_1")


@pytest.mark.parametrize(
    "window",
    [{"padding": (1, 2, 3)}, {"padding": "same"}, {"stride": 1.5}, {"dilation": ()}],
    ids=str,
)
def test_a_window_that_is_no_whole_numbers_is_a_shape_error(window: Any) -> None:
    b = GraphBuilder("g", (8, 8, 3))
    with pytest.raises(ShapeError, match="whole numbers"):
        b.bconv2d(b.sign(b.input), np.ones((4, 3, 3, 3)), **window)


def test_a_parameter_that_is_no_array_of_numbers_is_a_shape_error() -> None:
    b = GraphBuilder("g", (8, 8, 3))
    with pytest.raises(ShapeError, match="not an array of numbers"):
        b.conv2d(b.input, np.ones((4, 3, 3, 3)), "bias")


def test_weights_of_numbers_keep_the_type_that_says_how_they_are_stored() -> None:
    b = GraphBuilder("g", (3, 3, 4), input_kind="uint8")
    x = b.conv2d(b.input, np.ones((8, 1, 1, 4), np.int16), name="int16")
    x = b.conv2d(x, np.ones((6, 1, 1, 8), np.int8), name="int8")
    x = b.conv2d(x, pack(np.ones((5, 1, 1, 6))), alpha=[1] * 5, name="signs")
    x = b.conv2d(x, np.ones((4, 1, 1, 5), np.int64), name="others")
    graph, tensors = b.build(x)
    assert graph.input == nodes.Input("input", (3, 3, 4), "uint8")
    kinds = {name: t.dtype.name for name, t in tensors.items() if name.endswith("weight")}
    assert kinds == {
        "int16.weight": "int16",
        "int8.weight": "int8",
        "signs.weight": "uint64",
        "others.weight": "float32",
    }


def test_every_method_makes_the_node_of_its_name() -> None:
    b = GraphBuilder("g", (4, 4, 6))
    add_missing(b, Numbers(1), b.input, 6)
    assert {node.operation for node in b._nodes} == set(EXAMPLES)
    assert {node.operation for node in b._nodes} == {n.name.rpartition("_")[0] for n in b._nodes}


@pytest.mark.parametrize("op", EXAMPLES)
def test_a_method_hands_on_what_it_is_given(op: str) -> None:
    graph, _ = network(op, Numbers(1))
    made = [node for node in graph.nodes if node.operation == op]
    assert len(made) == 1
    parameters = inspect.signature(getattr(GraphBuilder, op)).parameters.keys()
    wanted = set(made[0].__struct_fields__) - {"name", "input", "other", "others", "epilogue"}
    assert wanted - {"flip", "minimum"} <= parameters


def test_numbers_get_into_the_fields_of_their_names() -> None:
    b = GraphBuilder("g", (4, 4, 6))
    x = b.slice_channels(b.rprelu(b.input, [1] * 6, [2] * 6, [3] * 6), 1, 5)
    x = b.pad2d(x, (1, 0), 7)
    b.sign(b.concat(x, x, b.input), threshold=[5] * 14)
    sliced, padded, joined = b._nodes[1:4]
    assert sliced == nodes.SliceChannels("slice_channels_0", "rprelu_0", 1, 5)
    assert padded == nodes.Pad2d("pad2d_0", sliced.name, (1, 1, 0, 0), 7.0)
    assert joined == nodes.Concat("concat_0", "pad2d_0", ("pad2d_0", "input"))
    assert b.tensors["rprelu_0.shift_out"].tolist() == [3] * 6
    assert b.tensors["sign_0.threshold"].tolist() == [5] * 14

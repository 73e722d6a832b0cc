"""graph/nodes.py: data that cannot change, and which names a node reads."""

from __future__ import annotations

from typing import get_args

import msgspec
import pytest

from bitinfer.graph import Graph, Node, nodes

EXAMPLES: dict[str, Node] = {
    "conv2d": nodes.Conv2d(name="n", input="x", weight="w", bias="b"),
    "dense": nodes.Dense(name="n", input="x", weight="w", bias="b"),
    "bconv2d": nodes.BinaryConv2d(
        name="n", input="x", weight="w", alpha="a", bias="b", beta="m", groups=2, pad_value=-1
    ),
    "bdense": nodes.BinaryDense(name="n", input="x", weight="w", alpha="a", bias="b", beta="m"),
    "beta_map": nodes.BetaMap(name="n", input="x", kernel=(3, 2)),
    "sign": nodes.Sign(name="n", input="x"),
    "batch_norm": nodes.BatchNorm(
        name="n", input="x", mean="m", variance="v", gamma="g", beta="b", epsilon=0.5
    ),
    "relu": nodes.Relu(name="n", input="x"),
    "max_pool2d": nodes.MaxPool2d(name="n", input="x", kernel=(2, 2), stride=(2, 1)),
    "avg_pool2d": nodes.AvgPool2d(name="n", input="x", kernel=(2, 2), stride=(2, 1)),
    "flatten": nodes.Flatten(name="n", input="x", order="channels_first"),
    "softmax": nodes.Softmax(name="n", input="x"),
}
"""One node of every type, by its name in files."""

READS = {
    "conv2d": (("x",), ("w", "b")),
    "dense": (("x",), ("w", "b")),
    "bconv2d": (("x", "m"), ("w", "a", "b")),
    "bdense": (("x", "m"), ("w", "a", "b")),
    "batch_norm": (("x",), ("m", "v", "g", "b")),
}


def test_every_node_type_has_an_example_here() -> None:
    assert {type(node) for node in EXAMPLES.values()} == set(get_args(Node))


@pytest.mark.parametrize("op", EXAMPLES)
def test_a_node_survives_json_under_its_own_name(op: str) -> None:
    text = msgspec.json.encode(EXAMPLES[op])
    assert msgspec.json.decode(text)["op"] == op
    assert msgspec.json.decode(text, type=Node) == EXAMPLES[op]


@pytest.mark.parametrize("op", EXAMPLES)
def test_a_node_says_which_values_and_tensors_it_reads(op: str) -> None:
    values, tensors = READS.get(op, (("x",), ()))
    assert nodes.node_inputs(EXAMPLES[op]) == values
    assert nodes.node_tensors(EXAMPLES[op]) == tensors


def test_absent_parameters_are_not_read() -> None:
    bare = [
        nodes.Conv2d(name="n", input="x", weight="w"),
        nodes.Dense(name="n", input="x", weight="w"),
        nodes.BinaryConv2d(name="n", input="x", weight="w"),
        nodes.BinaryDense(name="n", input="x", weight="w"),
    ]
    assert [nodes.node_inputs(node) for node in bare] == [("x",)] * 4
    assert [nodes.node_tensors(node) for node in bare] == [("w",)] * 4
    norm = nodes.BatchNorm(name="n", input="x", mean="m", variance="v")
    assert nodes.node_tensors(norm) == ("m", "v")


@pytest.mark.parametrize("op", EXAMPLES)
def test_a_node_cannot_be_changed(op: str) -> None:
    with pytest.raises(AttributeError):
        EXAMPLES[op].name = "other"


@pytest.mark.parametrize("op", EXAMPLES)
def test_a_field_that_no_node_has_is_refused(op: str) -> None:
    fields = {**msgspec.to_builtins(EXAMPLES[op]), "path": "/etc/passwd"}
    with pytest.raises(msgspec.ValidationError, match="unknown field `path`"):
        msgspec.convert(fields, Node)


def test_a_graph_survives_json() -> None:
    graph = Graph("g", nodes.Input("x", (3,)), tuple(EXAMPLES.values()), ("n",))
    assert msgspec.json.decode(msgspec.json.encode(graph), type=Graph) == graph

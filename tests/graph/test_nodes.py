"""graph/nodes: data that cannot change, and which names a node reads."""

from __future__ import annotations

import msgspec
import pytest

import node_examples
from bitinfer.graph import Graph, Node, nodes

EXAMPLES = {op: example.node for op, example in node_examples.EXAMPLES.items()}

READS = {
    "conv2d": (("x",), ("w", "b", "a", "o")),
    "dense": (("x",), ("w", "b", "a")),
    "bconv2d": (("x", "m"), ("w", "a", "b")),
    "bdense": (("x", "m"), ("w", "a", "b")),
    "batch_norm": (("x",), ("m", "v", "g", "b")),
    "sign": (("x",), ("t", "f")),
    "prelu": (("x",), ("s",)),
    "rprelu": (("x",), ("i", "s", "o")),
    "add": (("x", "y"), ()),
    "multiply": (("x", "y"), ()),
    "concat": (("x", "y", "z"), ()),
    "max_pool2d": (("x",), ("least",)),
}

EPILOGUE = nodes.Epilogue(
    floor="fl",
    residual="r",
    activation=nodes.Activation("rprelu", shift_in="i", slope="s", shift_out="o"),
    threshold="t",
    flip="f",
    signs="n.signs",
)


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


@pytest.mark.parametrize("op", ["conv2d", "dense", "bconv2d", "bdense"])
def test_an_epilogue_adds_to_what_a_layer_reads_and_makes(op: str) -> None:
    bare = EXAMPLES[op]
    layer = msgspec.structs.replace(bare, epilogue=EPILOGUE)
    assert isinstance(layer, nodes.Layer)
    assert nodes.node_inputs(layer) == (*nodes.node_inputs(bare), "r")
    assert nodes.node_tensors(layer) == (
        *nodes.node_tensors(bare),
        *("fl", "i", "s", "o", "t", "f"),
    )
    assert nodes.node_values(layer) == ("n", "n.signs")
    assert nodes.node_values(bare) == ("n",)
    assert msgspec.json.decode(msgspec.json.encode(layer), type=Node) == layer


@pytest.mark.parametrize(
    ("op", "activation"),
    [
        ("relu", nodes.Activation("relu")),
        ("clip", nodes.Activation("clip", low=-1.0, high=1.0)),
        ("prelu", nodes.Activation("prelu", slope="s")),
        ("rprelu", nodes.Activation("rprelu", shift_in="i", slope="s", shift_out="o")),
        ("sigmoid", nodes.Activation("sigmoid")),
    ],
)
def test_an_activation_node_may_become_part_of_an_epilogue(
    op: str, activation: nodes.Activation
) -> None:
    node = EXAMPLES[op]
    assert isinstance(node, nodes.ActivationNode)
    assert nodes.as_activation(node) == activation


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

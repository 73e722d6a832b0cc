"""graph/nodes.py: data that cannot change, and which names a node reads."""

from __future__ import annotations

import msgspec
import pytest

from bitinfer.graph import Graph, Node, nodes

EXAMPLES: dict[str, Node] = {
    "conv2d": nodes.Conv2d(name="n", input="x", weight="w", bias="b", alpha="a", offset="o"),
    "dense": nodes.Dense(name="n", input="x", weight="w", bias="b", alpha="a"),
    "bconv2d": nodes.BinaryConv2d(
        name="n", input="x", weight="w", alpha="a", bias="b", beta="m", groups=2, pad_value=-1
    ),
    "bdense": nodes.BinaryDense(name="n", input="x", weight="w", alpha="a", bias="b", beta="m"),
    "beta_map": nodes.BetaMap(name="n", input="x", kernel=(3, 2)),
    "sign": nodes.Sign(name="n", input="x", threshold="t", flip="f"),
    "quantize": nodes.Quantize(name="n", input="x", scale=0.5),
    "batch_norm": nodes.BatchNorm(
        name="n", input="x", mean="m", variance="v", gamma="g", beta="b", epsilon=0.5
    ),
    "relu": nodes.Relu(name="n", input="x"),
    "clip": nodes.Clip(name="n", input="x", low=-1.0, high=1.0),
    "prelu": nodes.PRelu(name="n", input="x", slope="s"),
    "rprelu": nodes.RPRelu(name="n", input="x", shift_in="i", slope="s", shift_out="o"),
    "sigmoid": nodes.Sigmoid(name="n", input="x"),
    "add": nodes.Add(name="n", input="x", other="y"),
    "multiply": nodes.Multiply(name="n", input="x", other="y"),
    "concat": nodes.Concat(name="n", input="x", others=("y", "z")),
    "slice_channels": nodes.SliceChannels(name="n", input="x", begin=1, end=3),
    "shuffle_channels": nodes.ShuffleChannels(name="n", input="x", groups=2),
    "pad2d": nodes.Pad2d(name="n", input="x", padding=(1, 2, 3, 4), value=-1.0),
    "max_pool2d": nodes.MaxPool2d(
        name="n", input="x", kernel=(2, 2), stride=(2, 1), minimum="least"
    ),
    "avg_pool2d": nodes.AvgPool2d(name="n", input="x", kernel=(2, 2), stride=(2, 1)),
    "global_pool2d": nodes.GlobalPool2d(name="n", input="x", mode="max"),
    "reshape": nodes.Reshape(name="n", input="x", shape=(2, 3, 4)),
    "flatten": nodes.Flatten(name="n", input="x", order="channels_first"),
    "softmax": nodes.Softmax(name="n", input="x"),
}
"""One node of every type, by its name in files."""

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


def test_every_node_type_has_an_example_here() -> None:
    assert {type(node) for node in EXAMPLES.values()} == set(nodes.node_classes())


@pytest.mark.parametrize("op", EXAMPLES)
def test_a_node_survives_json_under_its_own_name(op: str) -> None:
    text = msgspec.json.encode(EXAMPLES[op])
    assert msgspec.json.decode(text)["op"] == op
    assert msgspec.json.decode(text, type=nodes.AnyNode) == EXAMPLES[op]


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
    assert msgspec.json.decode(msgspec.json.encode(layer), type=nodes.AnyNode) == layer


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
    assert node.activation() == activation


@pytest.mark.parametrize("op", EXAMPLES)
def test_a_node_cannot_be_changed(op: str) -> None:
    with pytest.raises(AttributeError):
        EXAMPLES[op].name = "other"


@pytest.mark.parametrize("op", EXAMPLES)
def test_a_field_that_no_node_has_is_refused(op: str) -> None:
    fields = {**msgspec.to_builtins(EXAMPLES[op]), "path": "/etc/passwd"}
    with pytest.raises(msgspec.ValidationError, match="unknown field `path`"):
        msgspec.convert(fields, nodes.AnyNode)


def test_a_graph_survives_json() -> None:
    graph = Graph("g", nodes.Input("x", (3,)), tuple(EXAMPLES.values()), ("n",))
    assert msgspec.json.decode(msgspec.json.encode(graph), type=Graph) == graph

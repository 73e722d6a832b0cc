"""One example of every node: the one table that a new node joins, from which tests draw.

``graph_examples.every_node``, the tests of the builder, the hostile files and the golden files have
every node that stands here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from bitinfer.graph import Graph, GraphBuilder, Node, nodes

Numbers = Callable[..., NDArray[Any]]
Add = Callable[[GraphBuilder, Numbers, str, int], str]


class Example(NamedTuple):
    """A node, and how it gets into a network.

    Attributes:
        node: all of its fields given.
        add: appends it to a float map of an even number of channels, and what makes floats of its
            value if it makes none; returns that value.
        refused: fields that a file must not have, as they stand in JSON, and what the error says.
        misfits: what cannot be added to a map of shape (4, 4, 3), and what the error says.
        identity: appends one that changes nothing, if there can be one.
    """

    node: Node
    add: Add
    refused: tuple[tuple[dict[str, Any], str], ...] = ()
    misfits: tuple[tuple[Add, str], ...] = ()
    identity: Add | None = None


BIG = 1 << 63

EXAMPLES: dict[str, Example] = {
    "conv2d": Example(
        nodes.Conv2d(name="n", input="x", weight="w", bias="b", alpha="a", offset="o"),
        lambda b, r, x, c: b.conv2d(x, r(6, 1, 1, c)),
    ),
    "dense": Example(
        nodes.Dense(name="n", input="x", weight="w", bias="b", alpha="a"),
        lambda b, r, x, c: b.dense(b.global_pool2d(x), r(6, c)),
    ),
    "bconv2d": Example(
        nodes.BinaryConv2d(
            name="n", input="x", weight="w", alpha="a", bias="b", beta="m", groups=2, pad_value=-1
        ),
        lambda b, r, x, c: b.bconv2d(b.sign(x), r(6, 1, 1, c)),
    ),
    "bdense": Example(
        nodes.BinaryDense(name="n", input="x", weight="w", alpha="a", bias="b", beta="m"),
        lambda b, r, x, c: b.bdense(b.sign(b.global_pool2d(x)), r(6, c)),
    ),
    "beta_map": Example(
        nodes.BetaMap(name="n", input="x", kernel=(3, 2)), lambda b, r, x, c: b.beta_map(x)
    ),
    "sign": Example(
        nodes.Sign(name="n", input="x", threshold="t", flip="f"),
        lambda b, r, x, c: b.bconv2d(b.sign(x, threshold=r(c)), r(6, 1, 1, c)),
    ),
    "quantize": Example(
        nodes.Quantize(name="n", input="x", scale=0.5),
        lambda b, r, x, c: b.conv2d(b.quantize(x, 0.25), np.ones((6, 1, 1, c), np.int8)),
        (({"scale": 0}, "scale"), ({"scale": 1e-300}, "scale")),
    ),
    "batch_norm": Example(
        nodes.BatchNorm(
            name="n", input="x", mean="m", variance="v", gamma="g", beta="b", epsilon=0.5
        ),
        lambda b, r, x, c: b.batch_norm(x, r(c), r(c) ** 2 + 1, r(c), r(c)),
    ),
    "relu": Example(
        nodes.Relu(name="n", input="x"),
        lambda b, r, x, c: b.relu(x),
        identity=lambda b, r, x, c: b.relu(b.max_pool2d(b.clip(x, 0, 1), 2)),
    ),
    "clip": Example(
        nodes.Clip(name="n", input="x", low=-1.0, high=1.0),
        lambda b, r, x, c: b.clip(x, -1, 1),
        (({"low": 2}, "in this order"), ({"high": 1e300}, "too large for float32")),
    ),
    "prelu": Example(
        nodes.PRelu(name="n", input="x", slope="s"), lambda b, r, x, c: b.prelu(x, r(c))
    ),
    "rprelu": Example(
        nodes.RPRelu(name="n", input="x", shift_in="i", slope="s", shift_out="o"),
        lambda b, r, x, c: b.rprelu(x, r(c), r(c), r(c)),
    ),
    "sigmoid": Example(nodes.Sigmoid(name="n", input="x"), lambda b, r, x, c: b.sigmoid(x)),
    "add": Example(nodes.Add(name="n", input="x", other="y"), lambda b, r, x, c: b.add(x, x)),
    "multiply": Example(
        nodes.Multiply(name="n", input="x", other="y"),
        lambda b, r, x, c: b.multiply(x, b.global_pool2d(x)),
    ),
    "concat": Example(
        nodes.Concat(name="n", input="x", others=("y", "z")),
        lambda b, r, x, c: b.concat(x, x, x),
        identity=lambda b, r, x, c: b.concat(x),
    ),
    "slice_channels": Example(
        nodes.SliceChannels(name="n", input="x", begin=1, end=3),
        lambda b, r, x, c: b.slice_channels(x, 1, c),
        (({"end": BIG}, "channels 3 to"), ({"begin": -1}, "channels -1 to")),
        misfits=(
            (lambda b, r, x, c: b.slice_channels(x, 1, 4), "channels 1 to 4 of 3"),
            (lambda b, r, x, c: b.slice_channels(x, -1, 2), "channels -1 to 2"),
            (lambda b, r, x, c: b.slice_channels(x, 2, 2), "channels 2 to 2"),
        ),
        identity=lambda b, r, x, c: b.slice_channels(x, 0, c),
    ),
    "shuffle_channels": Example(
        nodes.ShuffleChannels(name="n", input="x", groups=2),
        lambda b, r, x, c: b.shuffle_channels(x, 2),
        (({"groups": 0}, "do not divide"), ({"groups": BIG}, "do not divide")),
        misfits=(
            (lambda b, r, x, c: b.shuffle_channels(x, 2), "do not divide 3"),
            (lambda b, r, x, c: b.shuffle_channels(x, 0), "do not divide 3"),
        ),
        identity=lambda b, r, x, c: b.shuffle_channels(x, 1),
    ),
    "pad2d": Example(
        nodes.Pad2d(name="n", input="x", padding=(1, 2, 3, 4), value=-1.0),
        lambda b, r, x, c: b.pad2d(x, (1, 0), 7),
        (
            ({"padding": [1 << 14] * 4}, "padded"),
            ({"padding": [-1, 0, 0, 0]}, "padding"),
            ({"value": 1e39}, "finite float32"),
        ),
        identity=lambda b, r, x, c: b.pad2d(x, 0),
    ),
    "max_pool2d": Example(
        nodes.MaxPool2d(name="n", input="x", kernel=(2, 2), stride=(2, 1), minimum="least"),
        lambda b, r, x, c: b.max_pool2d(x, 2),
        identity=lambda b, r, x, c: b.max_pool2d(x, 1),
    ),
    "avg_pool2d": Example(
        nodes.AvgPool2d(name="n", input="x", kernel=(2, 2), stride=(2, 1)),
        lambda b, r, x, c: b.avg_pool2d(x, 2, 1),
        (({"count_include_pad": 0}, "`bool`"),),
        identity=lambda b, r, x, c: b.avg_pool2d(x, 1),
    ),
    "global_pool2d": Example(
        nodes.GlobalPool2d(name="n", input="x", mode="max"),
        lambda b, r, x, c: b.global_pool2d(x, "max"),
        (({"mode": "sum"}, "mode"),),
    ),
    "reshape": Example(
        nodes.Reshape(name="n", input="x", shape=(2, 3, 4)),
        lambda b, r, x, c: b.reshape(b.global_pool2d(x), (1, 2, c // 2)),
        (
            ({"shape": [1, 5]}, "cannot become"),
            ({"shape": [-1, -5, 1]}, "cannot become"),
            ({"shape": [10**400, 1, 1]}, "cannot become"),
            ({"shape": [1] * 50_000}, "cannot become"),
        ),
        identity=lambda b, r, x, c: b.reshape(x, (4, 4, c)),
    ),
    "flatten": Example(
        nodes.Flatten(name="n", input="x", order="channels_first"),
        lambda b, r, x, c: b.flatten(x, "channels_first"),
        (({"order": "rows"}, "order"),),
        identity=lambda b, r, x, c: b.flatten(b.global_pool2d(x), "channels_first"),
    ),
    "softmax": Example(
        nodes.Softmax(name="n", input="x"), lambda b, r, x, c: b.softmax(b.global_pool2d(x))
    ),
}
"""By the names of the operations in files."""


def network(op: str, numbers: Numbers) -> tuple[Graph, dict[str, NDArray[Any]]]:
    """Return a small network around the example of an operation."""
    b = GraphBuilder(f"a {op}", (4, 5, 6))
    return b.build(EXAMPLES[op].add(b, numbers, b.input, 6))


def add_missing(b: GraphBuilder, numbers: Numbers, x: str, channels: int) -> list[str]:
    """Append every example whose operation the network lacks; return their values."""
    made: list[str] = []
    for op, example in EXAMPLES.items():
        if op not in {node.operation for node in b._nodes}:
            made.append(example.add(b, numbers, x, channels))
    return made

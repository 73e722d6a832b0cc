"""graph/nodes/layers.py: what an epilogue makes of a layer's value, and what it cannot be."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import numpy as np
import pytest

from bitinfer.errors import GraphError, ShapeError
from bitinfer.graph import Graph, GraphBuilder, Value, check, nodes


def ones(*shape: int) -> np.ndarray:
    return np.ones(shape, np.float32)


def with_epilogue(
    epilogue: nodes.Epilogue, tensors: dict[str, Any], *, layer: str = "bconv2d", **fields: Any
) -> dict[str, Value]:
    """Infer a layer of 4 outputs on a map (3, 3, 4) that bears the epilogue."""
    b = GraphBuilder("g", (3, 3, 4))
    add: dict[str, Callable[[], str]] = {
        "bconv2d": lambda: b.bconv2d(b.sign(b.input), ones(4, 1, 1, 4), name="y"),
        "conv2d": lambda: b.conv2d(b.input, ones(4, 1, 1, 4), name="y"),
        "integers": lambda: b.conv2d(
            b.quantize(b.input, 1),
            np.ones((4, 1, 1, 4), np.int8),
            name="y",
            offset=fields.pop("offset", None),
        ),
    }
    add[layer]()
    graph, kept = Graph("g", b._input, tuple(b._nodes), ()), {**b.tensors, **tensors}
    last = msgspec.structs.replace(graph.nodes[-1], epilogue=epilogue, **fields)
    reader = nodes.Sign(name="reader", input="input")
    layers = (*graph.nodes[:-1], last, reader, nodes.Relu(name="end", input="input"))
    return check(msgspec.structs.replace(graph, nodes=layers, outputs=("end",)), kept).values


INTEGERS, FLOATS_4 = np.arange(4, dtype=np.int32), np.array([-np.inf, 0, 1, np.inf], np.float32)
FLAGS = np.array([0, 1, 1, 0], np.uint8)


def test_an_epilogue_decides_what_a_layer_makes() -> None:
    floats, sign = Value("float", (3, 3, 4)), Value("sign", (3, 3, 4))
    e = nodes.Epilogue
    assert with_epilogue(e(residual="input"), {})["y"] == floats
    thresholds = {"t": INTEGERS, "f": FLAGS}
    assert with_epilogue(e(threshold="t", flip="f"), thresholds)["y"] == sign
    made = with_epilogue(e(threshold="t", signs="s"), {"t": FLOATS_4}, layer="conv2d")
    assert (made["y"], made["s"]) == (floats, sign)
    assert with_epilogue(e(threshold="t"), {"t": FLOATS_4})["y"] == sign
    assert with_epilogue(e(threshold="t"), {"t": INTEGERS}, layer="integers")["y"] == sign


@pytest.mark.parametrize(
    ("layer", "epilogue", "tensors", "message"),
    [
        ("conv2d", {"threshold": "t"}, {"t": INTEGERS}, "wants an integer sum"),
        ("bconv2d", {"flip": "f"}, {"f": FLAGS}, "no threshold"),
        ("bconv2d", {"signs": "s"}, {}, "no threshold"),
        ("bconv2d", {"threshold": "t", "signs": "s"}, {"t": INTEGERS}, "no room"),
        ("bconv2d", {"threshold": "t", "residual": "input"}, {"t": INTEGERS}, "no room"),
        ("bconv2d", {"threshold": "t", "floor": "l"}, {"t": INTEGERS, "l": ones(4)}, "no room"),
        ("bconv2d", {"threshold": "t", "activation": nodes.Activation("relu")}, {"t": INTEGERS},
         "no room"),
        ("bconv2d", {"threshold": "t"}, {"t": INTEGERS[:3]}, "wanted int32"),
        ("bconv2d", {"threshold": "t"}, {"t": FLOATS_4[:3]}, "without NaN"),
        ("bconv2d", {"threshold": "t"}, {"t": ones(4) * np.nan}, "without NaN"),
        ("bconv2d", {"threshold": "t"}, {"t": ones(4).astype(np.float64)}, "without NaN"),
        ("bconv2d", {"threshold": "t", "flip": "f"}, {"t": INTEGERS, "f": FLAGS + 1},
         "other numbers than 0 and 1"),
        ("bconv2d", {"threshold": "t", "flip": "f"}, {"t": INTEGERS, "f": INTEGERS},
         "wanted uint8"),
        ("bconv2d", {"threshold": "t", "signs": "y"}, {"t": FLOATS_4}, "empty or taken"),
        ("bconv2d", {"threshold": "t", "signs": "input"}, {"t": FLOATS_4}, "empty or taken"),
        ("bconv2d", {"threshold": "t", "signs": ""}, {"t": FLOATS_4}, "empty or taken"),
        ("bconv2d", {"threshold": "t", "signs": "end"}, {"t": FLOATS_4}, "empty or taken"),
        ("bconv2d", {"threshold": "nothing"}, {}, "no tensor 'nothing'"),
        ("bconv2d", {"residual": "y"}, {}, "no earlier value"),
        ("bconv2d", {"residual": "sign_0"}, {}, "is sign of"),
        ("bconv2d", {"floor": "l"}, {"l": ones(3)}, "wanted float32"),
        ("bconv2d", {"floor": "l"}, {"l": -np.inf * ones(4)}, "NaN or infinity"),
        ("bconv2d", {"floor": "y.weight"}, {}, "wanted float32"),
        ("conv2d", {"activation": nodes.Activation("prelu")}, {}, "other tensors"),
        ("conv2d", {"activation": nodes.Activation("relu", slope="s")}, {"s": ones(4)},
         "other tensors"),
        ("conv2d", {"activation": nodes.Activation("prelu", slope="s")}, {"s": ones(3)},
         "wanted float32"),
        ("conv2d", {"activation": nodes.Activation("clip", low=2.0, high=1.0)}, {},
         "in this order"),
        ("conv2d", {"floor": "s", "activation": nodes.Activation("prelu", slope="s")},
         {"s": ones(4)}, "in use already"),
    ],
)  # fmt: skip
def test_an_epilogue_that_does_not_fit_is_refused(
    layer: str, epilogue: dict[str, Any], tensors: dict[str, Any], message: str
) -> None:
    with pytest.raises((GraphError, ShapeError), match=message):
        with_epilogue(nodes.Epilogue(**epilogue), tensors, layer=layer)


def test_an_integer_threshold_cannot_be_compared_with_what_is_no_integer() -> None:
    e = nodes.Epilogue(threshold="t")
    with pytest.raises(GraphError, match="offset"):
        with_epilogue(e, {"t": INTEGERS}, layer="integers", offset=ones(4))
    with pytest.raises(GraphError, match="no room"):
        with_epilogue(e, {"t": INTEGERS, "a": ones(4)}, alpha="a")


@pytest.mark.parametrize("kind", ["sign", "float"])
def test_the_minimum_is_of_signs_alone(kind: str) -> None:
    sign = nodes.Sign(name="s", input="x")
    pool = nodes.MaxPool2d(
        name="p", input="s" if kind == "sign" else "x", kernel=(2, 2), stride=(2, 2), minimum="m"
    )
    end = nodes.Relu(name="end", input="x")
    graph = Graph("g", nodes.Input("x", (4, 4, 3)), (sign, pool, end), ("end",))
    flags = {"m": np.array([0, 1, 1], np.uint8)}
    if kind == "float":
        with pytest.raises(GraphError, match="wanted sign"):
            check(graph, flags)
        return
    assert check(graph, flags).values["p"] == Value("sign", (2, 2, 3))
    for wrong in (flags["m"] * 2, flags["m"][:2], flags["m"].astype(np.float32)):
        with pytest.raises(ShapeError):
            check(graph, {"m": wrong})

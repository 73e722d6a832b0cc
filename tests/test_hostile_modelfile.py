"""Model files made to do harm, every one with the right checksum: one per way to be wrong.

Each must be refused with a ModelFileError of one short line, within a second.
"""

from __future__ import annotations

import gc
import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import hostile
from bitinfer import modelfile
from bitinfer.errors import ModelFileError
from hostile import Parts
from node_examples import EXAMPLES

GOOD = hostile.example()
SAME = hostile.edited(GOOD, lambda parts: None)
"""The same file, its numbers spelled as Python spells them."""
SCRIPT = Path(__file__).with_name("attack_modelfile.py")


def refuse(data: bytes) -> str:
    """Return the message with which a file is refused."""
    # The collector would walk all that other tests have left: that is not the file's time.
    gc.disable()
    try:
        began = time.process_time()
        with pytest.raises(ModelFileError) as caught:
            modelfile.from_bytes(data)
        took = time.process_time() - began
    finally:
        gc.enable()
    assert took < 1.0
    message = str(caught.value)
    assert message.isprintable()
    assert len(message) < 500
    return message


def set_node(op: str, number: int = 0, /, **fields: Any) -> Callable[[Parts], None]:
    return lambda parts: parts.node(op, number).update(fields)


def set_graph(**fields: Any) -> Callable[[Parts], None]:
    return lambda parts: parts.fields["graph"].update(fields)


def set_fields(**fields: Any) -> Callable[[Parts], None]:
    return lambda parts: parts.fields.update(fields)


def set_preprocessing(**fields: Any) -> Callable[[Parts], None]:
    return lambda parts: parts.fields["preprocessing"].update(fields)


def set_tensor(number: int, **fields: Any) -> Callable[[Parts], None]:
    return lambda parts: list(parts.table.values())[number].update(fields)


def test_the_good_file_taken_apart_and_put_together_loads() -> None:
    again = modelfile.from_bytes(SAME)
    assert modelfile.to_bytes(again) == GOOD
    modelfile.from_bytes(hostile.loose_example())
    modelfile.from_bytes(hostile.integer_example())


# --- the metadata --------------------------------------------------------------------------------

BIG = 10**400
EPILOGUE = dict.fromkeys(("floor", "residual", "activation", "threshold", "flip", "signs"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (set_fields(format_version=0), "format_version is 0, this bitinfer reads 1"),
        (set_fields(format_version=2), "update bitinfer"),
        (set_fields(format_version="1"), "format_version is 1, this"),
        (set_fields(format_version=True), "format_version is True"),
        (set_fields(format_version=1.0), "`int`"),
        (set_fields(format_version=None), "format_version is None"),
        (set_fields(format_version=[1]), "format_version"),
        (set_fields(path="../../etc/passwd"), "unknown field `path`"),
        (set_fields(graph=None), "Expected `object`, got `null` - at `$.graph`"),
        (set_fields(graph=[]), "`$.graph`"),
        (set_fields(labels=["a"] * 9), "9 labels for an output of 10 classes"),
        (set_fields(labels=["a"] * 11), "11 labels for an output of 10 classes"),
        (set_fields(labels=["a"] * 70_000), "labels"),
        (set_fields(labels=[1] * 10), "`$.labels[0]`"),
        (set_fields(labels="abcdefghij"), "`$.labels`"),
        (set_fields(labels=["a"] * 9 + ["x" * 1_000_000]), "has over 256 characters"),
        (set_fields(labels=["\ud800"] * 10), "not Unicode"),
        (set_fields(labels=["a"] * 9 + ["\n" * 257]), "has over 256 characters"),
        (set_fields(provenance={"importer": "x", "code": "import os"}), "unknown field `code`"),
        (set_fields(provenance={"source": "x"}), "importer"),
        (set_preprocessing(url="http://"), "unknown field `url`"),
        (set_preprocessing(color="cmyk"), "color"),
        (set_preprocessing(color="grey"), "a grey picture has 1 channels"),
        (set_preprocessing(interpolation="magic"), "interpolation"),
        (set_preprocessing(mean=[0.5]), "1 means"),
        (set_preprocessing(mean=[]), "0 means"),
        (set_preprocessing(std=[0.5, 0.5, 0]), "std not 0"),
        (set_preprocessing(std=[0.5, 0.5, 1e-300]), "std not 0"),
        (set_preprocessing(scale=1e300), "too large"),
        (set_preprocessing(scale=BIG), "metadata"),
        (set_preprocessing(mean=[1e39, 0, 0]), "too large"),
        (set_preprocessing(resize=1 << 40), "resize"),
        (set_preprocessing(resize=-1), "resize"),
        (set_preprocessing(resize=True), "resize"),
        (set_preprocessing(resize=[1 << 14, 1 << 14], crop=None), "preprocessing makes"),
        (set_preprocessing(crop=[9, 8, 3]), "crop"),
        (set_preprocessing(crop=[BIG, 8]), "crop"),
    ],
)  # fmt: skip
def test_metadata_of_the_wrong_kind_are_refused(
    change: Callable[[Parts], None], message: str
) -> None:
    assert message in refuse(hostile.edited(GOOD, change))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: text[:-1], "not JSON"),
        (lambda text: text + "}", "not JSON"),
        (lambda text: text + " // comment", "not JSON"),
        (lambda text: text.replace('"groups":1', '"groups":NaN', 1), "NaN is not a JSON number"),
        (lambda text: text.replace('"scale":', '"scale":Infinity,"x":', 1), "Infinity is not a"),
        (lambda text: text.replace('"scale":', '"scale":-Infinity,"x":', 1), "-Infinity is not"),
        (lambda text: text.replace('"scale":', '"scale":1e999,"x":', 1), "is too large"),
        (lambda text: text.replace('"scale":', f'"scale":{"9" * 5000},"x":', 1), "limit"),
        (lambda text: text.replace('"groups":1', '"groups":1,"groups":1', 1), "stands twice"),
        (lambda text: text.replace('"groups":1', '"groups":1,"\\u0067roups":1', 1), "twice"),
        (lambda text: text.replace('"labels":', '"labels":["a"],"labels":', 1), "stands twice"),
        (lambda text: text.replace('"labels":[', '"labels":[' + "[" * 100_000, 1), "deeply"),
        (lambda text: text.replace('"labels":[', '"labels":[' + '{"a":' * 9_000, 1), "deeply"),
        (lambda text: text.replace('"labels":[', '"labels":[' + "[],", 1), "`$.labels[0]`"),
        (lambda text: text.replace('"labels":[', '"labels":[' + "{}," * 1_100_000, 1), "values"),
        (lambda text: "[" + text + "]", "not a bitinfer model file"),
        (lambda text: text.replace('"groups":1', '"groups":01', 1), "not JSON"),
        (lambda text: text.replace('"groups":1', '"groups":0x1', 1), "not JSON"),
        (lambda text: text.replace('"a note"', '"a \x01 note"', 1), "not JSON"),
    ],
)
def test_text_that_is_not_strict_json_is_refused(
    change: Callable[[str], str], message: str
) -> None:
    changed = hostile.with_text(GOOD, change)
    assert changed != SAME
    assert message in refuse(changed)


# --- the graph -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (set_graph(nodes=[]), "0 nodes"),
        (set_graph(nodes=[{"op": "relu", "name": "a", "input": "input"}] * 20_000), "20000 nodes"),
        (set_graph(outputs=[]), "outputs are empty"),
        (set_graph(outputs=["softmax_0"] * 2), "twice"),
        (set_graph(outputs=["nothing"]), "'nothing' is no node"),
        (set_graph(outputs=["input"]), "'input' is no node"),
        (set_graph(outputs=["sign_0"]), "sign value"),
        (set_graph(outputs=[["softmax_0"]]), "`$.graph.outputs[0]`"),
        (set_graph(name="x" * 300), "has over 256 characters"),
        (set_graph(name=None), "`$.graph.name`"),
        (set_graph(hook="os.system"), "unknown field `hook`"),
        (set_graph(input={"name": "", "shape": [9, 8, 3]}), "empty name"),
        (set_graph(input={"name": "relu_0", "shape": [9, 8, 3]}), "no earlier value"),
        (set_graph(input={"name": "input", "shape": []}), "wanted (H, W, C)"),
        (set_graph(input={"name": "input", "shape": [9, 8]}), "wanted (H, W, C)"),
        (set_graph(input={"name": "input", "shape": [1] * 100_000}), "shape (1, 1, 1"),
        (set_graph(input={"name": "input", "shape": [9, 8, 0]}), "axis of 0"),
        (set_graph(input={"name": "input", "shape": [9, -8, 3]}), "axis of 0"),
        (set_graph(input={"name": "input", "shape": [1 << 14, 1 << 14, 3]}), "bytes"),
        (set_graph(input={"name": "input", "shape": [1 << 62, 1 << 62, 3]}), "above"),
        (set_graph(input={"name": "input", "shape": [BIG, 8, 3]}), "shape (10000"),
        (set_graph(input={"name": "input", "shape": [9.0, 8, 3]}), "`int`"),
        (set_graph(input={"name": "input", "shape": [True, 8, 3]}), "`int`"),
        (set_node("relu", input="softmax_0"), "'softmax_0' is no earlier value"),
        (set_node("relu", input="relu_0"), "'relu_0' is no earlier value"),
        (set_node("relu", input="nothing"), "'nothing' is no earlier value"),
        (set_node("relu", input="x" * 1_000_000), "input 'xxxx"),
        (set_node("relu", input=-1), "`str`"),
        (set_node("relu", name=""), "empty or taken"),
        (set_node("relu", name="input"), "empty or taken"),
        (set_node("relu", name="conv2d_0"), "empty or taken"),
        (set_node("relu", op="exec"), "exec"),
        (set_node("relu", op=1), "op"),
        (set_node("relu", op=None), "op"),
        (set_node("relu", path="/"), "unknown field `path`"),
        (set_node("softmax", input="conv2d_0"), "wanted (C,)"),
        (set_node("bconv2d", input="batch_norm_1"), "float value, wanted sign"),
        (set_node("bconv2d", groups=0), "groups"),
        (set_node("bconv2d", groups=-1), "groups"),
        (set_node("bconv2d", groups=1 << 63), "groups"),
        (set_node("bconv2d", groups=BIG), "10000"),
        (set_node("bconv2d", groups=1.0), "`int`"),
        (set_node("bconv2d", groups=True), "`int`"),
        (set_node("bconv2d", pad_value=2), "pad_value"),
        (set_node("bconv2d", pad_value=0.5), "pad_value"),
        (set_node("bconv2d", stride=[0, 1]), "stride"),
        (set_node("bconv2d", stride=[-1, 1]), "stride"),
        (set_node("bconv2d", stride=[1 << 31, 1]), "stride"),
        (set_node("bconv2d", stride=[1]), "stride"),
        (set_node("bconv2d", stride=1), "stride"),
        (set_node("bconv2d", dilation=[0, 1]), "dilation"),
        (set_node("bconv2d", dilation=[100, 1]), "the window reaches over"),
        (set_node("bconv2d", dilation=[1 << 14, 1]), "the window reaches over"),
        (set_node("bconv2d", padding=[-1, 0, 0, 0]), "padding"),
        (set_node("bconv2d", padding=[1 << 14] * 4), "padded"),
        (set_node("bconv2d", padding=[1 << 14] * 4, stride=[1 << 14] * 2), "padded"),
        (set_node("bconv2d", padding=[1 << 63, 0, 0, 0]), "padding"),
        (set_node("bconv2d", padding=[0, 0, 0]), "padding"),
        (set_node("bconv2d", beta="relu_0"), "beta map 'relu_0'"),
        (set_node("bconv2d", beta="sign_0"), "beta map 'sign_0' is sign"),
        (set_node("bconv2d", beta="nothing"), "'nothing' is no earlier value"),
        (set_node("bconv2d", weight="nothing"), "no tensor 'nothing'"),
        (set_node("bconv2d", weight="conv2d_0.weight"), "wanted uint64"),
        (set_node("bconv2d", alpha="bconv2d_0.weight"), "wanted float32"),
        (set_node("bconv2d", alpha="bconv2d_1.alpha"), "wanted float32 of (66,)"),
        (set_node("conv2d", weight="bconv2d_0.weight"), "bits set past its 3 signs"),
        (set_node("conv2d", weight="dense_0.weight"), "wanted (Cout, kh, kw"),
        (set_node("dense", weight="conv2d_0.weight"), "two axes"),
        (set_node("dense", bias=None), "is used by no node"),
        (set_node("max_pool2d", kernel=[0, 1]), "kernel"),
        (set_node("max_pool2d", kernel=[100, 1]), "the window reaches over"),
        (set_node("max_pool2d", kernel=[1 << 14] * 2, padding=[(1 << 14) - 1] * 4), "padded"),
        (set_node("max_pool2d", padding=[2, 0, 0, 0]), "outside the map"),
        (set_graph(input={"name": "input", "shape": [9, 8, 3], "kind": "int8"}), "kind"),
        (set_graph(input={"name": "input", "shape": [9, 8, 3], "kind": "uint8"}), "not float32"),
        (set_node("conv2d", alpha="bconv2d_0.alpha"), "wanted float32 of (20,)"),
        (set_node("conv2d", offset="conv2d_0.bias"), "an offset wants uint8"),
        (set_node("conv2d", 2, weight="conv2d_0.weight"), "float32"),
        (set_node("conv2d", 2, groups=4), "weight"),
        (set_node("dense", weight="bdense_0.weight"), "wanted uint64 of shape"),
        (set_node("sign", threshold="bconv2d_0.bias"), "threshold"),
        (set_node("sign", flip="bconv2d_0.bias"), "wanted uint8"),
        (set_node("prelu", slope="rprelu_0.slope"), "in use already"),
        (set_node("prelu", slope="bconv2d_0.bias"), "wanted float32"),
        (set_node("rprelu", shift_in="rprelu_0.slope"), "in use already"),
        (set_node("add", other="nothing"), "no earlier value"),
        (set_node("add", other="add_0"), "no earlier value"),
        (set_node("add", other="sign_0"), "is sign of"),
        (set_node("multiply", input="sigmoid_0", other="add_0"), "other 'add_0'"),
        (set_node("concat", others=["concat_0"]), "no earlier value"),
        (set_node("concat", others=["sign_0"]), "is sign of"),
        (set_node("concat", others=["add_0"] * 10_000), "read more than"),
        (set_node("pad2d", 1, value=0.5), "signs cannot be padded"),
        (set_node("max_pool2d", minimum="prelu_0.slope"), "wanted sign"),
        (set_node("max_pool2d", 1, minimum="prelu_0.slope"), "wanted uint8"),
        *(
            (set_node(op, epilogue={**EPILOGUE, **more}), message)
            for op in ("conv2d", "dense", "bconv2d", "bdense")
            for more, message in (
                ({}, "made by passes, not stored"),
                ({"residual": "input"}, "made by passes, not stored"),
                ({"code": "x"}, "unknown field `code`"),
                ({"activation": {"kind": "exec"}}, "exec"),
            )
        ),
        *(
            (set_node(op, **fields), message)
            for op, example in EXAMPLES.items()
            for fields, message in example.refused
        ),
        (set_node("batch_norm", epsilon=-1), "epsilon"),
        (set_node("batch_norm", epsilon=-1e-30), "epsilon"),
        (set_node("batch_norm", epsilon="1e-5"), "`float`"),
        (set_node("batch_norm", epsilon=BIG), ""),
        (set_node("batch_norm", variance="batch_norm_0.mean"), ""),
    ],
)  # fmt: skip
def test_a_graph_that_is_not_one_is_refused(change: Callable[[Parts], None], message: str) -> None:
    assert message in refuse(hostile.edited(GOOD, change))


def tiny(nodes: list[dict[str, Any]], shape: list[int], outputs: list[str]) -> bytes:
    """Return the file of a graph without tensors."""
    parts = hostile.take_apart(GOOD)
    parts.fields["graph"] = {
        "name": "tiny",
        "input": {"name": "input", "shape": shape},
        "nodes": nodes,
        "outputs": outputs,
    }
    parts.fields.update(labels=[], preprocessing=None)
    parts.table, parts.data = {}, b""
    return hostile.build(parts)


def test_a_network_without_tensors_is_a_network() -> None:
    relu = {"op": "relu", "name": "a", "input": "input"}
    assert modelfile.from_bytes(tiny([relu], [3], ["a"])).tensors == {}


def test_a_cycle_is_refused() -> None:
    nodes = [
        {"op": "relu", "name": "a", "input": "b"},
        {"op": "relu", "name": "b", "input": "a"},
    ]
    assert "'b' is no earlier value" in refuse(tiny(nodes, [3], ["a"]))


def test_a_short_file_cannot_ask_for_many_operations() -> None:
    pool = {
        "op": "max_pool2d",
        "name": "a",
        "input": "input",
        "kernel": [4096, 4096],
        "stride": [1, 1],
        "padding": [4095, 4095, 4095, 4095],
    }
    assert "operations" in refuse(tiny([pool], [1, 1, 1], ["a"]))


def test_a_short_file_cannot_ask_for_many_operations_in_small_steps() -> None:
    pool = {"op": "avg_pool2d", "kernel": [99, 99], "stride": [1, 1], "padding": [49] * 4}
    pools = [
        {**pool, "name": f"p{i}", "input": f"p{i - 1}" if i else "input", "count_include_pad": True}
        for i in range(2000)
    ]
    assert "operations" in refuse(tiny(pools, [128, 128, 1], ["p1999"]))


def test_a_short_file_cannot_ask_for_much_memory_in_small_steps() -> None:
    nodes = [{"op": "relu", "name": f"r{i}", "input": "input"} for i in range(1000)]
    data = tiny(nodes, [4096, 4096, 1], [f"r{i}" for i in range(1000)])
    assert "all values together" in refuse(data)


def test_a_small_map_cannot_be_padded_to_a_large_one() -> None:
    node = {
        "op": "avg_pool2d",
        "name": "a",
        "input": "input",
        "kernel": [1 << 14, 1 << 14],
        "stride": [1 << 14, 1 << 14],
        "padding": [(1 << 14) - 1] * 4,
        "count_include_pad": True,
    }
    assert "padded" in refuse(tiny([node], [1, 1, 64], ["a"]))


# --- the tensors ---------------------------------------------------------------------------------


def names_of(dtype: str) -> list[int]:
    table = hostile.take_apart(GOOD).table
    return [i for i, entry in enumerate(table.values()) if entry["dtype"] == dtype]


FLOAT, WORDS, OCTETS = (names_of(dtype)[0] for dtype in ("F32", "U64", "I8"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (set_tensor(FLOAT, dtype="F64"), "is none of F32"),
        (set_tensor(FLOAT, dtype="I32"), "is none of F32"),
        (set_tensor(FLOAT, dtype="U16"), "is none of F32"),
        (set_tensor(OCTETS, dtype="BOOL"), "is none of F32"),
        (set_tensor(OCTETS, dtype="U8"), "is uint8 of shape"),
        (set_tensor(OCTETS, dtype="I16"), "tensors: "),
        (set_tensor(FLOAT, dtype="BF16"), "is none of F32"),
        (set_tensor(FLOAT, dtype="PICKLE"), "is none of F32"),
        (set_tensor(FLOAT, dtype=None), "is none of F32"),
        (set_tensor(FLOAT, dtype=["F32"]), "is none of F32"),
        (set_tensor(FLOAT, shape=[]), "not 1 to 8 axes"),
        (set_tensor(FLOAT, shape=[1] * 9), "not 1 to 8 axes"),
        (set_tensor(FLOAT, shape=3), "not 1 to 8 axes"),
        (set_tensor(FLOAT, shape=[-1]), "tensors: "),
        (set_tensor(FLOAT, shape=[1 << 62, 1 << 62]), "tensors: "),
        (set_tensor(FLOAT, shape=[BIG]), "tensors: "),
        (set_tensor(FLOAT, shape=[1.0]), "tensors: "),
        (set_tensor(FLOAT, shape=[True]), "tensors: "),
        (set_tensor(FLOAT, shape=[0]), "tensors: "),
        (set_tensor(FLOAT, shape=[1]), "tensors: "),
        (set_tensor(FLOAT, data_offsets=[0, 0]), "tensors: "),
        (set_tensor(FLOAT, data_offsets=[1 << 40, (1 << 40) + 4]), "tensors: "),
        (set_tensor(FLOAT, data_offsets=[-4, 0]), "tensors: "),
        (set_tensor(FLOAT, data_offsets=[4, 0]), "tensors: "),
        (set_tensor(FLOAT, data_offsets=[0]), "tensors: "),
        (set_tensor(FLOAT, data_offsets="0"), "tensors: "),
        (set_tensor(FLOAT, file="/etc/passwd"), "dtype, shape and data_offsets"),
        (set_tensor(WORDS, dtype="F32"), ""),
    ],
)
def test_a_table_of_tensors_that_lies_is_refused(
    change: Callable[[Parts], None], message: str
) -> None:
    assert message in refuse(hostile.edited(GOOD, change))


def test_tensors_that_overlap_are_refused() -> None:
    def overlap(parts: Parts) -> None:
        same = [e for e in parts.table.values() if e["shape"] == [20]]
        same[1]["data_offsets"] = same[0]["data_offsets"]

    assert "tensors: " in refuse(hostile.edited(GOOD, overlap))


def test_many_tensors_on_the_same_bytes_are_refused() -> None:
    def pile(parts: Parts) -> None:
        first = next(iter(parts.table.values()))
        parts.table.update({f"copy{i}": dict(first) for i in range(1000)})

    assert "tensors: " in refuse(hostile.edited(GOOD, pile))


def test_a_hole_between_tensors_is_refused() -> None:
    def pull_apart(parts: Parts) -> None:
        last = max(parts.table.values(), key=lambda e: e["data_offsets"])
        last["data_offsets"] = [offset + 8 for offset in last["data_offsets"]]
        parts.data += bytes(8)

    assert "tensors: " in refuse(hostile.edited(GOOD, pull_apart))


def test_more_tensors_than_allowed_are_refused() -> None:
    entry = {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}

    def fill(parts: Parts) -> None:
        parts.table.update({f"t{i}": entry for i in range(modelfile.MAX_TENSORS)})

    assert "tensors, at most 65536" in refuse(hostile.edited(GOOD, fill))


def test_a_tensor_that_no_node_uses_is_refused() -> None:
    def add(parts: Parts) -> None:
        parts.table["spare"] = {
            "dtype": "F32",
            "shape": [1],
            "data_offsets": [len(parts.data), len(parts.data) + 4],
        }
        parts.data += bytes(4)

    assert "'spare' is used by no node" in refuse(hostile.edited(GOOD, add))


def replace_bytes(parts: Parts, number: int, content: bytes) -> None:
    start = list(parts.table.values())[number]["data_offsets"][0]
    parts.data = parts.data[:start] + content + parts.data[start + len(content) :]


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("number", names_of("F32"))
def test_a_float_that_is_not_finite_is_refused(number: int, value: float) -> None:
    is_threshold = list(hostile.take_apart(GOOD).table)[number].endswith("threshold")
    if is_threshold and np.isinf(value):
        pytest.skip("an infinite threshold makes a constant sign")
    content = np.float32(value).tobytes()
    refuse(hostile.edited(GOOD, lambda parts: replace_bytes(parts, number, content)))


@pytest.mark.parametrize(("name", "signs"), [("bconv2d_0.weight", 20), ("bconv2d_1.weight", 22)])
def test_every_stray_bit_of_a_binary_weight_is_refused(name: str, signs: int) -> None:
    number = list(hostile.take_apart(GOOD).table).index(name)

    def flip(parts: Parts, bit: int) -> None:
        start = parts.table[name]["data_offsets"][0]
        word = int.from_bytes(parts.data[start : start + 8], "little") ^ 1 << bit
        replace_bytes(parts, number, word.to_bytes(8, "little"))

    for bit in range(64):
        data = hostile.edited(GOOD, lambda parts, bit=bit: flip(parts, bit))
        if bit < signs:
            modelfile.from_bytes(data)
        else:
            assert f"bits set past its {signs} signs" in refuse(data)


# --- the container -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda h: h.replace(b'{"__metadata__":', b'{"__metadata__":{"bitinfer":"{}"},"x":'), ""),
        (lambda h: h.rstrip(b" }") + b'},"__metadata__":{}}', ""),
        (lambda h: h.replace(b'}"},', b'}","other":"text"},', 1), "one text named"),
        (lambda h: h.replace(b'}"},', b'}","bitinfer":"text"},', 1), "stands twice"),
        (lambda h: h.rstrip(b" }") + b'},"conv2d_0.weight":{}}}', ""),
        (lambda h: h.rstrip() + b"garbage", "not JSON"),
        (lambda h: h[:-30], ""),
        (lambda h: h.replace(b"a note", b"\xff\xfe note", 1), "not JSON"),
        (lambda h: h.replace(b"a note", rb"\ud800 note", 1), "not Unicode"),
        (lambda h: h.rstrip(b" }") + b'},"x":' + b"[" * 100_000 + b"]" * 100_000 + b"}", "deeply"),
        (lambda h: h.rstrip(b" }") + b'},"x":' + b"[1]," * 9 + b"1}", "not JSON"),
        (lambda h: h.rstrip(b" }") + b'},"x":[' + b"0," * 1_100_000 + b"1]}", "values"),
        (lambda h: h.rstrip(b" }") + b'},"x":1e999}', "too large"),
        (lambda h: h.rstrip(b" }") + b'},"x":NaN}', "NaN"),
    ],
)
def test_a_header_that_is_not_one_is_refused(
    change: Callable[[bytes], bytes], message: str
) -> None:
    changed = hostile.with_header(GOOD, change)
    assert changed != SAME
    assert message in refuse(changed)


def test_a_length_of_the_header_that_lies_is_refused() -> None:
    true = int.from_bytes(GOOD[:8], "little")
    for length in (0, 1, true - 8, true - 1, true + 1, true + 8, len(GOOD) - 8, len(GOOD) - 7):
        refuse(hostile.seal(length.to_bytes(8, "little") + GOOD[8:]))
    for length in (1 << 24, (1 << 24) + 1, 1 << 31, 1 << 32, 1 << 63, (1 << 64) - 1):
        refuse(hostile.seal(length.to_bytes(8, "little") + GOOD[8:]))


def test_a_header_longer_than_allowed_is_refused_unparsed() -> None:
    data = hostile.with_header(GOOD, lambda h: h + b" " * (modelfile.MAX_HEADER_BYTES + 1))
    assert "the header is longer than" in refuse(data)


# --- many files ----------------------------------------------------------------------------------


def attack(count: int, seed: int) -> dict[str, Any]:
    if not Path("/proc/self/statm").exists():
        pytest.skip("no /proc: memory cannot be limited to what is there and a bit")
    done = subprocess.run(
        [sys.executable, str(SCRIPT), str(count), str(seed)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout[-10_000:] + done.stderr[-3_000:]
    result = json.loads(done.stdout)
    assert result["files"] == count
    assert result["ran"] > count // 50  # many get past every check, and run
    assert result["reasons"] > 30
    assert result["slowest_s"] < 1.0
    return result


def test_two_thousand_wrong_files_load_and_run_or_are_refused(
    request: pytest.FixtureRequest,
) -> None:
    attack(2_000, request.config.getoption("--seed"))


@pytest.mark.long
def test_two_hundred_thousand_wrong_files_load_and_run_or_are_refused(
    request: pytest.FixtureRequest,
) -> None:
    for part in range(10):
        attack(20_000, request.config.getoption("--seed") + 1 + part)

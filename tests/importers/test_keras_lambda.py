"""Lambda layers: those that return what they get are left out, all other code is refused."""

from __future__ import annotations

import base64
import marshal
import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pytest

pytest.importorskip("h5py")

from keras_files import Source, functional, hdf5, layer, sequential

from bitinfer.errors import CheckpointError, ConversionError
from bitinfer.importers.foreign import Foreign
from bitinfer.importers.readers import keras
from bitinfer.importers.readers._keras_lambda import is_identity
from bitinfer.importers.simulate import simulate

STORED = {
    "3.6": "4wEAAAAAAAAAAQAAAAEAAABDAAAAcwQAAAB8AFMAKQFOqQApAdoBeHIBAAAAcgEAAAD6CDxzdHJp",
    "3.9": "4wEAAAAAAAAAAAAAAAEAAAABAAAAQwAAAHMEAAAAfABTAKkBTqkAqQHaAXhyAQAAAHIBAAAA+gg8",
    "3.11": "4wEAAAAAAAAAAAAAAAEAAAATAAAA8wYAAACXAHwAUwCpAU6pACkB2gF4cwEAAAAg+lIvdG1wL2k=",
    "3.13": "4wEAAAAAAAAAAAAAAAEAAAADAAAA8wYAAACVAFUAJACpAU6pACkB2gF4cwEAAAAg+gg8c3RyaW4=",
}
"""The beginning of ``lambda x: x`` as Pythons of these versions write it."""


def dumped(function: Callable[..., Any]) -> str:
    return base64.encodebytes(marshal.dumps(function.__code__)).decode()


@pytest.mark.parametrize("version", STORED)
def test_identity_of_other_pythons_is_known(version: str) -> None:
    data = base64.b64decode(STORED[version])
    text = base64.b64encode(data).decode()
    assert is_identity({"function": [text, None, None]})
    assert is_identity({"function": {"class_name": "__lambda__", "config": {"code": text}}})


@pytest.mark.parametrize(
    "function",
    [
        lambda x: x + 1,
        lambda x: -x,
        lambda x: x[0],
        lambda x, y: y,
        lambda x, y: x,
        lambda *x: x,
        lambda: 1,
        lambda x: print(x) or x,
    ],
)
def test_other_code_is_none(function: Callable[..., Any]) -> None:
    assert not is_identity({"function": [dumped(function), None, None]})


@pytest.mark.parametrize(
    "function",
    [
        None,
        "name",
        [],
        [None],
        ["4w=="],
        ["%"],
        {},
        {"config": 1},
        ["", None],
        [STORED["3.9"][:20]],
    ],
)
def test_what_is_no_code_is_none(function: Any) -> None:
    assert not is_identity({"function": function})


def test_arguments_and_defaults_are_none() -> None:
    code = STORED["3.11"]
    assert not is_identity({"function": [code, [1], None]})
    assert not is_identity({"function": [code, None, None], "arguments": {"y": 1}})


def test_damaged_code_ends() -> None:
    rng = random.Random(0)
    data = base64.b64decode(STORED["3.11"])
    for _ in range(2000):
        mutant = bytearray(data[: rng.randrange(len(data) + 1)])
        if mutant:
            mutant[rng.randrange(len(mutant))] = rng.randrange(256)
        is_identity({"function": [base64.b64encode(bytes(mutant)).decode()]})


def test_network_is_read_without_it() -> None:
    dense = layer("Dense", "d", units=2, activation="linear", use_bias=False)
    weights = {"d": {"kernel": np.ones((3, 2), np.float32)}}
    same = layer("Lambda", "same", function=[STORED["3.11"], None, None])
    found = keras.from_bytes(hdf5(sequential((3,), same, dense), weights))
    assert [n.operation for n in found.nodes] == ["dense"]
    other = layer("Lambda", "other", function=[dumped(lambda x: x + 1), None, None])
    with pytest.raises(ConversionError, match=r"other \(Lambda\): it is Python code"):
        keras.from_bytes(hdf5(sequential((3,), other, dense), weights))


# --- Larq Zoo's own ------------------------------------------------------------------------------

UTILS, MELIUSNET = "larq_zoo.core.utils", "larq_zoo.literature.meliusnet"


def of_zoo(name: str, module: str, *values: Any, **config: Any) -> dict[str, Any]:
    return layer("Lambda", name, function=["4w==", None, list(values)], module=module, **config)


def read(layers: Mapping[str, tuple[dict[str, Any], Sequence[Sequence[Source]]]]) -> Foreign:
    return keras.from_bytes(hdf5(functional((2, 2, 6), layers), {}))


def test_lambdas_of_larq_zoo_are_read_by_what_they_captured() -> None:
    split = of_zoo("split", UTILS, [3], {"axis": -1}, "split")
    join = of_zoo("join", UTILS, [], {"axis": -1}, "concat")
    found = read(
        {
            "split": (split, [["x"]]),
            "join": (join, [[("split", 2), "split"]]),
            "merge": (of_zoo("merge", MELIUSNET, 6), [["x", "join"]]),
        }
    )
    x = np.arange(24, dtype=np.float32).reshape(1, 2, 2, 6)
    joined = np.concatenate([x[..., 4:], x[..., :2]], axis=-1)
    wanted = x + np.pad(joined, ((0, 0), (0, 0), (0, 0), (2, 0)))
    assert np.array_equal(simulate(found, x)[found.outputs[0]], wanted)


@pytest.mark.parametrize(
    ("made", "words"),
    [
        (of_zoo("l", UTILS, [4], {"axis": -1}, "split"), "6 channels in 4 equal parts"),
        (of_zoo("l", UTILS, [0], {"axis": -1}, "split"), "6 channels in 0 equal parts"),
        (of_zoo("l", UTILS, [3], {"axis": 1}, "split"), "it is Python code"),
        (of_zoo("l", UTILS, [3], {"axis": -1}, "stack"), "it is Python code"),
        (of_zoo("l", "elsewhere", [3], {"axis": -1}, "split"), "it is Python code"),
        (of_zoo("l", UTILS, [3], {"axis": -1}, "split", arguments={"y": 1}), "it is Python code"),
        (of_zoo("l", MELIUSNET, 6), "it is Python code"),
    ],
)
def test_other_lambdas_of_larq_zoo_are_refused(made: dict[str, Any], words: str) -> None:
    with pytest.raises((CheckpointError, ConversionError), match=words):
        read({"l": (made, [["x"]])})


def test_a_result_that_a_layer_does_not_have_is_refused() -> None:
    split = of_zoo("s", UTILS, [3], {"axis": -1}, "split")
    same = layer("Lambda", "same", function=[STORED["3.11"], None, None])
    for number in (3, -1):
        with pytest.raises(CheckpointError, match=rf"reads result {number} of s, it has 3"):
            read({"s": (split, [["x"]]), "same": (same, [[("s", number)]])})

"""Lambda layers: those that return what they get are left out, all other code is refused."""

from __future__ import annotations

import base64
import marshal
import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

pytest.importorskip("h5py")

from keras_files import hdf5, layer, sequential

from bitinfer.errors import ConversionError
from bitinfer.importers.readers import keras
from bitinfer.importers.readers._keras_lambda import is_identity

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

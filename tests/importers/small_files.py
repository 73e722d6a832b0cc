"""Small files of darknet, MXNet and BNN-PYNQ, written byte by byte."""

from __future__ import annotations

import io
import json
import struct
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


def random(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


# --- darknet -------------------------------------------------------------------------------------

CFG = b"""
[net]
width=6
height=6
channels=3
[convolutional]
filters=8
size=3
pad=1
activation=leaky
# a comment
[convolutional]
xnor=1
batch_normalize=1
filters=5
size=3
stride=1
pad=1
activation=linear
[maxpool]
size=2
stride=2
[connected]
output=4
activation=linear
"""


def darknet_arrays() -> list[Array]:
    """In the order of the file: bias, scale, mean, variance, weight of each layer."""
    norm = [
        random(5, seed=2),
        random(5, seed=3),
        random(5, seed=4),
        np.abs(random(5, seed=5)) + 0.5,
    ]
    return [
        *(random(8, seed=0), random(8, 3, 3, 3, seed=1)),
        *(*norm, random(5, 8, 3, 3, seed=6)),
        *(random(4, seed=7), random(4, 45, seed=8)),
    ]


def darknet() -> tuple[bytes, bytes]:
    """The weights and the .cfg."""
    header = struct.pack("<3iQ", 0, 2, 5, 64)
    return header + b"".join(a.astype("<f4").tobytes() for a in darknet_arrays()), CFG


# --- MXNet ---------------------------------------------------------------------------------------


def params(arrays: Mapping[str, Array], magic: int | None = 0xF993FAC9) -> bytes:
    """A list of arrays; without a magic number, as the oldest files have them."""
    types = {"<f4": 0, "<f8": 1, "<f2": 2, "|u1": 3, "<i4": 4}
    data = struct.pack("<3Q", 0x112, 0, len(arrays))
    for array in arrays.values():
        if magic is not None:
            storage = struct.pack("<i", 0) if magic != 0xF993FAC8 else b""
            data += struct.pack("<I", magic) + storage
            data += struct.pack(f"<i{array.ndim}q", array.ndim, *array.shape)
        else:
            data += struct.pack(f"<I{array.ndim}I", array.ndim, *array.shape)
        data += struct.pack("<3i", 1, 0, types[array.dtype.str]) + array.tobytes()
    data += struct.pack("<Q", len(arrays))
    for name in arrays:
        text = (("aux:" if "moving" in name else "arg:") + name).encode()
        data += struct.pack("<Q", len(text)) + text
    return data


class Symbol:
    """A symbol.json, node by node; weights are found by their names."""

    def __init__(self, key: str = "attrs") -> None:
        self.key = key
        self.nodes: list[dict[str, Any]] = []
        self.add("null", "data")

    def add(self, operation: str, name: str, *inputs: str, **attributes: str) -> str:
        names = [node["name"] for node in self.nodes]
        for i in inputs:
            if i not in names:
                self.nodes.append({"op": "null", "name": i, "inputs": []})
                names.append(i)
        places = [[names.index(i), 0, 0] for i in inputs]
        node = {"op": operation, "name": name, "inputs": places}
        self.nodes.append({**node, self.key: attributes} if attributes else node)
        return name

    def text(self) -> bytes:
        return json.dumps({"nodes": self.nodes, "heads": [[len(self.nodes) - 1, 0, 0]]}).encode()


def packed(signs: Array, word: str) -> Array:
    """Signs along the last axis as words of floats, 1 for +1."""
    bits = np.packbits((signs > 0).astype(np.uint8), axis=-1, bitorder="little")
    return bits.view(word)


def bipolar(*shape: int, seed: int = 0) -> Array:
    return np.where(random(*shape, seed=seed) < 0, np.float32(-1), np.float32(1))


def mxnet() -> tuple[bytes, bytes]:
    """BMXNet v1: a packed convolution between two of floats."""
    s = Symbol()
    x = s.add("Convolution", "c0", "data", "c0_weight", "c0_bias", kernel="(3, 3)", num_filter="64")
    x = s.add(
        "BatchNorm", "n0", x, *(f"n0_{p}" for p in ("gamma", "beta", "moving_mean", "moving_var"))
    )
    x = s.add("QActivation", "q0", x, act_bit="1")
    x = s.add(
        "QConvolution",
        "c1",
        x,
        "c1_weight",
        kernel="(3, 3)",
        pad="(1, 1)",
        num_filter="4",
        no_bias="True",
    )
    x = s.add("Pooling", "p", x, pool_type="avg", global_pool="True", kernel="(1, 1)")
    x = s.add(
        "FullyConnected", "f", s.add("Flatten", "flat", x), "f_weight", "f_bias", num_hidden="3"
    )
    s.add("SoftmaxOutput", "softmax", x, "softmax_label")
    return params(mxnet_arrays()), s.text()


def mxnet_arrays() -> dict[str, Array]:
    return {
        "c0_weight": random(64, 3, 3, 3),
        "c0_bias": random(64, seed=1),
        "n0_gamma": random(64, seed=2),
        "n0_beta": random(64, seed=3),
        "n0_moving_mean": random(64, seed=4),
        "n0_moving_var": np.abs(random(64, seed=5)) + 0.5,
        "c1_weight": packed(bipolar(4 * 64 * 9, seed=6), "<f8"),
        "f_weight": random(3, 4, seed=7),
        "f_bias": random(3, seed=8),
    }


# --- BNN-PYNQ ------------------------------------------------------------------------------------


def bnn_pynq_arrays() -> dict[str, Array]:
    """Pictures of 4 x 4, padded to 24 bits; 20 hidden bits; 3 classes of 8 outputs."""
    result: dict[str, Array] = {}
    for i, (outputs, inputs) in enumerate(((20, 24), (8, 20))):
        bits = np.packbits(bipolar(outputs, inputs, seed=i).ravel() > 0, bitorder="little")
        result |= {f"w{i}_bits": bits, f"w{i}_shape": np.array([outputs, inputs])}
    result["t0"] = np.arange(20, dtype=np.int32) % 7 + 9
    result["t1"] = np.array([9, 10, 8, *[32767] * 5], np.int32)
    return result


def bnn_pynq() -> bytes:
    file = io.BytesIO()
    np.savez(file, **bnn_pynq_arrays())
    return file.getvalue()

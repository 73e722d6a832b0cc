"""A network with a node of every type, in every variety that a backend may treat differently."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bitinfer.bits import pack
from bitinfer.graph import Graph, GraphBuilder, check
from node_examples import add_missing


class Numbers:
    """Pseudo-random numbers from 64-bit integers alone: the same on every machine, for ever.

    SplitMix64 (Steele, Lea and Flood 2014, "Fast splittable pseudorandom number generators").
    """

    def __init__(self, seed: int) -> None:
        self._state = seed

    def __call__(self, *shape: int) -> NDArray[Any]:
        """Return multiples of 1/64 in [-2, 2)."""
        count = int(np.prod(shape))
        return np.array([self._next() % 256 - 128 for _ in range(count)]).reshape(shape) / 64

    def _next(self) -> int:
        mask = (1 << 64) - 1
        self._state = (self._state + 0x9E3779B97F4A7C15) & mask
        z = self._state
        z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 & mask
        z = (z ^ (z >> 27)) * 0x94D049BB133111EB & mask
        return z ^ (z >> 31)


def every_node(seed: int = 1) -> tuple[Graph, dict[str, NDArray[Any]]]:
    """Return a network of (9, 8, 3) with four outputs, one of them an inner value.

    Nodes that it lacks are appended as node_examples has them, each with an output.
    """
    r = Numbers(seed)
    b = GraphBuilder("every-node", (9, 8, 3))
    x = b.conv2d(b.input, r(20, 3, 3, 3), r(20), padding=1)
    x = b.batch_norm(x, r(20), r(20) ** 2 + 0.5, r(20), r(20))
    x = b.relu(x)
    x = b.avg_pool2d(x, 3, 2, padding=(0, 1, 1, 0), count_include_pad=False)
    x = b.batch_norm(x, r(20), r(20) ** 2 + 0.5, epsilon=1e-3)
    beside, integers = x, b.quantize(x, 1 / 16)
    beta = b.beta_map(x, kernel=3, padding=1)
    y = b.bconv2d(b.sign(x), r(66, 3, 3, 20), alpha=r(66), bias=r(66), beta=beta, padding=1)
    inner = b.max_pool2d(y, 2, 1, padding=(1, 0, 0, 1))
    signs = b.max_pool2d(b.sign(inner), (2, 1), 1, padding=(0, 1, 0, 0))
    x = b.bconv2d(
        signs,
        r(9, 2, 3, 22),
        alpha=r(9),
        stride=(1, 2),
        padding=(1, 0, 2, 1),
        dilation=(2, 1),
        groups=3,
        pad_value=-1,
    )
    x = b.avg_pool2d(x, 2, padding=(1, 0, 0, 1))
    x = b.conv2d(x, r(6, 1, 1, 3), groups=3)
    x = b.bconv2d(b.sign(x), r(70, 1, 1, 6), padding=1, pad_value=1)
    flat = b.flatten(x, "channels_first")
    beta = b.beta_map(flat)
    x = b.bdense(b.sign(flat), r(65, _length(b, flat)), alpha=r(65), bias=r(65), beta=beta)
    x = b.flatten(x, "channels_last")
    other = b.flatten(b.sign(inner), "channels_first")
    z = b.bdense(other, r(65, _length(b, inner)))
    x = b.dense(x, r(10, 65), r(10))
    z = b.dense(b.relu(z), r(10, 65) / 8)
    outputs = [b.softmax(x), z, inner, _residual_branch(b, r, beside, integers)]
    return b.build(*outputs, *add_missing(b, r, beside, 20))


def _residual_branch(b: GraphBuilder, r: Numbers, x: str, integers: str) -> str:
    """Add what residual, shuffled and gated networks have, on a map of 20 channels."""
    y = b.conv2d(integers, _integers(r, 12, 3, 3, 10), r(12), padding=1, groups=2, alpha=r(12))
    z = b.conv2d(x, pack(r(12, 1, 1, 20)), r(12), alpha=r(12))
    y = b.add(b.rprelu(y, r(12), r(12), r(12)), b.prelu(z, r(12)))
    gate = b.sigmoid(b.dense(b.global_pool2d(y), _integers(r, 12, 12), alpha=r(12) / 64))
    y = b.concat(b.multiply(y, gate), b.add(z, b.global_pool2d(z, "max")), x)
    y = b.slice_channels(b.shuffle_channels(y, 4), 3, 39)
    y = b.clip(b.pad2d(y, (1, 0, 0, 2), 0.5), -1.5, 1)
    s = b.pad2d(b.sign(y, threshold=r(36)), (0, 1, 2, 0), -1)
    y = b.bconv2d(b.max_pool2d(s, 2, 1), r(5, 2, 2, 36), alpha=r(5))
    return b.reshape(y, (1, 5, _length(b, y) // 5))


def _integers(r: Numbers, *shape: int) -> NDArray[Any]:
    return (r(*shape) * 64).astype(np.int8)


def only_windows(seed: int = 1) -> tuple[Graph, dict[str, NDArray[Any]]]:
    """Return a network in which almost any change of a window still fits."""
    r = Numbers(seed)
    b = GraphBuilder("only-windows", (7, 6, 4))
    x = b.max_pool2d(b.conv2d(b.input, r(6, 2, 3, 2), padding=1, groups=2), 2, 1)
    y = b.bconv2d(b.sign(x), r(8, 2, 2, 3), stride=2, padding=2, groups=2, pad_value=1)
    z = b.avg_pool2d(b.input, 2, 1, padding=1)
    z = b.beta_map(z, kernel=3, padding=2, groups=2)
    w = b.bconv2d(b.max_pool2d(b.sign(y), 1), r(70, 1, 1, 8), alpha=r(70), dilation=3)
    return b.build(y, z, b.relu(w))


def only_integers(seed: int = 1) -> tuple[Graph, dict[str, NDArray[Any]]]:
    """Return a network of pixels in which many changes of parameters still fit."""
    r = Numbers(seed)
    b = GraphBuilder("only-integers", (6, 7, 4), input_kind="uint8")
    x = b.conv2d(b.input, _integers(r, 8, 2, 3, 2), offset=r(4), alpha=r(8), padding=1, groups=2)
    x = b.shuffle_channels(b.slice_channels(b.concat(x, x), 2, 14), 3)
    y = b.conv2d(b.quantize(b.pad2d(x, 1, 0.5), 2), pack(r(6, 2, 2, 4)), r(6), groups=3)
    s = b.max_pool2d(b.pad2d(b.sign(b.input, threshold=r(4)), 1, -1), 2, 1, padding=1)
    z = b.clip(b.bconv2d(s, r(6, 3, 3, 4), padding=1), -2, 2)
    z = b.multiply(z, b.sigmoid(b.add(b.global_pool2d(y), b.global_pool2d(y, "max"))))
    return b.build(x, z, b.reshape(y, (6, 1, _length(b, y) // 6)))


def _length(b: GraphBuilder, name: str) -> int:
    """Return the number of elements of a value so far."""
    graph, tensors = b.build(name)
    return math.prod(check(graph, tensors).values[name].shape)


def grown(blocks: int, growth: int, channels: int = 5) -> tuple[Graph, dict[str, NDArray[Any]]]:
    """Append what a convolution makes of the signs, and add to the last channels, in turns."""
    rng = np.random.default_rng(0)
    b = GraphBuilder("grown", (3, 5, channels))
    x = b.relu(b.input)

    def made(x: str, width: int) -> str:
        signs = b.sign(x, threshold=rng.standard_normal(width))
        return b.bconv2d(signs, rng.standard_normal((growth, 3, 3, width)), padding=1)

    for _ in range(blocks):
        x = b.concat(x, made(x, channels))
        channels += growth
        y = made(x, channels)
        last = b.slice_channels(x, channels - growth, channels)
        first = b.slice_channels(x, 0, channels - growth)
        x = b.concat(first, b.add(last, y))
    return b.build(b.batch_norm(x, *np.abs(rng.standard_normal((4, channels))) + 0.5))

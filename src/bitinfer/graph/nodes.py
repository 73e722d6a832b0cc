"""The nodes: what a network is made of.  Frozen data; nothing here computes.

A graph is a list of nodes in order of execution.  Every node makes exactly one value, which bears
the node's name; ``input`` names an earlier value.  Parameters are named tensors, kept beside the
graph.  Values belong to one sample (the batch is not part of the graph) and have a kind:

    float   float32, shape (H, W, C) or (C,)
    sign    -1 or +1, same shapes; packed by the bit convention of bits.py wherever it is stored

Padding is (top, bottom, left, right); kernel, stride and dilation are (vertical, horizontal).
"""

from __future__ import annotations

from typing import Literal

import msgspec

Pair = tuple[int, int]
Padding = tuple[int, int, int, int]

NO_PADDING: Padding = (0, 0, 0, 0)


class Record(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=False):
    """Base of everything that a model file describes: immutable, unknown fields are errors."""


class Input(Record, frozen=True):
    """The input of the network: a float value; ``shape`` is (H, W, C) or (C,) of one sample."""

    name: str
    shape: tuple[int, ...]


class _Node(Record, frozen=True, tag_field="op"):
    name: str
    input: str


class Conv2d(_Node, frozen=True, tag="conv2d"):
    """Float convolution.  weight (Cout, kh, kw, Cin / groups) float32, bias (Cout,)."""

    weight: str
    bias: str | None = None
    stride: Pair = (1, 1)
    padding: Padding = NO_PADDING
    dilation: Pair = (1, 1)
    groups: int = 1


class Dense(_Node, frozen=True, tag="dense"):
    """Float matrix product of a vector.  weight (Cout, Cin) float32, bias (Cout,)."""

    weight: str
    bias: str | None = None


class BinaryConv2d(_Node, frozen=True, tag="bconv2d"):
    """Convolution of signs with signs; an exact integer, then scaled to float (numerics.py).

    weight (Cout, kh, kw, words_for(Cin / groups)) uint64; alpha, bias (Cout,) float32;
    beta names a :class:`BetaMap` value.  ``pad_value`` is what a padded tap holds: -1, 0 or +1.
    """

    weight: str
    alpha: str | None = None
    bias: str | None = None
    beta: str | None = None
    stride: Pair = (1, 1)
    padding: Padding = NO_PADDING
    dilation: Pair = (1, 1)
    groups: int = 1
    pad_value: Literal[-1, 0, 1] = 0


class BinaryDense(_Node, frozen=True, tag="bdense"):
    """Matrix product of signs with signs.  weight (Cout, words_for(Cin)) uint64.

    alpha, bias (Cout,) float32; beta names a :class:`BetaMap` value of shape (1,).
    """

    weight: str
    alpha: str | None = None
    bias: str | None = None
    beta: str | None = None


class BetaMap(_Node, frozen=True, tag="beta_map"):
    """XNOR-Net's activation scale K (Rastegari et al. 2016, section 3.2), from the float input.

    The mean of |x| over the channels of each group, box-filtered with the kernel, stride, padding
    and dilation of the convolution that it scales; padded taps are 0 and the divisor is the full
    kh * kw at the borders too.  (H, W, C) -> (Hout, Wout, groups); a vector (C,) -> (1,).
    """

    kernel: Pair = (1, 1)
    stride: Pair = (1, 1)
    padding: Padding = NO_PADDING
    dilation: Pair = (1, 1)
    groups: int = 1


class Sign(_Node, frozen=True, tag="sign"):
    """Float to sign: -1 where x < 0, else +1 (bits.py)."""


class BatchNorm(_Node, frozen=True, tag="batch_norm"):
    """BatchNorm at inference over the last axis; all parameters (C,) float32 (numerics.py)."""

    mean: str
    variance: str
    gamma: str | None = None
    beta: str | None = None
    epsilon: float = 1e-5


class Relu(_Node, frozen=True, tag="relu"):
    """Maximum of x and 0."""


class MaxPool2d(_Node, frozen=True, tag="max_pool2d"):
    """Maximum over a window, of floats or signs; padded taps never win."""

    kernel: Pair
    stride: Pair
    padding: Padding = NO_PADDING


class AvgPool2d(_Node, frozen=True, tag="avg_pool2d"):
    """Mean over a window.

    ``count_include_pad``: the divisor is the whole window (padded taps are 0), as PyTorch's
    default; otherwise only the taps inside the map count, as TensorFlow's.
    """

    kernel: Pair
    stride: Pair
    padding: Padding = NO_PADDING
    count_include_pad: bool = True


class Flatten(_Node, frozen=True, tag="flatten"):
    """(H, W, C) -> (H * W * C,), of floats or signs.

    ``channels_last``: index (y * W + x) * C + c, as TensorFlow's; ``channels_first``:
    (c * H + y) * W + x, as PyTorch's.
    """

    order: Literal["channels_first", "channels_last"]


class Softmax(_Node, frozen=True, tag="softmax"):
    """Softmax of a vector."""


Node = (
    Conv2d
    | Dense
    | BinaryConv2d
    | BinaryDense
    | BetaMap
    | Sign
    | BatchNorm
    | Relu
    | MaxPool2d
    | AvgPool2d
    | Flatten
    | Softmax
)


class Graph(Record, frozen=True):
    """A network: one input, nodes in order of execution, and the names of its outputs."""

    name: str
    input: Input
    nodes: tuple[Node, ...]
    outputs: tuple[str, ...]


def node_inputs(node: Node) -> tuple[str, ...]:
    """Return the names of the values that ``node`` reads."""
    if isinstance(node, BinaryConv2d | BinaryDense) and node.beta is not None:
        return (node.input, node.beta)
    return (node.input,)


def node_tensors(node: Node) -> tuple[str, ...]:
    """Return the names of the tensors that ``node`` reads."""
    match node:
        case Conv2d() | Dense():
            names = (node.weight, node.bias)
        case BinaryConv2d() | BinaryDense():
            return tuple(n for n in (node.weight, node.alpha, node.bias) if n is not None)
        case BatchNorm():
            return tuple(
                n for n in (node.mean, node.variance, node.gamma, node.beta) if n is not None
            )
        case _:
            return ()
    return tuple(n for n in names if n is not None)

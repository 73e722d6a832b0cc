"""The nodes: what a network is made of.  Frozen data; nothing here computes.

A graph is a list of nodes in order of execution.  Every node makes a value, which bears the
node's name; ``input`` names an earlier value.  Parameters are named tensors, kept beside the graph.
Values belong to one sample (the batch is not part of the graph) and have a kind:

    float   float32, shape (H, W, C) or (C,)
    sign    -1 or +1, same shapes; packed by the bit convention of bits.py wherever it is stored
    uint8, int8   integers, same shapes: pixels, quantised activations

Padding is (top, bottom, left, right); kernel, stride and dilation are (vertical, horizontal).

What passes fuse into a layer is its :class:`Epilogue`; a model file holds none.
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
    """The input of the network; ``shape`` is (H, W, C) or (C,) of one sample.

    A float input takes pixels too, normalised as the model file says; a uint8 input takes pixels as
    they are, and the first layer does the normalising (:class:`Conv2d`, ``offset``).
    """

    name: str
    shape: tuple[int, ...]
    kind: Literal["float", "uint8"] = "float"


class Activation(Record, frozen=True):
    """What is applied last to a float result, per channel (numerics.activate)."""

    kind: Literal["relu", "prelu", "rprelu", "clip", "sigmoid"]
    shift_in: str | None = None
    slope: str | None = None
    shift_out: str | None = None
    low: float = 0.0
    high: float = 0.0


class Epilogue(Record, frozen=True):
    """What becomes of the scaled sums of a layer, fused into it by passes; each where given.

        y = max(sum, floor)
        y = y * alpha * beta + bias + residual        (alpha, beta, bias: of the layer itself)
        y = activation(y)
        sign = -1 where (y < threshold) != flip, else +1

    All tensors are (Cout,): floor float32, flip uint8 (0 or 1).  An int32 ``threshold`` compares
    the integer sum, and nothing else of the above may then be there; a float32 one compares y.
    With a threshold the value of the node is the sign, unless ``signs`` names a second value for
    it.
    """

    floor: str | None = None
    residual: str | None = None
    activation: Activation | None = None
    threshold: str | None = None
    flip: str | None = None
    signs: str | None = None


class _Node(Record, frozen=True, tag_field="op"):
    name: str
    input: str


class Conv2d(_Node, frozen=True, tag="conv2d"):
    """Convolution that is not binary on both sides; padded taps contribute 0.

    weight (Cout, kh, kw, Cin / groups) float32, int16 or int8, or signs packed to (Cout, kh, kw,
    words_for(Cin / groups)) uint64; alpha, bias (Cout,) float32.  ``y = sum * alpha + bias``.

    The sum of a float value is float32.  The sum of a uint8 or int8 value, whose weight is not
    float32, is an exact integer; from every element inside the map the float32 ``offset`` (Cin,) of
    its channel is subtracted, which is how a mean is taken off pixels.
    """

    weight: str
    bias: str | None = None
    stride: Pair = (1, 1)
    padding: Padding = NO_PADDING
    dilation: Pair = (1, 1)
    groups: int = 1
    alpha: str | None = None
    offset: str | None = None
    epilogue: Epilogue | None = None


class Dense(_Node, frozen=True, tag="dense"):
    """Matrix product with a vector.  weight (Cout, Cin) or (Cout, words_for(Cin)).

    Types, sums, alpha and bias as of :class:`Conv2d`.
    """

    weight: str
    bias: str | None = None
    alpha: str | None = None
    epilogue: Epilogue | None = None


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
    epilogue: Epilogue | None = None


class BinaryDense(_Node, frozen=True, tag="bdense"):
    """Matrix product of signs with signs.  weight (Cout, words_for(Cin)) uint64.

    alpha, bias (Cout,) float32; beta names a :class:`BetaMap` value of shape (1,).
    """

    weight: str
    alpha: str | None = None
    bias: str | None = None
    beta: str | None = None
    epilogue: Epilogue | None = None


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
    """Number to sign: -1 where (x < threshold) != flip, else +1 (bits.py).

    threshold (C,) float32, 0 if None: ReActNet's RSign, sign(x + b), has the threshold -b.
    flip (C,) uint8, 0 or 1.
    """

    threshold: str | None = None
    flip: str | None = None


class Quantize(_Node, frozen=True, tag="quantize"):
    """Float to int8: x / scale, rounded half to even, between -128 and 127."""

    scale: float


class BatchNorm(_Node, frozen=True, tag="batch_norm"):
    """BatchNorm at inference over the last axis; all parameters (C,) float32 (numerics.py)."""

    mean: str
    variance: str
    gamma: str | None = None
    beta: str | None = None
    epsilon: float = 1e-5


class Relu(_Node, frozen=True, tag="relu"):
    """Maximum of x and 0."""


class Clip(_Node, frozen=True, tag="clip"):
    """Between low and high; hardtanh has -1 and 1."""

    low: float
    high: float


class PRelu(_Node, frozen=True, tag="prelu"):
    """``x if x >= 0 else x * slope``; slope (C,) float32."""

    slope: str


class RPRelu(_Node, frozen=True, tag="rprelu"):
    """ReActNet's ``prelu(x + shift_in) + shift_out``; all (C,) float32 (Liu et al. 2020, eq. 4)."""

    shift_in: str
    slope: str
    shift_out: str


class Sigmoid(_Node, frozen=True, tag="sigmoid"):
    """``1 / (1 + exp(-x))``."""


class Add(_Node, frozen=True, tag="add"):
    """Sum of two float values of one shape; ``other`` may be (C,), added at every pixel."""

    other: str


class Multiply(_Node, frozen=True, tag="multiply"):
    """Product of two float values; shapes as of :class:`Add`."""

    other: str


class Concat(_Node, frozen=True, tag="concat"):
    """The channels of several float values of the same height and width, one after the other."""

    others: tuple[str, ...]


class SliceChannels(_Node, frozen=True, tag="slice_channels"):
    """The channels of a float value from ``begin`` up to ``end``."""

    begin: int
    end: int


class ShuffleChannels(_Node, frozen=True, tag="shuffle_channels"):
    """Channel g * (C / groups) + i of a float value becomes channel i * groups + g (ShuffleNet)."""

    groups: int


class Pad2d(_Node, frozen=True, tag="pad2d"):
    """A border of ``value`` around a map, of floats, or of signs (``value`` -1 or +1)."""

    padding: Padding
    value: float = 0.0


class MaxPool2d(_Node, frozen=True, tag="max_pool2d"):
    """Maximum over a window, of floats or signs; padded taps never win.

    ``minimum`` (C,) uint8: where it is 1, the minimum of the signs is taken instead.  Passes make
    such channels when they move a pool behind a comparison that falls as its input rises.
    """

    kernel: Pair
    stride: Pair
    padding: Padding = NO_PADDING
    minimum: str | None = None


class AvgPool2d(_Node, frozen=True, tag="avg_pool2d"):
    """Mean over a window.

    ``count_include_pad``: the divisor is the whole window (padded taps are 0), as PyTorch's
    default; otherwise only the taps inside the map count, as TensorFlow's.
    """

    kernel: Pair
    stride: Pair
    padding: Padding = NO_PADDING
    count_include_pad: bool = True


class GlobalPool2d(_Node, frozen=True, tag="global_pool2d"):
    """Mean or maximum of every channel of a float map: (H, W, C) -> (C,)."""

    mode: Literal["mean", "max"] = "mean"


class Flatten(_Node, frozen=True, tag="flatten"):
    """(H, W, C) -> (H * W * C,), of floats or signs.

    ``channels_last``: index (y * W + x) * C + c, as TensorFlow's; ``channels_first``:
    (c * H + y) * W + x, as PyTorch's.
    """

    order: Literal["channels_first", "channels_last"]


class Reshape(_Node, frozen=True, tag="reshape"):
    """Another shape for the same float elements in the same order, channels last."""

    shape: tuple[int, ...]


class Softmax(_Node, frozen=True, tag="softmax"):
    """Softmax of a vector."""


Node = (
    Conv2d
    | Dense
    | BinaryConv2d
    | BinaryDense
    | BetaMap
    | Sign
    | Quantize
    | BatchNorm
    | Relu
    | Clip
    | PRelu
    | RPRelu
    | Sigmoid
    | Add
    | Multiply
    | Concat
    | SliceChannels
    | ShuffleChannels
    | Pad2d
    | MaxPool2d
    | AvgPool2d
    | GlobalPool2d
    | Flatten
    | Reshape
    | Softmax
)

Layer = Conv2d | Dense | BinaryConv2d | BinaryDense
"""The nodes that have weights, and may have an :class:`Epilogue`."""


class Graph(Record, frozen=True):
    """A network: one input, nodes in order of execution, and the names of its outputs."""

    name: str
    input: Input
    nodes: tuple[Node, ...]
    outputs: tuple[str, ...]


def node_inputs(node: Node) -> tuple[str, ...]:
    """Return the names of the values that ``node`` reads."""
    beta = node.beta if isinstance(node, BinaryConv2d | BinaryDense) else None
    match node:
        case Conv2d() | Dense() | BinaryConv2d() | BinaryDense():
            residual = None if node.epilogue is None else node.epilogue.residual
            return tuple(n for n in (node.input, beta, residual) if n is not None)
        case Add() | Multiply():
            return (node.input, node.other)
        case Concat():
            return (node.input, *node.others)
        case _:
            return (node.input,)


def node_values(node: Node) -> tuple[str, ...]:
    """Return the names of the values that ``node`` makes: its own, and its signs beside it."""
    epilogue = node.epilogue if isinstance(node, Layer) else None
    return (
        (node.name,) if epilogue is None or epilogue.signs is None else (node.name, epilogue.signs)
    )


def node_tensors(node: Node) -> tuple[str, ...]:
    """Return the names of the tensors that ``node`` reads."""
    names: tuple[str | None, ...] = ()
    match node:
        case Conv2d():
            names = (node.weight, node.alpha, node.bias, node.offset)
        case Dense() | BinaryConv2d() | BinaryDense():
            names = (node.weight, node.alpha, node.bias)
        case BatchNorm():
            names = (node.mean, node.variance, node.gamma, node.beta)
        case Sign():
            names = (node.threshold, node.flip)
        case PRelu():
            names = (node.slope,)
        case RPRelu():
            names = (node.shift_in, node.slope, node.shift_out)
        case MaxPool2d():
            names = (node.minimum,)
    if isinstance(node, Layer) and node.epilogue is not None:
        names += _epilogue_tensors(node.epilogue)
    return tuple(n for n in names if n is not None)


def _epilogue_tensors(epilogue: Epilogue) -> tuple[str | None, ...]:
    a = epilogue.activation
    of_activation = () if a is None else (a.shift_in, a.slope, a.shift_out)
    return (epilogue.floor, *of_activation, epilogue.threshold, epilogue.flip)


ActivationNode = Relu | Clip | PRelu | RPRelu | Sigmoid
"""The nodes that may become the activation of a layer's epilogue."""


def as_activation(node: ActivationNode) -> Activation:
    """Return what an activation node does, as part of an epilogue."""
    match node:
        case Relu():
            return Activation("relu")
        case Clip():
            return Activation("clip", low=node.low, high=node.high)
        case PRelu():
            return Activation("prelu", slope=node.slope)
        case RPRelu():
            return Activation(
                "rprelu", shift_in=node.shift_in, slope=node.slope, shift_out=node.shift_out
            )
        case Sigmoid():
            return Activation("sigmoid")

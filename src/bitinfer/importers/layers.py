"""Convolutions and dense layers of a foreign graph: binary or not, why, and what is written."""

from __future__ import annotations

import dataclasses
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from bitinfer import bits
from bitinfer.bits import Floats
from bitinfer.errors import CheckpointError, ConversionError
from bitinfer.graph.nodes import NO_PADDING, Padding, Pair
from bitinfer.importers import binary
from bitinfer.importers.binary import Levels, Refusal, Split
from bitinfer.importers.foreign import ForeignNode
from bitinfer.importers.layer import Decision, Layer, outcome_of
from bitinfer.importers.levels import of_two_levels, two_levels
from bitinfer.importers.outcome import Finding
from bitinfer.importers.pending import Pending, Writer

LONG = 16
"""Weights per filter from which bits are worth it where the input is numbers: below, a word of 64
bits is hardly filled, and one weight always has "one size"."""


def integers(node: ForeignNode, name: str) -> tuple[int, ...]:
    """Return an attribute that holds whole numbers."""
    value = node.attributes[name]
    if not isinstance(value, tuple) or not all(isinstance(n, int) for n in value):
        raise CheckpointError(f"{name} is {value!r}, wanted whole numbers")
    return value


def pair(node: ForeignNode, name: str) -> Pair:
    """Return an attribute of two numbers."""
    value = integers(node, name)
    if len(value) != 2:
        raise CheckpointError(f"{name} is {value}, wanted two numbers")
    return (value[0], value[1])


def sides(node: ForeignNode) -> Padding:
    """Return the attribute ``pads``."""
    value = integers(node, "pads")
    if len(value) != 4:
        raise CheckpointError(f"pads is {value}, wanted (top, bottom, left, right)")
    return (value[0], value[1], value[2], value[3])


def pooled(
    shape: tuple[int, ...], kernel: Pair, stride: Pair, pads: Padding, dilation: Pair = (1, 1)
) -> tuple[int, ...]:
    """Return the shape of a map that windows have gone over."""
    if len(shape) != 3 or min(stride) < 1:
        raise CheckpointError(f"windows with strides {stride} over a value of shape {shape}")
    result = []
    for axis in (0, 1):
        side = shape[axis] + pads[2 * axis] + pads[2 * axis + 1]
        reach = dilation[axis] * (kernel[axis] - 1) + 1
        if side < reach:
            raise CheckpointError(f"a window of {reach} pixels over {side}")
        result.append((side - reach) // stride[axis] + 1)
    return (*result, shape[2])


def _arranged(weight: NDArray[Any], axes: object, wanted: str) -> Floats:
    if not isinstance(axes, str) or sorted(axes) != sorted(wanted) or weight.ndim != len(wanted):
        raise CheckpointError(f"a weight of shape {weight.shape} with the axes {axes}")
    if weight.dtype.kind == "b":
        weight = weight.astype(np.float32)
    arranged = weight.transpose([axes.index(letter) for letter in wanted])
    return np.ascontiguousarray(arranged, dtype=np.float32)


def _flat_bias(bias: NDArray[Any] | None, outputs: int) -> Floats | None:
    if bias is None:
        return None
    if bias.size != outputs:
        raise CheckpointError(f"a bias of shape {bias.shape} for {outputs} outputs")
    return bias.reshape(-1).astype(np.float32)


def _counts_agreements(node: ForeignNode) -> bool:
    counts = node.attributes["counts"]
    if counts not in ("sums", "agreements"):
        raise CheckpointError(f"counts is {counts!r}, wanted sums or agreements")
    return counts == "agreements"


def as_conv(node: ForeignNode, weight: NDArray[Any], bias: NDArray[Any] | None) -> Layer:
    """Return a node ``conv``, its weight in our order."""
    arranged = _arranged(weight, node.attributes["axes"], "OHWI")
    groups, pad_value = node.attributes["groups"], node.attributes["pad_value"]
    assert isinstance(groups, int)
    return Layer(
        node.name,
        arranged,
        _flat_bias(bias, len(arranged)),
        pair(node, "strides"),
        sides(node),
        float(pad_value),  # type: ignore[arg-type]
        pair(node, "dilations"),
        groups,
        _counts_agreements(node),
    )


def as_dense(node: ForeignNode, weight: NDArray[Any], bias: NDArray[Any] | None) -> Layer:
    """Return a node ``dense``, its weight in our order."""
    arranged = _arranged(weight, node.attributes["axes"], "OI")
    bias = _flat_bias(bias, len(arranged))
    return Layer(node.name, arranged, bias, counts_agreements=_counts_agreements(node))


def decide(layer: Layer, x: Pending, write: Writer, norm: tuple[Floats, Floats] | None) -> Decision:
    """Return what ``layer`` becomes with the input ``x``.

    ``norm`` is scale and shift of the BatchNorm whose signs ``x`` holds, if it does.
    """
    expected = layer.weight.shape[-1] * layer.groups
    if layer.groups < 1 or expected != x.channels:
        raise CheckpointError(
            f"a weight for {expected} channels, the value has {x.channels} of them"
        )
    x = write.settled(x)
    if layer.is_conv:
        x, layer = _with_border(x, layer, write)
    shape: tuple[int, ...] = (len(layer.weight),)
    if layer.is_conv:
        kernel = (layer.weight.shape[1], layer.weight.shape[2])
        shape = (
            *pooled(x.shape, kernel, layer.stride, layer.padding, layer.dilation)[:2],
            *shape,
        )
    if x.levels is None:
        if layer.counts_agreements:
            raise ConversionError("agreements are counted of signs, and the input is numbers")
        return _of_numbers(layer, x, write, shape)
    split = binary.split_weight(layer.weight)
    sign = _pad_sign(layer, x.levels)
    if isinstance(split, Split) and not isinstance(sign, Refusal):
        return _of_signs(layer, x, write, split, sign, shape, norm)
    levels = two_levels(layer, split)
    if levels is not None:
        return of_two_levels(layer, x, write, levels, shape)
    refusal = split if isinstance(split, Refusal) else sign
    assert isinstance(refusal, Refusal)
    if layer.counts_agreements:
        raise ConversionError(f"agreements of what is not binary: {refusal.reason}")
    decision = _of_numbers(layer, write.numbers(x), write, shape)
    reason = f"input is binary, but {refusal.reason}"
    outcome = dataclasses.replace(
        decision.outcome, reason=reason, mend=refusal.mend, half_binary=True
    )
    return dataclasses.replace(decision, outcome=outcome)


def _pad_sign(layer: Layer, levels: Levels) -> Literal[-1, 0, 1] | Refusal:
    if layer.padding == NO_PADDING:
        return 0
    sign = binary.pad_value(layer.pad_value, levels)
    if sign == 0 and layer.counts_agreements:
        return Refusal("a border of 0 agrees with nothing")
    return sign


def _with_border(x: Pending, layer: Layer, write: Writer) -> tuple[Pending, Layer]:
    """Let the layer pad its input itself, as far as one value fills the border."""
    if not x.is_padded:
        return x, layer
    if layer.padding == NO_PADDING or layer.pad_value == x.pad_value:
        a, b, c, d = (p + q for p, q in zip(x.padding, layer.padding, strict=True))
        layer = dataclasses.replace(layer, padding=(a, b, c, d), pad_value=x.pad_value)
        return dataclasses.replace(x, padding=NO_PADDING), layer
    return write.bordered(x), layer


def _of_signs(
    layer: Layer,
    x: Pending,
    write: Writer,
    split: Split,
    pad_value: Literal[-1, 0, 1],
    shape: tuple[int, ...],
    norm: tuple[Floats, Floats] | None,
) -> Decision:
    assert x.levels is not None
    affine = x.levels.dot(split.signs)
    if layer.counts_agreements:
        affine = binary.agreements(layer.length)
    scale, bias = affine.before(split.alpha, layer.bias)
    alpha = None if np.all(scale == 1) else scale

    def written(name: str, bias: Floats | None, beta: str | None) -> str:
        if not layer.is_conv:
            return write.b.bdense(x.name, split.signs, alpha=alpha, bias=bias, beta=beta, name=name)
        return write.b.bconv2d(
            x.name,
            split.signs,
            alpha=alpha,
            bias=bias,
            beta=beta,
            stride=layer.stride,
            padding=layer.padding,
            dilation=layer.dilation,
            groups=layer.groups,
            pad_value=pad_value,
            name=name,
        )

    reason = "input is binary, and weights are ±alpha"
    outcome = outcome_of(layer, "binary", reason, findings=_of_zeros(x, split, norm))
    return Decision(outcome, shape, bias, written)


def _of_zeros(x: Pending, split: Split, norm: tuple[Floats, Floats] | None) -> tuple[Finding, ...]:
    """Return the zeros that the source knows and bits do not, of weights and of the input."""
    found: tuple[Finding, ...] = ()
    if split.zeros:
        text = "weights of exactly 0 packed as +1, which the source multiplies by 0"
        found = (Finding("zero weights", split.zeros, text),)
    if x.at_zero == 0 and norm is not None:
        _, shift = norm
        zeros = shift.size - int(np.count_nonzero(shift))
        if zeros:
            text = "input channels where BatchNorm maps 0 to 0: sign +1 here, 0 in the source"
            found = (*found, Finding("sign of zero", zeros, text))
    return found


def _of_numbers(layer: Layer, x: Pending, write: Writer, shape: tuple[int, ...]) -> Decision:
    if layer.pad_value != 0 and layer.padding != NO_PADDING:
        border = dataclasses.replace(x, padding=layer.padding, pad_value=layer.pad_value)
        x = write.bordered(border)
        layer = dataclasses.replace(layer, padding=NO_PADDING)
    split = binary.split_weight(layer.weight)
    alpha: Floats | None = None
    weight: Floats | bits.BitTensor = layer.weight
    if isinstance(split, Split) and (layer.length >= LONG or x.step is not None):
        scale = split.alpha * np.float32(1 if x.step is None else x.step)
        alpha = None if np.all(scale == 1) else scale
        weight = bits.pack(split.signs)
        outcome = outcome_of(
            layer,
            "binary weights",
            f"weights are ±alpha, and input {'is real' if x.step is None else 'has 8 bits'}",
            "a sign before it",
            _of_zeros(x, split, None),
        )
    else:
        x = write.numbers(x)
        why = split.reason if isinstance(split, Refusal) else f"filters have {layer.length} weights"
        mend = "a sign before it, and weights of one size per filter"
        outcome = outcome_of(layer, "float", f"input is real, and {why}", mend)
        outcome = dataclasses.replace(outcome, half_binary=isinstance(split, Split))

    def written(name: str, bias: Floats | None, beta: str | None) -> str:
        if beta is not None:
            raise ConversionError("a beta map is there only behind a binary layer")
        if not layer.is_conv:
            return write.b.dense(x.name, weight, bias, alpha=alpha, name=name)
        return write.b.conv2d(
            x.name,
            weight,
            bias,
            alpha=alpha,
            stride=layer.stride,
            padding=layer.padding,
            dilation=layer.dilation,
            groups=layer.groups,
            name=name,
        )

    return Decision(outcome, shape, layer.bias, written)

"""Binary layers whose weights have two values per filter, or whose border is none of the levels.

With inputs ``c + s u`` and weights ``b[o] + a[o] v``, where u and v are -1 or +1, and c, s, a, b
numbers, and taps of the value p around the map,

    sum = s a dot(u, v) + s b sum(u) + p sum(w) + (c - p) sum over taps inside the map of w

where w is the weight itself.  The first term is a binary layer with a border of 0.  The others are
a convolution of two maps: the sum of the signs at each pixel, and ones, which tell taps inside the
map from those outside.  So the result is exact at borders too (AdaBin, Tu et al. 2022, section 3.3,
leaves them out).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from bitinfer.bits import Floats
from bitinfer.errors import ConversionError
from bitinfer.graph.nodes import NO_PADDING
from bitinfer.importers.binary import Refusal, Split, TwoLevels, split_levels
from bitinfer.importers.layer import Decision, Layer, outcome_of
from bitinfer.importers.pending import Pending, Writer

Doubles = NDArray[np.float64]


def two_levels(layer: Layer, split: Split | Refusal) -> TwoLevels | None:
    """Return the two values of every filter; None where there is no way to write the layer so."""
    if layer.groups != 1 or layer.counts_agreements:
        return None
    if isinstance(split, Split):
        if split.zeros:
            return None
        return TwoLevels(split.signs, split.alpha.astype(np.float64), np.zeros(len(split.alpha)))
    return split_levels(layer.weight)


def of_two_levels(
    layer: Layer, x: Pending, write: Writer, two: TwoLevels, shape: tuple[int, ...]
) -> Decision:
    """Return what such a layer becomes; ``x`` is signs."""
    assert x.levels is not None
    centre, scale = x.levels.centre, x.levels.scale
    is_padded = layer.padding != NO_PADDING
    border = layer.pad_value if is_padded else centre
    column = (-1, *(1,) * (layer.weight.ndim - 1))
    weight = two.centre.reshape(column) + two.scale.reshape(column) * two.signs
    taps = weight.sum(axis=-1)
    constant = border * taps.reshape(len(taps), -1).sum(axis=1)
    bias = (constant if layer.bias is None else constant + layer.bias).astype(np.float32)
    alpha = (scale * two.scale).astype(np.float32)
    of_signs = (scale * two.centre) if two.centre.any() else None
    of_ones = (centre - border) * taps if is_padded and centre != border else None

    def written(name: str, bias: Floats | None, beta: str | None) -> str:
        if beta is not None:
            raise ConversionError("a beta map is there only where weights are ±alpha")
        if of_signs is None and of_ones is None:
            return _dot(layer, x, write, two.signs, alpha, bias, name)
        dot = _dot(layer, x, write, two.signs, alpha, bias, write.name(f"{name}.dot"))
        rest = _rest(layer, x, write, name, of_signs, of_ones)
        return write.b.add(dot, rest, name=name)

    reason = "input is binary, and weights have two values per filter"
    return Decision(outcome_of(layer, "binary", reason), shape, bias, written)


def _dot(
    layer: Layer,
    x: Pending,
    write: Writer,
    signs: Floats,
    alpha: Floats,
    bias: Floats | None,
    name: str,
) -> str:
    if not layer.is_conv:
        return write.b.bdense(x.name, signs, alpha=alpha, bias=bias, name=name)
    return write.b.bconv2d(
        x.name,
        signs,
        alpha=alpha,
        bias=bias,
        stride=layer.stride,
        padding=layer.padding,
        dilation=layer.dilation,
        name=name,
    )


def _rest(
    layer: Layer,
    x: Pending,
    write: Writer,
    name: str,
    of_signs: Doubles | None,
    of_ones: Doubles | None,
) -> str:
    """Write what the signs' sums and the border add."""
    b = write.b
    at = write.name(f"{name}.sums")
    if not layer.is_conv:
        assert of_signs is not None
        sums = b.bdense(x.name, np.ones((1, x.channels), np.float32), name=at)
        return b.dense(sums, of_signs.reshape(-1, 1), name=write.name(f"{name}.levels"))
    sums = b.bconv2d(x.name, np.ones((1, 1, 1, x.channels), np.float32), name=at)
    maps: list[str] = []
    kernels: list[Doubles] = []
    kernel = layer.weight.shape[1:3]
    if of_signs is not None:
        maps.append(sums)
        kernels.append(np.broadcast_to(of_signs.reshape(-1, 1, 1), (len(of_signs), *kernel)))
    if of_ones is not None:
        maps.append(b.clip(sums, 1.0, 1.0, name=write.name(f"{name}.ones")))
        kernels.append(of_ones)
    both = maps[0] if len(maps) == 1 else b.concat(*maps, name=write.name(f"{name}.maps"))
    return b.conv2d(
        both,
        np.stack(kernels, axis=-1),
        stride=layer.stride,
        padding=layer.padding,
        dilation=layer.dilation,
        name=write.name(f"{name}.levels"),
    )

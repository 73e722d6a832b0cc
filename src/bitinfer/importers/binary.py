"""What makes a layer binary, in the terms of every framework: pure functions on arrays.

A binary layer is, for output channel o,

    y[o] = alpha[o] * dot(signs[o], x) + bias[o],        signs, x in {-1, +1}

Frameworks store it as real weights of which only the signs count (:class:`MeanScale`), as weights
that are +-alpha already (:func:`split_weight`), with values {0, 1} in place of {-1, +1}
(:class:`Levels`), with counts of agreements in place of dot products (:func:`agreements`), with
other signs at exactly 0 (:class:`SignRule`) and with other values around the map
(:func:`pad_value`).  Each is an affine function of the dot product above, or is refused in words.
"""

from __future__ import annotations

import dataclasses
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from bitinfer.bits import Floats
from bitinfer.importers.outcome import Finding

SAME_SIZE = 1e-5
"""Largest relative difference between weights of one filter that count as one alpha.

torch.onnx folds a BatchNorm into +-alpha with 1.3e-7; ``alpha * sign(w) - w + w`` rounds to 1e-6;
weights of 2 bits differ by a third.
"""

FEW_ZEROS = 0.01
"""Largest share of weights that may be exactly 0 beside +-alpha: more is a ternary layer.

XNOR-Net's centring leaves single zeros (util.py, torch.sign); Larq's SteTern and TWN leave a third.
"""


@dataclasses.dataclass(frozen=True)
class Refusal:
    """Why something is not binary, and what would make it so (empty where nothing would)."""

    reason: str
    mend: str = ""


@dataclasses.dataclass(frozen=True, eq=False)
class Split:
    """A weight as signs and sizes.

    Attributes:
        signs: +-1 as float32, of the weight's shape; +1 where the weight is 0.
        alpha: (Cout,) float32, at least 0.
        zeros: how many weights are 0 in filters whose alpha is not.
    """

    signs: Floats
    alpha: Floats
    zeros: int = 0


def split_weight(weight: Floats) -> Split | Refusal:
    """Return the signs and the one size of every filter, or why a filter has more than one.

    Shapes:  weight (Cout, ...), any real type  ->  signs of the same shape, alpha (Cout,).
    Meaning: ``alpha[o] * signs[o]`` is ``weight[o]`` to SAME_SIZE, but for the zeros that are
             counted.  Where all sizes of a filter are equal, alpha is that size, bit for bit;
             otherwise their mean, summed in float64.  A filter of zeros has alpha 0.
    """
    sizes = np.abs(weight.reshape(len(weight), -1).astype(np.float64))
    if sizes.size == 0 or not np.isfinite(sizes).all():
        return Refusal("weights are missing, NaN or infinite")
    largest = sizes.max(axis=1, keepdims=True)
    is_zero = sizes == 0
    smallest = np.where(is_zero, largest, sizes).min(axis=1, keepdims=True)
    differs = (largest - smallest > SAME_SIZE * largest)[:, 0]
    if differs.any():
        return Refusal(
            f"weights are not ±alpha: {np.count_nonzero(differs)} of {len(weight)} filters have "
            f"weights of several sizes",
            "binarise the weights before the export: one size per filter",
        )
    zeros = int(np.count_nonzero(is_zero & (largest > 0)))
    if zeros > FEW_ZEROS * sizes.size:
        return Refusal(
            f"weights are ternary: {zeros} of {sizes.size} are 0 beside ±alpha",
            "train with weights of two values, -alpha and +alpha",
        )
    count = np.maximum((~is_zero).sum(axis=1), 1)
    mean = sizes.sum(axis=1) / count
    alpha = np.where(largest == smallest, largest, mean[:, None])[:, 0].astype(np.float32)
    return Split(np.where(weight < 0, np.float32(-1), np.float32(1)), alpha, zeros)


@dataclasses.dataclass(frozen=True, eq=False)
class TwoLevels:
    """A weight whose filters have two values each: ``centre[o] +- scale[o]``.

    Attributes:
        signs: +-1 as float32, of the weight's shape; +1 for the larger value.
        scale, centre: (Cout,) float64; the scale is at least 0.
    """

    signs: Floats
    scale: NDArray[np.float64]
    centre: NDArray[np.float64]


def split_levels(weight: Floats) -> TwoLevels | None:
    """Return the two values of every filter; None if one has more.

    Shapes:  weight (Cout, ...)  ->  signs of the same shape, scale and centre (Cout,).
    Meaning: values count as equal within SAME_SIZE of the filter's largest (AdaBin, Tu et al. 2022,
             equations 3 and 7: a filter's values are its mean +- its standard deviation).
    """
    rows = weight.reshape(len(weight), -1).astype(np.float64)
    if rows.size == 0 or not np.isfinite(rows).all():
        return None
    low, high = rows.min(axis=1, keepdims=True), rows.max(axis=1, keepdims=True)
    close = SAME_SIZE * np.maximum(np.abs(low), np.abs(high))
    is_high = rows - low > high - rows
    if (np.minimum(rows - low, high - rows) > close).any():
        return None
    signs = np.where(is_high, np.float32(1), np.float32(-1)).reshape(weight.shape)
    return TwoLevels(signs, ((high - low) / 2)[:, 0], ((high + low) / 2)[:, 0])


@dataclasses.dataclass(frozen=True)
class MeanScale:
    """XNOR-Net's way from real weights to signs and alpha, in its three variants.

    ``alpha[o] = mean |W[o]|`` (Rastegari et al. 2016, equation 6), after centring (the mean over
    the input channels is subtracted at every tap), then clipping to [-1, 1], where they are done.
    """

    centred: bool = False
    clipped: bool = False

    def split(self, weight: Floats) -> tuple[Floats, Floats]:
        """Return the weights whose signs count, and alpha.

        Shapes:  weight (Cout, Cin, ...)  ->  the same, (Cout,).
        Meaning: means are summed in float64 and rounded once to float32: the value that every order
                 of float32 summation approximates.
        """
        with np.errstate(all="ignore"):  # an overflow is clipped, or found by who checks the graph
            if self.centred:
                centre = weight.mean(axis=1, keepdims=True, dtype=np.float64).astype(np.float32)
                weight = weight - centre
            if self.clipped:
                weight = np.clip(weight, np.float32(-1), np.float32(1))
            rest = tuple(range(1, weight.ndim))
            alpha = np.abs(weight).mean(axis=rest, dtype=np.float64).astype(np.float32)
        return weight, alpha


CENTRED_AND_CLIPPED = MeanScale(centred=True, clipped=True)
"""jiecaoyu/XNOR-Net-PyTorch, util.py: BinOp.binarization."""
CLIPPED = MeanScale(clipped=True)
"""larq/zoo, literature/xnornet.py: xnor_weight_scale."""
PLAIN = MeanScale()
"""Bi-Real-Net and ReActNet in PyTorch (HardBinaryConv); darknet, convolutional_layer.c
(binarize_weights); Larq's MagnitudeAwareSign."""


def zero_weights(weight: Floats, framework: str) -> tuple[Finding, ...]:
    """Return what there is to say of weights that are exactly 0 where only signs count."""
    zeros = weight.size - int(np.count_nonzero(weight))
    text = f"weights of exactly 0 packed as +1, which {framework} multiplies by 0"
    return (Finding("zero weights", zeros, text),) if zeros else ()


@dataclasses.dataclass(frozen=True)
class SignRule:
    """What a framework's sign makes of exactly 0 (and of -0.0): -1, 0 or +1; bitinfer's is +1.

    =====================================  ========  ==========================================
    torch.sign, ONNX Sign, XNOR-Net (Lua)  0         torch docs; ONNX operators, Sign
    Larq, Brevitas, QONNX, BMXNet          +1        larq/math.py sign; qonnx bipolar_quant.py
    darknet                                -1        activations and binarize_*: ``x > 0 ? 1 : -1``
    =====================================  ========  ==========================================
    """

    at_zero: Literal[-1, 0, 1]

    @property
    def threshold(self) -> np.float32 | None:
        """What ``x >= threshold`` must compare with in place of 0; None where 0 is right.

        Where 0 gives -1, the smallest float32 above 0.  Where it gives 0, no threshold does:
        +1 stands for it, and whoever can tell that the value is ever 0 reports it.
        """
        return np.nextafter(np.float32(0), np.float32(1)) if self.at_zero == -1 else None


@dataclasses.dataclass(frozen=True)
class Affine:
    """``scale * x + offset`` of a dot product, or of one per filter."""

    scale: float
    offset: float | NDArray[np.float64] = 0.0

    def before(self, alpha: Floats, bias: Floats | None) -> tuple[Floats, Floats | None]:
        """Return alpha and bias of a layer that applies them behind this function.

        Shapes:  alpha and bias (Cout,).
        Meaning: ``alpha * (scale * dot + offset) + bias``, in float64, rounded once.  The identity
                 changes nothing, not even an absent bias.
        """
        new_alpha = (alpha.astype(np.float64) * self.scale).astype(np.float32)
        offset = alpha.astype(np.float64) * self.offset
        if not np.any(offset):
            return new_alpha, bias
        if bias is not None:
            offset = offset + bias
        return new_alpha, offset.astype(np.float32)


def agreements(k: int) -> Affine:
    """Return how the number of equal signs among ``k`` follows from the dot product.

    ``dot = 2 * agreements - k``: BMXNet (xnor_cpu.h), BNN-PYNQ, qonnx xnorpopcount.py.
    """
    return Affine(0.5, k / 2)


@dataclasses.dataclass(frozen=True)
class Levels:
    """The two values that stand for the signs -1 and +1 in a framework, such as 0 and 1."""

    low: float
    high: float

    @property
    def scale(self) -> float:
        """Half the distance between the values; below 0 where the order is turned round."""
        return (self.high - self.low) / 2

    @property
    def centre(self) -> float:
        """The number halfway between the values."""
        return (self.high + self.low) / 2

    def dot(self, signs: Floats) -> Affine:
        """Return how products of ``signs`` with these values follow from those with -1 and +1.

        Shapes:  signs (Cout, ...) of -1 and +1.
        Meaning: ``sum signs * (centre + scale * s) = scale * dot + centre * sum signs``; exact at
                 borders too, where padded taps are what :func:`pad_value` says.
        """
        if self.centre == 0:
            return Affine(self.scale)
        sums = signs.reshape(len(signs), -1).sum(axis=1, dtype=np.float64)
        return Affine(self.scale, self.centre * sums)


BIPOLAR = Levels(-1.0, 1.0)
ZERO_ONE = Levels(0.0, 1.0)
"""Larq's SteHeaviside; FINN's and BMXNet's bits."""


def pad_value(value: float, levels: Levels = BIPOLAR) -> Literal[-1, 0, 1] | Refusal:
    """Return which of -1, 0 and +1 a padded ``value`` is among signs of these ``levels``.

    PyTorch, Keras and the XNOR-Net paper pad +-1 with 0, BMXNet v2 and darknet's bit path with -1,
    Larq's QuickNet with +1; 0 among {0, 1} is the lower sign, -1.
    """
    where = (value - levels.centre) / levels.scale if levels.scale else float("nan")
    signs: tuple[Literal[-1, 0, 1], ...] = (-1, 0, 1)
    for sign in signs:
        if where == sign:
            return sign
    return Refusal(
        f"padded with {value:g}, which is neither {levels.low:g}, {levels.high:g} nor halfway",
        f"pad with {levels.low:g}, {levels.centre:g} or {levels.high:g}",
    )

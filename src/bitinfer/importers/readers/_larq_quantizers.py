"""What Larq's quantizers make of kernels and of activations.

Source: larq/quantizers.py, larq/math.py; larq_zoo/literature/xnornet.py (xnor_weight_scale).
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from bitinfer.bits import Floats
from bitinfer.errors import CheckpointError, ConversionError
from bitinfer.files import one_line
from bitinfer.importers.binary import CLIPPED, PLAIN

SIGNS = frozenset({"stesign", "approxsign", "swishsign", "magnitudeawaresign", "xnorweightscale"})
"""Quantizers that give +1 where x >= 0, else -1; the last two scale kernels."""
_SCALES = {"magnitudeawaresign": PLAIN, "xnorweightscale": CLIPPED}
_NOTHING = frozenset({"", "noop", "noopquantizer", "linear"})
_KNOWN = SIGNS | _NOTHING | {"steheaviside", "stetern", "dorefa", "dorefaquantizer"}


@dataclasses.dataclass(frozen=True)
class Quantizer:
    """A quantizer by its name without case and underscores, and what it was made with."""

    name: str
    config: dict[str, Any]

    @property
    def is_nothing(self) -> bool:
        """Whether it leaves everything as it is."""
        return self.name in _NOTHING


@dataclasses.dataclass(frozen=True)
class Step:
    """A sign: ``low`` below ``threshold``, ``high`` above it, ``at_zero`` as of foreign's sign."""

    low: float
    high: float
    at_zero: int
    threshold: float = 0.0


def find(value: object) -> Quantizer | None:
    """Return the quantizer that a configuration names; None if it is none of Larq's.

    Meaning: Keras writes a name, ``{"class_name", "config"}``, or that with a module and a
             registered name besides.
    """
    config: Any = {}
    if isinstance(value, dict):
        config = value.get("config")
        value = value.get("class_name")
        if value == "function" and isinstance(config, str):
            value, config = config, {}
    if value is None:
        value = ""
    if not isinstance(value, str):
        raise CheckpointError(f"a quantizer is named {one_line(value)}")
    name = value.rpartition(">")[2].rpartition(".")[2].replace("_", "").lower()
    if name not in _KNOWN:
        return None
    return Quantizer(name, config if isinstance(config, dict) else {})


def require(value: object) -> Quantizer:
    """Return the quantizer that a configuration names, or raise ConversionError."""
    found = find(value)
    if found is None:
        name = value.get("class_name") if isinstance(value, dict) else value
        raise ConversionError(f"the quantizer {one_line(name)} is none of Larq's")
    return found


def kernel(quantizer: Quantizer, weight: Floats) -> Floats:
    """Return the quantised kernel.

    Shapes:  weight (..., Cout), scaled per last axis where the quantizer scales.
    """
    if quantizer.is_nothing:
        return weight
    signs = np.where(weight >= 0, np.float32(1), np.float32(-1))
    if quantizer.name in _SCALES:
        _, alpha = _SCALES[quantizer.name].split(np.moveaxis(weight, -1, 0))
        return signs * alpha
    if quantizer.name in SIGNS:
        return signs
    if quantizer.name.startswith("dorefa") and _bits(quantizer) == 1:
        if quantizer.config.get("mode", "activations") == "weights":
            return np.where(weight > 0, np.float32(1), np.float32(-1))
        return np.where(weight > 0.5, np.float32(1), np.float32(0))
    raise ConversionError(_too_fine(quantizer))


def activation(quantizer: Quantizer) -> Step:
    """Return what a quantizer makes of activations; not of one that leaves them as they are."""
    if quantizer.name == "magnitudeawaresign":
        raise ConversionError("MagnitudeAwareSign of activations: their scale is not constant")
    if quantizer.name in SIGNS:
        return Step(-1.0, 1.0, 1)
    if quantizer.name == "steheaviside":
        return Step(0.0, 1.0, -1)
    is_dorefa = quantizer.name.startswith("dorefa") and _bits(quantizer) == 1
    if is_dorefa and quantizer.config.get("mode", "activations") == "activations":
        # round(clip(x, 0, 1)), half to even: 0.5 gives 0.
        return Step(0.0, 1.0, -1, 0.5)
    raise ConversionError(_too_fine(quantizer))


def _bits(quantizer: Quantizer) -> int:
    return int(quantizer.config.get("k_bit", 2))


def _too_fine(quantizer: Quantizer) -> str:
    if quantizer.name == "stetern":
        return "SteTern has three values: only signs are there"
    if quantizer.name.startswith("dorefa"):
        return f"DoReFa of {_bits(quantizer)} bits: only signs are there"
    return f"{quantizer.name} has no counterpart for kernels"

"""A layer of a foreign graph, and what was decided about it."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

from bitinfer.bits import Floats
from bitinfer.graph.nodes import NO_PADDING, Padding, Pair
from bitinfer.importers.outcome import Became, Finding, LayerOutcome


@dataclasses.dataclass(frozen=True, eq=False)
class Layer:
    """A convolution, or a dense layer as one of a 1x1 map.

    ``weight`` is (Cout, kh, kw, Cin / groups), or (Cout, Cin) of a dense layer.
    """

    name: str
    weight: Floats
    bias: Floats | None
    stride: Pair = (1, 1)
    padding: Padding = NO_PADDING
    pad_value: float = 0.0
    dilation: Pair = (1, 1)
    groups: int = 1
    counts_agreements: bool = False

    @property
    def is_conv(self) -> bool:
        """Whether it slides over a map."""
        return self.weight.ndim == 4

    @property
    def is_of_one_pixel(self) -> bool:
        """Whether it is what a dense layer is of a map of one pixel."""
        is_small = self.is_conv and self.weight.shape[1:3] == (1, 1) and self.groups == 1
        return is_small and self.padding == NO_PADDING

    @property
    def length(self) -> int:
        """Weights per filter."""
        return math.prod(self.weight.shape[1:])


@dataclasses.dataclass(frozen=True, eq=False)
class Decision:
    """What a layer becomes: the outcome without parameters, and a function that writes it.

    The function takes a name, a bias and the name of a beta map.
    """

    outcome: LayerOutcome
    shape: tuple[int, ...]
    bias: Floats | None
    write: Callable[[str, Floats | None, str | None], str]


def outcome_of(
    layer: Layer,
    became: Became,
    reason: str,
    mend: str = "",
    findings: tuple[Finding, ...] = (),
) -> LayerOutcome:
    """Return what became of a layer."""
    operation = ("b" if became == "binary" else "") + ("conv2d" if layer.is_conv else "dense")
    shape = layer.weight.shape
    count = layer.weight.size + (0 if layer.bias is None else layer.bias.size)
    return LayerOutcome(layer.name, operation, shape, count, became, reason, mend, findings)

"""What an import made of a network: one report for all importers.

Every layer with weights has a :class:`LayerOutcome`, which says whether its weights became bits,
why, and, where they did not, what would change that.  What was changed or could not be kept is a
:class:`Finding`: of one layer, or of the network.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Literal

Became = Literal["binary", "binary weights", "integer", "float"]
"""``binary``: signs times signs.  ``binary weights``: numbers times signs.  ``integer``: weights of
8 or 16 bits.  ``float``: float32."""

FindingKind = Literal[
    "zero weights",
    "sign of zero",
    "raised gammas",
    "constant signs",
    "nothing binary",
    "other weights",
    "no preprocessing",
]


@dataclasses.dataclass(frozen=True)
class Finding:
    """Something that whoever imports a network should know.

    Attributes:
        kind: which question it answers; the same for every importer.
        count: of weights, channels or layers.
        text: what was found of these, in words that follow the count.
    """

    kind: FindingKind
    count: int
    text: str

    def __str__(self) -> str:
        return f"{self.count} {self.text}"


@dataclasses.dataclass(frozen=True)
class LayerOutcome:
    """What became of one layer.

    Attributes:
        name: of the layer, as in the source.
        operation: of the graph node, such as ``bconv2d``.
        shape: of its weight, (Cout, kh, kw, Cin) or (Cout, Cin); (C,) of a BatchNorm.
        parameters: how many numbers the source holds for it.
        became: what its weights are now.
        reason: why.
        mend: what would make it binary; empty where nothing would, or nothing has to.
        findings: what was changed, or could not be kept.
        half_binary: whether it stayed float although its input or its weights are binary.
    """

    name: str
    operation: str
    shape: tuple[int, ...]
    parameters: int
    became: Became
    reason: str
    mend: str = ""
    findings: tuple[Finding, ...] = ()
    half_binary: bool = False

    @property
    def is_binary(self) -> bool:
        """Whether its weights are single bits."""
        return self.became in ("binary", "binary weights")


@dataclasses.dataclass(frozen=True)
class Conversion:
    """What became of a network, layer by layer in order of execution.

    Attributes:
        source: name of the file, or of the network in memory.
        format: what the source was, in words.
        layers: those that have parameters.
        findings: of the network as a whole.
    """

    source: str
    format: str
    layers: tuple[LayerOutcome, ...]
    findings: tuple[Finding, ...] = ()

    @property
    def parameters(self) -> int:
        """Numbers in the source that belong to the network."""
        return sum(layer.parameters for layer in self.layers)

    @property
    def binary_weights(self) -> int:
        """Weights that became single bits."""
        return sum(math.prod(layer.shape) for layer in self.layers if layer.is_binary)

    @property
    def float_bytes(self) -> int:
        """Size of the network as float32."""
        return 4 * self.parameters


def conversion(source: str, format: str, layers: tuple[LayerOutcome, ...]) -> Conversion:  # noqa: A002
    """Return the report on ``layers``, with what it finds in the network as a whole."""
    weighted = [layer for layer in layers if len(layer.shape) > 1]
    findings: tuple[Finding, ...] = ()
    if weighted and not any(layer.is_binary for layer in weighted):
        findings = (
            Finding(
                "nothing binary",
                len(weighted),
                "layers with weights and none of them binary: bitinfer gains nothing here",
            ),
        )
    return Conversion(source, format, layers, findings)

"""Makes the table of docs/zoo.md, which `./dev docs` writes."""

from __future__ import annotations

from typing import Any

import numpy as np

from bitinfer import zoo
from bitinfer.bits import Floats
from bitinfer.graph import check, nodes, operations

HEAD = """\
| name | paper | input | binary weights | other numbers | binary MACs | other MACs |
|---|---|---|---|---|---|---|"""


class Plain(zoo.RandomParameters):
    """Gives numbers without drawing them, which is slow, and counts them."""

    def __init__(self) -> None:
        super().__init__(0)
        self.binary = self.other = 0

    def layer(self, name: str, shape: tuple[int, ...], **kwargs: Any) -> zoo.LayerParameters:
        """Give zeros, and count them."""
        is_binary = kwargs["is_binary"]
        bias = np.zeros(shape[0], np.float32) if kwargs.get("has_bias", True) else None
        has_alpha = is_binary and kwargs.get("has_alpha", True)
        alpha = np.ones(shape[0], np.float32) if has_alpha else None
        weight = np.zeros(shape, np.float32)
        self.other += sum(part.size for part in (bias, alpha) if part is not None)
        if is_binary:
            self.binary += weight.size
        else:
            self.other += weight.size
        return zoo.LayerParameters(weight, bias, alpha)

    def norm(self, name: str, channels: int, **kwargs: Any) -> zoo.NormParameters:
        """Count a scale and a shift for each channel."""
        self.other += 2 * channels
        return super().norm(name, channels, **kwargs)

    def vector(self, name: str, channels: int, role: zoo.Role) -> Floats:
        """Count one for each channel."""
        self.other += channels
        return super().vector(name, channels, role)


def table() -> str:
    """Return the table in Markdown."""
    return "\n".join([HEAD, *(row(name) for name in zoo.ARCHITECTURES)])


def row(name: str) -> str:
    """Return the line of one architecture."""
    source = Plain()
    graph, tensors = zoo.build(name, source)
    checked = check(graph, tensors)
    macs = {True: 0, False: 0}
    for node in graph.nodes:
        if isinstance(node, nodes.Layer):
            is_binary = isinstance(node, nodes.BinaryConv2d | nodes.BinaryDense)
            macs[is_binary] += operations(node, checked.values, checked.tensors)
    shape = "x".join(str(side) for side in graph.input.shape)
    cells = [
        f"`{name}`",
        zoo.find(name).paper,
        shape,
        *(f"{count:,}" for count in (source.binary, source.other)),
        *(f"{count / 1e6:,.1f} M" for count in (macs[True], macs[False])),
    ]
    return f"| {' | '.join(cells)} |"

"""Lambda layers of Larq Zoo, known by the module they stand in and by the values they captured.

Their code is never run, and not looked at: a changed copy of Larq Zoo under its name would be taken
for it, which a comparison with the source shows (bitinfer.verify).
Source: larq_zoo/core/utils.py (TFOpLayer), larq_zoo/literature/meliusnet.py (improvement_block).
"""

from __future__ import annotations

from bitinfer.errors import CheckpointError
from bitinfer.importers.readers._keras_graph import KerasGraph, Layer
from bitinfer.importers.readers._keras_lambda import captured

MAX_PARTS = 256


def write(
    graph: KerasGraph, layer: Layer, name: str, inputs: tuple[str, ...]
) -> tuple[str, ...] | None:
    """Write a layer and return the names of its values, or None if it is none of these."""
    match captured(layer.config, "larq_zoo.core.utils"):
        case ([int(parts)], {"axis": -1}, "split") if len(inputs) == 1:
            return _split(graph, name, inputs[0], parts)
        case ([], {"axis": -1}, "concat"):
            return (graph.join(name, inputs),)
    match captured(layer.config, "larq_zoo.literature.meliusnet"):
        case (int(channels),) if len(inputs) == 2:
            return (_add_to_last(graph, name, *inputs, channels),)
    return None


def _split(graph: KerasGraph, name: str, x: str, parts: int) -> tuple[str, ...]:
    channels = graph.shapes[x][-1]
    if not 0 < parts <= MAX_PARTS or channels % parts:
        raise CheckpointError(f"{channels} channels in {parts} equal parts")
    each = channels // parts
    return tuple(_slice(graph, f"{name}/{i}", x, i * each, (i + 1) * each) for i in range(parts))


def _add_to_last(graph: KerasGraph, name: str, x: str, y: str, channels: int) -> str:
    """Add y to the last channels of x."""
    first, added = graph.shapes[x][-1], graph.shapes[y][-1]
    if first != channels or not 0 < added < channels:
        raise CheckpointError(f"{added} channels onto the last of {first}, {channels} were saved")
    kept = _slice(graph, f"{name}/kept", x, 0, channels - added)
    changed = _slice(graph, f"{name}/last", x, channels - added, channels)
    total = graph.add(f"{name}/sum", "add", (changed, y), graph.shapes[y])
    return graph.join(name, (kept, total))


def _slice(graph: KerasGraph, name: str, x: str, begin: int, end: int) -> str:
    shape = (*graph.shapes[x][:-1], end - begin)
    return graph.add(name, "slice", (x,), shape, axis=-1, begin=begin, end=end)

"""From the configuration of a Keras model and its weights to a foreign graph."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from bitinfer.bits import Floats
from bitinfer.errors import CheckpointError
from bitinfer.files import one_line
from bitinfer.importers.readers._graph_draft import Array, GraphDraft, Shape

Config = Mapping[str, Any]


class KerasGraph(GraphDraft):
    """The state of a walk over the layers; handlers in _keras_layers.py write the nodes.

    Shapes of values are without the batch.
    """

    def __init__(self, weights: Mapping[str, Mapping[str, Array]], is_by_class: bool) -> None:
        super().__init__()
        self._weights = weights
        self._is_by_class = is_by_class

    def join(self, name: str, inputs: tuple[str, ...]) -> str:
        """Write the concatenation of values along their channels; returns its name."""
        shapes = [self.shapes[x] for x in inputs]
        shape = (*shapes[0][:-1], sum(s[-1] for s in shapes))
        return self.add(name, "concat", inputs, shape, axis=-1)

    def weight(self, layer: Layer, name: str, position: int, shape: Shape | None = None) -> Floats:
        """Return a weight of a layer, by its name or by its position among the layer's weights."""
        stored = self._weights.get(layer.key if self._is_by_class else layer.name, {})
        found = stored.get(str(position) if self._is_by_class else name)
        if found is None:
            known = one_line(", ".join(stored), 200)
            raise CheckpointError(f"its {name} is not among the weights ({known})")
        if found.dtype.kind != "f" or (shape is not None and found.shape != shape):
            raise CheckpointError(f"its {name} is {found.dtype} of {found.shape}, wanted {shape}")
        return found.astype(np.float32)


class Layer:
    """A layer as it is configured.

    Attributes:
        key: its class with a counter, under which the later layouts keep its weights.
    """

    def __init__(self, name: str, kind: str, config: Config, key: str) -> None:
        self.name = name
        self.kind = kind
        self.config = config
        self.key = key

    def number(self, name: str, default: int = 1) -> int:
        """Return a whole number of the configuration."""
        value = self.config.get(name, default)
        if not isinstance(value, int):
            raise CheckpointError(f"{name} is {one_line(value)}, wanted a whole number")
        return value

    def pair(self, name: str, default: Any = (1, 1)) -> tuple[int, int]:
        """Return two whole numbers of the configuration, or one for both."""
        value = self.config.get(name, default)
        if isinstance(value, int):
            value = (value, value)
        if not isinstance(value, list | tuple) or len(value) != 2:
            raise CheckpointError(f"{name} is {one_line(value)}, wanted two numbers")
        if not all(isinstance(n, int) and 0 < n < 1 << 16 for n in value):
            raise CheckpointError(f"{name} is {one_line(value)}, wanted numbers above 0")
        return (value[0], value[1])

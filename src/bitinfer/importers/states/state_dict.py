"""The weights in a checkpoint by name, and what every family does with them alike."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from bitinfer import zoo
from bitinfer.bits import Floats
from bitinfer.errors import CheckpointError
from bitinfer.importers.outcome import LayerOutcome
from bitinfer.importers.readers._unpickle import Inert, describe, quoted

Signature = Mapping[str, tuple[int | None, ...]]
"""Shapes by key; None stands for any size."""

_BOOKKEEPING = (".num_batches_tracked", ".total_ops", ".total_params", "_extra_state")
"""Ends of names that torch and tools that count operations keep beside the weights."""

_REBUILT = {
    "torch._utils._rebuild_qtensor": "a quantized tensor: dequantize() it before saving",
    "torch._utils._rebuild_sparse_tensor": "a sparse tensor: make it to_dense() before saving",
    "torch._utils._rebuild_meta_tensor_no_storage": "a tensor without data, of the device 'meta'",
}
"""By what makes a tensor, what it is in words."""


class StateDict:
    """Weights by name, each to be taken once or more; what was never taken is known.

    ``owner`` is the network that they are taken for, in messages; ``others`` names further sets of
    weights that the checkpoint holds.
    """

    def __init__(self, weights: Mapping[str, Any], others: Sequence[str] = ()) -> None:
        self._weights = dict(weights)
        self.others = tuple(others)
        self._taken: set[str] = set()
        self.owner = "the network"

    def take(self, key: str, shape: tuple[int, ...]) -> Floats:
        """Return the float32 tensor ``key``, or raise CheckpointError unless it has ``shape``."""
        wanted = f"{self.owner} wants floats of the shape {shape}"
        if key not in self._weights:
            raise CheckpointError(
                f"{key} is missing; {wanted}; the checkpoint goes on with {self.describe_keys()}: "
                "does it hold another architecture?"
            )
        value = self._weights[key]
        if not isinstance(value, np.ndarray):
            name = value.name if isinstance(value, Inert) else ""
            raise CheckpointError(f"{key} is {_REBUILT.get(name, describe(value))}; {wanted}")
        if value.dtype.kind != "f" or value.shape != shape:
            raise CheckpointError(f"{key} is {value.dtype} of shape {value.shape}; {wanted}")
        self._taken.add(key)
        with np.errstate(all="ignore"):
            result: Floats = value.astype(np.float32)
        if not np.isfinite(result).all():
            raise CheckpointError(f"{key} holds NaN or infinity, or numbers beyond float32")
        return result

    def first_axis(self, key: str) -> int | None:
        """Return the length of the first axis of ``key``; None if there is no such tensor."""
        value = self._weights.get(key)
        return len(value) if isinstance(value, np.ndarray) and value.ndim and len(value) else None

    def has_signature(self, signature: Signature) -> bool:
        """Tell whether all keys of ``signature`` are there, with these shapes."""
        for key, wanted in signature.items():
            value = self._weights.get(key)
            if not isinstance(value, np.ndarray) or value.ndim != len(wanted):
                return False
            if any(n not in (None, m) for n, m in zip(wanted, value.shape, strict=True)):
                return False
        return True

    def describe_keys(self) -> str:
        """Return the first names that nobody has taken yet, in words."""
        rest = [quoted(k) for k in self._weights if k not in self._taken]
        return ", ".join(rest[:3]) or "nothing"

    def check_nothing_left(self) -> None:
        """Raise CheckpointError if there are weights that the network has not."""
        left = [k for k in self._weights if k not in self._taken and self._is_weight(k)]
        if left:
            raise CheckpointError(
                f"{quoted(left[0])} is no part of {self.owner}"
                + (f", nor are {len(left) - 1} more" if len(left) > 1 else "")
                + ": does the checkpoint hold another architecture?"
            )

    def _is_weight(self, key: str) -> bool:
        """Tell whether a value is no bookkeeping: a counter of a wrapper, a number of a loop."""
        value = self._weights[key]
        is_counter = isinstance(value, np.ndarray) and value.size == 1 and "." not in key
        return isinstance(value, np.ndarray) and not (is_counter or key.endswith(_BOOKKEEPING))


class StateSource(zoo.ParameterSource, Protocol):
    """Answers a network of the zoo from a checkpoint, and knows what became of each layer."""

    @property
    def classes(self) -> int:
        """Length of the network's output, as the checkpoint has it."""
        ...

    @property
    def outcomes(self) -> tuple[LayerOutcome, ...]:
        """What became of the layers asked for, in the order of asking."""
        ...


def count_parameters(*tensors: Floats | None) -> int:
    """Return how many numbers are in these tensors."""
    return sum(math.prod(t.shape) for t in tensors if t is not None)

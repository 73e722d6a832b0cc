"""The weights in a checkpoint by name, and what every family does with them alike."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np

from bitinfer import zoo
from bitinfer.bits import Floats
from bitinfer.errors import CheckpointError
from bitinfer.importers.outcome import LayerOutcome
from bitinfer.importers.readers._unpickle import describe, one_line

Signature = Mapping[str, tuple[int | None, ...]]
"""Shapes by key; None stands for any size."""

_WRAPPERS = frozenset({"module", "_orig_mod"})
"""Parts of names: of DataParallel, which wraps any module, and of torch.compile."""

_PREFIXES = ("model.", "net.", "network.")
"""Attributes under which training loops keep the network: left out where all names begin so."""

_COUNTER = ".num_batches_tracked"
"""What torch >= 0.4.1 keeps for training."""


class StateDict:
    """Weights by name, each to be taken once or more; what was never taken is known.

    ``owner`` is the network that they are taken for, in messages.
    """

    def __init__(self, weights: Mapping[str, Any]) -> None:
        self._weights = dict(weights)
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
            raise CheckpointError(f"{key} is {describe(value)}; {wanted}")
        if value.dtype.kind != "f" or value.shape != shape:
            raise CheckpointError(f"{key} is {value.dtype} of shape {value.shape}; {wanted}")
        self._taken.add(key)
        with np.errstate(over="ignore"):
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
        rest = [one_line(k) for k in self._weights if k not in self._taken]
        return ", ".join(rest[:3]) or "nothing"

    def check_nothing_left(self) -> None:
        """Raise CheckpointError if there are weights that the network has not."""
        left = [k for k in self._weights if k not in self._taken and not k.endswith(_COUNTER)]
        if left:
            raise CheckpointError(
                f"{one_line(left[0])} is no part of {self.owner}"
                + (f", nor are {len(left) - 1} more" if len(left) > 1 else "")
                + ": does the checkpoint hold another architecture?"
            )


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


def find_state_dict(checkpoint: Mapping[str, Any]) -> StateDict:
    """Return the weights in ``checkpoint``, their names without the parts that wrappers add.

    Meaning: under ``state_dict``; or the checkpoint itself, if it holds tensors; or else the only
             dict of tensors in it.
    Raises:  CheckpointError if there are none, or two names differ only in such parts.
    """
    found: Any = checkpoint.get("state_dict")
    if found is None:
        found = checkpoint if _holds_tensors(checkpoint) else _only_dict(checkpoint)
    if not isinstance(found, dict):
        raise CheckpointError(
            f"'state_dict' is {describe(found)}, wanted a dict of tensors; "
            "save model.state_dict() instead of the model"
        )
    result: dict[str, Any] = {}
    for key, name in _unwrapped(found).items():
        if name in result:
            raise CheckpointError(f"{one_line(key)} stands twice, with and without 'module.'")
        result[name] = found[key]
    return StateDict(result)


def _unwrapped(found: Mapping[str, Any]) -> dict[str, str]:
    names = {key: ".".join(p for p in key.split(".") if p not in _WRAPPERS) for key in found}
    prefix = next((p for p in _PREFIXES if all(n.startswith(p) for n in names.values())), "")
    return {key: name.removeprefix(prefix) for key, name in names.items()}


def _holds_tensors(value: Any) -> bool:
    return isinstance(value, dict) and any(isinstance(v, np.ndarray) for v in value.values())


def _only_dict(checkpoint: Mapping[str, Any]) -> dict[str, Any]:
    candidates = {k: v for k, v in checkpoint.items() if _holds_tensors(v)}
    if len(candidates) == 1:
        return next(iter(candidates.values()))
    if candidates:
        names = ", ".join(one_line(key) for key in candidates)
        raise CheckpointError(
            f"holds tensors under {names}; save the weights alone: torch.save(model.state_dict())"
        )
    keys = ", ".join(one_line(key) for key in list(checkpoint)[:8]) or "nothing"
    raise CheckpointError(
        f"holds no 'state_dict' and no tensors, only {keys}; "
        "save model.state_dict() instead of the model"
    )


def count_parameters(*tensors: Floats | None) -> int:
    """Return how many numbers are in these tensors."""
    return sum(math.prod(t.shape) for t in tensors if t is not None)

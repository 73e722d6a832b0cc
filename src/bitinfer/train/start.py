"""A bitres network begins with the weights of a model file, to be trained further."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from bitinfer import bits
from bitinfer.errors import CheckpointError
from bitinfer.model import Model

LATENT = 0.1
"""How far the real weight behind every sign is from 0: some fifty of the first epoch's steps."""

_NORM = {"weight": "gamma", "bias": "beta", "running_mean": "mean", "running_var": "variance"}


@torch.no_grad()
def begin_with(network: nn.Module, model: Model) -> None:
    """Give a bitres network all weights of a model that was exported from one of the same layout.

    Meaning: the network then gives the model's results.  A model file has no real weights behind
             its signs; they become ``LATENT`` times the signs.
    Raises:  CheckpointError: the model is of another layout, or has integer ends.
    """
    state = network.state_dict()
    for name, value in state.items():
        if name.endswith("num_batches_tracked"):
            continue
        found = _find(name, value.shape, model.tensors)
        if found is None or tuple(found.shape) != tuple(value.shape):
            got = "is not there" if found is None else f"has the shape {tuple(found.shape)}"
            raise CheckpointError(
                f"network '{model.graph.name}': {name} {got}, wanted {tuple(value.shape)}; begin "
                "with a model that the same recipe wrote, before it gets integer ends"
            )
        value.copy_(torch.from_numpy(np.ascontiguousarray(found)))


def _find(
    name: str, shape: torch.Size, tensors: Mapping[str, NDArray[Any]]
) -> NDArray[np.float32] | None:
    """Return what the state dict calls ``name``, as PyTorch lays it out; None if there is none."""
    layer, _, parameter = name.rpartition(".")
    if layer.endswith("norm"):
        tensor = tensors.get(f"{layer}.{_NORM[parameter]}")
    elif parameter == "shift":
        tensor = tensors.get(f"{layer}.threshold")
        # A sign against 0 has no threshold.
        tensor = np.zeros(shape, np.float32) if tensor is None else -tensor
    else:
        tensor = tensors.get(name)
    if tensor is None:
        return None
    if tensor.dtype == np.uint64:
        tensor = LATENT * bits.unpack(tensor, shape[1])
    if tensor.dtype != np.float32:
        return None
    return tensor.transpose(0, 3, 1, 2) if tensor.ndim == 4 else tensor

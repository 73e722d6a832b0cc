"""A trained network as the zoo's parameter source: what its state dict would be imported as."""

from __future__ import annotations

from torch import nn

from bitinfer import zoo
from bitinfer.importers.options import DEFAULTS
from bitinfer.importers.states import find_family, find_state_dict
from bitinfer.importers.states.state_dict import StateSource


def torch_source(module: nn.Module, arch: str) -> StateSource:
    """Return the source that answers ``arch`` of the zoo from the weights of ``module``.

    Meaning: weights are binarised as the importer of that architecture's checkpoints does it, so
             that ``zoo.build(arch, torch_source(module, arch))`` and the conversion of the saved
             ``module.state_dict()`` are the same network, byte by byte.
    """
    arrays = {name: value.detach().cpu().numpy() for name, value in module.state_dict().items()}
    return find_family(arch).source(find_state_dict(arrays, arch), zoo.find(arch), DEFAULTS)

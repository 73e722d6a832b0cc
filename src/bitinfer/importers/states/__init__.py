"""State dicts: whose network the weights in a checkpoint are, and what they mean.

Each module of :data:`FAMILIES` knows the checkpoints of one project.

xnor_net    jiecaoyu/XNOR-Net-PyTorch: LeNet-5, NIN, AlexNet
own         signs of real weights without a scale: bitinfer's own networks, VGG-small among them

Those of :data:`NETWORKS` are read as foreign graphs, which modules.py writes.

adabin      AdaBin's ResNets for CIFAR
bireal      Bi-Real-Net-18 and -34, ReActNet's ResNets
reactnet    ReActNet-A
binary_net  BinaryNet.pytorch: VGG, ResNet, AlexNet

``xnor_modules`` writes XNOR-Net's networks so, too, for comparing models with.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from bitinfer import zoo
from bitinfer.errors import CheckpointError, ConversionError
from bitinfer.importers.foreign import Foreign
from bitinfer.importers.options import Options
from bitinfer.importers.states import (
    adabin,
    binary_net,
    bireal,
    locate,
    own,
    reactnet,
    xnor_modules,
    xnor_net,
)
from bitinfer.importers.states.modules import StateNetwork
from bitinfer.importers.states.state_dict import Signature, StateDict, StateSource
from bitinfer.model import Preprocessing
from bitinfer.zoo.data import DataSet

__all__ = [
    "ARCHITECTURES",
    "FAMILIES",
    "NETWORKS",
    "Family",
    "StateDict",
    "StateNetwork",
    "StateSource",
    "find_architecture",
    "find_family",
    "find_state_dict",
    "foreign_network",
]


class Family(Protocol):
    """What a module of :data:`FAMILIES` offers.

    Attributes:
        IMPORTER: its name in a model's provenance.
        SIGNATURES: by architecture of the zoo, some keys with shapes that no other network has.
        DATA_SETS: what each architecture was trained on.
        PREPROCESSING: how a picture becomes its input, unless options say otherwise.
    """

    @property
    def IMPORTER(self) -> str: ...  # noqa: D102, N802 - described above
    @property
    def SIGNATURES(self) -> Mapping[str, Signature]: ...  # noqa: D102, N802
    @property
    def DATA_SETS(self) -> Mapping[str, DataSet]: ...  # noqa: D102, N802
    @property
    def PREPROCESSING(self) -> Mapping[str, Preprocessing]: ...  # noqa: D102, N802

    def source(
        self, state: StateDict, architecture: zoo.Architecture, options: Options
    ) -> StateSource:
        """Return what answers the architecture's requests from the checkpoint."""
        ...


FAMILIES: tuple[Family, ...] = (xnor_net, own)

ARCHITECTURES: Mapping[str, Family] = {
    name: family for family in FAMILIES for name in family.SIGNATURES
}
"""By architecture of the zoo, the family that its checkpoints are read by."""

NETWORKS: tuple[StateNetwork, ...] = (
    adabin.NETWORK,
    bireal.NETWORK,
    reactnet.NETWORK,
    *binary_net.NETWORKS,
)
"""Networks whose state dicts are read as foreign graphs."""


def find_state_dict(
    checkpoint: Mapping[str, Any], arch: str | None = None, wanted: str | None = None
) -> StateDict:
    """Return the weights in ``checkpoint`` (locate.find_state_dict), those of ``arch`` if given."""
    names = ARCHITECTURES if arch is None else (arch,)
    signatures = [ARCHITECTURES[name].SIGNATURES[name] for name in names]
    if arch is None:
        signatures += [network.signature for network in NETWORKS]
    return locate.find_state_dict(checkpoint, signatures, wanted)


def find_architecture(state: StateDict) -> str | StateNetwork:
    """Return the architecture of the zoo, else of NETWORKS, that ``state`` is of.

    Raises:
        CheckpointError: names and shapes are those of no architecture, or of more than one.
    """
    fitting: list[str | StateNetwork] = [
        name
        for name, family in ARCHITECTURES.items()
        if state.has_signature(family.SIGNATURES[name])
    ]
    fitting = fitting or [network for network in NETWORKS if network.fits(state)]
    if len(fitting) == 1:
        return fitting[0]
    if fitting:
        raise CheckpointError(
            f"the names and shapes of the weights fit {' and '.join(map(str, fitting))}; "
            "--arch says which network it is"
        )
    known = ", ".join((*ARCHITECTURES, *(network.title for network in NETWORKS)))
    raise CheckpointError(
        f"the weights begin with {state.describe_keys()}, as those of no network that can be read "
        f"({known}); if it is one of these, --arch says which, and what differs"
    )


def foreign_network(state: StateDict, *, swap_hw: bool = False) -> Foreign | None:
    """Return the network of ``state`` as its framework has it; None if it is not known here."""
    for network in (*NETWORKS, *xnor_modules.NETWORKS):
        if network.fits(state):
            return network.network(state, swap_hw=swap_hw)
    return None


def find_family(architecture: str) -> Family:
    """Return the family that reads checkpoints of ``architecture``.

    Raises:
        UnknownNameError: the zoo has no such architecture.
        ConversionError: no checkpoints of it can be read.
    """
    zoo.find(architecture)
    if architecture not in ARCHITECTURES:
        raise ConversionError(
            f"no checkpoints of {architecture} can be read, only of {', '.join(ARCHITECTURES)}"
        )
    return ARCHITECTURES[architecture]

"""Checkpoints whose binary weights are the signs of real ones, without a scale.

bitinfer's own networks as `bitinfer train` makes them, and those of itayhubara/BinaryNet.pytorch,
whose modules bear the names that the zoo's layers have.  Only the signs of a binary layer's real
weights count; all else is real and taken as it is.
"""

from __future__ import annotations

from collections.abc import Mapping

from bitinfer import zoo
from bitinfer.bits import Floats
from bitinfer.importers import binary
from bitinfer.importers.options import DEFAULTS, Options
from bitinfer.importers.outcome import LayerOutcome
from bitinfer.importers.states.state_dict import Signature, StateDict
from bitinfer.importers.states.xnor_net import CheckpointSource
from bitinfer.zoo.data import PREPROCESSING as PREPROCESSING_OF
from bitinfer.zoo.data import DataSet

IMPORTER = "signs_of_weights"

SIGNATURES: Mapping[str, Signature] = {
    "bitres8": {"stem.weight": (64, 3, 4, 4), "blocks.5.conv.weight": (256, 256, 3, 3)},
    "bitres11": {"stem.weight": (64, 3, 4, 4), "blocks.8.conv.weight": (256, 256, 3, 3)},
    "bitres20": {"stem.weight": (64, 3, 4, 4), "blocks.17.conv.weight": (256, 256, 3, 3)},
    "bnn-vgg-small": {
        "features.0.weight": (128, 3, 3, 3),
        "features.17.weight": (512, 512, 3, 3),
        "classifier.0.weight": (1024, 8192),
    },
}
DATA_SETS: Mapping[str, DataSet] = dict.fromkeys(SIGNATURES, "cifar10")
PREPROCESSING = {
    arch: PREPROCESSING_OF[data_set, "binary-net"] for arch, data_set in DATA_SETS.items()
}


def source(
    state: StateDict, architecture: zoo.Architecture, options: Options = DEFAULTS
) -> SignSource:
    """Return what answers ``architecture`` from ``state``."""
    return SignSource(state, architecture, swap_hw=options.swap_hw)


class SignSource(CheckpointSource):
    """Answers a network of the zoo from a checkpoint of real weights whose signs count."""

    _family = "a network of signs"
    _split = staticmethod(binary.PLAIN.split)

    def vector(self, name: str, channels: int, role: zoo.Role) -> Floats:
        """Return the vector as it is."""
        self._outcomes.append(
            LayerOutcome(
                name, role, (channels,), channels, "float", f"learned {role}: real, one per channel"
            )
        )
        return super().vector(name, channels, role)

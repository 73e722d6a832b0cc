"""Checkpoints of jiecaoyu/XNOR-Net-PyTorch: LeNet-5, NIN, AlexNet.

They hold real weights.  Evaluation there binarises them (util.py, BinOp.binarization), and so does
this importer, once (binary.MeanScale, centred and clipped), on every convolution and dense layer
but the first and the last.  LeNet-5 and NIN also clamp every gamma of BatchNorm to at least 0.01
before use (forward() in LeNet_5.py and nin.py); AlexNet does not.

Two zeros that the framework knows and packed bits do not: a weight that is exactly 0 (packed as
+1; contributes nothing there) and an activation that is exactly 0 (sign +1 here, 0 there), which
occurs where BatchNorm maps the 0 of a ReLU to 0.  Both are counted per layer and reported.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np

from bitinfer import numerics, zoo
from bitinfer.bits import Floats
from bitinfer.errors import CheckpointError
from bitinfer.importers import binary
from bitinfer.importers.options import DEFAULTS, Options
from bitinfer.importers.outcome import Finding, LayerOutcome
from bitinfer.importers.states.state_dict import Signature, StateDict, count_parameters
from bitinfer.zoo.data import PREPROCESSING as PREPROCESSING_OF
from bitinfer.zoo.data import DataSet

IMPORTER = "xnor_net_pytorch"

SIGNATURES: Mapping[str, Signature] = {
    "xnor-lenet5": {"bin_conv2.conv.weight": (50, 20, 5, 5), "bin_ip1.linear.weight": (500, None)},
    "xnor-nin": {"xnor.0.weight": (192, 3, 5, 5), "xnor.6.conv.weight": (192, 96, 5, 5)},
    "xnor-alexnet": {
        "features.4.conv.weight": (256, 96, 5, 5),
        "classifier.0.linear.weight": (4096, None),
    },
}
DATA_SETS: Mapping[str, DataSet] = {
    "xnor-lenet5": "mnist",
    "xnor-nin": "cifar10",
    "xnor-alexnet": "imagenet",
}
PREPROCESSING = {
    arch: PREPROCESSING_OF[data_set, "xnor-net-pytorch"] for arch, data_set in DATA_SETS.items()
}

MIN_GAMMA = 0.01
_CLAMPS_GAMMA = ("xnor-lenet5", "xnor-nin")


def source(
    state: StateDict, architecture: zoo.Architecture, options: Options = DEFAULTS
) -> CheckpointSource:
    """Return what answers ``architecture`` from ``state``."""
    return CheckpointSource(state, architecture, swap_hw=options.swap_hw)


class CheckpointSource:
    """Answers a network of the zoo from a checkpoint."""

    _family = "XNOR-Net"
    _split = staticmethod(binary.CENTRED_AND_CLIPPED.split)
    """Makes of a real weight one whose signs count, and alpha."""

    def __init__(
        self, state: StateDict, architecture: zoo.Architecture, *, swap_hw: bool = False
    ) -> None:
        self._state = state
        state.owner = architecture.name
        self._architecture = architecture
        self._clamps_gamma = architecture.name in _CLAMPS_GAMMA
        self._swap_hw = swap_hw
        self._outcomes: list[LayerOutcome] = []
        self._zero_channels: dict[str, int] = {}
        output = state.first_axis(f"{architecture.output_layer}.weight")
        self.classes = architecture.classes if output is None else output

    @property
    def outcomes(self) -> tuple[LayerOutcome, ...]:
        """What became of the layers asked for; a binary layer answers for the sign before it."""
        return tuple(self._with_zero_signs(outcome) for outcome in self._outcomes)

    def layer(
        self,
        name: str,
        shape: tuple[int, ...],
        *,
        is_binary: bool,
        flattened: tuple[int, int] | None = None,
        has_bias: bool = True,
        has_alpha: bool = True,
    ) -> zoo.LayerParameters:
        """Return weights in the zoo's layout; those of a binary layer centred and clamped."""
        # PyTorch: (Cout, Cin, kh, kw); here: (Cout, kh, kw, Cin).
        is_conv = len(shape) == 4
        foreign = (shape[0], shape[3], shape[1], shape[2]) if is_conv else shape
        weight = self._state.take(f"{name}.weight", foreign)
        bias = self._state.take(f"{name}.bias", shape[:1]) if has_bias else None
        alpha = None
        findings: tuple[Finding, ...] = ()
        if is_binary:
            weight, mean_size = self._split(weight)
            alpha = mean_size if has_alpha else None
            findings = binary.zero_weights(weight, "PyTorch")
        if is_conv:
            weight = weight.transpose((0, 3, 2, 1) if self._swap_hw else (0, 2, 3, 1))
        elif flattened is not None:
            weight = self._swap_flattened(weight, flattened)
        if is_binary:
            reason = f"weights and input are binary in {self._family}"
        elif name == self._architecture.output_layer:
            reason = f"last layer: real in {self._family}"
        else:
            reason = f"first layer: real in {self._family}"
        self._outcomes.append(
            LayerOutcome(
                name,
                ("b" if is_binary else "") + ("conv2d" if is_conv else "dense"),
                shape,
                count_parameters(weight, bias),
                "binary" if is_binary else "float",
                reason,
                findings=findings,
            )
        )
        return zoo.LayerParameters(weight, bias, alpha)

    def norm(
        self,
        name: str,
        channels: int,
        *,
        is_affine: bool,
        epsilon: float,
        flattened: tuple[int, int] | None = None,
        expected: zoo.Expected = zoo.BEHIND_RELU,
    ) -> zoo.NormParameters:
        """Return the BatchNorm's parameters, gammas raised where the framework does so."""

        def take(key: str) -> Floats:
            value = self._state.take(f"{name}.{key}", (channels,))
            return value if flattened is None else self._swap_flattened(value, flattened)

        mean, variance = take("running_mean"), take("running_var")
        gamma = take("weight") if is_affine else None
        beta = take("bias") if is_affine else None
        findings: tuple[Finding, ...] = ()
        if gamma is not None and self._clamps_gamma:
            raised = int(np.count_nonzero(gamma < MIN_GAMMA))
            gamma = np.maximum(gamma, np.float32(MIN_GAMMA))
            if raised:
                text = f"gammas raised to {MIN_GAMMA}, as before use in PyTorch"
                findings = (Finding("raised gammas", raised, text),)
        if not float(np.min(variance)) >= 0:
            raise CheckpointError(f"{name}.running_var: a variance is below 0")
        with np.errstate(all="ignore"):
            scale, shift = numerics.batch_norm_affine(mean, variance, gamma, beta, epsilon)
        if not (np.isfinite(scale).all() and np.isfinite(shift).all()):
            raise CheckpointError(f"{name}: the BatchNorm exceeds the range of float32")
        self._zero_channels[name] = channels - int(np.count_nonzero(shift))
        self._outcomes.append(
            LayerOutcome(
                name,
                "batch_norm",
                (channels,),
                count_parameters(mean, variance, gamma, beta),
                "float",
                "BatchNorm: real numbers per channel",
                findings=findings,
            )
        )
        return zoo.NormParameters(mean, variance, gamma, beta)

    def vector(self, name: str, channels: int, role: zoo.Role) -> Floats:
        """Return the vector as it is."""
        return self._state.take(name, (channels,))

    def _with_zero_signs(self, outcome: LayerOutcome) -> LayerOutcome:
        """Add what the BatchNorm of the same block maps to 0, before the sign."""
        block = outcome.name.rpartition(".")[0]
        zeros = self._zero_channels.get(f"{block}.bn", 0)
        if not (outcome.is_binary and zeros):
            return outcome
        text = "input channels where BatchNorm maps 0 to 0: sign +1 here, 0 in PyTorch"
        found = (*outcome.findings, Finding("sign of zero", zeros, text))
        return dataclasses.replace(outcome, findings=found)

    def _swap_flattened(self, value: Floats, extent: tuple[int, int]) -> Floats:
        """Exchange height and width in the last axis, (C * H * W,), if that is wanted."""
        if not self._swap_hw:
            return value
        leading = value.shape[:-1]
        return value.reshape(*leading, -1, *extent).swapaxes(-1, -2).reshape(*leading, -1)

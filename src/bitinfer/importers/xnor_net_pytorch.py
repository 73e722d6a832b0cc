"""Converts checkpoints of jiecaoyu/XNOR-Net-PyTorch: LeNet-5, NIN, AlexNet.

The checkpoints hold real weights.  Evaluation there binarises them (util.py, BinOp.binarization),
and so does this importer, once, on every convolution and dense layer but the first and the last:

    W = W - mean of W over the input channels      per (output channel, ky, kx)
    W = clamp(W, -1, 1)
    alpha[o] = mean |W[o]|,   W_b = sign(W)

Means are summed in float64 and rounded once to float32: the value that every order of float32
summation approximates.  LeNet-5 and NIN also clamp every gamma of BatchNorm to at least 0.01 before
use (forward() in LeNet_5.py and nin.py); AlexNet does not.

Two zeros that the framework knows and packed bits do not: a weight that is exactly 0 (packed as
+1; contributes nothing there) and an activation that is exactly 0 (sign +1 here, 0 there), which
occurs where BatchNorm maps the 0 of a ReLU to 0.  Both are counted per layer and reported.
"""

from __future__ import annotations

import dataclasses
import hashlib
import math
import os
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bitinfer import numerics, zoo
from bitinfer._version import __version__
from bitinfer.bits import Floats
from bitinfer.errors import CheckpointError, GraphError, InputError, ShapeError
from bitinfer.importers import torch_checkpoint
from bitinfer.importers._unpickle import describe, one_line
from bitinfer.model import Model, Preprocessing, Provenance
from bitinfer.zoo import xnor_net

MIN_GAMMA = 0.01
MAX_LABEL_BYTES = 1 << 24

_IMAGENET_MEAN = (0.485, 0.456, 0.406)

_PREPROCESSING = {
    # MNIST/main.py: ToTensor, Normalize((0.1307,), (0.3081,)).
    "xnor-lenet5": Preprocessing("grey", (0.1307,), (0.3081,), resize=(28, 28)),
    # The data set of CIFAR_10/data.py was normalised beforehand and is not published with its
    # constants; these are the usual ones.
    "xnor-nin": Preprocessing("rgb", _IMAGENET_MEAN, (0.229, 0.224, 0.225), resize=(32, 32)),
    # ImageNet/networks/main.py: Resize((256, 256)), CenterCrop(227), Normalize(mean, std=1/255).
    "xnor-alexnet": Preprocessing(
        "rgb", _IMAGENET_MEAN, (1 / 255,) * 3, resize=(256, 256), crop=(227, 227)
    ),
}
_LABELS = {
    "xnor-lenet5": tuple("0123456789"),
    "xnor-nin": (
        "airplane",
        "automobile",
        "bird",
        "cat",
        "deer",
        "dog",
        "frog",
        "horse",
        "ship",
        "truck",
    ),
    "xnor-alexnet": (),
}
ARCHITECTURES = tuple(a.name for a in xnor_net.ARCHITECTURES)
"""What :func:`convert` reads checkpoints of."""

_CLAMPS_GAMMA = ("xnor-lenet5", "xnor-nin")


@dataclasses.dataclass(frozen=True)
class LayerReport:
    """What became of one layer.

    Attributes:
        name: of the layer, as in the checkpoint.
        operation: of the graph node, such as ``bconv2d``.
        shape: of its weight, (Cout, kh, kw, Cin) or (Cout, Cin); (C,) of a BatchNorm.
        parameters: how many numbers the checkpoint holds for it.
        is_binary: whether its weights became bits.
        reason: why it did or did not.
        zero_weights: weights of exactly 0, packed as +1.
        zero_channels: input channels whose BatchNorm maps 0 to exactly 0.
        raised_gammas: gammas below MIN_GAMMA that were raised to it.
    """

    name: str
    operation: str
    shape: tuple[int, ...]
    parameters: int
    is_binary: bool
    reason: str
    zero_weights: int = 0
    zero_channels: int = 0
    raised_gammas: int = 0

    @property
    def remarks(self) -> tuple[str, ...]:
        """What the conversion changed or could not keep, in words."""
        return tuple(
            f"{count} {text}"
            for count, text in (
                (
                    self.zero_weights,
                    "weights of exactly 0 packed as +1, which PyTorch multiplies by 0",
                ),
                (
                    self.zero_channels,
                    "input channels where BatchNorm maps 0 to 0: sign +1 here, 0 in PyTorch",
                ),
                (self.raised_gammas, f"gammas raised to {MIN_GAMMA}, as before use in PyTorch"),
            )
            if count
        )


@dataclasses.dataclass(frozen=True)
class ConversionReport:
    """What became of a checkpoint, layer by layer in order of execution."""

    source: str
    layers: tuple[LayerReport, ...]

    @property
    def parameters(self) -> int:
        """Numbers in the checkpoint that belong to the network."""
        return sum(layer.parameters for layer in self.layers)

    @property
    def binary_weights(self) -> int:
        """Weights that became single bits."""
        return sum(math.prod(layer.shape) for layer in self.layers if layer.is_binary)

    @property
    def float_bytes(self) -> int:
        """Size of the network as float32."""
        return 4 * self.parameters


def convert(
    path: str | os.PathLike[str],
    arch: str,
    *,
    swap_hw: bool = False,
    labels: Sequence[str] | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    scale: float | None = None,
    resize: tuple[int, int] | int | None = None,
    crop: tuple[int, int] | None = None,
) -> tuple[Model, ConversionReport]:
    """Convert the checkpoint at ``path``, which holds the architecture ``arch`` of the zoo.

    Meaning: ``swap_hw`` exchanges height and width in every kernel and every flattened map, for a
             network that was trained on transposed pictures.  ``labels`` and what follows replace
             the architecture's own; one ``mean`` or ``std`` serves all channels.
    Cost:    memory for the file and about twice its largest layer.
    Raises:  CheckpointError if the file is no checkpoint or does not hold that network;
             GraphError if it is no architecture of XNOR-Net-PyTorch; ShapeError or InputError
             if labels or preprocessing do not fit it.
    """
    architecture = zoo.find(arch)
    if arch not in ARCHITECTURES:
        raise GraphError(
            f"no checkpoints of {arch} can be read, only of {', '.join(ARCHITECTURES)}"
        )
    preprocessing = _preprocessing(arch, mean, std, scale, resize, crop)
    data = torch_checkpoint.read_file(path)
    digest = hashlib.sha256(data).hexdigest()
    try:
        checkpoint = torch_checkpoint.from_bytes(data)
        del data
        source = _CheckpointSource(
            find_state_dict(checkpoint),
            architecture,
            clamps_gamma=arch in _CLAMPS_GAMMA,
            swap_hw=swap_hw,
        )
        del checkpoint
        graph, tensors = zoo.build(arch, source, classes=source.classes)
        source.check_nothing_left()
    except (CheckpointError, GraphError, ShapeError) as error:
        raise CheckpointError(f"{os.fspath(path)}: {error}") from error
    if labels is None:
        labels = _LABELS[arch] if len(_LABELS[arch]) == source.classes else ()
    elif len(labels) != source.classes:
        raise InputError(f"{len(labels)} labels, the network has {source.classes} classes")
    name = Path(path).name.encode("utf-8", "replace").decode()
    model = Model(
        graph=graph,
        tensors=tensors,
        labels=tuple(labels),
        preprocessing=preprocessing,
        provenance=Provenance(
            importer="xnor_net_pytorch",
            source=name,
            source_sha256=digest,
            versions={
                "bitinfer": __version__,
                "numpy": np.__version__,
                "python": platform.python_version(),
            },
            notes=("height and width swapped",) if swap_hw else (),
        ),
    )
    return model, ConversionReport(name, tuple(source.layers))


def find_state_dict(checkpoint: Mapping[str, Any]) -> dict[str, Any]:
    """Return the weights in ``checkpoint`` by name, without the parts ``module`` of DataParallel.

    Raises:
        CheckpointError: there are none, or two names differ only in such parts.
    """
    found: Any = checkpoint.get("state_dict")
    if found is None and any(isinstance(v, np.ndarray) for v in checkpoint.values()):
        found = checkpoint
    if not isinstance(found, dict):
        keys = ", ".join(one_line(key) for key in list(checkpoint)[:8]) or "nothing"
        raise CheckpointError(f"holds no 'state_dict' and no tensors, only {keys}")
    result: dict[str, Any] = {}
    for key, value in found.items():
        name = ".".join(part for part in key.split(".") if part != "module")
        if name in result:
            raise CheckpointError(f"{one_line(key)} stands twice, with and without 'module.'")
        result[name] = value
    return result


def binarise(weight: Floats) -> tuple[Floats, Floats]:
    """Return centred and clamped weights, whose signs count, and alpha.

    Shapes:  weight (Cout, Cin, ...)  ->  the same, (Cout,).
    """
    with np.errstate(over="ignore"):  # an overflow is clamped
        centre = weight.mean(axis=1, keepdims=True, dtype=np.float64).astype(np.float32)
        centred = np.clip(weight - centre, np.float32(-1), np.float32(1))
    rest = tuple(range(1, weight.ndim))
    alpha = np.abs(centred).mean(axis=rest, dtype=np.float64).astype(np.float32)
    return centred, alpha


def read_labels(path: str | os.PathLike[str]) -> tuple[str, ...]:
    """Read one label per line, UTF-8; empty lines at the end do not count.

    Raises:
        InputError: the file cannot be read.
    """
    try:
        with open(path, "rb") as file:  # noqa: PTH123 - accepts any path-like, as open does
            data = file.read(MAX_LABEL_BYTES + 1)
        if len(data) > MAX_LABEL_BYTES:
            raise InputError(f"{os.fspath(path)}: over {MAX_LABEL_BYTES} bytes of labels")
        return tuple(line.strip() for line in data.decode("utf-8-sig").rstrip().splitlines())
    except OSError as error:
        raise InputError(f"{os.fspath(path)}: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{os.fspath(path)}: not UTF-8 text") from error


class _CheckpointSource:
    """Answers a network of the zoo from a checkpoint, and keeps the report."""

    def __init__(
        self,
        state: dict[str, Any],
        architecture: zoo.Architecture,
        *,
        clamps_gamma: bool,
        swap_hw: bool,
    ) -> None:
        self.layers: list[LayerReport] = []
        self._state = state
        self._architecture = architecture
        self._clamps_gamma = clamps_gamma
        self._swap_hw = swap_hw
        self._zero_channels = 0
        output = state.get(f"{architecture.output_layer}.weight")
        self.classes = architecture.classes
        if isinstance(output, np.ndarray) and output.ndim > 0 and len(output) > 0:
            self.classes = len(output)

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
        # PyTorch: (Cout, Cin, kh, kw); here: (Cout, kh, kw, Cin).
        is_conv = len(shape) == 4
        foreign = (shape[0], shape[3], shape[1], shape[2]) if is_conv else shape
        weight = self._take(f"{name}.weight", foreign)
        bias = self._take(f"{name}.bias", shape[:1]) if has_bias else None
        alpha = None
        zeros = 0
        if is_binary:
            weight, alpha = binarise(weight)
            alpha = alpha if has_alpha else None
            zeros = weight.size - int(np.count_nonzero(weight))
        if is_conv:
            weight = weight.transpose((0, 3, 2, 1) if self._swap_hw else (0, 2, 3, 1))
        elif flattened is not None:
            weight = self._swap_flattened(weight, flattened)
        if is_binary:
            reason = "weights and input are binary in XNOR-Net"
        elif name == self._architecture.output_layer:
            reason = "last layer: real in XNOR-Net"
        else:
            reason = "first layer: real in XNOR-Net"
        self.layers.append(
            LayerReport(
                name,
                ("b" if is_binary else "") + ("conv2d" if is_conv else "dense"),
                shape,
                weight.size + (0 if bias is None else bias.size),
                is_binary,
                reason,
                zero_weights=zeros,
                zero_channels=self._zero_channels if is_binary else 0,
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
        def take(key: str) -> Floats:
            value = self._take(f"{name}.{key}", (channels,))
            return value if flattened is None else self._swap_flattened(value, flattened)

        mean, variance = take("running_mean"), take("running_var")
        gamma = take("weight") if is_affine else None
        beta = take("bias") if is_affine else None
        raised = 0
        if gamma is not None and self._clamps_gamma:
            raised = int(np.count_nonzero(gamma < MIN_GAMMA))
            gamma = np.maximum(gamma, np.float32(MIN_GAMMA))
        if not float(np.min(variance)) >= 0:
            raise CheckpointError(f"{name}.running_var: a variance is below 0")
        with np.errstate(over="ignore"):
            scale, shift = numerics.batch_norm_affine(mean, variance, gamma, beta, epsilon)
        if not (np.isfinite(scale).all() and np.isfinite(shift).all()):
            raise CheckpointError(f"{name}: the BatchNorm exceeds the range of float32")
        self._zero_channels = channels - int(np.count_nonzero(shift))
        self.layers.append(
            LayerReport(
                name,
                "batch_norm",
                (channels,),
                channels * (4 if is_affine else 2),
                False,
                "BatchNorm: real numbers per channel",
                raised_gammas=raised,
            )
        )
        return zoo.NormParameters(mean, variance, gamma, beta)

    def vector(self, name: str, channels: int, role: zoo.Role) -> Floats:
        return self._take(name, (channels,))

    def check_nothing_left(self) -> None:
        """Raise CheckpointError if the checkpoint holds weights that the network has not."""
        # A counter that torch >= 0.4.1 keeps for training.
        left = [key for key in self._state if not key.endswith(".num_batches_tracked")]
        if left:
            raise CheckpointError(
                f"{one_line(left[0])} is no part of {self._architecture.name}"
                + (f", nor are {len(left) - 1} more" if len(left) > 1 else "")
                + ": does the checkpoint hold another architecture?"
            )

    def _take(self, key: str, shape: tuple[int, ...]) -> Floats:
        wanted = f"{self._architecture.name} wants floats of the shape {shape}"
        if key not in self._state:
            rest = ", ".join(one_line(k) for k in list(self._state)[:3])
            raise CheckpointError(
                f"{key} is missing; {wanted}; the checkpoint goes on with {rest or 'nothing'}: "
                "does it hold another architecture?"
            )
        value = self._state.pop(key)
        if not isinstance(value, np.ndarray):
            raise CheckpointError(f"{key} is {describe(value)}; {wanted}")
        if value.dtype.kind != "f" or value.shape != shape:
            raise CheckpointError(f"{key} is {value.dtype} of shape {value.shape}; {wanted}")
        with np.errstate(over="ignore"):
            result: Floats = value.astype(np.float32)
        if not np.isfinite(result).all():
            raise CheckpointError(f"{key} holds NaN or infinity, or numbers beyond float32")
        return result

    def _swap_flattened(self, value: Floats, extent: tuple[int, int]) -> Floats:
        """Exchange height and width in the last axis, (C * H * W,), if that is wanted."""
        if not self._swap_hw:
            return value
        leading = value.shape[:-1]
        return value.reshape(*leading, -1, *extent).swapaxes(-1, -2).reshape(*leading, -1)


def _preprocessing(
    arch: str,
    mean: Sequence[float] | None,
    std: Sequence[float] | None,
    scale: float | None,
    resize: tuple[int, int] | int | None,
    crop: tuple[int, int] | None,
) -> Preprocessing:
    default = _PREPROCESSING[arch]
    channels = len(default.mean)

    def per_channel(
        what: str, values: Sequence[float] | None, own: tuple[float, ...]
    ) -> tuple[float, ...]:
        if values is None:
            return own
        if len(values) not in (1, channels):
            raise ShapeError(
                f"{what}: {len(values)} numbers for {channels} channels, wanted 1 or {channels}"
            )
        return tuple(values) * (channels // len(values))

    return Preprocessing(
        color=default.color,
        mean=per_channel("mean", mean, default.mean),
        std=per_channel("std", std, default.std),
        scale=default.scale if scale is None else scale,
        resize=default.resize if resize is None else resize,
        crop=default.crop if crop is None else crop,
        interpolation=default.interpolation,
    )

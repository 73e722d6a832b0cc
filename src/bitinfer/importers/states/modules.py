"""Writes the network of a state dict as a foreign graph, module by module of PyTorch.

Each method writes what one module computes, named as the module is in the state dict, and returns
the name of its value.  Maps are NCHW.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bitinfer.bits import Floats
from bitinfer.errors import CheckpointError
from bitinfer.importers import binary
from bitinfer.importers.foreign import Attribute, Foreign, ForeignNode
from bitinfer.importers.states.state_dict import Signature, StateDict
from bitinfer.model import Preprocessing
from bitinfer.zoo.data import DataSet

INPUT = "input"
MAX_BLOCKS = 1000


@dataclasses.dataclass(frozen=True)
class StateNetwork:
    """A network whose state dicts are read as a foreign graph.

    Attributes:
        importer: its name in a model's provenance.
        title: of the network, in words.
        signature: some keys with shapes that no other network has.
        data_set: what it was trained on.
        trained_with: how a picture becomes its input, unless options say otherwise.
        write: writes the modules, and returns the name of the output.
    """

    importer: str
    title: str
    signature: Signature
    data_set: DataSet
    trained_with: Preprocessing
    write: Callable[[Modules], str]

    def __str__(self) -> str:
        return self.title

    def fits(self, state: StateDict) -> bool:
        """Tell whether ``state`` has the names and shapes of this network."""
        return state.has_signature(self.signature)

    def network(self, state: StateDict, *, swap_hw: bool = False) -> Foreign:
        """Return the network with the weights of ``state``.

        ``swap_hw`` exchanges height and width in every kernel and every flattened map.

        Raises:
            CheckpointError: weights are missing, or have other shapes, or are left over.
        """
        state.owner = self.title
        modules = Modules(state, swap_hw=swap_hw)
        output = self.write(modules)
        state.check_nothing_left()
        return modules.foreign(self.importer, output)


def signs(weight: Floats) -> Floats:
    """Return the signs of a weight as ``torch.sign`` has them: 0 where it is 0."""
    return np.sign(weight)


def scaled_by(scale: binary.MeanScale) -> Callable[[Floats], Floats]:
    """Return what makes of a weight ``alpha * sign(weight)``, one alpha per filter."""

    def binarise(weight: Floats) -> Floats:
        counted, alpha = scale.split(weight)
        column = alpha.reshape(-1, *(1,) * (weight.ndim - 1))
        return np.asarray(column * np.sign(counted), np.float32)

    return binarise


class Modules:
    """The graph as far as it is written.

    Attributes:
        state: the weights.
        shape: (C, H, W) of the input; whoever writes the network sets it.
    """

    def __init__(self, state: StateDict, *, swap_hw: bool = False) -> None:
        self.state = state
        self.shape: tuple[int, ...] = ()
        self._swap_hw = swap_hw
        self._nodes: list[ForeignNode] = []
        self._constants: dict[str, NDArray[Any]] = {}

    def foreign(self, name: str, output: str) -> Foreign:
        """Return the graph."""
        nodes = tuple(self._nodes)
        return Foreign(name, "NCHW", INPUT, self.shape, nodes, self._constants, (output,))

    def add(self, name: str, word: str, *inputs: str, **attributes: Attribute) -> str:
        """Write one word of foreign.OPERATIONS."""
        self._nodes.append(ForeignNode(name, word, inputs, attributes))
        return name

    def constant(self, name: str, value: NDArray[Any]) -> str:
        """Keep a constant."""
        self._constants[name] = value
        return name

    def vector(self, key: str, channels: int, *, is_map: bool = True) -> str:
        """Take numbers per channel, (C,) or with axes of 1 around it."""
        plain, framed = (channels,), (1, channels, 1, 1)
        is_framed = self.state.has_signature({key: framed})
        value = self.state.take(key, framed if is_framed else plain).reshape(-1)
        return self.constant(key, value.reshape(-1, 1, 1) if is_map else value)

    def conv(
        self,
        name: str,
        x: str,
        shape: tuple[int, int, int],
        *,
        stride: int = 1,
        padding: int = 0,
        bias: str = "",
        key: str = "",
        binarise: Callable[[Floats], Floats] | None = None,
    ) -> str:
        """Write a convolution; ``shape`` is (Cout, Cin, k), ``bias`` the key of one."""
        outputs, inputs, kernel = shape
        key = key or f"{name}.weight"
        weight = self._weight(key, (outputs, inputs, kernel, kernel))
        if binarise is not None:
            weight = binarise(weight)
        if self._swap_hw:
            weight = np.ascontiguousarray(weight.swapaxes(2, 3))
        constants = [self.constant(key, weight)]
        if bias:
            constants.append(self.vector(bias, outputs, is_map=False))
        attributes: dict[str, Attribute] = {
            "strides": (stride, stride),
            "pads": (padding,) * 4,
            "dilations": (1, 1),
            "groups": 1,
            "pad_value": 0.0,
        }
        return self.add(name, "conv", x, *constants, axes="OIHW", counts="sums", **attributes)

    def _weight(self, key: str, shape: tuple[int, ...]) -> Floats:
        """Take a weight of this shape, or, as Bi-Real-Net stores it, of a column of so many."""
        size = int(np.prod(shape))
        if self.state.has_signature({key: (size, 1)}):
            return self.state.take(key, (size, 1)).reshape(shape)
        return self.state.take(key, shape)

    def dense(
        self,
        name: str,
        x: str,
        shape: tuple[int, int],
        *,
        flattened: tuple[int, int] | None = None,
        binarise: Callable[[Floats], Floats] | None = None,
    ) -> str:
        """Write a dense layer with a bias; ``flattened`` is (H, W) of the map that it reads."""
        weight = self.state.take(f"{name}.weight", shape)
        if binarise is not None:
            weight = binarise(weight)
        weight = self.swapped(weight, flattened)
        key = self.constant(f"{name}.weight", weight)
        bias = self.vector(f"{name}.bias", shape[0], is_map=False)
        return self.add(name, "dense", x, key, bias, axes="OI", counts="sums")

    def norm(
        self,
        name: str,
        x: str,
        channels: int,
        *,
        epsilon: float = 1e-5,
        affine: bool = True,
        lowest_gamma: float | None = None,
        flattened: tuple[int, int] | None = None,
    ) -> str:
        """Write a BatchNorm; gammas below ``lowest_gamma`` are raised to it."""
        parts = {"weight": "", "bias": ""} if not affine else {}
        for part in ("weight", "bias", "running_mean", "running_var"):
            if part in parts:
                continue
            value = self.swapped(self.state.take(f"{name}.{part}", (channels,)), flattened)
            if part == "weight" and lowest_gamma is not None:
                value = np.maximum(value, np.float32(lowest_gamma))
            parts[part] = self.constant(f"{name}.{part}", value)
        order = (parts[p] for p in ("weight", "bias", "running_mean", "running_var"))
        return self.add(name, "batch_norm", x, *order, epsilon=epsilon)

    def swapped(self, value: Floats, extent: tuple[int, int] | None) -> Floats:
        """Exchange height and width in the last axis, (C * H * W,), if that is wanted."""
        if not self._swap_hw or extent is None:
            return value
        leading = value.shape[:-1]
        return value.reshape(*leading, -1, *extent).swapaxes(-1, -2).reshape(*leading, -1)

    def sign(self, name: str, x: str) -> str:
        """Write ``torch.sign``."""
        return self.add(name, "sign", x, at_zero=0, low=-1.0, high=1.0)

    def max_pool(self, name: str, x: str, kernel: int, stride: int, padding: int = 0) -> str:
        """Write a maximum over windows."""
        return self._pool(name, "max_pool", x, kernel, stride, padding)

    def avg_pool(self, name: str, x: str, kernel: int, stride: int, padding: int = 0) -> str:
        """Write a mean over windows, padded numbers counted."""
        return self._pool(name, "avg_pool", x, kernel, stride, padding, count_include_pad=1)

    def _pool(
        self, name: str, word: str, x: str, kernel: int, stride: int, padding: int, **more: int
    ) -> str:
        window = {"kernel": (kernel,) * 2, "strides": (stride,) * 2, "pads": (padding,) * 4}
        return self.add(name, word, x, **window, **more)

    def shifted(self, key: str, x: str, channels: int) -> str:
        """Write the sum with a learned number per channel, ``key``.bias."""
        return self.add(key, "add", x, self.vector(f"{key}.bias", channels))

    def prelu(self, name: str, x: str, channels: int) -> str:
        """Write a PReLU with a slope per channel."""
        return self.add(name, "prelu", x, self.vector(f"{name}.weight", channels))

    def classes(self, name: str) -> int:
        """Return how many outputs the dense layer ``name`` has; 0 where it is missing."""
        return self.state.first_axis(f"{name}.weight") or 0

    def count_blocks(self, key: str) -> int:
        """Return for how many numbers from 0 the key, with one in place of {}, is there."""
        for block in range(MAX_BLOCKS):
            if self.state.first_axis(key.format(block)) is None:
                return block
        raise CheckpointError(f"{self.state.owner}: over {MAX_BLOCKS} blocks")

"""Evaluates networks in PyTorch, with float64 numbers in place of bits, beside our own values.

A twin of a network (twins.py) computes one layer after the other and hands each result to
:meth:`Twin.take`, which compares it with what our plan has under that name.

    fed     every layer reads our own values, so that no difference reaches the next layer
    free    every layer reads the twin's values: what the network as a whole gives

PyTorch's layout here is (1, C, H, W) or (1, C); ours is (H, W, C) or (C,).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from bitinfer import zoo
from bitinfer.backends import Backend
from bitinfer.graph import Graph, check, nodes
from bitinfer.plan import lower
from bitinfer.plan.observe import named, observe
from harness import run_executor

torch = pytest.importorskip("torch", reason="the float evaluation runs in PyTorch")
F = torch.nn.functional

Array = NDArray[Any]
Tensor = Any

TIE = 1e-5
"""A bit may differ where the float is this close to the threshold, in units of its channel."""

SLACK = 3e-5
"""How far off a float layer may be, in standard deviations of its result: float32's rounding."""


class Recorder(zoo.RandomParameters):
    """Makes numbers up, and keeps them by name."""

    def __init__(self, seed: int) -> None:
        super().__init__(seed)
        self.layers: dict[str, zoo.LayerParameters] = {}
        self.norms: dict[str, tuple[zoo.NormParameters, float]] = {}
        self.vectors: dict[str, Array] = {}

    def layer(self, name: str, shape: tuple[int, ...], **kwargs: Any) -> zoo.LayerParameters:
        self.layers[name] = super().layer(name, shape, **kwargs)
        return self.layers[name]

    def norm(self, name: str, channels: int, **kwargs: Any) -> zoo.NormParameters:
        parameters = super().norm(name, channels, **kwargs)
        self.norms[name] = (parameters, kwargs["epsilon"])
        return parameters

    def vector(self, name: str, channels: int, role: zoo.Role) -> Array:
        self.vectors[name] = super().vector(name, channels, role)
        return self.vectors[name]


def plan_values(
    backend: Backend, graph: Graph, tensors: Mapping[str, Array], x: Array
) -> dict[str, Array]:
    """Return every value of one sample as the backend has it; signs as -1 and +1."""
    plan = observe(lower(check(graph, tensors)))
    outputs = run_executor(backend.bind(plan), plan, x[None])
    return {name: value[0] for name, value in named(plan, outputs).items()}


@dataclasses.dataclass
class Tie:
    """A bit that differs, and how far the float is from its threshold."""

    name: str
    index: tuple[int, ...]
    distance: float

    def __str__(self) -> str:
        return f"{self.name}{list(self.index)}: {self.distance:.1e} from the threshold"


class Twin:
    """Layers in float64 with the recorded numbers, checked against our values."""

    def __init__(self, recorder: Recorder, ours: Mapping[str, Array], *, is_fed: bool) -> None:
        self.recorder = recorder
        self.ours = ours
        self.is_fed = is_fed
        self.ties: list[Tie] = []
        self.taken: set[str] = set()

    # --- comparing -------------------------------------------------------------------------------

    def take(self, name: str, value: Tensor, *, is_exact: bool = False) -> Tensor:
        """Compare a value that is no sign; return the one to go on with."""
        self.taken.add(name)
        if not self.is_fed:
            return value
        got, wanted = self.ours[name].astype(np.float64), to_ours(value)
        assert got.shape == wanted.shape, f"{name}: shape {got.shape}, wanted {wanted.shape}"
        if is_exact:
            wrong = got != wanted
        else:
            wrong = np.abs(got - wanted) > SLACK * (np.std(wanted) + np.abs(wanted))
        assert not wrong.any(), (
            f"{name}: {np.count_nonzero(wrong)} of {wrong.size} wrong, first {got[wrong][0]} for "
            f"{wanted[wrong][0]}"
        )
        return to_torch(got)

    def sign(self, x: Tensor, name: str, shift: str | None = None) -> Tensor:
        """Return the sign of x, plus a shift of each channel: +1 for 0."""
        self.taken.add(name)
        if shift is not None:
            x = x + per_channel(self.recorder.vectors[shift], x)
        wanted = torch.where(x < 0, -1.0, 1.0).double()
        got = self.ours[name]
        for index in np.argwhere(got != to_ours(wanted)):
            distance = abs(float(to_ours(x)[tuple(index)]))
            self.ties.append(Tie(name, tuple(index.tolist()), distance))
        return to_torch(got) if self.is_fed else wanted

    # --- layers ----------------------------------------------------------------------------------

    def conv(
        self,
        x: Tensor,
        name: str,
        stride: int = 1,
        pad: tuple[int, int, int, int] | int = 0,
        groups: int = 1,
    ) -> Tensor:
        """Float convolution; ``pad`` is (left, right, top, bottom) as PyTorch has it."""
        p = self.recorder.layers[name]
        weight = torch.from_numpy(p.weight.astype(np.float64)).permute(0, 3, 1, 2)
        y = convolve(x, weight, stride, pad, 0.0, groups)
        return self.take(name, self.finish(y, p))

    def binary_conv(
        self,
        x: Tensor,
        name: str,
        stride: int = 1,
        pad: tuple[int, int, int, int] | int = 0,
        pad_value: float = 0.0,
        scale: float | None = None,
    ) -> Tensor:
        """Convolution with the signs of the weights; of sums without a scale, an exact one."""
        p = self.recorder.layers[name]
        weight = torch.from_numpy(np.where(p.weight < 0, -1.0, 1.0)).permute(0, 3, 1, 2)
        y = convolve(x, weight, stride, pad, pad_value, 1)
        if scale is not None:
            y = y * scale
        is_sum = p.alpha is None and p.bias is None and bool((x == x.round()).all())
        return self.take(name, self.finish(y, p), is_exact=is_sum)

    def scaled_conv(self, x: Tensor, name: str, stride: int, scale: Tensor) -> Tensor:
        """Binary 3x3 convolution, its sums times ``scale`` of every pixel and alpha."""
        p = self.recorder.layers[name]
        weight = torch.from_numpy(np.where(p.weight < 0, -1.0, 1.0)).permute(0, 3, 1, 2)
        return self.take(name, self.finish(convolve(x, weight, stride, 1, 0.0, 1) * scale, p))

    def dense(self, x: Tensor, name: str) -> Tensor:
        """Float dense layer."""
        p = self.recorder.layers[name]
        return self.take(name, self.finish(x @ torch.from_numpy(p.weight.astype(np.float64)).T, p))

    def binary_dense(self, x: Tensor, name: str) -> Tensor:
        """Dense layer of signs with the signs of the weights."""
        p = self.recorder.layers[name]
        y = x @ torch.from_numpy(np.where(p.weight < 0, -1.0, 1.0)).T
        return self.take(name, self.finish(y, p), is_exact=p.alpha is None and p.bias is None)

    def finish(self, y: Tensor, p: zoo.LayerParameters) -> Tensor:
        """Scale and shift sums as a layer's alpha and bias say."""
        if p.alpha is not None:
            y = y * per_channel(p.alpha, y)
        return y if p.bias is None else y + per_channel(p.bias, y)

    def norm(self, x: Tensor, name: str) -> Tensor:
        """BatchNorm at inference."""
        p, epsilon = self.recorder.norms[name]
        parts = (
            None if part is None else torch.from_numpy(np.resize(part, x.shape[1])).double()
            for part in (p.mean, p.variance, p.gamma, p.beta)
        )
        mean, variance, gamma, beta = parts
        y = F.batch_norm(x, mean, variance, gamma, beta, training=False, eps=epsilon)
        return self.take(name, y)

    def prelu(self, x: Tensor, slope: str) -> Tensor:
        """PReLU with the recorded slopes."""
        return F.prelu(x, torch.from_numpy(self.recorder.vectors[slope]).double())

    def shift(self, x: Tensor, name: str) -> Tensor:
        """Add the recorded numbers, one for each channel."""
        return x + per_channel(self.recorder.vectors[name], x)


def convolve(
    x: Tensor,
    weight: Tensor,
    stride: int,
    pad: tuple[int, int, int, int] | int,
    pad_value: float,
    groups: int,
) -> Tensor:
    """Pad explicitly, then convolve; where one column is left, as a product of matrices.

    PyTorch's float64 convolution has been seen to be wrong there.
    """
    sides = (pad,) * 4 if isinstance(pad, int) else pad
    x = F.pad(x, sides, value=pad_value).contiguous()
    if x.shape[3] - weight.shape[3] >= stride or groups != 1:
        return F.conv2d(x, weight.contiguous(), stride=stride, groups=groups)
    height, width = weight.shape[2:]
    rows = range(0, x.shape[2] - height + 1, stride)
    flat = weight.reshape(len(weight), -1)
    columns = [flat @ x[0, :, r : r + height, :width].reshape(-1) for r in rows]
    return torch.stack(columns, dim=1)[None, :, :, None]


def per_channel(values: Array, x: Tensor) -> Tensor:
    """Return values that can be multiplied with or added to x channel by channel."""
    return torch.from_numpy(values.astype(np.float64)).reshape(1, -1, *[1] * (x.ndim - 2))


def same(x: Tensor, kernel: int, stride: int) -> tuple[int, int, int, int]:
    """Return TensorFlow's padding, in PyTorch's order: left, right, top, bottom."""
    sides: list[int] = []
    for length in (x.shape[3], x.shape[2]):
        total = max(0, kernel - (length % stride or stride))
        sides += [total // 2, total - total // 2]
    return (sides[0], sides[1], sides[2], sides[3])


def max_pool(x: Tensor, kernel: int, stride: int, pad: tuple[int, int, int, int] | int) -> Tensor:
    """Maximum over windows; padding never wins."""
    sides = (pad,) * 4 if isinstance(pad, int) else pad
    return F.max_pool2d(F.pad(x, sides, value=-np.inf), kernel, stride)


def to_ours(value: Tensor) -> Array:
    """(1, C, H, W) or (1, C) -> (H, W, C) or (C,)."""
    array: Array = value.numpy()[0]
    return array.transpose(1, 2, 0) if array.ndim == 3 else array


def to_torch(value: Array) -> Tensor:
    """(H, W, C) or (C,) -> (1, C, H, W) or (1, C)."""
    value = value.astype(np.float64)
    value = value.transpose(2, 0, 1) if value.ndim == 3 else value
    return torch.from_numpy(np.ascontiguousarray(value))[None]


def named_layers(graph: Graph) -> set[str]:
    """Return the names of the nodes that every twin has to look at."""
    kinds = (nodes.Layer, nodes.BatchNorm, nodes.Sign)
    return {node.name for node in graph.nodes if isinstance(node, kinds)}

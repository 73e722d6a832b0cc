"""Runs plans on a backend under hard conditions, and checks what comes out, layer by layer."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

import oracle
from bitinfer import backends
from bitinfer.backends import Backend, Executor
from bitinfer.graph import Graph, GraphBuilder, nodes
from bitinfer.plan import Buffer, Plan, Step, lower

Array = NDArray[Any]

HALF_ULP = 2.0**-24
"""Largest relative error of one float32 operation."""

DTYPES = {"float": np.float32, "bits": np.uint64, "pixels": np.uint8, "int8": np.int8}


@functools.cache
def known_backends() -> list[tuple[str, str]]:
    """Return every backend and instruction set, and why it cannot be tested here ("": it can)."""
    result = []
    for status in backends.status():
        if status.name != "native" or not status.available:
            result.append((status.name, status.reason))
            continue
        for isa, runs in backends.cpu_features().items():
            result.append((f"native:{isa}", "" if runs else f"this CPU has no {isa}"))
    return result


def bind(backend: Backend, plan: Plan) -> Executor:
    """Bind a plan; its constants may not be written to."""
    for step in plan.steps:
        for field in dataclasses.fields(step):
            value = getattr(step, field.name)
            if isinstance(value, np.ndarray):
                value.flags.writeable = False
    return backend.bind(plan)


def fill_arena(executor: Any, byte: int) -> None:
    """Fill an arena of the executor, made now if there is none, with one byte."""
    if hasattr(executor, "_workspaces"):
        with executor._workspaces.take() as workspace:
            workspace.arena[...] = byte
        return
    with executor._arenas.take() as arena:
        parts = arena.values()
        for part in parts:
            part.view(np.uint8)[...] = byte


def run_executor(executor: Executor, plan: Plan, x: Array) -> list[Array]:
    """Run a batch twice, over different junk in outputs and arena, and return the outputs."""
    x = np.ascontiguousarray(x)
    before = x.tobytes()
    runs = []
    for byte in (0xFF, 0x3C):
        fill_arena(executor, byte)
        outputs = [_junk(len(x), plan.buffers[number], byte) for number in plan.outputs]
        executor.run(x, outputs)
        runs.append(outputs)
    assert x.tobytes() == before, "the input was written to"
    for name, first, second in zip(plan.output_names, *runs, strict=True):
        assert first.tobytes() == second.tobytes(), f"{name} depends on what memory held before"
    return runs[0]


def run_graph(
    backend: Backend, graph: Graph, tensors: Mapping[str, Array], x: Array
) -> dict[str, Array]:
    """Run a batch and return the outputs by name."""
    plan = lower(graph, tensors)
    outputs = run_executor(bind(backend, plan), plan, x.astype(np.float32))
    return dict(zip(plan.output_names, outputs, strict=True))


def run_step(
    backend: Backend, step: Step, source: Buffer, target: Buffer, x: Array, beta: None = None
) -> Array:
    """Run a plan of one step on one sample; the step reads buffer 0 and writes buffer 1."""
    plan = Plan((source, target), (step,), input=0, outputs=(1,), output_names=("y",))
    return run_executor(bind(backend, plan), plan, x[None])[0][0]


def _junk(samples: int, buffer: Buffer, byte: int) -> Array:
    shape = (samples, *buffer.stored_shape)
    return (
        np.full(
            math.prod(shape) * buffer.size_bytes // math.prod(buffer.stored_shape), byte, np.uint8
        )
        .view(DTYPES[buffer.kind])
        .reshape(shape)
    )


# --- binary convolutions -------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class BinaryConv:
    """One binary convolution; its arrays follow from ``seed``.

    ``fill``: "random"; "opposite": every tap is a mismatch; "equal": none is; "negative":
    everything is -1.
    """

    extent: tuple[int, int]
    channels: int
    outputs: int
    kernel: tuple[int, int] = (3, 3)
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int, int, int] = (0, 0, 0, 0)
    dilation: tuple[int, int] = (1, 1)
    groups: int = 1
    pad_value: int = 0
    alpha: bool = False
    bias: bool = False
    beta: bool = False
    fill: str = "random"
    seed: int = 0

    @property
    def fits(self) -> bool:
        """Whether the window is no larger than the padded map."""
        size = oracle.window_shape(
            self.extent, self.kernel, self.stride, self.padding, self.dilation
        )
        return min(size) > 0

    @property
    def window(self) -> dict[str, Any]:
        """Arguments that the builder and the oracle share."""
        return {
            "stride": self.stride,
            "padding": self.padding,
            "dilation": self.dilation,
            "groups": self.groups,
        }

    def arrays(self) -> tuple[Array, Array, Array | None, Array | None]:
        """Return x, weight, alpha, bias."""
        rng = np.random.default_rng(self.seed)
        x = rng.standard_normal((*self.extent, self.channels), np.float32)
        shape = (self.outputs, *self.kernel, self.channels // self.groups)
        weight = rng.standard_normal(shape, np.float32)
        if self.fill != "random":
            x = np.full_like(x, -1 if self.fill == "negative" else 1)
            weight = np.full_like(weight, 1 if self.fill == "equal" else -1)
        alpha = rng.standard_normal(self.outputs, np.float32) if self.alpha else None
        bias = rng.standard_normal(self.outputs, np.float32) if self.bias else None
        return x, weight, alpha, bias

    def graph(self) -> tuple[Graph, dict[str, Array]]:
        """Return a graph whose outputs are ``y`` and, with a beta map, ``beta``."""
        _, weight, alpha, bias = self.arrays()
        b = GraphBuilder("one layer", (*self.extent, self.channels))
        beta = None
        if self.beta:
            beta = b.beta_map(b.input, kernel=self.kernel, **self.window, name="beta")
        b.bconv2d(
            b.sign(b.input),
            weight,
            alpha=alpha,
            bias=bias,
            beta=beta,
            pad_value=self.pad_value,
            name="y",
            **self.window,
        )
        return b.build("y", *([beta] if beta else []))

    def dot(self) -> Array:
        """Return the exact integer results."""
        x, weight, _, _ = self.arrays()
        return oracle.conv2d(
            oracle.signs(x), oracle.signs(weight), pad_value=self.pad_value, **self.window
        )

    def check(self, backend: Backend, dot: Array | None = None) -> None:
        """Assert that the backend gives exactly the oracle's result."""
        x, _, alpha, bias = self.arrays()
        values = run_graph(backend, *self.graph(), x[None])
        beta = values["beta"][0] if self.beta else None
        if beta is not None:
            exact = oracle.beta_map(
                x, self.kernel, self.stride, self.padding, self.dilation, self.groups
            )
            np.testing.assert_allclose(beta, exact, rtol=1e-5, atol=1e-30)
        dot = self.dot() if dot is None else dot
        wanted = oracle.scale(dot, alpha, beta, bias, self.groups)
        assert np.array_equal(values["y"][0], wanted), self._first_difference(values["y"], wanted)

    def _first_difference(self, got: Array, wanted: Array) -> str:
        index = np.argwhere(got[0] != wanted)[0]
        number = np.count_nonzero(got[0] != wanted)
        return (
            f"{self}: {number} of {wanted.size} differ, first at {index.tolist()}: "
            f"{got[0][tuple(index)]}, wanted {wanted[tuple(index)]}"
        )


# --- whole networks ------------------------------------------------------------------------------


def check_layers(
    graph: Graph, tensors: Mapping[str, Array], x: Array, values: Mapping[str, Array]
) -> None:
    """Assert that every layer did right by what the layers before it gave.

    ``values`` holds every float value of one sample.  Signs are compared through the layers that
    read them.  Binary layers must be equal; float layers may differ by the rounding of float32.
    """
    known: dict[str, Array] = {graph.input.name: x, **values}
    for node in graph.nodes:
        if node.name in values:
            wanted, slack = _expect(node, known, tensors)
            got = values[node.name]
            assert got.shape == wanted.shape, f"{node}: shape {got.shape}, wanted {wanted.shape}"
            wrong = np.abs(got - wanted) > slack
            assert not wrong.any(), (
                f"{node}: {np.count_nonzero(wrong)} of {wrong.size} wrong, first "
                f"{got[wrong][0]} for {wanted[wrong][0]}"
            )
        else:
            known[node.name], _ = _expect(node, known, tensors)


def right_values(
    graph: Graph, tensors: Mapping[str, Array], x: Array
) -> tuple[dict[str, Array], float]:
    """Return every value of one sample as the oracle has it, floats rounded to float32.

    The second number is the magnitude of the smallest float that becomes a sign and is not 0: a
    backend whose rounding errors are smaller gives the same signs.
    """
    known: dict[str, Array] = {graph.input.name: x.astype(np.float32)}
    smallest = math.inf
    for node in graph.nodes:
        value, _ = _expect(node, known, tensors)
        known[node.name] = value.astype(np.float32)
        if isinstance(node, nodes.Sign):
            magnitudes = np.abs(known[node.input])
            smallest = min(smallest, float(np.min(magnitudes, where=magnitudes > 0, initial=9)))
    return known, smallest


def float_values(graph: Graph, tensors: Mapping[str, Array]) -> Graph:
    """Return the graph with every float value as an output."""
    from bitinfer.graph import infer

    values = infer(graph, tensors)
    names = tuple(node.name for node in graph.nodes if values[node.name].kind == "float")
    return Graph(graph.name, graph.input, graph.nodes, names)


def _expect(
    node: nodes.Node, known: Mapping[str, Array], tensors: Mapping[str, Array]
) -> tuple[Array, Array | float]:
    """Return what a node should give, and by how much it may be off."""
    x = known[node.input]
    match node:
        case nodes.Sign():
            return oracle.signs(x), 0.0
        case nodes.Flatten():
            return oracle.flatten(x, node.order), 0.0
        case nodes.Relu():
            return oracle.relu(x), 0.0
        case nodes.MaxPool2d():
            return oracle.pool2d(x, "max", node.kernel, node.stride, node.padding), 0.0
        case nodes.BinaryConv2d() | nodes.BinaryDense():
            return _expect_binary(node, known, tensors), 0.0
        case nodes.Conv2d() | nodes.Dense():
            return _expect_float(node, x, tensors)
        case nodes.AvgPool2d():
            window = (node.kernel, node.stride, node.padding)
            rule = {"count_include_pad": node.count_include_pad}
            size = oracle.pool2d(np.abs(x), "mean", *window, **rule)
            taps = math.prod(node.kernel)
            return oracle.pool2d(x, "mean", *window, **rule), size * (taps + 2) * HALF_ULP
        case nodes.BetaMap():
            exact = oracle.beta_map(
                x, node.kernel, node.stride, node.padding, node.dilation, node.groups
            )
            terms = x.shape[-1] // node.groups + math.prod(node.kernel)
            return exact, exact * (terms + 3) * HALF_ULP
        case nodes.BatchNorm():
            return _expect_batch_norm(node, x, tensors)
        case nodes.Softmax():
            exact = oracle.softmax(x)
            return exact, exact * (1e-6 + np.abs(x - np.max(x)) * HALF_ULP) + 1e-37


def _expect_binary(
    node: nodes.BinaryConv2d | nodes.BinaryDense,
    known: Mapping[str, Array],
    tensors: Mapping[str, Array],
) -> Array:
    x, groups = known[node.input], getattr(node, "groups", 1)
    weight = oracle.signs_of(tensors[node.weight], x.shape[-1] // groups)
    if isinstance(node, nodes.BinaryDense):
        dot = oracle.dense(x, weight)
    else:
        dot = oracle.conv2d(
            x,
            weight,
            stride=node.stride,
            padding=node.padding,
            dilation=node.dilation,
            groups=groups,
            pad_value=node.pad_value,
        )
    alpha, beta, bias = (
        None if name is None else source[name]
        for name, source in ((node.alpha, tensors), (node.beta, known), (node.bias, tensors))
    )
    return oracle.scale(dot, alpha, beta, bias, groups)


def _expect_float(
    node: nodes.Conv2d | nodes.Dense, x: Array, tensors: Mapping[str, Array]
) -> tuple[Array, Array]:
    weight = tensors[node.weight]
    bias = np.float64(0) if node.bias is None else tensors[node.bias].astype(np.float64)

    def product(a: Array, b: Array) -> Array:
        if isinstance(node, nodes.Dense):
            return oracle.dense(a, b)
        return oracle.conv2d(
            a,
            b,
            stride=node.stride,
            padding=node.padding,
            dilation=node.dilation,
            groups=node.groups,
        )

    size = product(np.abs(x), np.abs(weight)) + np.abs(bias)
    terms = math.prod(weight.shape[1:])
    return product(x, weight) + bias, size * (terms + 2) * HALF_ULP


def _expect_batch_norm(
    node: nodes.BatchNorm, x: Array, tensors: Mapping[str, Array]
) -> tuple[Array, Array]:
    def parameter(name: str | None) -> Array | None:
        return None if name is None else tensors[name]

    mean, variance = tensors[node.mean], tensors[node.variance]
    gamma, beta = parameter(node.gamma), parameter(node.beta)
    exact = oracle.batch_norm(x, mean, variance, gamma, beta, node.epsilon)
    factor = np.abs(
        oracle.batch_norm(np.ones_like(mean), 0 * mean, variance, gamma, None, node.epsilon)
    )
    size = np.abs(x) * factor + np.abs(mean) * factor + (0.0 if beta is None else np.abs(beta))
    return exact, size * 6 * HALF_ULP

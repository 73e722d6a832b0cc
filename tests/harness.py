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
from bitinfer.graph import Graph, GraphBuilder, Value, check, nodes
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
    plan = lower(check(graph, tensors))
    kind = plan.buffers[plan.input].kind
    outputs = run_executor(bind(backend, plan), plan, x.astype(DTYPES[kind]))
    return dict(zip(plan.output_names, outputs, strict=True))


def run_step(backend: Backend, step: Step, source: Buffer, target: Buffer, x: Array) -> Array:
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

    ``values`` holds every float value of one sample.  Signs and int8 are compared through the
    layers that read them.  Layers of integers must be equal; float layers may differ by the
    rounding of float32.
    """
    known: dict[str, Array] = {graph.input.name: x, **values}
    kinds = check(graph, tensors).values
    for node in graph.nodes:
        if node.name in values:
            wanted, slack = _expect(node, known, tensors, kinds)
            got = values[node.name]
            assert got.shape == wanted.shape, f"{node}: shape {got.shape}, wanted {wanted.shape}"
            # Where float32 overflows, anything may come of it.
            limit = np.finfo(np.float32).max
            # The slack is relative, but below normal numbers rounding is not.
            step = np.finfo(np.float32).smallest_subnormal
            wrong = ~(np.abs(got - wanted) <= slack + step) & (np.abs(wanted) + slack <= limit)
            assert not wrong.any(), (
                f"{node}: {np.count_nonzero(wrong)} of {wrong.size} wrong, first "
                f"{got[wrong][0]} for {wanted[wrong][0]}"
            )
        else:
            known[node.name], _ = _expect(node, known, tensors, kinds)


def right_values(
    graph: Graph, tensors: Mapping[str, Array], x: Array
) -> tuple[dict[str, Array], float]:
    """Return every value of one sample as the oracle has it, floats rounded to float32.

    The second number is the smallest distance, but for 0, of a float that becomes a sign from its
    threshold: a backend whose rounding errors are smaller gives the same signs.
    """
    known: dict[str, Array] = {graph.input.name: x.astype(np.float32)}
    kinds = check(graph, tensors).values
    smallest = math.inf
    for node in graph.nodes:
        value, _ = _expect(node, known, tensors, kinds)
        known[node.name] = value.astype(np.float32)
        if isinstance(node, nodes.Sign):
            threshold = 0 if node.threshold is None else tensors[node.threshold]
            distances = np.abs(known[node.input] - threshold)
            smallest = min(smallest, float(np.min(distances, where=distances > 0, initial=9)))
    return known, smallest


def float_values(graph: Graph, tensors: Mapping[str, Array]) -> Graph:
    """Return the graph with every float value as an output."""
    values = check(graph, tensors).values
    names = tuple(node.name for node in graph.nodes if values[node.name].kind == "float")
    return Graph(graph.name, graph.input, graph.nodes, names)


Known = Mapping[str, Array]
Expected = tuple[Array, Array | float]


def _expect(node: nodes.Node, known: Known, tensors: Known, kinds: Mapping[str, Value]) -> Expected:
    """Return what a node should give, and by how much it may be off."""
    x = known[node.input]
    match node:
        case nodes.BinaryConv2d() | nodes.BinaryDense():
            return _expect_binary(node, known, tensors), 0.0
        case nodes.Conv2d() | nodes.Dense():
            return _expect_numbers(node, x, tensors, is_integer=kinds[node.input].is_integer)
        case nodes.MaxPool2d() | nodes.AvgPool2d() | nodes.GlobalPool2d() | nodes.BetaMap():
            return _expect_pool(node, x, tensors)
        case nodes.BatchNorm():
            return _expect_batch_norm(node, x, tensors)
        case nodes.Sigmoid():
            exact = oracle.activate(x, "sigmoid")
            return exact, exact * 2 * HALF_ULP
        case nodes.Softmax():
            exact = oracle.softmax(x)
            return exact, exact * (1e-6 + np.abs(x - np.max(x)) * HALF_ULP) + 1e-37
        case _:
            return _expect_exactly(node, known, tensors), 0.0


def _expect_exactly(node: nodes.Node, known: Known, tensors: Known) -> Array:
    """Return what a node gives that rounds no more than once, or moves numbers about."""
    x = known[node.input]

    def tensor(name: str | None) -> Array | None:
        return None if name is None else tensors[name]

    match node:
        case nodes.Sign():
            return oracle.signs(x, tensor(node.threshold), tensor(node.flip))
        case nodes.Quantize():
            return oracle.quantize(x, node.scale)
        case nodes.Relu():
            return oracle.relu(x)
        case nodes.Clip():
            return oracle.activate(x, "clip", low=node.low, high=node.high)
        case nodes.PRelu():
            return oracle.activate(x, "prelu", slope=tensor(node.slope))
        case nodes.RPRelu():
            shift_in, slope, shift_out = map(tensor, (node.shift_in, node.slope, node.shift_out))
            return oracle.activate(x, "rprelu", shift_in=shift_in, slope=slope, shift_out=shift_out)
        case nodes.Add():
            return (x.astype(np.float64) + known[node.other]).astype(np.float32)
        case nodes.Multiply():
            return (x.astype(np.float64) * known[node.other]).astype(np.float32)
        case nodes.Concat():
            return np.concatenate([x, *(known[name] for name in node.others)], axis=-1)
        case nodes.SliceChannels():
            return x[..., node.begin : node.end]
        case nodes.ShuffleChannels():
            return oracle.shuffle_channels(x, node.groups)
        case nodes.Pad2d():
            return oracle.pad2d(x, node.padding, np.float32(node.value))
        case nodes.Flatten():
            return oracle.flatten(x, node.order)
        case nodes.Reshape():
            return x.reshape(node.shape)
        case _:
            raise AssertionError(f"nothing is known of {type(node).__name__}")


def _expect_pool(
    node: nodes.MaxPool2d | nodes.AvgPool2d | nodes.GlobalPool2d | nodes.BetaMap,
    x: Array,
    tensors: Known,
) -> Expected:
    match node:
        case nodes.MaxPool2d():
            largest = oracle.pool2d(x, "max", node.kernel, node.stride, node.padding)
            if node.minimum is None:
                return largest, 0.0
            smallest = oracle.pool2d(x, "min", node.kernel, node.stride, node.padding)
            return np.where(tensors[node.minimum], smallest, largest), 0.0
        case nodes.AvgPool2d():
            window = (node.kernel, node.stride, node.padding)
            rule = {"count_include_pad": node.count_include_pad}
            size = oracle.pool2d(np.abs(x), "mean", *window, **rule)
            taps = math.prod(node.kernel)
            return oracle.pool2d(x, "mean", *window, **rule), size * (taps + 2) * HALF_ULP
        case nodes.GlobalPool2d(mode="max"):
            return oracle.global_pool2d(x, "max"), 0.0
        case nodes.GlobalPool2d():
            exact = oracle.global_pool2d(x, "mean")
            size = oracle.global_pool2d(np.abs(x), "mean")
            return exact, np.abs(exact) * HALF_ULP + size * x.size * 2.0**-52 + 2.0**-149
        case _:
            exact = oracle.beta_map(
                x, node.kernel, node.stride, node.padding, node.dilation, node.groups
            )
            terms = x.shape[-1] // node.groups + math.prod(node.kernel)
            return exact, exact * (terms + 3) * HALF_ULP


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


def _expect_numbers(
    node: nodes.Conv2d | nodes.Dense, x: Array, tensors: Known, *, is_integer: bool
) -> Expected:
    """Layers of numbers: integers are exact up to the scaling, which every backend rounds alike."""
    groups = getattr(node, "groups", 1)
    weight = tensors[node.weight]
    if weight.dtype == np.uint64:
        weight = oracle.signs_of(weight, x.shape[-1] // groups)
    alpha, bias, offset = (
        None if name is None else tensors[name]
        for name in (node.alpha, node.bias, getattr(node, "offset", None))
    )

    def product(a: Array, b: Array) -> Array:
        if isinstance(node, nodes.Dense):
            return oracle.dense(a, b)
        return oracle.conv2d(
            a,
            b,
            stride=node.stride,
            padding=node.padding,
            dilation=node.dilation,
            groups=groups,
        )

    weight = weight.astype(np.float64)  # the magnitude of -128 is no int8
    total = product(x, weight)
    if is_integer and offset is None:
        return oracle.scale(total, alpha, None, bias), 0.0
    size, terms = product(np.abs(x), np.abs(weight)), math.prod(weight.shape[1:])
    if offset is not None:
        inside = np.broadcast_to(offset.astype(np.float64), x.shape)
        total = total - product(inside, weight)
        size, terms = size + product(np.abs(inside), np.abs(weight)), 4
    a = np.float64(1) if alpha is None else alpha.astype(np.float64)
    b = np.float64(0) if bias is None else bias.astype(np.float64)
    return total * a + b, (size * np.abs(a) + np.abs(b)) * (terms + 3) * HALF_ULP


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

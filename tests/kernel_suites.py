"""The exactness suite of every kernel: networks of one step that counts, at the kernel's sizes.

    python kernel_suites.py bconv2d words avx2        exit code 0, or an AssertionError

The suite of a kernel forces its method, and skips what the kernel does not take.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

import oracle
from bitinfer import bits, numerics
from bitinfer.backends import Backend, select
from bitinfer.errors import BackendError
from bitinfer.graph import GraphBuilder
from bitinfer.graph import check as check_graph
from bitinfer.plan import Plan, lower
from harness import DTYPES, bind, check_layers, float_values, run_executor
from kernel_list import Kernel, listed_kernels

Array = NDArray[Any]
Rng = np.random.Generator
SAMPLES = 5
"""In a batch: one more than kernels take together."""


class Case(NamedTuple):
    """A network and what it is called; its input is ``kind``."""

    builder: GraphBuilder
    output: str
    kind: str = "float"


def sizes(kernel: Kernel) -> list[int]:
    """Return the numbers of outputs or channels at which the loops of a kernel change.

    Once to four times its block, and, since a neighbour takes over about there, once to four times
    each block of the other kernels of its operation; each -1, +0 and +1.
    """
    blocks = {other.block for other in listed_kernels(kernel.operation)}
    around = {times * block + i for block in blocks for times in (1, 2, 3, 4) for i in (-1, 0, 1)}
    return sorted(size for size in around if 1 <= size <= max(4 * kernel.block + 1, 65))


def _weight(rng: Rng, kind: str, *shape: int) -> Any:
    if kind == "bits":
        return bits.pack(rng.standard_normal(shape))
    if kind == "float":
        return rng.standard_normal(shape).astype(np.float32)
    return rng.integers(-127, 128, shape).astype(kind)


def _one_negative(size: int) -> Array:
    """Return the binary weight of which output o has a -1 for input o."""
    return 1 - 2 * np.eye(size, dtype=np.float32)


_LONG = 34 * 64
"""Signs of which all differ: 32 words of them are more than a byte counts."""


def _bconv2d(size: int, rng: Rng) -> Iterator[Case]:
    for channels, groups, dilation, pad_value in (
        (70, 1, 1, 0),
        (70, 1, 1, -1),
        (130, 1, 2, 1),
        (20, 2, 1, -1),
    ):
        b = GraphBuilder("bconv2d", (4, 5, channels * groups))
        y = b.bconv2d(
            b.sign(b.input),
            _weight(rng, "float", size * groups, 3, 3, channels),
            padding=(1, 1, 2, 1),
            dilation=dilation,
            groups=groups,
            pad_value=pad_value,
            bias=rng.standard_normal(size * groups).astype(np.float32),
        )
        yield Case(b, y)
    if size <= 64 and size % 16 < 2:  # several vectors of pixels, of which the last are not full
        extent, channels, stride = ((9, 15), 12, 1) if size % 2 else ((11, 14), 60, (2, 1))
        b = GraphBuilder("bconv2d", (*extent, channels))
        weight = _weight(rng, "float", size, 3, 3, channels)
        yield Case(b, b.bconv2d(b.sign(b.input), weight, stride=stride, padding=1))
    for sign in (-1, 1):  # several parts of K, and counts that are wider than a byte
        b = GraphBuilder("bconv2d", (1, 2, _LONG))
        weight = np.full((size, 1, 1, _LONG), sign)
        yield Case(b, b.bconv2d(b.sign(b.multiply(b.input, b.input)), weight))


def _bdense(size: int, rng: Rng) -> Iterator[Case]:
    for length in (70, 64 * 9 + 1):
        b = GraphBuilder("bdense", (length,))
        yield Case(b, b.bdense(b.sign(b.input), _weight(rng, "float", size, length)))
    b = GraphBuilder("bdense", (_LONG,))
    yield Case(b, b.bdense(b.sign(b.multiply(b.input, b.input)), np.full((size, _LONG), -1)))


def _conv2d(size: int, rng: Rng) -> Iterator[Case]:
    for kind, weights in (
        ("float", "float"),
        ("float", "bits"),
        ("uint8", "int16"),
        ("uint8", "int8"),
        ("uint8", "bits"),
    ):
        b = GraphBuilder("conv2d", (5, 6, 3), input_kind=kind)
        yield Case(
            b, b.conv2d(b.input, _weight(rng, weights, size, 3, 3, 3), padding=(1, 0, 2, 1)), kind
        )
    for weights in ("float", "int8", "bits"):
        b = GraphBuilder("conv2d", (2, 3, 10))
        yield Case(b, b.conv2d(b.input, _weight(rng, weights, size, 2, 3, 10)))
    for outputs in (4, 8):
        if size % 16 == 0:
            b = GraphBuilder("conv2d", (5, 6, size // outputs * 3))
            weight = _weight(rng, "float", size, 3, 3, 3)
            yield Case(b, b.conv2d(b.input, weight, padding=1, groups=size // outputs))
    if size > 1:
        b = GraphBuilder("conv2d", (6, 7, size))
        weight = _weight(rng, "float", size, 3, 3, 1)
        yield Case(b, b.conv2d(b.input, weight, padding=1, groups=size))


def _dense(size: int, rng: Rng) -> Iterator[Case]:
    for kind, weights in (
        ("float", "float"),
        ("float", "int8"),
        ("float", "bits"),
        ("uint8", "int8"),
        ("uint8", "bits"),
    ):
        b = GraphBuilder("dense", (35,), input_kind=kind)
        yield Case(b, b.dense(b.input, _weight(rng, weights, size, 35)), kind)


def _on_map(
    add: Callable[[GraphBuilder, str, int], str], extent: tuple[int, int] = (4, 5)
) -> Callable[[int, Rng], Iterator[Case]]:
    def cases(size: int, rng: Rng) -> Iterator[Case]:
        b = GraphBuilder("map", (*extent, size))
        yield Case(b, add(b, b.input, size))

    return cases


def _pack_signs(size: int, rng: Rng) -> Iterator[Case]:
    for kind in ("float", "uint8"):
        b = GraphBuilder("signs", (3, 2, size), input_kind=kind)
        threshold = rng.standard_normal(size).astype(np.float32) + (100 if kind == "uint8" else 0)
        y = b.bconv2d(
            b.sign(b.input, threshold=threshold), _one_negative(size).reshape(size, 1, 1, size)
        )
        yield Case(b, y, kind)


def _activate(size: int, rng: Rng) -> Iterator[Case]:
    slope = rng.standard_normal(size).astype(np.float32)
    b = GraphBuilder("activations", (3, 4, size))
    y = b.rprelu(b.prelu(b.clip(b.relu(b.input), 0.1, 1.5), slope), slope, slope + 1, slope - 1)
    yield Case(b, b.sigmoid(y))


def _affine(size: int, rng: Rng) -> Iterator[Case]:
    mean, gamma, beta = rng.standard_normal((3, size)).astype(np.float32)
    b = GraphBuilder("norm", (3, 4, size))
    y = b.batch_norm(b.input, mean, np.ones(size, np.float32), gamma, beta)
    yield Case(b, y)


def _pairs(size: int, rng: Rng) -> Iterator[Case]:
    b = GraphBuilder("pairs", (3, 4, size))
    vector = b.global_pool2d(b.input)
    y = b.multiply(b.add(b.input, b.input), vector)
    yield Case(b, b.add(b.multiply(y, b.input), vector))


def _quantize(size: int, rng: Rng) -> Iterator[Case]:
    b = GraphBuilder("int8", (2, 3, size))
    weight = np.eye(size, dtype=np.int8).reshape(size, 1, 1, size)
    yield Case(b, b.conv2d(b.quantize(b.input, 0.02), weight))


def _max_pool2d(size: int, rng: Rng) -> Iterator[Case]:
    for kernel, stride in ((3, 1), (3, 2), (2, 2), (5, 3)):
        b = GraphBuilder("pool", (8, 9, size))
        yield Case(b, b.max_pool2d(b.input, kernel, stride, padding=1))
    b = GraphBuilder("pool", (6, 7, size))
    pooled = b.max_pool2d(b.sign(b.input), 3, 2, padding=1)
    yield Case(b, b.bconv2d(pooled, _one_negative(size).reshape(size, 1, 1, size)))


def _flatten(size: int, rng: Rng) -> Iterator[Case]:
    for order in ("channels_first", "channels_last"):
        b = GraphBuilder("flat", (3, 2, size))
        yield Case(b, b.flatten(b.input, order))
        b = GraphBuilder("flat", (3, 2, size))
        yield Case(b, b.bdense(b.flatten(b.sign(b.input), order), _one_negative(6 * size)))


def _softmax(size: int, rng: Rng) -> Iterator[Case]:
    b = GraphBuilder("softmax", (size + 1,))
    yield Case(b, b.softmax(b.input))


def _normalize(size: int, rng: Rng) -> Iterator[Case]:
    b = GraphBuilder("pixels", (7, 5, 3))
    yield Case(b, b.relu(b.input), "pixels")


def _copied(b: GraphBuilder, x: str, size: int) -> str:
    return b.slice_channels(b.concat(x, b.relu(x), x), size // 2, 2 * size + 1)


SUITES: dict[str, Callable[[int, Rng], Iterator[Case]]] = {
    "bconv2d": _bconv2d,
    "bdense": _bdense,
    "conv2d": _conv2d,
    "dense": _dense,
    "pack_signs": _pack_signs,
    "beta_map": _on_map(lambda b, x, size: b.beta_map(x, kernel=3, padding=1)),
    "normalize": _normalize,
    "affine": _affine,
    "activate": _activate,
    "add": _pairs,
    "multiply": _pairs,
    "quantize": _quantize,
    "copy_channels": _on_map(_copied),
    "shuffle_channels": _on_map(lambda b, x, size: b.shuffle_channels(b.concat(x, x), 2)),
    "pad2d": _on_map(lambda b, x, size: b.pad2d(x, (1, 0, 2, 1), 0.5)),
    "global_pool2d": _on_map(lambda b, x, size: b.global_pool2d(x)),
    "max_pool2d": _max_pool2d,
    "avg_pool2d": _on_map(lambda b, x, size: b.avg_pool2d(x, 3, 2, padding=1), (6, 7)),
    "flatten": _flatten,
    "softmax": _softmax,
}
"""What is run for a number of outputs or channels, by operation."""


def _pixel_table(channels: int) -> Array:
    return numerics.normalization_table(1 / 255, (0.5,) * channels, (0.5,) * channels)


def prepare(
    case: Case, rng: Rng, *, every_value: bool = True
) -> tuple[Plan, Array, Callable[[Sequence[Array]], None]]:
    """Return a case as a plan, a batch for it, and what checks the outputs by the oracle.

    ``every_value``: every float value is an output, as the check wants it.
    """
    graph, tensors = case.builder.build(case.output)
    graph = float_values(graph, tensors) if every_value else graph
    shape = (SAMPLES, *graph.input.shape)
    if case.kind == "float":
        x = rng.standard_normal(shape).astype(np.float32)
    else:
        x = rng.integers(0, 256, shape).astype(np.uint8)
    table = _pixel_table(shape[-1]) if case.kind == "pixels" else None
    plan = lower(check_graph(graph, tensors), table)

    def check(outputs: Sequence[Array]) -> None:
        for sample in range(SAMPLES):
            values = dict(zip(plan.output_names, (y[sample] for y in outputs), strict=True))
            seen = x[sample]
            if table is not None:
                seen = oracle.normalize(seen, 1 / 255, (0.5,) * 3, (0.5,) * 3)
            check_layers(graph, tensors, seen.astype(np.float32), values)

    return plan, x.astype(DTYPES[plan.buffers[plan.input].kind]), check


def takes(kernel: Kernel, backend: Backend, plan: Plan) -> bool:
    """Return whether the kernel, whose method ``backend`` forces, runs a step of the plan."""
    try:
        executor = backend.bind(plan)
    except BackendError as error:
        if "is not one that" not in str(error):
            raise
        return False
    ran = zip(plan.steps, executor.kernels, strict=True)
    return (kernel.operation, kernel.name) in {(step.operation, name) for step, name in ran}


def check(kernel: Kernel, case: Case, rng: Rng) -> bool:
    """Run a case with the method of a kernel forced; return whether the kernel took it."""
    backend = select(kernel.spec)
    plan, x, check_outputs = prepare(case, rng)
    if not takes(kernel, backend, plan):
        return False
    check_outputs(run_executor(bind(backend, plan), plan, x))
    return True


def run(kernel: Kernel) -> int:
    """Run the suite of a kernel; return how many cases it took, at least one."""
    rng = np.random.default_rng(kernel.block)
    taken = sum(
        check(kernel, case, rng)
        for size in sizes(kernel)
        for case in SUITES[kernel.operation](size, rng)
    )
    assert taken > 0, f"{kernel.operation} {kernel.name} takes nothing of its suite"
    return taken


if __name__ == "__main__":
    (wanted,) = (k for k in listed_kernels() if list(k[:3]) == sys.argv[1:])
    print(f"{run(wanted)} cases of {' '.join(sys.argv[1:])}")

"""Layers of numbers: pixels and int8 with weights of every type, tables, offsets, epilogues.

Sums of integers are exact, so that everything behind them is equal to the oracle.  Sums of floats
may be off by the rounding of each of their terms.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import oracle
from bitinfer import bits, numerics
from bitinfer.backends import Backend
from bitinfer.graph import GraphBuilder
from bitinfer.plan import Buffer, Plan, Window, steps
from bitinfer.plan.steps import Activation, Epilogue
from harness import DTYPES, HALF_ULP, check_layers, float_values, run_graph
from sizes import OUTPUTS

Array = NDArray[Any]

WEIGHTS = ("int8", "int16", "signs")
SOURCES = ("uint8", "int8")

WINDOWS: list[dict[str, Any]] = [
    {"kernel": (3, 3), "padding": 1},
    {"kernel": (1, 1)},
    {"kernel": (3, 3), "padding": 1, "stride": 2},
    {"kernel": (2, 3), "padding": (1, 0, 2, 3), "stride": (1, 2), "dilation": (2, 1)},
    {"kernel": (7, 7), "padding": 3, "stride": 2},
]


def numbers(rng: np.random.Generator, kind: str, *shape: int) -> Any:
    """Return a weight of a type; the extremes of int8 are among its integers."""
    if kind == "signs":
        return bits.pack(rng.standard_normal(shape))
    if kind == "float":
        return rng.standard_normal(shape).astype(np.float32)
    low, high = (-128, 127) if kind == "int8" else (-1500, 1500)
    weight = rng.integers(low, high + 1, shape).astype(kind)
    weight[rng.random(shape) < 0.1] = low
    return weight


def builder(shape: tuple[int, ...], kind: str) -> tuple[GraphBuilder, str]:
    """Return a builder, and a value of a kind: the input, or what it is quantised to."""
    b = GraphBuilder("g", shape, input_kind="uint8" if kind == "uint8" else "float")
    return b, b.quantize(b.input, 0.02) if kind == "int8" else b.input


def inputs(rng: np.random.Generator, kind: str, *shape: int) -> Array:
    """Return an input for :func:`builder`, with the extremes of its kind."""
    if kind != "uint8":
        return rng.standard_normal(shape).astype(np.float32) * np.float32(2)
    x = rng.integers(0, 256, shape).astype(np.uint8)
    x[rng.random(shape) < 0.2] = 255
    return x


def check(backend: Backend, b: GraphBuilder, output: str, x: Array) -> None:
    """Assert that every value of a graph is right."""
    graph, tensors = b.build(output)
    graph = float_values(graph, tensors)
    values = {name: v[0] for name, v in run_graph(backend, graph, tensors, x[None]).items()}
    check_layers(graph, tensors, x.astype(np.float32), values)


@pytest.mark.parametrize("kind", [*SOURCES, "float"])
@pytest.mark.parametrize("weights", WEIGHTS)
@pytest.mark.parametrize("window", WINDOWS, ids=str)
def test_convolutions_of_every_type(
    backend: Backend, kind: str, weights: str, window: dict[str, Any], rng: np.random.Generator
) -> None:
    kernel, rest = window["kernel"], {k: v for k, v in window.items() if k != "kernel"}
    for channels, outputs, groups in ((3, 17, 1), (6, 6, 6), (8, 10, 2), (33, 5, 1), (5, 10, 5)):
        x = inputs(rng, kind, 7, 9, channels)
        weight = numbers(rng, weights, outputs, *kernel, channels // groups)
        alpha, bias = rng.standard_normal((2, outputs))
        b, value = builder(x.shape, kind)
        check(backend, b, b.conv2d(value, weight, bias, alpha=alpha, groups=groups, **rest), x)


@pytest.mark.parametrize("weights", [*WEIGHTS, "float"])
@pytest.mark.parametrize("outputs", OUTPUTS)
def test_convolutions_of_any_number_of_outputs(
    backend: Backend, outputs: int, weights: str, rng: np.random.Generator
) -> None:
    for channels in (1, 3, 20):
        kind = "float" if weights == "float" else "uint8"
        x = inputs(rng, kind, 5, 6, channels)
        b, value = builder(x.shape, kind)
        weight = numbers(rng, weights, outputs, 3, 2, channels)
        check(backend, b, b.conv2d(value, weight, padding=(1, 0, 2, 1)), x)


@pytest.mark.parametrize("kind", SOURCES)
@pytest.mark.parametrize("weights", WEIGHTS)
@pytest.mark.parametrize("has_alpha", [False, True])
def test_an_offset_is_subtracted_inside_the_map_alone(
    backend: Backend, kind: str, weights: str, has_alpha: bool, rng: np.random.Generator
) -> None:
    for groups, padding in ((1, 1), (2, (3, 0, 2, 4)), (6, 0)):
        x = inputs(rng, kind, 5, 6, 6)
        b, value = builder(x.shape, kind)
        y = b.conv2d(
            value,
            numbers(rng, weights, 12, 3, 3, 6 // groups),
            rng.standard_normal(12),
            alpha=rng.standard_normal(12) if has_alpha else None,
            offset=rng.standard_normal(6) * 100,
            groups=groups,
            padding=padding,
        )
        check(backend, b, y, x)


def test_a_window_in_the_padding_has_nothing_to_subtract_from(backend: Backend) -> None:
    x = np.full((1, 1, 2), 9, np.uint8)
    b, value = builder(x.shape, "uint8")
    y = b.conv2d(value, np.ones((3, 1, 1, 2), np.int8), [1, 2, 3], offset=[4, 5], padding=2)
    wanted = np.tile(np.array([1, 2, 3], np.float32), (5, 5, 1))
    wanted[2, 2] += 9
    assert np.array_equal(run_graph(backend, *b.build(y), x[None])[y][0], wanted)


@pytest.mark.parametrize("kind", [*SOURCES, "float"])
@pytest.mark.parametrize("weights", WEIGHTS)
@pytest.mark.parametrize("length", [1, 3, 63, 64, 65, 130, 500])
def test_dense_layers_of_every_type(
    backend: Backend, kind: str, weights: str, length: int, rng: np.random.Generator
) -> None:
    for outputs in (1, 2, 8, 10, 33):
        x = inputs(rng, kind, length)
        b, value = builder(x.shape, kind)
        alpha, bias = rng.standard_normal((2, outputs))
        weight = numbers(rng, weights, outputs, length)
        check(backend, b, b.dense(value, weight, bias, alpha=alpha), x)


@pytest.mark.parametrize("kind", SOURCES)
@pytest.mark.parametrize("weight", [-(2**15), 2**15 - 1])
def test_the_largest_sums_that_there_are(backend: Backend, kind: str, weight: int) -> None:
    """As many products of the extremes as 32 bits hold."""
    extreme = 255 if kind == "uint8" else -128
    length = (2**31 - 1) // (abs(extreme) * 2**15)
    x = np.full(length, 255, np.uint8) if kind == "uint8" else np.full(length, -1e9, np.float32)
    weights = np.full((3, length), weight, np.int16)
    wanted = [np.float32(length * extreme * weight)] * 3
    b, value = builder(x.shape, kind)
    y = b.dense(value, weights)
    assert run_graph(backend, *b.build(y), x[None])[y].tolist() == [wanted]
    b, value = builder((1, length, 1), kind)
    y = b.conv2d(value, weights.reshape(3, 1, length, 1))
    assert run_graph(backend, *b.build(y), x.reshape(1, 1, -1, 1))[y].ravel().tolist() == wanted


# --- steps with a table and with epilogues -------------------------------------------------------


def run_conv(backend: Backend, x: Array, kind: Any, step: steps.Conv2d) -> list[Array]:
    """Run one convolution; its target is buffer 1, and its signs, if any, are buffer 2."""
    w, e = step.window, step.epilogue
    out = oracle.window_shape(x.shape[:2], w.kernel, w.stride, w.padding, w.dilation)
    shape = (*out, len(step.weight))
    is_signs = e.threshold is not None or (e.sign_threshold is not None and e.signs is None)
    target = Buffer("bits" if is_signs else "float", shape)
    buffers = (Buffer(kind, x.shape), target, Buffer("bits", shape))
    outputs = (1,) if e.signs is None else (1, 2)
    plan = Plan(buffers, (step,), 0, outputs, ("y", "s")[: len(outputs)])
    results = [np.empty((1, *buffers[n].stored_shape), DTYPES[buffers[n].kind]) for n in outputs]
    for result in results:
        result.view(np.uint8)[...] = 0xA5
    backend.bind(plan).run(x[None], results)
    return [result[0] for result in results]


@pytest.mark.parametrize("groups", [1, 3])
@pytest.mark.parametrize("weights", ["float", *WEIGHTS])
def test_pixels_are_normalised_by_a_table_and_padding_is_zero_behind_it(
    backend: Backend, weights: str, groups: int, rng: np.random.Generator
) -> None:
    table = numerics.normalization_table(1 / 255, (0.5, 0.4, 0.3), (0.1, 0.2, 0.3))
    for window in (
        Window((3, 3), (1, 1), (1, 1, 1, 1), (1, 1), groups),
        Window((5, 3), (2, 2), (3, 2, 0, 1), (1, 2), groups),
        Window((1, 1), (1, 2), (0, 0, 0, 0), (1, 1), groups),
    ):
        x = rng.integers(0, 256, (8, 9, 3)).astype(np.uint8)
        given = numbers(rng, weights, 9, *window.kernel, 3 // groups)
        weight = given.words if weights == "signs" else given
        values = given.unpack() if weights == "signs" else given
        alpha, bias = rng.standard_normal((2, 9)).astype(np.float32)
        epilogue = Epilogue(alpha=alpha, bias=bias)
        step = steps.Conv2d(
            name="c",
            source=0,
            target=1,
            weight=weight,
            window=window,
            table=table,
            epilogue=epilogue,
        )
        (got,) = run_conv(backend, x, "pixels", step)
        shape = {
            "stride": window.stride,
            "padding": window.padding,
            "dilation": window.dilation,
            "groups": groups,
        }
        floats = table[x, np.arange(3)].astype(np.float64)
        exact = oracle.conv2d(floats, values, **shape) * alpha.astype(np.float64) + bias
        size = oracle.conv2d(np.abs(floats), np.abs(values.astype(np.float64)), **shape)
        terms = math.prod(window.kernel) * 3 // groups
        slack = (size * np.abs(alpha) + np.abs(bias)) * (terms + 3) * HALF_ULP
        assert np.all(np.abs(got - exact) <= slack)


@pytest.mark.parametrize("weights", WEIGHTS)
@pytest.mark.parametrize("outputs", [1, 10, 63, 64, 65, 130])
def test_integer_sums_are_compared_with_thresholds(
    backend: Backend, weights: str, outputs: int, rng: np.random.Generator
) -> None:
    x = rng.integers(0, 256, (5, 6, 3)).astype(np.uint8)
    given = numbers(rng, weights, outputs, 3, 3, 3)
    values = given.unpack() if weights == "signs" else given
    total = oracle.conv2d(x, values, padding=(1, 1, 1, 1))
    threshold = total.reshape(30, outputs)[rng.integers(0, 30, outputs), range(outputs)]
    threshold = threshold.astype(np.int32)
    threshold[::6] = rng.choice([-(2**31), 2**31 - 1])
    flip = rng.random(outputs) < 0.5
    step = steps.Conv2d(
        name="c",
        source=0,
        target=1,
        weight=given.words if weights == "signs" else given,
        window=Window((3, 3), (1, 1), (1, 1, 1, 1)),
        epilogue=Epilogue(threshold=threshold, flip=flip),
    )
    (got,) = run_conv(backend, x, "pixels", step)
    assert np.array_equal(got, bits.pack(np.where((total < threshold) != flip, -1, 1)).words)


@pytest.mark.parametrize("kind", [None, "relu", "prelu", "rprelu", "clip", "sigmoid"])
@pytest.mark.parametrize("source", ["float", "pixels"])
@pytest.mark.parametrize("beside", [False, True])
def test_layers_of_numbers_end_as_binary_ones_do(
    backend: Backend, source: str, kind: Any, beside: bool, rng: np.random.Generator
) -> None:
    """Small integers as either type, so that float sums are exact too."""
    dtypes = (np.float32, np.float32) if source == "float" else (np.uint8, np.int8)
    for outputs in (3, 40, 64, 70):
        x = rng.integers(0, 9, (4, 5, 4)).astype(dtypes[0])
        weight = rng.integers(-5, 6, (outputs, 3, 3, 4)).astype(dtypes[1])
        total = oracle.conv2d(x, weight, padding=(1, 1, 1, 1))
        alpha, bias, slope, shift_in, shift_out = rng.standard_normal((5, outputs)).astype("f4")
        floor = rng.integers(-30, 5, outputs).astype(np.float32)
        tensors = {
            "prelu": {"slope": slope},
            "rprelu": {"shift_in": shift_in, "slope": slope, "shift_out": shift_out},
        }.get(kind, {})
        y = oracle.scale(total, alpha, None, bias, floor=floor)
        activation = None
        if kind is not None:
            activation = Activation(kind, **tensors, low=-20.0, high=30.0)
            y = oracle.activate(y, kind, **tensors, low=-20.0, high=30.0)
        threshold = y.reshape(20, outputs)[rng.integers(0, 20, outputs), range(outputs)]
        if kind == "sigmoid":
            threshold = np.full(outputs, 0.4321, np.float32)
        flip = rng.random(outputs) < 0.5
        epilogue = Epilogue(
            alpha=alpha,
            bias=bias,
            floor=floor,
            activation=activation,
            sign_threshold=threshold,
            flip=flip,
            signs=2 if beside else None,
        )
        window = Window((3, 3), (1, 1), (1, 1, 1, 1))
        step = steps.Conv2d(
            name="c", source=0, target=1, weight=weight, window=window, epilogue=epilogue
        )
        got = run_conv(backend, x, source, step)
        assert np.array_equal(got[-1], oracle.bits_of(oracle.signs(y, threshold, flip)))
        if beside:
            np.testing.assert_allclose(got[0], y, rtol=2.0**-22 if kind == "sigmoid" else 0, atol=0)

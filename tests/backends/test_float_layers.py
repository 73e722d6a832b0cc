"""Float steps on every backend, against float64; special values where there are any."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

import oracle
from bitinfer import numerics
from bitinfer.backends import Backend
from bitinfer.graph import GraphBuilder
from bitinfer.plan import Buffer, Window, steps
from harness import check_layers, float_values, run_graph, run_step
from sizes import CHANNELS, OUTPUTS, simd_sizes

NAN, INF = np.float32(np.nan), np.float32(np.inf)


def check(
    backend: Backend, x: np.ndarray, add: Callable[[GraphBuilder], str]
) -> dict[str, np.ndarray]:
    b = GraphBuilder("g", x.shape)
    graph, tensors = b.build(add(b))
    graph = float_values(graph, tensors)
    values = {name: v[0] for name, v in run_graph(backend, graph, tensors, x[None]).items()}
    check_layers(graph, tensors, x.astype(np.float32), values)
    return values


@pytest.mark.parametrize("outputs", OUTPUTS)
def test_convolution_with_any_number_of_outputs(
    backend: Backend, outputs: int, rng: np.random.Generator
) -> None:
    for channels in (1, 3, 20):
        weight = rng.standard_normal((outputs, 3, 2, channels))
        x = rng.standard_normal((5, 6, channels))
        check(backend, x, lambda b, w=weight: b.conv2d(b.input, w, padding=(1, 0, 2, 1)))


@pytest.mark.parametrize("stride", [1, (2, 1), (1, 3)], ids=str)
@pytest.mark.parametrize("dilation", [1, (2, 3)], ids=str)
@pytest.mark.parametrize("groups", [1, 2, 6])
def test_convolution_with_any_window_and_groups(
    backend: Backend,
    stride: int | tuple[int, int],
    dilation: int | tuple[int, int],
    groups: int,
    rng: np.random.Generator,
) -> None:
    x = rng.standard_normal((7, 8, 12))
    for kernel, padding in (((1, 1), 0), ((3, 3), 1), ((2, 3), (3, 4, 0, 5)), ((3, 2), (0, 2))):
        weight, bias = rng.standard_normal((18, *kernel, 12 // groups)), rng.standard_normal(18)
        window = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
        check(backend, x, lambda b, w=weight, c=bias, v=window: b.conv2d(b.input, w, c, **v))


@pytest.mark.parametrize("length", CHANNELS)
def test_dense_layers_of_any_size(backend: Backend, length: int, rng: np.random.Generator) -> None:
    x = rng.standard_normal(length)
    for outputs in OUTPUTS:
        weight, bias = rng.standard_normal((outputs, length)), rng.standard_normal(outputs)
        check(backend, x, lambda b, w=weight, c=bias: b.dense(b.input, w, c))


def test_a_tap_in_the_padding_adds_nothing_even_beside_infinity(backend: Backend) -> None:
    x = np.full((1, 1, 1), INF)
    b = GraphBuilder("g", (1, 1, 1))
    y = b.conv2d(b.input, np.ones((1, 3, 3, 1)), padding=1)
    assert run_graph(backend, *b.build(y), x[None])[y].tolist() == [[[[INF]]]]


@pytest.mark.parametrize("channels", CHANNELS)
def test_batch_norm_and_relu(backend: Backend, channels: int, rng: np.random.Generator) -> None:
    x = rng.standard_normal((3, 4, channels)) * 10
    p = rng.standard_normal((4, channels))

    def add(b: GraphBuilder) -> str:
        y = b.batch_norm(b.input, p[0], p[1] ** 2, p[2], p[3])
        y = b.relu(y)
        y = b.batch_norm(y, p[0], p[1] ** 2, epsilon=0.1)
        return b.relu(b.batch_norm(y, p[0], p[1] ** 2 + 1, p[2], epsilon=0))

    check(backend, x, add)


def test_batch_norm_rounds_as_numerics_says_it_does(
    backend: Backend, rng: np.random.Generator
) -> None:
    x = rng.standard_normal((3, 5, 77)).astype(np.float32)
    norm = numerics.Norm(*rng.standard_normal((3, 77)))
    step = steps.Affine(name="a", source=0, target=1, norm=norm)
    buffer = Buffer("float", x.shape)
    got = run_step(backend, step, buffer, buffer, x)
    assert np.array_equal(got, numerics.normalize(x, norm))
    wide = (x.astype(np.float64) - norm.mean) * norm.scale + norm.shift
    assert np.array_equal(got, wide.astype(np.float32))


def test_relu_gives_zero_for_what_is_not_above_zero(backend: Backend) -> None:
    x = np.array([1, -1, 0.0, -0.0, NAN, INF, -INF], np.float32)
    step, buffer = (
        steps.Activate(name="r", source=0, target=1, activation=steps.Activation("relu")),
        Buffer("float", x.shape),
    )
    assert run_step(backend, step, buffer, buffer, x).tolist() == [1, 0, 0, 0, 0, INF, 0]


@pytest.mark.parametrize("kind", ["max", "include", "exclude"])
def test_pools_of_any_window(backend: Backend, kind: str, rng: np.random.Generator) -> None:
    x = rng.standard_normal((6, 7, 5)) - 3
    for kernel, stride, padding in (
        ((1, 1), (1, 1), (0, 0, 0, 0)),
        ((2, 2), (2, 2), (0, 0, 0, 0)),
        ((3, 3), (2, 2), (1, 1, 1, 1)),
        ((3, 2), (1, 3), (2, 0, 1, 0)),
        ((3, 3), (2, 2), (0, 1, 0, 2)),
        ((6, 7), (1, 1), (0, 0, 0, 0)),
        ((2, 5), (5, 2), (1, 1, 4, 4)),
    ):
        window = {"kernel": kernel, "stride": stride, "padding": padding}
        if kind == "max":
            check(backend, x, lambda b, w=window: b.max_pool2d(b.input, **w))
        else:
            window["count_include_pad"] = kind == "include"
            check(backend, x, lambda b, w=window: b.avg_pool2d(b.input, **w))


def test_the_two_border_rules_differ_only_at_the_border(backend: Backend) -> None:
    x = np.ones((3, 3, 1))
    for include, corner in ((True, 4 / 9), (False, 1.0)):
        pooled = check(
            backend,
            x,
            lambda b, rule=include: b.avg_pool2d(
                b.input, 3, 1, padding=1, count_include_pad=rule, name="y"
            ),
        )["y"]
        assert pooled[0, 0, 0] == pytest.approx(corner)
        assert pooled[1, 1, 0] == 1


def test_a_nan_in_the_window_is_its_maximum(backend: Backend) -> None:
    x = np.array([1, NAN, 3, -INF, -INF, 2, NAN], np.float32).reshape(1, 7, 1)
    step = steps.MaxPool2d(name="p", source=0, target=1, window=Window((1, 2)))
    got = run_step(backend, step, Buffer("float", (1, 7, 1)), Buffer("float", (1, 6, 1)), x)
    assert np.array_equal(got.ravel(), [NAN, NAN, 3, -INF, 2, NAN], equal_nan=True)


@pytest.mark.parametrize("groups", [1, 2, 5])
@pytest.mark.parametrize("channels", [10, 130])
def test_beta_maps_of_any_window(
    backend: Backend, groups: int, channels: int, rng: np.random.Generator
) -> None:
    x = rng.standard_normal((6, 5, channels))
    for kernel, stride, padding, dilation in (
        (1, 1, 0, 1),
        (3, 1, 1, 1),
        ((2, 3), (2, 1), (1, 0, 2, 3), (2, 1)),
        (5, 2, (7, 8, 6, 9), 1),
    ):
        window = {"kernel": kernel, "stride": stride, "padding": padding, "dilation": dilation}
        check(backend, x, lambda b, w=window: b.beta_map(b.input, groups=groups, **w))


@pytest.mark.parametrize("length", simd_sizes(70))
def test_the_beta_of_a_vector_is_its_mean_magnitude(
    backend: Backend, length: int, rng: np.random.Generator
) -> None:
    check(backend, rng.standard_normal(length), lambda b: b.beta_map(b.input))


def test_a_window_outside_the_map_has_a_beta_of_zero(backend: Backend) -> None:
    values = check(
        backend, np.ones((1, 1, 2)), lambda b: b.beta_map(b.input, padding=2, name="beta")
    )
    wanted = np.zeros((5, 5, 1))
    wanted[2, 2] = 1
    assert np.array_equal(values["beta"], wanted)


@pytest.mark.parametrize("order", ["channels_first", "channels_last"])
def test_flatten_reorders_floats(backend: Backend, order: str, rng: np.random.Generator) -> None:
    for shape in ((3, 4, 5), (1, 1, 7), (7,)):
        check(backend, rng.standard_normal(shape), lambda b: b.flatten(b.input, order))


def test_softmax_of_numbers_of_any_size(backend: Backend, rng: np.random.Generator) -> None:
    for length in (1, 2, 10, 1000):
        for size in (1e-3, 1.0, 30.0, 1e4):
            check(backend, rng.standard_normal(length) * size, lambda b: b.softmax(b.input))


def test_every_pixel_is_looked_up_in_its_channel(backend: Backend) -> None:
    table = numerics.normalization_table(1 / 255, (0.5, 0.4, 0.3), (0.1, 0.2, 0.3))
    x = np.arange(256 * 3, dtype=np.int64).reshape(16, 16, 3).astype(np.uint8)
    step = steps.Normalize(name="n", source=0, target=1, table=table)
    got = run_step(backend, step, Buffer("pixels", x.shape), Buffer("float", x.shape), x)
    wanted = oracle.normalize(x, 1 / 255, (0.5, 0.4, 0.3), (0.1, 0.2, 0.3)).astype(np.float32)
    assert np.array_equal(got, wanted)

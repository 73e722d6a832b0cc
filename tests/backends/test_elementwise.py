"""Steps without weights, on every backend: equal to the oracle, special values among them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import oracle
from bitinfer import bits
from bitinfer.backends import Backend
from bitinfer.graph import nodes
from bitinfer.plan import Buffer, NodeStep, Plan, Window, steps
from bitinfer.plan.steps import Activation, Step
from harness import HALF_ULP, bind, run_executor, run_step
from sizes import CHANNELS, simd_sizes

Array = NDArray[Any]

SPECIAL = np.array(
    [0.0, -0.0, 1.0, -1.0, np.nan, np.inf, -np.inf, 1e-45, -1e-45, 3.4e38, -3.4e38], np.float32
)


def node_step(
    kind: type[nodes.Node], source: int = 0, others: dict[str, int] | None = None, **fields: Any
) -> NodeStep:
    """Return the step of a node that reads the buffer ``source`` and ``others``, and writes 1."""
    names = {name: f"buffer {number}" for name, number in (others or {}).items()}
    node = kind(name="n", input="x", **names, **fields)
    return NodeStep(name="n", source=source, target=1, node=node, others=others or {})


def numbers(rng: np.random.Generator, *shape: int) -> Array:
    """Return random numbers, some of them special."""
    x = rng.standard_normal(shape).astype(np.float32)
    places = rng.random(shape) < 0.2
    x[places] = rng.choice(SPECIAL, np.count_nonzero(places))
    return x


def same(a: Array, b: Array) -> bool:
    """Tell whether floats are equal, the sign of zero too; any NaN equals any other."""
    nan = np.isnan(a) & np.isnan(b)
    return bool(np.all(nan | ((a == b) & (np.signbit(a) == np.signbit(b)))))


def run(backend: Backend, step: Step, *sources: Array, kind: Any = "float", shape: Any) -> Array:
    """Run a step that reads the input and, if there is a second source, a copy of that.

    A copy is made by steps that pad the input and cut the border off again: plans have one input.
    """
    if len(sources) == 1:
        return run_step(
            backend, step, Buffer("float", sources[0].shape), Buffer(kind, shape), sources[0]
        )
    # Both are laid side by side in one row of channels, and cut apart again.
    first, second = sources
    joined = np.concatenate([first.reshape(-1), second.reshape(-1)])
    buffers = [Buffer("float", joined.shape), Buffer(kind, shape)]
    plan_steps: list[Step] = []
    at = 0
    for number, source in enumerate(sources):
        flat, whole = len(buffers), len(buffers) + 1
        buffers += [Buffer("float", (source.size,)), Buffer("float", source.shape)]
        plan_steps += [
            steps.CopyChannels(
                name=f"cut{number}", source=0, target=flat, begin=at, to=0, count=source.size
            ),
            steps.Flatten(name=f"fold{number}", source=flat, target=whole, channels_first=False),
        ]
        at += source.size
    plan = Plan(tuple(buffers), (*plan_steps, step), 0, (1,), ("y",))
    return run_executor(bind(backend, plan), plan, joined[None])[0][0]


KINDS = ("relu", "prelu", "rprelu", "clip", "sigmoid")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("channels", CHANNELS)
def test_activations_are_those_of_the_oracle(
    backend: Backend, kind: Any, channels: int, rng: np.random.Generator
) -> None:
    x = numbers(rng, 3, 2, channels)
    shift_in, slope, shift_out = numbers(rng, 3, channels).clip(-9, 9)
    slope[np.isnan(slope)], shift_in[np.isnan(shift_in)] = 2, 3
    shift_out[np.isnan(shift_out)] = -1
    parts: dict[str, Array] = {}
    if kind == "rprelu":
        parts = {"shift_in": shift_in, "slope": slope, "shift_out": shift_out}
    elif kind == "prelu":
        parts = {"slope": slope}
    a = Activation(kind, **parts, low=-0.75, high=0.5)
    step = steps.Activate(name="a", source=0, target=1, activation=a)
    got = run(backend, step, x, shape=x.shape)
    with np.errstate(all="ignore"):
        wanted = oracle.activate(x, kind, **parts, low=-0.75, high=0.5)
    if kind == "sigmoid":
        np.testing.assert_allclose(got, wanted, rtol=2 * HALF_ULP, atol=2.0**-149)
    else:
        assert np.array_equal(got, wanted, equal_nan=True)


def test_what_activations_make_of_nan(backend: Backend) -> None:
    x, one = np.full(5, np.nan, np.float32), np.ones(5, np.float32)
    for kind, wanted in (("relu", 0.0), ("clip", -2.0), ("prelu", np.nan), ("sigmoid", np.nan)):
        a = Activation(kind, slope=one if kind == "prelu" else None, low=-2, high=3)
        step = steps.Activate(name="a", source=0, target=1, activation=a)
        got = run(backend, step, x, shape=x.shape)
        assert np.array_equal(got, np.full(5, wanted, np.float32), equal_nan=True), kind


@pytest.mark.parametrize("is_vector", [False, True])
@pytest.mark.parametrize("channels", simd_sizes(70))
def test_sums_and_products(
    backend: Backend, channels: int, is_vector: bool, rng: np.random.Generator
) -> None:
    x = numbers(rng, 3, 5, channels)
    other = numbers(rng, channels) if is_vector else numbers(rng, 3, 5, channels)
    with np.errstate(all="ignore"):
        for kind, wanted in ((nodes.Add, x + other), (nodes.Multiply, x * other)):
            step = node_step(kind, source=3, others={"other": 5})
            assert same(run(backend, step, x, other, shape=x.shape), wanted)


def test_a_value_may_be_added_to_itself(backend: Backend, rng: np.random.Generator) -> None:
    x = numbers(rng, 2, 3, 9)
    step = node_step(nodes.Add, others={"other": 0})
    with np.errstate(all="ignore"):
        assert same(run(backend, step, x, shape=x.shape), x + x)


@pytest.mark.parametrize("scale", [1 / 32, 0.1, 3.0, 1e-30, 1e30])
def test_numbers_are_quantised_to_the_nearest_even_integer(
    backend: Backend, scale: float, rng: np.random.Generator
) -> None:
    ties = (np.arange(-300, 300, dtype=np.float32) / 2) * np.float32(scale)
    x = np.concatenate([ties, SPECIAL, rng.standard_normal(50) * 100]).astype(np.float32)
    for part in (x, x[:-3].reshape(2, -1, 1), x[:7]):
        step = node_step(nodes.Quantize, scale=scale)
        got = run(backend, step, part, kind="int8", shape=part.shape)
        assert got.dtype == np.int8
        assert np.array_equal(got, oracle.quantize(part, scale))


@pytest.mark.parametrize("channels", [1, 3, 8, 9, 32, 70])
def test_channels_are_copied_and_the_others_left_as_they_are(
    backend: Backend, channels: int, rng: np.random.Generator
) -> None:
    x = numbers(rng, 3, 4, channels)
    buffers = (Buffer("float", x.shape), Buffer("float", (3, 4, 2 * channels + 1)))
    end = max(channels - 1, 1)
    cuts = [(0, 0, channels), (channels - end, channels, end), (0, channels + end, 1)]
    cuts.append((0, channels + end + 1, channels - end))
    plan_steps = [
        steps.CopyChannels(name=f"c{i}", source=0, target=1, begin=b, to=to, count=count)
        for i, (b, to, count) in enumerate(cuts)
        if count
    ]
    plan = Plan(buffers, tuple(plan_steps), 0, (1,), ("y",))
    wanted = np.concatenate([x[..., b : b + n] for b, _, n in cuts], axis=-1)
    if wanted.shape[-1] < 2 * channels + 1:  # of one channel: the rest of the junk stays
        outputs = [np.full((1, *buffers[1].shape), 7, np.float32)]
        backend.bind(plan).run(x[None], outputs)
        assert same(outputs[0][0, ..., : wanted.shape[-1]], wanted)
        assert np.all(outputs[0][0, ..., wanted.shape[-1] :] == 7)
        return
    assert same(run_executor(bind(backend, plan), plan, x[None])[0][0], wanted)


@pytest.mark.parametrize(
    ("channels", "groups"), [(6, 1), (6, 6), (6, 2), (12, 3), (64, 4), (90, 9)]
)
def test_channels_are_shuffled(
    backend: Backend, channels: int, groups: int, rng: np.random.Generator
) -> None:
    for shape in ((3, 4, channels), (channels,)):
        x = numbers(rng, *shape)
        step = node_step(nodes.ShuffleChannels, groups=groups)
        assert same(run(backend, step, x, shape=shape), oracle.shuffle_channels(x, groups))


PADDINGS = [(0, 0, 0, 0), (1, 0, 0, 0), (0, 2, 0, 0), (0, 0, 3, 0), (0, 0, 0, 1), (1, 2, 3, 4)]


@pytest.mark.parametrize("padding", PADDINGS, ids=str)
@pytest.mark.parametrize("channels", [1, 7, 64, 65, 130])
def test_borders_of_floats_and_of_signs(
    backend: Backend, channels: int, padding: Any, rng: np.random.Generator
) -> None:
    x = numbers(rng, 2, 3, channels)
    shape = (2 + padding[0] + padding[1], 3 + padding[2] + padding[3], channels)
    for value in (0.0, -0.0, 0.1, -3e38):
        step = node_step(nodes.Pad2d, padding=padding, value=value)
        wanted = oracle.pad2d(x, padding, float(np.float32(value))).astype(np.float32)
        assert same(run(backend, step, x, shape=shape), wanted)
    words = oracle.bits_of(x)
    for value in (-1.0, 1.0):
        step = node_step(nodes.Pad2d, padding=padding, value=value)
        buffers = Buffer("bits", x.shape), Buffer("bits", shape)
        got = run_step(backend, step, *buffers, words)
        assert np.array_equal(got, oracle.bits_of(oracle.pad2d(oracle.signs(x), padding, value)))


@pytest.mark.parametrize("channels", [1, 3, 8, 63, 64, 65, 200])
@pytest.mark.parametrize("extent", [(1, 1), (1, 5), (7, 7)], ids=str)
def test_global_pools(
    backend: Backend, channels: int, extent: Any, rng: np.random.Generator
) -> None:
    x = rng.standard_normal((*extent, channels)).astype(np.float32) * np.float32(1e3)
    step = node_step(nodes.GlobalPool2d)
    got = run(backend, step, x, shape=(channels,))
    exact = oracle.global_pool2d(x, "mean")
    slack = np.abs(exact) * HALF_ULP + 1e3 * x.size * 2.0**-52
    assert np.all(np.abs(got - exact) <= slack)
    x = numbers(rng, *extent, channels)
    step = node_step(nodes.GlobalPool2d, mode="max")
    wanted = oracle.global_pool2d(x, "max").astype(np.float32)
    assert np.array_equal(run(backend, step, x, shape=(channels,)), wanted, equal_nan=True)


def test_a_global_mean_is_summed_in_double_precision(backend: Backend) -> None:
    x = np.array([3e38, 3e38, 1.0, -3e38, -3e38, 2.0], np.float32).reshape(2, 3, 1)
    step = node_step(nodes.GlobalPool2d)
    assert abs(run(backend, step, x, shape=(1,))[0]) < 1e23  # the sum has not become infinite


@pytest.mark.parametrize("channels", [1, 20, 64, 100, 130, 256])
def test_pools_of_signs_take_the_minimum_where_they_are_told_to(
    backend: Backend, channels: int, rng: np.random.Generator
) -> None:
    x = rng.standard_normal((5, 6, channels))
    minimum = rng.random(channels) < 0.5
    for kernel, stride, padding in (
        ((2, 2), (2, 2), (0, 0, 0, 0)),
        ((3, 3), (1, 2), (1, 1, 0, 2)),
        ((2, 1), (1, 1), (1, 0, 0, 0)),
    ):
        window = Window(kernel, stride, padding)
        largest = oracle.pool2d(oracle.signs(x), "max", kernel, stride, padding)
        smallest = oracle.pool2d(oracle.signs(x), "min", kernel, stride, padding)
        for flags, wanted in ((None, largest), (minimum, np.where(minimum, smallest, largest))):
            step = steps.MaxPool2d(name="p", source=0, target=1, window=window, minimum=flags)
            buffers = Buffer("bits", x.shape), Buffer("bits", largest.shape)
            got = run_step(backend, step, *buffers, oracle.bits_of(x))
            assert np.array_equal(got, oracle.bits_of(wanted))


@pytest.mark.parametrize("channels", CHANNELS)
def test_pools_of_floats_at_every_width(
    backend: Backend, channels: int, rng: np.random.Generator
) -> None:
    """Windows as networks have them, with NaN and infinities among the maxima."""
    for kernel, stride, padding in (
        ((2, 2), (2, 2), (0, 0, 0, 0)),
        ((3, 3), (2, 2), (1, 1, 1, 1)),
        ((3, 3), (2, 2), (0, 1, 0, 1)),
    ):
        window, shape = Window(kernel, stride, padding), (5, 4, channels)
        x = numbers(rng, *shape)
        wanted = oracle.pool2d(x, "max", kernel, stride, padding).astype(np.float32)
        step: Step = steps.MaxPool2d(name="p", source=0, target=1, window=window)
        got = run(backend, step, x, shape=wanted.shape)
        assert np.array_equal(got, wanted, equal_nan=True)
        for include in (True, False):
            x = rng.standard_normal(shape).astype(np.float32)
            step = steps.AvgPool2d(
                name="p", source=0, target=1, window=window, count_include_pad=include
            )
            got = run(backend, step, x, shape=wanted.shape)
            mean = in_order(x, window, count_include_pad=include)
            if backend.name == "reference":  # NumPy adds in an order of its own
                np.testing.assert_allclose(got, mean, rtol=1e-5, atol=1e-6)
            else:
                assert same(got, mean)


def in_order(x: Array, window: Window, *, count_include_pad: bool) -> Array:
    """Return the mean whose taps are added row by row, each sum rounded, as kernels add them."""
    (kh, kw), (sh, sw), (top, _, left, _) = window.kernel, window.stride, window.padding
    out = oracle.window_shape(x.shape[:2], window.kernel, window.stride, window.padding)
    result = np.zeros((*out, x.shape[-1]), np.float32)
    for y, z in np.ndindex(*out):
        places = [
            (i, j)
            for i in range(y * sh - top, y * sh - top + kh)
            for j in range(z * sw - left, z * sw - left + kw)
            if 0 <= i < x.shape[0] and 0 <= j < x.shape[1]
        ]
        for place in places:
            result[y, z] += x[place]
        result[y, z] /= np.float32(kh * kw if count_include_pad else len(places))
    return result


@pytest.mark.parametrize("order", ["channels_first", "channels_last"])
@pytest.mark.parametrize("channels", [1, 3, 8, 20, 50, 63, 64, 65, 96, 128, 192, 256, 500])
def test_flattened_signs_are_where_flattened_numbers_are(
    backend: Backend, channels: int, order: str, rng: np.random.Generator
) -> None:
    extents = [(1, 1), (1, 2), (4, 4), (6, 6), (3, 7), (8, 8), (5, 13), (9, 15)]
    for extent in extents[: 8 if channels < 100 else 5]:
        x = rng.standard_normal((*extent, channels)).astype(np.float32)
        step = steps.Flatten(name="f", source=0, target=1, channels_first=order == "channels_first")
        buffers = Buffer("bits", x.shape), Buffer("bits", (x.size,))
        got = run_step(backend, step, *buffers, bits.pack(x).words)
        assert np.array_equal(got, bits.pack(oracle.flatten(x, order)).words)
        assert same(run(backend, step, x, shape=(x.size,)), oracle.flatten(x, order))


def test_a_reshaped_map_holds_the_same_numbers(backend: Backend, rng: np.random.Generator) -> None:
    x = numbers(rng, 4, 6, 5)
    for shape in ((120,), (1, 1, 120), (5, 4, 6), (60, 2, 1)):
        step = steps.Flatten(name="r", source=0, target=1, channels_first=False)
        assert same(run(backend, step, x, shape=shape), x.reshape(shape))


@pytest.mark.parametrize("kind", ["float", "pixels", "int8"])
@pytest.mark.parametrize("channels", [1, 3, 20, 63, 64, 65, 130])
def test_signs_of_every_type_below_a_threshold_or_not(
    backend: Backend, channels: int, kind: Any, rng: np.random.Generator
) -> None:
    if kind == "float":
        x = numbers(rng, 3, 4, channels)
    elif kind == "pixels":
        x = rng.integers(0, 256, (3, 4, channels)).astype(np.uint8)
    else:
        x = rng.integers(-128, 128, (3, 4, channels)).astype(np.int8)
    threshold = (rng.standard_normal(channels) * (1 if kind == "float" else 99)).astype(np.float32)
    threshold[rng.random(channels) < 0.2] = rng.choice([np.inf, -np.inf, 0, -0.0, 128])
    flip = rng.random(channels) < 0.5
    for t in (None, threshold):
        for f in (None, flip):
            step = steps.PackSigns(name="s", source=0, target=1, threshold=t, flip=f)
            got = run_step(backend, step, Buffer(kind, x.shape), Buffer("bits", x.shape), x)
            assert np.array_equal(got, oracle.bits_of(oracle.signs(x, t, f)))

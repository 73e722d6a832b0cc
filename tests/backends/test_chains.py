"""The whole chain behind the sums of a binary layer, and signs beside its floats."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import oracle
from bitinfer import bits
from bitinfer.backends import Backend
from bitinfer.plan import Buffer, Plan, Window, steps
from bitinfer.plan.steps import Activation, Epilogue
from harness import DTYPES, bind, run_executor

Array = NDArray[Any]

# (Cin, H, W, Cout, kernel, groups), padded by half the kernel, so that the map keeps its size
SHAPES = [
    (64, 6, 6, 64, 3, 1),
    (128, 5, 5, 128, 3, 1),
    (96, 5, 6, 160, 5, 1),
    (20, 7, 7, 20, 1, 1),
    (64, 4, 5, 257, 3, 1),
    (60, 5, 5, 90, 3, 3),
    (512, 2, 2, 33, 3, 1),
]


def run_both(
    backend: Backend, x: Array, residual: Array, layer: Any, *, beside: bool
) -> list[Array]:
    """Run a layer on the signs of ``x``; buffer 3 is the residual, buffer 5 takes the signs.

    Both inputs lie one behind the other in the network's one input.
    """
    out = residual.shape
    joined = np.concatenate([x.reshape(-1), residual.reshape(-1)])
    is_signs = layer.epilogue.sign_threshold is not None and not beside
    buffers = (
        Buffer("float", joined.shape),
        Buffer("float", x.shape),
        Buffer("bits", x.shape),
        Buffer("float", out),
        Buffer("bits" if is_signs else "float", out),
        Buffer("bits", out),
        Buffer("float", (x.size,)),
        Buffer("float", (residual.size,)),
    )
    plan_steps: list[steps.Step] = []
    for flat, whole, begin in ((6, 1, 0), (7, 3, x.size)):
        count = buffers[flat].shape[0]
        plan_steps.append(
            steps.CopyChannels(name="cut", source=0, target=flat, begin=begin, to=0, count=count)
        )
        plan_steps.append(
            steps.Flatten(name="fold", source=flat, target=whole, channels_first=False)
        )
    plan_steps += [steps.PackSigns(name="pack", source=1, target=2), layer]
    outputs = (4, 5) if beside else (4,)
    plan = Plan(buffers, tuple(plan_steps), 0, outputs, ("y", "s")[: len(outputs)])
    return [part[0] for part in run_executor(bind(backend, plan), plan, joined[None])]


def everything(
    cout: int, kind: str | None, rng: np.random.Generator, dot: Array
) -> tuple[dict[str, Any], Array, Array]:
    """Return all parts of an epilogue, its residual, and what they make of ``dot``."""
    alpha, bias, slope, shift_in, shift_out = rng.standard_normal((5, cout)).astype(np.float32)
    residual = rng.standard_normal(dot.shape).astype(np.float32)
    floor = rng.integers(-9, 3, cout).astype(np.float32)
    y = oracle.scale(dot, alpha, None, bias, floor=floor, residual=residual)
    parts: dict[str, Any] = {"alpha": alpha, "bias": bias, "floor": floor, "residual": 3}
    if kind is None:
        return parts, residual, y
    tensors = {
        "prelu": {"slope": slope},
        "rprelu": {"shift_in": shift_in, "slope": slope, "shift_out": shift_out},
    }.get(kind, {})
    parts["activation"] = Activation(kind, **tensors, low=-1.5, high=2.5)
    return parts, residual, oracle.activate(y, kind, **tensors, low=-1.5, high=2.5)


def check(backend: Backend, x: Array, layer: Any, dot: Array, kind: Any, rng: Any) -> None:
    """Assert that floats, signs, and signs beside floats are right."""
    cout = dot.shape[-1]
    parts, residual, y = everything(cout, kind, rng, dot)
    # Some thresholds are met exactly, some are beyond all floats.
    rows = y.reshape(-1, cout)
    threshold = rows[rng.integers(0, len(rows), cout), range(cout)]
    if kind == "sigmoid":
        threshold = rng.random(cout).astype(np.float32)
    threshold[::7], threshold[1::7] = np.inf, -np.inf
    flip = rng.random(cout) < 0.5
    signs = oracle.bits_of(oracle.signs(y, threshold, flip))
    tolerance = 2.0**-22 if kind == "sigmoid" else 0
    (floats,) = run_both(backend, x, residual, layer(Epilogue(**parts)), beside=False)
    np.testing.assert_allclose(floats, y, rtol=tolerance, atol=0)
    parts.update(sign_threshold=threshold, flip=flip)
    (got,) = run_both(backend, x, residual, layer(Epilogue(**parts)), beside=False)
    assert np.array_equal(got, signs)
    both = layer(Epilogue(**parts, signs=5))
    floats, got = run_both(backend, x, residual, both, beside=True)
    np.testing.assert_allclose(floats, y, rtol=tolerance, atol=0)
    assert np.array_equal(got, signs)


@pytest.mark.parametrize("kind", [None, "relu", "prelu", "rprelu", "clip", "sigmoid"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_convolutions(
    backend: Backend, shape: tuple[int, ...], kind: str | None, rng: np.random.Generator
) -> None:
    cin, height, width, cout, kernel, groups = shape
    x = rng.standard_normal((height, width, cin)).astype(np.float32)
    weight = rng.standard_normal((cout, kernel, kernel, cin // groups))
    padding = (kernel // 2,) * 4
    dot = oracle.conv2d(oracle.signs(x), oracle.signs(weight), padding=padding, groups=groups)

    def layer(epilogue: Epilogue) -> steps.BinaryConv2d:
        window = Window((kernel, kernel), (1, 1), padding, (1, 1), groups)
        words = bits.pack(weight).words
        return steps.BinaryConv2d(
            name="y",
            source=2,
            target=4,
            window=window,
            weight=words,
            pad_value=0,
            epilogue=epilogue,
        )

    check(backend, x, layer, dot, kind, rng)


@pytest.mark.parametrize("kind", [None, "relu", "rprelu"])
@pytest.mark.parametrize(("cin", "cout"), [(1, 1), (70, 64), (200, 100), (640, 130)])
def test_dense_layers(
    backend: Backend, cin: int, cout: int, kind: str | None, rng: np.random.Generator
) -> None:
    x = rng.standard_normal(cin).astype(np.float32)
    weight = rng.standard_normal((cout, cin))
    dot = oracle.dense(oracle.signs(x), oracle.signs(weight))

    def layer(epilogue: Epilogue) -> steps.BinaryDense:
        words = bits.pack(weight).words
        return steps.BinaryDense(name="y", source=2, target=4, weight=words, epilogue=epilogue)

    check(backend, x, layer, dot, kind, rng)


@pytest.mark.parametrize("floor", [-3.0, 0.0, 2.0])
@pytest.mark.parametrize("cout", [3, 64, 70])
def test_a_floor_holds_the_sums_up_before_they_are_scaled(
    backend: Backend, cout: int, floor: float
) -> None:
    weight = np.ones((cout, 4))
    weight[1::2] = -1
    parts = {"floor": np.full(cout, floor, np.float32), "alpha": np.full(cout, -2, np.float32)}
    layer = steps.BinaryDense(
        name="y", source=2, target=4, weight=bits.pack(weight).words, epilogue=Epilogue(**parts)
    )
    (y,) = run_both(
        backend, np.ones(4, np.float32), np.zeros(cout, np.float32), layer, beside=False
    )
    assert y.dtype == DTYPES["float"]
    assert np.all(y[0::2] == -8)
    assert np.all(y[1::2] == -2 * max(-4, floor))

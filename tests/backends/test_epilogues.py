"""What becomes of a binary layer's integers: thresholds to signs, scales, residual, activation."""

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

Array = NDArray[Any]

# (Cin, H, W, Cout, kernel, stride, padding, dilation, groups): every block size of the table
# kernels, odd and even widths, shapes that they hand on, words that are half full; few outputs.
SHAPES = [
    (64, 6, 6, 64, 3, 1, 1, 1, 1),
    (64, 5, 7, 20, 3, 1, 1, 1, 1),
    (128, 5, 5, 128, 3, 1, 1, 1, 1),
    (100, 6, 5, 100, 3, 2, 1, 1, 1),
    (96, 5, 6, 160, 5, 1, 2, 1, 1),
    (20, 7, 7, 200, 1, 1, 0, 1, 1),
    (256, 4, 5, 257, 3, 1, 1, 1, 1),
    (130, 3, 3, 330, 2, 1, 0, 1, 1),
    (40, 9, 9, 70, 3, 1, 2, 2, 1),
    (96, 6, 6, 64, 3, 1, 1, 1, 2),
    (60, 5, 5, 90, 3, 1, 1, 1, 3),
    (512, 2, 2, 33, 9, 1, 4, 1, 1),
    (12, 9, 15, 24, 3, 1, 1, 1, 1),
    (60, 12, 12, 30, 3, 1, 1, 1, 1),
]


def run_layer(
    backend: Backend, shape: tuple[int, ...], source: Array, weight: Array, **epilogue: Any
) -> Array:
    cin, height, width, cout, kernel, stride, padding, dilation, groups = shape
    reach = dilation * (kernel - 1) + 1
    out = tuple((n + 2 * padding - reach) // stride + 1 for n in (height, width))
    residual = epilogue.pop("residual", None)
    is_signs = "threshold" in epilogue
    buffers = [
        Buffer("float", (height, width, cin)),
        Buffer("bits", (height, width, cin)),
        Buffer("bits" if is_signs else "float", (*out, cout)),
        Buffer("float", (height, width, 1)),
    ]
    window = Window((kernel, kernel), (stride, stride), (padding,) * 4, (dilation,) * 2, groups)
    layer = steps.BinaryConv2d(
        name="layer",
        source=1,
        target=2,
        window=window,
        weight=bits.pack(weight).words,
        pad_value=0,
        epilogue=Epilogue(residual=None if residual is None else 2 + 2, **epilogue),
    )
    plan_steps: list[steps.Step] = [steps.PackSigns(name="pack", source=0, target=1)]
    if residual is not None:
        # The residual has to come from a step: a convolution whose bias is the wanted map.
        buffers.append(Buffer("float", (*out, cout)))
        plan_steps.append(
            steps.Conv2d(
                name="residual",
                source=0,
                target=4,
                window=Window((kernel, kernel), (stride, stride), (padding,) * 4, (dilation,) * 2),
                weight=np.zeros((cout, kernel, kernel, cin), np.float32),
                epilogue=Epilogue(bias=residual),
            )
        )
    plan = Plan(tuple(buffers), (*plan_steps, layer), 0, (2,), ("layer",))
    result = np.empty((1, *buffers[2].stored_shape), np.uint64 if is_signs else np.float32)
    result.view(np.uint8)[...] = 0xA5
    backend.bind(plan).run(source[None].astype(np.float32), [result])
    return result[0]


def integers(shape: tuple[int, ...], source: Array, weight: Array) -> Array:
    _, _, _, _, _, stride, padding, dilation, groups = shape
    return oracle.conv2d(
        np.where(source < 0, -1.0, 1.0),
        np.where(weight < 0, -1.0, 1.0),
        stride=(stride, stride),
        padding=(padding,) * 4,
        dilation=(dilation, dilation),
        groups=groups,
    )


def make(shape: tuple[int, ...], rng: np.random.Generator) -> tuple[Array, Array]:
    cin, height, width, cout, kernel, _, _, _, groups = shape
    source = rng.standard_normal((height, width, cin)).astype(np.float32)
    return source, rng.standard_normal((cout, kernel, kernel, cin // groups))


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_thresholds_give_the_signs_of_the_comparison(
    backend: Backend, shape: tuple[int, ...], rng: np.random.Generator
) -> None:
    source, weight = make(shape, rng)
    dot = integers(shape, source, weight)
    cout = shape[3]
    # Around the results, at their extremes and far beyond what 16 bits hold.
    threshold = rng.integers(dot.min() - 2, dot.max() + 3, cout).astype(np.int32)
    threshold[:: 5 + cout // 40] = rng.choice([-(2**31), -40000, 40000, 2**31 - 1])
    flip = rng.random(cout) < 0.5
    words = run_layer(backend, shape, source, weight, threshold=threshold, flip=flip)
    negative = (dot < threshold) != flip
    assert np.array_equal(words, bits.pack(np.where(negative, -1.0, 1.0)).words)


@pytest.mark.parametrize("kind", [None, "relu", "prelu", "clip"])
@pytest.mark.parametrize("has_residual", [False, True])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_scale_residual_and_activation_are_applied_in_order(
    backend: Backend,
    shape: tuple[int, ...],
    has_residual: bool,
    kind: Any,
    rng: np.random.Generator,
) -> None:
    source, weight = make(shape, rng)
    cout = shape[3]
    alpha, bias, residual, slope = rng.standard_normal((4, cout)).astype(np.float32)
    activation = None if kind is None else Activation(kind, slope=slope, low=-1.5, high=2.5)
    epilogue: dict[str, Any] = {"alpha": alpha, "bias": bias, "activation": activation}
    if has_residual:
        epilogue["residual"] = residual
    y = integers(shape, source, weight).astype(np.float32) * alpha + bias
    if has_residual:
        y = y + residual
    expected = {
        None: y,
        "relu": np.maximum(y, 0),
        "prelu": np.where(y < 0, y * slope, y),
        "clip": np.clip(y, -1.5, 2.5),
    }[kind]
    assert expected.dtype == np.float32
    assert np.array_equal(run_layer(backend, shape, source, weight, **epilogue), expected)


def test_dense_layer_packs_its_signs(backend: Backend, rng: np.random.Generator) -> None:
    for cin, cout in ((1, 1), (70, 64), (200, 100), (640, 130)):
        weight = rng.standard_normal((cout, cin))
        source = rng.standard_normal(cin).astype(np.float32)
        dot = np.where(weight < 0, -1, 1) @ np.where(source < 0, -1, 1)
        threshold = rng.integers(-5, 6, cout).astype(np.int32)
        flip = rng.random(cout) < 0.5
        plan = Plan(
            (Buffer("float", (cin,)), Buffer("bits", (cin,)), Buffer("bits", (cout,))),
            (
                steps.PackSigns(name="pack", source=0, target=1),
                steps.BinaryDense(
                    name="layer",
                    source=1,
                    target=2,
                    weight=bits.pack(weight).words,
                    epilogue=Epilogue(threshold=threshold, flip=flip),
                ),
            ),
            0,
            (2,),
            ("layer",),
        )
        result = np.full((1, bits.words_for(cout)), 2**64 - 1, np.uint64)
        backend.bind(plan).run(source[None], [result])
        negative = (dot < threshold) != flip
        assert np.array_equal(result[0], bits.pack(np.where(negative, -1.0, 1.0)).words)


@pytest.mark.parametrize("cout", [20, 70, 130, 257])
def test_a_negative_zero_stays_one_where_there_is_no_bias(backend: Backend, cout: int) -> None:
    source = np.ones((2, 2, 2), np.float32)
    weight = np.tile(np.array([1.0, -1.0]), (cout, 1, 1, 1))
    alpha = np.full(cout, -1, np.float32)
    result = run_layer(backend, (2, 2, 2, cout, 1, 1, 0, 1, 1), source, weight, alpha=alpha)
    assert np.all(result == 0)
    assert np.all(np.signbit(result))

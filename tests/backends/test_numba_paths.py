"""Paths of the Numba backend that networks seldom take, against the reference; and other CPUs."""

from __future__ import annotations

import itertools
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bitinfer import backends, bits
from bitinfer.plan import Buffer, Plan, Window, steps
from bitinfer.plan.steps import Activation, Epilogue
from harness import bind, run_executor

pytest.importorskip("numba", reason="numba is not installed")
from bitinfer.backends.numba.binding import bind_step
from bitinfer.backends.numba.kernels import layers

Array = np.ndarray[Any, Any]


def both(plan: Plan, x: Array) -> None:
    """Check that all outputs of a plan are those of the reference backend."""
    numba, reference = (
        run_executor(bind(backends.select(name), plan), plan, x) for name in ("numba", "reference")
    )
    for ours, right in zip(numba, reference, strict=True):
        assert np.array_equal(ours, right)


# (Cin, Cout, groups, height, width): pixels around the batch of sums and around those that are
# counted together; groups whose lanes are shared, and whose outputs cross words.
SHAPES = [
    (64, 16, 1, 1, 63),
    (64, 17, 1, 5, 13),
    (32, 48, 1, 8, 16),
    (48, 15, 1, 3, 43),
    (6, 6, 6, 4, 5),
    (40, 40, 20, 5, 3),
    (9, 90, 3, 3, 3),
    (8, 66, 2, 4, 4),
    (128, 64, 2, 2, 9),
    (96, 15, 3, 1, 1),
]


def epilogues(rng: np.random.Generator, outputs: int) -> list[Epilogue]:
    """Return every way in which a layer may end; the buffers 2 ... 5 are beta to signs."""
    values = rng.integers(-8, 9, (8, outputs)).astype(np.float32)
    flip = rng.random(outputs) < 0.5
    alpha, bias, floor, shift_in, slope, shift_out, limit, _ = values
    rprelu = Activation("rprelu", shift_in=shift_in, slope=slope, shift_out=shift_out)
    return [
        Epilogue(),
        Epilogue(threshold=limit.astype(np.int32), flip=flip),
        Epilogue(threshold=np.full(outputs, -(2**31), np.int32)),
        Epilogue(threshold=np.full(outputs, 2**31 - 1, np.int32)),
        Epilogue(alpha=alpha, bias=bias, floor=floor, beta=2, residual=3, activation=rprelu),
        Epilogue(alpha=alpha, residual=3, sign_threshold=limit, flip=flip, signs=5),
        Epilogue(bias=bias, beta=2, activation=Activation("clip", low=-3, high=5)),
        Epilogue(bias=bias, sign_threshold=limit, activation=Activation("prelu", slope=slope)),
    ]


def plan_of(layer: Any, kind: Any, shape: tuple[int, ...], beta_groups: int) -> Plan:
    """Return a plan with one layer that reads the map 1; beta and residual come from pools of it.

    The input holds small integers, so that all sums of floats are exact.
    """
    e = layer.epilogue
    out_shape = (*shape[:2], len(layer.weight))
    is_bits = e.threshold is not None or (e.sign_threshold is not None and e.signs is None)
    buffers = (
        Buffer("float", shape),
        Buffer(kind, shape),
        Buffer("float", (*shape[:2], beta_groups)),
        Buffer("float", out_shape),
        Buffer("bits" if is_bits else "float", out_shape),
        Buffer("bits", out_shape),
    )
    made: list[steps.Step] = []
    if kind == "bits":
        made.append(steps.PackSigns(name="pack", source=0, target=1))
    elif kind == "float":
        made.append(steps.Flatten(name="copy", source=0, target=1, channels_first=False))
    if e.beta is not None:
        count = shape[-1] // beta_groups
        # The first channel of each group stands for its mean, which need not be exact.
        made += [
            steps.CopyChannels(name=f"b{g}", source=0, target=2, begin=g * count, to=g, count=1)
            for g in range(beta_groups)
        ]
    if e.residual is not None:
        weight = np.zeros((out_shape[-1], 1, 1, shape[-1]), np.float32)
        weight[..., 0] = 1
        window = Window((1, 1))
        made.append(steps.Conv2d(name="r", source=0, target=3, window=window, weight=weight))
    outputs = (4,) if e.signs is None else (4, 5)
    return Plan(buffers, (*made, layer), 0, outputs, ("y", "s")[: len(outputs)])


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("pad_value", [-1, 0, 1])
def test_binary_layers_end_in_every_way(
    shape: tuple[int, ...], pad_value: int, rng: np.random.Generator
) -> None:
    channels, outputs, groups, height, width = shape
    weight = bits.pack(rng.standard_normal((outputs, 3, 3, channels // groups))).words
    x = rng.integers(-9, 10, (1, height, width, channels)).astype(np.float32)
    for number, e in enumerate(epilogues(rng, outputs)):
        beta_groups = groups if number % 2 == 0 else 1
        window = Window((3, 3), padding=(1, 1, 1, 1), groups=groups)
        layer = steps.BinaryConv2d(
            name="layer",
            source=1,
            target=4,
            window=window,
            weight=weight,
            pad_value=pad_value,
            epilogue=e,
        )
        both(plan_of(layer, "bits", (height, width, channels), beta_groups), x)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_layers_of_numbers_end_in_every_way(
    shape: tuple[int, ...], rng: np.random.Generator
) -> None:
    channels, outputs, groups, height, width = shape
    weight = rng.integers(-3, 4, (outputs, 3, 3, channels // groups)).astype(np.float32)
    x = rng.integers(-9, 10, (1, height, width, channels)).astype(np.float32)
    window = Window((3, 3), padding=(1, 1, 1, 1), groups=groups)
    for e in epilogues(rng, outputs):
        if e.threshold is None and e.beta is None:
            layer = steps.Conv2d(
                name="layer", source=1, target=4, window=window, weight=weight, epilogue=e
            )
            both(plan_of(layer, "float", (height, width, channels), 1), x)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("kind", ["pixels", "int8"])
@pytest.mark.parametrize("largest", [1, 127, 2**15 - 1])
def test_integer_layers_of_every_width_are_exact(
    shape: tuple[int, ...], kind: Any, largest: int, rng: np.random.Generator
) -> None:
    channels, outputs, groups, height, width = shape
    dtype = np.int8 if largest < 128 else np.int16
    weight = rng.integers(-largest, largest + 1, (outputs, 3, 3, channels // groups))
    weight.flat[0] = largest
    if kind == "pixels":
        x = rng.integers(0, 256, (1, height, width, channels)).astype(np.uint8)
    else:
        x = rng.integers(-128, 128, (1, height, width, channels)).astype(np.int8)
    window = Window((3, 3), padding=(1, 0, 2, 1), groups=groups)
    offset = rng.integers(-5, 6, channels).astype(np.float32)
    alpha, bias = rng.integers(-4, 5, (2, outputs)).astype(np.float32)
    limit = rng.integers(-99, 100, outputs) * largest
    shape_in, shape_out = (height, width, channels), (height - 1, width + 1, outputs)
    if height < 2:
        window = Window((3, 3), padding=(1, 1, 2, 1), groups=groups)
        shape_out = (height, width + 1, outputs)
    for e, given in itertools.product(
        (
            Epilogue(alpha=alpha, bias=bias),
            Epilogue(threshold=limit.astype(np.int32), flip=rng.random(outputs) < 0.5),
        ),
        (None, offset),
    ):
        if e.threshold is not None and given is not None:
            continue
        layer = steps.Conv2d(
            name="layer",
            source=0,
            target=1,
            window=window,
            weight=weight.astype(dtype),
            offset=given,
            epilogue=e,
        )
        target = Buffer("float" if e.threshold is None else "bits", shape_out)
        plan = Plan((Buffer(kind, shape_in), target), (layer,), 0, (1,), ("y",))
        both(plan, x)


def test_float32_is_left_where_it_does_not_hold_every_sum() -> None:
    """At 2^24 it still does, one weight further it does not."""
    for rest, kernel in ((1, layers.conv2d), (2, layers.conv2d_wide)):
        # 128 * (4 * 32767 + 3 + rest) is 2^24 for rest = 1
        weight = np.array([[32767] * 4 + [3, rest]], np.int16)
        assert (128 * int(weight.sum()) > 2**24) == (kernel is layers.conv2d_wide)
        step = steps.Dense(name="d", source=0, target=1, weight=weight)
        plan = Plan((Buffer("int8", (6,)), Buffer("float", (1,))), (step,), 0, (1,), ("y",))
        assert bind_step(step, plan).kernel is kernel
        both(plan, np.full((1, 6), -128, np.int8))


SELF = Path(__file__)


@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="CPUs of x86-64")
@pytest.mark.parametrize(("cpu", "needs"), [("x86-64", "popcnt"), ("haswell", "avx2")])
def test_machine_code_for_lesser_cpus_is_exact_too(cpu: str, needs: str, tmp_path: Path) -> None:
    """Without VPOPCNTDQ bytes are counted; what runs here is what such a CPU would run."""
    if not backends.cpu_features().get(needs):
        pytest.skip(f"it is not known that this CPU has {needs}")
    env = os.environ | {
        "NUMBA_CPU_NAME": cpu,
        "NUMBA_CPU_FEATURES": "",
        "NUMBA_CACHE_DIR": str(tmp_path),
    }
    chosen = ["-k", "end_in_every_way", "-p", "no:cacheprovider", "-q"]
    run = subprocess.run(
        [sys.executable, "-m", "pytest", str(SELF), *chosen],
        env=env,
        cwd=SELF.parents[2],
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stdout

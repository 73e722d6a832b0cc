"""A convolution and its pool in turns: the same bits in less memory."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from bitinfer.backends import select
from bitinfer.graph import GraphBuilder, check, passes
from bitinfer.plan import Plan, bands, cost, lower
from bitinfer.plan.steps import Conv2d
from harness import fill_arena

executor = pytest.importorskip("bitinfer.backends.native.executor", reason="no extension")


def network(rng: np.random.Generator, kernel: int, stride: int, padding: int, kind: str) -> Plan:
    """Return a network whose first map (23, 21, 20) is pooled, and what comes behind it."""
    b = GraphBuilder("turns", (25, 23, 3))
    x = b.conv2d(b.input, rng.standard_normal((20, 3, 3, 3)).astype(np.float32))
    x = b.relu(x) if kind == "max" else x
    if kind == "average":
        x = b.avg_pool2d(x, kernel, stride, padding=padding)
    else:
        x = b.max_pool2d(x, kernel, stride, padding=padding)
    y = b.bconv2d(b.sign(x), rng.choice([-1.0, 1.0], (20, 3, 3, 20)).astype(np.float32), padding=1)
    table = rng.standard_normal((256, 3)).astype(np.float32)
    return lower(passes.optimise(check(*b.build(b.add(x, y)))), table)


def whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(executor, "find_bands", lambda plan: {})


def run(bound: Any, x: Any, junk: int) -> Any:
    (number,) = bound.plan.outputs
    out = np.empty((len(x), *bound.plan.buffers[number].shape), np.float32)
    fill_arena(bound, junk)
    bound.run(x, [out])
    return out


@pytest.mark.parametrize(
    ("kind", "rows", "window"),
    [
        ("max", 2, (3, 2, 1)),
        ("max", 1, (2, 2, 1)),
        ("max", 5, (3, 1, 1)),
        ("average", 1, (5, 2, 2)),
        ("average", 3, (3, 3, 2)),
    ],
)
def test_turns_give_the_same_bits(
    native_name: str,
    window: tuple[int, int, int],
    kind: str,
    rows: int,
    rng: np.random.Generator,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    plan = network(rng, *window, kind)
    x = rng.integers(0, 256, (3, 25, 23, 3), np.uint8)
    kernel, stride, _ = window
    row_bytes = 21 * 20 * 4
    monkeypatch.setattr(bands, "LARGE_MAP_BYTES", 0)
    monkeypatch.setattr(bands, "BAND_BYTES", ((rows - 1) * stride + kernel) * row_bytes)
    backend = select(native_name)
    with monkeypatch.context() as patch:
        whole(patch)
        wanted = run(backend.bind(plan), x, 0xFF)
    bound: Any = backend.bind(plan)
    assert [step.band for step in bound._steps] == [rows, *(0 for _ in plan.steps[1:])]
    assert np.array_equal(run(bound, x, 0xFF), wanted)
    assert np.array_equal(run(bound, x, 0x7F), wanted)


def test_turns_may_be_interrupted(
    rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = network(rng, 3, 2, 1, "max")
    x = rng.integers(0, 256, (1, 25, 23, 3), np.uint8)
    monkeypatch.setattr(bands, "LARGE_MAP_BYTES", 0)
    with monkeypatch.context() as patch:
        whole(patch)
        wanted = run(select("native").bind(plan), x, 0xFF)
    monkeypatch.setattr(cost, "WORK_AT_ONCE", cost.work(plan.steps[0], plan) // 4)
    monkeypatch.setattr(executor, "LONGEST_CALL_S", 0.0)
    bound: Any = select("native").bind(plan)
    assert bound._is_long
    band, pooled_rows = bound._steps[0].band, bound._steps[1].rows
    assert 0 < band < pooled_rows
    calls = 0

    def count() -> None:
        nonlocal calls
        calls += 1

    (number,) = plan.outputs
    out = np.empty((1, *plan.buffers[number].shape), np.float32)
    bound.run(x, [out], count)
    assert np.array_equal(out, wanted)
    assert calls >= -(-pooled_rows // band)


def test_turns_are_timed_apart_and_take_less_memory(
    rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = network(rng, 3, 2, 1, "max")
    monkeypatch.setattr(bands, "LARGE_MAP_BYTES", 0)
    monkeypatch.setattr(bands, "BAND_BYTES", 3 * 21 * 20 * 4)
    bound = select("native").bind(plan)
    x = np.zeros((2, 25, 23, 3), np.uint8)
    (number,) = plan.outputs
    out = np.empty((2, *plan.buffers[number].shape), np.float32)
    assert (bound.profile(x, [out], 3) > 0).all()
    with monkeypatch.context() as patch:
        whole(patch)
        more = select("native").bind(plan).arena_bytes
    assert isinstance(plan.steps[0], Conv2d)
    assert bound.arena_bytes <= more - 10 * 21 * 20 * 4


def test_threads_share_the_rows_of_a_whole_map(
    rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = network(rng, 3, 2, 1, "max")
    monkeypatch.setattr(bands, "LARGE_MAP_BYTES", 0)
    bound: Any = select("native").bind(plan, 2)
    assert not any(step.band for step in bound._steps)

"""plan/bands.py: which maps are pooled while they are made, how many rows at a time."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from bitinfer import zoo
from bitinfer.graph import GraphBuilder, check, passes
from bitinfer.plan import Plan, bands, cost, lower
from bitinfer.plan.bands import Band, find_bands


@pytest.fixture(autouse=True)
def _small_maps_are_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bands, "LARGE_MAP_BYTES", 0)
    monkeypatch.setattr(bands, "BAND_BYTES", 7 * 20 * 4 * 4)  # seven rows of the map below


def pooled(kernel: int = 3, stride: int = 2, padding: int = 1, **changes: Any) -> Plan:
    """Return a convolution to (20, 20, 4) and a pool behind it."""
    b = GraphBuilder("pooled", (20, 20, 3))
    x = b.conv2d(b.input, np.ones((4, 3, 3, 3), np.float32), padding=1)
    y = b.max_pool2d(x, kernel, stride, padding=padding)
    if changes.get("sign"):
        y = b.sign(y)
    if changes.get("shown"):
        return lower(check(*b.build(x, y)))
    if changes.get("read_again"):
        y = b.add(b.max_pool2d(x, kernel, stride, padding=padding), y)
    return lower(check(*b.build(y)))


def test_a_band_is_as_many_rows_as_fit() -> None:
    assert find_bands(pooled()) == {0: Band(3, 7)}
    assert find_bands(pooled(2, 2, 0)) == {0: Band(3, 6)}
    assert find_bands(pooled(3, 1)) == {0: Band(5, 7)}
    assert find_bands(pooled(4, 4, 0)) == {0: Band(1, 4)}


@pytest.mark.parametrize(
    "plan",
    [
        pooled(3, 3, 0),  # the last rows are not read
        pooled(2, 3, 1),  # rows between are not read
        pooled(8, 2, 3),  # no row of the pool fits
        pooled(shown=True),
        pooled(read_again=True),
    ],
    ids=["end", "between", "narrow", "shown", "read_again"],
)
def test_other_maps_stay_whole(plan: Plan) -> None:
    assert find_bands(plan) == {}


def test_small_maps_stay_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bands, "LARGE_MAP_BYTES", 20 * 20 * 4 * 4)
    assert find_bands(pooled()) == {}


def test_a_band_is_no_more_work_than_is_done_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    plan = pooled()
    row = cost.work(plan.steps[0], plan) / 20
    monkeypatch.setattr(cost, "WORK_AT_ONCE", int(5 * row) + 1)
    assert find_bands(plan) == {0: Band(2, 5)}
    monkeypatch.setattr(cost, "WORK_AT_ONCE", int(2 * row))
    assert find_bands(plan) == {}


def test_signs_are_pooled_whole() -> None:
    checked = passes.optimise(check(*zoo.build("xnor-lenet5", zoo.RandomParameters(0))))
    assert find_bands(lower(checked)) == {}


def test_of_the_zoo_those_take_turns_whose_first_map_is_large(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.undo()
    checked = passes.optimise(check(*zoo.build("bireal18", zoo.RandomParameters(0))))
    assert find_bands(lower(checked)) == {0: Band(4, 9)}

"""Whole networks at batch 1 with one thread: ours beside their float twins in other engines."""

from __future__ import annotations

from typing import Any

import pytest
from rig import network_engines
from rig.measuring import RECORDER, Measured, record
from rig.networks import cases

pytestmark = [
    pytest.mark.benchmark(timer=RECORDER.timer),
    pytest.mark.filterwarnings("default"),  # what others' packages warn of is not our error
]


@pytest.mark.parametrize("engine", network_engines.NAMES)
@pytest.mark.parametrize("measured", cases(), ids=lambda case: case.name, indirect=True)
def test_networks(measured: Measured, engine: str, benchmark: Any) -> None:
    record("networks", measured, engine, benchmark)

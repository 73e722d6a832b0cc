"""Single layers at batch 1 with one thread: ours beside float, int8 and binary engines."""

from __future__ import annotations

from typing import Any

import pytest
from rig import engines
from rig.layers import LAYERS
from rig.measuring import RECORDER, Measured, record

pytestmark = [
    pytest.mark.benchmark(timer=RECORDER.timer),
    pytest.mark.filterwarnings("default"),  # what others' packages warn of is not our error
]


@pytest.mark.parametrize("engine", engines.NAMES)
@pytest.mark.parametrize("measured", LAYERS, ids=lambda layer: layer.name, indirect=True)
def test_layers(measured: Measured, engine: str, benchmark: Any) -> None:
    record("layers", measured, engine, benchmark)

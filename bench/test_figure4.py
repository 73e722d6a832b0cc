"""Figure 4 of the XNOR-Net paper: speedup against channels and against window size."""

from __future__ import annotations

from typing import Any

import pytest
from rig import engines
from rig.layers import FIGURE4_CHANNELS, FIGURE4_KERNELS
from rig.measuring import RECORDER, Measured, record

pytestmark = [
    pytest.mark.benchmark(timer=RECORDER.timer),
    pytest.mark.filterwarnings("default"),
]

ENGINES = ("bitinfer", *(name for name in engines.NAMES if name.endswith("-fp32")))


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("measured", FIGURE4_CHANNELS, ids=lambda layer: layer.name, indirect=True)
def test_figure4_channels(measured: Measured, engine: str, benchmark: Any) -> None:
    record("figure4-channels", measured, engine, benchmark)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("measured", FIGURE4_KERNELS, ids=lambda layer: layer.name, indirect=True)
def test_figure4_kernels(measured: Measured, engine: str, benchmark: Any) -> None:
    record("figure4-kernels", measured, engine, benchmark)

"""Binary layers of few channels, at batch 1 with one thread: bits to bits, and with a shortcut."""

from __future__ import annotations

from typing import Any

import pytest
from rig.layers import NARROW
from rig.measuring import RECORDER, Measured, record

pytestmark = [
    pytest.mark.benchmark(timer=RECORDER.timer),
    pytest.mark.filterwarnings("default"),  # what others' packages warn of is not our error
]

ENGINES = (
    "bitinfer-bits",
    "bitinfer-shortcut",
    "onnxruntime-fp32",
    "onnxruntime-int8",
    "mnn-fp32",
    "openvino-fp32",
    "openvino-int8",
)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("measured", NARROW, ids=lambda layer: layer.name, indirect=True)
def test_narrow(measured: Measured, engine: str, benchmark: Any) -> None:
    record("narrow", measured, engine, benchmark)

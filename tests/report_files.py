"""JSON as ``pytest bench --benchmark-json`` writes it, with the figures that a test wants."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

GHZ = 3.2
QUIET = (4.0, 4.0)
BUSY = (4.0, 2.1)


def row(
    engine: str,
    ms: Sequence[float] = (1.0,) * 20,
    *,
    layer: str = "R3",
    suite: str = "layers",
    vector: tuple[float, float] = QUIET,
    ghz: tuple[float, float] | None = (GHZ, GHZ),
    **changes: Any,
) -> dict[str, Any]:
    """Return one benchmark of ``ms`` milliseconds a sample; ``changes`` go into extra_info."""
    seconds = [1e-3 * v for v in ms]
    return {
        "name": f"test_layers[{layer}-{engine}]",
        "stats": {"data": seconds, "min": min(seconds, default=0.0)},
        "extra_info": {
            "suite": suite,
            "engine": engine,
            "layer": layer,
            "shape": "256 x 14 x 14 -> 256, 3x3",
            "channels": 256,
            "kernel_size": 3,
            "macs": 115_605_504,
            "input_elements": 50_176,
            "weight_elements": 589_824,
            "output_elements": 50_176,
            "cpu": "A CPU",
            "pinned": True,
            "threads": 1,
            "compiler": "gcc 12.2.0",
            "commit": "0" * 40,
            "backend": "native:avx2",
            "kernel": "bconv2d/avx2",
            "form": "",
            "version": f"{engine} 1.0",
            "probe": "C",
            "vector_peak": 4.0,
            "read_bytes_per_ns": 64.0,
            "samples": {
                "cpu_seconds": seconds,
                "ghz": [ghz] * len(seconds),
                "vector": [vector] * len(seconds),
            },
            **changes,
        },
    }


def document(*rows: dict[str, Any]) -> dict[str, Any]:
    """Return the content of a file."""
    return {
        "machine_info": {"node": "a-host-name"},
        "benchmarks": list(rows),
        "datetime": "2026-11-21T08:00:00+00:00",
        "version": "5.0.0",
    }


def write(path: Path, *rows: dict[str, Any]) -> Path:
    """Write a file with these rows."""
    path.write_text(json.dumps(document(*rows)))
    return path


def full(path: Path) -> Path:
    """Write a file with every suite: three layers, both halves of figure 4."""
    times = {
        "bitinfer": 0.1,
        "bitinfer-bits": 0.08,
        "naive-c-fp32": 200.0,
        "numpy-fp32": 3.0,
        "mnn-fp32": 1.2,
        "onnxruntime-int8": 0.9,
        "openvino-binary": 0.4,
    }
    rows = [
        row(engine, [ms * (1 + 0.001 * i) for i in range(20)], layer=layer)
        for layer in ("R1", "R3", "P1")
        for engine, ms in times.items()
    ]
    for suite, sizes in (
        ("figure4-channels", [{"channels": c, "kernel_size": 3} for c in (8, 64, 256)]),
        ("figure4-kernels", [{"channels": 256, "kernel_size": k} for k in (1, 3, 5)]),
    ):
        rows += [
            row(engine, [times[engine]] * 20, layer=f"s{i}", suite=suite, **size)
            for i, size in enumerate(sizes)
            for engine in ("bitinfer", "naive-c-fp32", "mnn-fp32")
        ]
    rows += [
        network_row(engine, [ms * (1 + 0.001 * i) for i in range(20)], network=network)
        for network in ("nin", "bireal18")
        for engine, ms in {
            "bitinfer": 0.5,
            "bitinfer-integer": 0.4,
            "bitinfer-integer8": 0.35,
            "mnn-fp32": 3.0,
            "openvino-int8": 1.0,
        }.items()
    ]
    return write(path, *rows)


def network_row(engine: str, ms: Sequence[float], *, network: str) -> dict[str, Any]:
    """Return a benchmark of a whole network, which has no layer and no channels."""
    result = row(engine, ms, suite="networks", network=network, shape=f"{network}, 32x32x3")
    for name in ("layer", "channels", "kernel_size", "weight_elements", "output_elements"):
        del result["extra_info"][name]
    return result

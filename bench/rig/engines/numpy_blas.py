"""Float convolution as im2col and one matrix product."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from rig.engines import FLOAT_TOLERANCE, Engine
from rig.layers import Problem


def build(name: str, problem: Problem) -> Engine:
    """Return the engine, with all of its memory allocated."""
    layer = problem.layer
    pad, size, k = layer.pad, layer.size + 2 * layer.pad, layer.window
    pixels, depth = layer.out_size**2, k * k * layer.channels
    padded = np.zeros((size, size, layer.channels), np.float32)
    inside = padded[pad : size - pad, pad : size - pad]
    windows = sliding_window_view(padded, (k, k), axis=(0, 1))
    windows = windows[:: layer.stride, :: layer.stride].transpose(0, 1, 3, 4, 2)
    columns = np.empty(windows.shape, np.float32)
    matrix = columns.reshape(pixels, depth)
    weight = np.ascontiguousarray(problem.weight.reshape(layer.outputs, depth).T)
    out = np.empty((pixels, layer.outputs), np.float32)

    def run() -> None:
        if k == 1 and layer.stride == 1:
            np.matmul(problem.x.reshape(pixels, depth), weight, out=out)
        else:
            inside[...] = problem.x
            np.copyto(columns, windows)
            np.matmul(matrix, weight, out=out)
        np.add(out, problem.bias, out=out)

    return Engine(
        run=run,
        output=lambda: out.reshape(layer.out_size, layer.out_size, layer.outputs),
        expected=problem.expected_float,
        tolerance=FLOAT_TOLERANCE,
        details={"version": f"numpy {np.__version__}", "form": _blas()},
    )


def _blas() -> str:
    config: Any = np.show_config(mode="dicts")
    blas = config.get("Build Dependencies", {}).get("blas", {})
    return f"{blas.get('name', 'unknown BLAS')} {blas.get('version', '')}".strip()

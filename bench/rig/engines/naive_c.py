"""Float convolution in plain C, as the XNOR-Net paper's baseline."""

from __future__ import annotations

import ctypes
import functools

import numpy as np

from rig import compiler
from rig.engines import FLOAT_TOLERANCE, Engine, UnavailableError
from rig.layers import Problem


@functools.cache
def _library() -> ctypes.CDLL:
    try:
        return compiler.load("naive.c")
    except compiler.NoCompilerError as error:
        raise UnavailableError(str(error)) from error


def build(name: str, problem: Problem) -> Engine:
    """Return the engine; padding the input is part of its work."""
    layer = problem.layer
    function = _library().naive_conv2d
    pad, size = layer.pad, layer.size + 2 * layer.pad
    x, weight = problem.nchw()[0], problem.oihw()
    padded = np.zeros((layer.channels, size, size), np.float32)
    inside = padded[:, pad : size - pad, pad : size - pad]
    out = np.empty((layer.outputs, layer.out_size, layer.out_size), np.float32)
    arrays = (padded, weight, problem.bias, out)
    pointers = [ctypes.c_void_p(array.ctypes.data) for array in arrays]
    sizes = (layer.channels, size, size, layer.outputs, layer.window, layer.stride)
    arguments = [*pointers, *map(ctypes.c_int, (*sizes, layer.out_size, layer.out_size))]

    def run() -> None:
        inside[...] = x
        function(*arguments)

    return Engine(
        run=run,
        output=lambda: out.transpose(1, 2, 0),
        expected=problem.expected_float,
        tolerance=FLOAT_TOLERANCE,
        details={"version": compiler.version(), "form": " ".join(compiler.FLAGS)},
        kept=arrays,
    )

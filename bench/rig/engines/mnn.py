"""MNN's float convolution, which uses Winograd where it pays."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from rig.engines import FLOAT_TOLERANCE, Engine, UnavailableError, need, onnx_models
from rig.layers import Array, Problem


def build(name: str, problem: Problem) -> Engine:
    """Return the engine.  A dense layer is a 1x1 convolution of one pixel, which is faster here.

    The input is copied in before each sample and not timed: a session overwrites its input.
    """
    mnn: Any = need("MNN", "MNN")
    layer = problem.layer
    x = problem.nchw()
    shape = (1, layer.outputs, layer.out_size, layer.out_size)
    interpreter = interpreter_of(mnn, onnx_models.Models().convolution(problem))
    session = interpreter.createSession({"backend": "CPU", "numThread": 1, "precision": "high"})
    kind, layout = mnn.Halide_Type_Float, mnn.Tensor_DimensionType_Caffe
    source = interpreter.getSessionInput(session)
    given = mnn.Tensor(x.shape, kind, x, layout)
    room = np.empty(shape, np.float32)
    result = mnn.Tensor(shape, kind, room, layout)

    def output() -> Array:
        interpreter.getSessionOutput(session).copyToHostTensor(result)
        return np.array(result.getNumpyData()).reshape(shape)[0].transpose(1, 2, 0)

    return Engine(
        run=lambda: interpreter.runSession(session),
        prepare=lambda: source.copyFrom(given),
        output=output,
        expected=problem.expected_float,
        tolerance=FLOAT_TOLERANCE,
        details={"version": f"MNN {mnn.version()}"},
        kept=(x, room),
    )


def interpreter_of(mnn: Any, model: bytes) -> Any:
    """Convert an ONNX model: only conversion makes a model whose weights MNN can rearrange."""
    # Not through MNN.tools: its module installs a package and sends statistics when imported.
    tools: Any = need("_tools", "MNN")
    with tempfile.TemporaryDirectory(prefix="bitinfer-bench-") as folder:
        source, target = Path(folder, "model.onnx"), Path(folder, "model.mnn")
        source.write_bytes(model)
        options = {"-f": "ONNX", "--modelFile": source, "--MNNModel": target, "--bizCode": "bench"}
        words = [str(word) for pair in options.items() for word in pair]
        tools.mnnconvert(["mnnconvert", *words])
        if not target.exists():
            raise UnavailableError("MNN does not convert the model")
        return mnn.Interpreter(str(target))

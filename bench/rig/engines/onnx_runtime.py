"""ONNX Runtime: float, and int8 in the fastest of its forms."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from rig.engines import FLOAT_TOLERANCE, INT8_TOLERANCE, Engine, fastest, need
from rig.engines.onnx_models import MICROSOFT, Models, window
from rig.layers import Array, Problem


class _Toolbox:
    """The two packages, and how a model is made to run."""

    def __init__(self, problem: Problem) -> None:
        self.runtime: Any = need("onnxruntime", "onnxruntime")
        self.models = Models()
        self.node = self.models.node
        self.problem = problem

    def compile(
        self, nodes: Sequence[Any], constants: dict[str, Any], x: Array, y: Array
    ) -> tuple[Any, Any]:
        """Return a call with bound input and output, and the output's value."""
        options = self.runtime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 3
        model = self.models.model(nodes, constants, x, y)
        session = self.runtime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        binding = session.io_binding()
        value = self.runtime.OrtValue.ortvalue_from_numpy
        result = value(y)
        binding.bind_ortvalue_input("x", value(x))
        binding.bind_ortvalue_output("y", result)
        return lambda: session.run_with_iobinding(binding), result


def build(name: str, problem: Problem) -> Engine:
    """Return the engine; ``onnxruntime-int8`` is the fastest of its forms.

    qdq has float input and output, with the conversions inside; the others have bytes.
    """
    tools = _Toolbox(problem)
    if name == "onnxruntime-fp32":
        return fastest({"float": lambda: _float(tools)})
    forms = ("qdq", "bytes") if problem.layer.is_dense else ("qdq", "bytes nchw", "bytes nhwc")
    return fastest({form: lambda form=form: _int8(tools, form) for form in forms})


def _float(tools: _Toolbox) -> Engine:
    problem = tools.problem
    x, y = _arrays(problem)
    if problem.layer.is_dense:
        weight = problem.weight.reshape(problem.layer.outputs, -1)
        nodes = [tools.node("Gemm", "x w b", "y", transB=1)]
    else:
        weight = problem.oihw()
        nodes = [tools.node("Conv", "x w b", "y", **window(problem))]
    run, result = tools.compile(nodes, {"w": weight, "b": problem.bias}, x, y)
    return _engine(tools, run, lambda: _as_map(result.numpy()), FLOAT_TOLERANCE)


def _int8(tools: _Toolbox, form: str) -> Engine:
    """Weights take 7 bits, without which AVX2's instructions saturate."""
    problem = tools.problem
    x, y = _arrays(problem)
    dense = problem.layer.is_dense
    weight = problem.weight.reshape(problem.layer.outputs, -1).T if dense else problem.oihw()
    sx, sw, sy = (
        np.float32(np.abs(array).max() / levels)
        for array, levels in ((x, 127), (weight, 63), (problem.expected_float, 127))
    )
    constants = {
        "w": np.rint(weight / sw).astype(np.int8),
        "b": np.rint(problem.bias / (sx * sw)).astype(np.int32),
    }
    constants |= {"sx": sx, "sw": sw, "sy": sy, "sb": np.float32(sx * sw)}
    constants |= {"zx": np.uint8(128), "zw": np.int8(0), "zy": np.uint8(128)}
    if form == "qdq":
        run, result = tools.compile(_qdq_nodes(tools), constants, x, y)
        return _engine(tools, run, lambda: _as_map(result.numpy()), INT8_TOLERANCE)
    channels_last = form == "bytes nhwc"
    if channels_last:
        x, y = (np.ascontiguousarray(array.transpose(0, 2, 3, 1)) for array in (x, y))
    quantised = np.clip(np.rint(x / sx) + 128, 0, 255).astype(np.uint8)
    names = "x sx zx w sw zw sy zy"
    if dense:
        # Its biases cannot be fused; they are left out of the work, and of what is expected.
        nodes = [tools.node("QLinearMatMul", names, "y")]
    elif channels_last:
        attributes = {**window(problem), "channels_last": 1, "domain": MICROSOFT}
        nodes = [tools.node("QLinearConv", f"{names} b", "y", **attributes)]
    else:
        nodes = [tools.node("QLinearConv", f"{names} b", "y", **window(problem))]
    run, result = tools.compile(nodes, constants, quantised, np.empty(y.shape, np.uint8))

    def output() -> Array:
        levels = (result.numpy().astype(np.float32) - 128) * sy
        return levels[0] if channels_last else _as_map(levels)

    engine = _engine(tools, run, output, INT8_TOLERANCE)
    if dense:
        engine.expected = problem.expected_float - problem.bias
    return engine


def _qdq_nodes(tools: _Toolbox) -> list[Any]:
    dense = tools.problem.layer.is_dense
    operator, attributes = ("Gemm", {}) if dense else ("Conv", window(tools.problem))
    return [
        tools.node("QuantizeLinear", "x sx zx", "xq"),
        tools.node("DequantizeLinear", "xq sx zx", "xd"),
        tools.node("DequantizeLinear", "w sw zw", "wd"),
        tools.node("DequantizeLinear", "b sb", "bd"),
        tools.node(operator, "xd wd bd", "c", **attributes),
        tools.node("QuantizeLinear", "c sy zy", "cq"),
        tools.node("DequantizeLinear", "cq sy zy", "y"),
    ]


def _arrays(problem: Problem) -> tuple[Array, Array]:
    """Return input and room for the output: (1, C) for a dense layer, else NCHW."""
    layer = problem.layer
    if layer.is_dense:
        return problem.x[0], np.empty((1, layer.outputs), np.float32)
    return problem.nchw(), np.empty((1, layer.outputs, *[layer.out_size] * 2), np.float32)


def _as_map(y: Array) -> Array:
    """Bring an output to (H, W, C)."""
    return y[0].transpose(1, 2, 0) if y.ndim == 4 else y[None]


def _engine(tools: _Toolbox, run: Any, output: Any, tolerance: float) -> Engine:
    return Engine(
        run=run,
        output=output,
        expected=tools.problem.expected_float,
        tolerance=tolerance,
        details={"version": f"onnxruntime {tools.runtime.__version__}"},
    )

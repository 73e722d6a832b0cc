"""OpenVINO's CPU plugin: float, int8, and its binary convolution."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from rig.engines import FLOAT_TOLERANCE, INT8_TOLERANCE, Engine, UnavailableError, fastest, need
from rig.layers import Array, Layer, Problem

CONFIG = {
    "INFERENCE_NUM_THREADS": 1,
    "NUM_STREAMS": 1,
    "PERFORMANCE_HINT": "LATENCY",
    "ENABLE_CPU_PINNING": False,
    "INFERENCE_PRECISION_HINT": "f32",
}


_FORMS = {
    "openvino-fp32": ("nchw to nchw", "nhwc to nhwc"),
    "openvino-int8": ("nchw to nchw", "nhwc to nhwc"),
    # Of NHWC input, its kernel that takes the signs ends the process (2026.4.1).
    "openvino-binary": ("nchw to nchw", "nchw to nhwc"),
}


def build(name: str, problem: Problem) -> Engine:
    """Return the fastest layout of input and output; float in, float out.

    A dense layer is a product of matrices; in binary, which OpenVINO has no dense layer for, a 1x1
    convolution of one pixel.
    """
    openvino: Any = need("openvino", "openvino")
    ops: Any = need("openvino.opset13", "openvino")
    ops1: Any = need("openvino.opset1", "openvino")
    convolve = {
        "openvino-fp32": lambda x: _float(ops, x, problem),
        "openvino-int8": lambda x: _int8(ops, x, problem),
        "openvino-binary": lambda x: _binary(openvino, ops, ops1, x, problem),
    }[name]
    exact = name == "openvino-binary"
    if exact and problem.layer.channels % 8:
        raise UnavailableError("its results are wrong for channel counts that 8 does not divide")
    expected = problem.expected_binary if exact else problem.expected_float
    tolerance = {"openvino-fp32": FLOAT_TOLERANCE, "openvino-int8": INT8_TOLERANCE}.get(name, 0)
    layouts = ("nc to nc",) if problem.layer.is_dense and not exact else _FORMS[name]

    def make(layout: str) -> Engine:
        return _compile(openvino, ops, problem, convolve, expected, tolerance, layout)

    return fastest({layout: lambda layout=layout: make(layout) for layout in layouts})


def _compile(
    openvino: Any,
    ops: Any,
    problem: Problem,
    convolve: Callable[[Any], Any],
    expected: Array,
    tolerance: float,
    layout: str,
) -> Engine:
    before, _, after = layout.partition(" to ")
    arrays = {"nchw": problem.nchw, "nhwc": lambda: problem.x[None], "nc": lambda: problem.x[0]}
    x = np.ascontiguousarray(arrays[before]())
    source = ops.parameter(list(x.shape), np.float32)
    to_nchw = ops.constant(np.array([0, 3, 1, 2]))
    to_nhwc = ops.constant(np.array([0, 2, 3, 1]))
    y = convolve(ops.transpose(source, to_nchw) if before == "nhwc" else source)
    if after == "nhwc":
        y = ops.transpose(y, to_nhwc)
    model = openvino.Model([y], [source], "layer")
    compiled = openvino.Core().compile_model(model, "CPU", CONFIG)
    request = compiled.create_infer_request()
    request.set_input_tensor(openvino.Tensor(x, shared_memory=True))

    def output() -> Array:
        result: Array = request.get_output_tensor().data
        if after == "nc":
            return result[None]
        return result[0].transpose(1, 2, 0) if after == "nchw" else result[0]

    return Engine(
        run=request.infer,
        output=output,
        expected=expected,
        tolerance=tolerance,
        details={
            "version": f"openvino {openvino.__version__.partition('-')[0]}",
            "kernel": kernels_of(compiled),
        },
        kept=(x,),
    )


def _float(ops: Any, x: Any, problem: Problem) -> Any:
    return _add_bias(ops, _linear(ops, x, _weight(ops, problem), problem.layer), problem)


def _weight(ops: Any, problem: Problem) -> Any:
    weight = problem.oihw()
    if problem.layer.is_dense:
        weight = weight.reshape(problem.layer.outputs, -1)
    return ops.constant(weight)


def _linear(ops: Any, x: Any, weight: Any, layer: Layer) -> Any:
    if layer.is_dense:
        return ops.matmul(x, weight, False, True)
    pads = [layer.pad] * 2
    return ops.convolution(x, weight, [layer.stride] * 2, pads, pads, [1, 1])


def _add_bias(ops: Any, y: Any, problem: Problem, *, shaped_as_map: bool = False) -> Any:
    shape = (1, -1, 1, 1) if shaped_as_map or not problem.layer.is_dense else (1, -1)
    return ops.add(y, ops.constant(problem.bias.reshape(shape)))


def _int8(ops: Any, x: Any, problem: Problem) -> Any:
    """Quantise input and weights to 256 levels, as OpenVINO's tools do."""

    def quantise(node: Any, bound: float) -> Any:
        low, high = (ops.constant(np.float32(v)) for v in (-bound, bound * 127 / 128))
        return ops.fake_quantize(node, low, high, low, high, 256)

    weight = problem.oihw()
    scale = np.float32(np.abs(weight).max() / 127)
    levels = np.rint(weight / scale).astype(np.int8)
    if problem.layer.is_dense:
        levels = levels.reshape(problem.layer.outputs, -1)
    weights = ops.multiply(ops.convert(ops.constant(levels), np.float32), ops.constant(scale))
    bound = float(np.abs(problem.x).max()) * 128 / 127
    y = _linear(ops, quantise(x, bound), weights, problem.layer)
    return _add_bias(ops, y, problem)


def _binary(openvino: Any, ops: Any, ops1: Any, x: Any, problem: Problem) -> Any:
    """Signs of the input, binary convolution, scale and bias; exactly what bitinfer computes."""
    layer = problem.layer
    low, high = (ops.constant(np.full((1, 1, 1, 1), v, np.float32)) for v in (0, 1))
    signs = ops.fake_quantize(x, low, low, low, high, 2)
    positive = np.packbits((problem.oihw() >= 0).reshape(-1), bitorder="little")
    shape = openvino.Shape([layer.outputs, layer.channels, layer.window, layer.window])
    tensor = openvino.Tensor(positive, shape, openvino.Type.u1)
    weights = ops.constant(tensor, shared_memory=False)
    pads = [layer.pad] * 2
    y = ops1.binary_convolution(
        signs, weights, [layer.stride] * 2, pads, pads, [1, 1], "xnor-popcount", 0.0
    )
    y = ops.multiply(y, ops.constant(problem.alpha.reshape(1, -1, 1, 1)))
    return _add_bias(ops, y, problem, shaped_as_map=True)


def kernels_of(compiled: Any) -> str:
    """Return what executes the layers, each once, such as ``brgconv_avx512_amx_i8``."""
    names: dict[str, None] = {}
    for node in compiled.get_runtime_model().get_ordered_ops():
        info = node.get_rt_info()
        if info["layerType"].astype(str) in (
            "Convolution",
            "BinaryConvolution",
            "FullyConnected",
            "MatMul",
        ):
            names[info["primitiveType"].astype(str)] = None
    return " ".join(names)

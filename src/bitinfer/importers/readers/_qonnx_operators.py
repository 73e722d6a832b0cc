"""The operators of QONNX and FINN, each in the words of foreign.OPERATIONS.

Source: fastmachinelearning/qonnx, src/qonnx/custom_op/general: bipolar_quant.py, quant.py,
multithreshold.py, xnorpopcount.py.
"""

from __future__ import annotations

import numpy as np

from bitinfer.errors import ConversionError
from bitinfer.files import one_line
from bitinfer.importers.readers._graph_draft import Array
from bitinfer.importers.readers._onnx_graph import OnnxGraph, OnnxNode
from bitinfer.importers.readers._onnx_operators import Handler


def write(graph: OnnxGraph, node: OnnxNode) -> None:
    """Write a node, or compute it where it is constant."""
    handler = _HANDLERS.get(node.operation)
    if handler is None:
        raise ConversionError("there is no such operator here")
    handler(graph, node)


def _bipolar_quant(graph: OnnxGraph, node: OnnxNode) -> None:
    """``where(x >= 0, 1, -1) * scale``; weights come as the trainer's real numbers."""
    x, scale = node.inputs[0], graph.constant(node, 1, "the scale").astype(np.float32)
    if graph.is_constant(x):
        one = np.float32(1)
        graph.constants[node.name] = np.where(graph.constants[x] >= 0, one, -one) * scale
        return
    shape = graph.shape(x)
    if scale.size == 1:
        s = float(scale.reshape(-1)[0])
        graph.add(node.name, "sign", (x,), shape, at_zero=1, low=-s, high=s)
        return
    x = graph.add(f"{node.name}.sign", "sign", (x,), shape, at_zero=1, low=-1.0, high=1.0)
    graph.add(node.name, "multiply", (x, node.inputs[1]), shape)


def _quant(graph: OnnxGraph, node: OnnxNode) -> None:
    """``(clip(round(x / scale + zero), low, high) - zero) * scale``."""
    x = node.inputs[0]
    scale, zero, bits = (
        graph.constant(node, i, what).astype(np.float64)
        for i, what in ((1, "the scale"), (2, "the zero point"), (3, "the bit width"))
    )
    if bits.size != 1 or not 1 <= float(bits.reshape(-1)[0]) <= 32:
        raise ConversionError("a bit width that is not one number from 1 to 32")
    width = float(bits.reshape(-1)[0])
    signed, narrow = bool(node.attribute("signed", 1)), bool(node.attribute("narrow", 0))
    rounding = str(node.attribute("rounding_mode", "ROUND")).upper()
    low, high = _limits(width, signed, narrow)
    if graph.is_constant(x):
        value = np.clip(_round(graph.constants[x] / scale + zero, rounding), low, high)
        graph.constants[node.name] = ((value - zero) * scale).astype(np.float32)
        return
    if width < 8:
        raise ConversionError(
            f"activations of {width:g} bits: only signs and whole numbers of 8 bits are there"
        )
    is_int8 = (low, high) == (-128, 127) and not zero.any() and rounding == "ROUND"
    if not is_int8 or scale.size != 1:
        raise ConversionError(
            f"activations from {low:g} to {high:g}, {one_line(rounding, 20)}: of 8 bits, only "
            "-128 to 127 with one scale, no zero point and ROUND are there"
        )
    step = float(scale.reshape(-1)[0])
    graph.add(node.name, "quantize", (x,), graph.shape(x), scale=step)


def _limits(bits: float, signed: bool, narrow: bool) -> tuple[float, float]:
    """Return the least and the largest whole number (quant.py, min_int and max_int)."""
    if signed:
        return -(2 ** (bits - 1)) + narrow, 2 ** (bits - 1) - 1
    return 0.0, 2**bits - 1 - narrow


def _round(x: Array, mode: str) -> Array:
    if mode in ("ROUND", "HALF_EVEN"):
        return np.rint(x)
    if mode in ("ROUND_TO_ZERO", "DOWN"):
        return np.trunc(x)
    if mode == "UP":
        return np.sign(x) * np.ceil(np.abs(x))
    if mode == "CEIL":
        return np.ceil(x)
    if mode == "FLOOR":
        return np.floor(x)
    if mode == "HALF_UP":
        return np.sign(x) * np.floor(np.abs(x) + 0.5)
    if mode == "HALF_DOWN":
        return np.sign(x) * np.ceil(np.abs(x) - 0.5)
    raise ConversionError(f"rounds by {one_line(mode, 20)}")


def _multi_threshold(graph: OnnxGraph, node: OnnxNode) -> None:
    """``out_scale * count(x >= threshold) + out_bias``; a sign where there is one threshold."""
    x, thresholds = node.inputs[0], graph.constant(node, 1, "the thresholds")
    shape = graph.shape(x)
    if thresholds.ndim != 2 or thresholds.shape[1] != 1:
        raise ConversionError(
            f"thresholds of shape {thresholds.shape}: with several of them activations have more "
            "than one bit, and only signs are there"
        )
    scale, bias = float(node.attribute("out_scale", 1.0)), float(node.attribute("out_bias", 0.0))
    values = thresholds[:, 0].astype(np.float32)
    if len(shape) == 4 and node.attribute("data_layout", "NCHW") != "NHWC":
        values = values.reshape(-1, 1, 1)
    shift = graph.make_constant(f"{node.name}.threshold", values)
    x = graph.add(f"{node.name}.margin", "subtract", (x, shift), shape)
    graph.add(node.name, "sign", (x,), shape, at_zero=1, low=bias, high=bias + scale)


def _xnor_popcount(graph: OnnxGraph, node: OnnxNode) -> None:
    """How many bits of {0, 1} agree: the matrix's 0 stands for -1."""
    x, weight = node.inputs[0], graph.constant(node, 1, "the weight")
    shape = graph.shape(x)
    if len(shape) != 2 or weight.ndim != 2 or not np.isin(weight, (0, 1)).all():
        raise ConversionError(f"{shape} times {weight.shape}, wanted vectors times 0 and 1")
    signs = graph.make_constant(f"{node.name}.signs", 2 * weight.astype(np.float32) - 1)
    result = (shape[0], weight.shape[1])
    graph.add(node.name, "dense", (x, signs), result, axes="IO", counts="agreements")


_HANDLERS: dict[str, Handler] = {
    "BipolarQuant": _bipolar_quant,
    "Quant": _quant,
    "IntQuant": _quant,
    "MultiThreshold": _multi_threshold,
    "XnorPopcountMatMul": _xnor_popcount,
}
"""By operator, what writes it."""

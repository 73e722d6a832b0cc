"""Makes ONNX models of single layers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from rig.engines import need
from rig.layers import Array, Problem

OPSET = 17
IR_VERSION = 9
MICROSOFT = "com.microsoft"


def window(problem: Problem) -> dict[str, Any]:
    """Return the attributes of a convolution."""
    layer = problem.layer
    return {
        "kernel_shape": [layer.window] * 2,
        "pads": [layer.pad] * 4,
        "strides": [layer.stride] * 2,
    }


class Models:
    """Builds models with the package onnx.

    Raises:
        UnavailableError: it is not installed.
    """

    def __init__(self) -> None:
        self._helper: Any = need("onnx.helper", "onnx")
        self._arrays: Any = need("onnx.numpy_helper", "onnx")

    def node(self, operator: str, inputs: str, output: str, **attributes: Any) -> Any:
        """Return a node; ``inputs`` are names with spaces between them."""
        return self._helper.make_node(operator, inputs.split(), [output], **attributes)

    def model(self, nodes: Sequence[Any], constants: dict[str, Any], x: Array, y: Array) -> bytes:
        """Return the model from ``x`` to ``y``, of the types and shapes of these arrays."""
        used = {name for node in nodes for name in node.input}
        kept = [
            self._arrays.from_array(np.asarray(value), name)
            for name, value in constants.items()
            if name in used
        ]
        ends = [self._describe("x", x)], [self._describe("y", y)]
        graph = self._helper.make_graph(nodes, "layer", *ends, kept)
        sets = [self._helper.make_opsetid("", OPSET), self._helper.make_opsetid(MICROSOFT, 1)]
        model = self._helper.make_model(graph, opset_imports=sets, ir_version=IR_VERSION)
        serialised: bytes = model.SerializeToString()
        return serialised

    def convolution(self, problem: Problem) -> bytes:
        """Return a float convolution with biases, NCHW; a dense layer becomes one of a pixel."""
        layer = problem.layer
        nodes = [self.node("Conv", "x w b", "y", **window(problem))]
        y = np.empty((1, layer.outputs, layer.out_size, layer.out_size), np.float32)
        constants = {"w": problem.oihw(), "b": problem.bias}
        return self.model(nodes, constants, problem.nchw(), y)

    def _describe(self, name: str, array: Array) -> Any:
        kind = self._helper.np_dtype_to_tensor_dtype(array.dtype)
        return self._helper.make_tensor_value_info(name, kind, array.shape)

"""Small ONNX models, written node by node, and what ONNX's own evaluator computes with them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

Array = NDArray[Any]
QONNX = "qonnx.custom_op.general"


class Builder:
    """Collects nodes and initializers; every method returns the name of what it makes."""

    def __init__(self, shape: Sequence[int | str], opset: int = 20) -> None:
        self.shape = shape
        self.opset = opset
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[onnx.TensorProto] = []
        self.domains: dict[str, int] = {}

    def constant(self, name: str, value: Any) -> str:
        array = np.asarray(value)
        array = array.astype(np.float32) if array.dtype == np.float64 else array
        self.initializers.append(numpy_helper.from_array(array, name))
        return name

    def add(self, operation: str, *inputs: str, name: str = "", **attributes: Any) -> str:
        name = name or f"{operation.lower()}_{len(self.nodes)}"
        node = helper.make_node(operation, list(inputs), [name], **attributes)
        self.nodes.append(node)
        self.domains.setdefault(node.domain, self.opset if not node.domain else 1)
        return name

    def model(self, *outputs: str) -> onnx.ModelProto:
        value = helper.make_tensor_value_info("x", TensorProto.FLOAT, self.shape)
        made = [helper.make_value_info(name, onnx.TypeProto()) for name in outputs]
        graph = helper.make_graph(self.nodes, "net", [value], made, self.initializers)
        imports = [helper.make_opsetid(d, v) for d, v in {"": self.opset, **self.domains}.items()]
        return helper.make_model(graph, opset_imports=imports, ir_version=10)


def random(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def bipolar(*shape: int, seed: int = 0) -> Array:
    return np.where(random(*shape, seed=seed) < 0, np.float32(-1), np.float32(1))


def network() -> onnx.ModelProto:
    """A convolution, a BatchNorm, a binary convolution whose alpha is computed, a dense layer."""
    b = Builder(["n", 3, 8, 8])
    x = b.add("Conv", "x", b.constant("w0", random(6, 3, 3, 3)), name="first", pads=[1, 1, 1, 1])
    parts = [random(6, seed=i) for i in (1, 2, 3)] + [np.abs(random(6, seed=4)) + 0.5]
    names = [b.constant(f"norm.{i}", part) for i, part in enumerate(parts)]
    x = b.add("BatchNormalization", x, *names, name="norm", epsilon=1e-4)
    latent = b.constant("w1", random(5, 6, 3, 3, seed=5))
    axes = b.constant("axes", np.array([1, 2, 3]))
    size = b.add("ReduceMean", b.add("Abs", latent), axes, keepdims=1)
    weight = b.add("Mul", b.add("Sign", latent), size)
    x = b.add("Conv", b.add("Sign", x), weight, name="second", pads=[1, 1, 1, 1], strides=[2, 2])
    x = b.add("Flatten", b.add("GlobalAveragePool", x))
    x = b.add("Gemm", x, b.constant("w2", random(4, 5, seed=6)), name="third", transB=1)
    return b.model(x)


def evaluate(model: onnx.ModelProto, x: Array) -> Array:
    """Return the model's first output, as ONNX's reference evaluator has it."""
    return np.asarray(ReferenceEvaluator(model).run(None, {"x": x})[0])

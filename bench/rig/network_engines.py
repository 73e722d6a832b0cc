"""Engines for whole networks: ours, and the float twin in those for float and int8."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from bitinfer import __version__, integer_ends
from bitinfer.errors import BackendError, BitInferError, MissingExtraError
from bitinfer.session import Session
from rig.engines import Engine, UnavailableError, need
from rig.engines.mnn import interpreter_of
from rig.engines.native import native_kernels
from rig.engines.openvino_cpu import CONFIG, kernels_of
from rig.layers import Array
from rig.networks import Case, network, normalised, pixels

NAMES = (
    "bitinfer",
    "bitinfer-integer",
    "bitinfer-integer8",
    "bitinfer-numba",
    "onnxruntime-fp32",
    "onnxruntime-int8",
    "mnn-fp32",
    "openvino-fp32",
    "openvino-int8",
)

FLOAT_TOLERANCE = 0.05
"""Of float results, in standard deviations: Winograd's transforms in every layer."""

INT8_TOLERANCE = 2.0
"""Of int8 results, in standard deviations: random weights let errors of many layers add up."""

CALIBRATION_PICTURES = 4

_FIRST_BITS = {"bitinfer-integer": 16, "bitinfer-integer8": 8}
"""Of the weights that the first convolution of integer ends has."""


class _Problem:
    """A network, its float twin, and what they should give."""

    def __init__(self, case: Case) -> None:
        self.model, self.twin = network(case.name)
        self.pixels = pixels(self.model)
        self.x = normalised(self.pixels)
        self._expected: Array | None = None
        self._int8: bytes | None = None

    @property
    def twin_output(self) -> Array:
        """What the float twin gives, by ONNX's own evaluation: no engine's optimisations."""
        if self._expected is None:
            runtime: Any = need("onnxruntime", "onnxruntime")
            options = _options(runtime)
            options.graph_optimization_level = runtime.GraphOptimizationLevel.ORT_DISABLE_ALL
            session = runtime.InferenceSession(
                self.twin.model, options, providers=["CPUExecutionProvider"]
            )
            self._expected = np.asarray(session.run(None, {"x": self.twin.x})[0])
        return self._expected

    def int8_model(self) -> bytes:
        """Return the float twin with QuantizeLinear and DequantizeLinear around every layer."""
        if self._int8 is None:
            self._int8 = quantised(self.twin.model, self.twin.x.shape)
        return self._int8


def builder(case: Case) -> Callable[[str], Engine]:
    """Return what makes verified engines of a network by their names."""
    problem = _Problem(case)

    def build(name: str) -> Engine:
        family = name.partition("-")[0]
        engine = {
            "bitinfer": _bitinfer,
            "onnxruntime": _onnx_runtime,
            "mnn": _mnn,
            "openvino": _openvino,
        }[family](name, problem)
        engine.verify()
        return engine

    return build


def _bitinfer(name: str, problem: _Problem) -> Engine:
    """Our Session, called from Python with an output that is there already.

    With integer ends the input is pixels; ``bitinfer-numba`` is the Numba backend.  The right
    answer is the reference backend's for the same model, with the passes left out.
    """
    model, x = problem.model, problem.x
    if name in _FIRST_BITS:
        try:
            model = integer_ends.integer_ends(model, _FIRST_BITS[name]).model
            x = problem.pixels
        except BitInferError as error:
            raise UnavailableError(str(error)) from error
    try:
        session = Session(model, "numba" if name == "bitinfer-numba" else native_kernels())
    except (BackendError, MissingExtraError) as error:
        raise UnavailableError(str(error)) from error
    right = Session(model, "reference", skip_passes=["all"])
    expected = np.asarray(right.run(x))
    out = np.empty_like(expected)
    session.run(x, out=out)
    return Engine(
        run=lambda: session.run(x, out=out),
        output=lambda: out,
        expected=expected,
        tolerance=FLOAT_TOLERANCE,
        details={"version": f"bitinfer {__version__}", "backend": session.backend},
        kept=(x, out),
    )


def _options(runtime: Any) -> Any:
    options = runtime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    return options


def _onnx_runtime(name: str, problem: _Problem) -> Engine:
    runtime: Any = need("onnxruntime", "onnxruntime")
    expected = problem.twin_output
    is_int8 = name.endswith("int8")
    model = problem.int8_model() if is_int8 else problem.twin.model
    session = runtime.InferenceSession(model, _options(runtime), providers=["CPUExecutionProvider"])
    binding = session.io_binding()
    value = runtime.OrtValue.ortvalue_from_numpy
    result = value(np.empty_like(expected))
    binding.bind_ortvalue_input("x", value(problem.twin.x))
    binding.bind_ortvalue_output("y", result)
    return Engine(
        run=lambda: session.run_with_iobinding(binding),
        output=result.numpy,
        expected=expected,
        tolerance=INT8_TOLERANCE if is_int8 else FLOAT_TOLERANCE,
        details={"version": f"onnxruntime {runtime.__version__}"},
    )


def _mnn(name: str, problem: _Problem) -> Engine:
    """The input is copied in before each sample and not timed: a session overwrites it."""
    mnn: Any = need("MNN", "MNN")
    expected = problem.twin_output
    x = problem.twin.x
    interpreter = interpreter_of(mnn, problem.twin.model)
    session = interpreter.createSession({"backend": "CPU", "numThread": 1, "precision": "high"})
    kind, layout = mnn.Halide_Type_Float, mnn.Tensor_DimensionType_Caffe
    source = interpreter.getSessionInput(session)
    given = mnn.Tensor(x.shape, kind, x, layout)
    room = np.empty(expected.shape, np.float32)
    result = mnn.Tensor(expected.shape, kind, room, layout)

    def output() -> Array:
        interpreter.getSessionOutput(session).copyToHostTensor(result)
        return np.array(result.getNumpyData()).reshape(expected.shape)

    return Engine(
        run=lambda: interpreter.runSession(session),
        prepare=lambda: source.copyFrom(given),
        output=output,
        expected=expected,
        tolerance=FLOAT_TOLERANCE,
        details={"version": f"MNN {mnn.version()}"},
        kept=(x, room),
    )


def _openvino(name: str, problem: _Problem) -> Engine:
    openvino: Any = need("openvino", "openvino")
    expected = problem.twin_output
    is_int8 = name.endswith("int8")
    core = openvino.Core()
    model = core.read_model(problem.int8_model() if is_int8 else problem.twin.model)
    compiled = core.compile_model(model, "CPU", CONFIG)
    request = compiled.create_infer_request()
    request.set_input_tensor(openvino.Tensor(problem.twin.x, shared_memory=True))
    return Engine(
        run=request.infer,
        output=lambda: request.get_output_tensor().data,
        expected=expected,
        tolerance=INT8_TOLERANCE if is_int8 else FLOAT_TOLERANCE,
        details={
            "version": f"openvino {openvino.__version__.partition('-')[0]}",
            "kernel": kernels_of(compiled),
        },
        kept=(problem.twin.x,),
    )


def quantised(model: bytes, shape: tuple[int, ...]) -> bytes:
    """Quantise statically, calibrated with made-up pictures.

    Weights have a scale for each output and 7 bits, without which AVX2's instructions saturate.
    All shapes are given, so that symbolic inference, which wants sympy, would find nothing more.
    """
    tools: Any = need("onnxruntime.quantization", "onnxruntime")
    shapes: Any = need("onnxruntime.quantization.shape_inference", "onnxruntime")
    rng = np.random.default_rng(1)
    pictures = [
        {"x": rng.uniform(-2, 2, shape).astype(np.float32)} for _ in range(CALIBRATION_PICTURES)
    ]

    class Reader(tools.CalibrationDataReader):  # type: ignore[misc]
        def get_next(self) -> Any:
            return pictures.pop() if pictures else None

    with tempfile.TemporaryDirectory(prefix="bitinfer-bench-") as folder:
        float_path, ready, target = (Path(folder, f"{part}.onnx") for part in ("f", "r", "q"))
        float_path.write_bytes(model)
        shapes.quant_pre_process(str(float_path), str(ready), skip_symbolic_shape=True)
        tools.quantize_static(
            str(ready),
            str(target),
            Reader(),
            quant_format=tools.QuantFormat.QDQ,
            per_channel=True,
            reduce_range=True,
            activation_type=tools.QuantType.QUInt8,
            weight_type=tools.QuantType.QInt8,
        )
        return target.read_bytes()

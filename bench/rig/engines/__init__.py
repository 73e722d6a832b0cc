"""The engines that are measured: ours, and what people use for float, int8 and binary layers."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable
from importlib import import_module

import numpy as np

from rig.layers import Array, Layer, Problem

_MODULES = {
    "bitinfer": "native",
    "bitinfer-bits": "native",
    "bitinfer-shortcut": "native",
    "bitinfer-numba": "native",
    "naive-c-fp32": "naive_c",
    "numpy-fp32": "numpy_blas",
    "onnxruntime-fp32": "onnx_runtime",
    "onnxruntime-int8": "onnx_runtime",
    "mnn-fp32": "mnn",
    "openvino-fp32": "openvino_cpu",
    "openvino-int8": "openvino_cpu",
    "openvino-binary": "openvino_cpu",
    "torch-fp32": "pytorch",
}

NAMES = tuple(_MODULES)

FLOAT_TOLERANCE = 0.02
"""Of float results, in standard deviations: Winograd's transforms cost that much precision."""

INT8_TOLERANCE = 0.25
"""Of int8 results, in standard deviations: rounding of random input, weights and output."""


_TRIALS = 8


class UnavailableError(Exception):
    """The engine is not installed, or has nothing for this layer."""


@dataclasses.dataclass
class Engine:
    """One way to compute one layer.

    Attributes:
        run: one inference; what is timed.
        output: the result of the last run, laid out as ``expected``.
        expected: the right answer.
        tolerance: how far off the result may be, in standard deviations of ``expected``;
            0: not at all.
        details: what to record with the samples, such as versions and kernels.
        prepare: brings the input in place before a run that spoils it; not timed.
        kept: what the engine holds no reference to, but reads or writes.
    """

    run: Callable[[], object]
    output: Callable[[], Array]
    expected: Array
    tolerance: float
    details: dict[str, str]
    prepare: Callable[[], object] | None = None
    kept: tuple[object, ...] = ()

    def run_once(self) -> float:
        """Run and return the seconds that it took."""
        if self.prepare is not None:
            self.prepare()
        start = time.perf_counter()
        self.run()
        return time.perf_counter() - start

    def verify(self) -> None:
        """Run once and check the result.

        Raises:
            AssertionError: it is wrong.
        """
        self.run_once()
        result = np.asarray(self.output())
        assert result.shape == self.expected.shape, (
            f"result has shape {result.shape}, wanted {self.expected.shape}"
        )
        if self.tolerance == 0:
            wrong = int(np.count_nonzero(result != self.expected))
            assert not wrong, f"{wrong} of {result.size} results are wrong"
            return
        error = float(np.max(np.abs(result - self.expected)) / np.std(self.expected))
        assert error <= self.tolerance, (
            f"error of {error:.4f} standard deviations, at most {self.tolerance} is allowed"
        )


def build(name: str, problem: Problem) -> Engine:
    """Return a verified engine.

    Raises:
        UnavailableError: not here, or not for this layer.
        AssertionError: its result is wrong.
    """
    engine: Engine = import_module(f"rig.engines.{_MODULES[name]}").build(name, problem)
    engine.verify()
    return engine


def builder(layer: Layer) -> Callable[[str], Engine]:
    """Return what makes verified engines of a layer by their names."""
    problem = Problem(layer)
    return lambda name: build(name, problem)


def need(module: str, package: str) -> object:
    """Import a module of an engine.

    Raises:
        UnavailableError: it is not installed, or does not load.
    """
    try:
        return import_module(module)
    except Exception as error:  # a broken installation raises anything
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        raise UnavailableError(f"{reason}; pip install {package}") from error


def fastest(forms: dict[str, Callable[[], Engine]]) -> Engine:
    """Return the fastest of several forms of one engine, each verified before.

    A form that its engine refuses is left out; if there is no other, its error is raised.
    """
    engines: dict[str, Engine] = {}
    refused: Exception | None = None
    for form, make in forms.items():
        try:
            engines[form] = make()
        except RuntimeError as error:
            refused = error
            continue
        engines[form].verify()
    if not engines:
        raise refused or AssertionError("no forms")
    best = dict.fromkeys(engines, math.inf)
    for _ in range(_TRIALS if len(engines) > 1 else 0):
        for form, engine in engines.items():
            best[form] = min(best[form], engine.run_once(), engine.run_once())
    chosen = min(best, key=lambda form: best[form])
    engines[chosen].details["form"] = chosen
    return engines[chosen]

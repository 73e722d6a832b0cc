"""bitinfer's own engines, each one plan: float to float, bits to bits, with a shortcut, Numba's."""

from __future__ import annotations

import os
from typing import Any

import numpy as np

from bitinfer import __version__, backends, bits
from bitinfer.errors import BackendError, MissingExtraError
from bitinfer.plan import steps
from bitinfer.plan.steps import Buffer, Plan, Window
from rig.engines import Engine, UnavailableError
from rig.layers import Array, Layer, Problem


def build(name: str, problem: Problem) -> Engine:
    """Return the engine.

    ``bitinfer`` takes float32, packs its signs, convolves, scales and adds the biases;
    ``bitinfer-bits`` takes packed signs and returns packed signs through thresholds;
    ``bitinfer-shortcut`` takes packed signs and a float map to add, and returns floats behind an
    RPReLU and their packed signs.  All are one compiled call an inference, whose arrays are bound
    before.  BITINFER_KERNELS=native:... chooses the kernels.
    """
    if name == "bitinfer-shortcut" and problem.layer.is_dense:
        raise UnavailableError("dense layers have no shortcuts")
    spec = "numba" if name == "bitinfer-numba" else native_kernels()
    try:
        backend = backends.select(spec)
    except (BackendError, MissingExtraError) as error:
        raise UnavailableError(str(error)) from error
    plan, expected = {
        "bitinfer-bits": lambda: (_to_bits(problem), problem.expected_bits),
        "bitinfer-shortcut": lambda: (_with_shortcut(problem), problem.expected_shortcut),
    }.get(name, lambda: (_to_floats(problem), problem.expected_binary))()
    source = plan.buffers[plan.input]
    x = problem.x[None].reshape(1, *source.shape)
    if source.kind == "bits":
        x = bits.pack(x).words
    targets = [plan.buffers[number] for number in plan.outputs]
    arrays = [np.empty((1, *target.stored_shape), target.dtype) for target in targets]
    if name == "bitinfer-shortcut":
        arrays[_SHORTCUT][...] = problem.shortcut
    executor = backend.bind(plan)

    def output() -> Array:
        shape = targets[0].shape
        parts = [
            _unpack(array, shape) if target.kind == "bits" else array.reshape(shape)
            for array, target in zip(arrays[:_SHORTCUT], targets, strict=False)
        ]
        return np.stack(parts).reshape(expected.shape)

    return Engine(
        # Checking arrays in Python costs microseconds, which are no part of a layer.
        run=executor.bind_call(x, arrays),
        output=output,
        expected=expected,
        tolerance=0,
        details={
            "version": f"bitinfer {__version__}",
            "backend": backend.label,
            "kernel": f"{plan.steps[-1].operation} {executor.kernels[-1]}",
        },
    )


def native_kernels() -> str:
    """Return ``native``, or ``native:...`` where BITINFER_KERNELS says so.

    Raises: BackendError: it names another backend, or none.
    """
    forced = os.environ.get(backends.ENVIRONMENT_VARIABLE, "").strip() or "native"
    if forced.partition(":")[0] != "native":
        raise BackendError(
            f"{backends.ENVIRONMENT_VARIABLE}={forced}: wanted native or native:..., whose kernels "
            "are measured"
        )
    return forced


_SHORTCUT = 2
"""The last output of a plan with a shortcut: only read, so that the caller can provide it."""


def _to_floats(problem: Problem) -> Plan:
    shape_in, shape_out = _shapes(problem.layer)
    buffers = (Buffer("float", shape_in), Buffer("bits", shape_in), Buffer("float", shape_out))
    packing = steps.PackSigns(name="pack", source=0, target=1)
    epilogue = steps.Epilogue(alpha=problem.alpha, bias=problem.bias)
    return _plan(buffers, (packing, _step(problem, 1, 2, epilogue)), (2,))


def _to_bits(problem: Problem) -> Plan:
    shape_in, shape_out = _shapes(problem.layer)
    epilogue = steps.Epilogue(threshold=problem.threshold, flip=problem.flip)
    buffers = Buffer("bits", shape_in), Buffer("bits", shape_out)
    return _plan(buffers, (_step(problem, 0, 1, epilogue),), (1,))


def _with_shortcut(problem: Problem) -> Plan:
    shape_in, shape_out = _shapes(problem.layer)
    outputs = problem.layer.outputs
    kinds: tuple[steps.BufferKind, ...] = ("float", "bits", "float")
    buffers = (Buffer("bits", shape_in), *(Buffer(kind, shape_out) for kind in kinds))
    activation = steps.Activation("rprelu", problem.shift_in, problem.slope, problem.shift_out)
    epilogue = steps.Epilogue(
        alpha=problem.alpha,
        bias=problem.bias,
        residual=1 + _SHORTCUT,
        activation=activation,
        sign_threshold=np.zeros(outputs, np.float32),
        flip=np.zeros(outputs, np.bool_),
        signs=2,
    )
    return _plan(buffers, (_step(problem, 0, 1, epilogue),), (1, 2, 1 + _SHORTCUT))


def _shapes(layer: Layer) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return the shapes of input and output; a dense layer has vectors."""
    if layer.is_dense:
        return (layer.channels,), (layer.outputs,)
    return (layer.size,) * 2 + (layer.channels,), (layer.out_size,) * 2 + (layer.outputs,)


def _step(problem: Problem, source: int, target: int, epilogue: steps.Epilogue) -> steps.Step:
    layer = problem.layer
    common: dict[str, Any] = {
        "name": layer.name,
        "source": source,
        "target": target,
        "epilogue": epilogue,
    }
    words = bits.pack(problem.weight).words
    if layer.is_dense:
        return steps.BinaryDense(weight=words.reshape(layer.outputs, -1), **common)
    window = Window((layer.kernel,) * 2, (layer.stride,) * 2, (layer.pad,) * 4)
    return steps.BinaryConv2d(weight=words, window=window, pad_value=0, **common)


def _plan(
    buffers: tuple[Buffer, ...], made: tuple[steps.Step, ...], outputs: tuple[int, ...]
) -> Plan:
    names = tuple(f"y{number}" for number in outputs)
    return Plan(buffers=buffers, steps=made, input=0, outputs=outputs, output_names=names)


def _unpack(words: Array, shape: tuple[int, ...]) -> Array:
    """Return the bits of packed signs as booleans, bit by bit."""
    octets = words.astype("<u8").reshape(*shape[:-1], -1).view(np.uint8)
    unpacked = np.unpackbits(octets, axis=-1, bitorder="little")
    assert not unpacked[..., shape[-1] :].any(), "stray bits are set"
    return unpacked[..., : shape[-1]].astype(bool)

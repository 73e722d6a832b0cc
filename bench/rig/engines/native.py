"""bitinfer's own engines, each one plan: float to float, bits to bits, and Numba's backend."""

from __future__ import annotations

import os
from typing import Any

import numpy as np

from bitinfer import __version__, backends, bits
from bitinfer.errors import BackendError, MissingExtraError
from bitinfer.plan import steps
from bitinfer.plan.steps import Buffer, Plan, Window
from rig.engines import Engine, UnavailableError
from rig.layers import Array, Problem


def build(name: str, problem: Problem) -> Engine:
    """Return the engine.

    ``bitinfer`` takes float32, packs its signs, convolves, scales and adds the biases;
    ``bitinfer-bits`` takes packed signs and returns packed signs through thresholds.  Both are one
    compiled call an inference, whose arrays are bound before.  BITINFER_KERNELS=native:...
    chooses the kernels.
    """
    spec = "numba" if name == "bitinfer-numba" else native_kernels()
    try:
        backend = backends.select(spec)
    except (BackendError, MissingExtraError) as error:
        raise UnavailableError(str(error)) from error
    to_bits = name == "bitinfer-bits"
    plan = _plan(problem, to_bits=to_bits)
    x = problem.x[None].reshape(1, *plan.buffers[plan.input].shape)
    if to_bits:
        x = bits.pack(x).words
    target = plan.buffers[plan.outputs[0]]
    y = np.empty((1, *target.stored_shape), np.uint64 if to_bits else np.float32)
    expected = problem.expected_bits if to_bits else problem.expected_binary
    executor = backend.bind(plan)
    return Engine(
        # Checking arrays in Python costs microseconds, which are no part of a layer.
        run=executor.bind_call(x, [y]),
        output=lambda: _unpack(y, expected) if to_bits else y.reshape(expected.shape),
        expected=expected,
        tolerance=0,
        details={
            "version": f"bitinfer {__version__}",
            "backend": backend.label,
            "kernel": f"{plan.steps[-1].operation} {executor.kernels[-1]}",
        },
    )


def native_kernels() -> str:
    """Return ``native``, or ``native:...`` where BITINFER_KERNELS says so."""
    forced = os.environ.get(backends.ENVIRONMENT_VARIABLE, "").strip()
    return forced if forced.startswith("native") else "native"


def _plan(problem: Problem, *, to_bits: bool) -> Plan:
    layer = problem.layer
    shape_in: tuple[int, ...] = (layer.size, layer.size, layer.channels)
    shape_out: tuple[int, ...] = (layer.out_size, layer.out_size, layer.outputs)
    if layer.is_dense:
        shape_in, shape_out = shape_in[-1:], shape_out[-1:]
    first = [] if to_bits else [Buffer("float", shape_in)]
    buffers = (*first, Buffer("bits", shape_in), Buffer("bits" if to_bits else "float", shape_out))
    source, target = len(buffers) - 2, len(buffers) - 1
    common: dict[str, Any] = {"name": layer.name, "source": source, "target": target}
    epilogue = steps.Epilogue(alpha=problem.alpha, bias=problem.bias)
    if to_bits:
        epilogue = steps.Epilogue(threshold=problem.threshold, flip=problem.flip)
    common["epilogue"] = epilogue
    words = bits.pack(problem.weight).words
    step: steps.Step
    if layer.is_dense:
        step = steps.BinaryDense(weight=words.reshape(layer.outputs, -1), **common)
    else:
        window = Window((layer.kernel,) * 2, (layer.stride,) * 2, (layer.pad,) * 4)
        step = steps.BinaryConv2d(weight=words, window=window, pad_value=0, **common)
    packing = [] if to_bits else [steps.PackSigns(name="pack", source=0, target=source)]
    return Plan(
        buffers=buffers,
        steps=(*packing, step),
        input=0,
        outputs=(target,),
        output_names=(layer.name,),
    )


def _unpack(words: Array, expected: Array) -> Array:
    """Return the bits of packed signs as booleans, bit by bit."""
    octets = words.astype("<u8").reshape(*expected.shape[:-1], -1).view(np.uint8)
    unpacked = np.unpackbits(octets, axis=-1, bitorder="little")
    assert not unpacked[..., expected.shape[-1] :].any(), "stray bits are set"
    return unpacked[..., : expected.shape[-1]].astype(bool)

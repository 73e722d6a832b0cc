"""Runs compiled kernels with every buffer between two inaccessible pages.

    python guard_pages.py native:avx2          exit code 0, or death by SIGSEGV
    python guard_pages.py numba                the same
    python guard_pages.py --overrun            proves that the guards work: reads one byte too far

A kernel that reads or writes past a buffer dies, which no sanitizer would see in assembly.  What a
kernel must not write to (inputs, weights, constants) is read-only.
"""

from __future__ import annotations

import ctypes
import dataclasses
import faulthandler
import itertools
import mmap
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import kernel_suites
from bitinfer import numerics
from bitinfer.backends import Backend, select
from bitinfer.backends.native import executor as native_executor
from bitinfer.graph import GraphBuilder, check
from bitinfer.plan import Plan, Step, lower
from graph_examples import every_node
from harness import DTYPES, BinaryConv, float_values
from kernel_list import Kernel, listed_kernels

Array = NDArray[Any]

PROT_NONE, PROT_READ = 0, 1
PAGE = mmap.PAGESIZE
_libc = ctypes.CDLL(None, use_errno=True)


def protect(address: int, size: int, protection: int) -> None:
    if _libc.mprotect(ctypes.c_void_p(address), ctypes.c_size_t(size), protection):
        raise OSError(ctypes.get_errno(), "mprotect")


def guarded(size: int, *, at_end: bool, alignment: int = 1) -> NDArray[np.uint8]:
    """Return ``size`` bytes that begin right after, or end right before, an inaccessible page."""
    body = -(-max(size, 1) // PAGE) * PAGE
    memory = np.frombuffer(mmap.mmap(-1, body + 2 * PAGE), np.uint8)
    memory[...] = 0xA5
    base = memory.ctypes.data
    protect(base, PAGE, PROT_NONE)
    protect(base + PAGE + body, PAGE, PROT_NONE)
    start = (body - size) // alignment * alignment if at_end else 0
    return memory[PAGE + start : PAGE + start + size]


def guarded_copy(array: Array, *, at_end: bool) -> Array:
    """Return a read-only copy of ``array`` between inaccessible pages."""
    copy = guarded(array.nbytes, at_end=at_end).view(array.dtype).reshape(array.shape)
    copy[...] = array
    first = copy.ctypes.data // PAGE * PAGE
    protect(first, -(-(copy.ctypes.data + copy.nbytes - first) // PAGE) * PAGE, PROT_READ)
    return copy


def guard_constants(plan: Plan, *, at_end: bool) -> Plan:
    """Return the plan with each of its constants between inaccessible pages."""
    steps = []
    for step in plan.steps:
        arrays = {
            field.name: guarded_copy(value, at_end=at_end)
            for field in dataclasses.fields(step)
            if isinstance(value := getattr(step, field.name), np.ndarray)
        }
        steps.append(dataclasses.replace(step, **arrays))
    return dataclasses.replace(plan, steps=tuple(steps))


def run(backend: Backend, plan: Plan, x: Array, *, at_end: bool | None) -> list[bytes]:
    """Run a plan, with guards unless ``at_end`` is None, and return the outputs."""
    outputs: list[Array] = []
    shapes = [plan.buffers[number].stored_shape for number in plan.outputs]
    if at_end is None:
        outputs = [np.zeros((len(x), *shape), np.float32) for shape in shapes]
    else:
        plan, x = guard_constants(plan, at_end=at_end), guarded_copy(x, at_end=at_end)
        for shape in shapes:
            memory = guarded(4 * len(x) * int(np.prod(shape)), at_end=at_end)
            outputs.append(memory.view(np.float32).reshape(len(x), *shape))
    with pytest.MonkeyPatch.context() as patch:
        if at_end is not None:
            guard_executor(backend, patch, at_end=at_end)
        backend.bind(plan).run(x, outputs)
    return [output.tobytes() for output in outputs]


def guard_executor(backend: Backend, patch: pytest.MonkeyPatch, *, at_end: bool) -> None:
    """Let executors put their arenas, and what they make of constants, between such pages.

    Arenas and re-laid weights begin on 64 bytes: such a weight may end up to 63 bytes early.
    """

    def aligned_bytes(size: int) -> NDArray[np.uint8]:
        return guarded(size, at_end=at_end, alignment=64)

    if backend.name == "native":
        patch.setattr(native_executor, "aligned_bytes", aligned_bytes)
        return
    from bitinfer.backends.numba import executor

    real = executor.bind_step

    def bind_step(step: Step, plan: Plan) -> Any:
        bound = real(step, plan)
        for name, array in bound.arrays.items():
            bound.arrays[name] = guarded_copy(np.ascontiguousarray(array), at_end=at_end)
        return bound

    patch.setattr(executor, "aligned_bytes", aligned_bytes)
    patch.setattr(executor, "bind_step", bind_step)


def layers() -> Iterator[BinaryConv]:
    for channels, outputs in itertools.product((1, 63, 64, 65, 128, 130, 500), (1, 4, 15, 17)):
        yield BinaryConv(
            (3, 4), channels, outputs, padding=(1, 0, 1, 1), pad_value=channels % 3 - 1
        )
    for kernel, stride, dilation in (
        ((1, 1), 1, 1),
        ((2, 3), 2, 1),
        ((3, 3), 1, 2),
        ((5, 5), 3, 1),
    ):
        yield BinaryConv(
            (6, 7),
            70,
            9,
            kernel,
            stride=(stride, stride),
            padding=(2, 1, 0, 3),
            dilation=(dilation, dilation),
            alpha=True,
            bias=True,
            beta=True,
        )
    for groups, channels in ((2, 1), (3, 20), (2, 64), (2, 65), (5, 33)):
        yield BinaryConv(
            (4, 3), groups * channels, groups * 3, groups=groups, padding=(1, 1, 1, 1), bias=True
        )


def plans() -> Iterator[tuple[Plan, Array]]:
    rng = np.random.default_rng(0)
    for layer in layers():
        yield lower(check(*layer.graph())), layer.arrays()[0][None]
    for length, outputs in itertools.product((1, 63, 64, 65, 191, 256, 257, 500), (1, 3, 8, 9)):
        b = GraphBuilder("dense", (length,))
        weight = rng.standard_normal((outputs, length))
        x = b.bdense(b.sign(b.input), weight, bias=weight[:, 0], beta=b.beta_map(b.input))
        y = b.softmax(b.dense(b.input, weight, weight[:, 0]))
        yield lower(check(*b.build(x, y))), rng.standard_normal((2, length)).astype(np.float32)
    for seed in range(2):
        graph, tensors = every_node(seed)
        x = rng.standard_normal((3, *graph.input.shape)).astype(np.float32)
        yield lower(check(graph, tensors)), x
        yield lower(check(float_values(graph, tensors), tensors)), x
        table = numerics.normalization_table(1 / 255, (0.5,) * 3, (0.5,) * 3)
        yield (
            lower(check(graph, tensors), table),
            (x * 50 + 128).clip(0, 255).astype(np.uint8),
        )


def kernel_plans(isa: str) -> Iterator[tuple[Kernel, Plan, Array]]:
    """Yield what kernels of an instruction set take of their suites, about their first block."""
    for kernel in listed_kernels():
        if kernel.isa != isa:
            continue
        backend, rng = select(kernel.spec), np.random.default_rng(kernel.block)
        for size in {
            max(1, kernel.block - 1),
            kernel.block,
            kernel.block + 1,
            2 * kernel.block + 1,
        }:
            for case in kernel_suites.SUITES[kernel.operation](size, rng):
                plan, x, _ = kernel_suites.prepare(case, rng, every_value=False)
                if kernel_suites.takes(kernel, backend, plan):
                    yield kernel, plan, x


def main(argument: str) -> int:
    faulthandler.enable()
    if argument == "--overrun":
        memory = guarded(100, at_end=True)
        print(ctypes.string_at(memory.ctypes.data, 100) == b"\xa5" * 100, flush=True)
        ctypes.string_at(memory.ctypes.data, 101)
        return 0
    backend, checked = select(argument), 0
    whole = ((backend, plan, x) for plan, x in plans())
    kernels = kernel_plans(argument.partition(":")[2])
    single = ((select(kernel.spec), plan, x) for kernel, plan, x in kernels)
    for backend, plan, x in itertools.chain(whole, single):
        assert {plan.buffers[number].kind for number in plan.outputs} == {"float"}
        assert x.dtype == DTYPES[plan.buffers[plan.input].kind]
        wanted = run(backend, plan, x, at_end=None)
        for at_end in (False, True):
            assert run(backend, plan, x, at_end=at_end) == wanted, plan.steps
            checked += 1
    print(f"{checked} guarded runs on {argument}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))

"""The C backend: one call per inference, through cffi."""

from __future__ import annotations

import importlib
from typing import Any

from bitinfer.backends.base import Executor
from bitinfer.errors import BackendError
from bitinfer.plan import operations
from bitinfer.plan.steps import Plan


def load_library() -> Any:
    """Return the compiled extension module (``ffi`` and ``lib``).

    Raises:
        ImportError: bitinfer was built without a C compiler.
    """
    return importlib.import_module("bitinfer.backends.native._native")


def instruction_sets() -> dict[str, bool]:
    """Return which instruction sets, poorest first, this CPU has of those with kernels."""
    native = load_library()
    result: dict[str, bool] = {}
    while (name := native.lib.bi_isa_name(len(result))) != native.ffi.NULL:
        result[native.ffi.string(name).decode()] = bool(native.lib.bi_isa_runs_here(len(result)))
    return result


def clock_hz() -> float:
    """Return the clock of the core that this runs on, now, in cycles a second; measured."""
    return float(load_library().lib.bi_clock_hz())


class NativeBackend:
    """The backend ``native``; ``isa`` caps the instruction set of every kernel.

    Raises:
        ImportError: there is no compiled extension.
        BackendError: ``isa`` is unknown, or this CPU lacks it.
    """

    name = "native"

    def __init__(self, isa: str | None = None) -> None:
        self._native = load_library()
        known = instruction_sets()
        if isa is not None and not known.get(isa, False):
            problem = "this CPU lacks it" if isa in known else "there is no such name"
            here = ", ".join(name for name, runs in known.items() if runs)
            raise BackendError(f"native:{isa}: {problem}; this CPU runs {here}")
        self._isa = self._native.ffi.NULL if isa is None else isa.encode()

    def find_kernel(self, operation: str, step: Any = None) -> int:
        """Return the index in the kernel list of the kernel that serves ``operation``."""
        index: int = self._native.lib.bi_kernel_find(operation.encode(), self._isa)
        if index < 0:
            raise BackendError(f"native: the kernel list has no kernel for {operation!r}")
        return index

    def kernels(self) -> dict[str, tuple[str, ...]]:
        """Return which kernel serves each operation."""
        isa = self._native.lib.bi_kernel_isa
        return {
            operation: (self._native.ffi.string(isa(self.find_kernel(operation))).decode(),)
            for operation in operations()
        }

    @property
    def label(self) -> str:
        """``native:`` and the kernel of the binary convolution."""
        return f"native:{self.kernels()['bconv2d'][0]}"

    def bind(self, plan: Plan, threads: int = 1) -> Executor:
        """Return an executor of ``plan``, each call of which may use ``threads`` threads."""
        from bitinfer.backends.native.executor import NativeExecutor

        return NativeExecutor(plan, self.find_kernel, threads)

"""What a backend offers, and what a call of an executor needs to itself."""

from __future__ import annotations

import contextlib
import importlib.util
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Generic, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from bitinfer.plan.memory import ALIGNMENT
from bitinfer.plan.steps import Plan

Array = NDArray[Any]


Check = Callable[[], object]
"""Is called between parts of a computation that takes long; what it raises ends the computation."""

_T = TypeVar("_T")


class Executor(Protocol):
    """A plan bound to a backend."""

    @property
    def arena_bytes(self) -> int:
        """Bytes of scratch memory that one call of one thread takes."""

    @property
    def plan(self) -> Plan:
        """What is executed."""

    @property
    def kernels(self) -> tuple[str, ...]:
        """The name of the kernel that really serves each step."""

    def run(self, x: Array, outputs: Sequence[Array], check: Check | None = None) -> bool:
        """Run ``len(x)`` samples; return whether any float of x is NaN or infinite.

        Many threads may call this at once.

        ``x`` (N, ...) of the plan's input; ``outputs`` (N, ...) in the plan's order, overwritten;
        all C-contiguous.
        """

    def bind_call(self, x: Array, outputs: Sequence[Array]) -> Callable[[], None]:
        """Return ``run(x, outputs)`` as a call that checks nothing and allocates nothing.

        It reads ``x`` and writes ``outputs`` where they are now.  One thread at a time may call
        it; it cannot be interrupted.
        """

    def profile(
        self, x: Array, outputs: Sequence[Array], rounds: int, check: Check | None = None
    ) -> NDArray[np.int64]:
        """Run ``rounds`` times; return the nanoseconds (rounds, steps) of all samples together."""


class Backend(Protocol):
    """Executes plans.  ``name`` says which one; ``label`` names its kernels too."""

    @property
    def name(self) -> str:
        """``native``, ``numba`` or ``reference``."""

    @property
    def label(self) -> str:
        """Name and kernel, such as ``native:avx2``."""

    def kernels(self) -> dict[str, tuple[str, ...]]:
        """Return, for each operation, the kernels that may serve it here, best first."""

    def bind(self, plan: Plan, threads: int = 1) -> Executor:
        """Choose kernels, re-lay weights, fix the arena.

        ``threads``, at least 1, may work on one call.  It is for ``native``; the others use one.
        """


def import_present(name: str) -> Any:
    """Import a module; refuse one that is not there without taking the lock of its name.

    A process forked while another thread had that lock would wait for it for ever, and every load
    on a machine without the module tries again.

    Raises:
        ImportError: it is not there, or cannot be imported.
    """
    if name not in sys.modules and importlib.util.find_spec(name) is None:
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)
    return importlib.import_module(name)


class FreeList(Generic[_T]):
    """Things that one call needs to itself: reused, and made only when all are in use.

    Lists pop and append atomically.  A lock would be taken for ever in a child that was forked
    while another thread held it.
    """

    def __init__(self, make: Callable[[], _T]) -> None:
        self._make = make
        self._free: list[_T] = []

    def acquire(self) -> _T:
        """Lend one, until :meth:`release`."""
        try:
            return self._free.pop()
        except IndexError:
            return self._make()

    def release(self, thing: _T) -> None:
        """Take one back."""
        self._free.append(thing)

    @contextlib.contextmanager
    def take(self) -> Iterator[_T]:
        """Lend one for the length of the ``with`` block."""
        thing = self.acquire()
        try:
            yield thing
        finally:
            self.release(thing)


def has_lost(x: Array) -> bool:
    """Tell whether any float of x is NaN or infinite."""
    return x.dtype == np.float32 and not np.isfinite(x).all()


def part_of(place: int, begin: int) -> int:
    """Return where a part of a buffer lies that begins ``begin`` bytes behind its place.

    Raises:
        ValueError: the buffer is an input or output of the plan, whose place is a number.
    """
    if begin and place < 0:
        raise ValueError("a step reads or writes a part of an input or output of the plan")
    return place + begin


def aligned_bytes(size: int) -> NDArray[np.uint8]:
    """Return ``size`` uninitialised bytes that begin on a cache line."""
    raw = np.empty(size + ALIGNMENT, np.uint8)
    start = -raw.ctypes.data % ALIGNMENT
    return raw[start : start + size]

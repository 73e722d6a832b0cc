"""Backends: what executes a plan.  Three of them, one plan; which one is never a secret."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

from bitinfer.backends.base import Backend, Check, Executor
from bitinfer.backends.threads import resolve as resolve_threads
from bitinfer.backends.threads import usable_cpus
from bitinfer.errors import BackendError, MissingExtraError

NAMES = ("native", "numba", "reference")
"""In the order in which ``auto`` tries them."""

ENVIRONMENT_VARIABLE = "BITINFER_KERNELS"
"""Forces what ``auto`` means: ``native:avx2``, ``native:bconv2d=words``, ``reference``, ..."""


@dataclasses.dataclass(frozen=True)
class Status:
    """Whether a backend can be used here; ``reason`` says why not."""

    name: str
    available: bool
    reason: str = ""
    detail: str = ""


def select(spec: str = "auto") -> Backend:
    """Return the backend that ``spec`` names.

    ``spec`` is ``auto`` (what BITINFER_KERNELS says, else the first that is available), a name of
    :data:`NAMES`, or ``native:`` and a list, parted by commas, of an instruction set, which caps
    that of the kernels, and of ``operation=method``, which forces the method of an operation.

    Raises:
        BackendError: the name is unknown, or the backend is not available here.
        MissingExtraError: the package that it is made with is not installed.
    """
    if not isinstance(spec, str):
        raise BackendError(f"backend is {spec!r}, wanted a name such as 'auto'")
    if spec == "auto":
        forced = os.environ.get(ENVIRONMENT_VARIABLE, "").strip()
        if forced and forced != "auto":
            try:
                return select(forced)
            except BackendError as error:
                raise BackendError(f"{ENVIRONMENT_VARIABLE}={forced}: {error}") from None
            except MissingExtraError as error:
                reason = f"{ENVIRONMENT_VARIABLE}={forced}: {error.args[0]}"
                raise MissingExtraError(reason, error.extra) from None
        for name in NAMES:
            try:
                return _create(name, None)
            except ImportError:
                continue
    name, _, choice = spec.partition(":")
    if name not in NAMES or (choice and name != "native") or spec.endswith(":"):
        raise BackendError(
            f"unknown backend {spec!r}; choose auto, {', '.join(NAMES)}, native:<instruction set> "
            "or native:<operation>=<method> (see 'bitinfer info')"
        )
    try:
        return _create(name, choice or None)
    except ImportError as error:
        if name != "native" and isinstance(error, ModuleNotFoundError):
            reason = f"backend {name!r} is not available: {error}"
            raise MissingExtraError(reason, name) from error
        raise BackendError(f"backend {name!r} is not available: {_why_not(name, error)}") from error


def status() -> list[Status]:
    """Return every backend, and why it is not available where it is not."""
    result = []
    for name in NAMES:
        try:
            backend = _create(name, None)
        except ImportError as error:
            result.append(Status(name, available=False, reason=_why_not(name, error)))
            continue
        result.append(Status(name, available=True, detail=_detail(backend)))
    return result


def kernels(spec: str = "auto") -> dict[str, tuple[str, ...]]:
    """Return the kernels of each operation, best first, on the backend that ``spec`` names."""
    return select(spec).kernels()


def cpu_features() -> dict[str, bool]:
    """Return which of the instruction sets that the native kernels know this CPU has.

    Empty where there is no native backend.
    """
    try:
        from bitinfer.backends.native import instruction_sets

        return instruction_sets()
    except ImportError:
        return {}


def clock_hz() -> float | None:
    """Return the measured clock of this core, in cycles a second; None without native backend."""
    try:
        from bitinfer.backends.native import clock_hz

        return clock_hz()
    except ImportError:
        return None


def numba_cache_folder() -> Path | None:
    """Return where numba keeps the compiled loops; None if there is no place to write to.

    Raises:
        ImportError: numba is not installed.
    """
    from bitinfer.backends.numba import jit

    return jit.cache_folder()


def _create(name: str, choice: str | None) -> Backend:
    if name == "native":
        from bitinfer.backends.native import NativeBackend

        return NativeBackend(choice)
    if name == "numba":
        from bitinfer.backends.numba import NumbaBackend

        return NumbaBackend()
    from bitinfer.backends.reference import ReferenceBackend

    return ReferenceBackend()


def _why_not(name: str, error: ImportError) -> str:
    if name == "native":
        return (
            f"the C extension cannot be loaded ({error}); install a C compiler and the Python "
            "headers, then install bitinfer again"
        )
    # What is there, but will not work, is not mended by installing it.
    is_missing = isinstance(error, ModuleNotFoundError)
    return str(MissingExtraError(str(error), name)) if is_missing else str(error)


def _detail(backend: Backend) -> str:
    if backend.name == "native":
        from bitinfer.backends.native import load_library

        native = load_library()
        return str(native.ffi.string(native.lib.bi_compiler()).decode())
    return ""


__all__ = [
    "NAMES",
    "Backend",
    "Check",
    "Executor",
    "Status",
    "clock_hz",
    "cpu_features",
    "kernels",
    "numba_cache_folder",
    "resolve_threads",
    "select",
    "status",
    "usable_cpus",
]

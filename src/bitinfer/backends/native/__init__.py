"""The C backend: one call per inference, through cffi."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bitinfer.backends.base import Executor, import_present
from bitinfer.errors import BackendError
from bitinfer.plan import operations
from bitinfer.plan.steps import Plan


def load_library() -> Any:
    """Return the compiled extension module (``ffi`` and ``lib``).

    Raises:
        ImportError: bitinfer was built without a C compiler.
    """
    return import_present("bitinfer.backends.native._native")


def source_dir() -> Path:
    """Return the folder of the C sources: in an installed package, or beside that of a checkout.

    Raises:
        BackendError: there is none.
    """
    package = Path(__file__).parents[2]
    for folder in (package / "csrc", package.parents[1] / "csrc"):
        if (folder / "bitinfer.h").is_file():
            return folder
    raise BackendError(f"{package}: there are no C sources; install bitinfer again")


def instruction_sets() -> dict[str, bool]:
    """Return which instruction sets, poorest first, this CPU has of those with kernels."""
    native = load_library()
    result: dict[str, bool] = {}
    while (name := native.lib.bi_isa_name(len(result))) != native.ffi.NULL:
        result[native.ffi.string(name).decode()] = bool(native.lib.bi_isa_runs_here(len(result)))
    return result


def kernel_name(kernel: int) -> str:
    """Return the name of a kernel of a known operation: its method and its instruction set."""
    native = load_library()
    words = native.lib.bi_kernel_method(kernel), native.lib.bi_kernel_isa(kernel)
    return " ".join(native.ffi.string(word).decode() for word in words)


def clock_hz() -> float:
    """Return the clock of the core that this runs on, now, in cycles a second; measured."""
    return float(load_library().lib.bi_clock_hz())


class NativeBackend:
    """The backend ``native``; ``choice`` is what follows the colon of ``native:...``.

    It is a list, parted by commas, of an instruction set, which caps that of every kernel, and of
    ``operation=method``, which leaves an operation the kernels of this method alone.

    Raises:
        ImportError: there is no compiled extension.
        BackendError: a name is unknown, or this CPU has no such kernel.
    """

    name = "native"

    def __init__(self, choice: str | None = None) -> None:
        self._native = load_library()
        self._isa: str | None = None
        self._methods: dict[str, str] = {}
        for item in () if choice is None else choice.split(","):
            operation, equals, method = item.strip().partition("=")
            if equals:
                self._force(operation, method)
            else:
                self._cap(operation)
        for operation, method in self._methods.items():
            if not self._names(operation, method):
                possible = dict.fromkeys(n.partition(" ")[0] for n in self._names(operation, None))
                cap = f" up to {self._isa}" if self._isa else ""
                raise BackendError(
                    f"native:{operation}={method}: this CPU runs no such kernel{cap}; "
                    f"choose {', '.join(possible)}"
                )

    def _cap(self, isa: str) -> None:
        known = instruction_sets()
        if not known.get(isa, False):
            problem = "this CPU lacks it" if isa in known else "there is no such name"
            here = ", ".join(name for name, runs in known.items() if runs)
            raise BackendError(f"native:{isa}: {problem}; this CPU runs {here}")
        if self._isa is not None:
            raise BackendError(f"native:{self._isa},{isa}: wanted one instruction set")
        self._isa = isa

    def _force(self, operation: str, method: str) -> None:
        given = f"native:{operation}={method}"
        if operation not in operations():
            known = ", ".join(operations())
            raise BackendError(f"{given}: there is no such operation; choose {known}")
        if operation in self._methods:
            raise BackendError(f"{given}: {operation} is given twice")
        methods = self._listed_methods(operation)
        if method not in methods:
            raise BackendError(f"{given}: there is no such method; choose {', '.join(methods)}")
        self._methods[operation] = method

    def _listed_methods(self, operation: str) -> tuple[str, ...]:
        """Return the methods of an operation in the kernel list, whether they run here or not."""
        lib, text = self._native.lib, self._native.ffi.string
        listed = (
            text(lib.bi_kernel_method(i)).decode()
            for i in range(lib.bi_kernel_count())
            if text(lib.bi_kernel_operation(i)).decode() == operation
        )
        return tuple(dict.fromkeys(listed))

    def _names(self, operation: str, method: str | None) -> tuple[str, ...]:
        """Return the kernels that may serve an operation, best first; the last takes every step."""
        words = self._c_words(operation, method)
        names: list[str] = []
        kernel = -1
        while (kernel := self._native.lib.bi_kernel_next(*words, kernel)) >= 0:
            names.append(kernel_name(kernel))
        return tuple(names)

    def _c_words(self, *words: str | None) -> list[Any]:
        """Return these words and the capping instruction set, None as NULL."""
        null = self._native.ffi.NULL
        return [null if word is None else word.encode() for word in (*words, self._isa)]

    def find_kernel(self, operation: str, name: str, record: Any) -> int:
        """Return the index in the kernel list of the kernel for a step.

        Args:
            operation: what the step does.
            name: what the step is called.
            record: the ``bi_step *``, all of it filled in but kernel, weight and places.

        Raises:
            BackendError: there is none, of the method that was asked for.
        """
        method = self._methods.get(operation)
        kernel: int = self._native.lib.bi_kernel_find(*self._c_words(operation, method), record)
        if kernel < 0:
            kernels = self._names(operation, method)
            if not kernels:
                raise BackendError(f"native: the kernel list has no kernel for {operation!r}")
            others = ", ".join(m for m in self._listed_methods(operation) if m != method)
            raise BackendError(
                f"native:{operation}={method}: step {name!r} is not one that {', '.join(kernels)} "
                f"takes; other methods of {operation}: {others or 'none'}"
            )
        return kernel

    def kernels(self) -> dict[str, tuple[str, ...]]:
        """Return, for each operation, every kernel that may serve it, best first."""
        return {
            operation: self._names(operation, self._methods.get(operation))
            for operation in operations()
        }

    @property
    def label(self) -> str:
        """``native:`` and the best instruction set of its kernels, then the forced methods."""
        isas = list(instruction_sets())
        best = max(
            (name.partition(" ")[2] for names in self.kernels().values() for name in names),
            key=isas.index,
        )
        forced = (f"{operation}={method}" for operation, method in self._methods.items())
        return f"native:{','.join((best, *forced))}"

    def bind(self, plan: Plan, threads: int = 1) -> Executor:
        """Return an executor of ``plan``, each call of which may use ``threads`` threads."""
        from bitinfer.backends.native.executor import NativeExecutor

        return NativeExecutor(plan, self.find_kernel, threads)

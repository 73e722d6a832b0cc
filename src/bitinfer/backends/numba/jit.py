"""How kernels are compiled, and where the machine code is kept.

A kernel is a C function of three addresses: of a step's record, of the arena and of the list of the
caller's arrays.  It has one signature, so that it is compiled once, whatever a network looks like.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numba
from numba import types
from numba.core.caching import FunctionCache
from numba.core.ccallback import CFunc

_F = TypeVar("_F", bound=Callable[..., Any])

_OPTIONS = {"nopython": True, "error_model": "numpy"}
_ARGUMENTS = (types.intp, types.intp, types.intp)


def compiled(function: _F) -> _F:
    """Compile at first call, without the GIL; cache on disk where that is possible."""
    dispatcher = numba.njit(nogil=True, error_model="numpy")(function)
    with _where_possible():
        dispatcher._cache = _Cache(function)
    return dispatcher


def part(function: _F) -> _F:
    """Compile as a part of the kernels that call it."""
    return numba.njit(nogil=True, error_model="numpy", forceinline=True)(function)


class Kernel:
    """A kernel that is compiled, or loaded from the cache, when its address is wanted."""

    def __init__(self, function: Callable[[int, int, int], None]) -> None:
        self.name = function.__name__.removeprefix("_")
        self._function = function
        self._compiled: Any = None

    def address(self, will_compile: Callable[[str], None] = lambda _: None) -> int:
        """Return the address of the machine code.

        ``will_compile`` is called with the name of the kernel if it has to be compiled first.
        """
        if self._compiled is None:
            result: Any = CFunc(self._function, (_ARGUMENTS, types.void), {}, dict(_OPTIONS))
            with _where_possible():
                result._cache = _Cache(self._function)
            is_cached = isinstance(result._cache, _Cache)
            if is_cached:
                result._cache.missed = lambda: will_compile(self.name)
            else:
                will_compile(self.name)
            result.compile()
            self._compiled = result
        return int(self._compiled.address)

    @property
    def cache_hits(self) -> int:
        """How often the machine code was loaded from the cache: 1 or 0."""
        return 0 if self._compiled is None else int(self._compiled.cache_hits)

    def assembly(self) -> str:
        """Return the machine code as text."""
        self.address()
        return str(self._compiled._library.get_asm_str())


def addresses(kernels: Sequence[Kernel]) -> list[int]:
    """Return the addresses of kernels.

    While some are compiled, which takes seconds, a line on a terminal says so.
    """
    distinct = list(dict.fromkeys(kernels))
    with _progress(len(distinct)) as say:
        for number, kernel in enumerate(distinct, start=1):
            kernel.address(functools.partial(say, number))
    return [kernel.address() for kernel in kernels]


@contextlib.contextmanager
def _progress(count: int) -> Iterator[Callable[[int, str], None]]:
    """Lend what writes a line about kernel ``number`` of ``count``; it is gone in the end."""
    has_written = False

    def say(number: int, name: str) -> None:
        nonlocal has_written
        if sys.stderr is not None and sys.stderr.isatty():
            text = f"compiling kernel {number} of {count} for the backend numba: {name}"
            sys.stderr.write(f"\r\x1b[K{text}")
            sys.stderr.flush()
            has_written = True

    try:
        yield say
    finally:
        if has_written:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()


def _where_possible() -> contextlib.AbstractContextManager[None]:
    """No place to write to: a read-only container, a user without home or name."""
    return contextlib.suppress(RuntimeError, OSError, KeyError)


class _Cache(FunctionCache):
    """Numba's cache; but it may fail, and it knows every file that the kernels are made of."""

    missed: Callable[[], None] = staticmethod(lambda: None)

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        """Return what was compiled before, or None."""
        try:
            found = super().load_overload(sig, target_context)
        except Exception:  # whatever a damaged file makes of pickle: compile again
            found = None
        if found is None:
            self.missed()
        return found

    def save_overload(self, sig: Any, data: Any) -> None:
        """Keep what was compiled, unless the disk does not let us."""
        try:
            super().save_overload(sig, data)
        except Exception:  # no space, no right, or a damaged index
            self.disable()

    def _index_key(self, sig: Any, codegen: Any) -> Any:
        # Numba looks at the file of the function alone; the vectors inside come from another.
        return (*super()._index_key(sig, codegen), _sources())


def cache_folder() -> Path | None:
    """Return where compiled loops are kept; None if there is no place to write to."""
    try:
        return Path(_Cache(compiled).cache_path)
    except (RuntimeError, OSError, KeyError):
        return None


@functools.cache
def _sources() -> str:
    """Return a digest of this package's source files."""
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parent.rglob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()

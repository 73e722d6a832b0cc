"""How loops are compiled, and where the machine code is kept."""

from __future__ import annotations

import contextlib
import functools
import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import numba
from numba.core.caching import FunctionCache

_F = TypeVar("_F", bound=Callable[..., Any])


def compiled(function: _F) -> _F:
    """Compile at first call, without the GIL; cache on disk where that is possible."""
    dispatcher = numba.njit(nogil=True, error_model="numpy")(function)
    # No place to write to: a read-only container, a user without home or name.
    with contextlib.suppress(RuntimeError, OSError, KeyError):
        dispatcher._cache = _Cache(function)
    return dispatcher


def part(function: _F) -> _F:
    """Compile as a part of the loops that call it."""
    return numba.njit(nogil=True, error_model="numpy")(function)


class _Cache(FunctionCache):
    """Numba's cache; but it may fail, and it knows every file that the loops are made of."""

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        """Return what was compiled before, or None."""
        try:
            return super().load_overload(sig, target_context)
        except Exception:  # whatever a damaged file makes of pickle: compile again
            return None

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
    for path in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()

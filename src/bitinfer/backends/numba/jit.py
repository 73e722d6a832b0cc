"""What the compiled loops need from numba: a decorator and the popcount instruction."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import numba
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

_F = TypeVar("_F", bound=Callable[..., Any])


def compiled(function: _F) -> _F:
    """Compile at first call, without the GIL; cache on disk where that is possible."""
    options = {"nogil": True, "error_model": "numpy"}
    try:
        return numba.njit(cache=True, **options)(function)
    except RuntimeError:  # no writable place for the cache, as in a read-only container
        return numba.njit(**options)(function)


@intrinsic
def popcount(typing_context: Any, word: Any) -> Any:
    """Count the bits that are 1 in a uint64; LLVM chooses the instruction."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        word_type = ir.IntType(64)
        function = builder.module.declare_intrinsic("llvm.ctpop", [word_type])
        return builder.call(function, args)

    return types.int64(types.uint64), generate

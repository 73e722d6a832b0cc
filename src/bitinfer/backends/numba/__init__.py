"""The Numba backend: for machines without a compiled extension.

Loops are compiled at first use and cached where the cache can be written.  ``nogil`` lets other
threads run; ``parallel`` is never used, since its thread pools do not survive a fork.
"""

from __future__ import annotations

import numpy as np

from bitinfer.backends import reference
from bitinfer.backends.base import Executor
from bitinfer.backends.interpreted import InterpretedExecutor
from bitinfer.plan import operations
from bitinfer.plan.steps import Plan

KERNEL = "numba"

_COMPILED = frozenset(
    (
        "avg_pool2d",
        "bconv2d",
        "bdense",
        "beta_map",
        "conv2d",
        "dense",
        "max_pool2d",
        "normalize",
        "pack_signs",
    )
)
"""Operations that have compiled loops, though not for every step; all else is done by NumPy."""


class NumbaBackend:
    """The backend ``numba``.

    Raises:
        ImportError: numba is not installed, or its compiler is switched off.
    """

    name = "numba"
    label = "numba"

    def __init__(self) -> None:
        import numba

        if numba.config.DISABLE_JIT:
            raise ImportError("numba's compiler is switched off by NUMBA_DISABLE_JIT")

    def kernels(self) -> dict[str, tuple[str, ...]]:
        """Return which kernels may serve each operation: compiled loops where there are, NumPy."""
        return {
            name: (KERNEL, reference.KERNEL) if name in _COMPILED else (reference.KERNEL,)
            for name in operations()
        }

    def bind(self, plan: Plan, threads: int = 1) -> Executor:
        """Return an executor of ``plan``; the loops it needs are compiled or loaded now.

        One thread does the work, whatever ``threads`` says.
        """
        from bitinfer.backends.numba.binding import bind_step

        executor = InterpretedExecutor(plan, bind_step)
        outer = [plan.buffers[b] for b in (plan.input, *plan.outputs)]
        x, *outputs = (np.zeros((1, *b.stored_shape), b.dtype) for b in outer)
        executor.run(x, outputs)
        return executor

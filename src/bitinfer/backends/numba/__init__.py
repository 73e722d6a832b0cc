"""The Numba backend: for machines without a compiled extension.

Loops are compiled at first use and cached where the cache can be written.  ``nogil`` lets other
threads run; ``parallel`` is never used, since its thread pools do not survive a fork.
"""

from __future__ import annotations

import numpy as np

from bitinfer.backends.base import DTYPES, Executor, InterpretedExecutor
from bitinfer.plan.steps import OPERATIONS, Plan


class NumbaBackend:
    """The backend ``numba``.

    Raises:
        ImportError: numba is not installed.
    """

    name = "numba"
    label = "numba"

    def __init__(self) -> None:
        import numba  # noqa: F401 - says at once whether it is there

    def kernels(self) -> dict[str, tuple[str, ...]]:
        """Return which kernel serves each operation: compiled loops, for all."""
        return dict.fromkeys(OPERATIONS.values(), ("numba",))

    def bind(self, plan: Plan, threads: int = 1) -> Executor:
        """Return an executor of ``plan``; the loops it needs are compiled or loaded now.

        One thread does the work, whatever ``threads`` says.
        """
        from bitinfer.backends.numba.binding import bind_step

        executor = InterpretedExecutor(plan, bind_step, "numba")
        outer = [plan.buffers[b] for b in (plan.input, *plan.outputs)]
        x, *outputs = (np.zeros((1, *b.stored_shape), DTYPES[b.kind]) for b in outer)
        executor.run(x, outputs)
        return executor

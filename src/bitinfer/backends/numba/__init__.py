"""The Numba backend: for machines without a compiled extension.

All operations are compiled kernels, and one compiled call runs a whole plan.  Kernels are compiled
when a plan first needs them, and cached where the cache can be written.  ``nogil`` lets other
threads run; ``parallel`` is never used, since its thread pools do not survive a fork.
"""

from __future__ import annotations

from bitinfer.backends.base import Executor, import_present
from bitinfer.plan import operations
from bitinfer.plan.steps import Plan


class NumbaBackend:
    """The backend ``numba``.

    Raises:
        ImportError: numba is not installed, or its compiler is switched off.
    """

    name = "numba"
    label = "numba"

    def __init__(self) -> None:
        numba = import_present("numba")
        if numba.config.DISABLE_JIT:
            raise ImportError("numba's compiler is switched off by NUMBA_DISABLE_JIT")

    def kernels(self) -> dict[str, tuple[str, ...]]:
        """Return which kernel serves each operation: a compiled one, for all."""
        return dict.fromkeys(operations(), (self.name,))

    def bind(self, plan: Plan, threads: int = 1) -> Executor:
        """Return an executor of ``plan``; the kernels it needs are compiled or loaded now.

        One thread does the work, whatever ``threads`` says.
        """
        from bitinfer.backends.numba.executor import NumbaExecutor

        return NumbaExecutor(plan)

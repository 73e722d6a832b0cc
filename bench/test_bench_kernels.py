"""Every kernel of the list that this CPU runs, alone and at batch 1: ``pytest bench -k kernels``.

Networks and sizes are those of its exactness suite (tests/kernel_suites.py), the largest that it
takes: so a new line in kernels.inc is measured without a word here.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bitinfer.backends import select
from bitinfer.plan.cost import macs

sys.path.append(str(Path(__file__).parents[1] / "tests"))
from kernel_list import Kernel, listed_kernels
from kernel_suites import SUITES, prepare, sizes, takes

KERNELS = [kernel for kernel in listed_kernels() if kernel.runs_here]


@pytest.mark.benchmark(group="kernels")
@pytest.mark.parametrize("kernel", KERNELS, ids=lambda k: f"{k.operation}-{k.method}-{k.isa}")
def test_kernels(kernel: Kernel, benchmark: Any) -> None:
    rng, backend = np.random.default_rng(0), select(kernel.spec)
    for size in reversed(sizes(kernel)):
        for case in SUITES[kernel.operation](size, rng):
            plan, x, _ = prepare(case, rng, every_value=False)
            if takes(kernel, backend, plan):
                executor = backend.bind(plan)
                buffers = [plan.buffers[b] for b in plan.outputs]
                outputs = [np.empty((1, *b.stored_shape), b.dtype) for b in buffers]
                benchmark(executor.bind_call(np.ascontiguousarray(x[:1]), outputs))
                benchmark.extra_info["size"] = size
                benchmark.extra_info["macs"] = sum(macs(step, plan) for step in plan.steps)
                return
    pytest.fail(f"{kernel.operation} {kernel.name} takes nothing of its suite")

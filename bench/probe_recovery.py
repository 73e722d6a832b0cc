"""What work leaves behind it: the vector probe, repeated right after different kinds of work.

    python bench/probe_recovery.py [ROUNDS]

Prints, for each kind of work, the operations a cycle that the first streams of the probe reach and
the clock; of each the level that a fifth of the rounds exceed.  Wants a C compiler, and a machine
on which nothing else runs.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))

from rig import probes

from bitinfer import zoo
from bitinfer.backends import status
from bitinfer.model import Model
from bitinfer.session import Session
from bitinfer.zoo.parameters import RandomParameters

_STREAMS = 3


def kinds_of_work() -> dict[str, Callable[[], Any]]:
    """Return what is done before the probe looks, by name."""
    matrix = np.ones((1024, 1024), np.float32)
    source = np.ones(64 << 20, np.uint8)
    target = np.empty_like(source)
    work: dict[str, Callable[[], Any]] = {
        "nothing": lambda: None,
        "matrix product": lambda: matrix @ matrix,
        "copy of 64 MB": lambda: np.copyto(target, source),
    }
    model = Model(*zoo.build("bireal18", RandomParameters(0)))
    x = np.random.default_rng(0).standard_normal(model.graph.input.shape).astype(np.float32)
    for kernels in _native_kernels():
        session = Session(model, kernels)
        work[f"bireal18 {kernels}"] = lambda session=session: session.run(x)
    return work


def _native_kernels() -> list[str]:
    if not next(backend for backend in status() if backend.name == "native").available:
        return []
    return ["native:avx2", "native"]


def main() -> None:
    """Measure and print."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 40
    core = probes.CompiledProbes()
    cpu = probes.pin_to_quietest(core)
    print(f"{probes.cpu_name()}, CPU {cpu}, {rounds} rounds")
    work = kinds_of_work()
    seen: dict[str, list[list[float]]] = {name: [] for name in work}
    for do in work.values():
        do()
    for _ in range(rounds):
        for name, do in work.items():
            do()
            streams = [core.single_vector_rate() for _ in range(_STREAMS)]
            clock = core.clock_ghz()
            seen[name].append([*(stream / clock for stream in streams), clock])
    for name, rows in seen.items():
        *streams, clock = (
            sorted(column)[int(0.8 * (rounds - 1))] for column in zip(*rows, strict=True)
        )
        print(f"{name:24}", *(f"{stream:.3f}" for stream in streams), f"at {clock:.2f} GHz")


if __name__ == "__main__":
    main()

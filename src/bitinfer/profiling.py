"""What the steps of a network take: measured in rounds, summed up for each step."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from bitinfer.backends import Executor, clock_hz
from bitinfer.plan.cost import macs

_WARM_UP_ROUNDS = 3
CONVOLUTIONS = frozenset(("bconv2d", "bdense", "conv2d", "dense"))
"""Operations whose time is the network's own; what the others take is overhead."""


@dataclasses.dataclass(frozen=True)
class StepTime:
    """One step of the plan; times are of one sample, ``share`` (0..1) is of the medians.

    ``macs`` are multiply-accumulates of a convolution or dense step, else 0.  ``mac_per_cycle`` is
    by the minimum and the measured clock; None without multiplications or where the clock is not
    known.
    """

    name: str
    operation: str
    kernel: str
    ns_min: float
    ns_median: float
    share: float
    macs: int
    mac_per_cycle: float | None


class Measurement(NamedTuple):
    """Nanoseconds (rounds, steps) of one sample, and what they are of."""

    executor: Executor
    ns: NDArray[np.float64]
    clock_hz: float | None


def measure(
    executor: Executor, batch: NDArray[Any], outputs: Sequence[NDArray[Any]], rounds: int
) -> Measurement:
    """Run a batch ``rounds`` times, after a few that do not count."""
    executor.profile(batch, outputs, _WARM_UP_ROUNDS)
    clocks = [clock_hz()]
    ns = executor.profile(batch, outputs, rounds) / len(batch)
    clocks.append(clock_hz())
    known = [clock for clock in clocks if clock]
    return Measurement(executor, ns, max(known) if known else None)


def summarize(
    executor: Executor, ns: NDArray[np.float64], clock_hz: float | None
) -> list[StepTime]:
    """Return a line for each step, in the order of the plan."""
    least, median = ns.min(axis=0), np.median(ns, axis=0)
    total = float(median.sum()) or 1.0
    lines = []
    for i, (step, kernel) in enumerate(zip(executor.plan.steps, executor.kernels, strict=True)):
        work = macs(step, executor.plan)
        cycles = float(least[i]) * 1e-9 * (clock_hz or 0.0)
        lines.append(
            StepTime(
                name=step.name,
                operation=step.operation,
                kernel=kernel,
                ns_min=float(least[i]),
                ns_median=float(median[i]),
                share=float(median[i]) / total,
                macs=work,
                mac_per_cycle=work / cycles if work and cycles else None,
            )
        )
    return lines

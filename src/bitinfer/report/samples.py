"""Timed samples: which of them count, and what they say.

A core that another process shares runs vector code at about half speed while its clock stays the
same.  So every sample is taken between two probes: a chain of dependent additions gives the clock,
a stream of independent vector operations shows whether the core was there for us alone.  Slow
samples of a quiet core count; samples of a busy core do not.

An engine may also lower the probe behind its samples by its own work, by the state in which it
leaves caches and core (docs/performance.md).  That is no neighbour; so a sample is compared with
what the probe reaches around the samples of the same engine (:func:`levels`), if the core was seen
to be quiet meanwhile.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

MIN_CLEAN = 5
"""Fewer clean samples than this make no claim."""

_FULL_VECTOR = 0.93
"""Share of the core's vector throughput that both probes must have seen."""

_STEADY = 0.8
"""The level of an engine's probes is what this share of them does not exceed, so that a neighbour
who comes and goes does not lower it; the peak of a quiet core is found in the same way."""

_OWN_DOING = 0.85
"""Share of the core's vector throughput below which a level is a neighbour's doing: sharing a core
takes about half of it, what an engine does to itself a tenth."""

_SAME_CLOCK = 0.02
"""How far the clocks before and after a sample may be apart."""

_OWN_TIME = 1.02
"""Wall time over CPU time: more means that the process was not running all the time."""

_BUSY = 0.5
"""A series of which a smaller share is clean was measured on a busy machine."""


Level = tuple[float, float]
"""Throughput that the vector probe reaches before and after the samples of an engine."""


@dataclasses.dataclass(frozen=True)
class Sample:
    """One sample; times are for one call.

    Attributes:
        seconds: wall time.
        cpu_seconds: CPU time of all threads of the process.
        ghz: clock before and after; None where it cannot be measured.
        vector: throughput of the vector probe before and after, in any unit.
    """

    seconds: float
    cpu_seconds: float
    ghz: tuple[float, float] | None
    vector: tuple[float, float]

    def is_clean(self, level: Level) -> bool:
        """Tell whether nobody else used the core; ``level`` is what the probes then reach."""
        if any(v < _FULL_VECTOR * own for v, own in zip(self.vector, level, strict=True)):
            return False
        if self.ghz is not None and max(self.ghz) > (1 + _SAME_CLOCK) * min(self.ghz):
            return False
        return self.seconds <= _OWN_TIME * self.cpu_seconds


@dataclasses.dataclass(frozen=True)
class Summary:
    """What a series of samples says.

    Minimum, median and p90 are of the clean samples if there are enough of them
    (``is_claimable``), else of all.  ``mac_per_cycle`` is from the minimum.  ``own_share`` is what
    the engine's own work leaves of the core's vector throughput just before or after its samples.
    """

    count: int
    clean: int
    minimum_s: float
    median_s: float
    p90_s: float
    ghz: float | None
    mac_per_cycle: float | None
    own_share: float

    @property
    def is_claimable(self) -> bool:
        """Whether there are enough clean samples to state a figure."""
        return self.clean >= MIN_CLEAN

    @property
    def is_busy(self) -> bool:
        """Whether the machine was mostly busy with something else."""
        return self.clean < _BUSY * self.count

    @property
    def spread(self) -> float:
        """How much longer than the minimum nine of ten samples took at most, as a share."""
        return self.p90_s / self.minimum_s - 1


def levels(series: Sequence[Sequence[Sample]], peak: float) -> list[Level]:
    """Return what the vector probe reaches around the samples of each engine.

    ``series`` are the samples of engines that were sampled in turn, each at least one; ``peak`` is
    the full throughput of the probe.  A level is the peak unless the engine has MIN_CLEAN samples
    that keep below it, by no more than it can do to itself, while before or after some engine the
    core was seen to be quiet.
    """
    steady = [tuple(_steady([s.vector[side] for s in one]) for side in (0, 1)) for one in series]
    was_quiet = any(max(pair) >= _FULL_VECTOR * peak for pair in steady)

    def level(found: float, count: int) -> float:
        is_own = was_quiet and count >= MIN_CLEAN and found >= _OWN_DOING * peak
        return min(found, peak) if is_own else peak

    return [
        (level(before, len(one)), level(after, len(one)))
        for one, (before, after) in zip(series, steady, strict=True)
    ]


def _steady(values: Sequence[float]) -> float:
    return _quantile(sorted(values), _STEADY)


def summarise(samples: Sequence[Sample], macs: int, peak: float, level: Level) -> Summary:
    """Return what ``samples`` (at least one) of a layer of ``macs`` say.

    ``peak`` is the full throughput of the vector probe, ``level`` that around these samples.
    """
    clean = [s for s in samples if s.is_clean(level)]
    used = sorted(clean if len(clean) >= MIN_CLEAN else samples, key=lambda s: s.seconds)
    fastest, times = used[0], [s.seconds for s in used]
    ghz = None
    if fastest.ghz is not None:
        # Of samples that are not clean the highest clock, so that no figure flatters.
        own = len(clean) >= MIN_CLEAN
        ghz = sum(fastest.ghz) / 2 if own else max(max(s.ghz) for s in samples if s.ghz)
    return Summary(
        count=len(samples),
        clean=len(clean),
        minimum_s=times[0],
        median_s=_quantile(times, 0.5),
        p90_s=_quantile(times, 0.9),
        ghz=ghz,
        mac_per_cycle=None if ghz is None else macs / (times[0] * 1e9 * ghz),
        own_share=min(1.0, *(own / peak for own in level)),
    )


def _quantile(ordered: Sequence[float], share: float) -> float:
    """Interpolate linearly between the two neighbours."""
    position = share * (len(ordered) - 1)
    low = math.floor(position)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (position - low) * (ordered[high] - ordered[low])

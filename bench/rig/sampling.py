"""Samples engines in turn, so that all of them see the same minutes of the same machine."""

from __future__ import annotations

import dataclasses
import gc
import math
import random
import time

from bitinfer.report.samples import MIN_CLEAN, Sample, levels
from rig.engines import Engine
from rig.probes import Probes

SAMPLE_S = 1e-3
"""Fast engines are called until a sample takes about this long: far longer than the timer's
resolution, and short enough to fit between two interruptions."""

SLOW_S = 20e-3
SLOW_EVERY = 4
"""Calls that take longer than SLOW_S are sampled in every SLOW_EVERY-th round only."""

_TRIALS = 5
_TRIALS_S = 0.3
"""Enough calls to tell a slow engine from one that was interrupted; not all if they are long."""


@dataclasses.dataclass(frozen=True)
class Effort:
    """How long to measure one layer.

    Attributes:
        rounds: how often every engine is sampled, at least.
        budget_s: rounds are added for this long at most, until every engine has its clean samples.
    """

    rounds: int = 40
    budget_s: float = 30.0

    @property
    def clean(self) -> int:
        """How many clean samples are enough."""
        return max(MIN_CLEAN, self.rounds // 2)


@dataclasses.dataclass
class Series:
    """The samples of one engine; ``calls`` of them made one sample."""

    engine: Engine
    calls: int
    is_slow: bool
    samples: list[Sample] = dataclasses.field(default_factory=list)


def interleave(
    engines: dict[str, Engine], probes: Probes, peak: float, effort: Effort
) -> dict[str, Series]:
    """Sample every engine once a round, in an order that changes from round to round.

    ``peak`` is the throughput of the vector probe on a quiet core, per cycle if there is a clock.
    """
    series = {name: _calibrate(engine) for name, engine in engines.items()}
    order = list(series)
    shuffle = random.Random(0).shuffle
    started = time.perf_counter()
    number = 0
    was_enabled = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        while order:
            shuffle(order)
            for name in order:
                if not series[name].is_slow or number % SLOW_EVERY == 0:
                    series[name].samples.append(_sample(series[name], probes))
            number += 1
            late = time.perf_counter() - started > effort.budget_s
            if number >= effort.rounds and (late or _is_enough(series, peak, effort)):
                break
            if late and number >= SLOW_EVERY * 2:
                break
    finally:
        if was_enabled:
            gc.enable()
    return series


def _is_enough(series: dict[str, Series], peak: float, effort: Effort) -> bool:
    found = levels([one.samples for one in series.values()], peak)
    return all(
        sum(sample.is_clean(level) for sample in one.samples)
        >= (MIN_CLEAN if one.is_slow else effort.clean)
        for one, level in zip(series.values(), found, strict=True)
    )


def _calibrate(engine: Engine) -> Series:
    best = math.inf
    started = time.perf_counter()
    for _ in range(_TRIALS):
        best = min(best, engine.run_once())
        if time.perf_counter() - started > _TRIALS_S:
            break
    calls = 1 if engine.prepare is not None else max(1, math.ceil(SAMPLE_S / best))
    return Series(engine, calls, best > SLOW_S)


def _sample(series: Series, probes: Probes) -> Sample:
    run, calls = series.engine.run, range(series.calls)
    if not series.is_slow:
        series.engine.run_once()  # brings its data back to the caches that others filled
    if series.engine.prepare is not None:
        series.engine.prepare()
    clock, vector = probes.clock_ghz(), probes.vector_rate()
    cpu = time.process_time()
    start = time.perf_counter()
    for _ in calls:
        run()
    seconds = time.perf_counter() - start
    cpu = time.process_time() - cpu
    vector_after, clock_after = probes.vector_rate(), probes.clock_ghz()
    ghz = None
    if clock is not None and clock_after is not None:
        ghz = (clock, clock_after)
        vector, vector_after = vector / clock, vector_after / clock_after
    return Sample(
        seconds=seconds / series.calls,
        cpu_seconds=cpu / series.calls,
        ghz=ghz,
        vector=(vector, vector_after),
    )

"""Hands recorded samples to pytest-benchmark, with everything that is needed to judge them."""

from __future__ import annotations

import dataclasses
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol

from bitinfer.report.samples import levels, summarise
from rig import compiler, probes
from rig.sampling import Series


class Subject(Protocol):
    """What is measured: a layer or a network."""

    @property
    def name(self) -> str:
        """As in the names of tests."""
        ...

    @property
    def macs(self) -> int:
        """Multiply-accumulates, those with padding included."""
        ...

    @property
    def facts(self) -> dict[str, Any]:
        """What is recorded of it."""
        ...


@dataclasses.dataclass(frozen=True)
class Conditions:
    """What is the same for all rows of a layer.

    Attributes:
        peak: full throughput of the vector probe, per cycle where there is a clock.
        read_rate: bytes a nanosecond that the core reads from beyond its second-level cache.
        cpu: number of the CPU that the process is tied to; None: it is not tied.
    """

    probe: str
    peak: float
    read_rate: float
    cpu: int | None


class Replay:
    """A timer and a function to be timed with it, which together repeat recorded times."""

    def __init__(self) -> None:
        self._now = 0.0
        self._times: Iterator[float] = iter(())

    def load(self, times: list[float]) -> None:
        """Let the next calls of :meth:`play` take these times."""
        self._now, self._times = 0.0, iter(times)

    def timer(self) -> float:
        """Return the time."""
        return self._now

    def play(self) -> None:
        """Let one recorded time pass."""
        self._now = next(self._times, 0.0)

    def rewind(self) -> None:
        """Set the time to 0, where sums of times would be rounded."""
        self._now = 0.0


def replay(benchmark: Any, recorder: Replay, series: Series) -> None:
    """Give the samples to pytest-benchmark, one round each."""
    times = [sample.seconds for sample in series.samples]
    recorder.load(times)
    benchmark.pedantic(recorder.play, setup=recorder.rewind, rounds=len(times))


def describe(
    suite: str, subject: Subject, name: str, series: Series, conditions: Conditions
) -> dict[str, Any]:
    """Return what is recorded beside the times; ``samples`` is in the order of the rounds."""
    samples = series.samples
    (level,) = levels([samples], conditions.peak)
    summary = summarise(samples, subject.macs, conditions.peak, level)
    return {
        "suite": suite,
        "engine": name,
        **subject.facts,
        "mac_per_cycle": _rounded(summary.mac_per_cycle),
        "gmac_per_s": _rounded(subject.macs / summary.minimum_s / 1e9),
        "clock_ghz": _rounded(summary.ghz),
        "threads": 1,
        "calls_per_sample": series.calls,
        "clean_samples": summary.clean,
        "busy": summary.is_busy,
        "cpu": probes.cpu_name(),
        "int8_features": probes.int8_features(),
        "pinned": conditions.cpu is not None,
        "compiler": _compiler(),
        "commit": commit(),
        **series.engine.details,
        "probe": conditions.probe,
        "vector_peak": conditions.peak,
        "read_bytes_per_ns": _rounded(conditions.read_rate),
        "samples": {
            "cpu_seconds": [_rounded(s.cpu_seconds) for s in samples],
            "ghz": [s.ghz and [_rounded(v) for v in s.ghz] for s in samples],
            "vector": [[_rounded(v) for v in s.vector] for s in samples],
        },
    }


def commit() -> str:
    """Return the commit of this checkout, with ``-dirty`` after it where files differ."""
    words = ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    here = Path(__file__).parent
    try:
        result = subprocess.run(words, capture_output=True, text=True, check=False, cwd=here)
    except OSError:
        return "unknown"
    return result.stdout.strip() or "unknown"


def _compiler() -> str:
    """Return what built the extension; without it, the compiler that is here."""
    from bitinfer import backends

    for status in backends.status():
        if status.name == "native" and status.available:
            return status.detail
    return _or_nothing(compiler.version)


def _or_nothing(function: Callable[[], str]) -> str:
    try:
        return function()
    except compiler.NoCompilerError:
        return ""


def _rounded(value: float | None) -> float | None:
    """Keep six digits: more are noise."""
    return None if value is None else float(f"{value:.6g}")

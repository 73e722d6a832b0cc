"""Builds and verifies engines of a layer or network, samples them in turn, hands samples over."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest

from rig import probes, sampling
from rig.engines import Engine, UnavailableError
from rig.probes import Probes
from rig.recording import Conditions, Replay, Subject, describe, replay
from rig.sampling import Effort, Series

RECORDER = Replay()
"""What pytest-benchmark is given as timer."""

_OURS = "bitinfer"
"""Engines whose names begin so must be right; others are skipped where they are not."""


@dataclasses.dataclass
class Measured:
    """What measuring gave: samples, or why an engine has none."""

    subject: Subject
    conditions: Conditions
    series: dict[str, Series]
    missing: dict[str, Exception]


def measure(
    subject: Subject,
    build: Callable[[str], Engine],
    names: list[str],
    core: Probes,
    effort: Effort,
) -> Measured:
    """Build, verify and sample engines; ``build`` makes a verified one from its name."""
    built: dict[str, Engine] = {}
    missing: dict[str, Exception] = {}
    for name in names:
        try:
            built[name] = build(name)
        except Exception as error:  # one engine's fault must not take the others' figures
            missing[name] = error
    cpu = probes.pin_to_quietest(core)
    peak = probes.peak(core)
    conditions = Conditions(core.kind, peak, core.read_rate(), cpu)
    return Measured(subject, conditions, sampling.interleave(built, core, peak, effort), missing)


def record(suite: str, measured: Measured, engine: str, benchmark: Any) -> None:
    """Hand the samples of one engine to pytest-benchmark, or say why there are none."""
    error = measured.missing.get(engine)
    if isinstance(error, UnavailableError):
        pytest.skip(f"{engine}: {error}")
    if error is not None:
        if engine.startswith(_OURS):
            raise error
        reason = f"{type(error).__name__}: {error}".strip().splitlines()[-1]
        pytest.skip(f"{engine} fails at {measured.subject.name}: {reason}")
    series = measured.series[engine]
    benchmark.group = measured.subject.name
    benchmark.extra_info.update(
        describe(suite, measured.subject, engine, series, measured.conditions)
    )
    replay(benchmark, RECORDER, series)

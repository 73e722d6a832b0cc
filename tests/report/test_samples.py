"""Which samples count, and what they say."""

from __future__ import annotations

import dataclasses

import pytest

from bitinfer.report.samples import MIN_CLEAN, Sample, Summary, levels
from bitinfer.report.samples import summarise as summarise_at

PEAK = 4.0
CLEAN = Sample(seconds=1e-3, cpu_seconds=1e-3, ghz=(3.2, 3.2), vector=(3.9, 4.0))


def test_sample_of_a_quiet_core_is_clean() -> None:
    assert CLEAN.is_clean((PEAK, PEAK))


@pytest.mark.parametrize(
    "change",
    [
        {"vector": (2.0, 4.0)},  # somebody shared the core before
        {"vector": (4.0, 2.0)},  # or after
        {"ghz": (3.2, 3.0)},  # the clock changed on the way
        {"ghz": (3.0, 3.2)},
        {"cpu_seconds": 0.9e-3},  # the process did not run all the time
    ],
)
def test_sample_of_a_busy_core_is_not(change: dict[str, object]) -> None:
    assert not dataclasses.replace(CLEAN, **change).is_clean((PEAK, PEAK))


@pytest.mark.parametrize(
    "change",
    [
        {"vector": (3.75, 3.75)},
        {"ghz": (3.2, 3.25)},
        {"ghz": None},
        {"cpu_seconds": 0.985e-3},
        {"cpu_seconds": 2e-3},
    ],
)
def test_small_differences_are_allowed(change: dict[str, object]) -> None:
    assert dataclasses.replace(CLEAN, **change).is_clean((PEAK, PEAK))


def summarise(samples: list[Sample], macs: int, peak: float) -> Summary:
    """Summarise the samples of an engine that was sampled alone."""
    (level,) = levels([samples], peak)
    return summarise_at(samples, macs, peak, level)


def of(*ms: float, **changes: object) -> list[Sample]:
    return [
        dataclasses.replace(CLEAN, seconds=v * 1e-3, cpu_seconds=v * 1e-3, **changes) for v in ms
    ]


def test_summary_of_clean_samples() -> None:
    summary = summarise(of(5, 1, 4, 2, 3), macs=9_600_000, peak=PEAK)
    assert (summary.count, summary.clean) == (5, 5)
    assert summary.is_claimable
    assert not summary.is_busy
    assert (summary.minimum_s, summary.median_s) == (1e-3, 3e-3)
    assert summary.p90_s == pytest.approx(4.6e-3)
    assert summary.spread == pytest.approx(3.6)
    assert summary.ghz == pytest.approx(3.2)
    assert summary.mac_per_cycle == pytest.approx(3.0)


def test_median_of_an_even_number_lies_between() -> None:
    assert summarise(of(1, 2, 3, 4, 5, 6), 1, PEAK).median_s == pytest.approx(3.5e-3)


def test_busy_samples_do_not_count_however_fast_they_are() -> None:
    samples = of(2, 2, 2, 2, 2) + of(1, vector=(4.0, 2.0))
    summary = summarise(samples, 1, PEAK)
    assert (summary.count, summary.clean, summary.minimum_s) == (6, 5, 2e-3)


def test_too_few_clean_samples_make_no_claim() -> None:
    samples = of(*[2] * (MIN_CLEAN - 1)) + of(*[1] * 20, vector=(4.0, 2.0))
    summary = summarise(samples, 1, PEAK)
    assert not summary.is_claimable
    assert summary.is_busy
    assert summary.minimum_s == 1e-3  # of all: it is only shown, not claimed


def test_without_a_claim_the_clock_does_not_flatter() -> None:
    samples = of(1, ghz=(1.0, 2.0)) + of(2, ghz=(3.2, 3.2), vector=(1.0, 1.0))
    assert summarise(samples, 1, PEAK).ghz == pytest.approx(3.2)


def test_no_clock_no_cycles() -> None:
    summary = summarise(of(1, 1, 1, 1, 1, ghz=None), 1, PEAK)
    assert summary.is_claimable
    assert (summary.ghz, summary.mac_per_cycle) == (None, None)


def test_one_sample_is_enough_to_show() -> None:
    summary = summarise(of(2), 1, PEAK)
    assert summary.minimum_s == summary.median_s == summary.p90_s == 2e-3


# What an engine does to itself


def ones(vector: tuple[float, float], count: int = 20) -> list[Sample]:
    return [dataclasses.replace(CLEAN, vector=vector)] * count


QUIET = ones((4.0, 4.0))


def test_an_engine_that_lowers_the_probe_behind_itself_is_judged_by_that() -> None:
    own = ones((4.0, 3.62))
    assert levels([QUIET, own], PEAK) == [(4.0, 4.0), (4.0, 3.62)]
    assert levels([own], PEAK) == [(4.0, 3.62)]  # the probe before it saw a quiet core
    summary = summarise_at(own, 1, PEAK, (4.0, 3.62))
    assert (summary.clean, summary.own_share) == (20, pytest.approx(0.905))
    disturbed = dataclasses.replace(CLEAN, vector=(4.0, 3.3))
    assert not disturbed.is_clean((4.0, 3.62))


def test_a_neighbour_who_is_there_all_the_time_is_no_doing_of_the_engine() -> None:
    for shared in (2.0, 3.0, 3.39):
        assert levels([QUIET, ones((4.0, shared))], PEAK)[1] == (4.0, 4.0)
    both = ones((3.62, 3.62))
    assert levels([both, both], PEAK) == [(4.0, 4.0)] * 2  # nobody saw a quiet core


def test_a_neighbour_who_comes_and_goes_does_not_change_the_level() -> None:
    mixed = ones((4.0, 3.62), 3) + ones((4.0, 2.0), 17)
    assert levels([QUIET, mixed], PEAK)[1] == (4.0, 4.0)  # too rarely alone to tell
    mixed = ones((4.0, 3.62), 16) + ones((2.0, 2.0), 14)
    (level,) = levels([mixed], PEAK)
    assert level == (4.0, 3.62)
    assert summarise_at(mixed, 1, PEAK, level).clean == 16


def test_few_samples_have_no_level_of_their_own() -> None:
    assert levels([QUIET, ones((4.0, 3.62), MIN_CLEAN - 1)], PEAK)[1] == (4.0, 4.0)


def test_a_probe_above_the_peak_is_the_peak() -> None:
    assert levels([ones((4.2, 4.1))], PEAK) == [(4.0, 4.0)]

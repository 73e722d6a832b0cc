"""The benchmarks' own machinery: nothing wrong is timed, nothing recorded is changed."""

from __future__ import annotations

import itertools
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rig import engines, measuring, sampling
from rig.engines import Engine, UnavailableError
from rig.layers import FIGURE4_CHANNELS, FIGURE4_KERNELS, LAYERS, Layer, Problem
from rig.recording import Conditions, describe, replay
from rig.sampling import Effort, Series

from bitinfer.report import records

TINY = Layer("tiny", 3, 6, 4, 3, 1, 2)


class QuietCore:
    """Probes of a core that nobody shares."""

    kind = "fake"

    def clock_ghz(self) -> float | None:
        return 3.0

    def vector_rate(self) -> float:
        return 12.0

    def read_rate(self) -> float:
        return 60.0


def engine(run: Any = lambda: None, result: Any = (1.0, 2.0), **changes: Any) -> Engine:
    settings: dict[str, Any] = {
        "run": run,
        "output": lambda: np.array(result),
        "expected": np.array([1.0, 2.0]),
        "tolerance": 0.0,
        "details": {},
    }
    return Engine(**(settings | changes))


@pytest.mark.parametrize("layer", [TINY, Layer("even", 2, 5, 3, 4, 1), Layer("d", 7, 1, 5, 0)])
def test_right_answers_are_right(layer: Layer) -> None:
    problem = Problem(layer)
    padded = np.pad(problem.x, ((layer.pad,) * 2, (layer.pad,) * 2, (0, 0)))
    signs = np.pad(np.where(problem.x < 0, -1, 1), ((layer.pad,) * 2, (layer.pad,) * 2, (0, 0)))
    k = layer.window
    for y, x, o in itertools.product(*map(range, (*[layer.out_size] * 2, layer.outputs))):
        top, left = y * layer.stride, x * layer.stride
        taps = list(itertools.product(range(k), range(k), range(layer.channels)))
        pairs = [((top + i, left + j, c), (o, i, j, c)) for i, j, c in taps]
        dot = sum(int(signs[at]) * (-1 if problem.weight[w] < 0 else 1) for at, w in pairs)
        assert problem.dot[y, x, o] == dot
        assert problem.expected_binary[y, x, o] == dot * problem.alpha[o] + problem.bias[o]
        below = dot < problem.threshold[o]
        assert problem.expected_bits[y, x, o] == (not below if problem.flip[o] else below)
        real = sum(float(padded[at]) * float(problem.weight[w]) for at, w in pairs)
        assert problem.expected_float[y, x, o] == pytest.approx(real + problem.bias[o])


def test_macs() -> None:
    assert {layer.name: layer.macs for layer in LAYERS} == {
        "R1": 115_605_504,
        "R2": 115_605_504,
        "R3": 115_605_504,
        "R4": 115_605_504,
        "P1": 12_845_056,
        "A2": 447_897_600,
        "A3": 149_520_384,
        "F1": 16_777_216,
        "N1": 31_457_280,
        "N2": 117_964_800,
        "S2": 57_802_752,
        "D1": 36_000_000,
    }
    assert all(layer.out_size == 14 for layer in (*FIGURE4_CHANNELS, *FIGURE4_KERNELS))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"result": [1.0, 2.5]}, "1 of 2 results are wrong"),
        ({"result": [1.0, np.nan]}, "1 of 2 results are wrong"),
        ({"result": [1.0]}, "shape"),
        ({"result": [1.0, 2.5], "tolerance": 0.5}, "error of 1.0000"),
        ({"result": [1.0, np.nan], "tolerance": 0.5}, "error of nan"),
    ],
)
def test_wrong_results_are_not_timed(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(AssertionError, match=words):
        engine(**changes).verify()


def test_results_within_tolerance_pass() -> None:
    engine(result=[1.0, 2.1], tolerance=0.5).verify()


def test_the_fastest_form_is_chosen_and_named() -> None:
    def refuse() -> Engine:
        raise RuntimeError("not supported")

    forms = {
        "slow": lambda: engine(lambda: time.sleep(0.002)),
        "refused": refuse,
        "fast": engine,
    }
    assert engines.fastest(forms).details["form"] == "fast"
    with pytest.raises(RuntimeError, match="not supported"):
        engines.fastest({"refused": refuse})


def test_a_wrong_form_is_not_left_out_silently() -> None:
    with pytest.raises(AssertionError):
        engines.fastest({"right": engine, "wrong": lambda: engine(result=[0.0, 0.0])})


def test_engines_are_sampled_in_turn() -> None:
    calls: list[str] = []
    built = {
        name: engine(lambda name=name: calls.append(name), prepare=lambda: None) for name in "abc"
    }
    series = sampling.interleave(built, QuietCore(), 4.0, Effort(rounds=6, budget_s=5))
    assert [len(one.samples) for one in series.values()] == [6, 6, 6]
    # Five calls each to calibrate; then, each time, one to warm up and one that counts.
    rounds = [tuple(dict.fromkeys(calls[i : i + 6])) for i in range(15, len(calls), 6)]
    assert all(sorted(part) == ["a", "b", "c"] for part in rounds)
    assert len(set(rounds)) > 1  # the order changes, so that nobody always follows the same


def test_input_is_prepared_before_every_run_that_spoils_it() -> None:
    events: list[str] = []
    spoiler = engine(lambda: events.append("run"), prepare=lambda: events.append("prepare"))
    series = sampling.interleave({"a": spoiler}, QuietCore(), 4.0, Effort(rounds=3, budget_s=5))
    assert series["a"].calls == 1
    assert events == ["prepare", "run"] * (len(events) // 2)


def test_fast_engines_are_called_often_and_slow_ones_sampled_seldom() -> None:
    built = {"fast": engine(), "slow": engine(lambda: time.sleep(1.2 * sampling.SLOW_S))}
    series = sampling.interleave(built, QuietCore(), 4.0, Effort(rounds=8, budget_s=0.5))
    assert series["fast"].calls > 100
    assert series["slow"].calls == 1
    assert len(series["fast"].samples) >= 8
    assert len(series["slow"].samples) == -(-len(series["fast"].samples) // sampling.SLOW_EVERY)


def test_an_engine_that_was_interrupted_once_is_not_slow() -> None:
    pauses = iter([1.2 * sampling.SLOW_S])
    built = {"a": engine(lambda: time.sleep(next(pauses, 0.0)))}
    series = sampling.interleave(built, QuietCore(), 4.0, Effort(rounds=2, budget_s=0.1))
    assert not series["a"].is_slow


def test_the_budget_ends_a_run_that_never_gets_clean() -> None:
    start = time.perf_counter()
    series = sampling.interleave({"a": engine()}, QuietCore(), 1e9, Effort(rounds=2, budget_s=0.2))
    assert time.perf_counter() - start < 2
    assert len(series["a"].samples) > 2


def samples_of(times: list[float]) -> list[sampling.Sample]:
    return [sampling.Sample(t, t, (3.0, 3.0), (4.0, 4.0)) for t in times]


@pytest.mark.benchmark(timer=measuring.RECORDER.timer)
def test_pytest_benchmark_gets_the_very_times(benchmark: Any) -> None:
    if benchmark.disabled:
        pytest.skip("benchmarks are disabled")
    times = [0.1, 1e-7, 3.3333333333333335e-05, 12.5]
    replay(benchmark, measuring.RECORDER, Series(engine(), 1, False, samples_of(times)))
    assert benchmark.stats.stats.data == times


def test_what_is_recorded_can_be_reported(tmp_path: Path) -> None:
    times = [2e-3, 1e-3, 1e-3, 1e-3, 1e-3]
    series = Series(engine(details={"kernel": "k"}), 3, False, samples_of(times))
    conditions = Conditions("fake", 4.0, 60.0, cpu=0)
    info = describe("layers", TINY, "bitinfer", series, conditions)
    assert info["gmac_per_s"] == pytest.approx(TINY.macs / 1e6)
    assert info["mac_per_cycle"] == pytest.approx(TINY.macs / 3e6)
    assert {"engine", "layer", "threads", "cpu", "compiler", "commit", "busy"} <= set(info)
    path = tmp_path / "x.json"
    path.write_text(json.dumps({"benchmarks": [{"extra_info": info, "stats": {"data": times}}]}))
    row = records.read(path).rows["layers"]["tiny"]["bitinfer"]
    assert row.summary.mac_per_cycle == pytest.approx(info["mac_per_cycle"])
    assert (row.info.kernel, row.summary.clean) == ("k", 5)


def test_one_engines_fault_does_not_take_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    def build(name: str, problem: Problem) -> Engine:
        if name == "absent":
            raise UnavailableError("not installed")
        assert name != "wrong", "3 of 4 results are wrong"
        return engine()

    monkeypatch.setattr(engines, "build", build)
    monkeypatch.setattr(measuring.probes, "pin_to_quietest", lambda core: None)
    names = ["absent", "wrong", "good"]
    measured = measuring.measure(
        TINY, engines.builder(TINY), names, QuietCore(), Effort(rounds=2, budget_s=1)
    )
    assert list(measured.series) == ["good"]
    for name in ("absent", "wrong"):
        with pytest.raises(pytest.skip.Exception, match=name):
            measuring.record("layers", measured, name, None)
    measured.missing["bitinfer"] = AssertionError("ours is wrong")
    with pytest.raises(AssertionError, match="ours is wrong"):
        measuring.record("layers", measured, "bitinfer", None)

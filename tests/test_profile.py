"""Session.run(out=) and Session.profile: written in place, allocated nothing, timed by step."""

from __future__ import annotations

import tracemalloc
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import hostile
import oracle
from bitinfer import modelfile, profiling
from bitinfer.backends import clock_hz, kernels, select
from bitinfer.errors import ShapeError
from bitinfer.graph import GraphBuilder, check, operations
from bitinfer.model import Model
from bitinfer.plan import lower
from bitinfer.plan.cost import macs, place_buffers
from bitinfer.profiling import StepTime
from bitinfer.session import Session
from graph_examples import every_node


@pytest.fixture
def several() -> Session:
    """A session of (9, 8, 3) with three outputs."""
    return Session(modelfile.from_bytes(hostile.example()))


@pytest.fixture
def vectors(rng: np.random.Generator) -> Model:
    """A network of (70,) with one output (70,)."""
    b = GraphBuilder("vectors", (70,))
    return Model(*b.build(b.bdense(b.sign(b.input), rng.standard_normal((70, 70)))))


# --- out= ----------------------------------------------------------------------------------------


def test_a_result_is_written_where_the_caller_wants_it(
    vectors: Model, backend_name: str, rng: np.random.Generator
) -> None:
    session = Session(vectors, backend_name)
    for x in (rng.standard_normal(70), rng.standard_normal((3, 70))):
        out = np.full(x.shape, np.nan, np.float32)
        assert session.run(x, out=out) is out
        assert np.array_equal(out, session.run(x))
        part = np.full((2, *x.shape), np.nan, np.float32)
        session.run(x, part[1])
        assert np.array_equal(part[1], out)
        assert np.isnan(part[0]).all()


def test_several_results_are_written_where_the_caller_wants_them(
    several: Session, rng: np.random.Generator
) -> None:
    for head in ((), (2,)):
        x = rng.standard_normal((*head, 9, 8, 3))
        wanted = several.run(x)
        out = {name: np.empty_like(value) for name, value in reversed(wanted.items())}
        result = several.run(x, out=out)
        assert list(result) == list(wanted)
        for name, value in wanted.items():
            assert result[name] is out[name]
            assert np.array_equal(out[name], value)


def test_an_output_over_the_input_is_right(vectors: Model, backend_name: str) -> None:
    session = Session(vectors, backend_name)
    x = np.linspace(-1, 1, 140, dtype=np.float32).reshape(2, 70)
    wanted = session.run(x)
    session.run(x, out=x)
    assert np.array_equal(x, wanted)


@pytest.mark.parametrize(
    "out",
    [
        np.empty(70),
        np.empty(71, np.float32),
        np.empty((1, 70), np.float32),
        np.empty(140, np.float32)[::2],
        np.broadcast_to(np.float32(0), (70,)),
        [0.0] * 70,
        {},
    ],
    ids=["float64", "longer", "batch", "strided", "read-only", "list", "dict"],
)
def test_an_output_that_does_not_fit_is_refused(vectors: Model, out: Any) -> None:
    with pytest.raises(ShapeError, match="out for bdense_0 is"):
        Session(vectors).run(np.zeros(70), out=out)


def test_outputs_that_do_not_fit_are_refused(several: Session) -> None:
    x = np.zeros((9, 8, 3))
    good = several.run(x)
    first = next(iter(good))
    for bad in (np.zeros(10, np.float32), {}, {first: good[first]}, {**good, "more": x}):
        with pytest.raises(ShapeError, match="out is no dict of arrays named"):
            several.run(x, out=bad)
    with pytest.raises(ShapeError, match=f"out for {first} is"):
        several.run(x, out={**good, first: np.zeros(10)})


@pytest.mark.parametrize("shape", [(70,), (5, 70)])
def test_running_into_an_array_allocates_nothing_that_stays(
    vectors: Model, shape: tuple[int, ...]
) -> None:
    session = Session(vectors)
    if not session.backend.startswith("native"):
        pytest.skip("NumPy allocates")
    x, out = np.ones(shape, np.float32), np.empty(shape, np.float32)
    session.run(x, out=out)
    tracemalloc.start()
    try:
        for _ in range(10):
            session.run(x, out=out)
        before, _ = tracemalloc.get_traced_memory()
        tracemalloc.reset_peak()
        for _ in range(1000):
            session.run(x, out=out)
        after, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert after - before < 1000
    assert peak - before < 2000  # a few objects of Python; less than the 5 samples


# --- a bound call --------------------------------------------------------------------------------


def test_a_bound_call_reads_and_writes_its_arrays(
    backend_name: str, rng: np.random.Generator
) -> None:
    plan = lower(check(*every_node()))
    executor = select(backend_name).bind(plan)

    def room() -> list[np.ndarray]:
        buffers = [plan.buffers[b] for b in plan.outputs]
        return [np.zeros((2, *b.stored_shape), b.dtype) for b in buffers]

    x, bound, wanted = np.empty((2, 9, 8, 3), np.float32), room(), room()
    call = executor.bind_call(x, bound)
    for _ in range(3):
        x[...] = rng.standard_normal(x.shape)
        executor.run(x, wanted)
        call()
        assert all(map(np.array_equal, bound, wanted))


def test_a_bound_call_keeps_what_it_needs(vectors: Model, rng: np.random.Generator) -> None:
    plan = lower(check(vectors.graph, vectors.tensors))
    x = rng.standard_normal((1, 70)).astype(np.float32)
    outputs = [np.zeros((1, 70), np.float32)]
    select().bind(plan).run(x, outputs)
    rooms = [np.zeros((1, 70), np.float32) for _ in range(20)]
    calls = [(room, select().bind(plan).bind_call(x.copy(), [room])) for room in rooms]
    for mine, call in calls:
        call()
        assert np.array_equal(mine, outputs[0])


# --- profile -------------------------------------------------------------------------------------


def test_a_profile_has_a_line_for_each_step(backend_name: str) -> None:
    model = modelfile.from_bytes(hostile.example())
    session = Session(model, backend_name, threads=2, skip_passes=["all"])
    served = kernels(backend_name)
    for x in (np.ones((9, 8, 3)), np.ones((2, 9, 8, 3), np.uint8)):
        lines = session.profile(x, rounds=3)
        (executor,) = (e for d, e in session._executors.items() if (d == np.uint8) == (x.ndim == 4))
        assert [line.name for line in lines] == [step.name for step in executor.plan.steps]
        assert {line.name for line in lines} >= {n.name for n in model.graph.nodes[:4]}
        assert sum(line.share for line in lines) == pytest.approx(1)
        for line in lines:
            assert isinstance(line, StepTime)
            assert 0 < line.ns_min <= line.ns_median
            assert line.kernel in (*served[line.operation], "numpy")
            is_product = line.operation in {"bconv2d", "bdense", "conv2d", "dense"}
            assert (line.macs > 0) == is_product
            if clock_hz() is not None:
                assert (line.mac_per_cycle is not None) == is_product


def test_a_profile_sums_up_to_the_time_of_a_call(rng: np.random.Generator) -> None:
    b = GraphBuilder("g", (40, 40, 64))
    x = b.input
    for _ in range(3):
        x = b.bconv2d(b.sign(x), rng.standard_normal((64, 3, 3, 64)), padding=1)
    session = Session(Model(*b.build(x)))
    lines = session.profile(np.ones((40, 40, 64)), rounds=5)
    convolutions = [line for line in lines if line.operation == "bconv2d"]
    assert sum(line.share for line in convolutions) > 0.5
    for line in convolutions:
        assert line.macs == 40 * 40 * 64 * 9 * 64
        if line.mac_per_cycle is not None:
            cycles = line.macs / line.mac_per_cycle
            assert line.ns_min * 0.3 < cycles < line.ns_min * 10  # between 0.3 and 10 GHz


def test_what_takes_long_outside_convolutions_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    plan = lower(check(*every_node()))
    bound: Any = SimpleNamespace(plan=plan, kernels=("some kernel",) * len(plan.steps))
    ns = np.full((2, len(plan.steps)), 1000.0)
    assert 1 / len(plan.steps) < profiling.LARGE_SHARE
    assert not any(line.reason for line in profiling.summarize(bound, ns, None))
    monkeypatch.setattr(profiling, "LARGE_SHARE", 0.5 / len(plan.steps))
    lines = profiling.summarize(bound, ns, None)
    for line in lines:
        assert line.reason is not None or "conv2d" in line.operation
        assert line.reason is None or line.reason.endswith(" GB/s a sample")
    assert any("conv2d" in line.operation for line in lines)
    reasons = {line.operation: line.reason for line in lines if line.reason is not None}
    assert reasons["max_pool2d"].startswith("a window of 2x2 for each of ")
    assert reasons["softmax"].startswith("an exponential for each of ")
    assert reasons["affine"].startswith("little arithmetic for each of ")


def test_a_slow_convolution_says_how_it_differs_from_a_fast_one(rng: np.random.Generator) -> None:
    b = GraphBuilder("g", (20, 20, 64))
    x = b.bconv2d(b.sign(b.input), rng.standard_normal((64, 3, 3, 64)), padding=1, name="fast")
    x = b.bconv2d(b.sign(x), rng.standard_normal((8, 3, 3, 64)), padding=1, stride=2, name="slow")
    plan = lower(check(*b.build(x)))
    bound: Any = SimpleNamespace(plan=plan, kernels=("some kernel",) * len(plan.steps))
    works = {step.name: macs(step, plan) for step in plan.steps}

    def reason(mac_per_ns: float) -> str | None:
        ns = [works[s.name] / (100 if s.name == "fast" else mac_per_ns) or 1 for s in plan.steps]
        times = np.array([ns], np.float64)
        lines = {line.name: line for line in profiling.summarize(bound, times, 1e9)}
        assert lines["fast"].reason is None
        assert lines["slow"].share > profiling.LARGE_SHARE
        return lines["slow"].reason

    assert reason(51) is None
    assert reason(20) == (
        "20 MAC/cycle where fast has 100 with this kernel: "
        "100 pixels instead of 400, 8 outputs instead of 64"
    )


def test_a_dense_layer_says_how_fast_its_weights_are_read(rng: np.random.Generator) -> None:
    b = GraphBuilder("dense", (1000,))
    session = Session(Model(*b.build(b.dense(b.input, rng.standard_normal((500, 1000))))))
    (line,) = session.profile(np.ones(1000, np.float32), rounds=3)
    reason = str(line.reason)
    assert reason.startswith("each weight serves one product of a sample, 2.0 MB of them: ")
    rate = float(reason.split()[-4])
    assert rate == pytest.approx((500 * 1000 + 1500) * 4 / line.ns_min, abs=0.06)


def test_a_profile_wants_samples_and_rounds(vectors: Model) -> None:
    session = Session(vectors)
    for x, rounds in ((np.zeros(70), 0), (np.zeros((0, 70)), 1), (np.zeros(71), 1)):
        with pytest.raises(ShapeError):
            session.profile(x, rounds=rounds)


def test_multiplications_are_those_of_the_nodes() -> None:
    graph, tensors = every_node()
    model, plan = Model(graph, tensors), lower(check(graph, tensors))
    nodes = {node.name: node for node in graph.nodes}
    counted = 0
    for step in plan.steps:
        wanted = operations(nodes[step.name], model.checked.values, model.checked.tensors)
        is_product = step.operation in {"bconv2d", "bdense", "conv2d", "dense"}
        assert macs(step, plan) == (wanted if is_product else 0)
        counted += is_product
    assert counted >= 4


def test_inner_buffers_fill_an_arena_that_is_no_larger_than_they_are() -> None:
    plan = lower(check(*every_node()))
    places, total = place_buffers(plan)
    assert set(places) == set(plan.lifetimes())
    sizes = [plan.buffers[b].size_bytes for b in places]
    assert max(sizes) <= total <= sum(-(-size // 64) * 64 for size in sizes)
    assert max(places[b] + plan.buffers[b].size_bytes for b in places) <= total


def test_the_clock_is_that_of_a_cpu() -> None:
    hertz = clock_hz()
    if hertz is None:
        pytest.skip("no native backend")
    assert 1e8 < hertz < 1e10


def test_warming_up_leaves_the_first_call_nothing_to_bind(several: Session) -> None:
    several.warmup()
    several.warmup(pixels=True)
    assert len(several._executors) == 2
    x = np.ones((9, 8, 3), np.float32)
    wanted = several.run(x)
    assert len(several._executors) == 2
    p = several.model.preprocessing
    assert p is not None
    pixels = np.arange(216, dtype=np.uint8).reshape(9, 8, 3)
    floats = oracle.normalize(pixels, p.scale, p.mean, p.std).astype(np.float32)
    assert all(map(np.array_equal, several.run(pixels).values(), several.run(floats).values()))
    assert all(map(np.array_equal, several.run(x).values(), wanted.values()))

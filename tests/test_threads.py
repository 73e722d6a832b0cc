"""Threads: how many are used, that they change no bit, and what happens under contention."""

from __future__ import annotations

import concurrent.futures
import gc
import os
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bitinfer.backends import resolve_threads, select, usable_cpus
from bitinfer.bits import pack
from bitinfer.errors import BackendError
from bitinfer.graph import GraphBuilder, check
from bitinfer.model import Model
from bitinfer.plan import lower
from bitinfer.session import Session
from graph_examples import every_node

THREADS = (1, 2, 3, 5)


def large_model(rng: np.random.Generator) -> Model:
    """Return a network whose steps are long enough to be shared, in odd numbers of rows."""
    b = GraphBuilder("large", (41, 23, 70))
    x = b.bconv2d(b.sign(b.input), rng.standard_normal((90, 3, 3, 70)), padding=1, alpha=None)
    x = b.max_pool2d(b.relu(x), 3, stride=2)
    x = b.sign(b.batch_norm(x, np.ones(90), np.ones(90)))
    x = b.bconv2d(x, rng.standard_normal((130, 3, 3, 90)), padding=1)
    x = b.flatten(b.avg_pool2d(x, 4), "channels_first")
    size = 130 * 5 * 2
    return Model(*b.build(b.bdense(b.sign(x), rng.standard_normal((700, size)))))


def set_parts(session: Session, parts: int) -> None:
    """Cut every step into so many parts, whatever it takes."""
    for executor in session._executors.values():
        for struct in executor._steps:
            struct.parts = min(parts, struct.rows)


def dense_model(rng: np.random.Generator, *, with_map: bool, weight: type) -> Model:
    """Return a network that ends in dense layers of every kind, of odd sizes."""
    b = GraphBuilder("dense", (5, 4, 30) if with_map else (200,))
    x = b.input
    if with_map:
        x = b.conv2d(x, rng.standard_normal((40, 3, 3, 30)), padding=1)
        x = b.flatten(x, "channels_last")
    size = 800 if with_map else 200
    x = b.bdense(b.sign(x), rng.standard_normal((333, size)), alpha=rng.standard_normal(333))
    x = b.relu(b.batch_norm(x, np.zeros(333), np.ones(333)))
    w = rng.standard_normal((203, 333)) * 30
    w = pack(w) if weight is np.uint64 else w.astype(weight)
    x = b.prelu(b.dense(x, w, rng.standard_normal(203)), rng.standard_normal(203))
    y = b.bdense(b.sign(x), rng.standard_normal((65, 203)))
    return Model(*b.build(b.dense(y, rng.standard_normal((10, 65))), x))


@pytest.mark.parametrize("weight", [np.float32, np.int8, np.int16, np.uint64])
@pytest.mark.parametrize("with_map", [False, True])
@pytest.mark.parametrize("threads", [1, 3])
def test_a_batch_gives_every_sample_the_bits_that_it_gets_alone(
    backend_name: str, with_map: bool, weight: type, threads: int, rng: np.random.Generator
) -> None:
    """Dense layers of a batch read their weights once for several samples."""
    model = dense_model(rng, with_map=with_map, weight=weight)
    session = Session(model, backend_name, threads)
    batch = rng.standard_normal((37, *model.graph.input.shape)).astype(np.float32)
    alone = [session.run(x) for x in batch]
    for size in (37, 16, 2, 37, 3, 1):
        together = session.run(batch[:size])
        for name, values in together.items():
            assert np.array_equal(values, [one[name] for one in alone[:size]])


# --- how many ------------------------------------------------------------------------------------


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


@pytest.fixture
def eight_cpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)), raising=False)


VERSION_2 = "0::/a/b\n"
VERSION_1 = "7:blkio:/\n4:cpu,cpuacct:/a/b\n3:cpuset:/\n"


@pytest.mark.parametrize(
    ("cgroup", "files", "wanted"),
    [
        (None, {}, 8),
        ("", {}, 8),
        (VERSION_2, {}, 8),
        (VERSION_2, {"a/b/cpu.max": "max 100000\n"}, 8),
        (VERSION_2, {"a/b/cpu.max": "200000 100000\n"}, 2),
        (VERSION_2, {"a/b/cpu.max": "250000 100000\n"}, 2),
        (VERSION_2, {"a/b/cpu.max": "50000 100000\n"}, 1),
        (VERSION_2, {"a/b/cpu.max": "900000 100000\n"}, 8),
        (VERSION_2, {"a/b/cpu.max": "400000 100000", "a/cpu.max": "300000 100000"}, 3),
        (VERSION_2, {"cpu.max": "200000 100000\n"}, 2),
        (VERSION_2, {"unified/a/b/cpu.max": "200000 100000\n"}, 2),
        (VERSION_2, {"a/b/cpu.max": "nonsense\n"}, 8),
        (VERSION_2, {"a/b/cpu.max": "1 0\n"}, 8),
        ("0::/../../x\n", {"x/cpu.max": "200000 100000\n"}, 2),
        (VERSION_1, {}, 8),
        (
            VERSION_1,
            {
                "cpu,cpuacct/a/b/cpu.cfs_quota_us": "300000\n",
                "cpu,cpuacct/a/b/cpu.cfs_period_us": "100000\n",
            },
            3,
        ),
        (
            VERSION_1,
            {"cpu/a/cpu.cfs_quota_us": "100000\n", "cpu/a/cpu.cfs_period_us": "50000\n"},
            2,
        ),
        (
            VERSION_1,
            {"cpu/a/b/cpu.cfs_quota_us": "-1\n", "cpu/a/b/cpu.cfs_period_us": "100000\n"},
            8,
        ),
        (VERSION_1 + VERSION_2, {"a/b/cpu.max": "500000 100000\n"}, 5),
    ],
)
@pytest.mark.usefixtures("eight_cpus")
def test_as_many_threads_as_affinity_and_quota_allow(
    tmp_path: Path, cgroup: str | None, files: dict[str, str], wanted: int
) -> None:
    if cgroup is not None:
        write(tmp_path / "proc" / "self" / "cgroup", cgroup)
    for name, text in files.items():
        write(tmp_path / "sys" / "fs" / "cgroup" / name, text)
    assert usable_cpus(tmp_path) == wanted


def test_no_more_threads_than_this_process_may_use() -> None:
    assert 1 <= usable_cpus() <= (os.cpu_count() or 1)
    assert resolve_threads(0) == usable_cpus()
    assert resolve_threads(3) == 3


@pytest.mark.parametrize("threads", [-1, 257, 1.0, "2", None])
def test_other_numbers_of_threads_are_refused(threads: Any, rng: np.random.Generator) -> None:
    with pytest.raises(BackendError, match="wanted an integer within 0 to 256"):
        Session(large_model(rng), threads=threads)


# --- the same bits -------------------------------------------------------------------------------


@pytest.mark.parametrize("samples", [None, 1, 2, 7])
def test_threads_change_no_bit(
    native_name: str, rng: np.random.Generator, samples: int | None
) -> None:
    model = large_model(rng)
    head = () if samples is None else (samples,)
    x = rng.standard_normal((*head, 41, 23, 70)).astype(np.float32)
    wanted = Session(model, native_name).run(x).tobytes()
    for threads in THREADS:
        session = Session(model, native_name, threads=threads)
        assert session.run(x).tobytes() == wanted
        for parts in (0, 1, 2, 3, 7, 100):
            set_parts(session, parts)
            assert session.run(x).tobytes() == wanted


def test_threads_change_no_bit_of_any_operation(native_name: str, rng: np.random.Generator) -> None:
    plan = lower(check(*every_node()))
    x = rng.standard_normal((1, 9, 8, 3)).astype(np.float32)

    def run(threads: int, parts: int) -> list[bytes]:
        executor: Any = select(native_name).bind(plan, threads)
        for struct in executor._steps:
            struct.parts = min(parts, struct.rows)
        buffers = [plan.buffers[b] for b in plan.outputs]
        outputs = [np.empty((1, *b.stored_shape), b.dtype) for b in buffers]
        executor.run(x, outputs)
        return [output.tobytes() for output in outputs]

    assert run(3, 2) == run(3, 100) == run(1, 0)


def test_long_steps_are_shared_and_short_ones_are_not(rng: np.random.Generator) -> None:
    b = GraphBuilder("g", (64, 64, 128))
    x = b.bconv2d(b.sign(b.input), rng.standard_normal((128, 3, 3, 128)), padding=1)
    x = b.bconv2d(b.sign(b.avg_pool2d(x, 64)), rng.standard_normal((8, 1, 1, 128)))
    try:
        session = Session(Model(*b.build(x)), "native", threads=2)
    except BackendError:
        pytest.skip("no native backend")
    session.warmup()
    (executor,) = session._executors.values()
    parts = [struct.parts for struct in executor._steps]  # type: ignore[attr-defined]
    assert parts[1] == 2
    assert parts[-1] <= 1


def test_other_backends_take_the_number_and_use_one(rng: np.random.Generator) -> None:
    model = large_model(rng)
    x = rng.standard_normal((41, 23, 70))
    before = threading.active_count()
    session = Session(model, "reference", threads=4)
    assert np.array_equal(session.run(x), Session(model, "reference").run(x))
    assert threading.active_count() == before


# --- many callers --------------------------------------------------------------------------------


def system_threads() -> int:
    if not Path("/proc/self/task").exists():
        pytest.skip("no /proc: the number of threads is not known")
    return len(list(Path("/proc/self/task").iterdir()))


def test_several_callers_of_a_session_with_threads_get_the_same_bits(
    native_name: str, rng: np.random.Generator
) -> None:
    session = Session(large_model(rng), native_name, threads=3)
    x = rng.standard_normal((3, 41, 23, 70)).astype(np.float32)
    wanted = [session.run(sample).tobytes() for sample in x]
    set_parts(session, 4)

    def work(number: int) -> bool:
        if number % 5 == 0:
            return session.run(x).tobytes() == b"".join(wanted)
        return session.run(x[number % 3]).tobytes() == wanted[number % 3]

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        assert all(pool.map(work, range(60)))


def test_threads_end_with_their_session(rng: np.random.Generator) -> None:
    model = large_model(rng)
    x = rng.standard_normal((8, 41, 23, 70)).astype(np.float32)
    gc.collect()  # what other tests left
    before = system_threads()
    for _ in range(20):
        session = Session(model, threads=3)
        session.run(x)
        if session.backend.startswith("native"):
            assert system_threads() == before + 2
        del session
        assert system_threads() == before


def test_threads_start_when_there_is_work_for_them(rng: np.random.Generator) -> None:
    gc.collect()
    before = system_threads()
    session = Session(large_model(rng), threads=4)
    assert system_threads() == before
    b = GraphBuilder("tiny", (4,))
    tiny = Session(Model(*b.build(b.relu(b.input))), threads=4)
    tiny.run(np.zeros(4))
    assert system_threads() == before
    del session, tiny


def resident_bytes() -> int:
    gc.collect()
    if not Path("/proc/self/statm").exists():
        pytest.skip("no /proc: the size of the process is not known")
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")


@pytest.mark.parametrize("calls", [2_000, pytest.param(100_000, marks=pytest.mark.long)])
@pytest.mark.parametrize("threads", [1, 2])
def test_eight_callers_take_no_more_memory(
    calls: int, threads: int, rng: np.random.Generator
) -> None:
    graph, tensors = every_node()
    session = Session(Model(graph, tensors), threads=threads)
    if not session.backend.startswith("native"):
        pytest.skip("takes long with other backends, which have no threads of their own")
    x = rng.standard_normal((9, 8, 3)).astype(np.float32)
    wanted = {name: value.tobytes() for name, value in session.run(x).items()}
    set_parts(session, 3)
    out = threading.local()

    def work(_: int) -> bool:
        if not hasattr(out, "arrays"):
            out.arrays = {i.name: np.empty(i.shape, np.float32) for i in session.outputs}
        result = session.run(x, out=out.arrays)
        return {name: value.tobytes() for name, value in result.items()} == wanted

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        assert all(pool.map(work, range(500)))
        before = resident_bytes()
        for first in range(0, calls, 1000):
            assert all(pool.map(work, range(first, first + 1000)))
        assert resident_bytes() - before < 2 << 20

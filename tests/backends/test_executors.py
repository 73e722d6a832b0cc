"""Executors: batches, threads, scratch memory, forks, interrupts; on every backend."""

from __future__ import annotations

import concurrent.futures
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bitinfer.backends import Backend, select
from bitinfer.backends.base import FreeList, aligned_bytes
from bitinfer.graph import GraphBuilder, check
from bitinfer.plan import Plan, cost, lower
from graph_examples import every_node
from harness import bind, run_executor

TESTS = Path(__file__).parents[1]


@pytest.fixture
def plan() -> Plan:
    return lower(check(*every_node()))


@pytest.fixture
def batch(rng: np.random.Generator) -> np.ndarray:
    return rng.standard_normal((40, 9, 8, 3)).astype(np.float32)


def arenas_of(executor: Any) -> list[Any]:
    lent = executor._workspaces if hasattr(executor, "_workspaces") else executor._arenas
    return lent._free


def run(executor: Any, plan: Plan, x: np.ndarray) -> list[np.ndarray]:
    outputs = [np.empty((len(x), *plan.buffers[b].stored_shape), np.float32) for b in plan.outputs]
    executor.run(x, outputs)
    return outputs


def test_a_batch_gives_what_its_samples_give_one_by_one(
    backend: Backend, plan: Plan, batch: np.ndarray
) -> None:
    executor = bind(backend, plan)
    together = run_executor(executor, plan, batch)
    for i in range(len(batch)):
        alone = run(executor, plan, batch[i : i + 1])
        assert all(np.array_equal(a[0], b[i]) for a, b in zip(alone, together, strict=True))


def test_a_batch_of_a_long_network_is_profiled_sample_by_sample(
    backend: Backend, plan: Plan, batch: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cost, "WORK_AT_ONCE", 1)
    executor, x = bind(backend, plan), batch[:3]
    outputs = [np.empty((3, *plan.buffers[b].stored_shape), np.float32) for b in plan.outputs]
    executor.profile(x, outputs, 2)
    for found, wanted in zip(outputs, run(executor, plan, x), strict=True):
        assert np.array_equal(found, wanted)


def test_a_batch_of_none_is_no_work(backend: Backend, plan: Plan, batch: np.ndarray) -> None:
    assert {len(output) for output in run(bind(backend, plan), plan, batch[:0])} == {0}


def test_eight_threads_on_one_executor_get_the_same_bits(
    backend: Backend, plan: Plan, batch: np.ndarray
) -> None:
    executor = bind(backend, plan)
    wanted = [output.tobytes() for output in run(executor, plan, batch)]

    def work(_: int) -> bool:
        return [output.tobytes() for output in run(executor, plan, batch)] == wanted

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        assert all(pool.map(work, range(16)))
    assert 1 <= len(arenas_of(executor)) <= 8


def test_one_caller_uses_one_arena_for_ever(
    backend: Backend, plan: Plan, batch: np.ndarray
) -> None:
    executor = bind(backend, plan)
    run(executor, plan, batch[:1])
    (arena,) = arenas_of(executor)
    for _ in range(20):
        run(executor, plan, batch[:1])
    assert len(arenas_of(executor)) == 1
    assert arenas_of(executor)[0] is arena


def test_two_executors_share_nothing(backend: Backend, plan: Plan, batch: np.ndarray) -> None:
    first, second = bind(backend, plan), bind(backend, plan)
    wanted = run(first, plan, batch)
    del first
    assert all(map(np.array_equal, run(second, plan, batch), wanted))


def test_running_again_and_again_takes_no_more_memory(
    backend: Backend, plan: Plan, batch: np.ndarray
) -> None:
    executor = bind(backend, plan)

    def resident_bytes() -> int:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGESIZE")

    if not Path("/proc/self/statm").exists():
        pytest.skip("no /proc: the size of the process is not known")
    for _ in range(50):
        run(executor, plan, batch[:2])
    before = resident_bytes()
    for _ in range(400):
        run(executor, plan, batch[:2])
    assert resident_bytes() - before < 3 << 20


def test_an_arena_is_aligned_and_no_larger_than_its_values(backend: Backend, plan: Plan) -> None:
    executor = bind(backend, plan)
    values = sum(-(-b.size_bytes // 64) * 64 for b in plan.buffers)
    assert 0 < executor.arena_bytes <= 3 * values
    for size in (0, 1, 64, 100):
        memory = aligned_bytes(size)
        assert memory.ctypes.data % 64 == 0 or size == 0
        assert memory.nbytes == size


def test_infinity_and_nan_are_results_and_not_warnings(backend: Backend) -> None:
    b = GraphBuilder("g", (3,))
    y = b.batch_norm(b.input, [3e38] * 3, [1] * 3)
    y = b.softmax(b.dense(b.dense(y, np.full((3, 3), 1e38)), np.eye(3) - 0.5))
    b.bdense(b.sign(b.input), np.ones((2, 3)), alpha=[3e38, 1], beta=b.beta_map(b.input), name="z")
    plan = lower(check(*b.build(y, "z")))
    for x in ([1e38, -1e38, 1], [np.inf, -np.inf, 0], [np.nan, 1, 2]):
        run(bind(backend, plan), plan, np.array([x], np.float32))


def test_things_are_made_only_when_all_are_lent() -> None:
    made: list[object] = []

    def make() -> object:
        made.append(object())
        return made[-1]

    things = FreeList(make)
    for _ in range(3):
        with things.take() as first, things.take() as second:
            assert first is not second
    assert len(made) == 2
    with pytest.raises(ZeroDivisionError), things.take():
        raise ZeroDivisionError
    with things.take(), things.take():
        pass
    assert len(made) == 2


FORKING = textwrap.dedent(
    """
    import os, sys, threading, warnings
    import numpy as np
    from graph_examples import every_node
    from bitinfer.backends import select
    from bitinfer.graph import check
    from bitinfer.plan import lower

    warnings.simplefilter("ignore", DeprecationWarning)  # that threads are alive is the point
    plan = lower(check(*every_node()))
    executor = select(sys.argv[1]).bind(plan)
    x = np.random.default_rng(0).standard_normal((2, 9, 8, 3)).astype(np.float32)

    def run():
        outputs = [np.empty((2, *plan.buffers[b].shape), np.float32) for b in plan.outputs]
        executor.run(x, outputs)
        return [output.tobytes() for output in outputs]

    wanted, stop = run(), threading.Event()

    def keep_running():
        while not stop.is_set():
            run()

    threads = [threading.Thread(target=keep_running) for _ in range(2)]
    for thread in threads:
        thread.start()
    codes = []
    for _ in range(int(sys.argv[2])):
        child = os.fork()
        if child == 0:
            os._exit(0 if run() == wanted else 1)
        codes.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    stop.set()
    for thread in threads:
        thread.join()
    print(set(codes))
    """
)


def fork(name: str, times: int) -> str:
    path = os.pathsep.join([str(TESTS), *filter(None, [os.environ.get("PYTHONPATH")])])
    return subprocess.run(
        [sys.executable, "-c", FORKING, name, str(times)],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=300,
        check=True,
    ).stdout


def test_a_forked_child_can_go_on_while_threads_of_its_parent_run(backend_name: str) -> None:
    assert fork(backend_name, 20) == "{0}\n"


@pytest.mark.long
def test_a_thousand_forks_in_the_middle_of_calls_all_return(backend_name: str) -> None:
    assert fork(backend_name, 1000) == "{0}\n"


@pytest.fixture
def interrupts() -> Iterator[None]:
    """SIGINT interrupts, also in the background of a shell, which has it ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interrupts")
def test_ctrl_c_ends_a_long_batch_within_a_moment(backend: Backend) -> None:
    b = GraphBuilder("g", (24, 24, 1))
    x = b.bconv2d(b.sign(b.input), np.ones((256, 1, 1, 1)))
    plan = lower(check(*b.build(b.bconv2d(b.sign(x), np.ones((1, 9, 9, 256)), padding=4))))
    executor = bind(backend, plan)
    sample = np.zeros((1, 24, 24, 1), np.float32)
    run(executor, plan, sample)
    began = time.perf_counter()
    run(executor, plan, sample)
    took = time.perf_counter() - began
    batch = np.zeros((max(10, int(4 / took)), 24, 24, 1), np.float32)
    delay = max(0.3, 2 * took)
    timer = threading.Timer(delay, os.kill, (os.getpid(), signal.SIGINT))
    began = time.perf_counter()

    def run_on_and_on() -> None:
        timer.start()
        while time.perf_counter() - began < 60:
            run(executor, plan, batch)

    with pytest.raises(KeyboardInterrupt):
        run_on_and_on()
    assert time.perf_counter() - began < delay + 1.0 + took


def test_other_python_threads_go_on_during_a_native_call(native_name: str) -> None:
    b = GraphBuilder("g", (32, 32, 256))
    y = b.bconv2d(b.sign(b.input), np.ones((256, 7, 7, 256)), padding=3)
    plan = lower(check(*b.build(y)))
    executor = select(native_name).bind(plan)
    x = np.zeros((1, 32, 32, 256), np.float32)
    run(executor, plan, x)
    began = time.perf_counter()
    run(executor, plan, x)
    took = time.perf_counter() - began
    x = np.repeat(x, int(np.ceil(0.04 / took)), axis=0)  # longer than a thread keeps the GIL

    def longest_pause() -> float:
        """Return the longest pause of this thread during a call, as a share of the call."""
        thread = threading.Thread(target=run, args=(executor, plan, x))
        longest, began = 0.0, time.perf_counter()
        last = began
        thread.start()
        while thread.is_alive():
            now = time.perf_counter()
            longest, last = max(longest, now - last), now
        return longest / (last - began) if last > began else 1.0

    # Without the GIL being free it would be nearly 1, always; a busy machine makes pauses, too.
    assert min(longest_pause() for _ in range(8)) < 0.5

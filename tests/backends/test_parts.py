"""A sample that takes long is done in parts: the same bits, and Ctrl-C is answered between them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pytest

import hostile
from bitinfer import modelfile
from bitinfer.errors import ShapeError
from bitinfer.graph import GraphBuilder, check
from bitinfer.model import Model, Preprocessing
from bitinfer.plan import cost
from bitinfer.session import Session
from helpers import colour_model

executor = pytest.importorskip("bitinfer.backends.native.executor", reason="no extension")


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("work_at_once", [1, 500])
def test_parts_give_the_same_bits_as_the_whole(
    native_name: str,
    threads: int,
    work_at_once: int,
    rng: np.random.Generator,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    calls = 0
    library = executor._lib

    class Counting:
        def __getattr__(self, name: str) -> object:
            return getattr(library, name)

        def bi_execute_part(self, *arguments: object) -> int:
            nonlocal calls
            calls += 1
            return int(library.bi_execute_part(*arguments))

    for model in (hostile.example(), hostile.loose_example(), hostile.integer_example()):
        loaded = modelfile.from_bytes(model)
        x = rng.standard_normal((3, *loaded.graph.input.shape)).astype(np.float32)
        if loaded.graph.input.kind == "uint8":
            x = np.abs(x * 50).astype(np.uint8)
        whole = Session(loaded, native_name).run(x)
        with monkeypatch.context() as patch:
            patch.setattr(cost, "WORK_AT_ONCE", work_at_once)
            patch.setattr(executor, "LONGEST_CALL_S", 0.0)
            patch.setattr(executor, "LONGEST_SAMPLE_S", 0.0)
            patch.setattr(executor, "_lib", Counting())
            session = Session(loaded, native_name, threads)
            session.bind(pixels=x.dtype == np.uint8)
            before = calls
            for n, found in enumerate([session.run(x), *(session.run(sample) for sample in x)]):
                for name in session.outputs:
                    got = found[name.name] if isinstance(found, dict) else found
                    wanted = whole[name.name] if isinstance(whole, dict) else whole
                    assert np.array_equal(got, wanted if n == 0 else wanted[n - 1])
            assert calls - before > 4 * len(loaded.graph.nodes) / 3


def slow_model(side: int, kernel: int) -> Model:
    """Return a network of under a kilobyte whose one sample takes minutes."""
    b = GraphBuilder("slow", (8, 8, 3))
    x = b.pad2d(b.input, (side, side, side, side))
    x = b.avg_pool2d(x, kernel, 1, padding=kernel // 2)
    preprocessing = Preprocessing("rgb", (0.0,) * 3, (1.0,) * 3, resize=(8, 8))
    return Model(*b.build(b.global_pool2d(x, "max")), preprocessing=preprocessing)


INTERRUPTED = """
    import signal, sys, threading, time
    import numpy as np
    import bitinfer

    path, backend, threads, samples = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
    session = bitinfer.load(path, backend, threads=threads)
    session.bind()
    x = np.zeros((samples, 8, 8, 3), np.float32)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    sent = 0.0

    def interrupt():
        global sent
        time.sleep(0.5)
        sent = time.monotonic()
        signal.raise_signal(signal.SIGINT)

    threading.Thread(target=interrupt).start()
    try:
        session.run(x)
    except KeyboardInterrupt:
        print(time.monotonic() - sent)
    session.run(x[:0])
"""


@pytest.mark.parametrize(("threads", "samples"), [(1, 1), (1, 3), (2, 1), (2, 5)])
@pytest.mark.parametrize("native_name", ["native:portable", "native"])
def test_a_sample_that_takes_minutes_is_interrupted_within_a_second(
    tmp_path: Path, native_name: str, threads: int, samples: int
) -> None:
    modelfile.save(slow_model(800, 150), tmp_path / "slow.bin")
    command = [sys.executable, "-c", textwrap.dedent(INTERRUPTED), str(tmp_path / "slow.bin")]
    done = subprocess.run(
        [*command, native_name, str(threads), str(samples)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) < 1.0


def test_a_command_is_interrupted_within_a_second(tmp_path: Path) -> None:
    modelfile.save(slow_model(800, 150), tmp_path / "slow.bin")
    picture = Path(__file__).parents[2] / "examples" / "digit_7.png"
    with subprocess.Popen(
        [sys.executable, "-m", "bitinfer", "run", str(tmp_path / "slow.bin"), str(picture)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    ) as process:
        time.sleep(2)
        process.send_signal(signal.SIGINT)
        began = time.monotonic()
        out, error = process.communicate(timeout=60)
        assert time.monotonic() - began < 2  # of which the end of Python is a part
        assert (process.returncode, out, error) == (130, b"", b"")


def test_short_samples_are_one_call_each() -> None:
    session = Session(colour_model(), "native")
    session.bind()
    (bound,) = session._executors.values()
    assert not bound._is_long  # type: ignore[attr-defined]
    assert not any(step.rows_at_once for step in bound._steps)  # type: ignore[attr-defined]


def test_a_row_that_cannot_be_interrupted_in_time_is_refused() -> None:
    def build(height: int) -> object:
        b = GraphBuilder("row", (height, 8000, 1))
        pool = b.avg_pool2d(b.input, (height, 4000), 1, padding=(0, 0, 2000, 2000))
        return check(*b.build(pool))

    build(30)  # 8001 x 30 x 4000 taps in one row
    with pytest.raises(ShapeError, match="a row takes 1920240000 operations, at most 1073741824"):
        build(60)

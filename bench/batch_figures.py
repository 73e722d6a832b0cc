"""Compares ``bitinfer batch`` with decoding and inference alone.

    python bench/batch_figures.py [N]

Both use all CPUs of this process, in turns, on the same N (10,000) PNG files.  The first also keeps
order, writes parts and joins them.  The last lines compare the shortest rounds, and say the median
of what each round of the second takes longer than the one of the first before it, which a machine
that is now faster and now slower disturbs less; both by the wall clock and by CPU time.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image

import bitinfer
from bitinfer import backends, batch

MODEL = Path(__file__).parents[1] / "examples" / "lenet5.bin"
ROUNDS = 9


def make_pictures(folder: Path, count: int) -> list[str]:
    """Write grey pictures of 28 x 28 random pixels."""
    rng = np.random.default_rng(0)
    paths = []
    for number in range(count):
        path = folder / f"{number:05}.png"
        Image.fromarray(rng.integers(0, 256, (28, 28), dtype=np.uint8)).save(path)
        paths.append(str(path))
    return paths


def seconds(work: Callable[[], object]) -> tuple[float, float]:
    """Return seconds of wall clock and of CPU."""
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - wall, time.process_time() - cpu


def main(count: int) -> None:
    """Measure and print."""
    batch._pyarrow()  # imported before anything is measured
    session = bitinfer.load(MODEL)
    session.warmup(pixels=True)
    threads = backends.usable_cpus()
    with tempfile.TemporaryDirectory() as folder:
        paths = make_pictures(Path(folder), count)
        inputs = [batch.Input(path) for path in paths]
        output = Path(folder, "out.parquet")

        def alone() -> None:
            def classify(part: list[str]) -> None:
                for path in part:
                    session.classify(path, 1)

            with ThreadPoolExecutor(threads) as pool:
                list(pool.map(classify, (paths[i : i + 256] for i in range(0, count, 256))))

        def whole() -> None:
            batch.run(inputs, output, batch.threaded(session, threads, 1), session=session, top_k=1)

        print(f"{count} pictures, {threads} threads, load average {os.getloadavg()[0]:.1f}")
        rounds: dict[str, list[tuple[float, float]]] = {"decode and infer": [], "batch": []}
        for name, work in (("decode and infer", alone), ("batch", whole)) * ROUNDS:
            wall, cpu = seconds(work)
            rounds[name].append((wall, cpu))
            print(f"{name:16} {wall:.2f} s, {cpu:.2f} s of CPU, {count / wall:.0f} pictures/s")
        pairs = np.array([rounds["decode and infer"], rounds["batch"]])
        shortest = pairs[1].min(axis=0) / pairs[0].min(axis=0) - 1
        middle = np.median(pairs[1] / pairs[0], axis=0) - 1
        for what, (wall, cpu) in (("shortest rounds", shortest), ("median of pairs", middle)):
            print(f"{what}: batch takes {wall:+.1%} of the wall clock, {cpu:+.1%} of CPU")


if __name__ == "__main__":
    main(int(sys.argv[1]) if sys.argv[1:] else 10_000)

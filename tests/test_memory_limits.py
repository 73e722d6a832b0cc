"""Where memory runs out, MemoryError comes: no panic of a library, no hang, no death."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from bitinfer import backends, modelfile, zoo
from bitinfer.model import Model
from bitinfer.zoo.data import PREPROCESSING

SWEEP = """
    import json, os, resource, signal, sys
    import numpy as np
    import PIL.Image, PIL.PngImagePlugin
    import bitinfer, bitinfer.session
    from bitinfer import modelfile
    from bitinfer.errors import BitInferError

    path, picture, work, step_kb, backend, small = sys.argv[1:]
    step_kb = int(step_kb)

    def load():
        bitinfer.load(path)

    def run():
        session = bitinfer.load(path, backend, threads=2)
        session.run(np.zeros((2, *session.inputs[0].shape), np.float32))

    def classify():
        bitinfer.load(path, backend).classify(picture)

    def save():
        modelfile.to_bytes(modelfile.load(path))

    bitinfer.load(small, backend, threads=2).classify(picture)  # imports all that will be used
    used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
    outcomes = {}
    extra = 0
    while True:
        reader, writer = os.pipe()
        if (child := os.fork()) == 0:
            signal.alarm(60)
            resource.setrlimit(resource.RLIMIT_AS, (used + extra * 1024,) * 2)
            try:
                globals()[work]()
                outcome = "done"
            except (MemoryError, BitInferError) as error:
                outcome = "refused" if isinstance(error, BitInferError) else "MemoryError"
            except BaseException as error:
                outcome = repr(error)
            os.write(writer, outcome.encode())
            os._exit(0)
        os.close(writer)
        outcome = os.read(reader, 1000).decode()
        os.close(reader)
        status = os.waitpid(child, 0)[1]
        outcome = f"died of {status}" if status else outcome
        outcomes[outcome] = outcomes.get(outcome, 0) + 1
        if outcome == "done" and outcomes["done"] > 2:
            break
        extra += step_kb
    print(json.dumps(outcomes))
"""

_MODELS = {"xnor-alexnet": "imagenet", "xnor-nin": "cifar10", "xnor-lenet5": "mnist"}
"""Architectures, and what each was trained on."""


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Models from large to small, and a picture."""
    folder = tmp_path_factory.mktemp("memory")
    for arch, data in _MODELS.items():
        graph, tensors = zoo.build(arch, zoo.RandomParameters(0))
        model = Model(graph, tensors, preprocessing=PREPROCESSING[data, "xnor-net-pytorch"])  # type: ignore[index]
        modelfile.save(model, folder / f"{arch}.bin")
    picture = Path(__file__).parents[1] / "examples" / "digit_7.png"
    return [*(folder / f"{arch}.bin" for arch in _MODELS), picture]


@pytest.mark.parametrize(
    ("work", "model", "step_kb"),
    [("load", 0, 1000), ("run", 0, 1000), ("classify", 1, 50), ("save", 0, 1000)],
)
def test_memory_that_runs_out_is_a_memory_error(
    files: list[Path], work: str, model: int, step_kb: int
) -> None:
    if not Path("/proc/self/statm").exists():
        pytest.skip("no /proc: memory cannot be limited to what is there and a bit")
    if work in ("run", "classify") and backends.select().name != "native":
        pytest.skip("LLVM ends the process where memory runs out, and NumPy takes minutes")
    *models, picture = map(str, files)
    command = [sys.executable, "-c", textwrap.dedent(SWEEP), models[model], picture, work]
    done = subprocess.run(
        [*command, str(step_kb), "auto", models[-1]],
        env={**os.environ, "RUST_BACKTRACE": "1", "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    outcomes = json.loads(done.stdout)
    # CPython says so where an extension of others got no memory and forgot to raise MemoryError.
    outcomes.pop("SystemError('error return without exception set')", None)
    assert outcomes.keys() <= {"done", "MemoryError", "refused"}
    assert outcomes["MemoryError"] > 0


def test_memory_that_runs_out_in_a_command_is_one_line(files: list[Path]) -> None:
    resource = pytest.importorskip("resource")
    lines = set()
    for megabytes in range(160, 240, 16):

        def limit(size: int = megabytes << 20) -> None:
            resource.setrlimit(resource.RLIMIT_AS, (size, size))

        done = subprocess.run(
            [sys.executable, "-m", "bitinfer", "inspect", str(files[0])],
            env={**os.environ, "OPENBLAS_NUM_THREADS": "1", "RUST_BACKTRACE": "1"},
            preexec_fn=limit,
            capture_output=True,
            text=True,
            timeout=60,
        )
        lines.add(done.stderr)
        assert done.returncode in (0, 1)
    assert lines <= {"", "bitinfer: error: not enough memory\n"}

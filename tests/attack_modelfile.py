"""Loads, and where they load runs, wrong model files whose checksum is right (hostile.Mutator).

    python attack_modelfile.py COUNT SEED

Prints one JSON object.  Ends with a traceback and the file in question if anything but a model or
a ModelFileError comes of it, if one takes over a second, or if memory runs out.
"""

from __future__ import annotations

import base64
import json
import resource
import sys
import time
from pathlib import Path

import numpy as np

import hostile
from bitinfer import modelfile
from bitinfer.backends import Backend, select, status
from bitinfer.errors import ModelFileError
from bitinfer.graph import check, operations
from bitinfer.model import Model
from bitinfer.plan import lower

MEMORY_BYTES = 1 << 30
"""Address space beyond what Python, NumPy and the backends take to start with."""

QUICK_OPERATIONS = 1 << 22
"""Networks above this are loaded, but not run: they may be slow, that is their right."""


def run(model: Model, backends: list[Backend]) -> bool:
    """Run the model on all backends, unless it is large; return whether it was run."""
    values = model.checked.values
    total = sum(operations(node, values, model.tensors) for node in model.graph.nodes)
    if total > QUICK_OPERATIONS:
        return False
    plan = lower(check(model.graph, model.tensors))
    x = np.random.default_rng(0).standard_normal((1, *model.graph.input.shape)) * 50
    is_pixels = model.graph.input.kind == "uint8"
    x = np.abs(x).clip(0, 255).astype(np.uint8) if is_pixels else x.astype(np.float32)
    for backend in backends:
        shapes = [plan.buffers[number].shape for number in plan.outputs]
        backend.bind(plan).run(x, [np.empty((1, *shape), np.float32) for shape in shapes])
    return True


def main(count: int, seed: int) -> None:
    names = [s.name for s in status() if s.available and s.name != "numba"]
    backends = [select(name) for name in names]
    mutators = []
    for good in (hostile.example(), hostile.loose_example(), hostile.integer_example()):
        assert run(modelfile.from_bytes(good), backends)
        mutators.append(hostile.Mutator(good, seed))
    taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (taken + MEMORY_BYTES,) * 2)
    loaded = ran = 0
    slowest = 0.0
    reasons = set()
    for number in range(count):
        data = mutators[number % len(mutators)]()
        began = time.perf_counter()
        try:
            try:
                model = modelfile.from_bytes(data)
            finally:
                took = time.perf_counter() - began
                slowest = max(slowest, took)
            loaded += 1
            assert modelfile.from_bytes(modelfile.to_bytes(model)).graph == model.graph
            ran += run(model, backends)
        except ModelFileError as error:
            reasons.add(str(error))
        except BaseException:
            print(f"file {number} of seed {seed}:", base64.b64encode(data).decode())
            raise
        assert took < 1.0, f"file {number} of seed {seed} took {took} s"
    assert all("\n" not in reason and len(reason) < 500 for reason in reasons)
    print(
        json.dumps(
            {
                "files": count,
                "loaded": loaded,
                "ran": ran,
                "reasons": len({reason[:20] for reason in reasons}),
                "slowest_s": slowest,
                "backends": names,
            }
        )
    )


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))

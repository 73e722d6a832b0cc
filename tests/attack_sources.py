"""Converts wrong files of one format, made of good ones.

    python attack_sources.py FORMAT COUNT SEED [SAMPLES]

FORMAT is a name of importers.samples.READABLE; SAMPLES is a folder with files of the frameworks
themselves, of which every tenth wrong file is made.  Parsers in native code run as sandbox.py runs
them, in a child with its limits, but forked, which takes a hundredth of the time of a new Python.
Prints one JSON object.  Ends with a traceback and the file in question if anything but a network or
a typed error comes of it, or if one takes over SLOWEST_S; ends if memory runs out.
"""

from __future__ import annotations

import base64
import json
import os
import resource
import select
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).with_name("importers")))

import keras_files
import samples

from bitinfer.errors import BitInferError, CheckpointError, ConversionError, ShapeError
from bitinfer.importers import detect, sandbox
from bitinfer.importers.convert import convert
from bitinfer.importers.options import Options
from bitinfer.importers.recognise import recognise
from mutations import Mutations

MEMORY_BYTES = 2 << 30
"""Address space beyond what Python and NumPy take to start with."""
SLOWEST_S = 5.0
"""Of the CPU's time: how long one takes must not depend on what else runs here."""
PATIENCE_S = 120.0
"""How long a child may take by the clock: more is a deadlock."""
EVERY = 10
"""One wrong file of so many is made of a sample."""
TYPED = (CheckpointError, ConversionError, ShapeError)

SANDBOXED = ("keras", "onnx")
ENDS = {
    "keras": (".h5", ".keras"),
    "onnx": (".onnx",),
    "tflite": (".tflite",),
    "darknet": (".weights",),
    "mxnet": (".params",),
}
BESIDE = {".weights": ".cfg", ".params": "-symbol.json"}
SHAPE = {"mxnet": (32, 32, 3)}

Source = tuple[bytes, bytes, tuple[int, ...] | None]
"""A file, the one that describes its network (empty if there is none), and the input's shape."""


def small_sources(name: str) -> list[Source]:
    further = samples.FURTHER.get(name, {})
    shape = further.get("shape")
    shape = (*shape[1:], shape[0]) if shape else None
    return [(data, further.get("network", b""), shape) for data in samples.READABLE[name].values()]


def sample_sources(name: str, folder: Path | None) -> list[Source]:
    if folder is None:
        return []
    found = []
    for path in sorted(p for p in folder.rglob("*") if p.name.endswith(ENDS.get(name, ("\0",)))):
        network, shape = b"", None
        for end, other in BESIDE.items():
            if path.name.endswith(end):
                stem = path.name.removesuffix(end).removesuffix("-0000")
                network, shape = path.with_name(stem + other).read_bytes(), SHAPE.get(name)
        found.append((path.read_bytes(), network, shape))
    return found


class Mutator(Mutations):
    """Makes wrong files of good ones."""

    def __init__(self, name: str, seed: int, folder: Path | None) -> None:
        super().__init__(seed)
        self.name = name
        self.small = small_sources(name)
        self.samples = sample_sources(name, folder)

    def __call__(self) -> Source:
        """Return one more source."""
        from_sample = self.samples and self.rng.randrange(EVERY) == 0
        data, network, shape = self.rng.choice(self.samples if from_sample else self.small)
        if network and self.rng.randrange(2):
            return data, self.text(network), shape
        if self.name == "keras" and not from_sample and self.rng.randrange(2):
            return self.keras(), network, shape
        if data.startswith(b"PK\x03\x04") and self.rng.randrange(4):
            return self.rezipped(data), network, shape
        return self.changed(data), network, shape

    def keras(self) -> bytes:
        config, weights = samples.KERAS[:2]
        text = self.value(json.loads(json.dumps(config)))
        return keras_files.hdf5(text, weights)


class Crash(Exception):
    """A parser in native code ended its process: sandbox.read makes a CheckpointError of it."""


def in_child(reader: str, *parts: bytes) -> tuple[bytes, float]:
    """Return what a child of the sandbox answers, and how many seconds of the CPU it took."""
    ours, theirs = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.close(ours)
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, 1)
            os.dup2(null, 2)
            sandbox.limit(sum(map(len, parts)))
            with os.fdopen(theirs, "wb") as file:
                file.write(sandbox.answer(reader, *parts))
        finally:
            os._exit(0)
    os.close(theirs)
    answer, deadline = b"", time.monotonic() + PATIENCE_S
    with os.fdopen(ours, "rb", 0) as file:
        while select.select([file], [], [], max(0.0, deadline - time.monotonic()))[0]:
            part = file.read(1 << 20)
            if not part:
                break
            answer += part
        else:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            raise AssertionError("the parser hangs")
    _, status, used = os.wait4(child, 0)
    if os.WIFSIGNALED(status):
        raise Crash(signal.Signals(os.WTERMSIG(status)).name)
    return answer, used.ru_utime + used.ru_stime


def through_child(name: str, source: Source, path: Path) -> None:
    data, network, _ = source
    detect.require_reader(data)
    reader = f"bitinfer.importers.readers.{name}"
    parts = (data, network) if name == "keras" else (data,)
    answer, took = in_child(reader, *parts)
    assert took < SLOWEST_S, f"the parser took {took} s"
    recognise(sandbox.received(answer))


def through_file(name: str, source: Source, path: Path) -> None:
    data, network, shape = source
    path.write_bytes(data)
    convert(path, options=Options(network=network or None, input_shape=shape))


def main(name: str, count: int, seed: int, folder: Path | None) -> None:
    mutate = Mutator(name, seed, folder)
    is_sandboxed = name in SANDBOXED
    attack: Callable[[str, Source, Path], None] = through_child if is_sandboxed else through_file
    if is_sandboxed:
        # What a parser imports must be there before the forks, which would import it each time.
        reader = import_module(f"bitinfer.importers.readers.{name}")
        for data, network, _ in mutate.small:
            recognise(reader.parse(*((data, network) if name == "keras" else (data,))))
    taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (taken + MEMORY_BYTES, resource.RLIM_INFINITY))
    converted = crashed = 0
    slowest = 0.0
    reasons = set()
    with tempfile.TemporaryDirectory() as place:
        path = Path(place, "net")
        for number in range(count):
            source = mutate()
            where = f"file {number} of seed {seed}"
            began = time.process_time()
            try:
                with np.errstate(all="ignore"):
                    attack(name, source, path)
                converted += 1
            except TYPED as error:
                reasons.add(str(error).removeprefix(f"{path}: "))
            except Crash:
                crashed += 1
            except BaseException as error:
                if isinstance(error, BitInferError):
                    print("typed otherwise:", type(error).__name__)
                for part in source[:2]:
                    print(f"{where}:", base64.b64encode(part[:400_000]).decode())
                raise
            took = time.process_time() - began
            slowest = max(slowest, took)
            assert took < SLOWEST_S, f"{where} took {took} s"
    unfit = [r for r in reasons if not r.isprintable() or len(r) > 600]
    assert not unfit, f"no line of text: {unfit[0]!r}"
    kinds = len({reason[:20] for reason in reasons})
    result = {"files": count, "converted": converted, "crashed": crashed}
    print(json.dumps({**result, "reasons": kinds, "slowest_s": slowest}))


if __name__ == "__main__":
    name, count, seed, *rest = sys.argv[1:]
    main(name, int(count), int(seed), Path(rest[0]) if rest else None)

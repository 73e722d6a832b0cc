"""Converts wrong checkpoints whose checksums are right: changed opcodes, tensors, names, archives.

    python attack_checkpoints.py COUNT SEED

Prints one JSON object.  Ends with a traceback and the file in question if anything but a model or
a CheckpointError comes of it, if one takes long, or if memory runs out.
"""

from __future__ import annotations

import base64
import io
import json
import random
import resource
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).with_name("importers")))

from torch_files import (
    Built,
    Call,
    Name,
    Raw,
    Writer,
    archive,
    state_dict,
    stream_file,
    zip_file,
)

from bitinfer.errors import CheckpointError, ShapeError
from bitinfer.importers.convert import convert
from bitinfer.importers.readers._unpickle import _HANDLERS

MEMORY_BYTES = 1 << 30
"""Address space beyond what Python and NumPy take to start with."""
SLOWEST_S = 10.0

_STATE = state_dict("xnor-lenet5")
_TYPE = Built(Call(Name("numpy", "dtype"), ("f4", False, True)), (3, "<", None))
_RECONSTRUCT = Name("numpy._core.multiarray", "_reconstruct")
_ARRAY = Built(
    Call(_RECONSTRUCT, (Name("numpy", "ndarray"), (0,), b"b")), (1, (3,), _TYPE, False, b"x" * 12)
)
SAMPLES: tuple[dict[str, Any], ...] = (
    {"state_dict": _STATE, "epoch": 3},
    {"model": {f"_orig_mod.module.{k}": v for k, v in _STATE.items()}, "ema": _STATE},
    {
        "net": dict(list(_STATE.items())[:3]),
        "log": [{"loss": 0.5, "array": _ARRAY}] * 3,
        "args": Call(Name("argparse", "Namespace"), ()),
        "raw": Raw(b"\x8f(K\x01K\x02\x90"),
    },
)
"""The second holds two sets of weights, the third no whole one, and much beside it."""


class Mutator:
    """Makes wrong files of good ones, most of them wrong in the pickle alone."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.parts = []
        for sample in SAMPLES:
            writer = Writer()
            pickled = writer.pickled(sample)
            storages = {f"net/data/{key}": data for key, (_, data) in writer.storages.items()}
            self.parts.append((pickled, storages))
        self.files = [write(sample) for sample in SAMPLES for write in (zip_file, stream_file)]

    def __call__(self) -> bytes:
        """Return one more file."""
        pickled, storages = self.rng.choice(self.parts)
        match self.rng.randrange(8):
            case 0:
                return self.changed(self.rng.choice(self.files), ())
            case 1:
                return self.rezipped(pickled, storages)
            case 2:
                data = self.rng.choice(self.files)
                return data[: self.rng.randrange(len(data))]
            case _:
                mutant = self.changed(pickled, list(_HANDLERS))
                return archive({"net/data.pkl": mutant, **storages, "net/version": b"3\n"})

    def changed(self, data: bytes, opcodes: Any) -> bytes:
        """Set, insert or delete a few bytes."""
        mutant = bytearray(data)
        for _ in range(self.rng.randint(1, 4)):
            at = self.rng.randrange(len(mutant))
            match self.rng.randrange(5 if opcodes else 3):
                case 0:
                    mutant[at] = self.rng.randrange(256)
                case 1:
                    mutant[at : at + 4] = self.rng.choice([b"\xff", b"\0", b"\x7f"]) * 4
                case 2:
                    del mutant[at : at + self.rng.randint(1, 5)]
                case 3:
                    mutant[at:at] = bytes(self.rng.choices(opcodes, k=3))
                case _:
                    other = self.rng.randrange(len(mutant))
                    mutant[at:at] = mutant[other : other + self.rng.randint(1, 40)]
        return bytes(mutant)

    def rezipped(self, pickled: bytes, storages: dict[str, bytes]) -> bytes:
        """Write the members under other names, of other lengths, packed, twice or not at all."""
        file = io.BytesIO()
        with zipfile.ZipFile(file, "w") as target:
            for name, data in {"net/data.pkl": pickled, **storages}.items():
                if self.rng.random() < 0.02:
                    continue
                how = zipfile.ZIP_DEFLATED if self.rng.random() < 0.02 else zipfile.ZIP_STORED
                name = self.rng.choice([name] * 40 + [f"../{name}", f"x/{name}", name.upper()])
                data = data[: self.rng.choice([None] * 40 + [0, 4, -1])]
                target.writestr(zipfile.ZipInfo(name), data, how)
        return file.getvalue()


def main(count: int, seed: int) -> None:
    mutate: Callable[[], bytes] = Mutator(seed)
    taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (taken + MEMORY_BYTES,) * 2)
    converted = 0
    slowest = 0.0
    reasons = set()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "net.pth")
        for number in range(count):
            data = mutate()
            path.write_bytes(data)
            began = time.perf_counter()
            try:
                with np.errstate(all="raise"):
                    convert(path)
                converted += 1
            except (CheckpointError, ShapeError) as error:
                reasons.add(str(error).removeprefix(f"{path}: "))
            except BaseException:
                print(f"file {number} of seed {seed}:", base64.b64encode(data[:20000]).decode())
                raise
            took = time.perf_counter() - began
            slowest = max(slowest, took)
            assert took < SLOWEST_S, f"file {number} of seed {seed} took {took} s"
    assert all(reason.isprintable() and len(reason) < 600 for reason in reasons)
    kinds = len({reason[:20] for reason in reasons})
    print(
        json.dumps({"files": count, "converted": converted, "reasons": kinds, "slowest_s": slowest})
    )


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))

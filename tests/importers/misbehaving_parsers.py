"""Parsers that do what parsers of native code do on bad bytes; test_sandbox.py runs them."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from bitinfer.errors import CheckpointError


def echo(data: bytes) -> dict[str, Any]:
    array = np.frombuffer(data, np.uint8)
    return {
        "bytes": data[:4],
        "sizes": [len(data), 1.5, None, True, "text"],
        "array": array,
        "map": {"deep": [array.astype(">f4").reshape(-1, 1), np.float64(2.5), np.zeros((0, 3))]},
    }


def crash(data: bytes) -> None:
    ctypes.string_at(0)


def abort(data: bytes) -> None:
    print("assertion failed: deep inside", file=sys.stderr, flush=True)
    os.abort()


def spin(data: bytes) -> None:
    while True:
        pass


def sleep(data: bytes) -> None:
    time.sleep(60)


def allocate(data: bytes) -> int:
    return len(bytearray(1 << 34))


def allocate_slowly(data: bytes) -> None:
    held = []
    while True:
        held.append(bytearray(1 << 20))


def recurse(data: bytes) -> None:
    recurse(data)


def refuse(data: bytes) -> None:
    raise CheckpointError("the header is\nnot one")


def fail(data: bytes) -> None:
    raise KeyError("weights\n\x1b[31m")


def flood(data: bytes) -> bytes:
    return bytes(1 << 22)


def return_object(data: bytes) -> object:
    return object()


def print_much(data: bytes) -> str:
    print("x" * 100_000)
    os.write(1, b"\xff" * 100_000)
    return "done"


def write_file(data: bytes) -> None:
    with Path(data.decode()).open("wb") as file:
        file.write(b"x" * 1000)
        file.flush()


def leave_early(data: bytes) -> None:
    os._exit(0)


def start_another(data: bytes) -> str:
    subprocess.Popen(["sleep", "60"])
    time.sleep(60)
    return ""

"""What the core does right now: clock, vector throughput, read bandwidth."""

from __future__ import annotations

import ctypes
import os
import platform
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from rig import compiler

ALLOWED_CPUS = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
"""CPUs that the process may use, before it is tied to one; none where that cannot be asked."""

_SEEN: dict[str, float] = {}

READ_BYTES = 2 << 20
"""Size of the buffer of the bandwidth probe: the weights of F1."""


class Probes(Protocol):
    """How the core is looked at; ``kind`` says by what."""

    kind: str

    def clock_ghz(self) -> float | None:
        """Return the clock, or None where nothing can measure it."""

    def vector_rate(self) -> float:
        """Return the vector throughput: operations a nanosecond, or any unit without a compiler."""

    def read_rate(self) -> float:
        """Return bytes a nanosecond of reading READ_BYTES again and again."""


class CompiledProbes:
    """Probes in C."""

    kind = "C"

    def __init__(self) -> None:
        self._library = compiler.load("probes.c")
        for function in ("probe_clock", "probe_vector", "probe_read"):
            getattr(self._library, function).restype = ctypes.c_double
        self._library.probe_read.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]

    def clock_ghz(self) -> float:
        """See Probes."""
        return 1e-9 * float(self._library.probe_clock())

    def vector_rate(self) -> float:
        """See Probes.  The first of two streams finds its code and the timer in no cache."""
        self.single_vector_rate()
        return self.single_vector_rate()

    def single_vector_rate(self) -> float:
        """Return the rate of one stream, right after whatever was done before."""
        return 1e-9 * float(self._library.probe_vector())

    def read_rate(self) -> float:
        """See Probes."""
        buffer = np.zeros(READ_BYTES + 64, np.uint8)
        start = -(-buffer.ctypes.data // 64) * 64
        return 1e-9 * float(self._library.probe_read(start, READ_BYTES, 20))


class InterpretedProbes:
    """Probes without a C compiler: Numba for the clock where it is installed, NumPy for the rest.

    A step of Numba's chain is three shifts and three XORs, 6 cycles on x86; compilers shorten
    chains of additions.  Elsewhere the clock is not known.
    """

    def __init__(self) -> None:
        self._chain = _numba_chain() if platform.machine() in ("x86_64", "AMD64") else None
        self.kind = "NumPy" if self._chain is None else "Numba"
        self._words = np.ones(1 << 11, np.uint64)
        self._large = np.ones(READ_BYTES // 8, np.uint64)

    def clock_ghz(self) -> float | None:
        """See Probes."""
        if self._chain is None:
            return None
        steps = 10_000
        return 6 * steps / (1e9 * min(_seconds(self._chain, steps, steps) for _ in range(3)))

    def vector_rate(self) -> float:
        """See Probes."""
        return 40 / (1e9 * _seconds(_repeat_and, self._words, 40))

    def read_rate(self) -> float:
        """See Probes."""
        return READ_BYTES / (1e9 * min(_seconds(np.sum, self._large) for _ in range(20)))


def make() -> Probes:
    """Return the best probes that work here."""
    try:
        return CompiledProbes()
    except compiler.NoCompilerError:
        return InterpretedProbes()


def known_peak() -> float:
    """Return how many vector operations a cycle the probe reaches on this core; 0 if unknown.

    Measured on Zen 3 and Zen 4 (four vector pipes); Intel's cores since Haswell have three.
    """
    fields = cpu_fields()
    try:
        family, model = int(fields.get("cpu family", "0")), int(fields.get("model", "0"))
    except ValueError:
        return 0.0
    if fields.get("vendor_id") == "AuthenticAMD":
        return 4.0 if family >= 0x19 or (family == 0x17 and model >= 0x30) else 0.0
    return 3.0 if fields.get("vendor_id") == "GenuineIntel" and family == 6 else 0.0


def cpu_fields() -> dict[str, str]:
    """Return what /proc/cpuinfo says about the first CPU; nothing where there is no such file."""
    try:
        lines = Path("/proc/cpuinfo").read_text(errors="replace").partition("\n\n")[0].splitlines()
    except OSError:
        return {}
    return {key.strip(): value.strip() for key, _, value in (e.partition(":") for e in lines)}


def cpu_name() -> str:
    """Return the CPU's name; family and model with it, because names of virtual CPUs say little."""
    fields = cpu_fields()
    name = fields.get("model name") or fields.get("Model") or platform.processor() or "unknown CPU"
    if "cpu family" in fields:
        name += f" (family {fields['cpu family']}, model {fields.get('model', '?')})"
    return name


def int8_features() -> str:
    """Return which instructions for int8 the operating system offers; "" where it does not say."""
    fields = cpu_fields()
    offered = (fields.get("flags") or fields.get("Features") or "").split()
    if not offered:
        return ""
    known = ("avx_vnni", "avx512_vnni", "amx_int8", "asimddp", "i8mm", "sve2")
    return " ".join(name for name in known if name in offered) or "none"


def peak(core: Probes) -> float:
    """Return the full throughput of the vector probe, per cycle where there is a clock.

    Where the core is not known it is the best that has been seen in this process: if another
    process has been there all the time, nothing can tell.
    """
    clock = core.clock_ghz()
    rate = sorted(core.vector_rate() for _ in range(50))[40] / (clock or 1.0)
    _SEEN[core.kind] = max(_SEEN.get(core.kind, 0.0), rate)
    known = known_peak() if core.kind == "C" else 0.0
    return known or _SEEN[core.kind]


def pin_to_quietest(core: Probes) -> int | None:
    """Move every thread of this process to the one CPU where vectors run best; None: not here."""
    if not ALLOWED_CPUS:
        return None
    rates: dict[int, float] = {}
    for cpu in ALLOWED_CPUS:
        move_to([cpu])
        rates[cpu] = min(core.vector_rate() for _ in range(10))
    best = max(rates, key=lambda cpu: rates[cpu])
    move_to([best])
    return best


def move_to(cpus: list[int]) -> None:
    """Tie every thread of this process to these CPUs; threads made later follow their maker."""
    for thread in Path("/proc/self/task").iterdir():
        try:
            os.sched_setaffinity(int(thread.name), cpus)
        except ProcessLookupError:  # it has ended since
            continue


def release() -> None:
    """Let the process use all of its CPUs again."""
    if ALLOWED_CPUS:
        move_to(ALLOWED_CPUS)


def _seconds(function: Callable[..., Any], *args: Any) -> float:
    start = time.perf_counter()
    function(*args)
    return time.perf_counter() - start


def _repeat_and(words: Any, times: int) -> None:
    for _ in range(times):
        np.bitwise_and(words, words, out=words)


def _numba_chain() -> Callable[[int, int], Any] | None:
    try:
        import numba
    except ImportError:
        return None

    @numba.njit
    def chain(steps: int, seed: int) -> int:
        x = np.uint64(seed)
        for _ in range(steps):
            x ^= x << np.uint64(13)
            x ^= x >> np.uint64(7)
            x ^= x << np.uint64(17)
        return x

    chain(1, 1)
    return chain

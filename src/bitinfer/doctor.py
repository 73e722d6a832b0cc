"""What is slow or wrong on this machine, and how to mend it.

Every check looks at the machine as it is, and yields what it finds: a *fault* makes bitinfer slow
or wrong now, a *note* does no harm yet.
"""

from __future__ import annotations

import dataclasses
import os
import platform
import re
import shlex
import shutil
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Literal

from bitinfer import backends
from bitinfer._version import __version__
from bitinfer.errors import BitInferError
from bitinfer.files import one_line

Level = Literal["fault", "note"]


@dataclasses.dataclass(frozen=True)
class Finding:
    """What a check found: what is so, what it costs, and how to mend it."""

    check: str
    level: Level
    what: str
    mend: str


def examine(measured: Clock | None, root: Path = Path("/")) -> tuple[Finding, ...]:
    """Run all checks.

    ``measured`` is what :func:`measure_clock` gave, ``root`` is where /proc and /sys are.
    """
    checks: Sequence[Iterable[Finding]] = (
        installations(),
        extension(),
        compiler(),
        kernels(),
        numba_loops(),
        cpus(root),
        clock(measured, root),
    )
    return tuple(finding for found in checks for finding in found)


# --- what is installed ---------------------------------------------------------------------------


def installations(path: Sequence[str] | None = None) -> Iterator[Finding]:
    """Find other installations of bitinfer that this Python sees."""
    here = Path(__file__).parent.resolve()
    others: dict[Path, str] = {}
    for folder in sys.path if path is None else path:
        package = Path(folder or ".", "bitinfer").resolve()
        if package != here and (package / "_version.py").is_file():
            others[package] = _version_in(package)
    for package, version in others.items():
        yield Finding(
            "two versions installed",
            "fault",
            f"bitinfer {__version__} runs from {here}, but {package} holds version {version}",
            f"uninstall one of them: {shlex.quote(sys.executable)} -m pip uninstall bitinfer, or "
            "take its folder off PYTHONPATH",
        )


def _version_in(package: Path) -> str:
    text = (package / "_version.py").read_text(errors="replace")
    found = re.search(r"__version__ = \"([^\"]*)\"", text)
    return one_line(found[1], 40) if found else "unknown"


def _native_reason() -> str:
    """Return why the native backend is absent; nothing if it is there."""
    status = {s.name: s for s in backends.status()}["native"]
    return "" if status.available else status.reason


_ELF_MACHINES = {3: "i686", 40: "armv7l", 62: "x86_64", 183: "aarch64", 243: "riscv64"}


def extension(package: Path = Path(__file__).parent) -> Iterator[Finding]:
    """Find out why there is no compiled extension, if there is none."""
    files = sorted((package / "backends" / "native").glob("_native*.so"))
    machines = {machine for file in files if (machine := _machine_of(file))}
    if machines and platform.machine() not in machines:
        yield Finding(
            "wheel of another architecture",
            "fault",
            f"the extension is for {', '.join(sorted(machines))}, this Python runs on "
            f"{platform.machine()}: the native backend cannot be loaded",
            "install the wheel for this machine: pip install --force-reinstall bitinfer",
        )
    elif reason := _native_reason():
        yield Finding(
            "no compiled extension",
            "fault",
            f"the native backend is absent: {one_line(reason, 200)}",
            "install a C compiler and the Python headers (Debian: gcc python3-dev), then bitinfer "
            "again: pip install --force-reinstall bitinfer",
        )


def _machine_of(library: Path) -> str:
    """Return which machine an ELF file is for; nothing if it is no such file."""
    try:
        with library.open("rb") as file:
            head = file.read(20)
    except OSError:
        return ""
    if len(head) < 20 or head[:4] != b"\x7fELF":
        return ""
    order: Literal["little", "big"] = "little" if head[5] == 1 else "big"
    number = int.from_bytes(head[18:20], order)
    return _ELF_MACHINES.get(number, f"ELF machine {number}")


def compiler() -> Iterator[Finding]:
    """Find out whether there is a C compiler."""
    command = shlex.split(os.environ.get("CC", "")) or ["cc"]
    if shutil.which(command[0]) or shutil.which("gcc") or shutil.which("clang"):
        return
    yield Finding(
        "no compiler",
        "fault" if _native_reason() else "note",
        "there is no C compiler"
        + (": bitinfer was installed without its native backend" if _native_reason() else ""),
        "only an installation from source, and the size that export-c states, need one; "
        "Debian: apt install gcc python3-dev",
    )


# --- what runs -----------------------------------------------------------------------------------


def kernels() -> Iterator[Finding]:
    """Find out whether the kernels are the best that this CPU could have."""
    forced = os.environ.get(backends.ENVIRONMENT_VARIABLE, "").strip()
    try:
        label = backends.select().label
    except BitInferError as error:
        yield Finding(
            "no backend",
            "fault",
            one_line(error, 200),
            f"unset {backends.ENVIRONMENT_VARIABLE}",
        )
        return
    features = backends.cpu_features()
    if features and "avx2" in features and not features["avx2"]:
        yield Finding(
            "no AVX2",
            "fault",
            "this CPU lacks AVX2: kernels that do a word at a time run, several times slower",
            "run on an x86-64 CPU of 2015 or later, or let the virtual machine show the host's CPU",
        )
    name, _, choice = label.partition(":")
    best = [isa for isa, runs in features.items() if runs]
    if name == "native" and best and choice.partition(",")[0] != best[-1]:
        cap = choice.partition(",")[0]
        lacks = "no AVX2" if "avx2" in best and best.index(cap) < best.index("avx2") else "a cap"
        yield Finding(
            lacks,
            "fault",
            f"{backends.ENVIRONMENT_VARIABLE}={forced} caps the kernels at {cap}; this CPU has "
            f"{best[-1]}",
            f"unset {backends.ENVIRONMENT_VARIABLE}",
        )
    elif name != "native" and not _native_reason():
        yield Finding(
            "a slower backend",
            "fault",
            f"{backends.ENVIRONMENT_VARIABLE}={forced} chooses {label}, though native is there",
            f"unset {backends.ENVIRONMENT_VARIABLE}",
        )


def numba_loops() -> Iterator[Finding]:
    """Find out whether numba is there, and keeps what it compiles."""
    is_needed = bool(_native_reason())
    level: Level = "fault" if is_needed else "note"
    status = {s.name: s for s in backends.status()}["numba"]
    if not status.available:
        yield Finding(
            "numba missing",
            level,
            f"the numba backend is absent: {one_line(status.reason, 200)}"
            + ("; NumPy alone runs the networks" if is_needed else "; native does not need it"),
            "pip install 'bitinfer[numba]'",
        )
        return
    folder = backends.numba_cache_folder()
    wanted = os.environ.get("NUMBA_CACHE_DIR", "")
    if folder is None:
        what = "numba's cache cannot be written: every process compiles the loops anew, for seconds"
    elif wanted and Path(wanted).resolve() not in folder.resolve().parents:
        what = f"NUMBA_CACHE_DIR={one_line(wanted)} cannot be written: numba uses {folder} instead"
    else:
        return
    yield Finding(
        "numba cache unwritable",
        level,
        what,
        "set NUMBA_CACHE_DIR to a folder that this user can write to",
    )


# --- the machine ---------------------------------------------------------------------------------


def cpus(root: Path = Path("/")) -> Iterator[Finding]:
    """Find limits on how many CPUs this process may use."""
    there = os.cpu_count() or 1
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else there
    if allowed < there:
        yield Finding(
            "affinity",
            "fault",
            f"this process may run on {allowed} of {there} CPUs: threads=0 means at most {allowed}",
            "start it without taskset or numactl, or give its container more CPUs (cpuset)",
        )
    usable = backends.usable_cpus(root)
    if usable < allowed:
        throttled = _throttled_periods(root)
        yield Finding(
            "cgroup limit",
            "fault",
            f"a CPU quota grants {usable} of {allowed} CPUs: more threads are stopped, over and "
            f"over{f' ({throttled} times so far)' if throttled else ''}",
            "raise the quota (docker run --cpus, Kubernetes limits.cpu), or use no more threads",
        )


def _throttled_periods(root: Path) -> int:
    """Return how often the quota has stopped this group, as far as that is known."""
    for name in ("cpu.stat", "cpu/cpu.stat"):
        try:
            text = (root / "sys" / "fs" / "cgroup" / name).read_text()
        except OSError:
            continue
        found = re.search(r"^nr_throttled (\d+)$", text, re.MULTILINE)
        if found:
            return int(found[1])
    return 0


LEAST_SHARE = 0.9
"""Of the time of a core, below which it is shared with others."""
LEAST_CLOCK = 0.7
"""Of the clock that the CPU is made for, below which it is throttled."""


@dataclasses.dataclass(frozen=True)
class Clock:
    """A measurement: cycles a second at best, and the share of a core that this process got."""

    hz: float
    share: float


def measure_clock(seconds: float = 0.3) -> Clock | None:
    """Compute for a while, and return how fast that went; None without the native backend."""
    best = 0.0
    started, computed = time.perf_counter(), time.process_time()
    while (took := time.perf_counter() - started) < seconds:
        hz = backends.clock_hz()
        if hz is None:
            return None
        best = max(best, hz)
    return Clock(best, min(1.0, (time.process_time() - computed) / took))


def clock(found: Clock | None, root: Path = Path("/")) -> Iterator[Finding]:
    """Find out whether the core is shared with others, or slower than it is made to be."""
    if found is None:
        return
    if found.share < LEAST_SHARE:
        yield Finding(
            "shared clock",
            "fault",
            f"this process got {100 * found.share:.0f} % of a core while it computed: others run "
            "on the same CPUs, and times vary with them",
            "end them, or give this process a core of its own (taskset, cpuset)",
        )
    made_for = nominal_hz(root)
    if made_for is not None and found.hz < LEAST_CLOCK * made_for:
        yield Finding(
            "throttled clock",
            "fault",
            f"the core runs at {found.hz / 1e9:.2f} GHz, it is made for {made_for / 1e9:.2f} GHz",
            "look at the power governor (cpupower frequency-set -g performance), the temperature "
            "and the power limit",
        )


def nominal_hz(root: Path = Path("/")) -> float | None:
    """Return the clock that the CPU is made for, without turbo; None where nothing says."""
    folder = root / "sys" / "devices" / "system" / "cpu" / "cpu0" / "cpufreq"
    for name in ("base_frequency", "cpuinfo_max_freq"):
        try:
            return float((folder / name).read_text()) * 1e3
        except (OSError, ValueError):
            continue
    try:
        text = (root / "proc" / "cpuinfo").read_text(errors="replace")
    except OSError:
        return None
    found = re.search(r"^model name\s*:.*@ ([\d.]+)GHz", text, re.MULTILINE)
    return float(found[1]) * 1e9 if found else None

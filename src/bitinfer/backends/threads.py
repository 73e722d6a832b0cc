"""How many threads a backend may use: what the caller asks for, or what this process is given."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from bitinfer.errors import BackendError

MAX_THREADS = 256


def resolve(threads: int) -> int:
    """Return the number of threads that ``threads`` asks for; 0 is :func:`usable_cpus`.

    Raises:
        BackendError: it is no integer within 0 to MAX_THREADS.
    """
    if not isinstance(threads, int) or not 0 <= threads <= MAX_THREADS:
        raise BackendError(
            f"threads is {threads!r}, wanted an integer within 0 to {MAX_THREADS}; "
            "0 is what this process may use"
        )
    return int(threads) or min(usable_cpus(), MAX_THREADS)


def usable_cpus(root: Path = Path("/")) -> int:
    """Return how many CPUs this process may keep busy: those of its affinity, within its quota.

    A quota of two and a half CPUs is two: a third thread would only be stopped, over and over,
    with the others waiting for it.  ``root`` is where /proc and /sys are.
    """
    has_affinity = hasattr(os, "sched_getaffinity")
    cpus = len(os.sched_getaffinity(0)) if has_affinity else os.cpu_count() or 1
    return max(1, int(min([cpus, *_quotas(root)])))


def _quotas(root: Path) -> Iterator[float]:
    """Yield the CPUs that each control group around this process grants, where it limits them.

    A line of /proc/self/cgroup is "number:controllers:path"; version 2 has no controllers there.
    In a container the path may be the host's: the mount then shows the group itself at its root.
    """
    mount = root / "sys" / "fs" / "cgroup"
    for line in _read(root / "proc" / "self" / "cgroup").splitlines():
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if controllers == "":
            for tree in (mount, mount / "unified"):
                for folder in _with_parents(tree, path):
                    quota, _, period = _read(folder / "cpu.max").partition(" ")
                    yield from _ratio(quota, period)
        elif "cpu" in controllers.split(","):
            for tree in (mount / controllers, mount / "cpu"):
                for folder in _with_parents(tree, path):
                    quota = _read(folder / "cpu.cfs_quota_us")
                    yield from _ratio(quota, _read(folder / "cpu.cfs_period_us"))


def _with_parents(tree: Path, path: str) -> Iterator[Path]:
    """Yield the group's folder and all above it, up to the root of the mount."""
    parts = [part for part in path.split("/") if part not in ("", "..")]
    for count in range(len(parts), -1, -1):
        yield tree.joinpath(*parts[:count])


def _ratio(quota: str, period: str) -> Iterator[float]:
    """Yield quota / period, unless there is no limit ("max", -1) or the text is no number."""
    try:
        ratio = int(quota) / int(period)
    except (ValueError, ZeroDivisionError):
        return
    if ratio > 0:
        yield ratio


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except (OSError, ValueError):
        return ""

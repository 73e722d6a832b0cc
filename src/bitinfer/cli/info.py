"""``bitinfer info``: what this installation and this CPU offer."""

from __future__ import annotations

import argparse
import platform
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bitinfer._version import __version__
from bitinfer.cli import _common
from bitinfer.cli._terminal import printable, show, table

if TYPE_CHECKING:
    from bitinfer.documents.runs import Info

_FLAGS = ("popcnt", "sse4_2", "avx", "asimd", "sve")
"""How the names of the CPU features begin that matter to kernels."""


def add_parser(subparsers: Any) -> None:
    """Register the command and its arguments."""
    parser = subparsers.add_parser(
        "info",
        help="show versions, CPU, backends and kernels",
        description="Show the version, the CPU, which backends are present and why others are "
        "not, and the kernels of each operation, best first.",
    )
    _common.add_backend(parser)
    _common.add_json(parser, "info")


def run(args: argparse.Namespace) -> int:
    """Print what is there."""
    answer = describe(args.backend)
    if args.json:
        _common.print_json(answer)
    else:
        show([[(line, "")] for line in as_text(answer)])
    return 0


def describe(backend: str) -> Info:
    """Return the answer.

    Raises:
        BackendError, MissingExtraError: the backend, other than ``auto``, is not available here.
    """
    import numpy as np

    from bitinfer import backends
    from bitinfer.documents import SCHEMA_VERSION, runs
    from bitinfer.errors import BackendError, MissingExtraError

    try:
        label, kernels = backends.select(backend).label, backends.kernels(backend)
    except (BackendError, MissingExtraError) as error:
        if backend != "auto":
            raise
        # Who asks what is there must get an answer even if BITINFER_KERNELS names what is not.
        label, kernels = f"none: {error}", {}
    return runs.Info(
        schema_version=SCHEMA_VERSION,
        version=__version__,
        python=platform.python_version(),
        numpy=np.__version__,
        platform=f"{platform.system()} {platform.machine()}",
        cpu=runs.Cpu(model=_cpu_model(), features=_features(backends.cpu_features())),
        backends=tuple(backends.status()),
        backend=label,
        kernels=kernels,
    )


def _features(known: dict[str, bool]) -> dict[str, bool]:
    """Return what the native backend found; without one, what the kernel of Linux says."""
    if known:
        return known
    flags = _cpuinfo("flags", "Features").split()
    return {name: True for name in flags if name.startswith(_FLAGS)}


def _cpu_model() -> str:
    return (
        _cpuinfo("model name", "Hardware", "Model")
        or platform.processor()
        or platform.machine()
        or "unknown"
    )


def _cpuinfo(*keys: str) -> str:
    """Return the first value of the first of these keys that /proc/cpuinfo has, or nothing."""
    try:
        lines = Path("/proc/cpuinfo").read_text(errors="replace").splitlines()
    except OSError:
        return ""
    pairs = [(key.strip(), value.strip()) for key, _, value in (e.partition(":") for e in lines)]
    return next((v for key in keys for name, v in pairs if name == key and v), "")


def as_text(answer: Info) -> list[str]:
    """Return the answer as lines for people."""
    features = answer.cpu.features
    present = " ".join(name for name, there in features.items() if there)
    absent = " ".join(name for name, there in features.items() if not there)
    lines = [
        f"bitinfer  {answer.version}",
        f"python    {answer.python}, numpy {answer.numpy}, {answer.platform}",
        f"cpu       {printable(answer.cpu.model)}",
        f"features  {present or 'none that kernels use'}",
    ]
    if absent:
        lines.append(f"          without {absent}")
    lines += ["", "backends"]
    lines += table(
        [
            (
                f"  {backend.name}",
                "present" if backend.available else "absent",
                printable(backend.detail if backend.available else backend.reason),
            )
            for backend in answer.backends
        ]
    )
    lines += ["", f"kernels of {answer.backend}"]
    of_operations = [(f"  {name}", ", ".join(kernels)) for name, kernels in answer.kernels.items()]
    return lines + table(of_operations or [("",)])

"""The native kernels that tests are made from: of the loaded library, and of kernels.inc."""

from __future__ import annotations

import functools
import re
from pathlib import Path
from typing import NamedTuple

LIST = Path(__file__).parents[1] / "csrc" / "kernels" / "kernels.inc"


class Kernel(NamedTuple):
    """One line of the list; ``block`` outputs, or channels, are computed at a time."""

    operation: str
    method: str
    isa: str
    runs_here: bool
    block: int
    index: int

    @property
    def name(self) -> str:
        """What people see where the operation is known."""
        return f"{self.method} {self.isa}"

    @property
    def spec(self) -> str:
        """The backend whose first choice for the operation this kernel is."""
        return f"native:{self.isa},{self.operation}={self.method}"


@functools.cache
def _loaded() -> tuple[Kernel, ...]:
    from bitinfer.backends.native import load_library

    try:
        native = load_library()
    except ImportError:
        return ()
    lib, text = native.lib, native.ffi.string
    return tuple(
        Kernel(
            text(lib.bi_kernel_operation(i)).decode(),
            text(lib.bi_kernel_method(i)).decode(),
            text(lib.bi_kernel_isa(i)).decode(),
            bool(lib.bi_kernel_runs_here(i)),
            lib.bi_kernel_block(i),
            i,
        )
        for i in range(lib.bi_kernel_count())
    )


def listed_kernels(operation: str | None = None) -> list[Kernel]:
    """Return the kernels of the loaded library, of one operation or of all; none without one."""
    return [k for k in _loaded() if operation in (None, k.operation)]


def lines_of(architecture: str) -> list[tuple[str, str, str]]:
    """Return the lines of kernels.inc for an architecture such as ``x86_64``, in their order."""
    lines, here = [], True
    for line in LIST.read_text().splitlines():
        if condition := re.fullmatch(r"#if defined\(__(\w+)__\)", line):
            here = condition[1] == architecture
        elif line == "#endif":
            here = True
        elif here and (kernel := re.fullmatch(r"BI_KERNEL\((\w+), (\w+), (\w+)\)", line)):
            lines.append((kernel[1], kernel[2], kernel[3]))
    return lines

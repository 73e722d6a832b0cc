"""Which kernels a plan gets on CPUs that this one is not, and what they need there."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np

from bitinfer.backends.base import aligned_bytes
from bitinfer.backends.native import instruction_sets, kernel_name, load_library
from bitinfer.backends.native.records import Record, records
from bitinfer.backends.native.structs import new_step, pointer_to, write
from bitinfer.plan.steps import Plan

_native = load_library()
_ffi, _lib = _native.ffi, _native.lib

_PORTABLE = 0
"""The number of the instruction set that every CPU has."""


@dataclasses.dataclass(frozen=True)
class Choice:
    """A kernel that a step may get.

    Attributes:
        method, isa: its name.
        weight_bytes: of the weight as it re-lays it; 0 if it takes the canonical one.
        scratch_bytes: what it needs in the arena.
        packed: the re-laid weight, if there is one and this CPU can make it.
    """

    method: str
    isa: str
    weight_bytes: int
    scratch_bytes: int
    packed: bytes | None = None


def targets() -> Mapping[str, tuple[str, ...]]:
    """Return the kinds of CPUs that C tells apart, each with its instruction sets, poorest first.

    ``other`` is every CPU that has only kernels in plain C.
    """
    here = tuple(instruction_sets())
    return {
        "x86_64": here if "avx2" in here else ("portable",),
        "aarch64": ("portable", "neon"),
        "other": ("portable",),
    }


def choices(plan: Plan, isas: Collection[str]) -> tuple[tuple[Choice, ...], ...]:
    """Return for every step the kernels that it gets on CPUs of one target, best first.

    Each of ``isas`` stands for a CPU whose richest instruction set it is.
    """
    return tuple(_choices_of(record, isas) for record in records(plan))


def _choices_of(record: Record, isas: Collection[str]) -> tuple[Choice, ...]:
    struct = new_step()
    kept = write(struct, record)
    known = list(instruction_sets())
    found: dict[tuple[str, str], Choice] = {}
    for isa in isas:
        choice = None
        if isa == "neon" and isa not in known:
            choice = _on_neon(record, struct)
        if choice is None:
            level = known.index(isa) if isa in known else _PORTABLE
            kernel = _lib.bi_kernel_on(record.operation.encode(), level, struct)
            choice = _choice(kernel, record, struct)
        found[choice.method, choice.isa] = choice
    del kept
    ordered = sorted(found.values(), key=lambda c: -_rank(c.isa, known))
    return tuple(ordered)


def _rank(isa: str, known: Sequence[str]) -> int:
    return known.index(isa) if isa in known else len(known)


def _choice(kernel: int, record: Record, struct: Any) -> Choice:
    """Return the choice of a kernel that this library has."""
    struct.kernel = kernel
    method, isa = kernel_name(kernel).split()
    size = int(_lib.bi_weight_bytes(struct)) if record.weight is not None else 0
    packed = None
    if size and _lib.bi_kernel_runs_here(kernel):
        canonical = np.ascontiguousarray(record.weight)
        room = aligned_bytes(size)
        _lib.bi_pack_weight(struct, pointer_to("void *", canonical), pointer_to("void *", room))
        packed = room.tobytes()
    return Choice(method, isa, size, int(_lib.bi_scratch_bytes(struct)), packed)


def _on_neon(record: Record, struct: Any) -> Choice | None:
    """Return the NEON kernel that takes the step, if one does: this library knows its layout."""
    for method in neon_methods(record.operation):
        needs = _ffi.new("int64_t[2]")
        words = record.operation.encode(), method.encode()
        if _lib.bi_neon_needs(*words, struct, needs, needs + 1) == 1:
            size = int(needs[0]) if record.weight is not None else 0
            return Choice(method, "neon", size, int(needs[1]))
    return None


def neon_methods(operation: str) -> tuple[str, ...]:
    """Return the methods of an operation that kernels.inc lists for NEON, best first."""
    return tuple(method for op, method, isa in listed() if (op, isa) == (operation, "neon"))


def listed() -> tuple[tuple[str, str, str], ...]:
    """Return operation, method and instruction set of every line of kernels.inc, in its order."""
    import re

    from bitinfer.backends.native import source_dir

    text = (source_dir() / "kernels" / "kernels.inc").read_text(encoding="utf-8")
    lines = re.findall(r"^BI_KERNEL\((\w+), (\w+), (\w+)\)", text, re.MULTILINE)
    return tuple((operation, method, isa) for operation, method, isa in lines)

"""What the compiler made of the kernels: the rules that a look at the source cannot check.

A file's name ends with the instruction set that its kernels may use; a file without one, and a
portable one, may use what every CPU of the architecture has.  The rules are for x86-64.
"""

from __future__ import annotations

import dataclasses
import itertools
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

from disassembly import Function, Instruction, functions

_AVX512_REGISTERS = r"%zmm|%k[0-7]|%[xy]mm(?:1[6-9]|2\d|3[01])"
_LATER_AVX512 = (
    r"vperm[it]2b|vpermb|vpmultishiftqb|vpopcnt[bwdq]|vpshufbitqmb|vpdpbusds?|vpdpwssds?"
)
FORBIDDEN = {
    "portable": (r"%[yz]mm|%k[0-7]", r"v.*|popcnt|[lt]zcnt|pext|pdep|crc32.*|pshufb"),
    "popcnt": (r"%[yz]mm|%k[0-7]", r"v(?!err|erw).*|[lt]zcnt|pext|pdep|pshufb"),
    "avx2": (_AVX512_REGISTERS, r"pext|pdep|[lt]zcnt|" + _LATER_AVX512),
    "avx512bw": (r"(?!)", r"[lt]zcnt|" + _LATER_AVX512),
    "avx512vbmi": (r"(?!)", r"[lt]zcnt"),
}
"""By instruction set: registers and instructions that a CPU of that name need not have."""

_WIDE = re.compile(r"%[yz]mm(?:\d|1[0-5])\b")
_PADDING = re.compile(r"nop|xchg|data16|cs\b")
_VECTOR = re.compile(r"%[xyz]mm")
_ON_STACK = re.compile(r"\(%rsp|-0x[0-9a-f]+\(%rbp")
_LOOK_UP = re.compile(r"vpshufb|vpermb")
_MOVE = re.compile(r"v?mov[au]p[sd]|v?movdq[au](?:8|16|32|64)?")


def isa_of(source: str) -> str:
    """Return the instruction set that a file's name allows."""
    last = Path(source).stem.rpartition("_")[2]
    return last if last in FORBIDDEN else "portable"


@dataclasses.dataclass
class Report:
    """What the look at some object files gave."""

    functions: int = 0
    look_up_loops: Counter[str] = dataclasses.field(default_factory=Counter)
    """How many innermost loops look tables up, by instruction set."""
    offences: list[str] = dataclasses.field(default_factory=list)


def check(objects: Iterable[Path]) -> Report:
    """Hold object files against the rules."""
    report = Report()
    for path in objects:
        isa = isa_of(path.name)
        for function in functions(path):
            found = [*foreign(function, isa), *dirty_returns(function), *spills(function)]
            report.offences += [f"{path.name}, {function.name}: {text}" for text in found]
            report.functions += 1
            report.look_up_loops[isa] += len(look_up_loops(function))
    return report


def foreign(function: Function, isa: str) -> Iterator[str]:
    """Yield the first instruction that CPUs with ``isa`` need not have."""
    registers, names = (re.compile(text) for text in FORBIDDEN[isa])
    for i in function.body:
        if registers.search(i.operands) or names.fullmatch(i.name):
            yield f"{i} is not {isa}"
            return


def look_up_loops(function: Function) -> list[list[Instruction]]:
    """Return the innermost loops that look something up in tables."""
    return [
        loop for loop in function.innermost_loops() if any(_LOOK_UP.match(i.name) for i in loop)
    ]


def spills(function: Function) -> Iterator[str]:
    """Yield the vectors that a look-up's innermost loop moves to or from the stack."""
    for loop in look_up_loops(function):
        for i in loop:
            if (
                _MOVE.fullmatch(i.name)
                and _VECTOR.search(i.operands)
                and _ON_STACK.search(i.operands)
            ):
                yield f"{i} spills in the loop {loop[0].address:x}-{loop[-1].address:x}"


def dirty_returns(function: Function) -> Iterator[str]:
    """Yield the ends that may be reached with upper halves in use: ``vzeroupper`` is missing.

    Then every SSE instruction of the caller, libm's for instance, waits for them.
    """
    if function.name.endswith(".cold") or not any(_WIDE.search(i.operands) for i in function.body):
        return  # a part of another function, which it jumps back into
    dirty_at = _dirty_before(function)
    for i in function.body:
        if i.leaves and dirty_at.get(i.address, False):
            yield f"{i} without vzeroupper"


def _dirty_before(function: Function) -> dict[int, bool]:
    """Return, for every instruction that is reached, whether upper halves may be in use there.

    Where a jump through a table leads is not known: its cases begin as the jumps are reached, and
    clean if these differ.
    """
    body = function.body
    targets = {i.target for i in body if i.target is not None}
    code = [i for i in body if not _PADDING.match(i.name)]
    cases = [
        after
        for before, after in itertools.pairwise(code)
        if not before.falls_through and after.address not in targets
    ]
    dirty = _flow(body, [(body[0], False), *((case, False) for case in cases)])
    switches = [dirty.get(i.address, False) for i in body if i.is_indirect]
    if switches and all(switches):
        dirty = _flow(body, [(body[0], False), *((case, True) for case in cases)])
    return dirty


def _flow(body: list[Instruction], starts: list[tuple[Instruction, bool]]) -> dict[int, bool]:
    """Follow all paths from instructions that are reached dirty or clean."""
    index = {i.address: n for n, i in enumerate(body)}
    dirty: dict[int, bool] = {}
    todo = [(i.address, state) for i, state in starts]
    while todo:
        address, state = todo.pop()
        for n in range(index[address], len(body)):
            i = body[n]
            if dirty.get(i.address) in (state, True):
                break
            dirty[i.address] = state
            state = _after(i, state)
            if i.target is not None:
                todo.append((i.target, state))
            if not i.falls_through:
                break
    return dirty


def _after(i: Instruction, dirty: bool) -> bool:
    """Return whether upper halves may be in use after an instruction."""
    if i.name in ("vzeroupper", "vzeroall"):
        return False
    return dirty or bool(_WIDE.search(i.operands.rpartition(",")[2]))

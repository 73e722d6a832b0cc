"""Functions, branches and loops of an x86-64 object file, as objdump shows them."""

from __future__ import annotations

import dataclasses
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

_FUNCTION = re.compile(r"^[0-9a-f]+ <(.+)>:$")
_INSTRUCTION = re.compile(r"^ *([0-9a-f]+):\t(\S.*)$")
_PREFIXES = re.compile(r"^(?:(?:notrack|bnd|lock|rep|repz|repnz|data16|cs|ds) +)+")
_TARGET = re.compile(r"^([0-9a-f]+) <")
_ENDS = {"ret", "ud2", "hlt"}


@dataclasses.dataclass
class Instruction:
    """One machine instruction; ``target`` is where it may jump to within its function."""

    address: int
    name: str
    operands: str
    target: int | None = None
    is_indirect: bool = False
    """Whether it jumps to an address from a register or table."""
    leaves: bool = False
    """Whether it returns, or jumps into another function."""

    def __str__(self) -> str:
        return f"{self.address:x}: {self.name} {self.operands}".rstrip()

    @property
    def falls_through(self) -> bool:
        """Whether the next instruction may follow."""
        return self.name != "jmp" and self.name not in _ENDS


@dataclasses.dataclass
class Function:
    """A function: its name and its instructions by address."""

    name: str
    body: list[Instruction] = dataclasses.field(default_factory=list)

    def innermost_loops(self) -> list[list[Instruction]]:
        """Return the loops without another one inside.

        A loop is what a jump leads back over, if nothing else jumps into the midst of it: the
        compiler also puts the rare half of a loop behind the function's end, and jumps back.
        """
        jumps = [(i.address, i.target) for i in self.body if i.target is not None]
        back = {(target, address) for address, target in jumps if target <= address}
        loops = [
            (first, last)
            for first, last in sorted(back)
            if not any(
                first < target <= last and not first <= address <= last for address, target in jumps
            )
        ]
        inner = [
            (first, last)
            for first, last in loops
            if not any(first <= a and b <= last and (a, b) != (first, last) for a, b in back)
        ]
        return [[i for i in self.body if first <= i.address <= last] for first, last in inner]


def functions(path: Path) -> list[Function]:
    """Disassemble an object file."""
    command = ["objdump", "-dr", "--no-show-raw-insn", "-w", str(path)]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return list(parse(text))


def parse(text: str) -> Iterator[Function]:
    """Yield the functions of what ``objdump -dr --no-show-raw-insn -w`` prints."""
    function: Function | None = None
    for line in text.splitlines():
        if match := _FUNCTION.match(line):
            if function is not None:
                yield _joined(function)
            function = Function(match[1])
        elif function is not None and (match := _INSTRUCTION.match(line)):
            function.body.append(_instruction(int(match[1], 16), match[2]))
    if function is not None:
        yield _joined(function)


def _instruction(address: int, text: str) -> Instruction:
    """Read one instruction; a relocation behind it means that its target is elsewhere."""
    text, _, relocation = text.partition("\t")
    name, _, operands = _PREFIXES.sub("", text.strip()).partition(" ")
    operands = operands.partition("#")[0].strip()
    instruction = Instruction(address, name, operands)
    if name.startswith("ret"):
        instruction.name, instruction.leaves = "ret", True
    elif name.startswith("j"):
        if operands.startswith("*"):
            instruction.is_indirect = True
        elif relocation:
            # The compiler keeps what is hardly ever reached elsewhere; that part is not followed.
            instruction.leaves = ".text.unlikely" not in relocation
        elif target := _TARGET.match(operands):
            instruction.target = int(target[1], 16)
    return instruction


def _joined(function: Function) -> Function:
    """Tell jumps within a function from those that leave it."""
    own = {i.address for i in function.body}
    for i in function.body:
        if i.target is not None and i.target not in own:
            i.target, i.leaves = None, True
    return function

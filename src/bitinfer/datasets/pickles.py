"""Decodes the pickles that CIFAR is published in without executing them.

A pickle is a program that may call anything.  This machine knows dicts, lists, tuples, text, bytes
and numbers; what the program would call is kept as a name with its arguments, and is never called.

Source: CPython Lib/pickletools.py, whose parser of opcodes reads and does nothing else.
"""

from __future__ import annotations

import dataclasses
import io
import pickletools
from collections.abc import Callable
from typing import IO, Any

MAX_STEPS = 1 << 19
"""Most opcodes.  A batch of 10,000 pictures with their file names takes 50,000."""

_NAME_BYTES = 256
_OPCODES = {opcode.code: opcode for opcode in pickletools.opcodes}


@dataclasses.dataclass(eq=False, slots=True)
class Call:
    """What a pickle would make by calling ``name``; nothing was called.

    Attributes:
        name: module and name, as ``numpy.dtype``.
        arguments, state: what it would be called with, and what would be put into it then.
    """

    name: str
    arguments: tuple[Any, ...] = ()
    state: Any = None


def unpickle(data: bytes) -> Any:
    """Return the value of a pickle: plain data, with :class:`Call` where it would call something.

    Dict entries whose key is neither text nor bytes are left out.

    Raises:
        ValueError: not such a pickle, or one of more than MAX_STEPS opcodes.
    """
    machine = _Machine()
    try:
        file = io.BytesIO(data)
        for number in range(MAX_STEPS):
            opcode = _OPCODES[file.read(1).decode("latin-1")]
            if opcode.name == "STOP":
                return machine.stack.pop()
            if opcode.name not in _KNOWN:
                raise ValueError(f"a pickle with the opcode {opcode.name}")
            if opcode.name == "GLOBAL":  # whose parser interprets backslashes
                argument: Any = " ".join(_read_name(file) for _ in range(2))
            else:
                argument = None if opcode.arg is None else opcode.arg.reader(file)
            machine.step(opcode.name, argument, number)
    except (IndexError, KeyError, TypeError, AttributeError, OverflowError) as error:
        raise ValueError(f"a damaged pickle ({type(error).__name__})") from error
    raise ValueError(f"a pickle of more than {MAX_STEPS} steps")


def _read_name(file: IO[bytes]) -> str:
    return file.readline(_NAME_BYTES).decode("latin-1").removesuffix("\n")


class _Machine:
    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.marks: list[list[Any]] = []
        self.memo: dict[int, Any] = {}

    def step(self, name: str, argument: Any, number: int) -> None:
        if name in _VALUES:
            self.stack.append(argument)
        elif name in _CONSTANTS:
            self.stack.append(_CONSTANTS[name]())
        elif name in _ACTIONS:
            _ACTIONS[name](self, argument)
        elif name in _PUTS:
            index = len(self.memo) if argument is None else argument
            # Picklers count up, from 0 or (Python 2) from 1.
            if not 0 <= index <= number + 1:
                raise ValueError("a pickle that numbers its values at will")
            self.memo[index] = self.stack[-1]

    def mark(self, _: Any) -> None:
        self.marks.append(self.stack)
        self.stack = []

    def items(self) -> list[Any]:
        """Take what was put since the last mark."""
        items, self.stack = self.stack, self.marks.pop()
        return items

    def make(self, kind: Callable[[list[Any]], Any]) -> None:
        """Put a value made of what was put since the last mark."""
        value = kind(self.items())
        self.stack.append(value)

    def make_tuple(self, count: int) -> None:
        items = [self.stack.pop() for _ in range(count)]
        self.stack.append(tuple(reversed(items)))

    def set_items(self, pairs: list[Any]) -> None:
        target = self.stack[-1]
        for key, value in zip(pairs[::2], pairs[1::2], strict=True):
            if isinstance(key, str | bytes) and isinstance(target, dict):
                target[key] = value

    def set_item(self, _: Any) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        self.set_items([key, value])

    def extend(self, items: list[Any]) -> None:
        if isinstance(self.stack[-1], list):
            self.stack[-1].extend(items)

    def name(self, name: str) -> None:
        self.stack.append(Call(name))

    def name_from_stack(self, _: Any) -> None:
        name, module = self.stack.pop(), self.stack.pop()
        self.name(f"{module!s:.{_NAME_BYTES}} {name!s:.{_NAME_BYTES}}")

    def call(self, _: Any) -> None:
        arguments, function = self.stack.pop(), self.stack.pop()
        if not isinstance(function, Call) or not isinstance(arguments, tuple):
            raise ValueError("a pickle that calls no name")
        # How Python 3 writes bytes in the protocol of Python 2.
        if function.name == "_codecs encode" and isinstance(arguments[0], str):
            self.stack.append(arguments[0].encode("latin-1"))
        else:
            self.stack.append(Call(function.name, arguments))

    def build(self, _: Any) -> None:
        state = self.stack.pop()
        if isinstance(self.stack[-1], Call):
            self.stack[-1].state = state

    def make_dict(self, _: Any) -> None:
        items = self.items()
        self.stack.append({})
        self.set_items(items)


_VALUES = frozenset(
    (
        *("BININT", "BININT1", "BININT2", "LONG1", "LONG4", "BINFLOAT"),
        *("BINSTRING", "SHORT_BINSTRING", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"),
        *("BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8"),
    )
)
_PUTS = frozenset(("BINPUT", "LONG_BINPUT", "MEMOIZE"))
_CONSTANTS: dict[str, Callable[[], Any]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_LIST": list,
    "EMPTY_DICT": dict,
    "EMPTY_TUPLE": tuple,
}
_ACTIONS: dict[str, Callable[[_Machine, Any], None]] = {
    "MARK": _Machine.mark,
    "TUPLE": lambda m, _: m.make(tuple),
    "TUPLE1": lambda m, _: m.make_tuple(1),
    "TUPLE2": lambda m, _: m.make_tuple(2),
    "TUPLE3": lambda m, _: m.make_tuple(3),
    "LIST": lambda m, _: m.make(list),
    "DICT": _Machine.make_dict,
    "APPEND": lambda m, _: m.extend([m.stack.pop()]),
    "APPENDS": lambda m, _: m.extend(m.items()),
    "SETITEM": _Machine.set_item,
    "SETITEMS": lambda m, _: m.set_items(m.items()),
    "BINGET": lambda m, index: m.stack.append(m.memo[index]),
    "LONG_BINGET": lambda m, index: m.stack.append(m.memo[index]),
    "GLOBAL": _Machine.name,
    "STACK_GLOBAL": _Machine.name_from_stack,
    "REDUCE": _Machine.call,
    "BUILD": _Machine.build,
    "POP": lambda m, _: m.stack.pop() and None,
}
_KNOWN = frozenset((*_VALUES, *_CONSTANTS, *_ACTIONS, *_PUTS, "PROTO", "FRAME"))
"""Without the text opcodes of protocol 0, in which CIFAR is not written."""

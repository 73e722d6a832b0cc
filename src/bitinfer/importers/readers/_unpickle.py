"""Decodes the pickles inside torch checkpoints without executing them.

A pickle is a program for a stack machine whose GLOBAL and REDUCE instructions import and call
anything.  This machine knows dicts, lists, tuples, text, bytes and numbers, and the few names that
torch writes tensors with.  Every other name becomes an inert tag: it can be stored, called, built
and filled in without any effect, so that an optimiser or an ``argparse.Namespace`` beside the
weights does no harm.

Source: CPython Lib/pickletools.py (opcodes), torch/_utils.py and torch/serialization.py (names).
"""

from __future__ import annotations

import dataclasses
import struct
from collections.abc import Callable
from typing import Any, NoReturn

from bitinfer import files
from bitinfer.errors import CheckpointError

MAX_STEPS = 1 << 23
"""Most opcodes, and most items copied, in one pickle.  A network of 1000 tensors takes 40,000; the
rest is for what training loops keep beside it, such as the loss of every batch."""
MAX_PICKLE_BYTES = 1 << 26
MAX_RANK = 8
MAX_NAME_BYTES = 256
_HIGHEST_PROTOCOL = 5


@dataclasses.dataclass(frozen=True, eq=False, slots=True)
class Global:
    """A name that the pickle would import, as ``module.name``; here only the text."""

    name: str


@dataclasses.dataclass(frozen=True, eq=False, slots=True)
class Inert:
    """What the pickle would make by calling ``name``; nothing was called."""

    name: str


@dataclasses.dataclass(frozen=True, eq=False, slots=True)
class StorageRef:
    """A flat array kept outside the pickle.

    Attributes:
        kind: torch's class, such as ``FloatStorage``.
        key: under which the container keeps it.
        numel: elements of the whole storage.
        start, count: the part that is meant; the whole but for views of torch before 0.4.
    """

    kind: str
    key: str
    numel: int
    start: int
    count: int


@dataclasses.dataclass(frozen=True, eq=False, slots=True)
class TensorRef:
    """A strided view of a storage; offset and stride are counted in elements."""

    storage: StorageRef
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]


@dataclasses.dataclass(eq=False, slots=True)
class NumpyType:
    """A NumPy dtype, as ``<f4``."""

    code: str


@dataclasses.dataclass(eq=False, slots=True)
class NumpyRef:
    """A NumPy array; ``type`` is None until the pickle has said what it holds."""

    shape: tuple[int, ...] = ()
    type: NumpyType | None = None
    data: bytes = b""
    is_fortran: bool = False

    def fill(self, shape: Any, kind: Any, data: Any, *, is_fortran: bool) -> None:
        """Take over what the pickle says, if it is an array of numbers."""
        if _is_extent(shape) and isinstance(kind, NumpyType) and isinstance(data, bytes):
            self.shape, self.type, self.data, self.is_fortran = shape, kind, data, is_fortran


def quoted(value: object) -> str:
    """Return foreign text in quotes, without control characters, cut to 100 characters."""
    return repr(files.one_line(value, 100))


def describe(value: object) -> str:
    """Say in a few words what a decoded value is."""
    if isinstance(value, Global | Inert):
        return quoted(value.name)
    return f"a {type(value).__name__}"


@dataclasses.dataclass(frozen=True, eq=False, slots=True)
class Pickle:
    """A decoded pickle: its value, where it ends, and every storage that it names, by key."""

    value: Any
    end: int
    storages: dict[str, StorageRef]


def unpickle(data: bytes, start: int = 0) -> Pickle:
    """Decode the pickle that begins at byte ``start`` of ``data``.

    Meaning: the value holds dict, list, tuple, str, bytes, int, float, bool, None, and
             :class:`TensorRef`, :class:`StorageRef`, :class:`NumpyRef`, :class:`NumpyType`,
             :class:`Global`, :class:`Inert`.  It may share parts and contain itself.  Dict entries
             whose key is not text are left out: no network is kept under one, and hashing
             foreign numbers or nested tuples takes unbounded time.
    Cost:    at most MAX_STEPS steps, memory within a constant factor of the bytes read.
    Raises:  CheckpointError for anything that is not such a pickle.
    """
    machine = _Machine(data, start)
    return Pickle(machine.run(), machine.position, machine.storages)


class _Machine:
    def __init__(self, data: bytes, start: int) -> None:
        self.data = data
        self.start = start
        self.position = start
        self.end = min(len(data), start + MAX_PICKLE_BYTES)
        self.stack: list[Any] = []
        # Positions in the stack; nothing below the last one can be popped before it is gone.
        self.marks: list[int] = []
        # A list, since foreign numbers as keys of a dict can be chosen to collide.
        self.memo: list[Any] = []
        self.storages: dict[str, StorageRef] = {}
        self.steps_left = MAX_STEPS

    def run(self) -> Any:
        while True:
            self.spend(1)
            opcode = self.take(1)[0]
            if opcode == _STOP:
                return self.pop()
            handler = _HANDLERS.get(opcode)
            if handler is None:
                self.fail(f"opcode {bytes([opcode])!r} is not one that torch writes")
            handler(self)

    def fail(self, what: str) -> NoReturn:
        raise CheckpointError(f"pickle, byte {self.position - self.start}: {what}")

    def spend(self, steps: int) -> None:
        self.steps_left -= steps
        if self.steps_left < 0:
            self.fail(
                f"takes more than {MAX_STEPS} steps: a log beside the weights is too long; "
                "save the weights alone: torch.save(checkpoint['state_dict'], FILE)"
            )

    def take(self, count: int) -> bytes:
        begin = self.position
        if count > self.end - begin:
            self.fail(f"truncated, or more than {MAX_PICKLE_BYTES} bytes long")
        self.position = begin + count
        return self.data[begin : self.position]

    def take_size(self, width: int) -> int:
        return int.from_bytes(self.take(width), "little")

    def take_line(self) -> str:
        begin = self.position
        newline = self.data.find(b"\n", begin, min(self.end, begin + MAX_NAME_BYTES))
        if newline < 0:
            self.fail(f"a name has no end within {MAX_NAME_BYTES} bytes")
        self.position = newline + 1
        return self.decode(self.data[begin:newline])

    def decode(self, octets: bytes) -> str:
        try:
            return octets.decode("utf-8")
        except UnicodeDecodeError:
            self.fail("text is not UTF-8")

    def push(self, value: Any) -> None:
        self.stack.append(value)

    def pop(self) -> Any:
        if len(self.stack) <= self.fence():
            self.fail("takes a value from an empty stack")
        return self.stack.pop()

    def top(self) -> Any:
        if len(self.stack) <= self.fence():
            self.fail("wants a value on an empty stack")
        return self.stack[-1]

    def pop_to_mark(self) -> list[Any]:
        if not self.marks:
            self.fail("wants a mark where there is none")
        mark = self.marks.pop()
        items = self.stack[mark:]
        del self.stack[mark:]
        return items

    def fence(self) -> int:
        return self.marks[-1] if self.marks else 0

    def put(self, index: int) -> None:
        # Picklers count up, from 0 or (Python 2) from 1.
        if index > MAX_STEPS - self.steps_left:
            self.fail(f"writes memo {index} before it made so many values")
        if index >= len(self.memo):
            self.memo.extend([_NEVER_WRITTEN] * (index + 1 - len(self.memo)))
        self.memo[index] = self.top()

    def get(self, index: int) -> None:
        if index >= len(self.memo) or self.memo[index] is _NEVER_WRITTEN:
            self.fail(f"memo {index} was never written")
        self.push(self.memo[index])

    def append(self, items: list[Any]) -> None:
        target = self.top()
        if isinstance(target, list):
            target.extend(items)
        elif not isinstance(target, Inert):
            self.fail(f"appends to {describe(target)}")

    def set_items(self, items: list[Any]) -> None:
        if len(items) % 2:
            self.fail("a key has no value")
        target = self.top()
        if isinstance(target, dict):
            for key, value in zip(items[::2], items[1::2], strict=True):
                if isinstance(key, str):
                    target[key] = value
        elif not isinstance(target, Inert):
            self.fail(f"sets items of {describe(target)}")

    def call(self, function: Any, arguments: Any) -> Any:
        if not isinstance(arguments, tuple):
            self.fail(f"calls with {describe(arguments)} for arguments")
        if isinstance(function, Global):
            known = _KNOWN_CALLS.get(function.name)
            return Inert(function.name) if known is None else known(self, arguments)
        if isinstance(function, Inert):
            return function
        return self.fail(f"calls {describe(function)}")

    def make_global(self, module: Any, name: Any) -> Global:
        if not isinstance(module, str) or not isinstance(name, str):
            self.fail("a global is not named by two texts")
        if len(module) + len(name) > 2 * MAX_NAME_BYTES:
            self.fail(f"the name of a global has over {2 * MAX_NAME_BYTES} characters")
        return Global(f"{module}.{name}")

    def load_persistent(self, identity: Any) -> Any:
        """Return what ``torch.save`` keeps outside the pickle: storages, sources of modules."""
        if not isinstance(identity, tuple) or not identity:
            self.fail("a persistent id is not a tuple")
        if identity[0] == "module" and len(identity) == 4:
            return identity[1]
        if identity[0] != "storage" or len(identity) not in (5, 6):
            self.fail("a persistent id is no storage of torch")
        _, kind, key, _, numel = identity[:5]
        view = identity[5] if len(identity) == 6 else None
        if not isinstance(kind, Global) or not isinstance(key, str) or not _is_size(numel):
            self.fail("a storage is not given as (class, key, place, size)")
        module, _, name = kind.name.rpartition(".")
        if module not in ("torch", "torch.cuda", "torch.storage"):
            self.fail(f"a storage has the class {quoted(kind.name)}, wanted one of torch")
        whole = StorageRef(name, key, numel, 0, numel)
        self.storages.setdefault(key, whole)
        if view is None:
            return whole
        if not isinstance(view, tuple) or len(view) != 3 or not all(map(_is_size, view[1:])):
            self.fail("the view of a storage is not given as (key, offset, size)")
        _, start, count = view
        if start + count > numel:
            self.fail(f"elements {start} to {start + count} of a storage of {numel} are wanted")
        return StorageRef(name, key, numel, start, count)


def _is_size(value: Any) -> bool:
    return type(value) is int and 0 <= value < 1 << 62


def _is_extent(value: Any) -> bool:
    return isinstance(value, tuple) and len(value) <= MAX_RANK and all(map(_is_size, value))


def _ordered_dict(machine: _Machine, arguments: tuple[Any, ...]) -> Any:
    """Python 3 writes an empty OrderedDict and sets its items; Python 2 gives a list of pairs."""
    if not arguments:
        return {}
    pairs = arguments[0]
    if len(arguments) != 1 or not isinstance(pairs, list):
        machine.fail("an OrderedDict is not made from a list of pairs")
    machine.spend(len(pairs))
    result = {}
    for pair in pairs:
        if not isinstance(pair, list | tuple) or len(pair) != 2:
            machine.fail("an OrderedDict is not made from a list of pairs")
        if isinstance(pair[0], str):
            result[pair[0]] = pair[1]
    return result


def _default_dict(machine: _Machine, arguments: tuple[Any, ...]) -> Any:
    """Return a dict, which the pickle fills in; what makes its missing items is of no use here."""
    return {}


def _tensor(machine: _Machine, arguments: tuple[Any, ...]) -> Any:
    """Arguments (storage, offset, size, stride) and, since torch 0.4, more that do not matter."""
    if len(arguments) < 4:
        machine.fail("a tensor is not given as (storage, offset, size, stride)")
    storage, offset, size, stride = arguments[:4]
    if not isinstance(storage, StorageRef):
        machine.fail(f"the storage of a tensor is {describe(storage)}")
    if not _is_size(offset) or not _is_extent(size) or not _is_extent(stride):
        machine.fail(
            "offset, size or stride of a tensor are no sizes, "
            f"or the tensor has more than {MAX_RANK} axes"
        )
    if len(size) != len(stride):
        machine.fail(f"a tensor has {len(size)} axes but {len(stride)} strides")
    return TensorRef(storage, offset, size, stride)


def _first_argument(machine: _Machine, arguments: tuple[Any, ...]) -> Any:
    if not arguments:
        machine.fail("a call of torch lacks its argument")
    return arguments[0]


def _numpy_array(machine: _Machine, arguments: tuple[Any, ...]) -> Any:
    """Return an empty array, which the pickle fills in later (numpy multiarray/methods.c)."""
    return NumpyRef()


def _numpy_buffer(machine: _Machine, arguments: tuple[Any, ...]) -> Any:
    """Arguments (bytes, dtype, shape, order) of numpy/_core/numeric.py, protocol 5."""
    array = NumpyRef()
    if len(arguments) == 4:
        data, kind, shape, order = arguments
        array.fill(shape, kind, data, is_fortran=order == "F")
    return array


def _numpy_type(machine: _Machine, arguments: tuple[Any, ...]) -> Any:
    code = arguments[0] if arguments else None
    return NumpyType(code) if isinstance(code, str) else Inert("numpy.dtype")


def _encode(machine: _Machine, arguments: tuple[Any, ...]) -> Any:
    """Bytes, as Python 3 writes them in protocol 2: text of Latin-1."""
    if len(arguments) == 2 and isinstance(arguments[0], str) and arguments[1] == "latin1":
        try:
            return arguments[0].encode("latin1")
        except UnicodeEncodeError:
            pass
    return Inert("_codecs.encode")


_KNOWN_CALLS: dict[str, Callable[[_Machine, tuple[Any, ...]], Any]] = {
    "collections.OrderedDict": _ordered_dict,
    "collections.defaultdict": _default_dict,
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_parameter": _first_argument,
    "torch._utils._rebuild_parameter_with_state": _first_argument,
    "torch._utils._rebuild_device_tensor_from_numpy": _first_argument,
    "torch.Size": _first_argument,
    "numpy.core.multiarray._reconstruct": _numpy_array,
    "numpy._core.multiarray._reconstruct": _numpy_array,
    "numpy.core.numeric._frombuffer": _numpy_buffer,
    "numpy._core.numeric._frombuffer": _numpy_buffer,
    "numpy.dtype": _numpy_type,
    "_codecs.encode": _encode,
}


def _proto(m: _Machine) -> None:
    if (protocol := m.take(1)[0]) > _HIGHEST_PROTOCOL:
        m.fail(f"has protocol {protocol}, the highest known is {_HIGHEST_PROTOCOL}")


def _frame(m: _Machine) -> None:
    # How many bytes to read ahead: of no use here.
    m.take(8)


def _reduce(m: _Machine) -> None:
    arguments = m.pop()
    m.push(m.call(m.pop(), arguments))


def _new_object(m: _Machine) -> None:
    arguments = m.pop()
    m.push(_made_by_class(m, m.pop(), arguments))


def _new_object_ex(m: _Machine) -> None:
    m.pop()
    _new_object(m)


def _made_by_class(m: _Machine, cls: Any, arguments: Any) -> Any:
    if not isinstance(cls, Global | Inert):
        m.fail(f"makes an object of {describe(cls)}")
    # Only OrderedDict is also a class that stands for plain data.
    return m.call(cls, arguments) if cls.name == "collections.OrderedDict" else Inert(cls.name)


def _build(m: _Machine) -> None:
    # The attributes of an object.  Of what is kept, NumPy's values alone need them: torch's
    # state_dict, an OrderedDict with the attribute _metadata, does not.
    state, target = m.pop(), m.top()
    if isinstance(target, NumpyRef) and isinstance(state, tuple) and len(state) == 5:
        target.fill(*state[1:3], state[4], is_fortran=state[3] is True)
    if isinstance(target, NumpyType) and isinstance(state, tuple) and state[1:2] == (">",):
        target.code = f">{target.code.lstrip('<>|=')}"


def _stack_global(m: _Machine) -> None:
    name = m.pop()
    m.push(m.make_global(m.pop(), name))


def _old_string(m: _Machine, octets: bytes) -> None:
    # A str of Python 2: mostly text, but also the bytes of a NumPy scalar.
    try:
        m.push(octets.decode("utf-8"))
    except UnicodeDecodeError:
        m.push(octets)


def _pop(m: _Machine) -> None:
    if m.marks and m.marks[-1] == len(m.stack):
        m.marks.pop()
    else:
        m.pop()


def _pop_mark(m: _Machine) -> None:
    m.pop_to_mark()


def _tuple(m: _Machine, count: int) -> None:
    items = [m.pop() for _ in range(count)]
    m.push(tuple(reversed(items)))


def _append(m: _Machine) -> None:
    item = m.pop()
    m.append([item])


def _append_all(m: _Machine) -> None:
    m.append(m.pop_to_mark())


def _set_item(m: _Machine) -> None:
    value = m.pop()
    m.set_items([m.pop(), value])


def _add_items(m: _Machine) -> None:
    m.pop_to_mark()
    if not isinstance(m.top(), Inert):
        m.fail(f"adds to {describe(m.top())}")


def _dict(m: _Machine) -> None:
    items = m.pop_to_mark()
    m.push({})
    m.set_items(items)


def _frozen_set(m: _Machine) -> None:
    m.pop_to_mark()
    m.push(Inert("builtins.frozenset"))


_STOP = 0x2E
_NEVER_WRITTEN = object()

# In the order of pickletools.opcodes; the text opcodes of protocol 0 and the extension registry
# are left out, since torch.save never writes them.
_HANDLERS: dict[int, Callable[[_Machine], None]] = {
    0x80: _proto,
    0x95: _frame,
    ord("J"): lambda m: m.push(int.from_bytes(m.take(4), "little", signed=True)),
    ord("K"): lambda m: m.push(m.take_size(1)),
    ord("M"): lambda m: m.push(m.take_size(2)),
    0x8B: lambda m: m.push(int.from_bytes(m.take(m.take_size(4)), "little", signed=True)),
    0x8A: lambda m: m.push(int.from_bytes(m.take(m.take_size(1)), "little", signed=True)),
    ord("G"): lambda m: m.push(struct.unpack(">d", m.take(8))[0]),
    ord("T"): lambda m: _old_string(m, m.take(m.take_size(4))),
    ord("U"): lambda m: _old_string(m, m.take(m.take_size(1))),
    ord("B"): lambda m: m.push(m.take(m.take_size(4))),
    ord("C"): lambda m: m.push(m.take(m.take_size(1))),
    0x8E: lambda m: m.push(m.take(m.take_size(8))),
    0x96: lambda m: m.push(m.take(m.take_size(8))),
    ord("X"): lambda m: m.push(m.decode(m.take(m.take_size(4)))),
    0x8C: lambda m: m.push(m.decode(m.take(m.take_size(1)))),
    0x8D: lambda m: m.push(m.decode(m.take(m.take_size(8)))),
    ord("N"): lambda m: m.push(None),
    0x88: lambda m: m.push(True),
    0x89: lambda m: m.push(False),
    ord("]"): lambda m: m.push([]),
    ord("a"): _append,
    ord("e"): _append_all,
    ord("l"): lambda m: m.push(m.pop_to_mark()),
    ord(")"): lambda m: m.push(()),
    ord("t"): lambda m: m.push(tuple(m.pop_to_mark())),
    0x85: lambda m: _tuple(m, 1),
    0x86: lambda m: _tuple(m, 2),
    0x87: lambda m: _tuple(m, 3),
    ord("}"): lambda m: m.push({}),
    ord("d"): _dict,
    ord("s"): _set_item,
    ord("u"): lambda m: m.set_items(m.pop_to_mark()),
    0x8F: lambda m: m.push(Inert("builtins.set")),
    0x90: _add_items,
    0x91: _frozen_set,
    ord("("): lambda m: m.marks.append(len(m.stack)),
    ord("0"): _pop,
    ord("1"): _pop_mark,
    ord("2"): lambda m: m.push(m.top()),
    ord("h"): lambda m: m.get(m.take_size(1)),
    ord("j"): lambda m: m.get(m.take_size(4)),
    ord("q"): lambda m: m.put(m.take_size(1)),
    ord("r"): lambda m: m.put(m.take_size(4)),
    0x94: lambda m: m.put(len(m.memo)),
    ord("c"): lambda m: m.push(m.make_global(m.take_line(), m.take_line())),
    0x93: _stack_global,
    ord("R"): _reduce,
    0x81: _new_object,
    0x92: _new_object_ex,
    ord("b"): _build,
    ord("Q"): lambda m: m.push(m.load_persistent(m.pop())),
}

"""What all nodes have in common: how fields name things, and what may be asked of a node.

A field of the type :data:`ValueName` or :data:`TensorName` (or of :data:`ChannelFloats` and
:data:`ChannelFlags`, which say what must be in the tensor) names a value or a tensor.  What a node
reads, and how it looks with a name exchanged, follows from these types.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import types
from collections.abc import Callable, Mapping
from typing import (
    Annotated,
    Any,
    ClassVar,
    Literal,
    TypeVar,
    Union,
    get_args,
    get_origin,
    get_type_hints,
)

import msgspec
import numpy as np
from numpy.typing import NDArray

from bitinfer.graph import checks
from bitinfer.graph.checks import Kind, Known, Padding, Pair, Tensors, Value

Array = NDArray[Any]
Function = Callable[[Array], Array]
"""From one number per channel to one number per channel."""

What = Literal["value", "tensor", "made value"]

NO_PADDING: Padding = (0, 0, 0, 0)


@dataclasses.dataclass(frozen=True)
class Names:
    """What the text in a field names.

    ``dtype``, if given, is what a tensor must hold for every channel of the result: float32, or
    uint8 for flags (checks.check_channels).  Other tensors are checked by the rule of their node.
    """

    what: What
    dtype: type | None = None


ValueName = Annotated[str, Names("value")]
"""A value that the node reads."""
MadeName = Annotated[str, Names("made value")]
"""A value that the node makes beside the one that bears its name."""
TensorName = Annotated[str, Names("tensor")]
"""A tensor that the node's own rule checks."""
ChannelFloats = Annotated[str, Names("tensor", np.float32)]
"""A tensor (C,) of finite float32."""
ChannelFlags = Annotated[str, Names("tensor", np.uint8)]
"""A tensor (C,) of uint8, each 0 or 1."""


class Record(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=False):
    """Base of everything that a model file describes: immutable, unknown fields are errors."""


class BaseNode(Record, frozen=True, tag_field="op"):
    """A node, and what is asked of it: by the check of a graph, and by passes.

    A node that reads a float value and makes another of the same shape, element by element, needs
    nothing of what follows.
    """

    name: str
    input: ValueName

    takes: ClassVar[tuple[Kind, ...]] = ("float",)
    """Kinds of value that ``input`` may have."""

    @property
    def operation(self) -> str:
        """The name of the operation in files."""
        return str(self.__struct_config__.tag)

    def infer(self, known: Known) -> tuple[Value, ...]:
        """Check the node and return the values that it makes, in the order of node_values.

        Raises:
            GraphError, ShapeError: something does not fit.
        """
        source = known.values[self.input]
        checks.want_kind(source, *self.takes)
        check_channel_tensors(self, source.shape[-1], known)
        return (self.rule(source, known),)

    def rule(self, source: Value, known: Known) -> Value:
        """Return what the node makes of ``input``; check what its fields' types do not say."""
        return source

    def operations(self, values: Mapping[str, Value], tensors: Tensors) -> int:
        """Return the multiply-accumulates (window taps of a pooling node, else elements)."""
        return math.prod(values[self.name].shape)

    def is_monotone(self, tensors: Tensors) -> bool:
        """Tell whether the node acts on every element alone, and rises or falls with it.

        It may rise in one channel and fall in another; :meth:`falls` tells which.
        """
        return False

    def falls(self, tensors: Tensors) -> Array | None:
        """Return where a monotone node falls, (C,) bool; None: nowhere."""
        return None

    def function(self, tensors: Tensors) -> Function:
        """Return what a monotone node does, in the arithmetic of numerics.py."""
        raise NotImplementedError(self.operation)

    def is_identity(self, source: Value, is_never_negative: Callable[[], bool]) -> bool:
        """Tell whether the node changes nothing.

        ``is_never_negative()`` tells whether its input is at least 0.
        """
        return False

    def never_negative(self) -> bool | None:
        """Tell whether the result is at least 0, and no number only if 0 stands for it.

        None: if that holds for ``input``.
        """
        return False


R = TypeVar("R", bound=Record)


@dataclasses.dataclass(frozen=True)
class _Field:
    """A field that names something, or holds a record whose fields do."""

    name: str
    names: Names | None
    has_several: bool = False


@functools.cache
def _naming_fields(record: type[Record]) -> tuple[_Field, ...]:
    hints = get_type_hints(record, include_extras=True)
    found = (_naming_field(name, hints[name]) for name in record.__struct_fields__)
    return tuple(field for field in found if field is not None)


def _naming_field(name: str, hint: Any) -> _Field | None:
    """Return what a type says that the field names; None if it names nothing."""
    origin = get_origin(hint)
    if origin is Annotated:
        marks = [mark for mark in hint.__metadata__ if isinstance(mark, Names)]
        return _Field(name, marks[0]) if marks else None
    if origin is tuple:
        field = _naming_field(name, get_args(hint)[0])
        return None if field is None else dataclasses.replace(field, has_several=True)
    if origin in (Union, types.UnionType):
        fields = (_naming_field(name, part) for part in get_args(hint))
        return next((field for field in fields if field is not None), None)
    if isinstance(hint, type) and issubclass(hint, Record):
        return _Field(name, None)
    return None


@functools.cache
def _fields_of(record: type[Record], what: What) -> tuple[_Field, ...]:
    """Return the fields that may name something of a kind, or hold a record that does."""
    fields = _naming_fields(record)
    return tuple(field for field in fields if field.names is None or field.names.what == what)


def names_in(record: Record, what: What) -> tuple[str, ...]:
    """Return the names in a record's fields and in those of the records that it holds."""
    found: list[str] = []
    for field in _fields_of(type(record), what):
        content = getattr(record, field.name)
        if content is None:
            continue
        if field.names is None:
            found += names_in(content, what)
        elif field.has_several:
            found += content
        else:
            found.append(content)
    return tuple(found)


def reading_instead(record: R, old: str, new: str) -> R:
    """Return the record with the value ``new`` wherever it read ``old``."""
    changed: dict[str, Any] = {}
    for field in _naming_fields(type(record)):
        content = getattr(record, field.name)
        if content is None:
            continue
        if field.names is None:
            changed[field.name] = reading_instead(content, old, new)
        elif field.names.what != "value":
            continue
        elif field.has_several:
            changed[field.name] = tuple(new if name == old else name for name in content)
        elif content == old:
            changed[field.name] = new
    return msgspec.structs.replace(record, **changed) if changed else record


def check_channel_tensors(record: Record, channels: int, known: Known) -> None:
    """Check all tensors whose field's type says what they hold, nested records included."""
    for field in _naming_fields(type(record)):
        content = getattr(record, field.name)
        if content is None:
            continue
        if field.names is None:
            check_channel_tensors(content, channels, known)
        elif field.names.dtype is not None:
            checks.check_channels(known, content, channels, field.names.dtype)


def tensor_fields(record: type[Record]) -> frozenset[str]:
    """Return the names of the fields of a type that name tensors."""
    return frozenset(
        field.name
        for field in _naming_fields(record)
        if field.names is not None and field.names.what == "tensor"
    )


__all__ = [
    "NO_PADDING",
    "BaseNode",
    "ChannelFlags",
    "ChannelFloats",
    "Function",
    "MadeName",
    "Names",
    "Padding",
    "Pair",
    "Record",
    "TensorName",
    "ValueName",
    "check_channel_tensors",
    "names_in",
    "reading_instead",
    "tensor_fields",
]

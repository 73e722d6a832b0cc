"""What every node is: frozen data that says by the types of its fields which of them are names.

From these types follow what a node reads and makes, and how it is renamed; nobody lists it again.
"""

from __future__ import annotations

import functools
import math
import typing
from collections.abc import Callable, Mapping
from typing import Annotated, Any, TypeVar

import msgspec
from numpy.typing import NDArray

from bitinfer.graph.values import Tensors, Value, Values

_READ, _MADE, _TENSOR, _RECORD = "value that is read", "value that is made", "tensor", "record"

ValueName = Annotated[str, _READ]
"""The type of a field that names a value which the node reads."""
MadeName = Annotated[str, _MADE]
"""The type of a field that names a value which the node makes, beside the one of its own name."""
TensorName = Annotated[str, _TENSOR]
"""The type of a field that names a tensor."""

Function = Callable[[NDArray[Any]], NDArray[Any]]
"""From one number per channel (C,) to one number per channel."""


class Record(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=False):
    """Base of everything that a model file describes: immutable, unknown fields are errors."""


class Node(Record, frozen=True, tag_field="op"):
    """Base of all nodes.  A node is a subclass with a tag of its own, its fields, and its rule."""

    name: str
    input: ValueName

    @property
    def operation(self) -> str:
        """Its name in files."""
        return str(self.__struct_config__.tag)

    def rule(self, values: Values, tensors: Tensors) -> Value:
        """Return the value that the node makes; what is not checked here is not checked at all.

        Raises:
            GraphError, ShapeError: an input, tensor or parameter does not fit.
        """
        raise NotImplementedError(f"{type(self).__name__} has no rule")

    def make(self, values: Values, tensors: Tensors) -> tuple[Value, ...]:
        """Return all values that the node makes, in the order of :func:`node_values`."""
        return (self.rule(values, tensors),)

    def operations(self, source: Value, result: Value, tensors: Tensors) -> int:
        """Return the multiply-accumulates (or window taps, or elements) that the node takes."""
        return math.prod(result.shape)

    def is_identity(self, source: Value) -> bool:
        """Tell whether the node hands its input on as it is."""
        return False

    def is_never_negative(self) -> bool | None:
        """Tell whether the result is at least 0 (and no NaN); None if the input decides."""
        return False

    def monotone(self, tensors: Tensors) -> Function | None:
        """Return what the node does to an element of each channel, if it rises or falls with it.

        None if it does not act on every element alone, or not monotonely in some channel.
        """
        return None

    def falls(self, tensors: Tensors) -> NDArray[Any] | None:
        """Return in which channels (C,) bool a monotone node falls; None for none."""
        return None


_R = TypeVar("_R", bound=Record)


def node_inputs(node: Node) -> tuple[str, ...]:
    """Return the names of the values that ``node`` reads."""
    return _names(node, _READ)


def node_values(node: Node) -> tuple[str, ...]:
    """Return the names of the values that ``node`` makes: its own first."""
    return (node.name, *_names(node, _MADE))


def node_tensors(node: Node) -> tuple[str, ...]:
    """Return the names of the tensors that ``node`` reads."""
    return _names(node, _TENSOR)


def further_inputs(node: Node) -> dict[str, str]:
    """Return the names of the values that ``node`` reads beside its input, by field."""
    return {
        field: name
        for field, role in _fields(type(node))
        if role == _READ and field != "input" and isinstance(name := getattr(node, field), str)
    }


def reading(node: Node, names: Mapping[str, str]) -> Node:
    """Return the node, reading the value ``names[n]`` wherever it read a value ``n`` of them."""
    return _renamed(node, names)


def _renamed(record: _R, names: Mapping[str, str]) -> _R:
    changes: dict[str, Any] = {}
    for field, role in _fields_of(type(record), _READ):
        content = getattr(record, field)
        if content is None:
            continue
        new: Any
        if role == _RECORD:
            new = _renamed(content, names)
        elif isinstance(content, str):
            new = names.get(content, content)
        else:
            new = tuple(names.get(name, name) for name in content)
        if new != content:
            changes[field] = new
    return msgspec.structs.replace(record, **changes) if changes else record


def _names(record: Record, wanted: str) -> tuple[str, ...]:
    found: tuple[str, ...] = ()
    for field, role in _fields_of(type(record), wanted):
        content = getattr(record, field)
        if content is None:
            continue
        if role == _RECORD:
            found += _names(content, wanted)
        else:
            found += (content,) if isinstance(content, str) else content
    return found


@functools.cache
def _fields_of(kind: type[Record], wanted: str) -> tuple[tuple[str, str], ...]:
    """Return the fields that hold names of one role, or records that may."""
    return tuple(f for f in _fields(kind) if f[1] in (wanted, _RECORD))


@functools.cache
def _fields(kind: type[Record]) -> tuple[tuple[str, str], ...]:
    """Return the fields of a record that hold names, or records that may, each with its role."""
    hints = typing.get_type_hints(kind, include_extras=True)
    roles = ((field, _role(hints[field])) for field in kind.__struct_fields__)
    return tuple((field, role) for field, role in roles if role is not None)


def _role(hint: Any) -> str | None:
    if typing.get_origin(hint) is Annotated:
        (role,) = typing.get_args(hint)[1:]
        return str(role)
    if isinstance(hint, type) and issubclass(hint, Record):
        return _RECORD
    return next((role for part in typing.get_args(hint) if (role := _role(part))), None)

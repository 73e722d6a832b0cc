"""What nodes make and read: values of one sample, windows over maps, named tensors."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Mapping
from typing import Any, Literal, TypeVar

from numpy.typing import NDArray

Pair = tuple[int, int]
"""(vertical, horizontal)."""
Padding = tuple[int, int, int, int]
"""(top, bottom, left, right)."""

NO_PADDING: Padding = (0, 0, 0, 0)

Kind = Literal["float", "sign", "uint8", "int8"]

_Answer = TypeVar("_Answer")


@dataclasses.dataclass(frozen=True)
class Value:
    """Kind and shape of one value of one sample."""

    kind: Kind
    shape: tuple[int, ...]

    @property
    def is_integer(self) -> bool:
        """Whether the elements are uint8 or int8."""
        return self.kind in ("uint8", "int8")


Values = Mapping[str, Value]


class Tensors(dict[str, NDArray[Any]]):
    """Named tensors, and what has been found out about each: none is read twice for one question.

    A tensor must not change once it is in here; a pass that wants another one gives it a new name.
    """

    def __init__(self, tensors: Mapping[str, NDArray[Any]]) -> None:
        super().__init__(tensors)
        self._answers: dict[tuple[str, str], Any] = {}
        if isinstance(tensors, Tensors):
            self._answers.update(tensors._answers)

    def ask(self, question: str, name: str, find_out: Callable[[NDArray[Any]], _Answer]) -> _Answer:
        """Return ``find_out`` of a tensor; ``question`` says what that is."""
        key = (question, name)
        if key not in self._answers:
            self._answers[key] = find_out(self[name])
        answer: _Answer = self._answers[key]
        return answer

    def only(self, names: Collection[str]) -> Tensors:
        """Return some of the tensors, in their order, with what is known of them."""
        result = Tensors({name: tensor for name, tensor in self.items() if name in names})
        result._answers = {key: a for key, a in self._answers.items() if key[1] in names}
        return result

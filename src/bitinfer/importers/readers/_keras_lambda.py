"""Tells a Lambda layer that returns its input as it is, from its bytecode, which is never run.

Larq Zoo's Real-to-Binary network names values by ``Lambda(lambda x: x, name=...)``.  Keras stores
``marshal.dumps`` of the code in base64 (tf_keras/src/utils/generic_utils.py, func_dump).
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from typing import Any

_CODE, _BYTES, _SHARED = ord("c"), ord("s"), 0x80
"""Types of marshal's objects, and the flag of those that may be referred to (Python/marshal.c)."""

_INTEGERS = (6, 5)
"""Numbers before the bytecode: of Python 3.8 to 3.10, and of those before and after them."""

_RETURNS_ITS_ARGUMENT = frozenset(
    bytes.fromhex(code)
    for code in (
        "7c005300",  # LOAD_FAST 0, RETURN_VALUE: Python 3.6 to 3.10
        "97007c005300",  # RESUME before it: 3.11 and 3.12
        "950055002400",  # 3.13, which numbers them otherwise
    )
)


def is_identity(config: Mapping[str, Any]) -> bool:
    """Tell whether the configuration of a Lambda layer is that of ``lambda x: x``."""
    function = config.get("function")
    if isinstance(function, Mapping):  # of the .keras format
        inner = function.get("config")
        function = [inner.get("code")] if isinstance(inner, Mapping) else None
    if not isinstance(function, list) or not function or not isinstance(function[0], str):
        return False
    if any(function[1:]) or config.get("arguments"):
        return False
    try:
        data = base64.b64decode(function[0])
    except (binascii.Error, ValueError):
        return False
    return bool(data) and data[0] & ~_SHARED == _CODE and any(_fits(data, n) for n in _INTEGERS)


def _fits(data: bytes, integers: int) -> bool:
    """Tell whether the code takes one argument and returns it, with so many numbers before it."""
    at = 1 + 4 * integers
    takes = [int.from_bytes(data[i : i + 4], "little") for i in range(1, at, 4)]
    length = int.from_bytes(data[at + 1 : at + 5], "little")
    is_bytes = data[at : at + 1] != b"" and data[at] & ~_SHARED == _BYTES
    code = data[at + 5 : at + 5 + length]
    return is_bytes and takes[:2] == [1, 0] and code in _RETURNS_ITS_ARGUMENT

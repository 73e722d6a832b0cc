"""What a Lambda layer computes, as far as that shows without running its bytecode.

Larq Zoo's Real-to-Binary network names values by ``Lambda(lambda x: x, name=...)``.  Keras stores
``marshal.dumps`` of the code in base64, then its defaults and the values that it captured, beside
the module that it stands in (tf_keras/src/utils/generic_utils.py, func_dump).
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
    code, defaults, values = _dumped(config)
    if not isinstance(code, str) or defaults or values or config.get("arguments"):
        return False
    try:
        data = base64.b64decode(code)
    except (binascii.Error, ValueError):
        return False
    return bool(data) and data[0] & ~_SHARED == _CODE and any(_fits(data, n) for n in _INTEGERS)


def captured(config: Mapping[str, Any], module: str) -> tuple[Any, ...] | None:
    """Return what the code of a Lambda layer captured, if it stands in ``module``; else None."""
    _, defaults, values = _dumped(config)
    if config.get("module") != module or defaults or config.get("arguments"):
        return None
    return tuple(values) if isinstance(values, list) else None


def _dumped(config: Mapping[str, Any]) -> tuple[Any, Any, Any]:
    """Return code, defaults and captured values, as far as they are there."""
    function = config.get("function")
    if isinstance(function, Mapping):  # of the .keras format
        inner = function.get("config")
        inner = inner if isinstance(inner, Mapping) else {}
        return inner.get("code"), inner.get("defaults"), inner.get("closure")
    if not isinstance(function, list):
        return None, None, None
    code, defaults, values = (*function, None, None, None)[:3]
    return code, defaults, values


def _fits(data: bytes, integers: int) -> bool:
    """Tell whether the code takes one argument and returns it, with so many numbers before it."""
    at = 1 + 4 * integers
    takes = [int.from_bytes(data[i : i + 4], "little") for i in range(1, at, 4)]
    length = int.from_bytes(data[at + 1 : at + 5], "little")
    is_bytes = data[at : at + 1] != b"" and data[at] & ~_SHARED == _BYTES
    code = data[at + 5 : at + 5 + length]
    return is_bytes and takes[:2] == [1, 0] and code in _RETURNS_ITS_ARGUMENT

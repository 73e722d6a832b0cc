"""Runs a reader in a process of its own, with limits: what its parser does cannot hurt the caller.

Parsers in native code (protobuf, HDF5) may crash, hang or ask for any amount of memory on bytes
that are not what they seem.  :func:`read` starts a Python that reads the bytes from a pipe, calls
``parse`` of one module, and sends back the :class:`Foreign` graph as MessagePack: plain
numbers and bytes, checked against a schema, so that even a child that was taken over can make the
caller do nothing.
"""

from __future__ import annotations

import dataclasses
import importlib
import json
import math
import os
import signal
import subprocess
import sys
import traceback
from typing import Any, NoReturn

import msgspec
import numpy as np
from numpy.typing import NDArray

from bitinfer import errors
from bitinfer.errors import CheckpointError, ConversionError, MissingExtraError
from bitinfer.files import one_line
from bitinfer.importers.foreign import Foreign, ForeignNode, Layout

SECONDS = 20
SECONDS_PER_MIB = 2
"""Time of the CPU that a reader may take: so much, and so much for each MiB of the file."""

BYTES = 3 << 30
BYTES_PER_BYTE = 24
"""Address space of the child: what Python, NumPy and the parser's libraries map, and so much for
each byte of the file."""

ANSWER_BYTES = 64 << 20
ANSWER_BYTES_PER_BYTE = 16
"""Largest answer: constants that exporters spread out may be larger than the file."""

_NUMBERS = frozenset({"?", "b", "B", "h", "H", "i", "I", "l", "L", "q", "Q", "e", "f", "d"})
"""Types of arrays that an answer may have, as numpy.dtype.char."""

_CODE = (
    "import sys, json; sys.path[:] = json.loads(sys.argv[1]); "
    "from bitinfer.importers import sandbox; sandbox.serve(*sys.argv[2:])"
)


class _Array(msgspec.Struct, array_like=True, forbid_unknown_fields=True):
    type: str
    shape: tuple[int, ...]
    data: bytes


class _Node(msgspec.Struct, array_like=True, forbid_unknown_fields=True):
    name: str
    operation: str
    inputs: tuple[str, ...]
    attributes: dict[str, int | float | str | tuple[int, ...]]


class _Graph(msgspec.Struct, forbid_unknown_fields=True):
    name: str
    layout: Layout
    input: str
    input_shape: tuple[int, ...]
    nodes: tuple[_Node, ...]
    constants: dict[str, _Array]
    outputs: tuple[str, ...]
    labels: tuple[str, ...] = ()


class _Answer(msgspec.Struct, forbid_unknown_fields=True):
    graph: _Graph | None = None
    error: str = ""
    message: str = ""
    extra: str = ""


def read(reader: str, *parts: bytes) -> Foreign:
    """Return what ``parse(*parts)`` of the module ``reader`` returns, run in a process of its own.

    Raises:
        CheckpointError: the parser failed, crashed, or took more than the limits allow.
        ConversionError, MissingExtraError: as ``parse`` raises them.
    """
    if not sys.executable:
        raise CheckpointError("there is no Python interpreter that a parser could run in")
    sizes = [str(len(part)) for part in parts]
    command = [sys.executable, "-I", "-c", _CODE, json.dumps(sys.path), reader, *sizes]
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    seconds = _seconds(sum(map(len, parts)))
    try:
        done = subprocess.run(  # noqa: S603 - our own interpreter, and no shell
            command,
            check=False,
            input=b"".join(parts),
            capture_output=True,
            timeout=3 * seconds,
            env=environment,
        )
    except subprocess.TimeoutExpired:
        raise CheckpointError(f"its parser took over {3 * seconds} s: is it damaged?") from None
    except OSError as error:
        raise CheckpointError(f"a process for the parser cannot be started: {error}") from error
    if done.returncode != 0:
        raise CheckpointError(_describe_end(done.returncode, done.stderr, seconds))
    return received(done.stdout)


def received(data: bytes) -> Foreign:
    """Return the graph in an answer of a child, which may have written anything.

    Raises:
        CheckpointError: it is no answer, or says that the parser failed.
        ConversionError, MissingExtraError: as the answer says.
    """
    try:
        answer = msgspec.msgpack.decode(data, type=_Answer)
    except msgspec.MsgspecError as error:
        raise CheckpointError(f"its parser gave no answer: {one_line(error)}") from error
    if answer.graph is None:
        _raise(answer)
    return _foreign(answer.graph)


def _seconds(size: int) -> int:
    return SECONDS + SECONDS_PER_MIB * (size >> 20)


def _describe_end(code: int, stderr: bytes, seconds: int) -> str:
    if code in (-signal.SIGXCPU, -signal.SIGKILL):
        return f"its parser took over {seconds} s, or was killed: is it damaged?"
    if code < 0:
        return f"its parser crashed ({signal.Signals(-code).name}): it is damaged"
    lines = stderr.decode("utf-8", "replace").strip().splitlines()
    return f"its parser failed: {one_line(lines[-1] if lines else f'exit code {code}')}"


def _raise(answer: _Answer) -> NoReturn:
    """Raise what the answer says, as one line: names in it are the file's."""
    message = one_line(answer.message, 500)
    if answer.error == "MissingExtraError":
        raise MissingExtraError(message, one_line(answer.extra, 20))
    if answer.error == "ConversionError":
        raise ConversionError(message)
    raise CheckpointError(message)


def _foreign(graph: _Graph) -> Foreign:
    return Foreign(
        name=graph.name,
        layout=graph.layout,
        input=graph.input,
        input_shape=graph.input_shape,
        nodes=tuple(ForeignNode(n.name, n.operation, n.inputs, n.attributes) for n in graph.nodes),
        constants={name: _array(name, array) for name, array in graph.constants.items()},
        outputs=graph.outputs,
        labels=graph.labels,
    )


def _array(name: str, array: _Array) -> NDArray[Any]:
    if array.type not in _NUMBERS or any(n < 0 for n in array.shape):
        raise CheckpointError(f"{one_line(name)} is {array.type} of shape {array.shape}")
    dtype = np.dtype(array.type)
    if math.prod(array.shape) * dtype.itemsize != len(array.data):
        raise CheckpointError(f"{one_line(name)}: {len(array.data)} bytes for {array.shape}")
    return np.frombuffer(array.data, dtype).reshape(array.shape)


# --- In the child --------------------------------------------------------------------------------


def serve(reader: str, *sizes: str) -> None:
    """Read bytes from stdin, and write the answer to what was stdout; nothing else comes there."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    lengths = [int(size) for size in sizes]
    limit(sum(lengths))
    with answers:
        parts = [sys.stdin.buffer.read(length) for length in lengths]
        answers.write(answer(reader, *parts))


def limit(size: int) -> None:
    """Limit memory and time of this process, for sources of ``size`` bytes."""
    import resource

    def lower(kind: int, value: int) -> None:
        _, hard = resource.getrlimit(kind)
        value = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(kind, (value, value))

    lower(resource.RLIMIT_CORE, 0)
    lower(resource.RLIMIT_CPU, _seconds(size))
    lower(resource.RLIMIT_AS, BYTES + BYTES_PER_BYTE * size)


def answer(reader: str, *parts: bytes) -> bytes:
    """Return what :func:`received` reads: what ``parse`` of the module ``reader`` returned."""
    return msgspec.msgpack.encode(_answer(reader, parts))


def _answer(reader: str, parts: tuple[bytes, ...]) -> _Answer:
    size = sum(map(len, parts))
    try:
        parse = importlib.import_module(reader).parse
        graph = _plain(parse(*parts))
        total = sum(len(array.data) for array in graph.constants.values())
        if total > ANSWER_BYTES + ANSWER_BYTES_PER_BYTE * size:
            raise CheckpointError(f"its constants have {total} bytes, the file has {size}")
        return _Answer(graph=graph)
    except MissingExtraError as error:
        return _Answer(error="MissingExtraError", message=str(error.args[0]), extra=error.extra)
    except errors.BitInferError as error:
        return _Answer(error=type(error).__name__, message=str(error))
    except MemoryError:
        return _Answer(error="CheckpointError", message="it asks for more memory than is allowed")
    except RecursionError:
        return _Answer(error="CheckpointError", message="it is nested too deeply")
    except Exception as error:  # whatever a parser raises on bytes that it does not expect
        traceback.print_exc()
        text = f"cannot be read: {type(error).__name__}: {error}"
        return _Answer(error="CheckpointError", message=one_line(text, 300))


def _plain(foreign: Foreign) -> _Graph:
    fields = {f.name: getattr(foreign, f.name) for f in dataclasses.fields(Foreign)}
    fields["nodes"] = tuple(
        _Node(n.name, n.operation, n.inputs, dict(n.attributes)) for n in foreign.nodes
    )
    fields["constants"] = {
        name: _Array(a.dtype.char, a.shape, np.ascontiguousarray(a).tobytes())
        for name, a in foreign.constants.items()
    }
    return _Graph(**fields)

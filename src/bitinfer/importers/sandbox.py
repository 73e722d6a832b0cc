"""Runs a parser in a process of its own, with limits on memory, time and the size of its answer.

Parsers of native code (h5py and the like) crash on bad bytes, or never come back.  Here that ends a
child, and the caller gets a CheckpointError.

    parent                                child (python -m bitinfer.importers._sandboxed)
    name of the parser, limits  ------->  sets the limits, imports the parser
    the bytes of the file       ------->  parser(bytes) -> dicts, lists, text, numbers, arrays
    answer, msgpack             <-------  which is plain data: nothing is pickled

The child inherits the environment and no open file but its pipes.  What the parser prints goes to
stderr, of which the last line is quoted if the parser dies.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import subprocess
import sys
import time
from typing import Any, NamedTuple

import msgspec
import numpy as np

from bitinfer.errors import CheckpointError
from bitinfer.importers.readers._unpickle import one_line

MAX_STDERR = 1 << 14
_ARRAY = 1
_CHUNK = 1 << 16


class Limits(NamedTuple):
    """Of a parser.

    Attributes:
        memory_bytes: address space beyond what the interpreter and the parser's libraries take.
        seconds: of CPU time, and, three times that, of waiting.
        answer_bytes: of what it returns, packed.
    """

    memory_bytes: int = 1 << 30
    seconds: int = 20
    answer_bytes: int = 1 << 30


LIMITS = Limits()


class Request(msgspec.Struct, frozen=True):
    """What the child is told before the file."""

    parser: str
    memory_bytes: int
    seconds: int


class Answer(msgspec.Struct, frozen=True):
    """What the child says: the value, or what went wrong."""

    value: Any = None
    error: str = ""


def pack(value: Any) -> bytes:
    """Return plain data with arrays as bytes.

    Raises:
        TypeError: the value holds something else.
    """

    def encode(value: Any) -> Any:
        if isinstance(value, np.generic):
            return value.item()
        if not isinstance(value, np.ndarray) or value.dtype.kind not in "biuf":
            raise TypeError(f"a parser returns plain data and arrays, not {type(value).__name__}")
        array = np.ascontiguousarray(value)
        order = array.dtype.newbyteorder("<")
        head = (order.str, array.shape, array.astype(order, copy=False).tobytes())
        return msgspec.msgpack.Ext(_ARRAY, msgspec.msgpack.encode(head))

    return msgspec.msgpack.encode(value, enc_hook=encode)


def unpack(data: bytes, kind: Any = Any) -> Any:
    """Return what :func:`pack` packed.  Raises ValueError if it is not that."""

    def decode(code: int, payload: memoryview) -> Any:
        if code != _ARRAY:
            raise ValueError(f"extension {code}")
        dtype, shape, octets = msgspec.msgpack.decode(
            payload, type=tuple[str, tuple[int, ...], bytes]
        )
        if np.dtype(dtype).kind not in "biuf":
            raise ValueError(f"an array of {dtype}")
        native = np.frombuffer(octets, dtype).reshape(shape)
        return native.astype(native.dtype.newbyteorder("="), copy=False)

    return msgspec.msgpack.decode(data, type=kind, ext_hook=decode)


def run(parser: str, data: bytes, limits: Limits = LIMITS) -> Any:
    """Return what ``parser`` makes of ``data``, which it is called with in another process.

    ``parser`` is ``package.module:function``, of code that is trusted: only ``data`` is not.

    Raises:
        CheckpointError: the parser refuses the data, crashes, or wants more than ``limits``.
    """
    request = msgspec.msgpack.encode(Request(parser, limits.memory_bytes, limits.seconds))
    head = len(request).to_bytes(4, "little") + request
    with subprocess.Popen(
        [sys.executable, "-m", "bitinfer.importers._sandboxed"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    ) as child:
        try:
            out, err, ended = _converse(child, head + data, limits)
        finally:
            # The whole group: a parser may have started others.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)
        code = child.wait()
    if ended:
        raise CheckpointError(f"the parser {ended}: the file is damaged, or made to harm")
    if code:
        raise CheckpointError(_death(code, err, limits))
    try:
        answer = unpack(out, Answer)
    except (ValueError, TypeError, msgspec.MsgspecError) as error:
        raise CheckpointError(f"the parser's answer cannot be read: {error}") from error
    if answer.error:
        raise CheckpointError(answer.error)
    return answer.value


def _converse(
    child: subprocess.Popen[bytes], data: bytes, limits: Limits
) -> tuple[bytes, bytes, str]:
    """Feed the child and collect what it says; the third is why it was given up, if it was."""
    assert child.stdin is not None
    assert child.stdout is not None
    assert child.stderr is not None
    deadline = time.monotonic() + 3 * limits.seconds
    left = memoryview(data)
    out, err = bytearray(), bytearray()
    with selectors.DefaultSelector() as selector:
        os.set_blocking(child.stdin.fileno(), False)
        selector.register(child.stdin, selectors.EVENT_WRITE)
        selector.register(child.stdout, selectors.EVENT_READ)
        selector.register(child.stderr, selectors.EVENT_READ)
        while selector.get_map():
            ready = selector.select(max(deadline - time.monotonic(), 0))
            if not ready and time.monotonic() >= deadline:
                return bytes(out), bytes(err), f"took more than {3 * limits.seconds} s"
            for key, _ in ready:
                if key.fileobj is child.stdin:
                    try:
                        left = left[os.write(key.fd, left[:_CHUNK]) :]
                    except BrokenPipeError:
                        left = left[:0]  # it died, or wants no more: its exit code says which
                    if not left:
                        selector.unregister(child.stdin)
                        with contextlib.suppress(BrokenPipeError):
                            child.stdin.close()
                    continue
                chunk = os.read(key.fd, _CHUNK)
                if not chunk:
                    selector.unregister(key.fileobj)
                elif key.fileobj is child.stdout:
                    out += chunk
                    if len(out) > limits.answer_bytes:
                        return b"", b"", f"answers more than {limits.answer_bytes} bytes"
                else:
                    err = (err + chunk)[-MAX_STDERR:]
    # Its pipes are closed; a child that lives on would be waited for by nobody.
    try:
        child.wait(max(deadline - time.monotonic(), 0.1))
    except subprocess.TimeoutExpired:
        return bytes(out), bytes(err), f"took more than {3 * limits.seconds} s"
    return bytes(out), bytes(err), ""


def _death(code: int, err: bytes, limits: Limits) -> str:
    if code == -signal.SIGXCPU:
        return (
            f"the parser took more than {limits.seconds} s of CPU time: "
            "the file is damaged, or made to harm"
        )
    last = err.decode("utf-8", "replace").strip().rpartition("\n")[2]
    words = f": {one_line(last)}" if last else ""
    if code < 0:
        return f"the parser crashed ({signal.Signals(-code).name}) on this file{words}"
    return f"the parser ended with exit code {code}{words}"

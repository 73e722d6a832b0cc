"""The child of sandbox.py: limits itself, runs one parser on stdin, answers on stdout."""

from __future__ import annotations

import math
import os
import resource
import sys
import time
from importlib import import_module

import msgspec

from bitinfer.errors import BitInferError
from bitinfer.importers.readers._unpickle import one_line
from bitinfer.importers.sandbox import Answer, Request, pack


def main() -> int:
    """Serve one request; the exit code is 0 whenever there is an answer."""
    # Libraries print; the answer must stand alone.
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    source = sys.stdin.buffer
    size = int.from_bytes(source.read(4), "little")
    request = msgspec.msgpack.decode(source.read(size), type=Request)
    module, _, name = request.parser.partition(":")
    parser = getattr(import_module(module), name)
    data = source.read()
    _limit(request)
    try:
        answer = pack(Answer(value=parser(data)))
    except MemoryError:
        answer = pack(Answer(error=f"the parser wants more than {request.memory_bytes} bytes"))
    except BitInferError as error:
        answer = pack(Answer(error=str(error)))
    except Exception as error:  # whatever a parser of foreign bytes raises
        words = f"{type(error).__name__}: {error}"
        answer = pack(Answer(error=f"the parser cannot read this file: {one_line(words)}"))
    answers.write(answer)
    answers.close()
    return 0


def _limit(request: Request) -> None:
    """Set the limits; what was loaded and spent before does not count."""
    with open("/proc/self/statm", encoding="ascii") as file:  # noqa: PTH123 - no path of a user
        here = int(file.read().split()[0]) * resource.getpagesize()
    memory = here + request.memory_bytes
    seconds = math.ceil(time.process_time()) + request.seconds
    for kind, soft, hard in (
        (resource.RLIMIT_AS, memory, memory),
        # At the soft limit comes SIGXCPU, by which the parent knows what it was.
        (resource.RLIMIT_CPU, seconds, seconds + 1),
        (resource.RLIMIT_CORE, 0, 0),
        (resource.RLIMIT_FSIZE, 0, 0),
    ):
        resource.setrlimit(kind, (soft, hard))


if __name__ == "__main__":
    sys.exit(main())

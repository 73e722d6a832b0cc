"""What a parser may do on hostile bytes; the bytes say which."""

from __future__ import annotations

import os
import signal
import sys
from typing import Any

import numpy as np

from bitinfer.errors import ConversionError, MissingExtraError
from bitinfer.importers.foreign import Foreign, ForeignNode


def parse(data: bytes) -> Any:
    match data.decode():
        case "crash":
            os.kill(os.getpid(), signal.SIGSEGV)
        case "hang":
            while True:
                pass
        case "eat":
            return bytearray(1 << 40)
        case "end":
            sys.exit(3)
        case "shout":
            os.write(1, b"noise on stdout\n")
        case "raise":
            raise KeyError("deep\nwithin")
        case "nest":
            return parse(data)
        case "refuse":
            raise ConversionError("no such thing")
        case "lack":
            raise MissingExtraError("wants a package", "onnx")
        case "swell":
            return network(np.zeros(1 << 25, np.float32))
    return network(np.arange(6, dtype=np.int8).reshape(2, 3))


def network(weight: Any) -> Foreign:
    attributes = {"axes": "OI", "counts": "sums", "sizes": (1, 2), "epsilon": 1e-3}
    node = ForeignNode("y", "dense", ("x", "w"), attributes)
    return Foreign("net", "NCHW", "x", (3,), (node,), {"w": weight}, ("y",))

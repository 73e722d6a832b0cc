"""Runs a source by the framework's own runtime, where one is installed: ONNX Runtime.

It runs in a process of its own: it is native code, and the file is somebody else's.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import io
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bitinfer.files import one_line
from bitinfer.importers.foreign import Layout
from bitinfer.verify.compare import CLOSE, to_own, to_source

Array = NDArray[Any]

SECONDS = 300
_CODE = """
import io, sys
import numpy as np
import onnxruntime
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = 1
options.log_severity_level = 4
session = onnxruntime.InferenceSession(sys.argv[1], options, ["CPUExecutionProvider"])
(name,) = (i.name for i in session.get_inputs())
x = np.load(io.BytesIO(sys.stdin.buffer.read()))
y = [session.run(None, {name: sample[None]})[0][0] for sample in x]
answer = io.BytesIO()
np.save(answer, np.stack(y))
sys.stdout.buffer.write(answer.getvalue())
"""


@dataclasses.dataclass(frozen=True)
class RuntimeCheck:
    """What a framework's own runtime has beside the model.

    Attributes:
        name: of the runtime, with its version.
        close: samples whose outputs are close to the model's.
        largest: largest difference of outputs, over all samples.
        failure: why it could not run the source; empty if it did.
    """

    name: str
    close: int = 0
    largest: float = 0.0
    failure: str = ""


def onnx_runtime(path: Path, x: Array, ours: Array, layout: Layout | None) -> RuntimeCheck | None:
    """Compare ``ours`` with ONNX Runtime's first output; None if it is not installed.

    Shapes:  x (N, ...) and ours (N, ...), in our layout; ``layout`` is that of the source's input.
    """
    if importlib.util.find_spec("onnxruntime") is None:
        return None
    from importlib.metadata import version

    name = f"onnxruntime {version('onnxruntime')}"
    file = io.BytesIO()
    np.save(file, np.ascontiguousarray(to_source(x, layout), np.float32))
    command = [sys.executable, "-I", "-c", _CODE, os.fspath(path.resolve())]
    try:
        done = subprocess.run(  # noqa: S603 - our own interpreter, and no shell
            command, check=False, input=file.getvalue(), capture_output=True, timeout=SECONDS
        )
        if done.returncode != 0:
            lines = done.stderr.decode("utf-8", "replace").strip().splitlines()
            reason = lines[-1] if lines else f"exit code {done.returncode}"
            return RuntimeCheck(name, failure=one_line(reason, 400))
        theirs = np.load(io.BytesIO(done.stdout), allow_pickle=False)
    except (subprocess.TimeoutExpired, ValueError, OSError, EOFError) as error:
        return RuntimeCheck(name, failure=one_line(error))
    theirs = to_own(theirs, layout).reshape(len(ours), -1)
    own = ours.reshape(len(ours), -1)
    if theirs.shape != own.shape:
        return RuntimeCheck(name, failure=f"its output has {theirs.shape}, the model's {own.shape}")
    scale = max(1.0, float(np.abs(theirs).max(initial=0)))
    apart = np.abs(theirs - own).max(axis=1)
    return RuntimeCheck(name, int((apart <= CLOSE * scale).sum()), float(apart.max(initial=0)))

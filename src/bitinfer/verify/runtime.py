"""Runs a source by its framework's own runtime, where one is installed.

ONNX Runtime and qonnx run ONNX models, Keras with Larq runs Keras models, and the interpreter of
Larq Compute Engine its models, with the reference kernel, which equals Keras (the default one is
wrong on maps smaller than the kernel).  Each runs in a process of its own: it is native code, and
the file is somebody else's.  It may be a Python of another environment, since TensorFlow and
NumPy 2 are seldom in one.  State dicts run by torch, in this process (by_torch.py).
"""

from __future__ import annotations

import dataclasses
import importlib.util
import io
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bitinfer.errors import UsageError
from bitinfer.files import one_line
from bitinfer.importers import detect
from bitinfer.importers.folder import read_source
from bitinfer.importers.foreign import Foreign, Layout
from bitinfer.importers.recognise import recognise
from bitinfer.verify.differences import CLOSE, to_own, to_source

Array = NDArray[Any]

SECONDS = 600
ABSENT = 77
"""Exit code of a process in which the runtime is not installed."""

_ONNX = """
import onnxruntime
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = 1
options.log_severity_level = 4
session = onnxruntime.InferenceSession(path, options, ["CPUExecutionProvider"])
(name,) = (i.name for i in session.get_inputs())
y = [session.run(None, {name: sample[None]})[0][0] for sample in x]
title = f"onnxruntime {onnxruntime.__version__}"
"""

_QONNX = """
from importlib.metadata import version
from qonnx.core.modelwrapper import ModelWrapper
from qonnx.core.onnx_exec import execute_onnx
from qonnx.util.cleanup import cleanup_model
model = cleanup_model(ModelWrapper(path))
first, last = model.graph.input[0].name, model.graph.output[0].name
y = [execute_onnx(model, {first: sample[None]})[last][0] for sample in x]
title = f"qonnx {version('qonnx')}"
"""

_LCE = """
from importlib.metadata import version
from larq_compute_engine.tflite.python.interpreter import Interpreter
with open(path, "rb") as file:
    interpreter = Interpreter(file.read(), num_threads=1, use_reference_bconv=True)
y = [np.asarray(interpreter.predict(sample[None]))[0] for sample in x]
title = f"larq-compute-engine {version('larq-compute-engine')}, use_reference_bconv"
"""

# Keras goes by the name of a file, and what is called .keras may be HDF5.
_KERAS = """
os.environ["TF_USE_LEGACY_KERAS"] = "1"
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
import shutil, tempfile
import larq
import tensorflow
with open(path, "rb") as file:
    suffix = ".keras" if file.read(4) == b"PK\\3\\4" else ".h5"
with tempfile.TemporaryDirectory() as folder:
    copy = os.path.join(folder, "net" + suffix)
    if network:
        with open(network, encoding="utf-8") as file:
            model = tensorflow.keras.models.model_from_json(file.read())
        copy = os.path.join(folder, os.path.basename(path))
        shutil.copyfile(path, copy)
        model.load_weights(copy)
    else:
        shutil.copyfile(path, copy)
        model = tensorflow.keras.models.load_model(copy, compile=False)
y = model.predict(x, verbose=0)
title = f"Keras of TensorFlow {tensorflow.__version__} with larq {larq.__version__}"
"""

_FRAME = """
import io, os, sys
import numpy as np
answers = os.fdopen(os.dup(1), "wb")
os.dup2(2, 1)
path, network, code = sys.argv[1:]
x = np.load(io.BytesIO(sys.stdin.buffer.read()))
names = {"x": x, "path": path, "network": network, "np": np, "os": os}
try:
    exec(code, names)
except ModuleNotFoundError as error:
    sys.stderr.write(str(error))
    sys.exit(77)
file = io.BytesIO()
np.save(file, np.asarray(names["y"], np.float32))
answers.write(names["title"].encode() + b"\\n" + file.getvalue())
answers.close()
"""


@dataclasses.dataclass(frozen=True)
class Runtime:
    """What can run a source.

    Attributes:
        name: of the runtime.
        module: that is there where it is installed.
        code: makes ``y`` and ``title`` of ``x``, in the source's layout, and ``path``.
    """

    name: str
    module: str
    code: str


RUNTIMES: Mapping[str, Sequence[Runtime]] = {
    "onnx": (Runtime("onnxruntime", "onnxruntime", _ONNX), Runtime("qonnx", "qonnx", _QONNX)),
    "keras": (Runtime("Keras with Larq", "larq", _KERAS),),
    "tflite": (Runtime("the interpreter of LCE", "larq_compute_engine", _LCE),),
}
"""By reader, what runs the files that it reads; the first that can is asked."""


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


def by_framework(
    path: Path,
    source: Foreign,
    x: Array,
    ours: Array,
    *,
    network: Path | None = None,
    python: str | None = None,
) -> RuntimeCheck | None:
    """Compare ``ours`` with what the framework of the file at ``path`` computes.

    Shapes:  x (N, ...) and ours (N, ...), of one output, in our layout.
    Meaning: ``source`` is what was read from the file, ``network`` the file beside it that
             describes the network, ``python`` the interpreter of the environment that has the
             runtime: this one unless given, and always this one for torch.  Where several are
             installed, the first that can run the source counts; None if none is installed, or the
             format has none.
    Raises:  UsageError if ``python`` is no program.
    """
    if python is not None and shutil.which(python) is None:
        raise UsageError(f"--python: {one_line(python)} is no program that can be run")
    layout = recognise(source).layouts.get(source.input)
    reader = detect.identify(read_source(path)).reader
    if reader in ("torch_checkpoint", "safetensors"):
        return _by_torch(source, x, ours, layout)
    found: RuntimeCheck | None = None
    for runtime in RUNTIMES.get(reader, ()):
        if python is None and importlib.util.find_spec(runtime.module) is None:
            continue
        check = _run(runtime, python or sys.executable, (path, network), x, ours, layout)
        if check is not None and not check.failure:
            return check
        found = found or check
    return found


def _by_torch(source: Foreign, x: Array, ours: Array, layout: Layout | None) -> RuntimeCheck | None:
    if importlib.util.find_spec("torch") is None:
        return None
    from bitinfer.verify import by_torch

    name, y = by_torch.run(source, np.ascontiguousarray(to_source(x, layout), np.float32))
    return _compared(name, y, ours, layout)


def _run(
    runtime: Runtime,
    python: str,
    files: tuple[Path, Path | None],
    x: Array,
    ours: Array,
    layout: Layout | None,
) -> RuntimeCheck | None:
    file = io.BytesIO()
    np.save(file, np.ascontiguousarray(to_source(x, layout), np.float32))
    paths = ["" if path is None else os.fspath(path.resolve()) for path in files]
    command = [python, "-I", "-c", _FRAME, *paths, runtime.code]
    try:
        done = subprocess.run(  # noqa: S603 - an interpreter that the user names, and no shell
            command, check=False, input=file.getvalue(), capture_output=True, timeout=SECONDS
        )
        if done.returncode == ABSENT:
            return None
        if done.returncode != 0:
            lines = done.stderr.decode("utf-8", "replace").strip().splitlines()
            reason = lines[-1] if lines else f"exit code {done.returncode}"
            return RuntimeCheck(runtime.name, failure=one_line(reason, 400))
        title, _, answer = done.stdout.partition(b"\n")
        theirs = np.load(io.BytesIO(answer), allow_pickle=False)
    except (subprocess.TimeoutExpired, ValueError, OSError, EOFError, MemoryError) as error:
        return RuntimeCheck(runtime.name, failure=one_line(error))
    if theirs.dtype != np.float32 or len(theirs.shape) < 2 or len(theirs) != len(ours):
        failure = f"its answer is {one_line(theirs.dtype)}{theirs.shape}"
        return RuntimeCheck(runtime.name, failure=failure)
    return _compared(one_line(title.decode("utf-8", "replace"), 80), theirs, ours, layout)


def _compared(name: str, theirs: Array, ours: Array, layout: Layout | None) -> RuntimeCheck:
    theirs = to_own(theirs, layout).reshape(len(ours), -1)
    own = ours.reshape(len(ours), -1)
    if theirs.shape != own.shape:
        return RuntimeCheck(name, failure=f"its output has {theirs.shape}, the model's {own.shape}")
    scale = max(1.0, float(np.abs(theirs).max(initial=0)))
    apart = np.abs(theirs - own).max(axis=1)
    return RuntimeCheck(name, int((apart <= CLOSE * scale).sum()), float(apart.max(initial=0)))

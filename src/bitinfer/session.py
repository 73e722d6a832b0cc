"""A loaded network, ready to run."""

from __future__ import annotations

import dataclasses
import math
import os
import time
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from bitinfer import modelfile, numerics, profiling, vision
from bitinfer.backends import Check, Executor, resolve_threads, select
from bitinfer.errors import InputError, ModelFileError, PicklingError, ShapeError
from bitinfer.graph import passes
from bitinfer.graph.nodes import Softmax
from bitinfer.model import Model
from bitinfer.plan import lower, share_joins
from bitinfer.plan.observe import named, new_outputs, observe
from bitinfer.plan.steps import Plan
from bitinfer.profiling import StepTime

_FLOAT32, _UINT8 = np.dtype(np.float32), np.dtype(np.uint8)


@dataclasses.dataclass(frozen=True)
class TensorInfo:
    """Name, shape of one sample, and element type of an input or output."""

    name: str
    shape: tuple[int, ...]
    dtype: str = "float32"


@dataclasses.dataclass(frozen=True)
class Prediction:
    """One class, its label, its probability (0..1), and what the network gave for it."""

    index: int
    label: str
    probability: float
    score: float


@dataclasses.dataclass(frozen=True)
class Classification:
    """What came of one picture.

    Attributes:
        predictions: best first.
        size: width and height of the picture as it came, upright.
        seconds: spent on decoding, on bringing it to the input's size and colours, and on the
            network.
        is_lost: whether all that was to be seen in a transparent picture has the colour of the
            ground that it is laid on, such as black ink on nothing.
        picture: as it was decoded: a Pillow image, upright, of mode ``L`` or ``RGB``.
    """

    predictions: list[Prediction]
    size: tuple[int, int]
    seconds: tuple[float, float, float]
    is_lost: bool = False
    picture: Any = dataclasses.field(default=None, repr=False, compare=False)


def require_finite(predictions: Sequence[Prediction], name: str) -> None:
    """Raise InputError unless every score and probability of a picture is finite."""
    for p in predictions:
        if not math.isfinite(p.probability + p.score):
            raise InputError(f"{name}: the network's output is not finite; its values overflow")


def load(
    source: Any,
    backend: str = "auto",
    threads: int = 1,
    *,
    skip_passes: Collection[str] = (),
) -> Session:
    """Load a model file: its path, its bytes in any buffer, or a file opened in binary mode.

    ``backend`` is ``auto``, ``native``, ``numba``, ``reference`` or ``native:<kernel>``
    (backends.select).  ``threads`` may work on one call; 0 is as many as this process may use.
    Only ``native`` makes use of more than one.  The results are the same bits.  ``skip_passes``
    names rewrites of the graph that are left out (graph.passes.NAMES), one name or several,
    ``all`` for all of them: to find out which one changes a result.

    Raises:
        ModelFileError: the file is not an intact model file.
        BackendError: the backend is unknown or not available here, or ``threads`` is no such
            number.
        MissingExtraError: the backend's package is not installed.
    """
    session = Session(modelfile.load(source), backend, threads, skip_passes)
    if isinstance(source, str | os.PathLike):
        session.path = Path(os.fsdecode(source)).absolute()
    return session


def _load_same(
    path: str, sha256: str, backend: str, threads: int, skip_passes: tuple[str, ...]
) -> Session:
    """Load what a pickled session was loaded from.

    Raises:
        ModelFileError: the file is gone, or is another one by now.
    """
    session = load(path, backend, threads, skip_passes=skip_passes)
    if session.model.sha256 != sha256:
        raise ModelFileError(f"{path}: not the file that the pickled session was loaded from")
    return session


class Session:
    """Runs one network.  Many threads may use one session at once.

    It survives fork, and is pickled as the path it was loaded from.  With ``threads`` (see
    :func:`load`) above 1 a call that comes while another one uses these threads runs on its own.

    Raises:
        BackendError: the backend is unknown or not available here, or ``threads`` is no number
            of threads.
        UnknownNameError: ``skip_passes`` names no pass.
    """

    def __init__(
        self,
        model: Model,
        backend: str = "auto",
        threads: int = 1,
        skip_passes: Collection[str] = (),
    ) -> None:
        self.model = model
        skip_passes = (skip_passes,) if isinstance(skip_passes, str) else tuple(skip_passes)
        self._network = passes.optimise(model.checked, skip_passes)
        self.path: Path | None = None
        """Where the model was loaded from, if it was."""
        self.threads = resolve_threads(threads)
        self._made_from = (backend, threads, skip_passes)
        self._backend = select(backend)
        self._executors: dict[np.dtype[Any], Executor] = {}
        values = model.checked.values
        graph = model.graph
        self._takes_pixels_only = graph.input.kind == "uint8"
        p = model.preprocessing
        self._mean_image = (
            None if p is None or p.mean_image is None else model.tensors[p.mean_image]
        )
        dtype = "uint8" if self._takes_pixels_only else "float32"
        self.inputs = (TensorInfo(graph.input.name, graph.input.shape, dtype),)
        self.outputs = tuple(TensorInfo(name, values[name].shape) for name in graph.outputs)
        self._shape = graph.input.shape
        self._out_shape = self.outputs[0].shape
        self._has_one_output = len(self.outputs) == 1
        self._gives_probabilities = any(
            isinstance(node, Softmax) and node.name == graph.outputs[0] for node in graph.nodes
        )

    def __repr__(self) -> str:
        return f"<bitinfer.Session {self.model.graph.name!r} on {self.backend}>"

    def __reduce__(self) -> tuple[Any, ...]:
        if self.path is None:
            raise PicklingError(
                "a session made from a model in memory cannot be pickled; write the model with "
                "bitinfer.modelfile.save and load that file by its path with bitinfer.load"
            )
        return _load_same, (os.fspath(self.path), self.model.sha256, *self._made_from)

    @property
    def backend(self) -> str:
        """Backend and kernel, such as ``native:avx2``."""
        return self._backend.label

    def run(self, x: NDArray[Any], out: Any = None, *, check: Check | None = None) -> Any:
        """Run the network on one sample or a batch.

        Shapes:  x (H, W, C) or (N, H, W, C) -- for a network of vectors (C,) or (N, C) -- to an
                 array of the output's shape, with N in front if x had it; a dict of name to array
                 if the network has several outputs.
        Meaning: uint8 is pixels, normalised as the model file says; floats (and bool) are the
                 network's input as it is.  A sample with a NaN or infinity among its numbers has
                 no answer: all its outputs are NaN, whatever the backend and the passes.  A
                 network with integer ends takes uint8 alone.
                 ``out``, if given, is written to and returned: a C-contiguous float32 array of
                 the result's shape, or a dict of one for each output.  With float32 or uint8
                 that is C-contiguous, nothing then is allocated but a few small objects.
                 ``check`` is called every few hundredths of a second, if the call takes that
                 long, and between samples; what it raises ends the call, and leaves anything in
                 ``out``.
        Raises:  ShapeError if x or out does not fit; what ``check`` raises.
        """
        if type(x) is not np.ndarray or x.dtype is not _FLOAT32 or not x.flags.c_contiguous:
            x = self._as_input(x)
        shape = x.shape
        if shape == self._shape:
            batch = x[None]
        elif shape[1:] == self._shape:
            batch = x
        else:
            self._refuse_shape(shape)
        executor = self._executors.get(x.dtype) or self._bind(x.dtype)
        head = shape[: -len(self._shape)]
        if not self._has_one_output:
            return self._run_several(executor, batch, head, out, check)
        if out is None:
            out = np.empty(head + self._out_shape, _FLOAT32)
        else:
            _check_out(out, head + self._out_shape, self.outputs[0].name)
            if np.may_share_memory(batch, out):
                batch = batch.copy()
        arrays = (out if head else out[None],)
        if executor.run(batch, arrays, check):
            _take_back(batch, arrays)
        return out

    def profile(self, x: NDArray[Any], rounds: int = 100) -> list[StepTime]:
        """Run the network ``rounds`` times and return what each step takes, in order.

        ``x`` is as for :meth:`run`; the times are of one sample.
        """
        return profiling.summarize(*self.measure_steps(x, rounds))

    def measure_steps(
        self, x: NDArray[Any], rounds: int, *, check: Check | None = None
    ) -> profiling.Measurement:
        """Return the times of all rounds, from which :meth:`profile` makes its list."""
        if rounds < 1:
            raise ShapeError(f"profile: rounds is {rounds}, wanted at least 1")
        x = self._as_input(x)
        if x.shape != self._shape and x.shape[1:] != self._shape:
            self._refuse_shape(x.shape)
        batch = x.reshape(-1, *self._shape)
        if not len(batch):
            raise ShapeError("profile: a batch of no samples takes no time")
        outputs = [np.empty((len(batch), *info.shape), np.float32) for info in self.outputs]
        executor = self._executors.get(x.dtype) or self._bind(x.dtype)
        return profiling.measure(executor, batch, outputs, rounds, check)

    def observe(
        self, x: NDArray[Any], *, check: Check | None = None
    ) -> tuple[Plan, dict[str, NDArray[Any]]]:
        """Run a batch and return every value on the way, by name, and the plan that they are of.

        Shapes:  x (N, H, W, C) or (N, C), otherwise as for :meth:`run`; values have N in front.
        Meaning: packed signs are int8, -1 and +1.
        Cost:    the network is bound anew.
        Raises:  ShapeError if x does not fit; what ``check`` raises.
        """
        x = self._as_input(x)
        if x.shape[1:] != self._shape:
            self._refuse_shape(x.shape)
        plan = observe(self._lowered(x.dtype))  # where joins share buffers, parts are overwritten
        outputs = new_outputs(plan, len(x))
        self._backend.bind(plan).run(x, outputs, check)
        return plan, named(plan, outputs)

    def bind(self, *, pixels: bool = False) -> None:
        """Bind the network to its kernels, unless it is bound already; the first run would.

        ``pixels`` prepares for uint8 input, which has a plan of its own.
        """
        as_pixels = pixels and self._mean_image is None
        dtype = _UINT8 if as_pixels or self._takes_pixels_only else _FLOAT32
        if dtype not in self._executors:
            self._bind(dtype)

    def warmup(self, *, pixels: bool = False) -> None:
        """Bind the network to its kernels and run it once, so that the first request need not.

        ``pixels`` prepares for uint8 input, which has a plan of its own.
        """
        pixels = pixels or self._takes_pixels_only
        self.run(np.zeros(self._shape, np.uint8 if pixels else np.float32))

    def _run_several(
        self,
        executor: Executor,
        batch: NDArray[Any],
        head: tuple[int, ...],
        out: Any,
        check: Check | None,
    ) -> dict[str, NDArray[np.float32]]:
        shapes = {info.name: head + info.shape for info in self.outputs}
        if out is None:
            out = {name: np.empty(shape, np.float32) for name, shape in shapes.items()}
        else:
            if not isinstance(out, Mapping) or out.keys() != shapes.keys():
                raise ShapeError(f"run: out is no dict of arrays named {', '.join(shapes)}")
            for name, shape in shapes.items():
                _check_out(out[name], shape, name)
                if np.may_share_memory(batch, out[name]):
                    batch = batch.copy()
        arrays = [out[name] for name in shapes]
        batches = arrays if head else [array[None] for array in arrays]
        if executor.run(batch, batches, check):
            _take_back(batch, batches)
        return dict(zip(shapes, arrays, strict=True))

    def _as_input(self, x: Any) -> NDArray[Any]:
        """Return x as float32 or uint8, C-contiguous."""
        x = np.asarray(x)
        if x.dtype == np.uint8:
            if self._mean_image is None:
                return np.asarray(x, order="C")
            if x.shape[-3:] != self._shape:
                self._refuse_shape(x.shape)
            p = self.model.preprocessing
            assert p is not None
            return numerics.subtract_mean_image(x, self._mean_image, p.scale, p.mean, p.std)
        if x.dtype.kind not in "bf":
            raise ShapeError(
                f"run: x is {x.dtype}, wanted uint8 (pixels of 0 to 255) or float32 (the network's "
                "input as it is); say which with x.astype"
            )
        with np.errstate(all="ignore"):  # what float32 does not hold is infinite, or 0
            return np.asarray(x, _FLOAT32, order="C")

    def _refuse_shape(self, shape: tuple[int, ...]) -> NoReturn:
        wanted = self._shape
        raise ShapeError(
            f"run: x has shape {shape}, wanted {wanted} or (N, {', '.join(map(str, wanted))})"
        )

    def predictions(self, output: NDArray[Any], top_k: int = 5) -> list[Prediction]:
        """Return the ``top_k`` most probable classes of one sample's output, best first.

        Shapes:  output (classes,), or any shape with that many elements.
        Raises:  ShapeError if the output has other than the network's number of elements, or
                 ``top_k`` is below 1.
        """
        with np.errstate(all="ignore"):
            scores = np.asarray(output, np.float32).reshape(-1)
        classes = int(np.prod(self.outputs[0].shape))
        if scores.size != classes or top_k < 1:
            raise ShapeError(
                f"predictions: {scores.size} scores and top_k={top_k}, wanted {classes} scores "
                "and top_k of at least 1"
            )
        probabilities = scores if self._gives_probabilities else numerics.softmax(scores)
        order = np.argsort(-probabilities, kind="stable")[:top_k]
        labels = self.model.labels
        return [
            Prediction(
                index=int(i),
                label=labels[i] if labels else str(i),
                probability=float(probabilities[i]),
                score=float(scores[i]),
            )
            for i in order
        ]

    def prepare(self, image: Any) -> NDArray[np.uint8]:
        """Return the pixels (H, W, C), uint8, that the network takes of a picture.

        ``image`` is what :meth:`classify` takes.  Several, stacked, are a batch for :meth:`run`.

        Raises:
            ImageError: the picture cannot be decoded, or does not fit the network.
            ModelFileError: the model file does not say how to prepare pictures.
        """
        return self._prepare(image, None)[0]

    def classify(self, image: Any, top_k: int = 5) -> list[Prediction]:
        """Say what is in a picture.

        ``image`` is a path, the bytes of a picture file (any buffer), a binary file, or a picture
        that is decoded already: a Pillow image, or an array uint8 (H, W), (H, W, 1), (H, W, 3)
        red, green, blue, or (H, W, 4) with transparency.

        Raises:
            ImageError: the picture cannot be decoded, or does not fit the network.
            ModelFileError: the model file does not say how to prepare pictures.
        """
        return self.examine(image, top_k).predictions

    def examine(
        self,
        image: Any,
        top_k: int = 5,
        *,
        name: str | None = None,
        check: Check | None = None,
    ) -> Classification:
        """Do what :meth:`classify` does, and say more of it; errors call the picture ``name``.

        ``check`` is as for :meth:`run`.
        """
        start = time.perf_counter()
        pixels, picture, decoded = self._prepare(image, name)
        prepared = time.perf_counter()
        output = self.run(pixels, check=check)
        finished = time.perf_counter()
        if isinstance(output, dict):
            output = output[self.outputs[0].name]
        seconds = (decoded - start, prepared - decoded, finished - prepared)
        return Classification(
            predictions=self.predictions(output, top_k),
            size=vision.size_of(picture),
            seconds=seconds,
            is_lost=vision.is_lost(picture),
            picture=picture,
        )

    def _prepare(self, image: Any, name: str | None) -> tuple[NDArray[np.uint8], Any, float]:
        """Return the pixels, the decoded picture, and when it was decoded."""
        if name is None:
            is_path = isinstance(image, str | os.PathLike)
            name = os.fsdecode(image) if is_path else "picture"
        preprocessing = self.model.preprocessing
        picture = vision.decode(image, preprocessing, name=name)
        decoded = time.perf_counter()
        pixels = vision.prepare(picture, preprocessing, self.inputs[0].shape, name=name)
        return pixels, picture, decoded

    def _bind(self, dtype: np.dtype[Any]) -> Executor:
        """Return the executor for one type of input, made now if there is none."""
        plan = share_joins(self._lowered(dtype))
        with np.errstate(all="ignore"):
            # Of two threads that come here at once, both get the first one's.
            return self._executors.setdefault(dtype, self._backend.bind(plan, self.threads))

    def _lowered(self, dtype: np.dtype[Any]) -> Plan:
        """Return the plan for one type of input, in which every value has a buffer of its own."""
        model, table = self.model, None
        if self._takes_pixels_only:
            if dtype != np.uint8:
                raise ShapeError(
                    f"run: x is {dtype}, but this network takes pixels (uint8) as they are"
                )
        elif dtype == np.uint8:
            p = model.preprocessing
            if p is None:
                raise ShapeError(
                    "run: x is uint8, but the model file does not say how to normalise "
                    "pixels; pass the network's input as float32"
                )
            table = numerics.normalization_table(p.scale, p.mean, p.std)
        with np.errstate(all="ignore"):
            return lower(self._network, table)


def _take_back(batch: NDArray[Any], outputs: Sequence[NDArray[np.float32]]) -> None:
    """Write NaN for every sample that holds a NaN or infinity."""
    lost = ~np.isfinite(batch.reshape(len(batch), -1)).all(axis=1)
    for output in outputs:
        output[lost] = np.nan


def _check_out(out: Any, shape: tuple[int, ...], name: str) -> None:
    """Raise ShapeError unless ``out`` is an array that a result can be written into."""
    if not isinstance(out, np.ndarray) or out.dtype != _FLOAT32 or out.shape != shape:
        came = f"{out.dtype}{out.shape}" if isinstance(out, np.ndarray) else type(out).__name__
        raise ShapeError(f"run: out for {name} is {came}, wanted an array float32{shape}")
    if not (out.flags.c_contiguous and out.flags.writeable):
        raise ShapeError(f"run: out for {name} is not contiguous in C's order, or is read-only")

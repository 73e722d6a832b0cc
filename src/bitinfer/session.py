"""A loaded network, ready to run."""

from __future__ import annotations

import dataclasses
import os
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bitinfer import modelfile, numerics, vision
from bitinfer.backends import Executor, select
from bitinfer.errors import ShapeError
from bitinfer.graph.nodes import Softmax
from bitinfer.modelfile import Model
from bitinfer.plan import lower


@dataclasses.dataclass(frozen=True)
class TensorInfo:
    """Name, shape of one sample, and element type of an input or output."""

    name: str
    shape: tuple[int, ...]
    dtype: str = "float32"


@dataclasses.dataclass(frozen=True)
class Prediction:
    """One class, its label and its probability (0..1)."""

    index: int
    label: str
    probability: float


def load(path: str | os.PathLike[str], backend: str = "auto") -> Session:
    """Load a model file.

    ``backend`` is ``auto``, ``native``, ``numba``, ``reference`` or ``native:<kernel>``
    (backends.select).

    Raises:
        ModelFileError: the file is not an intact model file.
        BackendError: the backend is unknown or not available here.
    """
    return Session(modelfile.load(path), backend)


class Session:
    """Runs one network.  Many threads may use one session at once.

    Raises:
        BackendError: the backend is unknown or not available here.
    """

    def __init__(self, model: Model, backend: str = "auto") -> None:
        self.model = model
        self._backend = select(backend)
        self._executors: dict[str, Executor] = {}
        values = model.values
        graph = model.graph
        self.inputs = (TensorInfo(graph.input.name, graph.input.shape),)
        self.outputs = tuple(TensorInfo(name, values[name].shape) for name in graph.outputs)

    def __repr__(self) -> str:
        return f"<bitinfer.Session {self.model.graph.name!r} on {self.backend}>"

    @property
    def backend(self) -> str:
        """Backend and kernel, such as ``native:avx2``."""
        return self._backend.label

    def run(self, x: NDArray[Any]) -> Any:
        """Run the network on one sample or a batch.

        Shapes:  x (H, W, C) or (N, H, W, C) -- for a network of vectors (C,) or (N, C) -- to an
                 array of the output's shape, with N in front if x had it; a dict of name to array
                 if the network has several outputs.
        Meaning: uint8 is pixels, normalised as the model file says; any other real type is the
                 network's input as it is.  NaN has the sign +1.
        Raises:  ShapeError if x does not fit.
        """
        x = np.asarray(x)
        shape = self.inputs[0].shape
        if x.shape != shape and x.shape[1:] != shape:
            raise ShapeError(
                f"run: x has shape {x.shape}, wanted {shape} or (N, {', '.join(map(str, shape))})"
            )
        if x.dtype.kind not in "biuf":
            raise ShapeError(f"run: x is {x.dtype}, wanted uint8 pixels or float32")
        batch = np.ascontiguousarray(
            x.reshape(-1, *shape), dtype=np.uint8 if x.dtype == np.uint8 else np.float32
        )
        results = [np.empty((len(batch), *info.shape), np.float32) for info in self.outputs]
        self._executor(pixels=batch.dtype == np.uint8).run(batch, results)
        if x.ndim == len(shape):
            results = [result[0] for result in results]
        if len(results) == 1:
            return results[0]
        return dict(zip((info.name for info in self.outputs), results, strict=True))

    def predictions(self, output: NDArray[Any], top_k: int = 5) -> list[Prediction]:
        """Return the ``top_k`` most probable classes of one sample's output, best first.

        Shapes:  output (classes,), or any shape with that many elements.
        Raises:  ShapeError if the output has other than the network's number of elements, or
                 ``top_k`` is below 1.
        """
        scores = np.asarray(output, np.float32).reshape(-1)
        classes = int(np.prod(self.outputs[0].shape))
        if scores.size != classes or top_k < 1:
            raise ShapeError(
                f"predictions: {scores.size} scores and top_k={top_k}, wanted {classes} scores "
                "and top_k of at least 1"
            )
        last = next(n for n in self.model.graph.nodes if n.name == self.outputs[0].name)
        probabilities = scores if isinstance(last, Softmax) else numerics.softmax(scores)
        order = np.argsort(-probabilities, kind="stable")[:top_k]
        labels = self.model.labels
        return [
            Prediction(int(i), labels[i] if labels else str(i), float(probabilities[i]))
            for i in order
        ]

    def classify(self, image: vision.Source, top_k: int = 5) -> list[Prediction]:
        """Say what is in a picture: a path, the bytes of a picture file, or a binary file.

        Raises:
            ImageError: the picture cannot be decoded, or does not fit the network.
            ModelFileError: the model file does not say how to prepare pictures.
        """
        name = os.fspath(image) if isinstance(image, str | os.PathLike) else "picture"
        picture = vision.decode(image, name=name)
        pixels = vision.prepare(
            picture, self.model.preprocessing, self.inputs[0].shape, name=str(name)
        )
        output = self.run(pixels)
        if isinstance(output, dict):
            output = output[self.outputs[0].name]
        return self.predictions(output, top_k)

    def _executor(self, *, pixels: bool) -> Executor:
        key = "pixels" if pixels else "float"
        executor = self._executors.get(key)
        if executor is None:
            model = self.model
            table = None
            if pixels:
                p = model.preprocessing
                if p is None:
                    raise ShapeError(
                        "run: x is uint8, but the model file does not say how to normalise "
                        "pixels; pass the network's input as float32"
                    )
                table = numerics.normalization_table(p.scale, p.mean, p.std)
            plan = lower(model.graph, model.tensors, table)
            executor = self._executors.setdefault(key, self._backend.bind(plan))
        return executor

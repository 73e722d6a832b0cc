"""A model as data: the network, its weights, and what pictures and answers mean.

How it is written to a file is in modelfile.py.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from bitinfer import numerics
from bitinfer.errors import GraphError, ShapeError
from bitinfer.files import one_line
from bitinfer.graph import CheckedGraph, Value, check
from bitinfer.graph.nodes import Graph, Layer, Record

MAX_LABELS = 1 << 16
MAX_NAME_LENGTH = 256
MAX_PICTURE_SIDE = 1 << 14
"""Longest side that ``resize`` and ``crop`` may ask for, in pixels."""


class Preprocessing(Record, frozen=True):
    """From a picture to the input of the network, in this order (vision/ does it).

    Attributes:
        color: ``rgb`` or ``bgr`` (3 channels, in this order) or ``grey`` (1 channel).
        resize: (height, width) exactly, or one number for the shorter side, or None.
        crop: centred (height, width), or None.
        interpolation: how pixels are resampled.
        scale, mean, std: ``x = (pixel * scale - mean[c]) / std[c]``, pixel 0..255.
        ground: what transparent pixels lie on, before anything else is done.
        invert: whether a pixel p counts as 255 - p, for networks that want light on dark.
        mean_image: name of a float32 tensor (H, W, C) of the model, in the units and the order of
            the pixels; it is subtracted from them first: ``(pixel - image[h, w, c]) * scale``.
    """

    color: Literal["rgb", "bgr", "grey"]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    scale: float = 1 / 255
    resize: tuple[int, int] | int | None = None
    crop: tuple[int, int] | None = None
    interpolation: Literal["nearest", "box", "bilinear", "bicubic", "lanczos"] = "bilinear"
    ground: Literal["black", "white"] = "black"
    invert: bool = False
    mean_image: str | None = None


class Provenance(Record, frozen=True):
    """Where the network came from: file name and SHA-256 of the source, importer, versions."""

    importer: str
    source: str = ""
    source_sha256: str = ""
    versions: dict[str, str] = msgspec.field(default_factory=dict)
    notes: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True, eq=False)
class Model:
    """Everything that a model file holds.

    Attributes:
        graph, tensors: the network as it was imported, and its weights.
        labels: one per class of the first output, or none.
        preprocessing: how a picture becomes the input, if pictures do.
        provenance: where the network came from, if that is known.
        sha256: of the file that it was read from, as the file bears it; else empty.
    """

    graph: Graph
    tensors: Mapping[str, NDArray[Any]]
    labels: tuple[str, ...] = ()
    preprocessing: Preprocessing | None = None
    provenance: Provenance | None = None
    sha256: str = ""

    @property
    def checked(self) -> CheckedGraph:
        """The network, which is known to be right.  The first use checks the whole model.

        Raises:
            GraphError, ShapeError: the parts of the model do not fit together.
        """
        # cached_property takes a lock before Python 3.12, for which a child that was forked while
        # another thread held it would wait for ever.
        found: CheckedGraph | None = self.__dict__.get("_checked")
        if found is None:
            with np.errstate(all="ignore"):  # what leaves float32 is found and named
                found = self.__dict__.setdefault("_checked", self._check())
        return found

    def _check(self) -> CheckedGraph:
        for node in self.graph.nodes:
            if isinstance(node, Layer) and node.epilogue is not None:
                raise GraphError(
                    f"node {one_line(node.name)}: an epilogue is made by passes, not stored"
                )
        image = None if self.preprocessing is None else self.preprocessing.mean_image
        checked = check(self.graph, {n: t for n, t in self.tensors.items() if n != image})
        _check_names(self, checked.values)
        classes = math.prod(checked.values[self.graph.outputs[0]].shape)
        if self.labels and len(self.labels) != classes:
            raise ShapeError(f"{len(self.labels)} labels for an output of {classes} classes")
        if self.preprocessing is not None:
            _check_preprocessing(self.preprocessing, self.graph.input.shape)
            _check_mean_image(self)
        return checked


def _check_names(model: Model, values: Mapping[str, Value]) -> None:
    names = [model.graph.name, *values, *model.tensors, *model.labels]
    if longest := max((n for n in names if len(n) > MAX_NAME_LENGTH), default=None, key=len):
        raise GraphError(f"the name {one_line(longest)} has over {MAX_NAME_LENGTH} characters")
    if len(model.labels) > MAX_LABELS:
        raise GraphError(f"{len(model.labels)} labels, at most {MAX_LABELS} are allowed")


def _check_mean_image(model: Model) -> None:
    p, wanted = model.preprocessing, model.graph.input.shape
    if p is None or p.mean_image is None:
        return
    name = one_line(p.mean_image)
    image = model.tensors.get(p.mean_image)
    if image is None:
        raise GraphError(f"preprocessing: there is no tensor {name} for the mean image")
    if image.dtype != np.float32 or image.shape != wanted:
        raise ShapeError(
            f"preprocessing: the mean image {name} is {image.dtype}{image.shape}, wanted "
            f"float32{wanted}"
        )
    if model.graph.input.kind == "uint8":
        raise ShapeError("preprocessing: a network that takes pixels as they are has no mean image")
    if not (image.min() >= 0 and image.max() <= 255):
        raise ShapeError(f"preprocessing: the mean image {name} is not within 0 to 255")


def _check_preprocessing(p: Preprocessing, shape: tuple[int, ...]) -> None:
    channels = 1 if p.color == "grey" else 3
    if shape[-1] != channels or len(shape) != 3:
        raise ShapeError(
            f"preprocessing: a {p.color} picture has {channels} channels, the input is {shape}"
        )
    if len(p.mean) != channels or len(p.std) != channels:
        raise ShapeError(
            f"preprocessing: {len(p.mean)} means and {len(p.std)} stds for {channels} channels"
        )
    if not all(math.isfinite(v) for v in (*p.mean, *p.std, p.scale)) or not all(
        abs(v) >= 1e-12 for v in p.std
    ):
        raise ShapeError("preprocessing: scale, mean and std must be finite, std not 0")
    if not np.isfinite(numerics.normalization_table(p.scale, p.mean, p.std)).all():
        raise ShapeError("preprocessing: some normalised pixel is too large for float32")
    resize = (p.resize, p.resize) if isinstance(p.resize, int) else (p.resize or ())
    if not all(1 <= v <= MAX_PICTURE_SIDE for v in (*resize, *(p.crop or ()))):
        raise ShapeError(
            f"preprocessing: resize and crop must be within 1 to {MAX_PICTURE_SIDE} pixels"
        )
    fixed = p.crop or (p.resize if isinstance(p.resize, tuple) else None)
    if fixed is not None and fixed != shape[:2]:
        raise ShapeError(f"preprocessing makes {fixed} pixels, the input wants {shape[:2]}")

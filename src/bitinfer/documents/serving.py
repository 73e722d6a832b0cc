"""Answers of ``bitinfer serve``: those of the Open Inference Protocol V2, and bitinfer's own.

The protocol says what its answers consist of, so they do not begin with ``schema_version``.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from msgspec import UNSET, Meta, UnsetType

from bitinfer.documents import Answer, Count, Part, Share
from bitinfer.documents.runs import StageTimes
from bitinfer.session import Prediction

Datatype = Literal["FP32", "UINT8"]
"""UINT8 are pixels, which are normalised as the model file says."""
TensorShape = Annotated[
    tuple[int, ...], Meta(description="a batch first; -1 stands for any number of samples")
]


class Failed(Part, frozen=True):
    """Why a request has no answer, on one line."""

    error: str


class ServerLive(Part, frozen=True):
    """Whether the server answers at all."""

    live: bool


class ServerReady(Part, frozen=True):
    """Whether requests may be sent: not before the self-test, not while the server ends."""

    ready: bool


class ModelReady(Part, frozen=True):
    """Whether requests for a model may be sent."""

    name: str
    ready: bool


class ServerMetadata(Part, frozen=True):
    """What the server is; ``models`` is beyond the protocol."""

    name: Literal["bitinfer"]
    version: str
    extensions: tuple[str, ...]
    models: tuple[str, ...]


class TensorMetadata(Part, frozen=True):
    """An input or output of a model."""

    name: str
    datatype: Datatype
    shape: TensorShape


class ModelMetadata(Part, frozen=True):
    """A model.

    Attributes:
        versions: all that are served, the oldest first.
        inputs: one; a network that pixels can be given to takes UINT8 under the same name.
        parameters: beyond the protocol: ``version`` (the one that is described), ``sha256`` of the
            model file, ``backend``, ``labels``, and ``takes_pictures`` and ``takes_pixels``.
    """

    name: str
    versions: tuple[str, ...]
    platform: Literal["bitinfer"]
    inputs: tuple[TensorMetadata, ...]
    outputs: tuple[TensorMetadata, ...]
    parameters: dict[str, Any]


class OutputTensor(Part, frozen=True):
    """An output of an inference: ``data``, row after row, or its bytes behind the JSON.

    ``parameters`` then has their number, ``binary_data_size``; they are little-endian.
    """

    name: str
    datatype: Literal["FP32"]
    shape: TensorShape
    parameters: dict[str, Count] | UnsetType = UNSET
    data: list[float] | UnsetType = UNSET


class Inference(Part, frozen=True):
    """The answer to ``infer``; ``id`` is the one that the request had."""

    model_name: str
    model_version: str
    outputs: tuple[OutputTensor, ...]
    id: str | UnsetType = UNSET


class Classification(Answer, frozen=True):
    """The answer to ``classify``: ``predictions`` of one picture, best first."""

    model_name: str
    model_version: str
    backend: str
    predictions: tuple[Prediction, ...]
    ms: StageTimes


# --- the page ------------------------------------------------------------------------------------


class Picture(Part, frozen=True):
    """Bytes of an image: ``pixels`` are base64, row after row, ``channels`` bytes for each."""

    width: Count
    height: Count
    channels: Literal[1, 3]
    pixels: str


class LayerView(Part, frozen=True):
    """A step of the network as it is run.

    Attributes:
        us: median microseconds of one sample.
        share: of the sum of all medians.
    """

    name: str
    operation: str
    kernel: str
    us: float
    share: Share


class Explanation(Classification, frozen=True):
    """What the page shows of a picture.

    Attributes:
        input: what the network sees.
        has_module: whether there is a WebAssembly module of the model for the browser to run.
    """

    input: Picture
    layers: tuple[LayerView, ...]
    has_module: bool = False


class LayerMaps(Answer, frozen=True):
    """Maps of one layer: of its output for a picture, and its weights.

    Attributes:
        kind: ``signs`` are 0 for -1 and 255 for +1; ``numbers`` are stretched, the least to 0.
        channels: how many the layer has; ``maps`` are the first of them, each in grey.
        low, high: the values that 0 and 255 stand for.
        weights: one filter each, its first input channels side by side; empty without weights.
    """

    layer: str
    kind: Literal["signs", "numbers"]
    shape: TensorShape
    channels: Count
    low: float
    high: float
    maps: tuple[Picture, ...]
    weights_kind: Literal["signs", "numbers", "none"]
    weights: tuple[Picture, ...]

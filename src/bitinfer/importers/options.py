"""What the caller says about a network where the file does not, or says it otherwise."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from typing import Literal

import msgspec

from bitinfer.errors import CheckpointError, InputError, ShapeError
from bitinfer.files import one_line, read_regular
from bitinfer.model import Preprocessing

MAX_NETWORK_BYTES = 1 << 26


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """What replaces an architecture's own labels and preprocessing; None leaves it.

    Attributes:
        swap_hw: exchange height and width in every kernel and every flattened map, for a network
            that was trained on transposed pictures.
        weights: which of several sets of weights in the file is meant.
        network: the file that describes the network, where the weights are in one of their own.
        input_shape: (H, W, C) or (C,), where the files do not say it.
        bit_path: read binary layers as darknet's path of bits computes them, which pads with -1.
        labels: names of the classes.
        mean, std, scale: ``x = (pixel * scale - mean) / std``; one mean or std serves all channels.
        labels_from: what messages call the labels: the file that they are from.
        color, resize, crop, interpolation, ground, invert: as of Preprocessing.
    """

    swap_hw: bool = False
    weights: str | None = None
    network: bytes | None = None
    input_shape: tuple[int, ...] | None = None
    bit_path: bool = False
    labels: Sequence[str] | None = None
    mean: Sequence[float] | None = None
    std: Sequence[float] | None = None
    scale: float | None = None
    resize: tuple[int, int] | int | None = None
    crop: tuple[int, int] | None = None
    labels_from: str = "labels"
    color: Literal["rgb", "bgr", "grey"] | None = None
    interpolation: Literal["nearest", "box", "bilinear", "bicubic", "lanczos"] | None = None
    ground: Literal["black", "white"] | None = None
    invert: bool | None = None

    def replace_in(self, default: Preprocessing) -> Preprocessing:
        """Return ``default`` with what the caller says otherwise.

        Raises:
            ShapeError: there are means or stds for another number of channels.
        """
        own = default.mean, default.std
        if {self.color, default.color} == {"rgb", "bgr"}:
            own = default.mean[::-1], default.std[::-1]
        plain = ("color", "scale", "resize", "crop", "interpolation", "ground", "invert")
        changes = {name: getattr(self, name) for name in plain if getattr(self, name) is not None}
        return msgspec.structs.replace(
            default,
            mean=_per_channel("mean", self.mean, own[0]),
            std=_per_channel("std", self.std, own[1]),
            **changes,
        )

    def preprocessing_for(self, shape: tuple[int, ...]) -> Preprocessing | None:
        """Return what the caller says of a network whose file says nothing; None if nothing.

        Shapes:  shape (H, W, C) of the input; pictures are resized to (H, W) unless a crop or
                 another size is given.
        Meaning: what is left open is mean 0, std 1 and scale 1/255.
        Raises:  ShapeError if the input is no picture, or the numbers do not fit its channels.
        """
        given = (self.mean, self.std, self.scale, self.resize, self.crop, self.color)
        more = (self.interpolation, self.ground, self.invert)
        if all(value is None for value in given + more):
            return None
        if len(shape) != 3 or shape[2] not in (1, 3):
            raise ShapeError(f"preprocessing for an input of shape {shape}, which is no picture")
        channels = shape[2]
        return self.replace_in(
            Preprocessing(
                color="grey" if channels == 1 else "rgb",
                mean=(0.0,) * channels,
                std=(1.0,) * channels,
                resize=None if self.crop is not None else (shape[0], shape[1]),
            )
        )

    def labels_for(self, classes: int, default: Sequence[str]) -> tuple[str, ...]:
        """Return the caller's labels, else the default's if their number fits.

        Raises:
            InputError: the caller's labels are for another number of classes.
        """
        if self.labels is None:
            return tuple(default) if len(default) == classes else ()
        if len(self.labels) != classes:
            raise InputError(
                f"{self.labels_from}: {len(self.labels)} labels, the network has {classes} "
                f"classes; {_mend(self.labels, classes)}"
            )
        return tuple(self.labels)


DEFAULTS = Options()
"""Nothing is replaced."""


def _per_channel(
    what: str, values: Sequence[float] | None, own: tuple[float, ...]
) -> tuple[float, ...]:
    if values is None:
        return own
    channels = len(own)
    if len(values) not in (1, channels):
        raise ShapeError(
            f"{what}: {len(values)} numbers for {channels} channels, wanted "
            f"{'1' if channels == 1 else f'1 or {channels}'}"
        )
    return tuple(values) * (channels // len(values))


def _mend(labels: Sequence[str], classes: int) -> str:
    if len(labels) == classes + 1:
        return (
            f"remove the line that names no class, such as the first ('{one_line(labels[0], 20)}') "
            "where it stands for the background"
        )
    return "wanted one label per line, in the order of the classes"


def read_network(path: str | os.PathLike[str]) -> bytes:
    """Read a file that describes a network.

    Raises:
        CheckpointError: the file cannot be read.
    """
    return read_regular(path, MAX_NETWORK_BYTES, error=CheckpointError, what="descriptions")

"""What the caller says about a network where the file does not, or says it otherwise."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence

from bitinfer.errors import CheckpointError, InputError, ShapeError
from bitinfer.files import read_regular
from bitinfer.model import Preprocessing

MAX_LABEL_BYTES = 1 << 24
MAX_NETWORK_BYTES = 1 << 26


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """What replaces an architecture's own labels and preprocessing; None leaves it.

    Attributes:
        swap_hw: exchange height and width in every kernel and every flattened map, for a network
            that was trained on transposed pictures.
        network: the file that describes the network, where the weights are in one of their own.
        input_shape: (H, W, C) or (C,), where the files do not say it.
        bit_path: read binary layers as darknet's path of bits computes them, which pads with -1.
        labels: names of the classes.
        mean, std, scale: ``x = (pixel * scale - mean) / std``; one mean or std serves all channels.
        resize, crop: as of Preprocessing.
    """

    swap_hw: bool = False
    network: bytes | None = None
    input_shape: tuple[int, ...] | None = None
    bit_path: bool = False
    labels: Sequence[str] | None = None
    mean: Sequence[float] | None = None
    std: Sequence[float] | None = None
    scale: float | None = None
    resize: tuple[int, int] | int | None = None
    crop: tuple[int, int] | None = None

    def replace_in(self, default: Preprocessing) -> Preprocessing:
        """Return ``default`` with what the caller says otherwise.

        Raises:
            ShapeError: there are means or stds for another number of channels.
        """
        return Preprocessing(
            color=default.color,
            mean=_per_channel("mean", self.mean, default.mean),
            std=_per_channel("std", self.std, default.std),
            scale=default.scale if self.scale is None else self.scale,
            resize=default.resize if self.resize is None else self.resize,
            crop=default.crop if self.crop is None else self.crop,
            interpolation=default.interpolation,
        )

    def preprocessing_for(self, shape: tuple[int, ...]) -> Preprocessing | None:
        """Return what the caller says of a network whose file says nothing; None if nothing.

        Shapes:  shape (H, W, C) of the input; pictures are resized to (H, W) unless a crop or
                 another size is given.
        Meaning: what is left open is mean 0, std 1 and scale 1/255.
        Raises:  ShapeError if the input is no picture, or the numbers do not fit its channels.
        """
        given = (self.mean, self.std, self.scale, self.resize, self.crop)
        if all(value is None for value in given):
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
            raise InputError(f"{len(self.labels)} labels, the network has {classes} classes")
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
            f"{what}: {len(values)} numbers for {channels} channels, wanted 1 or {channels}"
        )
    return tuple(values) * (channels // len(values))


def read_labels(path: str | os.PathLike[str]) -> tuple[str, ...]:
    """Read one label per line, UTF-8; empty lines at the end do not count.

    Raises:
        InputError: the file cannot be read.
    """
    data = read_regular(path, MAX_LABEL_BYTES, error=InputError, what="lists of labels")
    try:
        return tuple(line.strip() for line in data.decode("utf-8-sig").rstrip().splitlines())
    except UnicodeDecodeError as error:
        raise InputError(f"{os.fspath(path)}: not UTF-8 text") from error


def read_network(path: str | os.PathLike[str]) -> bytes:
    """Read a file that describes a network.

    Raises:
        CheckpointError: the file cannot be read.
    """
    return read_regular(path, MAX_NETWORK_BYTES, error=CheckpointError, what="descriptions")

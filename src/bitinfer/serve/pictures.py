"""From the bytes of a picture to predictions, with the time of each stage."""

from __future__ import annotations

import math
import time
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bitinfer import vision
from bitinfer.documents import runs
from bitinfer.errors import InputError
from bitinfer.session import Prediction, Session


def warm_up() -> None:
    """Import the decoders, which the first picture would wait for."""
    from PIL import Image

    Image.init()


def to_pixels(
    session: Session, source: Any, name: str = "picture"
) -> tuple[NDArray[np.uint8], float, float]:
    """Return the input (H, W, C) that a picture becomes, and seconds of decoding and preparing.

    Raises:
        ImageError: the picture cannot be decoded, or does not fit the network.
        ModelFileError: the model file does not say how to prepare pictures.
    """
    started = time.perf_counter()
    image = vision.decode(source, session.model.preprocessing, name=name)
    decoded = time.perf_counter()
    shape = session.inputs[0].shape
    pixels = vision.prepare(image, session.model.preprocessing, shape, name=name)
    return pixels, decoded - started, time.perf_counter() - decoded


def classify(
    session: Session, source: Any, top_k: int, name: str = "picture"
) -> tuple[tuple[Prediction, ...], runs.StageTimes]:
    """Return the ``top_k`` most probable classes of a picture, and what each stage took.

    Raises:
        ImageError, ModelFileError: see :func:`to_pixels`.
        InputError: the network's output for this picture is not finite.
    """
    pixels, decode_s, prepare_s = to_pixels(session, source, name)
    started = time.perf_counter()
    output: Any = session.run(pixels)
    took = time.perf_counter() - started
    if isinstance(output, dict):
        output = output[session.outputs[0].name]
    predictions = tuple(session.predictions(output, top_k))
    if not all(math.isfinite(p.probability) for p in predictions):
        raise InputError(f"{name}: the network's output is not finite; its values overflow")
    return predictions, runs.StageTimes(
        decode=round(decode_s * 1e3, 3),
        preprocess=round(prepare_s * 1e3, 3),
        inference=round(took * 1e3, 3),
    )

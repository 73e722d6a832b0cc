"""From the bytes of a picture to predictions, with the time of each stage."""

from __future__ import annotations

from typing import Any

from bitinfer.backends import Check
from bitinfer.documents import runs
from bitinfer.session import Prediction, Session, require_finite


def warm_up() -> None:
    """Import the decoders, which the first picture would wait for."""
    from PIL import Image

    Image.init()


def classify(
    session: Session,
    source: Any,
    top_k: int,
    name: str = "picture",
    *,
    check: Check | None = None,
) -> tuple[tuple[Prediction, ...], runs.StageTimes]:
    """Return the ``top_k`` most probable classes of a picture, and what each stage took.

    Raises:
        ImageError: the picture cannot be decoded, or does not fit the network.
        ModelFileError: the model file does not say how to prepare pictures.
        InputError: the network's output for this picture is not finite.
    """
    found = session.examine(source, top_k, name=name, check=check)
    require_finite(found.predictions, name)
    decode, preprocess, inference = (round(1e3 * s, 3) for s in found.seconds)
    times = runs.StageTimes(decode=decode, preprocess=preprocess, inference=inference)
    return tuple(found.predictions), times

"""What ``bench`` and ``profile`` share: the session, its input, the head of what they print."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from bitinfer.cli import _common
from bitinfer.cli._terminal import printable

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from bitinfer.documents.runs import Measured
    from bitinfer.session import Session

_NAME = 60


def add_input(parser: argparse.ArgumentParser) -> None:
    """Add ``--float``."""
    parser.add_argument(
        "--float",
        action="store_true",
        dest="as_float",
        help="give the network random float32 input, even if it takes pictures",
    )


def make_input(session: Session, image: str | None, *, as_float: bool) -> tuple[NDArray[Any], str]:
    """Return one sample, and what it is: a picture, or else random numbers of a fixed seed.

    Raises:
        UsageError: random float32 is wanted, but a picture is given, or the network takes none.
        ImageError, ModelFileError: see Session.prepare.
    """
    import numpy as np

    from bitinfer.errors import UsageError

    shape = session.inputs[0].shape
    size = "x".join(map(str, shape))
    if image is not None:
        if as_float:
            raise UsageError("--float is for random input, but a picture is given")
        return session.prepare(image), f"{image}, {size}"
    rng = np.random.default_rng(0)
    takes_pixels_only = session.inputs[0].dtype == "uint8"
    if takes_pixels_only and as_float:
        raise UsageError("--float does not fit: this network takes pixels (uint8) alone")
    if as_float or (session.model.preprocessing is None and not takes_pixels_only):
        return rng.standard_normal(shape).astype(np.float32), f"random float32, {size}"
    return rng.integers(0, 256, shape, np.uint8), f"random pixels, {size}"


def total_macs(session: Session) -> int:
    """Return the multiply-accumulates of one sample."""
    from bitinfer.graph import operations
    from bitinfer.graph.nodes import Layer

    checked = session.model.checked
    layers = (node for node in checked.graph.nodes if isinstance(node, Layer))
    return sum(operations(node, checked.values, checked.tensors) for node in layers)


def check_output(session: Session, sample: NDArray[np.float32 | np.uint8]) -> None:
    """Raise BitInferError where the outputs are not finite: such a run times special cases."""
    import numpy as np

    from bitinfer.errors import BitInferError

    result = session.run(sample)
    values = result.values() if isinstance(result, dict) else [result]
    if not all(np.isfinite(value).all() for value in values):
        raise BitInferError("the network's output is not finite; its values overflow")


def head(path: str, session: Session, described: str, macs: int) -> dict[str, Any]:
    """Return the fields with which both answers begin: those of documents.runs.Measured."""
    from bitinfer.documents import SCHEMA_VERSION

    return {
        "schema_version": SCHEMA_VERSION,
        "model": _common.model_file(path),
        "backend": session.backend,
        "input": described,
        "macs": macs,
    }


def head_lines(answer: Measured) -> list[str]:
    """Return the same as text."""
    return [
        f"model    {printable(answer.model.path)}, {answer.macs / 1e6:,.3f} MMAC",
        f"backend  {answer.backend}",
        f"input    {printable(answer.input, _NAME)}",
    ]

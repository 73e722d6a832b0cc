"""Pictures of training: curves of loss and accuracy, drawn with Matplotlib."""

from __future__ import annotations

import io
from typing import Any

import numpy as np

from bitinfer.errors import MissingExtraError

BLUE, ORANGE = "#1f5fa8", "#c8581a"


def figure(rows: int, columns: int, *, width: float = 4.2) -> tuple[Any, Any]:
    """Return an empty figure and its axes, a flat array; ``width`` in inches of each.

    Raises:  MissingExtraError: Matplotlib is not there.
    """
    try:
        from matplotlib.figure import Figure
    except ModuleNotFoundError:
        raise MissingExtraError(
            "drawing needs Matplotlib, which is not installed", "train"
        ) from None
    result = Figure(figsize=(width * columns, 3.6 * rows), layout="constrained")
    axes = result.subplots(rows, columns, squeeze=False).ravel()
    for axis in axes:
        axis.spines[["top", "right"]].set_visible(False)
    return result, np.asarray(axes)


def to_png(chart: Any) -> bytes:
    """Return the figure as the bytes of a PNG, the same for the same figure."""
    content = io.BytesIO()
    # Without the name of the software, whose version would change the file.
    chart.savefig(content, format="png", dpi=110, metadata={"Software": None})
    return content.getvalue()

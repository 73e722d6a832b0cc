"""TensorFlow's rule for windows, which Keras and TensorFlow Lite share.

Source: tensorflow/python/ops/nn_ops.py, "Notes on padding".
"""

from __future__ import annotations

from bitinfer.errors import CheckpointError, ConversionError
from bitinfer.files import one_line

Pads = tuple[int, int, int, int]


def window(
    size: tuple[int, int],
    kernel: tuple[int, int],
    strides: tuple[int, int],
    dilation: tuple[int, int],
    how: str,
) -> tuple[Pads, tuple[int, int]]:
    """Return (top, bottom, left, right) and the size of what comes out, by TensorFlow's rule."""
    if how not in ("same", "valid"):
        raise ConversionError(f"padding is {one_line(how)}, wanted same or valid")
    pads, out = [], []
    for i in (0, 1):
        reach = dilation[i] * (kernel[i] - 1) + 1
        count = -(-size[i] // strides[i]) if how == "same" else (size[i] - reach) // strides[i] + 1
        if count < 1:
            raise CheckpointError(f"a window of {reach} pixels over {size[i]}")
        total = max((count - 1) * strides[i] + reach - size[i], 0) if how == "same" else 0
        pads += [total // 2, total - total // 2]
        out.append(count)
    return (pads[0], pads[1], pads[2], pads[3]), (out[0], out[1])

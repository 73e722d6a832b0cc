"""A single binary layer on NumPy arrays, without a model file."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bitinfer.backends import select
from bitinfer.bits import BitTensor, Floats
from bitinfer.errors import ShapeError
from bitinfer.graph.builder import GraphBuilder, PaddingLike, PairLike, as_padding, as_pair
from bitinfer.plan import lower

Signs = NDArray[Any] | BitTensor


def bconv2d(
    x: Signs,
    weight: Signs,
    *,
    alpha: ArrayLike | None = None,
    bias: ArrayLike | None = None,
    beta_map: bool = False,
    stride: PairLike = 1,
    padding: PaddingLike = 0,
    dilation: PairLike = 1,
    groups: int = 1,
    pad_value: Literal[-1, 0, 1] = 0,
    backend: str = "auto",
) -> Floats:
    """Convolve the signs of ``x`` with the signs of ``weight``; exact, then scaled.

    Shapes:  x (H, W, Cin) or (N, H, W, Cin), weight (Cout, kh, kw, Cin / groups), alpha and bias
             (Cout,)  ->  (Hout, Wout, Cout) float32, with N in front if x had it.
    Meaning: sign(x) is -1 where x < 0, else +1; padded taps hold ``pad_value``.
             ``conv(sign(x), sign(weight)) * alpha * beta + bias``, where beta is XNOR-Net's
             activation scale of x if ``beta_map`` (Rastegari et al. 2016, section 3.2), else 1.
    Cost:    the weights are packed at every call; load a model file to do it once.
    Raises:  ShapeError where the arrays do not fit, BackendError as backends.select.
    """
    x, w = _as_array(x), _as_array(weight)
    if x.ndim not in (3, 4) or w.ndim != 4:
        raise ShapeError(
            f"bconv2d: x has shape {x.shape} and weight {w.shape}, wanted (N, H, W, Cin) or "
            "(H, W, Cin), and (Cout, kh, kw, Cin / groups)"
        )
    if groups >= 1 and w.shape[-1] * groups != x.shape[-1]:
        raise ShapeError(
            f"bconv2d: weight {w.shape} has {w.shape[-1]} channels for {groups} groups, "
            f"but x {x.shape} has {x.shape[-1]}"
        )
    b = GraphBuilder("bconv2d", x.shape[-3:])
    window: dict[str, Any] = {
        "stride": as_pair(stride),
        "padding": as_padding(padding),
        "dilation": as_pair(dilation),
        "groups": groups,
    }
    kernel = (int(w.shape[1]), int(w.shape[2]))
    beta = b.beta_map(b.input, kernel=kernel, **window) if beta_map else None
    signs = b.sign(b.input)
    y = b.bconv2d(signs, w, alpha=alpha, bias=bias, beta=beta, pad_value=pad_value, **window)
    return _run(b, y, x, 3, backend)


def bdense(
    x: Signs,
    weight: Signs,
    *,
    alpha: ArrayLike | None = None,
    bias: ArrayLike | None = None,
    beta: bool = False,
    backend: str = "auto",
) -> Floats:
    """Multiply the signs of ``x`` with the signs of ``weight``; exact, then scaled.

    Shapes:  x (Cin,) or (N, Cin), weight (Cout, Cin), alpha and bias (Cout,)  ->  (Cout,) float32,
             with N in front if x had it.
    Meaning: ``(sign(x) @ sign(weight).T) * alpha * beta + bias``, where beta is the mean of |x| of
             each sample if ``beta``, else 1.
    Cost, Raises: as :func:`bconv2d`.
    """
    x, w = _as_array(x), _as_array(weight)
    if x.ndim not in (1, 2) or w.ndim != 2 or w.shape[-1] != x.shape[-1]:
        raise ShapeError(
            f"bdense: x has shape {x.shape} and weight {w.shape}, wanted (N, Cin) or (Cin,), "
            "and (Cout, Cin)"
        )
    b = GraphBuilder("bdense", x.shape[-1:])
    scale = b.beta_map(b.input) if beta else None
    y = b.bdense(b.sign(b.input), w, alpha=alpha, bias=bias, beta=scale)
    return _run(b, y, x, 1, backend)


def _as_array(x: Signs) -> NDArray[Any]:
    return x.unpack() if isinstance(x, BitTensor) else np.asarray(x)


def _run(b: GraphBuilder, output: str, x: NDArray[Any], rank: int, backend: str) -> Floats:
    plan = lower(b.check(output))
    if x.dtype.kind not in "biuf":
        raise ShapeError(f"{b.name}: x is {x.dtype}, wanted real numbers")
    with np.errstate(over="ignore", under="ignore"):
        batch = np.ascontiguousarray(x.reshape(-1, *x.shape[-rank:]), dtype=np.float32)
    if x.dtype.itemsize > 4 and x.dtype.kind == "f":  # what is too small for float32 keeps its sign
        lost = (x.reshape(batch.shape) < 0) & (batch == 0)
        batch[lost] = -np.finfo(np.float32).smallest_subnormal
    shape = plan.buffers[plan.outputs[0]].shape
    result = np.empty((len(batch), *shape), np.float32)
    select(backend).bind(plan).run(batch, [result])
    return result if x.ndim > rank else result[0]

"""Runs a foreign graph in float64, as its framework defines it: the measure of an import.

Shares no code with the backends.  Values keep the layout of the source, with the batch in front.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bitinfer.errors import CheckpointError, ConversionError
from bitinfer.importers.evaluate import function_of
from bitinfer.importers.foreign import Foreign, ForeignNode

Array = NDArray[Any]


def simulate(
    source: Foreign,
    x: Array,
    until: str | None = None,
    *,
    dtype: type[np.floating[Any]] = np.float64,
    given: Mapping[str, Array] | None = None,
) -> dict[str, Array]:
    """Return every value of the network by name, up to the node ``until``.

    Shapes:  x (N, ...) in the layout of the source's input.
    Meaning: values that are ``given`` are taken from there instead of being computed, so that
             rounding in another ``dtype`` shows from one sign to the next, and does not add up.
    Raises:  ConversionError if a word has no meaning here; CheckpointError if shapes do not fit.
    """
    values: dict[str, Array] = {source.input: x.astype(dtype)}
    with np.errstate(all="ignore"):
        for node in source.nodes:
            if given is not None and node.name in given:
                values[node.name] = given[node.name].astype(dtype)
                continue
            inputs = [_input(source, values, name, dtype) for name in node.inputs]
            try:
                values[node.name] = _compute(source, node, inputs)
            except (ValueError, IndexError, TypeError) as error:
                raise CheckpointError(f"{node.name} ({node.operation}): {error}") from error
            if node.name == until:
                break
    return values


def _input(
    source: Foreign, values: Mapping[str, Array], name: str, dtype: type[np.floating[Any]]
) -> Array:
    if name in values:
        return values[name]
    return source.constants[name].astype(dtype) if name else np.zeros(0, dtype)


def _compute(source: Foreign, node: ForeignNode, inputs: list[Array]) -> Array:
    handler = _HANDLERS.get(node.operation)
    if handler is not None:
        return handler(source, node.attributes, inputs)
    function = function_of(node.operation)
    if function is None:
        raise ConversionError(f"{node.name} ({node.operation}): there is no such operation here")
    return np.asarray(function(*inputs, **node.attributes))


Attributes = Mapping[str, Any]


def _is_first(source: Foreign) -> bool:
    return source.layout == "NCHW"


def _windows(
    source: Foreign, x: Array, kernel: Any, strides: Any, pads: Any, dilations: Any, value: float
) -> Array:
    """Return (N, H, W, C, kh, kw) of a map in the source's layout."""
    x = np.moveaxis(x, 1, -1) if _is_first(source) else x
    top, bottom, left, right = pads
    x = np.pad(x, ((0, 0), (top, bottom), (left, right), (0, 0)), constant_values=value)
    reach = [d * (k - 1) + 1 for k, d in zip(kernel, dilations, strict=True)]
    found = np.lib.stride_tricks.sliding_window_view(x, reach, axis=(1, 2))
    found = found[:, :: strides[0], :: strides[1]]
    return found[..., :: dilations[0], :: dilations[1]]


def _back(source: Foreign, y: Array) -> Array:
    return np.moveaxis(y, -1, 1) if _is_first(source) else y


def _levels(x: Array, counts: str) -> Array:
    """Return bits of {0, 1} as signs where agreements are counted."""
    is_bits = counts == "agreements" and bool(np.isin(x, (0, 1)).all())
    return 2 * x - 1 if is_bits else x


def _conv(source: Foreign, a: Attributes, inputs: list[Array]) -> Array:
    x, weight, *bias = inputs
    x = _levels(x, a["counts"])
    weight = weight.transpose([a["axes"].index(letter) for letter in "OIHW"])
    groups, outputs = a["groups"], len(weight)
    windows = _windows(
        source, x, weight.shape[2:], a["strides"], a["pads"], a["dilations"], a["pad_value"]
    )
    per_group = weight.shape[1]
    parts = []
    for g in range(groups):
        part = windows[:, :, :, g * per_group : (g + 1) * per_group]
        filters = weight[g * outputs // groups : (g + 1) * outputs // groups]
        # One sample at a time: the windows are views, and tensordot copies them.
        sums = [np.tensordot(sample, filters, axes=((2, 3, 4), (1, 2, 3))) for sample in part]
        parts.append(np.stack(sums))
    y = np.concatenate(parts, axis=-1)
    if a["counts"] == "agreements":
        y = (y + weight[0].size) / 2
    return _back(source, y + bias[0].reshape(-1) if bias else y)


def _dense(source: Foreign, a: Attributes, inputs: list[Array]) -> Array:
    x, weight, *bias = inputs
    x = _levels(x, a["counts"])
    y: Array = x @ (weight.T if a["axes"] == "OI" else weight)
    if a["counts"] == "agreements":
        y = (y + x.shape[-1]) / 2
    return np.asarray(y + bias[0].reshape(-1)) if bias else y


def _batch_norm(source: Foreign, a: Attributes, inputs: list[Array]) -> Array:
    x = inputs[0]
    column = (-1, 1, 1) if x.ndim == 4 and _is_first(source) else (-1,)
    gamma, beta, mean, variance = (p.reshape(column) if p.size else None for p in inputs[1:])
    assert mean is not None
    assert variance is not None
    y = (x - mean) / np.sqrt(variance + a["epsilon"])
    y = y if gamma is None else y * gamma
    return np.asarray(y if beta is None else y + beta)


def _sign(source: Foreign, a: Attributes, inputs: list[Array]) -> Array:
    x, low, high = inputs[0], a["low"], a["high"]
    middle = {-1: low, 0: (low + high) / 2, 1: high}[a["at_zero"]]
    return np.where(x < 0, low, np.where(x > 0, high, middle))


def _pad(source: Foreign, a: Attributes, inputs: list[Array]) -> Array:
    widths = [(0, 0)] * inputs[0].ndim
    first, second = a["axes"]
    top, bottom, left, right = a["pads"]
    widths[first + 1], widths[second + 1] = (top, bottom), (left, right)
    return np.pad(inputs[0], widths, constant_values=a["value"])


def _pool(source: Foreign, a: Attributes, inputs: list[Array], value: float) -> Array:
    return _windows(source, inputs[0], a["kernel"], a["strides"], a["pads"], (1, 1), value)


def _max_pool(source: Foreign, a: Attributes, inputs: list[Array]) -> Array:
    return _back(source, _pool(source, a, inputs, -np.inf).max((-1, -2)))


def _avg_pool(source: Foreign, a: Attributes, inputs: list[Array]) -> Array:
    sums = _pool(source, a, inputs, 0.0).sum((-1, -2))
    if a["count_include_pad"]:
        return _back(source, sums / np.prod(a["kernel"]))
    ones = [np.ones_like(inputs[0])]
    return _back(source, sums / _pool(source, a, ones, 0.0).sum((-1, -2)))


def _global(function: Callable[..., Any]) -> Callable[..., Array]:
    def handler(source: Foreign, a: Attributes, inputs: list[Array]) -> Array:
        axes = (2, 3) if _is_first(source) else (1, 2)
        return np.asarray(function(inputs[0], axis=axes, keepdims=True))

    return handler


def _mean(source: Foreign, a: Attributes, inputs: list[Array]) -> Array:
    axes = tuple(axis % (inputs[0].ndim - 1) + 1 for axis in a["axes"])
    return np.asarray(inputs[0].mean(axis=axes, keepdims=bool(a["keeps_axes"])))


def _concat(source: Foreign, a: Attributes, inputs: list[Array]) -> Array:
    return np.concatenate(inputs, axis=a["axis"] % (inputs[0].ndim - 1) + 1)


def _slice(source: Foreign, a: Attributes, inputs: list[Array]) -> Array:
    axis = a["axis"] % (inputs[0].ndim - 1) + 1
    return np.take(inputs[0], range(a["begin"], a["end"]), axis=axis)


def _shuffle(source: Foreign, a: Attributes, inputs: list[Array]) -> Array:
    axis = 1 if _is_first(source) else inputs[0].ndim - 1
    x = np.moveaxis(inputs[0], axis, -1)
    x = x.reshape(*x.shape[:-1], a["groups"], -1).swapaxes(-1, -2).reshape(x.shape)
    return np.moveaxis(x, -1, axis)


def _flatten(source: Foreign, a: Attributes, inputs: list[Array]) -> Array:
    return inputs[0].reshape(len(inputs[0]), -1)


def _reshape(source: Foreign, a: Attributes, inputs: list[Array]) -> Array:
    return inputs[0].reshape(len(inputs[0]), *a["shape"])


def _transpose(source: Foreign, a: Attributes, inputs: list[Array]) -> Array:
    return inputs[0].transpose(0, *(axis + 1 for axis in a["axes"]))


def _softmax(source: Foreign, a: Attributes, inputs: list[Array]) -> Array:
    e = np.exp(inputs[0] - inputs[0].max(axis=-1, keepdims=True))
    return np.asarray(e / e.sum(axis=-1, keepdims=True))


def _clip(source: Foreign, a: Attributes, inputs: list[Array]) -> Array:
    return np.clip(inputs[0], a["low"], a["high"])


_HANDLERS: Mapping[str, Callable[[Foreign, Attributes, list[Array]], Array]] = {
    "conv": _conv,
    "dense": _dense,
    "batch_norm": _batch_norm,
    "sign": _sign,
    "pad": _pad,
    "max_pool": _max_pool,
    "avg_pool": _avg_pool,
    "global_max_pool": _global(np.max),
    "global_avg_pool": _global(np.mean),
    "mean": _mean,
    "concat": _concat,
    "slice": _slice,
    "shuffle": _shuffle,
    "flatten": _flatten,
    "reshape": _reshape,
    "transpose": _transpose,
    "softmax": _softmax,
    "clip": _clip,
}
"""By word, what computes it; all others act on elements (evaluate.py)."""

"""What the page shows of a network at work: times of its layers, its input, maps and weights."""

from __future__ import annotations

import base64
import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bitinfer import bits, profiling
from bitinfer.documents import SCHEMA_VERSION, runs, serving
from bitinfer.plan.steps import Plan, Step
from bitinfer.serve import pictures
from bitinfer.serve.engine import Call
from bitinfer.serve.models import ServedModel
from bitinfer.serve.protocol import RequestError

_ROUNDS = 5
MAX_MAPS = 64
"""Maps and filters that are shown of a layer."""
_MAX_SIDE = 128
"""Pixels of a map; larger ones are shown by every n-th pixel."""
_CHANNELS_OF_A_FILTER = 4
_GAP = 128
"""Grey between the channels of a filter."""

Pixels = NDArray[np.uint8]


def explain(
    model: ServedModel, body: bytes, top_k: int, call: Call, *, has_module: bool = False
) -> serving.Explanation:
    """Classify a picture and say what each layer takes.

    Raises:
        ImageError: the picture cannot be decoded, or does not fit the network.
        InputError: the output is not finite.
    """
    session = model.session
    predictions, times = pictures.classify(session, body, top_k, check=call.check)
    pixels = session.prepare(body)
    steps = profiling.summarize(*session.measure_steps(pixels, _ROUNDS, check=call.check))
    layers = tuple(
        serving.LayerView(
            name=step.name,
            operation=step.operation,
            kernel=step.kernel,
            us=round(step.ns_median / 1e3, 3),
            share=step.share,
        )
        for step in steps
    )
    return serving.Explanation(
        schema_version=SCHEMA_VERSION,
        model_name=model.name,
        model_version=model.version,
        backend=session.backend,
        predictions=predictions,
        ms=runs.StageTimes(**{name: getattr(times, name) for name in times.__struct_fields__}),
        input=_picture(pixels),
        layers=layers,
        has_module=has_module,
    )


def layer(model: ServedModel, body: bytes, index: int, call: Call) -> serving.LayerMaps:
    """Return maps of what one step makes of a picture, and its weights.

    Raises:
        RequestError: there is no such step.
        ImageError: the picture cannot be decoded, or does not fit the network.
    """
    session = model.session
    pixels = session.prepare(body)
    plan, values = session.observe(pixels[None], check=call.check)
    if index >= len(plan.steps):
        raise RequestError(404, f"there is no layer {index}, but 0 to {len(plan.steps) - 1}")
    step = plan.steps[index]
    made = [name for name, buffer in plan.values.items() if buffer in step.targets]
    # Signs where there are any: they are what the next layer works with.
    name = next((name for name in made if values[name].dtype == np.int8), made[0])
    value = values[name][0]
    is_signs = plan.buffers[plan.values[name]].kind == "bits"
    low, high = (-1.0, 1.0) if is_signs else (float(value.min()), float(value.max()))
    weights, weights_kind = _filters(plan, step)
    return serving.LayerMaps(
        schema_version=SCHEMA_VERSION,
        layer=step.name,
        kind="signs" if is_signs else "numbers",
        shape=value.shape,
        channels=value.shape[-1],
        low=low,
        high=high,
        maps=tuple(_picture(_stretch(part, low, high)) for part in _maps(value)),
        weights_kind=weights_kind,
        weights=weights,
    )


def _maps(value: NDArray[Any]) -> list[NDArray[Any]]:
    """Return the first channels of (H, W, C) as (H, W), or (C,) as one picture."""
    if value.ndim != 3 or value.shape[:2] == (1, 1):
        return [_near_square(value.reshape(-1))]
    stride = max(1, math.ceil(max(value.shape[:2]) / _MAX_SIDE))
    return [value[::stride, ::stride, c] for c in range(min(value.shape[2], MAX_MAPS))]


def _filters(plan: Plan, step: Step) -> tuple[tuple[serving.Picture, ...], Any]:
    """Return the first filters of a step as pictures, and what they consist of."""
    weight: NDArray[Any] | None = getattr(step, "weight", None)
    if weight is None:
        return (), "none"
    is_signs = weight.dtype == np.uint64
    if is_signs:
        groups = getattr(step, "groups", 1)
        weight = bits.unpack(weight[:MAX_MAPS], plan.buffers[step.source].shape[-1] // groups)
    shown = weight[:MAX_MAPS].astype(np.float32)
    low, high = (-1.0, 1.0) if is_signs else (float(shown.min()), float(shown.max()))
    filters = []
    for one in shown:
        if one.ndim == 3 and one.shape[:2] != (1, 1):
            grey = _stretch(one[:, :, :_CHANNELS_OF_A_FILTER], low, high)
            apart = np.pad(grey, ((0, 0), (0, 1), (0, 0)), constant_values=_GAP)
            flat = np.concatenate(list(np.moveaxis(apart, 2, 0)), axis=1)[:, :-1]
        else:
            flat = _stretch(_near_square(one.reshape(-1)), low, high)
        filters.append(_picture(flat))
    return tuple(filters), "signs" if is_signs else "numbers"


def _near_square(values: NDArray[Any]) -> NDArray[Any]:
    """Return a vector as rows whose number divides its length."""
    values = values[: _MAX_SIDE**2]
    rows = next(n for n in range(math.isqrt(len(values)), 0, -1) if len(values) % n == 0)
    return values.reshape(rows, -1)


def _stretch(values: NDArray[Any], low: float, high: float) -> Pixels:
    span = high - low or 1.0
    stretched = (values.astype(np.float32) - low) * (255 / span)
    pixels: Pixels = np.clip(stretched, 0, 255).astype(np.uint8)
    return pixels


def _picture(pixels: Pixels) -> serving.Picture:
    height, width = pixels.shape[:2]
    return serving.Picture(
        width=width,
        height=height,
        channels=3 if pixels.shape[2:] == (3,) else 1,
        pixels=base64.b64encode(np.ascontiguousarray(pixels).tobytes()).decode(),
    )

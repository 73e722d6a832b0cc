"""Small Keras models, written without TensorFlow in each of Keras's layouts."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Mapping, Sequence
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
NAMES = (
    *("kernel", "depthwise_kernel", "pointwise_kernel", "bias"),
    *("gamma", "beta", "moving_mean", "moving_variance", "alpha"),
)
"""Of weights, in the order in which a layer has them."""


def layer(kind: str, name: str, **config: Any) -> dict[str, Any]:
    return {"class_name": kind, "config": {"name": name, **config}}


def sequential(shape: Sequence[int], *layers: dict[str, Any]) -> dict[str, Any]:
    first = layer("InputLayer", "input_1", batch_input_shape=[None, *shape])
    return {"class_name": "Sequential", "config": {"name": "net", "layers": [first, *layers]}}


Source = str | tuple[str, int]
"""A layer, or a layer and the number of its result."""


def functional(
    shape: Sequence[int], layers: Mapping[str, tuple[dict[str, Any], Sequence[Sequence[Source]]]]
) -> dict[str, Any]:
    """``layers`` by name: the layer, and for each of its calls what it reads."""
    items = [{**layer("InputLayer", "x", batch_input_shape=[None, *shape]), "inbound_nodes": []}]
    for item, calls in layers.values():
        pairs = [[(s, 0) if isinstance(s, str) else s for s in call] for call in calls]
        nodes = [[[name, 0, number, {}] for name, number in call] for call in pairs]
        items.append({**item, "inbound_nodes": nodes})
    outputs = [[[*layers][-1], 0, 0]]
    config = {"name": "net", "layers": items, "output_layers": outputs}
    return {"class_name": "Functional", "config": config}


def hdf5(model: Mapping[str, Any] | None, weights: Mapping[str, Mapping[str, Array]]) -> bytes:
    """By names, as ``model.save("a.h5")``; without a model, as save_weights wrote."""
    file = io.BytesIO()
    with h5py.File(file, "w") as target:
        group = target if model is None else target.create_group("model_weights")
        if model is not None:
            target.attrs["model_config"] = json.dumps(model)
        for name, parts in weights.items():
            for part, array in parts.items():
                group[f"{name}/{name}/{part}:0"] = array
    return file.getvalue()


def by_class(
    weights: Mapping[str, Mapping[str, Array]],
    keys: Mapping[str, str],
    container: str = "layers",
) -> bytes:
    """By class and position, as save_weights writes since TensorFlow 2.12."""
    file = io.BytesIO()
    with h5py.File(file, "w") as target:
        for name, parts in weights.items():
            ordered = sorted(parts, key=NAMES.index)
            for i, part in enumerate(ordered):
                target[f"{container}/{keys[name]}/vars/{i}"] = parts[part]
    return file.getvalue()


def archive(model: Mapping[str, Any], weights: bytes) -> bytes:
    """As ``model.save("a.keras")`` writes since TensorFlow 2.12."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as target:
        target.writestr("metadata.json", "{}")
        target.writestr("config.json", json.dumps(model))
        target.writestr("model.weights.h5", weights)
    return file.getvalue()


def random(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def norm_weights(channels: int, seed: int) -> dict[str, Array]:
    return {
        "beta": random(channels, seed=seed),
        "moving_mean": random(channels, seed=seed + 1),
        "moving_variance": np.abs(random(channels, seed=seed + 2)) + 0.5,
    }


def network() -> tuple[dict[str, Any], dict[str, dict[str, Array]], dict[str, str]]:
    """A model, its weights by layer, and the keys of these in the later layouts."""
    quantised = {"input_quantizer": "ste_sign", "kernel_quantizer": "ste_sign", "use_bias": False}
    model = sequential(
        (6, 6, 3),
        layer("Conv2D", "stem", filters=5, kernel_size=[3, 3], activation="relu"),
        layer("BatchNormalization", "norm_b", axis=[3], scale=False, epsilon=0.01),
        layer("QuantConv2D", "body", filters=7, kernel_size=[2, 2], padding="same", **quantised),
        layer("BatchNormalization", "norm_a", axis=[3], scale=False, epsilon=0.01),
        layer("Flatten", "flatten"),
        layer("QuantDense", "head", units=4, **quantised),
    )
    weights = {
        "stem": {"kernel": random(3, 3, 3, 5), "bias": random(5, seed=1)},
        "norm_b": norm_weights(5, 2),
        "body": {"kernel": random(2, 2, 5, 7, seed=5)},
        "norm_a": norm_weights(7, 6),
        "head": {"kernel": random(112, 4, seed=9)},
    }
    keys = {
        "stem": "conv2d",
        "norm_b": "batch_normalization",
        "body": "quant_conv2d",
        "norm_a": "batch_normalization_1",
        "head": "quant_dense",
    }
    return model, weights, keys

"""Writes an architecture of Larq Zoo with random weights; run by a Python that has larq_zoo.

    python larq_zoo_writer.py NAME FOLDER

FOLDER/net.h5 is the whole model, FOLDER/net.npz one input ``x`` and what Keras makes of it, ``y``.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

os.environ["TF_USE_LEGACY_KERAS"] = "1"
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"

import larq_zoo
import numpy as np
import tensorflow as tf


def architecture(name: str) -> Any:
    for part in (larq_zoo.literature, larq_zoo.sota):
        if hasattr(part, name):
            return getattr(part, name)
    raise SystemExit(f"larq_zoo has no {name}")


def randomise(layer: Any, rng: np.random.Generator) -> None:
    """Give a BatchNorm random numbers, every seventh gamma negative."""
    values = []
    for weight in layer.weights:
        kind = weight.name.rpartition("/")[2].partition(":")[0]
        low, high = (0.5, 1.5) if kind in ("gamma", "moving_variance") else (-0.3, 0.3)
        value = rng.uniform(low, high, tuple(weight.shape)).astype(np.float32)
        if kind == "gamma":
            value[::7] *= -1
        values.append(value)
    layer.set_weights(values)


def main(name: str, folder: str) -> None:
    tf.keras.utils.set_random_seed(1)
    model = architecture(name)(weights=None)
    rng = np.random.default_rng(0)
    norms = [layer for layer in model.layers if "BatchNorm" in type(layer).__name__]
    momenta = [layer.momentum for layer in norms]
    for layer in norms:
        randomise(layer, rng)
        layer.momentum = 0.0
    # One batch makes the statistics of every BatchNorm those of what comes into it.
    size = model.input_shape[1:]
    model(rng.uniform(-1, 1, (4, *size)).astype(np.float32), training=True)
    for layer, momentum in zip(norms, momenta, strict=True):
        layer.momentum = momentum
    x = rng.uniform(-1, 1, (1, *size)).astype(np.float32)
    np.savez(Path(folder, "net.npz"), x=x, y=model(x, training=False).numpy())
    model.save(str(Path(folder, "net.h5")), include_optimizer=False)


if __name__ == "__main__":
    main(*sys.argv[1:])

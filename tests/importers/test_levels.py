"""Weights and inputs of two values each are exact, at borders too."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from foreign_writer import CONV, Writer
from numpy.typing import NDArray

from bitinfer import session
from bitinfer.importers.binary import Split, TwoLevels, split_levels, split_weight
from bitinfer.importers.foreign import Foreign
from bitinfer.importers.recognise import Recognised, recognise
from bitinfer.importers.simulate import simulate
from bitinfer.model import Model

Array = NDArray[Any]


def random(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def two_valued(*shape: int, seed: int = 0, centre: float = 0.5) -> Array:
    """Weights of two values per filter, none of them a power of two."""
    signs = np.where(random(*shape, seed=seed) < 0, -1.0, 1.0)
    column = (-1, *(1,) * (len(shape) - 1))
    b = (centre * random(shape[0], seed=seed + 1)).reshape(column)
    a = np.abs(random(shape[0], seed=seed + 2)).reshape(column) + 0.1
    return (b + a * signs).astype(np.float32)


def run(found: Recognised, x: Array) -> Array:
    model = Model(graph=found.graph, tensors=found.tensors)
    return np.asarray(session.Session(model, "reference").run(x))


def kinds(found: Recognised) -> list[str]:
    return [n.__struct_config__.tag for n in found.graph.nodes]  # type: ignore[misc]


def conv_net(weight: Array, low: float, high: float, **attributes: Any) -> Foreign:
    w = Writer("NHWC")
    x = w.add("sign", "sign", "input", at_zero=1, low=low, high=high)
    name, axes = w.weight("w", weight)
    bias = w.constant("bias", random(len(weight), seed=9))
    w.add("conv", "conv", x, name, bias, axes=axes, **{**CONV, **attributes})
    return w.finish((6, 7, weight.shape[-1]), "conv")


@pytest.mark.parametrize("border", [None, -1.0, 0.0, 0.3, 1.0])
@pytest.mark.parametrize("levels", [(-1.0, 1.0), (0.0, 1.0), (-0.4, 1.3), (0.7, -0.2)])
@pytest.mark.parametrize("centre", [0.0, 0.5])
def test_convolution_is_exact_at_borders(border: float | None, levels: Any, centre: float) -> None:
    weight = two_valued(5, 3, 2, 9, centre=centre)
    more = {} if border is None else {"pads": (1, 2, 0, 1), "pad_value": border}
    source = conv_net(weight, *levels, **more, strides=(2, 1), dilations=(1, 2))
    found = recognise(source)
    assert [o.became for o in found.layers] == ["binary"]
    x = random(3, 6, 7, 9, seed=4)
    np.testing.assert_allclose(run(found, x), simulate(source, x)["conv"], atol=1e-4)


def test_plain_layers_take_no_detour() -> None:
    weight = np.where(random(5, 3, 3, 9) < 0, np.float32(-0.5), np.float32(0.5))
    assert kinds(recognise(conv_net(weight, -1.0, 1.0, pads=(1, 1, 1, 1)))) == ["sign", "bconv2d"]
    assert kinds(recognise(conv_net(weight, 0.0, 1.0))) == ["sign", "bconv2d"]


def test_dense_layer_of_two_values() -> None:
    weight = two_valued(5, 40)
    w = Writer()
    x = w.add("sign", "sign", "input", at_zero=1, low=-0.4, high=1.3)
    w.add("dense", "dense", x, w.constant("w", weight), axes="OI", counts="sums")
    source = w.finish((40,), "dense")
    found = recognise(source)
    assert [o.became for o in found.layers] == ["binary"]
    assert "bdense" in kinds(found)
    x = random(3, 40, seed=4)
    np.testing.assert_allclose(run(found, x), simulate(source, x)["dense"], atol=1e-4)


def test_groups_of_two_values_stay_float_and_say_why() -> None:
    found = recognise(conv_net(np.concatenate([two_valued(4, 3, 3, 2)] * 2), -1.0, 1.0))
    assert [o.became for o in found.layers] == ["binary"]
    w = Writer("NHWC")
    x = w.add("sign", "sign", "input", at_zero=1, low=-1.0, high=1.0)
    name, axes = w.weight("w", two_valued(4, 3, 3, 2))
    w.add("conv", "conv", x, name, axes=axes, **{**CONV, "groups": 2})
    (layer,) = recognise(w.finish((6, 6, 4), "conv")).layers
    assert layer.became == "float"
    assert layer.half_binary
    assert "weights are not ±alpha" in layer.reason


def test_two_values_are_told_from_more() -> None:
    weight = two_valued(6, 3, 3, 4)
    found = split_levels(weight)
    assert isinstance(found, TwoLevels)
    column = (-1, 1, 1, 1)
    again = found.centre.reshape(column) + found.scale.reshape(column) * found.signs
    np.testing.assert_allclose(again, weight, rtol=1e-6)
    assert split_levels(weight + 1e-7 * random(6, 3, 3, 4)) is not None
    weight[2, 1, 1, 1] += 0.01
    assert split_levels(weight) is None
    assert split_levels(np.full((2, 3), np.nan, np.float32)) is None
    constant = split_levels(np.full((2, 3), 0.7, np.float32))
    assert isinstance(constant, TwoLevels)
    assert (constant.scale == 0).all()
    assert isinstance(split_weight(np.full((2, 3), 0.7, np.float32)), Split)

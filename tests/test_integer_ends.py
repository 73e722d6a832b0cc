"""integer_ends.py: pixels in, int8 out, and the same answers."""

from __future__ import annotations

import dataclasses
from typing import Any

import msgspec
import numpy as np
import pytest

from bitinfer import modelfile, numerics
from bitinfer.backends import select
from bitinfer.errors import ConversionError
from bitinfer.graph import GraphBuilder, check
from bitinfer.integer_ends import integer_ends
from bitinfer.model import Model, Preprocessing
from bitinfer.plan import lower
from graph_examples import Numbers

RGB = Preprocessing(color="rgb", mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))


def network(groups: int = 1) -> Model:
    """Two float ends around a binary layer; the first convolution pads."""
    r = Numbers(5)
    b = GraphBuilder("g", (12, 11, 3))
    w = r(24, 3, 3, 3 // groups)
    x = b.conv2d(b.input, w, r(24), stride=2, padding=2, groups=groups, name="first")
    x = b.bconv2d(b.sign(x), r(30, 3, 3, 24), alpha=r(30) / 16, name="middle")
    x = b.dense(b.global_pool2d(x), r(7, 30), r(7), name="last")
    return Model(*b.build(x, "first"), preprocessing=RGB)


def run(model: Model, pixels: Any, table: Any = None) -> list[Any]:
    plan = lower(check(model.graph, model.tensors), table)
    results = [np.empty((1, *plan.buffers[b].shape), np.float32) for b in plan.outputs]
    select("reference").bind(plan).run(pixels[None], results)
    return [result[0] for result in results]


@pytest.mark.parametrize(("bits", "error"), [(16, 2e-4), (8, 1e-2)])
@pytest.mark.parametrize("groups", [1, 3])
def test_the_first_layer_is_the_same_up_to_its_bits_borders_included(
    groups: int, bits: int, error: float
) -> None:
    model = network(groups)
    pixels = np.random.default_rng(0).integers(0, 256, (12, 11, 3)).astype(np.uint8)
    pixels[0, 0], pixels[-1, -1] = 255, 0
    table = numerics.normalization_table(RGB.scale, RGB.mean, RGB.std)
    wanted = run(model, pixels, table)[1]
    ends = integer_ends(model, bits)
    assert ends.first == "first"
    assert ends.model.tensors["first.weight"].dtype.itemsize * 8 == bits
    assert ends.last == ("last",)
    got = run(ends.model, pixels)[1]
    assert np.abs(got - wanted).max() < error * np.abs(wanted).max()


@pytest.mark.parametrize(("bits", "dtype", "error"), [(8, np.int8, 0.05), (16, np.int16, 0.02)])
def test_the_answers_stay_the_same_and_the_file_holds_them(
    tmp_path: Any, bits: int, dtype: Any, error: float
) -> None:
    model = network()
    ends = integer_ends(model, bits).model
    modelfile.save(ends, tmp_path / "ends.bin")
    loaded = modelfile.load(tmp_path / "ends.bin")
    assert loaded.graph == ends.graph
    assert loaded.tensors["first.weight"].dtype == dtype
    assert loaded.tensors["last.weight"].dtype == np.int8
    pixels = np.random.default_rng(1).integers(0, 256, (12, 11, 3)).astype(np.uint8)
    table = numerics.normalization_table(RGB.scale, RGB.mean, RGB.std)
    before, after = run(model, pixels, table)[0], run(loaded, pixels)[0]
    assert np.abs(after - before).max() < error * np.abs(before).max()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: dataclasses.replace(m, preprocessing=None), "does not say how pixels"),
        (lambda m: integer_ends(m).model, "takes integers as it is; nothing to do"),
        (lambda m: integer_ends(m, 7).model, "weights of 7 bits; wanted 8 or 16"),
        (lambda m: signs_first(), "the input is read by 'sign_0' .sign., wanted one float conv"),
    ],
)
def test_what_has_no_float_convolution_first_is_refused(change: Any, message: str) -> None:
    with pytest.raises(ConversionError, match=message):
        integer_ends(change(network()))


def signs_first() -> Model:
    b = GraphBuilder("g", (4, 4, 3))
    return Model(*b.build(b.bconv2d(b.sign(b.input), Numbers(1)(2, 1, 1, 3))), preprocessing=RGB)


def test_8_bits_use_their_range_and_have_a_scale_for_each_output() -> None:
    tensors = integer_ends(network(), 8).model.tensors
    weight = tensors["first.weight"]
    assert (np.abs(weight.reshape(len(weight), -1).astype(int)).max(axis=1) == 127).all()
    assert tensors["first.alpha"].shape == (len(weight),)


def test_weights_never_overflow_a_sum_of_32_bits() -> None:
    b = GraphBuilder("g", (40, 40, 3))
    x = b.conv2d(b.input, np.ones((2, 31, 31, 3)), name="first")
    model = integer_ends(Model(*b.build(x), preprocessing=RGB)).model
    weight = model.tensors["first.weight"].astype(np.int64)
    assert 255 * np.abs(weight[0]).sum() < 2**31
    assert model.checked.values["first"].shape == (10, 10, 2)


@pytest.mark.parametrize("scale", [1e-39, 1e-45])
@pytest.mark.filterwarnings("error")
def test_numbers_that_float32_does_not_hold_are_refused(scale: float) -> None:
    model = dataclasses.replace(network(), preprocessing=msgspec.structs.replace(RGB, scale=scale))
    with pytest.raises(ConversionError, match="integer ends: "):
        integer_ends(model)

"""What becomes binary in foreign graphs, what does not and why, and what is refused by name."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from foreign_writer import CONV, SIGN, Writer, by_name, by_polynomial, by_where
from numpy.typing import NDArray

from bitinfer import session
from bitinfer.errors import CheckpointError, ConversionError
from bitinfer.importers.foreign import Foreign, Layout
from bitinfer.importers.outcome import LayerOutcome
from bitinfer.importers.recognise import Recognised, recognise
from bitinfer.model import Model

Array = NDArray[Any]
LAYOUTS = pytest.mark.parametrize("layout", ["NCHW", "NHWC"])


def run(found: Recognised, x: Array) -> Array:
    model = Model(graph=found.graph, tensors=found.tensors)
    return np.asarray(session.Session(model, "reference").run(x))


def the_layer(found: Recognised) -> LayerOutcome:
    (layer,) = (o for o in found.layers if o.operation != "batch_norm")
    return layer


def kinds(found: Recognised) -> list[str]:
    return [n.__struct_config__.tag for n in found.graph.nodes]  # type: ignore[misc]


def random(shape: tuple[int, ...], seed: int = 0) -> Array:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def bipolar(shape: tuple[int, ...], seed: int = 0) -> Array:
    return np.where(random(shape, seed) < 0, np.float32(-1), np.float32(1))


def convolve(x: Array, w: Array, pad: int = 0, value: float = 0.0) -> Array:
    """(N, H, W, C) with (O, kh, kw, I), stride 1, in float64."""
    x = np.pad(
        x.astype(np.float64), ((0, 0), (pad, pad), (pad, pad), (0, 0)), constant_values=value
    )
    windows = np.lib.stride_tricks.sliding_window_view(x, w.shape[1:3], axis=(1, 2))
    return np.einsum("nyxchw,ohwc->nyxo", windows, w.astype(np.float64))


def conv_net(
    weight: Array, layout: Layout = "NCHW", *, sign: Any = by_name, side: int = 6, **attributes: Any
) -> Foreign:
    w = Writer(layout)
    x = "input" if sign is None else sign(w, "sign", "input")
    name, axes = w.weight("w", weight)
    w.add("conv", "conv", x, name, axes=axes, **{**CONV, **attributes})
    return w.finish((side, side, weight.shape[-1]), "conv")


def signs_of(x: Array) -> Array:
    return np.where(x < 0, -1.0, 1.0)


# --- Binary or not -------------------------------------------------------------------------------


@LAYOUTS
@pytest.mark.parametrize("value", [-1.0, 0.0, 1.0])
@pytest.mark.parametrize("is_explicit", [False, True])
def test_padding_of_signs_is_exact(layout: Layout, value: float, is_explicit: bool) -> None:
    weight = bipolar((5, 3, 3, 7)) * np.array([0.5, 1, 2, 3, 0.25]).reshape(5, 1, 1, 1)
    w = Writer(layout)
    x = by_where(w, "sign", "input")
    border = {"pads": (1, 1, 1, 1), "pad_value": value}
    if is_explicit:
        axes = (1, 2) if layout == "NCHW" else (0, 1)
        x, border = w.add("pad", "pad", x, axes=axes, pads=(1, 1, 1, 1), value=value), {}
    name, order = w.weight("w", weight.astype(np.float32))
    w.add("conv", "conv", x, name, axes=order, **{**CONV, **border})
    found = recognise(w.finish((6, 6, 7), "conv"))
    assert kinds(found) == ["sign", "bconv2d"]
    assert the_layer(found).became == "binary"
    x = random((2, 6, 6, 7), 1)
    np.testing.assert_array_equal(run(found, x), convolve(signs_of(x), weight, 1, value))


@LAYOUTS
def test_zeros_and_ones_are_signs_with_a_shift_at_borders_too(layout: Layout) -> None:
    weight = bipolar((4, 3, 3, 5))

    def heaviside(w: Writer, name: str, x: str) -> str:
        return w.add(name, "to_float", w.add(f"{name}.ge", "greater_or_equal", x, "zero"))

    w = Writer(layout)
    w.constant("zero", np.float32(0))
    name, axes = w.weight("w", weight)
    x = heaviside(w, "bits", "input")
    w.add("conv", "conv", x, name, axes=axes, **{**CONV, "pads": (1, 1, 1, 1)})
    found = recognise(w.finish((6, 6, 5), "conv"))
    assert kinds(found) == ["sign", "bconv2d"]
    x = random((2, 6, 6, 5), 1)
    bits = np.where(x < 0, 0.0, 1.0)
    np.testing.assert_array_equal(run(found, x), convolve(bits, weight, 1))


def test_agreements_are_half_the_dot_product() -> None:
    weight = bipolar((4, 3, 3, 5))
    found = recognise(conv_net(weight, counts="agreements"))
    x = random((1, 6, 6, 5), 1)
    wanted = (convolve(signs_of(x), weight) + 45) / 2
    np.testing.assert_array_equal(run(found, x), wanted)
    with pytest.raises(ConversionError, match="a border of 0 agrees with nothing"):
        recognise(conv_net(weight, counts="agreements", pads=(1, 1, 1, 1)))


@LAYOUTS
@pytest.mark.parametrize("turned", [False, True])
def test_batch_norm_in_parts_is_exact_where_it_is_zero(layout: Layout, turned: bool) -> None:
    """Sums of 45 signs are odd, and so are these means: many differences are exactly 0."""
    weight = bipolar((16, 3, 3, 5))
    mean = 2 * np.rint(random((16,), 1) * 3) + 1
    scale = np.abs(random((16,), 2)).astype(np.float64) + 0.3
    if turned:
        scale[::2] *= -1
    w = Writer(layout)
    name, axes = w.weight("w", weight)
    x = w.add("conv", "conv", by_where(w, "s", "input"), name, axes=axes, **CONV)
    x = w.add("centred", "subtract", x, w.channels("mean", mean, 3))
    x = w.add("scaled", "divide", x, w.channels("scale", 1 / scale, 3))
    w.add("sign", "sign", x, **SIGN)
    found = recognise(w.finish((6, 6, 5), "sign"))
    x = random((4, 6, 6, 5), 5)
    margin = (convolve(signs_of(x), weight) - mean) * scale
    assert np.count_nonzero(margin == 0) > 50
    np.testing.assert_array_equal(run(found, x), signs_of(margin))
    assert "batch_norm" not in kinds(found) or turned


def test_sign_that_is_minus_one_at_zero_compares_with_the_number_above_it() -> None:
    strict = {**SIGN, "at_zero": -1}
    w = Writer()
    name, axes = w.weight("w", np.ones((1, 3), np.float32))
    w.add("sign", "sign", "input", **strict)
    w.add("dense", "dense", "sign", name, axes=axes, counts="sums")
    found = recognise(w.finish((3,), "dense"))
    assert run(found, np.array([[0.0, -0.0, 1.4e-45]], np.float32)) == [[-1]]


def test_real_weights_of_signs_stay_float_and_say_why() -> None:
    weight = bipolar((4, 3, 3, 5))
    weight[1] *= np.linspace(1, 2, 5)
    found = recognise(conv_net(weight, pads=(1, 1, 1, 1)))
    layer = the_layer(found)
    assert layer.became == "float"
    assert "input is binary, but weights are not ±alpha: 1 of 4 filters" in layer.reason
    assert "one size per filter" in layer.mend
    x = random((1, 6, 6, 5), 1)
    np.testing.assert_allclose(run(found, x), convolve(signs_of(x), weight, 1), rtol=1e-5)


def test_ternary_weights_are_called_so() -> None:
    weight = bipolar((4, 3, 3, 5))
    weight[:, 0] = 0
    assert "weights are ternary: 60 of 180 are 0" in the_layer(recognise(conv_net(weight))).reason


def test_binary_weights_of_numbers_are_kept_as_bits() -> None:
    weight = bipolar((4, 3, 3, 5)) * np.float32(0.5)
    found = recognise(conv_net(weight, sign=None))
    assert the_layer(found).became == "binary weights"
    assert found.tensors["conv.weight"].dtype == np.uint64
    x = random((1, 6, 6, 5), 1)
    np.testing.assert_allclose(run(found, x), convolve(x, weight), rtol=1e-5, atol=1e-5)


def test_short_filters_of_numbers_stay_float() -> None:
    found = recognise(conv_net(bipolar((4, 1, 1, 5)), sign=None))
    assert the_layer(found).became == "float"
    assert "filters have 5 weights" in the_layer(found).reason


def test_padding_of_numbers_with_another_number_is_kept() -> None:
    weight = random((4, 3, 3, 5))
    found = recognise(conv_net(weight, sign=None, pads=(1, 1, 1, 1), pad_value=0.5))
    x = random((1, 6, 6, 5), 1)
    np.testing.assert_allclose(run(found, x), convolve(x, weight, 1, 0.5), rtol=1e-4, atol=1e-4)


# --- What stands beside layers -------------------------------------------------------------------


@LAYOUTS
def test_added_constant_becomes_the_bias_of_the_layer(layout: Layout) -> None:
    weight, bias = bipolar((4, 3, 3, 5)), random((4,))
    w = Writer(layout)
    name, axes = w.weight("w", weight)
    w.add("conv", "conv", by_name(w, "sign", "input"), name, axes=axes, **CONV)
    w.add("sum", "add", "conv", w.channels("b", bias, 3))
    found = recognise(w.finish((6, 6, 5), "sum"))
    assert kinds(found) == ["sign", "bconv2d"]
    assert the_layer(found).parameters == weight.size + 4
    x = random((1, 6, 6, 5), 1)
    wanted = convolve(signs_of(x), weight).astype(np.float32) + bias
    np.testing.assert_array_equal(run(found, x), wanted)


def test_layer_that_two_read_is_written_once_and_without_the_bias_of_one() -> None:
    w = Writer()
    name, axes = w.weight("w", bipolar((4, 8)))
    w.add("dense", "dense", by_name(w, "sign", "input"), name, axes=axes, counts="sums")
    w.add("shifted", "add", "dense", w.constant("c", random((4,))))
    w.add("both", "multiply", "dense", "shifted")
    found = recognise(w.finish((8,), "both"))
    assert kinds(found).count("bdense") == 1
    x = random((3, 8), 1)
    dot = signs_of(x) @ w.constants["w"].T
    np.testing.assert_allclose(run(found, x), dot * (dot + w.constants["c"]), rtol=1e-6)


def test_layer_that_one_node_reads_twice_is_written_once() -> None:
    w = Writer()
    name, axes = w.weight("w", bipolar((4, 8)))
    w.add("dense", "dense", by_name(w, "sign", "input"), name, axes=axes, counts="sums")
    w.add("shifted", "add", "dense", w.constant("c", random((4,))))
    w.add("square", "multiply", "shifted", "shifted")
    found = recognise(w.finish((8,), "square"))
    assert kinds(found) == ["sign", "bdense", "multiply"]
    x = random((3, 8), 1)
    dot = signs_of(x) @ w.constants["w"].T
    np.testing.assert_allclose(run(found, x), (dot + w.constants["c"]) ** 2, rtol=1e-5)


def test_borders_of_two_values_stay_apart() -> None:
    weight = bipolar((4, 3, 3, 5))
    w = Writer()
    x = w.add("pad", "pad", by_name(w, "sign", "input"), axes=(1, 2), pads=(1, 1, 1, 1), value=-1.0)
    name, axes = w.weight("w", weight)
    w.add("conv", "conv", x, name, axes=axes, **{**CONV, "pads": (1, 1, 1, 1), "pad_value": 1.0})
    found = recognise(w.finish((6, 6, 5), "conv"))
    x = random((1, 6, 6, 5), 1)
    inner = np.pad(signs_of(x), ((0, 0), (1, 1), (1, 1), (0, 0)), constant_values=-1)
    np.testing.assert_array_equal(run(found, x), convolve(inner, weight, 1, 1.0))


def test_scales_and_shifts_become_one_batch_norm() -> None:
    w = Writer("NHWC")
    parts = {k: random((5,), i) for i, k in enumerate("abcd")}
    x = "input"
    for step, (operation, part) in enumerate(
        [("subtract", "a"), ("divide", "b"), ("multiply", "c"), ("add", "d")]
    ):
        x = w.add(f"step{step}", operation, x, w.constant(part, parts[part]))
    w.add("relu", "relu", x)
    found = recognise(w.finish((2, 3, 5), "relu"))
    assert kinds(found) == ["batch_norm", "relu"]
    x = random((2, 2, 3, 5), 9)
    wanted = np.maximum((x - parts["a"]) / parts["b"] * parts["c"] + parts["d"], 0)
    np.testing.assert_allclose(run(found, x), wanted, rtol=1e-4, atol=1e-5)


def test_weight_may_be_computed_from_constants() -> None:
    real = random((4, 3, 3, 5))
    w = Writer()
    name, axes = w.weight("real", real)
    w.add("abs", "abs", name)
    w.add("alpha", "mean", "abs", axes=(1, 2, 3), keeps_axes=1)
    w.add("signs", "sign", name, **SIGN)
    w.add("w", "multiply", "signs", "alpha")
    w.add("conv", "conv", by_polynomial(w, "sign", "input"), "w", axes=axes, **CONV)
    found = recognise(w.finish((6, 6, 5), "conv"))
    assert kinds(found) == ["sign", "bconv2d"]
    alpha = np.abs(real).mean((1, 2, 3))
    np.testing.assert_allclose(found.tensors["conv.alpha"], alpha, rtol=1e-6)


def test_signs_become_numbers_where_numbers_are_wanted() -> None:
    w = Writer()
    by_name(w, "sign", "input")
    w.add("pool", "avg_pool", "sign", kernel=(2, 2), strides=(2, 2), pads=(0,) * 4,
          count_include_pad=1)  # fmt: skip
    w.add("flat", "flatten", "sign")
    name, axes = w.weight("w", random((2, 80)))
    w.add("dense", "dense", "flat", name, axes=axes, counts="sums")
    found = recognise(w.finish((4, 4, 5), "pool", "dense"))
    x = random((2, 4, 4, 5), 1)
    outputs = session.Session(Model(graph=found.graph, tensors=found.tensors), "reference").run(x)
    s = signs_of(x)
    pooled = s.reshape(2, 2, 2, 2, 2, 5).mean((2, 4))
    names = found.graph.outputs
    np.testing.assert_allclose(outputs[names[0]], pooled, rtol=1e-6)
    flat = s.transpose(0, 3, 1, 2).reshape(2, -1)
    np.testing.assert_allclose(outputs[names[1]], flat @ w.constants["w"].T, rtol=1e-4, atol=1e-5)


def test_vector_of_signs_becomes_numbers_too() -> None:
    w = Writer()
    name, axes = w.weight("w", random((2, 9)))
    w.add("dense", "dense", by_name(w, "sign", "input"), name, axes=axes, counts="sums")
    found = recognise(w.finish((9,), "dense"))
    x = random((3, 9), 1)
    np.testing.assert_allclose(
        run(found, x), signs_of(x) @ w.constants["w"].T, rtol=1e-5, atol=1e-5
    )


@LAYOUTS
def test_global_pool_may_keep_its_axes_and_feed_a_convolution(layout: Layout) -> None:
    w = Writer(layout)
    w.add("pool", "global_avg_pool", "input")
    name, axes = w.weight("w", random((3, 1, 1, 5)))
    w.add("conv", "conv", "pool", name, axes=axes, **CONV)
    w.add("flat", "flatten", "conv")
    w.add("soft", "softmax", "flat")
    found = recognise(w.finish((4, 4, 5), "soft"))
    x = random((2, 4, 4, 5), 1)
    logits = x.mean((1, 2)) @ found.tensors["conv.weight"].reshape(3, 5).T
    wanted = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    np.testing.assert_allclose(run(found, x), wanted, rtol=1e-4)


@LAYOUTS
def test_map_made_one_pixel_of_signs_feeds_a_binary_convolution(layout: Layout) -> None:
    """Larq Zoo's BinaryAlexNet has 1x1 convolutions in place of dense layers."""
    w = Writer(layout)
    first, second = bipolar((3, 1, 1, 27)), bipolar((2, 1, 1, 3), 1)
    w.add("one", "reshape", "input", shape=(27, 1, 1) if layout == "NCHW" else (1, 1, 27))
    name, axes = w.weight("w", first)
    w.add("conv", "conv", by_name(w, "sign", "one"), name, axes=axes, **CONV)
    name, axes = w.weight("v", second)
    w.add("next", "conv", by_name(w, "signs", "conv"), name, axes=axes, **CONV)
    w.add("flat", "flatten", "next")
    found = recognise(w.finish((3, 3, 3), "flat"))
    assert [o.became for o in found.layers] == ["binary", "binary"]
    x = random((2, 3, 3, 3), 1)
    flat = (np.moveaxis(x, -1, 1) if layout == "NCHW" else x).reshape(2, -1)
    dot = signs_of(flat) @ first.reshape(3, 27).T
    np.testing.assert_array_equal(run(found, x), signs_of(dot) @ second.reshape(2, 3).T)


# --- What is said --------------------------------------------------------------------------------


def normed(**parts: Any) -> Recognised:
    w = Writer()
    values = {"gamma": np.ones(5), "beta": np.ones(5), "mean": np.zeros(5), "variance": np.ones(5)}
    names = [w.constant(k, np.asarray(v, np.float32)) for k, v in {**values, **parts}.items()]
    w.add("bn", "batch_norm", "input", *names, epsilon=1e-4)
    w.add("sign", "sign", "bn", **{**SIGN, "at_zero": 0})
    name, axes = w.weight("w", bipolar((4, 3, 3, 5)))
    w.add("conv", "conv", "sign", name, axes=axes, **CONV)
    return recognise(w.finish((6, 6, 5), "conv"))


def test_signs_that_may_be_zero_in_the_source_are_found() -> None:
    found = normed(beta=[1, 0, 1, 0, 1])
    assert [(f.kind, f.count) for f in the_layer(found).findings] == [("sign of zero", 2)]
    assert the_layer(normed()).findings == ()


def test_signs_that_never_change_are_found() -> None:
    (norm,) = (o for o in normed(gamma=[1, 0, 1, -1, 1]).layers if o.operation == "batch_norm")
    assert [(f.kind, f.count) for f in norm.findings] == [
        ("constant signs", 1),
        ("negative gammas", 1),
    ]


def test_channels_that_were_always_zero_are_found() -> None:
    (norm,) = (
        o
        for o in normed(mean=[0, 0, 1, 1, 0], variance=[0, 0, 0, 1, 1]).layers
        if o.operation == "batch_norm"
    )
    assert [(f.kind, f.count) for f in norm.findings] == [("dead channels", 2)]


def test_inputs_of_zeros_and_ones_are_said() -> None:
    w = Writer()
    x = w.add("sign", "sign", "input", at_zero=-1, low=0.0, high=1.0)
    name, axes = w.weight("w", bipolar((4, 3, 3, 5)))
    w.add("conv", "conv", x, name, axes=axes, **CONV)
    found = the_layer(recognise(w.finish((6, 6, 5), "conv")))
    assert [(f.kind, f.count) for f in found.findings] == [("other levels", 5)]


def test_single_zeros_among_weights_are_counted() -> None:
    weight = bipolar((4, 3, 3, 5))
    weight[0, 0, 0, 0] = 0
    assert [(f.kind, f.count) for f in the_layer(recognise(conv_net(weight))).findings] == [
        ("zero weights", 1)
    ]


# --- Refused by name -----------------------------------------------------------------------------


def refusal(build: Any) -> str:
    w = Writer()
    with pytest.raises((CheckpointError, ConversionError)) as caught:
        recognise(w.finish((6, 6, 5), build(w)))
    return str(caught.value)


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (lambda w: w.add("odd", "LSTM", "input"), "odd (LSTM): there is no such operation"),
        (lambda w: w.add("t", "power", "input", "input"), "t (power): there is no such operation"),
        (lambda w: w.add("t", "transpose", "input", axes=(2, 1, 0)), "moves more than channels"),
        (lambda w: w.add("r", "reshape", "input", shape=(10, 6, 3)), "which moves channels"),
        (lambda w: w.add("r", "reshape", "input", shape=(7, -1)), "180 elements"),
        (
            lambda w: w.add(
                "n",
                "batch_norm",
                "input",
                *(w.constant(f"c{i}", np.ones(9 if i == 1 else 5, np.float32)) for i in range(4)),
                epsilon=0.1,
            ),
            "n (batch_norm): 9 numbers for 5 channels",
        ),
        (
            lambda w: w.add("a", "add", "input", w.constant("c", random((6, 6)))),
            "differs between pixels",
        ),
        (
            lambda w: w.add("d", "divide", w.constant("c", np.float32(1)), "input"),
            "a quotient by a value",
        ),
        (
            lambda w: w.add("m", "mean", "input", axes=(0,), keeps_axes=0),
            "a mean over the axes [0], wanted height and width",
        ),
        (
            lambda w: w.add("c", "conv", "input", "input", axes="OIHW", **CONV),
            "computed from the input, wanted a constant",
        ),
        (
            lambda w: w.add(
                "c", "conv", "input", w.constant("w", random((4, 9, 3, 3))), axes="OIHW", **CONV
            ),
            "a weight for 9 channels, the value has 5",
        ),
        (lambda w: w.add("x", "relu", "nothing"), "reads 'nothing', which nothing before it makes"),
        (lambda w: w.add("x", "relu", "input", "input"), "2 inputs, wanted x"),
        (lambda w: w.add("x", "clip", "input", low=0.0), "attributes low, wanted low, high"),
        (lambda w: w.add("x", "sign", "input", **{**SIGN, "at_zero": "a"}), "at_zero is 'a'"),
        (lambda w: w.add("input", "relu", "input"), "stands twice"),
    ],
)
def test_what_has_no_counterpart_is_refused_by_name(build: Any, words: str) -> None:
    assert words in refusal(build)


def test_output_that_nothing_makes_is_refused() -> None:
    with pytest.raises(CheckpointError, match="made by nothing"):
        recognise(Writer().finish((3,), "ghost"))

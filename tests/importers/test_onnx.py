"""ONNX files, however they are written, compute what ONNX's own evaluator computes with them."""

from __future__ import annotations

import gzip
import random as random_module
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_files
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper
from onnx_files import QONNX, Builder, bipolar, evaluate, random

from bitinfer import session
from bitinfer.errors import BitInferError, CheckpointError, ConversionError, MissingExtraError
from bitinfer.importers.convert import convert
from bitinfer.importers.readers import _onnx_walk
from bitinfer.importers.readers import onnx as reader
from bitinfer.importers.recognise import Recognised, recognise
from bitinfer.importers.simulate import simulate
from bitinfer.model import Model

Array = NDArray[Any]
CLOSE = {"rtol": 1e-4, "atol": 1e-4}


def imported(model: onnx.ModelProto) -> Recognised:
    """The network without a process of its own: these models are not hostile."""
    return recognise(_onnx_walk.read(model))


def became(found: Recognised) -> list[str]:
    return [layer.became for layer in found.layers if len(layer.shape) > 1]


def run(found: Recognised, x: Array) -> Array:
    """The outputs for an input in NCHW, or in the layout of the network itself."""
    shape = found.graph.input.shape
    if x.ndim == 4 and x.shape[1:] != shape:
        x = x.transpose(0, 2, 3, 1)
    model = Model(graph=found.graph, tensors=found.tensors)
    result = session.Session(model, "reference").run(np.ascontiguousarray(x))
    return np.asarray(result)


def check(b: Builder, output: str, *, binary: int, sizes: tuple[int, ...] = (3,)) -> Recognised:
    """Compare with ONNX's evaluator; ``binary`` layers must be bits, and no layer float."""
    model = b.model(output)
    found = imported(model)
    assert became(found).count("binary") == binary, found.layers
    x = random(sizes[0], *(int(n) for n in b.shape[1:]), seed=99)
    wanted = evaluate(model, x)
    result = run(found, x)
    if wanted.ndim == 4:
        result = result.reshape(len(x), *np.moveaxis(wanted, 1, -1).shape[1:])
        wanted = np.moveaxis(wanted, 1, -1)
    np.testing.assert_allclose(result.reshape(wanted.shape), wanted, **CLOSE)
    return found


# --- Signs, weights, borders ---------------------------------------------------------------------


def by_where(b: Builder, x: str) -> str:
    zero, one, minus = (b.constant(f"c{v}", np.float32(v)) for v in (0, 1, -1))
    return b.add("Where", b.add("GreaterOrEqual", x, zero), one, minus)


def by_sign_of_sign(b: Builder, x: str) -> str:
    return b.add("Sign", b.add("Add", b.add("Sign", x), b.constant("tenth", np.float32(0.1))))


def by_cast(b: Builder, x: str) -> str:
    zero, one, two = (b.constant(f"c{v}", np.float32(v)) for v in (0, 1, 2))
    is_above = b.add("Cast", b.add("Greater", x, zero), to=TensorProto.FLOAT)
    return b.add("Sub", b.add("Mul", is_above, two), one)


def by_clip(b: Builder, x: str) -> str:
    low, high = b.constant("low", np.float32(-1)), b.constant("high", np.float32(1))
    return b.add("Sign", b.add("Clip", x, low, high))


def by_step(b: Builder, x: str) -> str:
    zero = b.constant("c0", np.float32(0))
    return b.add("Cast", b.add("Less", zero, x), to=TensorProto.FLOAT)


SIGNS = [by_where, by_sign_of_sign, by_cast, by_clip, by_step]


@pytest.mark.parametrize("sign", SIGNS)
def test_sign_is_what_computes_a_sign(sign: Callable[[Builder, str], str]) -> None:
    b = Builder(["n", 5, 6, 6])
    weight = b.constant("w", bipolar(7, 5, 3, 3) * 0.25)
    check(b, b.add("Conv", sign(b, "x"), weight, pads=[1, 1, 1, 1]), binary=1)


@pytest.mark.parametrize("value", [0.0, 1.0, -1.0])
def test_border_of_its_own_node_is_taken_over(value: float) -> None:
    b = Builder(["n", 5, 6, 7])
    pads = b.constant("pads", np.array([0, 0, 1, 2, 0, 0, 0, 1]))
    x = b.add("Pad", by_where(b, "x"), pads, b.constant("value", np.float32(value)))
    found = check(b, b.add("Conv", x, b.constant("w", bipolar(4, 5, 3, 3))), binary=1)
    assert [n.__struct_config__.tag for n in found.graph.nodes] == ["sign", "bconv2d"]


def test_batch_norm_folded_into_weights_leaves_them_binary() -> None:
    b = Builder([1, 5, 6, 6])
    gamma = np.linspace(-2, 2, 8).reshape(-1, 1, 1, 1)
    weight, bias = bipolar(8, 5, 3, 3) * gamma, random(8, seed=3)
    x = b.add("Conv", by_where(b, "x"), b.constant("w", weight), b.constant("b", bias))
    check(b, by_where(b, x), binary=1)


def norm_by_node(b: Builder, x: str, parts: list[Array]) -> str:
    names = [b.constant(f"n{i}", part) for i, part in enumerate(parts)]
    return b.add("BatchNormalization", x, *names)


def norm_by_parts(b: Builder, x: str, parts: list[Array]) -> str:
    gamma, beta, mean, variance = (
        b.constant(f"n{i}", part.reshape(-1, 1, 1)) for i, part in enumerate(parts)
    )
    epsilon = b.constant("epsilon", np.float32(1e-5))
    deviation = b.add("Sqrt", b.add("Add", variance, epsilon))
    x = b.add("Div", b.add("Sub", x, mean), deviation)
    return b.add("Add", b.add("Mul", x, gamma), beta)


def norm_by_power(b: Builder, x: str, parts: list[Array]) -> str:
    gamma, beta, mean, variance = (part.reshape(1, -1, 1, 1) for part in parts)
    half = b.constant("half", np.float32(-0.5))
    factor = b.add("Pow", b.constant("v", variance + np.float32(1e-5)), half)
    x = b.add("Mul", b.add("Mul", b.add("Sub", x, b.constant("m", mean)), factor), "g")
    b.constant("g", gamma)
    return b.add("Add", b.constant("b", beta), x)


@pytest.mark.parametrize("norm", [norm_by_node, norm_by_parts, norm_by_power])
def test_batch_norm_in_any_spelling(norm: Callable[[Builder, str, list[Array]], str]) -> None:
    b = Builder(["n", 5, 6, 6])
    x = b.add("Conv", by_where(b, "x"), b.constant("w", bipolar(6, 5, 3, 3)))
    parts = [*(random(6, seed=i) for i in (1, 2, 3)), np.abs(random(6, seed=4)) + 0.5]
    x = by_where(b, norm(b, x, parts))
    check(b, b.add("Conv", x, b.constant("w2", bipolar(3, 6, 1, 1, seed=2))), binary=2)


def test_scales_before_and_after_are_taken_over() -> None:
    b = Builder(["n", 5, 6, 6])
    scale = b.constant("s", np.abs(random(1, 6, 1, 1)) + 1)
    x = b.add("Mul", by_where(b, "x"), b.constant("half", np.float32(0.5)))
    x = b.add("Mul", b.add("Conv", x, b.constant("w", bipolar(6, 5, 3, 3))), scale)
    found = check(b, x, binary=1)
    assert found.layers[0].became == "binary"


def test_beta_map_is_found() -> None:
    b = Builder(["n", 5, 6, 6])
    size = b.add("ReduceMean", b.add("Abs", "x"), b.constant("axes", np.array([1])), keepdims=1)
    box = b.constant("box", np.full((1, 1, 3, 3), 1 / 9))
    scale = b.add("Conv", size, box, pads=[1, 1, 1, 1])
    x = b.add("Conv", by_where(b, "x"), b.constant("w", bipolar(6, 5, 3, 3)), pads=[1, 1, 1, 1])
    alpha = b.constant("alpha", np.abs(random(1, 6, 1, 1)))
    found = check(b, b.add("Mul", b.add("Mul", x, scale), alpha), binary=1)
    assert "beta_map" in [n.__struct_config__.tag for n in found.graph.nodes]


# --- Exporters' noise ----------------------------------------------------------------------------


@pytest.mark.parametrize("opset", [9, 12, 13, 17, 20, 23])
def test_reshape_made_of_the_shape_of_the_input(opset: int) -> None:
    b = Builder(["n", 3, 4, 4], opset)
    zero = b.constant("zero", np.array(0))
    batch = b.add("Gather", b.add("Shape", by_where(b, "x")), zero, axis=0)
    if opset < 13:
        batch = b.add("Unsqueeze", batch, axes=[0])
    else:
        batch = b.add("Unsqueeze", batch, b.constant("axes", np.array([0])))
    shape = b.add("Concat", batch, b.constant("rest", np.array([-1])), axis=0)
    x = b.add("Reshape", b.nodes[1].output[0], shape)
    check(b, b.add("MatMul", x, b.constant("w", bipolar(48, 9))), binary=1, sizes=(1,))


def test_nothing_but_shapes_is_left_out() -> None:
    b = Builder(["n", 3, 4, 4])
    x = b.add("Identity", b.add("Dropout", by_where(b, "x")))
    x = b.add("Expand", x, b.add("Shape", x))
    x = b.add("Conv", x, b.constant("w", bipolar(8, 3, 4, 4)))
    x = b.add("Squeeze", x, b.constant("axes", np.array([2, 3])))
    x = b.add("Unsqueeze", x, b.constant("axes2", np.array([2, 3])))
    x = b.add("Reshape", x, b.constant("shape", np.array([0, -1])))
    check(b, x, binary=1, sizes=(1,))


def test_reshapes_in_a_row_are_one() -> None:
    b = Builder(["n", 3, 1, 1])
    x = b.add("Squeeze", by_where(b, "x"), b.constant("a3", np.array([3])))
    x = b.add("Squeeze", x, b.constant("a2", np.array([2])))
    check(b, b.add("MatMul", x, b.constant("w", bipolar(3, 4))), binary=1, sizes=(1,))


def test_channel_shuffle_is_found() -> None:
    b = Builder([1, 6, 4, 5])
    x = b.add("Reshape", "x", b.constant("split", np.array([1, 3, 2, 4, 5])))
    x = b.add("Transpose", x, perm=[0, 2, 1, 3, 4])
    x = b.add("Reshape", x, b.constant("join", np.array([1, 6, 4, 5])))
    x = b.add("Conv", by_where(b, x), b.constant("w", bipolar(6, 2, 3, 3)), group=3)
    found = check(b, x, binary=1, sizes=(1,))
    assert found.graph.nodes[0].__struct_config__.tag == "shuffle_channels"
    again = simulate(_onnx_walk.read(b.model(x)), random(2, 6, 4, 5))[x]
    np.testing.assert_allclose(again[:1], evaluate(b.model(x), random(2, 6, 4, 5)[:1]), atol=1e-5)


def test_maps_with_channels_last_are_turned_round() -> None:
    b = Builder([1, 6, 5, 3])
    x = b.add("Mul", "x", b.constant("s", np.array([1.0, -2.0, 3.0])))
    x = b.add("Transpose", by_where(b, x), perm=[0, 3, 1, 2])
    x = b.add("Conv", x, b.constant("w", bipolar(4, 3, 3, 3)))
    x = by_where(b, b.add("Transpose", x, perm=[0, 2, 3, 1]))
    x = b.add("Reshape", x, b.constant("shape", np.array([1, -1])))
    x = b.add("MatMul", x, b.constant("v", bipolar(48, 5, seed=4)))
    found = check(b, x, binary=2, sizes=(1,))
    assert found.graph.input.shape == (6, 5, 3)


@pytest.mark.parametrize("auto", ["SAME_UPPER", "SAME_LOWER", "VALID"])
@pytest.mark.parametrize("stride", [1, 2])
def test_padding_by_name(auto: str, stride: int) -> None:
    b = Builder(["n", 3, 7, 8])
    weight = b.constant("w", bipolar(4, 3, 2, 3))
    x = b.add("Conv", by_where(b, "x"), weight, auto_pad=auto, strides=[stride, stride])
    check(b, x, binary=1)


@pytest.mark.parametrize(("operation", "more"), [("MaxPool", {}), ("AveragePool", {})])
@pytest.mark.parametrize("side", [7, 8])
def test_pools_round_up_where_they_are_told(operation: str, more: Any, side: int) -> None:
    b = Builder(["n", 3, side, side])
    x = b.add(operation, "x", kernel_shape=[3, 3], strides=[2, 2], ceil_mode=1, **more)
    check(b, x, binary=0)


def test_dense_layers_in_any_spelling() -> None:
    b = Builder(["n", 32])
    weight, bias = b.constant("w", bipolar(32, 9)), b.constant("b", random(9))
    x = b.add("Gemm", by_where(b, "x"), weight, bias, alpha=0.5, beta=2.0)
    x = b.add("MatMul", by_where(b, x), b.constant("w2", bipolar(9, 6)))
    x = b.add("Add", x, b.constant("b2", random(6, seed=2)))
    x = b.add("Gemm", by_where(b, x), b.constant("w3", bipolar(4, 6)), transB=1)
    check(b, b.add("Softmax", x), binary=3)


def test_activations_and_splits() -> None:
    b = Builder(["n", 4, 6, 6])
    x, y = "a", "b"
    b.nodes.append(helper.make_node("Split", ["x"], ["a", "b"], axis=1, num_outputs=2))
    x = b.add("LeakyRelu", b.add("Tanh", x), alpha=0.2)
    y = b.add("PRelu", b.add("HardSigmoid", y), b.constant("slope", random(2, 1, 1)))
    x = b.add("Concat", b.add("Neg", x), b.add("Sub", y, x), axis=1)
    starts, ends, axes = (b.constant(n, np.array([v])) for n, v in (("s", 1), ("e", 4), ("a1", 1)))
    x = b.add("Slice", b.add("Abs", x), starts, ends, axes)
    check(b, b.add("ReduceMean", x, b.constant("hw", np.array([2, 3])), keepdims=0), binary=0)


@pytest.mark.parametrize("kind", ["INT4", "INT2", "INT8"])
def test_weights_of_few_bits(kind: str) -> None:
    if not hasattr(TensorProto, kind):
        pytest.skip(f"this onnx knows no {kind}")
    b = Builder(["n", 16], 21)
    signs = bipolar(16, 6)
    dtype = getattr(TensorProto, kind)
    b.initializers.append(helper.make_tensor("w", dtype, signs.shape, signs.astype(int).ravel()))
    weight = b.add("Cast", "w", to=TensorProto.FLOAT)
    found = imported(b.model(b.add("MatMul", by_where(b, "x"), weight)))
    assert became(found) == ["binary"]
    x = random(2, 16)
    np.testing.assert_array_equal(run(found, x), np.where(x < 0, -1, 1) @ signs)


def test_layers_are_named_by_their_values_and_have_reasons() -> None:
    found = imported(onnx_files.network())
    layers = {o.name: o for o in found.layers}
    assert [*layers] == ["first", "norm", "second", "third"]
    assert layers["second"].is_binary
    assert not layers["first"].half_binary
    x = random(2, 3, 8, 8, seed=8)
    np.testing.assert_allclose(run(found, x), evaluate(onnx_files.network(), x), **CLOSE)


def test_layer_that_is_binary_on_one_side_says_so() -> None:
    b = Builder(["n", 5, 6, 6])
    x = b.add("Conv", by_where(b, "x"), b.constant("w", random(6, 5, 3, 3)), name="real")
    (layer,) = imported(b.model(x)).layers
    assert layer.became == "float"
    assert layer.half_binary
    assert layer.reason == (
        "input is binary, but weights are not ±alpha: 6 of 6 filters have weights of several sizes"
    )


# --- QONNX and FINN ------------------------------------------------------------------------------


@pytest.mark.parametrize("domain", [QONNX, "onnx.brevitas", "finn.custom_op.general"])
def test_bipolar_quant_of_latent_weights_and_of_activations(domain: str) -> None:
    b = Builder(["n", 5, 6, 6])
    latent, scale = random(6, 5, 3, 3), b.constant("s", np.float32(0.5))
    latent[0, 0, 0, 0] = 0
    per_filter = np.abs(random(6, 1, 1, 1)) + 0.5
    weight = b.add(
        "BipolarQuant", b.constant("w", latent), b.constant("f", per_filter), domain=domain
    )
    x = b.add("BipolarQuant", "x", scale, domain=domain)
    found = imported(b.model(b.add("Conv", x, weight, pads=[1, 1, 1, 1])))
    assert became(found) == ["binary"]
    x = random(2, 5, 6, 6, seed=3)
    plain = Builder(["n", 5, 6, 6])
    signs = plain.constant("w", np.where(latent >= 0, 1, -1) * per_filter)
    wanted = plain.model(plain.add("Conv", "x", signs, pads=[1, 1, 1, 1]))
    expected = evaluate(wanted, np.where(x >= 0, np.float32(0.5), np.float32(-0.5)))
    np.testing.assert_allclose(run(found, x), np.moveaxis(expected, 1, -1), **CLOSE)


def quantised(x: Array, bits: int, step: float, *, narrow: bool = False) -> Array:
    low, high = -(2 ** (bits - 1)) + narrow, 2 ** (bits - 1) - 1
    return np.clip(np.rint(x.astype(np.float64) / step), low, high) * step


def quant(b: Builder, x: str, bits: float, step: float, **attributes: Any) -> str:
    names = [b.constant(f"{x}.{n}", np.float32(v)) for n, v in (("s", step), ("z", 0), ("b", bits))]
    return b.add("Quant", x, *names, domain=QONNX, **attributes)


def test_pixels_of_8_bits_meet_binary_weights_as_whole_numbers() -> None:
    b = Builder(["n", 3, 6, 6])
    signs = bipolar(4, 3, 3, 3)
    x = quant(b, "x", 8, 2.0**-7, signed=1, narrow=0, rounding_mode="ROUND")
    found = imported(b.model(b.add("Conv", x, b.constant("w", signs))))
    assert [n.__struct_config__.tag for n in found.graph.nodes] == ["quantize", "conv2d"]
    assert became(found) == ["binary weights"]
    x = random(2, 3, 6, 6, seed=1)
    plain = Builder(["n", 3, 6, 6])
    wanted = plain.model(plain.add("Conv", "x", plain.constant("w", signs)))
    expected = evaluate(wanted, quantised(x, 8, 2.0**-7).astype(np.float32))
    np.testing.assert_array_equal(run(found, x), np.moveaxis(expected, 1, -1))


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_quantised_weights_are_the_numbers_that_they_stand_for(bits: int) -> None:
    b = Builder(["n", 20])
    weight = random(20, 6)
    w = quant(b, b.constant("w", weight), bits, 0.25, signed=1, narrow=1)
    found = imported(b.model(b.add("MatMul", "x", w)))
    assert became(found) == ["float"]
    x = random(2, 20, seed=1)
    wanted = x.astype(np.float64) @ quantised(weight, bits, 0.25, narrow=True)
    np.testing.assert_allclose(run(found, x), wanted, **CLOSE)


@pytest.mark.parametrize("shape", [(16,), (5, 4, 4)])
def test_one_threshold_per_channel_is_a_sign(shape: tuple[int, ...]) -> None:
    b = Builder(["n", *shape])
    thresholds = random(shape[0], 1)
    attributes = {"out_scale": 2.0, "out_bias": -1.0, "domain": QONNX}
    x = b.add("MultiThreshold", "x", b.constant("t", thresholds), **attributes)
    found = imported(b.model(x))
    x = random(4, *shape, seed=1)
    limits = thresholds.reshape(-1, *(1,) * (len(shape) - 1))
    x[0] = limits
    x[1] = np.nextafter(limits, np.float32(-9))
    wanted = np.where(x >= limits, 1, -1)
    wanted = np.moveaxis(wanted, 1, -1)
    np.testing.assert_array_equal(run(found, x), wanted)


def test_agreements_of_bits_are_counted() -> None:
    b = Builder(["n", 40])
    bits = (bipolar(40, 7) + 1) / 2
    x = b.add("MultiThreshold", "x", b.constant("t", np.zeros((1, 1))), domain=QONNX)
    x = b.add("XnorPopcountMatMul", x, b.constant("w", bits), domain=QONNX)
    found = imported(b.model(x))
    assert became(found) == ["binary"]
    x = random(3, 40, seed=2)
    wanted = ((x >= 0)[:, :, None] == bits[None]).sum(axis=1)
    np.testing.assert_array_equal(run(found, x), wanted)


# --- Refused by name -----------------------------------------------------------------------------


def refused(b: Builder, output: str) -> str:
    with pytest.raises((CheckpointError, ConversionError)) as caught:
        imported(b.model(output))
    message = str(caught.value)
    assert message.isprintable()
    return message


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (lambda b: b.add("LSTM", "x"), "lstm_0 (LSTM): there is no such operator here"),
        (lambda b: b.add("Odd", "x", domain="com.acme"), "there is no domain 'com.acme' here"),
        (lambda b: b.add("Trunc", "x", domain=QONNX), "there is no such operator here"),
        (lambda b: quant(b, "x", 2, 1.0), "activations of 2 bits"),
        (lambda b: quant(b, "x", 8, 1.0, signed=0), "activations from 0 to 255"),
        (
            lambda b: b.add("MultiThreshold", "x", b.constant("t", random(5, 3)), domain=QONNX),
            "more than one bit",
        ),
        (lambda b: b.add("LogSoftmax", "x"), "export the network without it"),
        (lambda b: b.add("Conv", "x", "x"), "wanted a constant"),
        (lambda b: b.add("Relu", "nothing"), "reads 'nothing', which nothing before it makes"),
        (lambda b: b.add("Clip", "x", "nothing"), "reads 'nothing', which nothing before it makes"),
        (lambda b: b.add("Transpose", "x", perm=[1, 0, 2, 3]), "of the batch"),
        (
            lambda b: b.add("Pad", "x", b.constant("p", np.array([0, 1, 0, 0, 0, 1, 0, 0]))),
            "a border along the axes (0, 1) of NCHW",
        ),
        (
            lambda b: b.add("Reshape", "x", b.constant("s", np.array([2, -1]))),
            "whose batch is not 1",
        ),
        (lambda b: b.add("MaxPool", "x", kernel_shape=[9, 9]), "a window of 9 pixels over 6"),
        (lambda b: b.add("Relu", b.constant("c", random(3))), "does not depend on the input"),
    ],
)
def test_what_has_no_counterpart_is_named(build: Callable[[Builder], str], words: str) -> None:
    b = Builder(["n", 5, 6, 6])
    assert words in refused(b, build(b))


def test_open_sizes_are_named() -> None:
    b = Builder(["n", 3, "height", "width"])
    assert "(n, 3, height, width): export it with fixed sizes" in refused(b, b.add("Relu", "x"))


def test_several_inputs_are_named() -> None:
    b = Builder(["n", 3])
    model = b.model(b.add("Add", "x", "y"))
    model.graph.input.append(helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 3]))
    with pytest.raises(ConversionError, match=r"2 inputs \(x, y\), wanted one"):
        imported(model)


def test_weights_in_another_file_are_refused(tmp_path: Path) -> None:
    b = Builder(["n", 600])
    model = b.model(b.add("MatMul", "x", b.constant("w", random(600, 4))))
    onnx.save(model, tmp_path / "a.onnx", save_as_external_data=True, location="a.data")
    with pytest.raises(CheckpointError, match="another file, which is not opened"):
        convert(tmp_path / "a.onnx")


def test_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(MissingExtraError, match=r"pip install '\.\[onnx\]'"):
        reader.parse(b"\x08\x0a")


# --- Damaged files -------------------------------------------------------------------------------


def outcome(make: Callable[[], Recognised]) -> str:
    """``read``, or the name of the error; anything untyped fails the test."""
    try:
        make()
    except BitInferError as error:
        return type(error).__name__ if str(error).isprintable() else repr(str(error))
    return "read"


def test_damaged_files_are_refused_in_a_process_of_their_own() -> None:
    data = onnx_files.network().SerializeToString()
    rng = random_module.Random(5)
    ends = set()
    for _ in range(12):
        mutant = bytearray(data)
        for _ in range(rng.randrange(1, 6)):
            mutant[rng.randrange(2, len(mutant))] = rng.randrange(256)
        ends.add(outcome(lambda m=bytes(mutant): recognise(reader.from_bytes(m))))  # type: ignore[misc]
    ends.add(outcome(lambda: recognise(reader.from_bytes(data[: len(data) // 2]))))
    assert "CheckpointError" in ends


@pytest.mark.parametrize("seed", range(4))
def test_altered_nodes_are_read_or_refused(seed: int) -> None:
    rng = random_module.Random(seed)
    ends = []
    for _ in range(60):
        model = onnx_files.network()
        nodes = model.graph.node
        node = rng.choice(nodes)
        match rng.randrange(7):
            case 0:
                nodes.remove(node)
            case 1 if node.input:
                node.input[rng.randrange(len(node.input))] = rng.choice(["", "x", "w1", "second"])
            case 2 if node.attribute:
                node.attribute.remove(rng.choice(node.attribute))
            case 3:
                for attribute in node.attribute:
                    attribute.ints[:] = [rng.choice([-1, 0, 1, 3, 1 << 40]) for _ in attribute.ints]
            case 4:
                tensor = rng.choice(model.graph.initializer)
                tensor.dims[:] = [rng.choice([0, 1, 2, 1 << 50]) for _ in tensor.dims]
            case 5:
                node.op_type = rng.choice([n.op_type for n in nodes])
            case 6:
                nodes.append(nodes.pop(rng.randrange(len(nodes))))
        ends.append(outcome(lambda m=model: imported(m)))  # type: ignore[misc]
    assert set(ends) <= {"read", "CheckpointError", "ConversionError"}
    assert len(set(ends)) > 1


# --- Files of the frameworks themselves ----------------------------------------------------------

REFUSED = {"cnv_1w2a": "activations of 2 bits"}


@pytest.mark.parametrize("folder", ["torch_onnx", "qonnx", "tf2onnx", "finn"])
def test_samples_compute_what_their_framework_computed(shared: Path, folder: str) -> None:
    files = sorted((shared / "samples" / folder).glob("*.onnx"))
    assert files
    for path in files:
        name = path.name.partition(".")[0]
        if name in REFUSED:
            with pytest.raises(ConversionError, match=REFUSED[name]):
                convert(path)
            continue
        model, report = convert(path)
        with np.load(path.with_name(f"{name}.npz")) as stored:
            x, wanted = stored["x"], stored["y"]
        if x.ndim == 4 and x.shape[1:] != model.graph.input.shape:
            x = np.ascontiguousarray(x.transpose(0, 2, 3, 1))
        result = session.Session(model, "reference").run(x)
        np.testing.assert_allclose(result, wanted, atol=1e-4, rtol=0, err_msg=path.name)
        assert any(layer.is_binary for layer in report.layers)
        assert not any(layer.half_binary for layer in report.layers), path.name


def test_every_spelling_of_a_network_gives_the_same_layers(shared: Path) -> None:
    """Weights as bits are the same whichever exporter wrote them."""
    for folder, name in (("qonnx", "conv_pad_1w1a"), ("qonnx", "mlp_1w1a")):
        bits = []
        for path in sorted((shared / "samples" / folder).glob(f"{name}.*onnx")):
            model, _ = convert(path)
            packed = [t for t in model.tensors.values() if t.dtype == np.uint64]
            bits.append(b"".join(t.tobytes() for t in packed))
        assert len(bits) == 3
        assert len(set(bits)) == 1


def test_real_qonnx_network_has_the_accuracy_of_its_source(shared: Path) -> None:
    def read(name: str, skip: int) -> Array:
        with gzip.open(shared / "data" / "mnist" / name) as file:
            return np.frombuffer(file.read(), np.uint8)[skip:]

    pixels = read("t10k-images-idx3-ubyte.gz", 16).reshape(-1, 28, 28, 1)
    labels = read("t10k-labels-idx1-ubyte.gz", 8)
    model, report = convert(shared / "weights" / "qonnx_tfc" / "TFC_1W1A.onnx")
    assert [o.became for o in report.layers if len(o.shape) > 1] == ["binary"] * 4
    # Its graph begins with 2 x - 1.
    outputs = session.Session(model).run(pixels.astype(np.float32) / np.float32(255))
    assert int((np.asarray(outputs).argmax(axis=1) == labels).sum()) == 9296

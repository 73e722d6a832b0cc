"""A model that differs from its source is caught where it differs, with what explains it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import msgspec
import numpy as np
import pytest
from foreign_writer import CONV, SIGN, Writer, by_polynomial
from numpy.typing import NDArray

from bitinfer.errors import ConversionError
from bitinfer.importers import evaluate, signs
from bitinfer.importers.foreign import Foreign, ForeignNode
from bitinfer.importers.recognise import recognise
from bitinfer.importers.simulate import simulate
from bitinfer.model import Model, Preprocessing
from bitinfer.verify import normalised, random_inputs, verify
from bitinfer.verify.page import html, lines

Array = NDArray[Any]


def random(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def bipolar(*shape: int, seed: int = 0) -> Array:
    return np.where(random(*shape, seed=seed) < 0, np.float32(-1), np.float32(1))


def network(layout: Any = "NCHW", *, relu: bool = False, at_zero: int = 1) -> Foreign:
    """first, norm, sign, second (binary, padded), norm2, sign, flatten, third (binary), norm3."""
    w = Writer(layout)

    def norm(name: str, x: str, channels: int, seed: int) -> str:
        parts = [
            w.constant(f"{name}.{i}", random(channels, seed=seed + i) * (0.5 if i < 2 else 1))
            for i in range(3)
        ]
        parts.append(w.constant(f"{name}.3", np.full(channels, 0.002)))
        return w.add(name, "batch_norm", x, *parts, epsilon=1e-3)

    def conv(name: str, x: str, weight: Array, *bias: str) -> str:
        key, axes = w.weight(f"{name}.w", weight)
        attributes = {**CONV, "pads": (1, 1, 1, 1)}
        return w.add(name, "conv", x, key, *bias, axes=axes, **attributes)

    x = conv("first", "input", random(8, 3, 3, 3), w.constant("first.b", random(8, seed=3)))
    if relu:
        zeros, ones = w.constant("zeros", np.zeros(8)), w.constant("ones", np.ones(8))
        x = w.add("relu", "relu", x)
        x = w.add("norm", "batch_norm", x, "", "", zeros, ones, epsilon=0.0)
    else:
        x = norm("norm", x, 8, 10)
    x = w.add("sign", "sign", x, **{**SIGN, "at_zero": at_zero})
    alpha = np.abs(random(6, seed=4)).reshape(-1, 1, 1, 1) + 0.1
    x = conv("second", x, bipolar(6, 3, 3, 8, seed=5) * alpha, w.constant("second.b", random(6)))
    x = by_polynomial(w, "sign2", norm("norm2", x, 6, 20))
    x = w.add("flat", "flatten", x)
    key, axes = w.weight("third.w", bipolar(5, 6 * 36, seed=6))
    x = w.add("third", "dense", x, key, axes=axes, counts="sums")
    x = norm("norm3", x, 5, 30)
    return w.finish((6, 6, 3), x)


def model_of(source: Foreign) -> Model:
    found = recognise(source)
    return Model(graph=found.graph, tensors=found.tensors)


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
def test_converted_network_equals_its_source(layout: Any) -> None:
    source = network(layout)
    model = model_of(source)
    result = verify(model, source, random_inputs(model, 5), "reference")
    assert result.is_equal
    assert (result.samples, result.left_out, result.same_answers) == (5, 0, 5)
    assert [(c.name, c.layer) for c in result.signs] == [("sign", "second"), ("sign2", "third")]
    assert [c.compared for c in result.signs] == [5 * 36 * 8, 5 * 36 * 6]
    assert result.largest < 1e-3 * result.output_scale


def changed(source: Foreign, name: str, **attributes: Any) -> Foreign:
    nodes = tuple(
        dataclasses.replace(n, attributes={**n.attributes, **attributes}) if n.name == name else n
        for n in source.nodes
    )
    return dataclasses.replace(source, nodes=nodes)


def with_constant(source: Foreign, name: str, function: Callable[[Array], Array]) -> Foreign:
    constants = {**source.constants, name: function(source.constants[name])}
    return dataclasses.replace(source, constants=constants)


def without_input(source: Foreign, name: str, index: int, *, keeps: bool = False) -> Foreign:
    def less(node: ForeignNode) -> ForeignNode:
        rest = [*node.inputs]
        rest[index : index + 1] = [""] if keeps else []
        return dataclasses.replace(node, inputs=tuple(rest))

    nodes = tuple(less(n) if n.name == name else n for n in source.nodes)
    return dataclasses.replace(source, nodes=nodes)


Change = Callable[[Foreign], Foreign]
FAULTS: list[tuple[str, Change, str, str]] = [
    # What was done to the model, where it shows, and what has to be said of it.
    ("pad -1", lambda s: changed(s, "second", pad_value=-1.0), "sign2", "second: padded with -1"),
    ("pad +1", lambda s: changed(s, "second", pad_value=1.0), "sign2", "second: padded with +1"),
    (
        "epsilon",
        lambda s: changed(s, "norm3", epsilon=1e-5),
        "norm3",
        "BatchNorm with epsilon 1e-05",
    ),
    ("gamma", lambda s: with_constant(s, "norm2.0", np.abs), "sign2", "gamma without its sign"),
    ("gamma 1", lambda s: with_constant(s, "norm.0", np.ones_like), "sign", "gamma of 1"),
    ("beta", lambda s: without_input(s, "norm2", 2, keeps=True), "sign2", "BatchNorm without beta"),
    ("alpha", lambda s: with_constant(s, "second.w", np.sign), "sign2", "second: without alpha"),
    ("bias", lambda s: without_input(s, "first", 2), "sign", "first: without its bias"),
    (
        "turned",
        lambda s: with_constant(s, "second.w", lambda w: w[:, :, ::-1, ::-1]),
        "sign2",
        "second: kernels turned by 180 degrees",
    ),
    (
        "exchanged",
        lambda s: with_constant(s, "second.w", lambda w: w.swapaxes(2, 3)),
        "sign2",
        "second: height and width of kernels exchanged",
    ),
    (
        "negated",
        lambda s: with_constant(s, "second.w", np.negative),
        "sign2",
        "second: weights as they are, of the other sign",
    ),
    (
        "colours",
        lambda s: with_constant(s, "first.w", lambda w: w[:, ::-1]),
        "sign",
        "first: input channels in the reverse order",
    ),
    (
        "flatten",
        lambda s: with_constant(
            s, "third.w", lambda w: w.reshape(5, 6, 6, 6).transpose(0, 3, 1, 2).reshape(5, -1)
        ),
        "norm3",
        "flat: flattened in the other order of axes",
    ),
]


@pytest.mark.parametrize(
    ("change", "where", "words"), [f[1:] for f in FAULTS], ids=[f[0] for f in FAULTS]
)
def test_fault_is_found_where_it_is_and_explained(change: Change, where: str, words: str) -> None:
    source = network()
    model = model_of(change(source))
    result = verify(model, source, random_inputs(model, 4), "reference")
    assert result.first is not None
    assert result.first.name == where
    assert any(words in explanation for explanation in result.first.explanations), result.first
    text = "\n".join(lines(result, "m", "s"))
    assert "m and s: DIFFERENT" in text
    assert f"they part at {where}" in text
    page = html(result, "m", "s")
    assert "<svg" in page
    assert words.partition(": ")[2][:10] in page


def one_zero(weight: Array) -> Array:
    weight = weight.copy()
    weight[np.unravel_index(0, weight.shape)] = 0
    return weight


def test_single_zeros_among_binary_weights_are_what_is_blamed() -> None:
    source = with_constant(network(), "second.w", one_zero)
    model = model_of(source)
    result = verify(model, source, random_inputs(model, 20), "reference")
    assert result.first is not None
    said = " ".join(result.first.explanations)
    assert "second: weights of 0 as +alpha" in said
    assert "without alpha" not in said


def test_model_with_integer_ends_is_refused_by_what_it_is() -> None:
    source = network()
    model = model_of(source)
    graph = msgspec.structs.replace(
        model.graph, input=msgspec.structs.replace(model.graph.input, kind="uint8")
    )
    with pytest.raises(ConversionError, match="the model has integer ends"):
        verify(dataclasses.replace(model, graph=graph), source, random_inputs(model, 1))


@pytest.mark.parametrize(
    ("words", "function"), [("x / 255", lambda v: v / 255), ("2 x - 1", lambda v: 2 * v - 1)]
)
def test_scale_of_the_input_is_an_explanation(
    words: str, function: Callable[[Array], Array]
) -> None:
    source = network()
    w = Writer()
    scale, shift = (function(np.float32(1)) - function(np.float32(0)), function(np.float32(0)))
    w.add("scaled", "multiply", "input", w.constant("scale", np.float32(scale)))
    w.add("shifted", "add", "scaled", w.constant("shift", np.float32(shift)))
    nodes = tuple(
        dataclasses.replace(n, inputs=("shifted", *n.inputs[1:])) if n.name == "first" else n
        for n in source.nodes
    )
    scaled = dataclasses.replace(
        source, nodes=(*w.nodes, *nodes), constants={**source.constants, **w.constants}
    )
    model = model_of(scaled)
    result = verify(model, source, random_inputs(model, 4), "reference")
    assert result.first is not None
    assert f"the input: {words}" in result.first.explanations


def test_zeros_that_the_source_knows_are_an_explanation() -> None:
    """Behind a ReLU a source whose sign(0) is 0 differs from one whose sign(0) is +1 everywhere."""
    source = network(relu=True, at_zero=0)
    model = model_of(source)
    result = verify(model, source, random_inputs(model, 4), "reference")
    assert result.first is not None
    assert any("sign: sign(0) is +1" in e for e in result.first.explanations)


def test_fault_that_nothing_explains_is_named_all_the_same() -> None:
    source = network()
    model = model_of(with_constant(source, "second.w", lambda w: np.roll(w, 1, axis=1)))
    result = verify(model, source, random_inputs(model, 4), "reference")
    assert result.first is not None
    assert result.first.name == "sign2"
    assert "second" in result.first.layers
    assert result.first.explanations == ()
    assert "nothing that was tried explains it" in lines(result, "m", "s")


def test_tie_is_counted_and_its_sample_left_out() -> None:
    """A value of the source just below a threshold, by less than float32 can tell."""
    w = Writer()
    # float32: 1e8 - 1e8 + 1 - 1.5 rounds to another sign than the exact -0.5.
    x = w.add("add", "add", "input", w.constant("large", np.full(40, 1e8)))
    x = w.add("back", "add", w.add("relu", "relu", x), w.constant("less", np.full(40, -1e8)))
    x = w.add("sign", "sign", x, **SIGN)
    key, axes = w.weight("w", bipolar(3, 40))
    w.add("out", "dense", x, key, axes=axes, counts="sums")
    source = w.finish((40,), "out")
    model = model_of(source)
    x = np.abs(random(6, 40)) + 10
    x[2, 5] = -1
    result = verify(model, source, x, "reference")
    assert result.is_equal
    assert result.signs[0].ties_differing == 1
    assert (result.samples, result.left_out) == (6, 1)


def test_other_networks_are_refused() -> None:
    source = network()
    w = Writer()
    w.add("relu", "relu", "input")
    other = model_of(w.finish((7, 7, 3), "relu"))
    with pytest.raises(ConversionError, match=r"takes \(6, 6, 3\), the model \(7, 7, 3\)"):
        verify(other, source, random(1, 7, 7, 3))
    with pytest.raises(ConversionError, match="none of the source's signs"):
        verify(model_of(w.finish((6, 6, 3), "relu")), source, random(1, 6, 6, 3))


def test_random_inputs_are_pixels_where_pictures_are_taken() -> None:
    p = Preprocessing(color="rgb", mean=(0.5, 0.25, 0.0), std=(0.5, 1.0, 2.0), resize=(6, 6))
    model = dataclasses.replace(model_of(network()), preprocessing=p)
    x = random_inputs(model, 2)
    pixels = np.rint((x * np.array(p.std) + np.array(p.mean)) * 255)
    np.testing.assert_allclose(normalised(p, pixels.astype(int)), x, atol=1e-6)
    assert pixels.min() >= 0
    assert pixels.max() <= 255
    assert len(np.unique(pixels)) > 50


# --- The measure itself --------------------------------------------------------------------------


def test_signs_are_found_where_the_source_computes_them() -> None:
    """What replaces a polynomial by a sign is held to the polynomial itself."""
    source = network()
    folded = evaluate.fold_constants(source)
    x = random(2, 3, 6, 6)
    values, found = simulate(folded, x), simulate(signs.find_signs(folded), x)
    np.testing.assert_allclose(values["sign2"], found["sign2"], atol=1e-5)
    assert set(np.unique(found["sign2"])) == {-1, 1}


def test_simulation_agrees_with_torch() -> None:
    torch = pytest.importorskip("torch")
    functional = torch.nn.functional
    w = Writer()
    t = {
        name: torch.from_numpy(random(*shape, seed=i).astype(np.float64))
        for i, (name, shape) in enumerate(
            {"a": (8, 2, 3, 2), "b": (8,), "mean": (8,), "gamma": (8,), "d": (5, 8)}.items()
        )
    }
    t["variance"] = t["mean"] ** 2 + 0.1
    for name, value in t.items():
        w.constants[name] = value.numpy()
    more = {"strides": (2, 1), "pads": (1, 1, 2, 2), "dilations": (1, 2), "groups": 2}
    w.add("conv", "conv", "input", "a", "b", axes="OIHW", **{**CONV, **more})
    w.add("norm", "batch_norm", "conv", "gamma", "", "mean", "variance", epsilon=1e-3)
    window = {"kernel": (3, 3), "strides": (2, 2), "pads": (1, 1, 1, 1)}
    w.add("mean_", "avg_pool", "norm", **window, count_include_pad=0)
    w.add("max_", "max_pool", "norm", **window)
    w.add("sum", "add", "mean_", "max_")
    w.add("pooled", "global_avg_pool", "sum")
    w.add("flat", "flatten", "pooled")
    w.add("dense", "dense", "flat", "d", axes="OI", counts="sums")
    w.add("out", "softmax", "dense")
    source = w.finish((9, 8, 4), "out")
    x = torch.from_numpy(random(2, 4, 9, 8).astype(np.float64))
    y = functional.conv2d(x, t["a"], t["b"], (2, 1), (1, 2), (1, 2), 2)
    y = functional.batch_norm(y, t["mean"], t["variance"], t["gamma"], None, eps=1e-3)
    y = functional.avg_pool2d(y, 3, 2, 1, count_include_pad=False) + functional.max_pool2d(
        y, 3, 2, 1
    )
    wanted = torch.softmax(y.mean((2, 3)) @ t["d"].T, 1).numpy()
    np.testing.assert_allclose(simulate(source, x.numpy())["out"], wanted, atol=1e-12)

"""Keras and Larq files in each of their layouts compute what their layers are defined to."""

from __future__ import annotations

import io
import json
import random as random_module
import sys
from pathlib import Path
from typing import Any

import h5py
import keras_files
import numpy as np
import pytest
from keras_files import functional, hdf5, layer, norm_weights, random, sequential
from numpy.typing import NDArray

from bitinfer import session
from bitinfer.errors import BitInferError, CheckpointError, ConversionError, MissingExtraError
from bitinfer.importers.convert import convert
from bitinfer.importers.options import Options
from bitinfer.importers.readers import _larq_quantizers as quantizers
from bitinfer.importers.readers import keras as reader
from bitinfer.importers.recognise import Recognised, recognise
from bitinfer.model import Model

Array = NDArray[Any]


def run(found: Recognised, x: Array) -> Array:
    model = Model(graph=found.graph, tensors=found.tensors)
    return np.asarray(session.Session(model, "reference").run(x))


def imported(model: Any, weights: Any = None) -> Recognised:
    return recognise(reader.parse(hdf5(model, weights or {}), b""))


def sign(x: Array) -> Array:
    return np.where(x >= 0, 1.0, -1.0)


def convolve(
    x: Array, kernel: Array, *, stride: int = 1, pads: Any = ((0, 0), (0, 0)), value: float = 0
) -> Array:
    """(N, H, W, C) with (kh, kw, C, O), in float64."""
    padded = np.pad(x.astype(np.float64), ((0, 0), *pads, (0, 0)), constant_values=value)
    windows = np.lib.stride_tricks.sliding_window_view(padded, kernel.shape[:2], axis=(1, 2))
    return np.einsum("nyxchw,hwco->nyxo", windows[:, ::stride, ::stride], kernel)


# --- Layouts -------------------------------------------------------------------------------------


def test_every_layout_of_the_weights_gives_the_same_network() -> None:
    model, weights, keys = keras_files.network()
    text = json.dumps(model).encode()
    old = "_layer_checkpoint_dependencies"
    stored, stored_before = (keras_files.by_class(weights, keys, c) for c in ("layers", old))
    files = [
        (hdf5(model, weights), b""),
        (hdf5(None, weights), text),
        (stored, text),
        (stored_before, text),
        (keras_files.archive(model, stored), b""),
        (keras_files.archive(model, stored_before), b""),
    ]
    x = random(2, 6, 6, 3, seed=20)
    outputs = []
    for data, network in files:
        found = recognise(reader.from_bytes(data, network))
        became = [o.became for o in found.layers if len(o.shape) > 1]
        assert became == ["float", "binary", "binary"]
        outputs.append(run(found, x))
    for output in outputs[1:]:
        np.testing.assert_array_equal(output, outputs[0])

    def norm(y: Array, name: str) -> Array:
        w = weights[name]
        y = (y - w["moving_mean"]) / np.sqrt(w["moving_variance"].astype(np.float64) + 0.01)
        return y + w["beta"]

    y = np.maximum(convolve(x, weights["stem"]["kernel"]) + weights["stem"]["bias"], 0)
    y = sign(norm(y, "norm_b"))
    y = convolve(y, sign(weights["body"]["kernel"]), pads=((0, 1), (0, 1)))
    y = sign(norm(y, "norm_a").reshape(2, -1)) @ sign(weights["head"]["kernel"])
    np.testing.assert_allclose(outputs[0], y, atol=1e-4)


def test_weights_without_their_network_are_named() -> None:
    _, weights, _ = keras_files.network()
    with pytest.raises(CheckpointError, match=r"pass model\.to_json\(\) as --network FILE"):
        reader.from_bytes(hdf5(None, weights))


def test_network_is_passed_beside_its_weights(tmp_path: Path) -> None:
    model, weights, keys = keras_files.network()
    path = tmp_path / "net.weights.h5"
    path.write_bytes(keras_files.by_class(weights, keys))
    found, report = convert(path, options=Options(network=json.dumps(model).encode()))
    assert report.format == "an HDF5 file, as Keras writes"
    assert found.graph.input.shape == (6, 6, 3)


# --- Quantizers ----------------------------------------------------------------------------------

SPELLINGS = [
    "ste_sign",
    "SteSign",
    "larq>SteSign",
    {"class_name": "SteSign", "config": {"clip_value": 1.0}},
    {
        "module": "larq.quantizers",
        "class_name": "SteSign",
        "config": {},
        "registered_name": "SteSign",
    },
    {"class_name": "Larq>ste_sign", "config": {}},
]


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_quantizer_in_any_spelling(spelling: Any) -> None:
    assert quantizers.require(spelling) == quantizers.Quantizer(
        "stesign", spelling.get("config", {}) if isinstance(spelling, dict) else {}
    )


X = np.array([-2, -0.6, -0.5, -1e-20, -0.0, 0.0, 1e-20, 0.5, 0.6, 2], np.float32)
ONES = np.where(X >= 0, 1, -1)


@pytest.mark.parametrize(
    ("name", "config", "values", "kernels"),
    [
        ("ste_sign", {}, ONES, ONES),
        ("approx_sign", {}, ONES, ONES),
        ("swish_sign", {"beta": 5.0}, ONES, ONES),
        ("magnitude_aware_sign", {}, None, ONES * np.abs(X).mean()),
        ("xnor_weight_scale", {}, ONES, ONES * np.abs(X).clip(0, 1).mean()),
        ("ste_heaviside", {}, np.where(X > 0, 1, 0), None),
        (
            "DoReFa",
            {"k_bit": 1, "mode": "activations"},
            np.where(X > 0.5, 1, 0),
            np.where(X > 0.5, 1, 0),
        ),
        ("DoReFa", {"k_bit": 1, "mode": "weights"}, None, np.where(X > 0, 1, -1)),
        ("no_op", {}, X, X),
        (None, {}, X, X),
    ],
)
def test_what_quantizers_compute(name: Any, config: Any, values: Any, kernels: Any) -> None:
    value = None if name is None else {"class_name": name, "config": config}
    if kernels is not None:
        kernel = quantizers.kernel(quantizers.require(value), X.reshape(1, 1, -1, 1))
        np.testing.assert_allclose(kernel.ravel(), kernels, rtol=1e-6)
    item = layer("QuantDense", "d", units=10, use_bias=False, input_quantizer=value)
    model = sequential((10,), item)
    if values is None:
        with pytest.raises(ConversionError, match="d \\(QuantDense\\): "):
            imported(model, {"d": {"kernel": np.eye(10, dtype=np.float32)}})
        return
    # A dense layer with real weights of two sizes shows the values themselves.
    weight = np.eye(10, dtype=np.float32) + np.float32(2.0**-12)
    found = imported(model, {"d": {"kernel": weight}})
    wanted = values.astype(np.float64) @ weight
    np.testing.assert_allclose(run(found, X[None])[0], wanted, atol=1e-5)


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("ste_tern", "SteTern has three values"),
        ({"class_name": "DoReFa", "config": {"k_bit": 2}}, "DoReFa of 2 bits"),
        ({"class_name": "DoReFa", "config": {}}, "DoReFa of 2 bits"),
        ("my_own", "the quantizer my_own is none of Larq's"),
    ],
)
@pytest.mark.parametrize("part", ["input_quantizer", "kernel_quantizer"])
def test_quantizers_of_more_levels_are_refused_by_name(value: Any, words: str, part: str) -> None:
    item = layer("QuantDense", "d", units=10, use_bias=False, **{part: value})
    with pytest.raises(ConversionError, match=f"d \\(QuantDense\\): {words}"):
        imported(sequential((10,), item), {"d": {"kernel": random(10, 10)}})


# --- Layers --------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [0.0, 1.0, -1.0])
@pytest.mark.parametrize(
    ("side", "stride", "pads"), [(6, 1, (1, 1)), (6, 2, (0, 1)), (7, 2, (1, 1))]
)
def test_same_padding_is_tensorflows(value: float, side: int, stride: int, pads: Any) -> None:
    config = {"filters": 4, "kernel_size": [3, 3], "strides": [stride, stride], "use_bias": False}
    signs = {"input_quantizer": "ste_sign", "kernel_quantizer": "ste_sign"}
    item = layer("QuantConv2D", "c", padding="same", pad_values=value, **config, **signs)
    kernel = random(3, 3, 5, 4)
    found = imported(sequential((side, side, 5), item), {"c": {"kernel": kernel}})
    assert [o.became for o in found.layers] == ["binary"]
    x = random(2, side, side, 5, seed=1)
    wanted = convolve(sign(x), sign(kernel), stride=stride, pads=(pads, pads), value=value)
    np.testing.assert_array_equal(run(found, x), wanted)


def test_depthwise_and_separable_layers() -> None:
    signs = {"input_quantizer": "ste_sign", "depthwise_quantizer": "ste_sign", "use_bias": False}
    model = sequential(
        (6, 6, 3),
        layer("QuantDepthwiseConv2D", "d", kernel_size=3, depth_multiplier=2, **signs),
        layer(
            "QuantSeparableConv2D",
            "s",
            filters=5,
            kernel_size=2,
            pointwise_quantizer="ste_sign",
            **signs,
        ),
    )
    kernels = {
        "d": {"depthwise_kernel": random(3, 3, 3, 2)},
        "s": {
            "depthwise_kernel": random(2, 2, 6, 1, seed=1),
            "pointwise_kernel": random(1, 1, 6, 5, seed=2),
        },
    }
    found = imported(model, kernels)
    assert [o.became for o in found.layers[:2]] == ["binary", "binary"]

    def depthwise(x: Array, kernel: Array) -> Array:
        parts = [
            convolve(x[..., c : c + 1], kernel[:, :, c : c + 1]) for c in range(kernel.shape[2])
        ]
        return np.concatenate(parts, axis=-1)

    x = random(2, 6, 6, 3, seed=5)
    y = depthwise(sign(x), sign(kernels["d"]["depthwise_kernel"]))
    y = depthwise(sign(y), sign(kernels["s"]["depthwise_kernel"]))
    wanted = convolve(y, sign(kernels["s"]["pointwise_kernel"]))
    np.testing.assert_array_equal(run(found, x), wanted)


def test_functional_model_with_a_shortcut_and_a_layer_that_is_called_twice() -> None:
    signs = {"input_quantizer": "ste_sign", "kernel_quantizer": "ste_sign", "use_bias": False}
    conv = layer("QuantConv2D", "c", filters=3, kernel_size=[1, 1], **signs)
    model = functional(
        (4, 4, 3),
        {
            "sum": (layer("Add", "sum"), [["c", "x"]]),
            "c": (conv, [["x"], ["norm"]]),
            "norm": (layer("BatchNormalization", "norm", axis=3), [["sum"]]),
            "cat": (layer("Concatenate", "cat", axis=-1), [["norm", "x"]]),
            "mean": (layer("GlobalAveragePooling2D", "mean"), [["cat"]]),
        },
    )
    model["config"]["layers"].append(
        {**layer("Add", "again"), "inbound_nodes": [[["c", 1, 0, {}], ["x", 0, 0, {}]]]}
    )
    model["config"]["output_layers"] = [["mean", 0, 0], ["again", 0, 0]]
    kernel, norm = random(1, 1, 3, 3), {"gamma": random(3, seed=4), **norm_weights(3, 5)}
    found = imported(model, {"c": {"kernel": kernel}, "norm": norm})
    x = random(2, 4, 4, 3, seed=7)
    result = session.Session(Model(graph=found.graph, tensors=found.tensors), "reference").run(x)
    y = convolve(sign(x), sign(kernel)) + x
    y = (y - norm["moving_mean"]) / np.sqrt(norm["moving_variance"] + 1e-3) * norm["gamma"]
    y += norm["beta"]
    assert isinstance(result, dict)
    first, second = result.values()
    wanted = np.concatenate([y, x], axis=-1).mean((1, 2))
    np.testing.assert_allclose(first, wanted, atol=1e-5)
    np.testing.assert_allclose(second, convolve(sign(y), sign(kernel)) + x, atol=1e-5)


def test_activations_and_pools() -> None:
    model = sequential(
        (5, 5, 4),
        layer("PReLU", "prelu", shared_axes=[1, 2]),
        layer("AveragePooling2D", "mean", pool_size=[3, 3], strides=[2, 2], padding="same"),
        layer("Activation", "tanh", activation="tanh"),
        layer("LeakyReLU", "leaky", alpha=0.1),
        layer("ReLU", "relu", max_value=6.0),
        layer("ZeroPadding2D", "border", padding=[[0, 1], [1, 0]]),
        layer("MaxPooling2D", "max", pool_size=[2, 2]),
        layer("Dropout", "drop", rate=0.5),
        layer("Reshape", "flat", target_shape=[-1]),
        layer("Dense", "d", units=3, activation="softmax"),
    )
    slope, kernel, bias = random(1, 1, 4), random(16, 3, seed=1), random(3, seed=2)
    found = imported(model, {"prelu": {"alpha": slope}, "d": {"kernel": kernel, "bias": bias}})
    x = random(1, 5, 5, 4, seed=3)
    y = np.where(x < 0, x * slope, x)[0]
    mean = np.zeros((3, 3, 4))
    for i in range(3):
        for j in range(3):
            window = y[max(2 * i - 1, 0) : 2 * i + 2, max(2 * j - 1, 0) : 2 * j + 2]
            mean[i, j] = window.mean((0, 1))
    y = np.tanh(mean)
    y = np.clip(np.where(y < 0, 0.1 * y, y), 0, 6)
    y = np.pad(y, ((0, 1), (1, 0), (0, 0))).reshape(2, 2, 2, 2, 4).max((1, 3))
    logits = y.reshape(-1) @ kernel + bias
    wanted = np.exp(logits) / np.exp(logits).sum()
    np.testing.assert_allclose(run(found, x)[0], wanted, atol=1e-5)


def test_operators_of_python_between_layers_are_layers() -> None:
    """As ``x + y`` of Keras tensors is stored: the second value is an argument by name."""
    conv = layer("Conv2D", "c", filters=3, kernel_size=1, use_bias=False)
    weights = {"c": {"kernel": np.eye(3, dtype=np.float32).reshape(1, 1, 3, 3) * 2}}

    def found(function: str, **arguments: Any) -> Any:
        model = functional((2, 2, 3), {"c": (conv, [["x"]])})
        items = model["config"]["layers"]
        node = ["c", 0, 0, {"name": None, **arguments}]
        operator = layer("TFOpLambda", "tf.op", function=function)
        items.append({**operator, "inbound_nodes": [node]})
        model["config"]["output_layers"] = [["tf.op", 0, 0]]
        return imported(model, weights)

    x = random(1, 2, 2, 3)
    other = ["x", 0, 0]
    for function, wanted in (("__operators__.add", 3 * x), ("math.multiply", 2 * x * x)):
        np.testing.assert_allclose(run(found(function, y=other), x), wanted, rtol=1e-6)
    for function, arguments in (("math.erf", {"y": other}), ("__operators__.add", {"y": 2.0})):
        with pytest.raises(ConversionError, match=r"tf\.op \(TFOpLambda\): the function"):
            found(function, **arguments)


# --- Refused by name -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("item", "words"),
    [
        (layer("Lambda", "f"), "f \\(Lambda\\): it is Python code, which is not run"),
        (layer("Flatten", "f", data_format="channels_first"), "only channels_last is read"),
        (layer("BatchNormalization", "n", axis=1), "wanted the channels, which are last"),
        (layer("Activation", "a", activation="gelu"), "the activation gelu is not there"),
        (
            layer("Conv2D", "c", filters=2, kernel_size=3, padding="causal"),
            "its kernel is not among",
        ),
        (layer("MaxPooling2D", "m", pool_size=9), "a window of 9 pixels over 6"),
        (layer("ReLU", "r", threshold=1.0), "a ReLU with a threshold"),
        (layer("InputLayer", "two", batch_input_shape=[None, 3]), "a second input"),
    ],
)
def test_what_has_no_counterpart_is_named(item: Any, words: str) -> None:
    with pytest.raises((CheckpointError, ConversionError), match=words):
        imported(sequential((6, 6, 3), item))


def test_subclassed_models_and_open_sizes_are_named() -> None:
    with pytest.raises(ConversionError, match="a MyModel: only Sequential and functional"):
        imported({"class_name": "MyModel", "config": {"layers": []}})
    with pytest.raises(ConversionError, match="fix its sizes"):
        imported(sequential((None, None, 3), layer("Flatten", "f")))  # type: ignore[arg-type]


def test_other_files_are_not_opened(tmp_path: Path) -> None:
    other = tmp_path / "other.h5"
    model = sequential((2,), layer("Dense", "d", units=2, use_bias=False))
    other.write_bytes(hdf5(model, {"d": {"kernel": random(2, 2)}}))
    (tmp_path / "raw").write_bytes(bytes(16))
    for link in (True, False):
        file = io.BytesIO()
        with h5py.File(file, "w") as target:
            target.attrs["model_config"] = json.dumps(model)
            if link:
                target["model_weights/d/kernel:0"] = h5py.ExternalLink(
                    str(other), "model_weights/d/d/kernel:0"
                )
            else:
                target.create_dataset(
                    "model_weights/d/kernel:0",
                    (2, 2),
                    "f4",
                    external=[(str(tmp_path / "raw"), 0, 16)],
                )
        with pytest.raises(CheckpointError, match=r"not among the weights|not opened"):
            reader.parse(file.getvalue(), b"")


def test_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(MissingExtraError, match=r"pip install '\.\[keras\]'"):
        reader.parse(b"\x89HDF\r\n\x1a\n", b"")


def test_damaged_files_are_refused() -> None:
    model, weights, keys = keras_files.network()
    files = [hdf5(model, weights), keras_files.archive(model, keras_files.by_class(weights, keys))]
    rng = random_module.Random(3)
    ends = set()
    for _ in range(10):
        mutant = bytearray(rng.choice(files))
        for _ in range(rng.randrange(1, 30)):
            mutant[rng.randrange(8, 3000)] = rng.randrange(256)
        try:
            recognise(reader.from_bytes(bytes(mutant)))
        except BitInferError as error:
            ends.add(type(error).__name__)
    assert "CheckpointError" in ends


# --- Files of the framework itself ---------------------------------------------------------------

NETWORKS = {"larq": ("binarynet", "quicknet", "packed", "dilated"), "larq_old": ("tf284",)}


@pytest.mark.parametrize(
    ("folder", "name"), [(f, n) for f, names in NETWORKS.items() for n in names]
)
def test_samples_compute_what_keras_computed(shared: Path, folder: str, name: str) -> None:
    files = sorted((shared / "samples" / folder).glob(f"{name}.*"))
    files = [p for p in files if p.suffix in (".h5", ".keras")]
    assert files
    (whole, *_) = (p for p in files if p.name == f"{name}.h5")
    with h5py.File(whole) as file:
        network = str(file.attrs["model_config"]).encode()
    with np.load(whole.with_suffix(".npz")) as stored:
        x, wanted = stored["x"], stored["y"]
    bits = set()
    for path in files:
        options = Options(network=network if "weights" in path.name else None)
        model, report = convert(path, options=options)
        result = session.Session(model, "reference").run(x)
        np.testing.assert_allclose(result, wanted, atol=1e-4, rtol=0, err_msg=path.name)
        packed = [t.tobytes() for t in model.tensors.values() if t.dtype == np.uint64]
        bits.add(b"".join(packed))
        lost = [o.name for o in report.layers if o.half_binary and "depthwise" not in o.name]
        assert not lost, path.name
    assert len(bits) == 1


def test_sample_with_three_levels_is_refused_by_name(shared: Path) -> None:
    for suffix in (".h5", ".keras"):
        path = (shared / "samples" / "larq" / "lab").with_suffix(suffix)
        with pytest.raises(ConversionError, match="SteTern has three values"):
            convert(path)

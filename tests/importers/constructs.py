"""What each format's constructs become: the table of docs/importing.md, made by importing them.

``python tests/importers/constructs.py`` brings the page up to date;
test_importing_page.py compares.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import keras_files
import numpy as np
import onnx_files
import small_files
import tflite_files
from keras_files import layer, sequential
from onnx import TensorProto

from bitinfer.errors import CheckpointError, ConversionError
from bitinfer.importers.foreign import Foreign
from bitinfer.importers.readers import _onnx_walk, darknet, keras, mxnet, tflite
from bitinfer.importers.recognise import recognise

PAGE = Path(__file__).parents[2] / "docs" / "importing.md"
FORMATS = ("ONNX", "QONNX", "Larq", "LCE", "BMXNet v1", "darknet")
HEAD = "| construct | " + " | ".join(FORMATS) + " |\n" + "|---" * (len(FORMATS) + 1) + "|"
Build = Callable[[], Foreign]
bipolar, random = onnx_files.bipolar, onnx_files.random


# --- ONNX and QONNX ------------------------------------------------------------------------------


def onnx_sign(b: onnx_files.Builder, x: str, how: str) -> str:
    zero, one, minus = (b.constant(f"{how}{v}", np.float32(v)) for v in (0, 1, -1))
    match how:
        case ">=":
            return b.add("Where", b.add("GreaterOrEqual", x, zero), one, minus)
        case ">":
            return b.add("Where", b.add("Greater", x, zero), one, minus)
        case "bits":
            return b.add("Cast", b.add("Greater", x, zero), to=TensorProto.FLOAT)
        case "bipolar":
            return b.add("BipolarQuant", x, one, domain=onnx_files.QONNX)
    return b.add("Sign", x)


def onnx_conv(
    how: str = ">=", weight: Any = None, *, border: float | None = None, **attributes: Any
) -> Build:
    def build() -> Foreign:
        values = bipolar(4, 4, 3, 3) if weight is None else weight
        b = onnx_files.Builder(["n", 4 if attributes.get("group", 1) == 1 else 8, 6, 6])
        x = onnx_sign(b, "x", how)
        if border is not None:
            pads = b.constant("pads", np.array([0, 0, 1, 1, 0, 0, 1, 1]))
            x = b.add("Pad", x, pads, b.constant("border", np.float32(border)))
        w = b.constant("w", values)
        if how == "bipolar":
            w = b.add("BipolarQuant", w, b.constant("s", np.float32(0.1)), domain=onnx_files.QONNX)
        return _onnx_walk.read(b.model(b.add("Conv", x, w, **attributes)))

    return build


def onnx_dense(how: str = ">=") -> Build:
    def build() -> Foreign:
        b = onnx_files.Builder(["n", 32])
        x = onnx_sign(b, "x", how)
        return _onnx_walk.read(b.model(b.add("MatMul", x, b.constant("w", bipolar(32, 4)))))

    return build


def onnx_beta_map() -> Foreign:
    b = onnx_files.Builder(["n", 4, 6, 6])
    size = b.add("ReduceMean", b.add("Abs", "x"), b.constant("axes", np.array([1])), keepdims=1)
    box = b.constant("box", np.full((1, 1, 3, 3), 1 / 9))
    x = b.add("Conv", onnx_sign(b, "x", ">="), b.constant("w", bipolar(4, 4, 3, 3)))
    return _onnx_walk.read(b.model(b.add("Mul", x, b.add("Conv", size, box))))


def qonnx_agreements() -> Foreign:
    b = onnx_files.Builder(["n", 32])
    x = b.add("MultiThreshold", "x", b.constant("t", np.zeros((1, 1))), domain=onnx_files.QONNX)
    w = b.constant("w", (bipolar(32, 4) + 1) / 2)
    return _onnx_walk.read(b.model(b.add("XnorPopcountMatMul", x, w, domain=onnx_files.QONNX)))


def qonnx_quant(bits: float) -> Build:
    def build() -> Foreign:
        b = onnx_files.Builder(["n", 4, 6, 6])
        names = [b.constant(f"q{i}", np.float32(v)) for i, v in enumerate((2.0**-7, 0, bits))]
        x = b.add("Quant", "x", *names, domain=onnx_files.QONNX, signed=1, narrow=0)
        return _onnx_walk.read(b.model(b.add("Conv", x, b.constant("w", bipolar(4, 4, 3, 3)))))

    return build


# --- Larq and Larq Compute Engine ----------------------------------------------------------------

SIGNS = {"input_quantizer": "ste_sign", "kernel_quantizer": "ste_sign"}


def larq(kind: str = "QuantConv2D", *, channels: int = 4, **config: Any) -> Build:
    def build() -> Foreign:
        full: dict[str, Any] = {"use_bias": False, **SIGNS, **config}
        shape, weights = (6, 6, channels), {"kernel": random(3, 3, 4, 4)}
        if kind == "QuantDense":
            shape, weights = (32,), {"kernel": random(32, 4)}
            full["units"] = 4
        elif kind == "QuantDepthwiseConv2D":
            weights = {"depthwise_kernel": random(3, 3, channels, 1)}
            full |= {"kernel_size": 3, "depthwise_quantizer": full.pop("kernel_quantizer")}
        else:
            full |= {"kernel_size": 3, "filters": 4}
        model = sequential(shape, layer(kind, "c", **full))
        return keras.parse(keras_files.hdf5(model, {"c": weights}), b"")

    return build


def lce(*, channels: int = 40, per_group: int = 40, bits: bool = False, **custom: int) -> Build:
    def build() -> Foreign:
        b = tflite_files.Builder(6, 6, channels)
        x = b.add("LceQuantize", ["x"], (6, 6, -(-channels // 32)), kind=tflite_files.INT32)
        weight = tflite_files.bipolar(4, 3, 3, per_group)
        side = 6 if custom.get("padding") == 0 else 4
        side = 2 if custom.get("dilation_height_factor") == 2 else side
        limit = np.full(4, 9 * per_group // 2) if bits else None
        more = {"channels_in": channels, **custom}
        x = tflite_files.bconv(b, x, weight, (side, side, 4), threshold=limit, **more)
        return tflite.from_bytes(b.model(x))

    return build


def lce_dense() -> Foreign:
    return tflite.from_bytes(tflite_files.network())


# --- BMXNet and darknet --------------------------------------------------------------------------


def bmxnet(kind: str = "QConvolution", **attributes: str) -> Build:
    def build() -> Foreign:
        s = small_files.Symbol()
        own = (
            {"num_hidden": "4"}
            if kind == "QFullyConnected"
            else {"kernel": "(3, 3)", "num_filter": "4"}
        )
        s.add(kind, "c", "data", "c_weight", no_bias="True", **own, **attributes)
        weight = bipolar(4, 32) if kind == "QFullyConnected" else bipolar(4, 4, 3, 3)
        shape = (32,) if kind == "QFullyConnected" else (4, 6, 6)
        return mxnet.from_bytes(small_files.params({"c_weight": weight}), s.text(), shape)

    return build


def of_darknet(*, bit_path: bool = False) -> Build:
    def build() -> Foreign:
        data, cfg = small_files.darknet()
        before_dense = data[: -4 * (4 + 180)]
        return darknet.from_bytes(before_dense, cfg[: cfg.index(b"[maxpool]")], bit_path=bit_path)

    return build


two_valued = bipolar(4, 4, 3, 3) * np.float32(0.5) + np.float32(0.2)
ternary = np.where(np.abs(random(4, 4, 3, 3)) < 0.5, 0, bipolar(4, 4, 3, 3)).astype(np.float32)
per_filter = bipolar(4, 4, 3, 3) * np.abs(random(4, 1, 1, 1)) + 0

ROWS: Mapping[str, Mapping[str, Build]] = {
    "sign(0) = +1": {
        "ONNX": onnx_conv(),
        "QONNX": onnx_conv("bipolar", random(4, 4, 3, 3)),
        "Larq": larq(),
        "LCE": lce(),
        "BMXNet v1": bmxnet(),
    },
    "sign(0) = 0 (counted and reported)": {"ONNX": onnx_conv("Sign")},
    "sign(0) = -1": {"ONNX": onnx_conv(">"), "darknet": of_darknet()},
    "activations of 0 and 1": {
        "ONNX": onnx_conv("bits"),
        "Larq": larq(input_quantizer="ste_heaviside"),
    },
    "one alpha per filter": {
        "ONNX": onnx_conv(weight=per_filter),
        "Larq": larq(kernel_quantizer="magnitude_aware_sign"),
        "LCE": lce(),
        "darknet": of_darknet(),
    },
    "two values per filter": {"ONNX": onnx_conv(weight=two_valued)},
    "padding with 0": {
        "ONNX": onnx_conv(pads=[1, 1, 1, 1]),
        "Larq": larq(padding="same"),
        "LCE": lce(padding=0),
        "darknet": of_darknet(),
    },
    "padding with +1": {
        "ONNX": onnx_conv(border=1.0),
        "Larq": larq(padding="same", pad_values=1.0),
        "LCE": lce(padding=0, pad_values=1),
        "BMXNet v1": bmxnet(pad="(1, 1)"),
    },
    "padding with -1": {
        "ONNX": onnx_conv(border=-1.0),
        "Larq": larq(padding="same", pad_values=-1.0),
        "darknet": of_darknet(bit_path=True),
    },
    "padding with another number": {"ONNX": onnx_conv(border=0.3)},
    "dilation": {
        "ONNX": onnx_conv(dilations=[2, 2]),
        "Larq": larq(dilation_rate=[2, 2]),
        "LCE": lce(dilation_height_factor=2, dilation_width_factor=2),
        "BMXNet v1": bmxnet(dilate="(2, 2)"),
    },
    "groups": {
        "ONNX": onnx_conv(group=2),
        "Larq": larq(channels=8, groups=2),
        "LCE": lce(channels=64, per_group=32),
    },
    "depthwise": {"Larq": larq("QuantDepthwiseConv2D")},
    "dense": {
        "ONNX": onnx_dense(),
        "QONNX": onnx_dense("bipolar"),
        "Larq": larq("QuantDense"),
        "LCE": lce_dense,
        "BMXNet v1": bmxnet("QFullyConnected"),
    },
    "agreements instead of dot products": {"QONNX": qonnx_agreements, "BMXNet v1": bmxnet()},
    "bits between layers": {"LCE": lce(bits=True)},
    "beta map": {"ONNX": onnx_beta_map},
    "activations of 8 bits": {"QONNX": qonnx_quant(8)},
    "activations of 2 bits": {
        "QONNX": qonnx_quant(2),
        "Larq": larq(input_quantizer={"class_name": "DoReFa", "config": {"k_bit": 2}}),
        "BMXNet v1": bmxnet(act_bit="2"),
    },
    "ternary weights": {
        "ONNX": onnx_conv(weight=ternary),
        "Larq": larq(kernel_quantizer="ste_tern"),
    },
    "real weights behind a sign": {"ONNX": onnx_conv(weight=random(4, 4, 3, 3))},
}
"""By construct, how each format says it."""

BECAME = {"binary": "bits", "binary weights": "bits x numbers", "float": "float, said so"}


def cell(build: Build | None) -> str:
    """Import one construct, and say what its layer became."""
    if build is None:
        return ""
    try:
        found = recognise(build())
    except ConversionError:
        return "refused"
    except CheckpointError as error:
        raise AssertionError(f"a construct that cannot be read: {error}") from error
    *_, outcome = (o for o in found.layers if len(o.shape) > 1)
    return BECAME[outcome.became]


def table() -> str:
    """Return the table, from importing every construct."""
    lines = [HEAD]
    for name, builds in ROWS.items():
        cells = [cell(builds.get(format_)) for format_ in FORMATS]
        lines.append(f"| {name} | {' | '.join(cells)} |".replace("  ", " "))
    return "\n".join(lines)


def updated(page: str) -> str:
    """Return a page with the table as it is made now."""
    return re.sub(rf"{re.escape(HEAD)}\n(?:\|.*\n)*", lambda _: table() + "\n", page)


if __name__ == "__main__":
    text = updated(PAGE.read_text())
    if sys.argv[1:] == ["--print"]:
        print(table())
    else:
        PAGE.write_text(text)

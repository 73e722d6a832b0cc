"""A recognised network gives what PyTorch gives for the same weights."""

from __future__ import annotations

import numpy as np
import pytest
from foreign_writer import CONV, SIGN, Writer

from bitinfer import session
from bitinfer.importers.recognise import recognise
from bitinfer.model import Model

torch = pytest.importorskip("torch")
functional = torch.nn.functional


def test_block_with_every_common_part_agrees_with_torch() -> None:
    rng = np.random.default_rng(4)

    def real(*shape: int) -> np.ndarray:
        return rng.standard_normal(shape).astype(np.float32)

    first, second, dense = real(8, 3, 3, 3), real(8, 8, 3, 3), real(4, 8)
    alpha = np.abs(second).mean((1, 2, 3), keepdims=True)
    binary = np.sign(second) * alpha
    gamma, beta, mean, slope, bias = real(8), real(8), real(8), np.abs(real(8)) / 4, real(8)
    variance = np.abs(real(8)) + np.float32(0.5)

    w = Writer("NCHW")
    for name, value in {"w1": first, "w2": binary, "bias": bias, "wd": dense}.items():
        w.constant(name, value)
    conv = {**CONV, "axes": "OIHW", "pads": (1, 1, 1, 1)}
    w.add("conv1", "conv", "input", "w1", "bias", **{**conv, "strides": (2, 2)})
    parts = {"gamma": gamma, "beta": beta, "mean": mean, "variance": variance}
    names = [w.constant(name, value) for name, value in parts.items()]
    w.add("bn", "batch_norm", "conv1", *names, epsilon=1e-5)
    w.add("sign", "sign", "bn", **{**SIGN, "at_zero": 0})
    w.add("conv2", "conv", "sign", "w2", **conv)
    w.add("prelu", "prelu", "conv2", w.channels("slope", slope, 3))
    w.add("sum", "add", "prelu", "conv1")
    w.add("pool", "max_pool", "sum", kernel=(3, 3), strides=(2, 2), pads=(1, 1, 1, 1))
    w.add("clip", "clip", "pool", low=-1.5, high=2.0)
    w.add("mean_", "global_avg_pool", "clip")
    w.add("flat", "flatten", "mean_")
    w.add("out", "dense", "flat", "wd", axes="OI", counts="sums")
    found = recognise(w.finish((16, 16, 3), "out"))
    assert [o.became for o in found.layers if len(o.shape) > 1] == ["float", "binary", "float"]

    x = real(5, 16, 16, 3)
    t = {name: torch.from_numpy(value) for name, value in w.constants.items()}
    y = torch.from_numpy(np.ascontiguousarray(x.transpose(0, 3, 1, 2)))
    y = shortcut = functional.conv2d(y, t["w1"], t["bias"], 2, 1)
    y = functional.batch_norm(y, t["mean"], t["variance"], t["gamma"], t["beta"], eps=1e-5)
    y = functional.conv2d(torch.sign(y), t["w2"], padding=1)
    y = functional.prelu(y, t["slope"].reshape(-1)) + shortcut
    y = functional.max_pool2d(y, 3, 2, 1).clamp(-1.5, 2.0).mean((2, 3))
    wanted = functional.linear(y, t["wd"]).numpy()
    run = session.Session(Model(graph=found.graph, tensors=found.tensors), "reference").run
    np.testing.assert_allclose(run(x), wanted, rtol=1e-4, atol=1e-4)

"""The subjects of the benchmarks: networks, their rivals and layers compute what they say."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bitinfer import zoo
from bitinfer.graph import nodes
from bitinfer.model import Model
from bitinfer.session import Session

BENCH = Path(__file__).parents[1] / "bench"


@pytest.fixture(autouse=True)
def rig(monkeypatch: pytest.MonkeyPatch) -> None:
    if not BENCH.is_dir():
        pytest.skip("there are no benchmarks beside the tests")
    monkeypatch.syspath_prepend(str(BENCH))


@pytest.mark.parametrize(
    ("name", "convolutions", "widths"),
    [
        ("resnet8", 6, (16, 32, 64)),
        ("resnet20", 18, (16, 32, 64)),
        ("resnet20x2", 18, (32, 64, 128)),
        ("resnet20x4", 18, (64, 128, 256)),
    ],
)
def test_layouts(name: str, convolutions: int, widths: tuple[int, ...]) -> None:
    from rig import residual

    layout = residual.LAYOUTS[name]
    assert name.partition("x")[0] in layout.text.lower().replace("-", "")
    built = {
        kind: Model(*build(layout, zoo.RandomParameters(0)))
        for kind, build in (("binary", residual.binary), ("rival", residual.rival))
    }
    for kind, model in built.items():
        values = model.checked.values
        assert values[model.graph.outputs[0]].shape == (10,)
        layer = nodes.BinaryConv2d if kind == "binary" else nodes.Conv2d
        wide = [node for node in model.graph.nodes if isinstance(node, layer)]
        wide = [n for n in wide if n.name != "stem" and model.tensors[n.weight].shape[1] == 3]
        assert len(wide) == convolutions
        shapes = [values[node.name].shape for node in wide]
        per_stage = convolutions // 3
        sides = [side for side in (32, 16, 8) for _ in range(per_stage)]
        channels = [width for width in widths for _ in range(per_stage)]
        assert shapes == [(s, s, c) for s, c in zip(sides, channels, strict=True)]
        shortcuts = [n for n in model.graph.nodes if isinstance(n, nodes.Add)]
        assert len(shortcuts) == (convolutions if kind == "binary" else convolutions // 2)
        assert sum(isinstance(n, nodes.AvgPool2d) for n in model.graph.nodes) == 2
    assert any(isinstance(n, nodes.RPRelu) for n in built["binary"].graph.nodes)
    assert not any(isinstance(n, nodes.Sign) for n in built["rival"].graph.nodes)


def test_a_network_answers_and_depends_on_its_seed_alone() -> None:
    pytest.importorskip("onnx")
    from rig.networks import network, pixels

    (first, twin), (again, twin_again), (other, _) = (network("resnet8", s) for s in (0, 0, 1))
    x = pixels(first)[None]
    answers = [Session(m, "reference").run(x) for m in (first, again, other)]
    assert answers[0].shape == (1, 10)
    assert np.isfinite(answers[0]).all()
    assert (answers[0] == answers[1]).all()
    assert (answers[0] != answers[2]).any()
    assert twin.model == twin_again.model
    assert (twin.x == twin_again.x).all()


def test_the_rival_computes_in_float_and_int8_without_sympy(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    onnx: Any = pytest.importorskip("onnx")
    runtime: Any = pytest.importorskip("onnxruntime")
    from rig import network_engines
    from rig.networks import network

    monkeypatch.setitem(sys.modules, "sympy", None)
    _, twin = network("resnet8")
    operators = [node.op_type for node in onnx.load_from_string(twin.model).graph.node]
    assert operators.count("Conv") == 9  # the stem, six, and two in shortcuts
    assert operators.count("Add") == 3
    assert operators.count("Relu") == 7
    right, found = (
        runtime.InferenceSession(model, providers=["CPUExecutionProvider"]).run(None, {"x": twin.x})
        for model in (twin.model, network_engines.quantised(twin.model, twin.x.shape))
    )
    assert right[0].shape == (1, 10)
    error = np.max(np.abs(found[0] - right[0])) / np.std(right[0])
    assert 0 < error <= network_engines.INT8_TOLERANCE


def test_narrow_layers_are_all_of_them() -> None:
    from rig.layers import NARROW

    assert {(layer.channels, layer.size) for layer in NARROW} == {
        (c, size) for c in (8, 16, 24, 32, 48, 64, 96) for size in (4, 8, 16, 32, 56, 112)
    }
    assert all((n.out_size, n.outputs) == (n.size, n.channels) for n in NARROW)


def test_a_shortcut_and_rprelu_are_exact() -> None:
    from rig.layers import Layer, Problem

    problem = Problem(Layer("odd", 5, 6, 7, 3, 1))
    floats, signs = problem.expected_shortcut
    for at in np.ndindex(floats.shape):
        o = at[-1]
        y = problem.dot[at] * problem.alpha[o] + problem.bias[o] + problem.shortcut[at]
        y += problem.shift_in[o]
        y = (y * problem.slope[o] if y < 0 else y) + problem.shift_out[o]
        assert floats[at] == y == np.float32(y)
        assert signs[at] == (y < 0)
    assert 0 < signs.mean() < 1


@pytest.mark.parametrize("name", ["bitinfer", "bitinfer-bits", "bitinfer-shortcut"])
def test_our_engines_give_right_answers(name: str) -> None:
    from rig.engines import UnavailableError, build
    from rig.layers import Layer, Problem

    try:
        for layer in (Layer("n24x8", 24, 8, 24, 3, 1), Layer("s", 16, 9, 40, 3, 1, 2)):
            build(name, Problem(layer))  # which verifies it
        dense = Problem(Layer("d", 70, 1, 30, 0))
        if name == "bitinfer-shortcut":
            with pytest.raises(UnavailableError, match="no shortcuts"):
                build(name, dense)
        else:
            build(name, dense)
    except UnavailableError as error:
        pytest.skip(str(error))

"""A sign is what computes a sign, however it is written; what almost does is none."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from foreign_writer import SIGN, Writer, by_name, by_polynomial, by_sign_of_sign, by_where
from numpy.typing import NDArray

from bitinfer.importers import evaluate, signs
from bitinfer.importers.evaluate import fold_constants
from bitinfer.importers.foreign import ForeignNode
from bitinfer.importers.signs import find_signs, grid

Array = NDArray[Any]


def last(build: Any, shape: tuple[int, ...] = (4,)) -> ForeignNode:
    w = Writer()
    found = find_signs(fold_constants(w.finish(shape, build(w))))
    return found.nodes[-1]


def number(w: Writer, value: float) -> str:
    return w.constant(f"c{len(w.constants)}", np.float32(value))


def levels(node: ForeignNode) -> tuple[Any, ...]:
    return node.inputs[0], *(node.attributes[k] for k in ("at_zero", "low", "high"))


@pytest.mark.parametrize("at_zero", [-1, 0, 1])
def test_polynomial_of_the_gradient_is_left_out(at_zero: int) -> None:
    node = last(lambda w: by_polynomial(w, "s", "input", at_zero))
    assert (node.operation, levels(node)) == ("sign", ("input", at_zero, -1, 1))


@pytest.mark.parametrize("spelling", [by_name, by_where, by_sign_of_sign])
def test_spellings_of_one_sign(spelling: Any) -> None:
    assert levels(last(lambda w: spelling(w, "s", "input"))) == ("input", 1, -1, 1)


def test_strict_comparison_is_minus_one_at_zero() -> None:
    def build(w: Writer) -> str:
        above = w.add("gt", "greater", "input", number(w, 0))
        return w.add("s", "where", above, number(w, 1), number(w, -1))

    assert levels(last(build)) == ("input", -1, -1, 1)


def test_truth_as_a_number_has_the_levels_zero_and_one() -> None:
    def build(w: Writer) -> str:
        return w.add("s", "to_float", w.add("ge", "greater_or_equal", "input", number(w, 0)))

    assert levels(last(build)) == ("input", 1, 0, 1)


def test_scale_of_a_sign_becomes_its_levels() -> None:
    def build(w: Writer) -> str:
        return w.add("s", "multiply", w.add("inner", "sign", "input", **SIGN), number(w, -0.5))

    assert levels(last(build)) == ("input", 1, 0.5, -0.5)


def test_hardtanh_before_a_sign_is_left_out() -> None:
    def build(w: Writer) -> str:
        return w.add("s", "sign", w.add("tanh", "clip", "input", low=-1.0, high=1.0), **SIGN)

    assert levels(last(build))[0] == "input"


@pytest.mark.parametrize("shift", [1e-40, -1e-40, 0.3, -7.0])
def test_shift_before_a_sign_is_not_lost(shift: float) -> None:
    def build(w: Writer) -> str:
        return w.add("s", "sign", w.add("sum", "add", "input", number(w, shift)), **SIGN)

    assert levels(last(build))[0] == "sum"


@pytest.mark.parametrize(
    "build",
    [
        lambda w: w.add("s", "clip", "input", low=-1.0, high=1.0),
        lambda w: w.add("s", "tanh", "input"),
        lambda w: w.add("s", "relu", "input"),
        # Steep, but not a step.
        lambda w: w.add(
            "s", "clip", w.add("m", "multiply", "input", number(w, 1e30)), low=-1.0, high=1.0
        ),
        # Three levels, of which one is narrow: the grid has 0.35 and its like.
        lambda w: w.add(
            "s",
            "add",
            w.add("a", "sign", w.add("l", "add", "input", number(w, -0.25)), **SIGN),
            w.add("b", "sign", w.add("r", "add", "input", number(w, 0.25)), **SIGN),
        ),
        # Two values, but not on either side of 0.
        lambda w: w.add("s", "sign", w.add("a", "abs", "input"), **SIGN),
    ],
    ids=["clip", "tanh", "relu", "steep", "ternary", "constant"],
)
def test_what_is_no_sign_stays(build: Any) -> None:
    node = last(build)
    assert node.operation != "sign" or node.inputs[0] != "input"


def test_levels_that_differ_between_channels_are_no_sign() -> None:
    def build(w: Writer) -> str:
        x = w.add("inner", "sign", "input", **SIGN)
        return w.add("s", "multiply", x, w.constant("c", np.array([1, 2, 1, 1], np.float32)))

    assert last(build).operation == "multiply"


def test_grid_shows_zero_and_the_neighbours_of_one() -> None:
    x = grid()
    assert np.count_nonzero(x == 0) == 2
    assert np.signbit(x[x == 0]).tolist() == [True, False]
    assert np.array_equal(x, np.sort(x))
    for value in (1, np.nextafter(np.float32(1), np.float32(0)), np.float32(1.4e-45)):
        assert value in x
        assert -value in x


def test_nodes_that_nothing_reads_any_more_are_gone() -> None:
    w = Writer()
    by_polynomial(w, "s", "input")
    found = find_signs(fold_constants(w.finish((4,), "s")))
    assert [n.operation for n in found.nodes] == ["sign"]


def test_constants_that_are_spread_over_a_map_are_not_probed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """torch's exporters write ReactNet's learnable bias with a number for every pixel."""
    w = Writer()
    bias = np.broadcast_to(np.float32(0.5), (1, 64, 112, 112))
    x = w.add("sum", "add", "input", w.constant("bias", bias))
    by_where(w, "sign", x)
    largest, compute = 0, evaluate.evaluate

    def watched(operation: str, attributes: Any, inputs: Any) -> Any:
        nonlocal largest
        result = compute(operation, attributes, inputs)
        largest = max(largest, result.size)
        return result

    monkeypatch.setattr(signs, "evaluate", watched)
    found = signs.find_signs(w.finish((112, 112, 64), "sign"))
    assert [n.operation for n in found.nodes] == ["add", "sign"]
    assert 0 < largest <= 1 << 23

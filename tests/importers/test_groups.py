"""A split, a convolution of each part and a join are one grouped convolution."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
from foreign_writer import CONV, Writer
from test_recognise import LAYOUTS, kinds, random, run

from bitinfer.importers.foreign import Foreign, Layout
from bitinfer.importers.groups import join_groups
from bitinfer.importers.recognise import recognise
from bitinfer.importers.simulate import simulate


def network(
    layout: Layout,
    *,
    order: tuple[int, ...] = (0, 1, 2),
    channels: int = 6,
    each: int = 2,
    bias: bool = True,
    second: bool = False,
    **of_last: Any,
) -> Foreign:
    """Three convolutions of 3x3, of two channels each, between ReLUs."""
    w = Writer(layout)
    axis = 0 if layout == "NCHW" else -1
    x = w.add("before", "relu", "input")
    made = []
    for i in range(3):
        part = w.add(f"s{i}", "slice", x, axis=axis, begin=each * i, end=each * (i + 1))
        weight, axes = w.weight(f"w{i}", random((5, 3, 3, each), i))
        more = (w.constant(f"b{i}", random((5,), 9 + i)),) if bias else ()
        attributes = {**CONV, "pads": (1, 1, 1, 1), **(of_last if i == 2 else {})}
        made.append(w.add(f"c{i}", "conv", part, weight, *more, axes=axes, **attributes))
    joined = w.add("join", "concat", *(made[i] for i in order), axis=axis)
    after = w.add("after", "relu", joined)
    return w.finish((4, 4, channels), after, *(["c1"] if second else []))


def operations(source: Foreign) -> list[str]:
    return [node.operation for node in source.nodes]


@LAYOUTS
@pytest.mark.parametrize("bias", [False, True])
def test_parts_become_one_layer_with_groups(layout: Layout, bias: bool) -> None:
    source = network(layout, bias=bias)
    joined = join_groups(source)
    assert operations(joined) == ["relu", "conv", "relu"]
    x = np.asarray(random((2, 4, 4, 6), 7))
    theirs = x.transpose(0, 3, 1, 2) if layout == "NCHW" else x
    wanted = simulate(source, theirs)["after"]
    assert np.array_equal(simulate(joined, theirs)["after"], wanted)
    found = recognise(source)
    assert kinds(found).count("conv2d") == 1
    assert "slice" not in kinds(found)
    result = wanted.transpose(0, 2, 3, 1) if layout == "NCHW" else wanted
    np.testing.assert_allclose(run(found, x), result, atol=1e-5)


@pytest.mark.parametrize(
    "source",
    [
        network("NCHW", order=(1, 0, 2)),
        network("NCHW", order=(0, 1)),
        network("NCHW", channels=8),
        network("NCHW", second=True),
        network("NCHW", pads=(0, 2, 1, 1)),
        network("NCHW", groups=2),
    ],
    ids=["order", "not all", "more channels", "read twice", "pads", "groups"],
)
def test_what_is_none_stays(source: Foreign) -> None:
    assert join_groups(source) is source


def test_a_slice_that_others_read_stays() -> None:
    source = network("NHWC")
    source = dataclasses.replace(source, outputs=("after", "s1"))
    joined = join_groups(source)
    assert operations(joined) == ["relu", "slice", "conv", "relu"]
    x = random((1, 4, 4, 6), 3)
    for name in joined.outputs:
        assert np.array_equal(simulate(joined, x)[name], simulate(source, x)[name])

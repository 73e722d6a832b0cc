"""Binary convolution on every backend and instruction set: equal to the ±1 convolution, always."""

from __future__ import annotations

import dataclasses
import functools
import itertools
from collections.abc import Iterator

import hypothesis
import numpy as np
import pytest

from bitinfer.backends import Backend, select
from bitinfer.graph import GraphBuilder
from harness import BinaryConv, known_backends, run_graph
from sizes import CHANNELS, OUTPUTS, simd_sizes
from strategies import binary_convs

KERNELS = ((1, 1), (3, 3), (5, 5), (7, 7), (2, 3), (4, 1))
STRIDES = ((1, 1), (2, 2), (3, 1))
DILATIONS = ((1, 1), (2, 2), (1, 3))
PADDINGS = ((0, 0, 0, 0), (1, 1, 1, 1), (3, 0, 1, 2), (4, 5, 6, 4))
"""None, the common one, asymmetric, and so wide that some windows lie outside the map."""

exact = functools.lru_cache(maxsize=None)(BinaryConv.dot)
"""The oracle's answer, worked out once for all backends."""


def check(layers: Iterator[BinaryConv], backend: Backend) -> None:
    checked = 0
    for layer in layers:
        if layer.fits:
            layer.check(backend, exact(layer))
            checked += 1
    assert checked > 0


def check_everywhere(layer: BinaryConv) -> None:
    dot = layer.dot()
    for name, reason in known_backends():
        if not reason:
            layer.check(select(name), dot)


def windows(layer: BinaryConv, keep: int = 1, of: int = 1) -> Iterator[BinaryConv]:
    """Yield ``layer`` with all windows, or with every ``of``-th of them from the ``keep``-th on."""
    grid = itertools.product(KERNELS, STRIDES, DILATIONS, PADDINGS, (0, 1, -1))
    useful = [w for w in grid if any(w[3]) or w[4] == 0]
    for kernel, stride, dilation, padding, pad_value in useful[keep % of :: of]:
        yield dataclasses.replace(
            layer,
            kernel=kernel,
            stride=stride,
            dilation=dilation,
            padding=padding,
            pad_value=pad_value,
        )


@pytest.mark.parametrize("channels", CHANNELS)
def test_any_window_is_exact(backend: Backend, channels: int) -> None:
    layer = BinaryConv((6, 5), channels, 9)
    few = {3: 1, 65: 2, 500: 12}.get(channels, 5)
    check(windows(layer, keep=channels, of=few), backend)


@pytest.mark.long
def test_any_window_over_any_map_is_exact(backend: Backend) -> None:
    for channels, extent in itertools.product(CHANNELS, ((1, 1), (2, 7), (13, 12))):
        for layer in windows(BinaryConv(extent, channels, 17)):
            if layer.fits:
                layer.check(backend)


@pytest.mark.parametrize("outputs", OUTPUTS)
def test_any_number_of_outputs_is_exact(backend: Backend, outputs: int) -> None:
    grid = itertools.product((1, 64, 129), (0, -1))
    layers = (
        BinaryConv((4, 5), channels, outputs, padding=(1, 1, 1, 1), pad_value=pad_value, bias=True)
        for channels, pad_value in grid
    )
    check(layers, backend)


def test_every_channel_count_up_to_130_is_exact(backend: Backend) -> None:
    layers = (
        BinaryConv((3, 3), channels, 5, (2, 2), padding=(1, 0, 0, 1), pad_value=channels % 3 - 1)
        for channels in range(1, 131)
    )
    check(layers, backend)


@pytest.mark.parametrize(
    ("groups", "channels", "outputs"),
    [
        (2, 1, 1),
        (3, 2, 5),
        (5, 1, 3),
        (2, 20, 4),
        (2, 32, 7),
        (2, 63, 3),
        (3, 64, 2),
        (2, 65, 4),
        (3, 96, 2),
        (2, 127, 1),
        (4, 128, 17),
        (2, 129, 16),
        (65, 1, 2),
        (33, 3, 1),
    ],
    ids=lambda v: str(v),
)
def test_groups_of_any_size_are_exact(
    backend: Backend, groups: int, channels: int, outputs: int
) -> None:
    layer = BinaryConv((5, 4), groups * channels, groups * outputs, groups=groups)
    check(windows(layer, keep=groups * channels, of=25), backend)


@pytest.mark.parametrize("groups", [1, 3])
@pytest.mark.parametrize("stride", STRIDES)
def test_alpha_beta_map_and_bias_are_applied_in_order_and_rounded_alike(
    backend: Backend, stride: tuple[int, int], groups: int
) -> None:
    layers = (
        BinaryConv(
            (6, 7),
            60,
            18,
            stride=stride,
            padding=(1, 0, 2, 1),
            groups=groups,
            alpha=alpha,
            bias=bias,
            beta=beta,
            pad_value=pad_value,
        )
        for alpha, bias, beta, pad_value in itertools.product(*[(False, True)] * 3, (0, 1))
    )
    check(layers, backend)


@pytest.mark.parametrize("extent", [(1, 1), (1, 9), (9, 1), (2, 2)], ids=str)
def test_maps_of_a_pixel_or_a_line_are_exact(backend: Backend, extent: tuple[int, int]) -> None:
    for kernel in ((1, 1), (3, 3), (1, 5), (5, 1)):
        padding = (kernel[0] // 2,) * 2 + (kernel[1] // 2,) * 2
        layers = (
            BinaryConv(extent, 70, 6, kernel, padding=padding, pad_value=v) for v in (0, 1, -1)
        )
        check(layers, backend)


@pytest.mark.parametrize("fill", ["opposite", "equal", "negative"])
@pytest.mark.parametrize("channels", [*CHANNELS, 31 * 64, 32 * 64, 33 * 64])
def test_the_greatest_and_least_sums_are_exact(backend: Backend, fill: str, channels: int) -> None:
    for kernel in ((1, 1), (3, 3)):
        layers = (
            BinaryConv((3, 3), channels, 5, kernel, padding=padding, fill=fill, pad_value=pad_value)
            for padding, pad_value in (((0, 0, 0, 0), 0), ((1, 0, 0, 1), 1), ((1, 1, 1, 1), -1))
        )
        check(layers, backend)


@pytest.mark.parametrize("words", [30, 31, 32, 61, 62, 63, 93, 94])
def test_counts_wider_than_a_byte_are_exact(backend: Backend, words: int) -> None:
    """A kernel that counts in bytes must empty them: 32 words of mismatches make 256."""
    wide = BinaryConv((1, words), 64, 3, (1, words), fill="opposite")
    many = BinaryConv((words, 1), 64, 3, (words, 1), fill="opposite")
    deep = BinaryConv((1, 1), 64 * words, 3, (1, 1), fill="opposite")
    apart = BinaryConv((1, 2 * words), 64, 3, (1, words), dilation=(1, 2), fill="opposite")
    check(iter((wide, many, deep, apart)), backend)


def test_signs_of_zeros_and_nan_are_plus_one_in_a_layer(backend: Backend) -> None:
    values = np.array([0.0, -0.0, np.nan, -np.nan, 1.0, -1.0, -1e-45, -np.inf], np.float32)
    b = GraphBuilder("g", (1, 1, 8))
    b.bconv2d(b.sign(b.input), np.eye(8).reshape(8, 1, 1, 8) * -2 + 1, name="y")
    got = run_graph(backend, *b.build("y"), values.reshape(1, 1, 1, 8))["y"]
    minus = np.isin(np.arange(8), (5, 6, 7))
    signs = np.where(minus, -1, 1)
    assert np.array_equal(got.ravel(), signs.sum() - 2 * signs)


@hypothesis.settings(max_examples=120)
@hypothesis.given(binary_convs())
def test_drawn_layers_are_exact(layer: BinaryConv) -> None:
    check_everywhere(layer)


@pytest.mark.long
def test_any_channel_count_with_any_window_is_exact(backend: Backend) -> None:
    for channels in simd_sizes(400):
        layer = BinaryConv((7, 6), channels, 33)
        for window in windows(layer, keep=channels, of=3):
            if window.fits:
                window.check(backend)


@pytest.mark.long
@pytest.mark.parametrize("part", range(20))
def test_a_hundred_thousand_drawn_layers_are_exact(part: int) -> None:
    @hypothesis.seed(part)
    @hypothesis.settings(max_examples=5_000, database=None)
    @hypothesis.given(binary_convs())
    def every_layer_is_exact(layer: BinaryConv) -> None:
        check_everywhere(layer)

    every_layer_is_exact()

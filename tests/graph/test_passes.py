"""graph/passes: every rewrite keeps the results; what it makes is what it says."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

import hypothesis
import numpy as np
import pytest
from numpy.typing import NDArray

from bitinfer import zoo
from bitinfer.backends import select
from bitinfer.errors import UnknownNameError
from bitinfer.graph import Graph, GraphBuilder, check, nodes, passes
from bitinfer.plan import lower
from graph_examples import Numbers
from strategies import networks

Array = NDArray[Any]
Tensors = dict[str, Array]
EVERY = [function.__name__ for function in passes.PASSES]


def run(graph: Graph, tensors: Any, x: Array) -> list[Array]:
    plan = lower(check(graph, tensors))
    results = [np.full((1, *plan.buffers[b].shape), np.nan, np.float32) for b in plan.outputs]
    select("reference").bind(plan).run(np.ascontiguousarray(x[None], np.float32), results)
    return [result[0] for result in results]


def optimise(graph: Graph, tensors: Any, skip: Collection[str] = ()) -> tuple[Graph, Tensors]:
    after = passes.optimise(check(graph, tensors), skip)
    return after.graph, after.tensors


def only(name: str, graph: Graph, tensors: Any) -> tuple[Graph, Tensors]:
    return optimise(graph, tensors, skip=[n for n in EVERY if n != name])


def operations(graph: Graph) -> list[str]:
    return [node.operation for node in graph.nodes]


def assert_same(graph: Graph, tensors: Any, other: tuple[Graph, Any], x: Array) -> None:
    check(*other)
    for wanted, got in zip(run(graph, tensors, x), run(*other, x), strict=True):
        assert np.allclose(got, wanted, rtol=2e-5, atol=2e-5), np.abs(got - wanted).max()


def norm(b: GraphBuilder, r: Numbers, x: str, channels: int, *, gamma: Any = None) -> str:
    """Add a BatchNorm with gammas of both signs, and one of 0."""
    gamma = r(channels) if gamma is None else gamma
    gamma[channels // 2] = 0
    return b.batch_norm(x, r(channels), r(channels) ** 2 + 0.1, gamma, r(channels))


EXACT = ["drop_identities", "fold_padding", "sign_before_flatten", "max_pool_after_sign"]
EXACT += ["fold_signs", "fuse_activation", "fuse_signs"]


@pytest.mark.parametrize("name", EXACT)
@hypothesis.given(drawn=networks())
def test_a_pass_keeps_every_bit_of_any_network(name: str, drawn: tuple[Graph, Tensors]) -> None:
    after = only(name, *drawn)
    x = np.random.default_rng(0).standard_normal(drawn[0].input.shape)
    for wanted, got in zip(run(*drawn, x), run(*after, x), strict=True):
        assert np.array_equal(got, wanted, equal_nan=True)


@pytest.mark.parametrize("name", ["fold_batch_norm", "fuse_residual", "all of them"])
@hypothesis.given(drawn=networks())
def test_a_pass_that_rounds_anew_keeps_the_results_of_any_network(
    name: str, drawn: tuple[Graph, Tensors]
) -> None:
    graph, tensors = drawn
    after = optimise(graph, tensors) if " " in name else only(name, graph, tensors)
    check(*after)
    x = np.random.default_rng(0).standard_normal(graph.input.shape)
    # Behind a sign that was nearly a tie, results may differ by any amount: the last float layer
    # before one is compared, and the rest only where all signs agree.
    for wanted, got in zip(run(graph, tensors, x), run(*after, x), strict=True):
        scale = np.abs(wanted).max() + 1
        close = np.abs(got - wanted) <= 1e-4 * scale
        assert close.mean() > 0.5 or "sign" in operations(graph)


@pytest.mark.parametrize("name", ["xnor-lenet5", "xnor-nin"])
def test_a_pass_is_pure_and_leaves_what_it_was_given(name: str) -> None:
    graph, tensors = zoo.build(name, zoo.RandomParameters(1))
    kept = {key: tensor.copy() for key, tensor in tensors.items()}
    first, second = (optimise(graph, tensors) for _ in range(2))
    assert first[0] == second[0]
    assert first[1].keys() == second[1].keys()
    assert all(np.array_equal(tensors[key], kept[key]) for key in kept)


CHAINS: dict[str, Callable[[GraphBuilder, Numbers, str, int], str]] = {
    "norm": lambda b, r, x, c: norm(b, r, x, c),
    "relu, norm": lambda b, r, x, c: norm(b, r, b.relu(x), c),
    "norm, clip": lambda b, r, x, c: b.clip(norm(b, r, x, c), -1, 1),
    "prelu, norm": lambda b, r, x, c: norm(b, r, b.prelu(x, np.abs(r(c))), c),
    "norm, rprelu": lambda b, r, x, c: b.rprelu(norm(b, r, x, c), r(c), np.abs(r(c)), r(c)),
    "sigmoid, norm": lambda b, r, x, c: norm(b, r, b.sigmoid(x), c),
    "nothing": lambda b, r, x, c: x,
}


def comparison(chain: str, seed: int, *, of_layer: bool) -> tuple[Graph, Tensors]:
    """Return the signs behind a chain behind a binary layer, or behind floats in its sums' place.

    The signs come out as numbers, through a last layer whose weights are all -1 but its diagonal.
    """
    r, k, c = Numbers(seed), 70, 40
    b = GraphBuilder("g", (k if of_layer else c,))
    alpha, bias, weight = r(c) / 8, r(c) / 4, r(c, k)
    if of_layer:
        y = b.bdense(b.sign(b.input), weight, alpha=alpha, bias=bias)
    else:
        y = b.batch_norm(b.input, np.zeros(c), np.ones(c), alpha, bias, epsilon=0)
    y = b.sign(CHAINS[chain](b, r, y, c), threshold=r(c) / 4)
    return b.build(b.bdense(y, 2 * np.eye(c) - 1))


@pytest.mark.parametrize("chain", CHAINS)
@pytest.mark.parametrize("seed", range(3))
def test_an_integer_threshold_decides_every_sum_as_the_chain_does(chain: str, seed: int) -> None:
    after, made = only("fold_signs", *comparison(chain, seed, of_layer=True))
    assert operations(after) == ["sign", "bdense", "bdense"]
    layer = after.nodes[1]
    assert isinstance(layer, nodes.BinaryDense)
    assert layer.epilogue is not None
    assert layer.epilogue.threshold is not None
    threshold = made[layer.epilogue.threshold]
    flip = np.zeros(40) if layer.epilogue.flip is None else made[layer.epilogue.flip]
    on_floats = comparison(chain, seed, of_layer=False)
    for d in range(-70, 71):
        signs = np.where((d < threshold) != flip, -1, 1)
        wanted = run(*on_floats, np.full(40, d))[0]
        assert np.array_equal(wanted, (2 * np.eye(40) - 1) @ signs), d


@pytest.mark.parametrize("chain", [name for name in CHAINS if name != "nothing"])
def test_a_float_threshold_decides_as_the_chain_does(chain: str) -> None:
    graph, tensors = comparison(chain, 5, of_layer=False)
    after = only("fold_signs", graph, tensors)
    assert operations(after[0]) == ["sign", "bdense"]
    threshold = after[1][after[0].nodes[0].threshold]  # type: ignore[union-attr, index]
    near = np.where(np.isfinite(threshold), threshold, 0)
    values = [near, np.nextafter(near, np.float32(-9)), np.nextafter(near, np.float32(9))]
    values += [np.full(40, v) for v in (0.0, -0.0, 1e-45, -1e-45, 3e38, -3e38, 1.0, -1.0)]
    rng = np.random.default_rng(2)
    values += list(rng.standard_normal((50, 40)) * 10.0 ** rng.integers(-4, 4, (50, 1)))
    for x in values:
        assert np.array_equal(run(graph, tensors, x)[0], run(*after, x)[0])


def test_a_maximum_is_taken_of_bits_and_its_minimum_where_the_chain_falls() -> None:
    r = Numbers(7)
    b = GraphBuilder("g", (9, 8, 40))
    x = b.bconv2d(b.sign(b.input), r(70, 3, 3, 40), alpha=r(70) / 8, bias=r(70))
    x = b.max_pool2d(x, 3, 2, padding=1)
    x = b.sign(b.clip(norm(b, r, b.relu(x), 70), -1, 1))
    graph, tensors = b.build(b.bconv2d(x, r(9, 2, 2, 70)))
    after = optimise(graph, tensors)
    assert operations(after[0]) == ["sign", "bconv2d", "max_pool2d", "bconv2d"]
    pool = after[0].nodes[2]
    assert isinstance(pool, nodes.MaxPool2d)
    assert 0 < after[1][pool.minimum].sum() < 70  # type: ignore[index]
    for seed in range(5):
        image = np.random.default_rng(seed).standard_normal((9, 8, 40))
        assert np.array_equal(run(graph, tensors, image)[0], run(*after, image)[0])


@pytest.mark.parametrize(
    ("channels", "order"), [(1, ["flatten", "sign"]), (2, ["sign", "flatten"])]
)
def test_signs_are_taken_before_a_map_is_flattened_but_of_one_channel(
    channels: int, order: list[str]
) -> None:
    b = GraphBuilder("g", (3, 4, channels))
    signs = b.sign(b.flatten(b.input, "channels_first"))
    weight = Numbers(0)(5, 12 * channels)
    graph, tensors = b.build(b.bdense(signs, weight))
    found = only("sign_before_flatten", graph, tensors)
    assert operations(found[0])[:2] == order
    assert_same(graph, tensors, found, Numbers(1)(3, 4, channels).astype(np.float32))


def test_pools_in_a_row_all_become_pools_of_bits() -> None:
    r = Numbers(8)
    b = GraphBuilder("g", (9, 9, 8))
    x = b.max_pool2d(b.max_pool2d(b.conv2d(b.input, r(70, 1, 1, 8)), 2), 2)
    graph, tensors = b.build(b.bconv2d(b.sign(norm(b, r, x, 70)), r(3, 2, 2, 70)))
    after = optimise(graph, tensors)
    assert operations(after[0]) == ["conv2d", "max_pool2d", "max_pool2d", "bconv2d"]
    image = np.random.default_rng(0).standard_normal((9, 9, 8))
    assert np.array_equal(run(graph, tensors, image)[0], run(*after, image)[0])


def residual_block(*, relu: bool = False, downsample: bool = False) -> tuple[Graph, Tensors]:
    """Return two blocks as Bi-Real-Net has them (or QuickNet, with ReLU before the norm)."""
    r = Numbers(9)
    b = GraphBuilder("g", (8, 8, 24))
    x = b.input
    for cout in (24, 40 if downsample else 24):
        stride = 2 if downsample and cout == 40 else 1
        signs = b.sign(x, threshold=r(24) / 8)
        y = b.bconv2d(
            signs, r(cout, 3, 3, 24), alpha=np.abs(r(cout)) + 0.1, stride=stride, padding=1
        )
        y = norm(b, r, b.relu(y) if relu else y, cout)
        shortcut = x
        if stride == 2:
            shortcut = norm(b, r, b.conv2d(b.avg_pool2d(x, 2), r(40, 1, 1, 24)), 40)
        x = b.prelu(b.add(shortcut, y), r(cout))
    return b.build(b.global_pool2d(x))


@pytest.mark.parametrize("relu", [False, True])
def test_a_residual_block_becomes_one_layer(relu: bool) -> None:
    graph, tensors = residual_block(relu=relu)
    after = optimise(graph, tensors)
    assert operations(after[0]) == ["sign", "bconv2d", "bconv2d", "global_pool2d"]
    first = after[0].nodes[1]
    assert isinstance(first, nodes.BinaryConv2d)
    assert first.epilogue is not None
    assert first.epilogue.residual == graph.input.name
    assert first.epilogue.signs is not None
    assert (first.epilogue.floor is not None) == relu
    x = np.random.default_rng(3).standard_normal((8, 8, 24))
    assert_same(graph, tensors, after, x)


def test_of_two_layers_that_are_added_the_binary_one_takes_the_sum() -> None:
    graph, tensors = residual_block(downsample=True)
    after = optimise(graph, tensors)
    kinds = ["sign", "bconv2d", "avg_pool2d", "conv2d", "bconv2d", "global_pool2d"]
    assert sorted(operations(after[0])) == sorted(kinds)
    x = np.random.default_rng(3).standard_normal((8, 8, 24))
    assert_same(graph, tensors, after, x)


def test_a_relu_behind_a_negative_scale_is_not_turned_into_a_smallest_sum() -> None:
    r = Numbers(4)
    b = GraphBuilder("g", (50,))
    y = b.bdense(b.sign(b.input), r(6, 50), alpha=np.array([1, 1, -1, 1, 1, 1]))
    graph, tensors = b.build(norm(b, r, b.relu(y), 6))
    after = optimise(graph, tensors)
    assert operations(after[0]) == ["sign", "bdense", "batch_norm"]
    assert_same(graph, tensors, after, r(50))


@pytest.mark.parametrize("is_read", [False, True])
def test_layers_that_are_joined_take_their_part_of_an_activation(*, is_read: bool) -> None:
    r = Numbers(0)
    b = GraphBuilder("g", (3, 4, 8))
    signs = b.sign(b.input)
    first = b.add(b.bconv2d(signs, r(8, 1, 1, 8), alpha=r(8), name="first"), b.input)
    second = b.conv2d(b.input, r(5, 1, 1, 8), name="second")
    joined = b.concat(first, second)
    ends = [b.rprelu(joined, r(13), abs(r(13)), r(13), name="act")]
    graph, tensors = b.build(*ends, *([second] if is_read else []))
    x = r(3, 4, 8).astype(np.float32)
    checked = passes.optimise(check(graph, tensors))
    assert_same(graph, tensors, (checked.graph, checked.tensors), x)
    found = operations(checked.graph)
    assert ("rprelu" in found) == is_read
    made = {node.name: node for node in checked.graph.nodes}
    if not is_read:
        layer = made["first"]
        assert isinstance(layer, nodes.BinaryConv2d)
        assert layer.epilogue is not None
        assert layer.epilogue.activation is not None
        slope = checked.tensors[layer.epilogue.activation.slope]
        assert np.array_equal(slope, tensors["act.slope"][:8])
        # What the layers hand out is no value that was imported; what is joined is.
        assert set(checked.lineage.same_as) >= {"act"}
        assert not set(checked.lineage.same_as) & {"first", "second"}


def test_what_others_read_or_the_graph_hands_out_is_left_alone() -> None:
    r = Numbers(3)
    b = GraphBuilder("g", (5, 5, 7))
    x = b.conv2d(b.input, r(9, 1, 1, 7), name="conv")
    y = b.relu(norm(b, r, x, 9), name="relu")
    z = b.bconv2d(b.sign(y), r(4, 1, 1, 9), name="last")
    graph, tensors = b.build(z, x, y)
    after = optimise(graph, tensors)
    assert after[0].outputs == ("last", "conv", "relu")
    image = r(5, 5, 7)
    for wanted, got in zip(run(graph, tensors, image), run(*after, image), strict=True):
        assert np.array_equal(wanted, got)


def test_identities_go_and_dead_nodes_with_them() -> None:
    b = GraphBuilder("g", (4, 4, 6))
    x = b.relu(b.relu(b.input))
    x = b.concat(b.pad2d(b.max_pool2d(b.avg_pool2d(x, 1), 1), 0))
    b.sigmoid(x)
    x = b.reshape(b.reshape(x, (4, 4, 6)), (96,))
    graph, tensors = b.build(b.softmax(b.flatten(x, "channels_first")))
    after, _ = optimise(graph, tensors)
    assert operations(after) == ["relu", "reshape", "softmax"]


def test_padding_goes_into_the_convolution_that_may_have_it() -> None:
    r = Numbers(2)
    b = GraphBuilder("g", (5, 6, 7))
    x = b.conv2d(b.pad2d(b.input, (1, 0, 2, 1)), r(8, 3, 3, 7), padding=1)
    x = b.bconv2d(b.pad2d(b.sign(x), 1, 1), r(9, 3, 3, 8))
    x = b.bconv2d(b.pad2d(b.sign(x), 1, -1), r(9, 3, 3, 9), padding=1, pad_value=1)
    graph, tensors = b.build(x)
    after = only("fold_padding", graph, tensors)
    assert operations(after[0]) == [
        "conv2d", "sign", "bconv2d", "sign", "pad2d", "bconv2d"
    ]  # fmt: skip
    image = r(5, 6, 7)
    assert np.array_equal(run(graph, tensors, image)[0], run(*after, image)[0])


def test_nin_keeps_to_bits_but_around_its_average_pool() -> None:
    graph, tensors = zoo.build("xnor-nin", zoo.RandomParameters(0))
    after = optimise(graph, tensors)
    values = check(*after).values
    floats = [n for n in after[0].nodes if values[n.name].kind == "float"]
    between = [n.name for n in floats if n.name not in after[0].outputs]
    assert between == ["xnor.8.conv", "avg_pool2d_0", "xnor.11.conv", "xnor.13", "avg_pool2d_1"]
    x = np.random.default_rng(0).standard_normal((32, 32, 3))
    assert_same(graph, tensors, after, x)


def test_every_pass_can_be_left_out_and_an_unknown_one_is_named() -> None:
    graph, tensors = zoo.build("xnor-lenet5", zoo.RandomParameters(0))
    assert optimise(graph, tensors, skip=["all"])[0] == graph
    whole = optimise(graph, tensors)[0]
    assert all(
        optimise(graph, tensors, skip=[name])[0] != whole
        for name in ("max_pool_after_sign", "fold_signs", "fuse_activation", "fuse_signs")
    )
    with pytest.raises(UnknownNameError, match="'fold_sign'; did you mean 'fold_signs'"):
        optimise(graph, tensors, skip=["fold_sign"])

"""graph/checked.py through the passes: what a draft infers is what a check finds; the lineage."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any

import hypothesis
import numpy as np
import pytest
from numpy.typing import NDArray

import bitinfer.model
from bitinfer import modelfile, zoo
from bitinfer.errors import ShapeError
from bitinfer.graph import CheckedGraph, Graph, GraphBuilder, check, checked, checks, nodes, passes
from bitinfer.graph.nodes import node_values
from bitinfer.graph.passes.draft import Draft
from bitinfer.model import Model
from bitinfer.session import Session
from graph_examples import Numbers, every_node, only_integers, only_windows
from strategies import networks

EXAMPLES = {"every node": every_node, "windows": only_windows, "integers": only_integers}


@functools.cache
def imported(name: str) -> CheckedGraph:
    if name in EXAMPLES:
        return check(*EXAMPLES[name]())
    return check(*zoo.build(name, zoo.RandomParameters(0)))


def after_each_pass(graph: CheckedGraph) -> Iterator[tuple[str, CheckedGraph]]:
    """Yield what every pass makes, after a full check of it."""
    for function in passes.PASSES:
        graph = function(graph)
        assert_checked(graph)
        yield function.__name__, graph


def assert_checked(graph: CheckedGraph) -> None:
    """Check all of a graph anew, and compare."""
    again = check(graph.graph, graph.tensors)
    assert graph.values == again.values
    assert graph.lineage.keys() == again.lineage.keys()


def assert_lineage(before: CheckedGraph, after: CheckedGraph) -> None:
    """Every imported node is stood for once, in its order, or was dropped."""
    places = {node.name: place for place, node in enumerate(before.graph.nodes)}
    found = list(after.dropped)
    for node in after.graph.nodes:
        for value in node_values(node):
            chain = after.lineage[value]
            assert chain
            assert list(chain) == sorted(chain, key=places.__getitem__), value
            found += chain
    assert sorted(found) == sorted(places)


@pytest.mark.parametrize("name", [*zoo.ARCHITECTURES, *EXAMPLES])
def test_what_every_pass_makes_of_a_network_is_known_as_if_it_were_checked(name: str) -> None:
    before = imported(name)
    for _, after in after_each_pass(before):
        assert_lineage(before, after)
    if name in zoo.ARCHITECTURES:
        assert after.dropped == ()


@hypothesis.given(drawn=networks())
def test_what_every_pass_makes_of_any_network_is_known_as_if_it_were_checked(
    drawn: tuple[Graph, Any],
) -> None:
    before = check(*drawn)
    for _, after in after_each_pass(before):
        assert_lineage(before, after)


def test_a_node_that_no_pass_has_touched_stands_for_itself() -> None:
    before = imported("xnor-lenet5")
    names = [node.name for node in before.graph.nodes]
    assert before.lineage == {name: (name,) for name in names}
    assert before.dropped == ()


def test_a_fused_layer_stands_for_its_chain_and_its_signs_for_theirs() -> None:
    r = Numbers(5)
    b = GraphBuilder("g", (6, 6, 8))
    x = b.pad2d(b.input, 1, name="pad")
    x = b.conv2d(x, r(8, 3, 3, 8), name="conv")
    x = b.batch_norm(x, r(8), r(8) ** 2 + 1, name="norm")
    x = b.prelu(b.add(x, b.input, name="add"), r(8), name="prelu")
    y = b.bconv2d(b.sign(x, threshold=r(8), name="sign"), r(4, 1, 1, 8), name="last")
    b.sigmoid(y, name="unread")
    z = b.concat(b.reshape(x, (6, 6, 8), name="same"), y, name="both")
    after = passes.optimise(check(*b.build(z)))
    assert after.lineage == {
        "conv": ("pad", "conv", "norm", "add", "prelu"),
        "sign": ("sign",),
        "last": ("last",),
        "both": ("both",),
    }
    assert after.dropped == ("same", "unread")


def test_nodes_that_change_places_keep_what_they_stand_for() -> None:
    r = Numbers(6)
    b = GraphBuilder("g", (4, 4, 8))
    x = b.max_pool2d(b.conv2d(b.input, r(8, 1, 1, 8), name="conv"), 2, name="pool")
    x = b.sign(b.flatten(x, "channels_last", name="flat"), name="sign")
    after = passes.optimise(check(*b.build(b.bdense(x, r(3, 32), name="last"))))
    assert after.lineage == {
        "conv": ("conv", "sign"),
        "pool": ("pool",),
        "flat": ("flat",),
        "last": ("last",),
    }


def test_a_value_that_changes_is_inferred_anew_with_all_that_depend_on_it() -> None:
    b = GraphBuilder("g", (4, 4, 8))
    x = b.slice_channels(b.input, 0, 6, name="slice")
    x = b.relu(b.sigmoid(x, name="sigmoid"), name="relu")
    draft = Draft(check(*b.build(x)))
    draft.read_instead("slice", "input")
    assert draft.value("sigmoid").shape == draft.value("relu").shape == (4, 4, 8)
    assert draft.finish().values["relu"].shape == (4, 4, 8)


@pytest.mark.parametrize("wrong", [np.ones(7, np.float32), np.full(8, np.nan, np.float32)])
def test_a_tensor_that_a_pass_makes_is_checked(wrong: NDArray[Any]) -> None:
    b = GraphBuilder("g", (4, 4, 8))
    before = check(*b.build(b.relu(b.prelu(b.input, np.ones(8), name="prelu"))))
    draft = Draft(before)
    node = before.graph.nodes[0]
    made = nodes.PRelu(name="new", input="input", slope=draft.keep("slope", wrong))
    draft.replace((node,), made)
    with pytest.raises(ShapeError, match="node 'new'"):
        draft.finish()


class Reads:
    """Counts how often the elements of a tensor are looked at by checks."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.checks = 0
        self.tensors: list[tuple[str, int]] = []
        self._count(monkeypatch, checks, "_row_sums")
        self._count(monkeypatch, checks, "has_stray_bits")
        self._count(monkeypatch, np, "isfinite")
        original = checked.check

        def counted(*args: Any) -> CheckedGraph:
            self.checks += 1
            return original(*args)

        monkeypatch.setattr(bitinfer.model, "check", counted)

    def _count(self, monkeypatch: pytest.MonkeyPatch, where: Any, name: str) -> None:
        original = getattr(where, name)

        def counted(x: Any, *args: Any, **kwargs: Any) -> Any:
            if isinstance(x, np.ndarray) and x.ndim > 1:
                self.tensors.append((name, x.ctypes.data))
            return original(x, *args, **kwargs)

        monkeypatch.setattr(where, name, counted)


@pytest.mark.parametrize("name", ["integers", "every node", "bireal18"])
def test_a_load_checks_a_network_once_and_reads_every_weight_once(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = imported(name)
    data = modelfile.to_bytes(Model(before.graph, before.tensors))
    reads = Reads(monkeypatch)
    model = modelfile.from_bytes(data)
    session = Session(model, "reference")
    session.run(np.zeros(before.graph.input.shape, np.uint8 if name == "integers" else np.float32))
    assert reads.checks == 1
    ours = {t.ctypes.data for t in model.tensors.values()}
    of_file = [read for read in reads.tensors if read[1] in ours]
    assert len(of_file) == len(set(of_file)) > 0

"""What a node needs elsewhere: this test names every place that a new one still lacks."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import get_args, get_type_hints

import numpy as np
import pytest

import node_examples
from bitinfer import modelfile
from bitinfer.backends import select
from bitinfer.errors import ShapeError
from bitinfer.graph import GraphBuilder, Node, check, nodes, passes
from bitinfer.graph.nodes import BaseNode
from bitinfer.plan import lower
from graph_examples import Numbers
from harness import bind, right_values, run_executor

ROOT = Path(__file__).parents[2]


def every_class(of: type[BaseNode] = BaseNode) -> Iterator[type[BaseNode]]:
    """Yield the classes of all nodes: those without a name in files are only bases."""
    for node in of.__subclasses__():
        if node.__struct_config__.tag != node.__name__ and node.__module__.startswith("bitinfer."):
            yield node
        yield from every_class(node)


def missing_places(node: type[BaseNode]) -> list[str]:
    """Return what is still to be done for a class of nodes, a line each."""
    op = str(node.__struct_config__.tag)
    missing = []
    if node not in get_args(Node):
        missing.append("src/bitinfer/graph/nodes/__init__.py: the union Node")
    if not hasattr(GraphBuilder, op):
        missing.append(f"src/bitinfer/graph/builder.py: a method {op}")
    if f"\n| `{op}` |" not in (ROOT / "docs/file-format.md").read_text(encoding="utf-8"):
        missing.append("docs/file-format.md: a row in the table of nodes")
    if op not in (ROOT / "tests/strategies.py").read_text(encoding="utf-8"):
        missing.append("tests/strategies.py: drawn networks have none")
    if not any(op in file for file in golden_operations()):
        missing.append("tests/golden: a file with it, written by make_v1.py")
    if op not in node_examples.EXAMPLES:
        return [*missing, "tests/node_examples.py: an example (it leads to further places)"]
    return [*missing, *missing_results(op)]


def missing_results(op: str) -> Iterator[str]:
    """Yield who does not know what the example of an operation gives."""
    graph, tensors = node_examples.network(op, Numbers(1))
    x = Numbers(2)(*graph.input.shape).astype(np.float32)
    wanted = got = None
    try:
        wanted = right_values(graph, tensors, x)[0][graph.outputs[0]]
    except AssertionError:
        yield "tests/oracle.py, tests/harness.py: the right value"
    try:
        plan = lower(check(graph, tensors))
        ((got,),) = run_executor(bind(select("reference"), plan), plan, x[None])
    except (AssertionError, KeyError):
        yield "src/bitinfer/plan/, src/bitinfer/backends/reference/: a step, and what it does"
    if wanted is not None and got is not None and not np.allclose(got, wanted, 1e-5, 1e-5):
        yield "src/bitinfer/backends/reference/: another value than the oracle's"


def golden_operations() -> list[set[str]]:
    files = (ROOT / "tests/golden").glob(f"v{modelfile.FORMAT_VERSION}/*.bin")
    return [{node.operation for node in modelfile.load(file).graph.nodes} for file in files]


@pytest.mark.parametrize("node", list(every_class()), ids=lambda node: node.__name__)
def test_a_node_has_all_its_places(node: type[BaseNode]) -> None:
    assert missing_places(node) == []


def test_all_classes_are_found() -> None:
    assert set(every_class()) == set(get_args(Node))
    assert {str(c.__struct_config__.tag) for c in every_class()} == set(node_examples.EXAMPLES)


def test_an_activation_has_a_kind_of_its_name() -> None:
    kinds = get_args(get_type_hints(nodes.Activation)["kind"])
    assert set(kinds) == {str(c.__struct_config__.tag) for c in every_class(nodes.ActivationNode)}


@pytest.mark.parametrize("op", node_examples.EXAMPLES)
def test_what_does_not_fit_is_refused(op: str) -> None:
    for add, message in node_examples.EXAMPLES[op].misfits:
        b = GraphBuilder("g", (4, 4, 3))
        with pytest.raises(ShapeError, match=message):
            b.build(add(b, Numbers(1), b.input, 3))


IDENTITIES = [op for op, example in node_examples.EXAMPLES.items() if example.identity]


@pytest.mark.parametrize("op", IDENTITIES)
def test_a_node_that_changes_nothing_is_dropped_and_one_that_does_is_not(op: str) -> None:
    add, identity = node_examples.EXAMPLES[op].add, node_examples.EXAMPLES[op].identity
    assert identity is not None
    for append, is_dropped in ((identity, True), (add, False)):
        b = GraphBuilder("g", (4, 4, 6))
        x = append(b, Numbers(1), b.input, 6)
        (name,) = (node.name for node in b._nodes if node.operation == op)
        after = passes.drop_identities(check(*b.build(b.sigmoid(x))))
        assert after.dropped == ((name,) if is_dropped else ())


def test_what_says_when_it_changes_nothing_has_an_example_of_it() -> None:
    says = {c for c in every_class() if c.is_identity is not BaseNode.is_identity}
    assert {str(c.__struct_config__.tag) for c in says} == set(IDENTITIES)


def magnitudes(*shape: int) -> np.ndarray:
    return np.abs(Numbers(3)(*shape))


@pytest.mark.parametrize("op", node_examples.EXAMPLES)
@pytest.mark.parametrize("numbers", [Numbers(4), magnitudes], ids=["any", "positive"])
def test_a_node_that_is_said_to_be_monotone_is(op: str, numbers: node_examples.Numbers) -> None:
    graph, tensors = node_examples.network(op, numbers)
    (node,) = (node for node in graph.nodes if node.operation == op)
    says = type(node).is_monotone is not BaseNode.is_monotone
    if not node.is_monotone(tensors):
        assert not says or numbers is not magnitudes
        return
    x = np.repeat(np.linspace(-4, 4, 999, dtype=np.float32)[:, None], 6, axis=1)
    falls = node.falls(tensors)
    sign = np.where(np.zeros(6, np.bool_) if falls is None else falls, -1, 1)
    assert (np.diff(node.function(tensors)(x), axis=0) * sign >= 0).all()


@pytest.mark.parametrize("op", node_examples.EXAMPLES)
def test_a_node_that_is_said_to_give_nothing_negative_does_not(op: str) -> None:
    graph, tensors = node_examples.network(op, Numbers(1))
    (node,) = (node for node in graph.nodes if node.operation == op)
    never = node.never_negative()
    if never is False:
        return
    x = Numbers(2)(*graph.input.shape).astype(np.float32)
    values, _ = right_values(graph, tensors, x if never else np.abs(x))
    assert (values[node.name] >= 0).all()


class Unfinished(BaseNode, frozen=True, tag="unfinished"):
    """A node that has no more than its class."""


def test_what_a_new_node_lacks_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    missing = [
        "src/bitinfer/graph/nodes/__init__.py",
        "src/bitinfer/graph/builder.py",
        "docs/file-format.md",
        "tests/strategies.py",
        "tests/golden",
    ]
    found = [place.partition(":")[0] for place in missing_places(Unfinished)]
    assert found == [*missing, "tests/node_examples.py"]
    example = node_examples.Example(
        Unfinished(name="n", input="x"),  # type: ignore[arg-type]
        lambda b, r, x, c: b._add(Unfinished(name="u", input=x)),  # type: ignore[arg-type]
    )
    monkeypatch.setitem(node_examples.EXAMPLES, "unfinished", example)
    found = [place.partition(":")[0] for place in missing_places(Unfinished)]
    results = [
        "tests/oracle.py, tests/harness.py",
        "src/bitinfer/plan/, src/bitinfer/backends/reference/",
    ]
    assert found == [*missing, *results]

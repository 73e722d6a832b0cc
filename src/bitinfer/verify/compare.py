"""Compares a model with its source, after every sign and at the outputs.

What enters a binary layer is signs: where all of them are equal, the layer's sums are equal
integers.  A sign that differs is a *tie* where the source's own value is so close to the threshold
that float32, in which frameworks compute, could round it to either side; it is counted, and its
sample is left out of what follows, since one flipped sign changes everything behind it.  How far
float32 may be off is seen from the source in float32, from each sign to the next.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bitinfer.backends import select
from bitinfer.errors import ConversionError
from bitinfer.graph import passes
from bitinfer.importers import evaluate, signs
from bitinfer.importers.foreign import Foreign, ForeignNode
from bitinfer.importers.recognise import recognise
from bitinfer.importers.simulate import simulate
from bitinfer.model import Model, Preprocessing
from bitinfer.numerics import normalization_table
from bitinfer.plan.lower import lower
from bitinfer.plan.observe import named, new_outputs, observe
from bitinfer.verify.differences import CLOSE, ROUNDING, Difference, source_signs, to_own, to_source
from bitinfer.verify.explain import explain

Array = NDArray[Any]

FEW_ZEROS = 1e-3
"""Share of signs that may differ at exactly 0 and count as ties: more is another rule for 0."""

OTHER_ORDER = 4
"""How much further off than ours another order of float32 sums may be."""


@dataclasses.dataclass(frozen=True)
class SignCheck:
    """What was found at one sign.

    Attributes:
        name: of the sign, as in the source.
        layer: the layer whose input it is, or that reads it first; empty if none does.
        compared: signs of the samples that count.
        differing: of these, signs that differ though the source's value is off the threshold.
        ties: signs whose value is at the threshold, within float32's rounding.
        ties_differing: of these, signs that differ.
    """

    name: str
    layer: str
    compared: int
    differing: int
    ties: int
    ties_differing: int


@dataclasses.dataclass(frozen=True, eq=False)
class Verification:
    """What the comparison has shown.

    Attributes:
        samples: how many inputs.
        left_out: samples in which a tie fell to the other side, not compared behind it.
        signs: what was found at each sign, in order of execution.
        largest: largest difference of outputs, over the samples that count.
        output_scale: largest output of the source.
        same_answers: samples, of all, with the same largest output.
        first: where they part; None if nowhere.
    """

    samples: int
    left_out: int
    signs: tuple[SignCheck, ...]
    largest: float
    output_scale: float
    same_answers: int
    first: Difference | None

    @property
    def is_equal(self) -> bool:
        """Whether every sign but ties is equal, and outputs are close."""
        return self.first is None

    @property
    def ties(self) -> int:
        """Signs at a threshold, of all layers."""
        return sum(check.ties for check in self.signs)


def random_inputs(model: Model, samples: int, seed: int = 0) -> Array:
    """Return inputs (N, ...) float32: random pixels as the model's preprocessing makes of them.

    Without preprocessing, numbers of mean 0 and variance 1.
    """
    rng = np.random.default_rng(seed)
    shape = (samples, *model.graph.input.shape)
    if model.preprocessing is None:
        return rng.standard_normal(shape).astype(np.float32)
    return normalised(model.preprocessing, rng.integers(0, 256, shape))


def normalised(preprocessing: Preprocessing, pixels: Array) -> Array:
    """Return pixels 0..255 (N, H, W, C) as the network's input."""
    p = preprocessing
    table = normalization_table(p.scale, p.mean, p.std)
    return np.stack([table[pixels[..., c], c] for c in range(pixels.shape[-1])], axis=-1)


def verify(model: Model, source: Foreign, x: Array, backend: str = "auto") -> Verification:
    """Compare ``model``, as passes and kernels run it, with ``source``.

    Shapes:  x (N, ...) of the model's input.
    Raises:  ConversionError if they are different networks: another input, or no sign in common; or
             the model takes pixels as they are.
    """
    if model.graph.input.kind != "float":
        raise ConversionError(
            "the model has integer ends, whose numbers are not the source's: verify it before it "
            "is given them"
        )
    folded = evaluate.fold_constants(source)
    found = signs.find_signs(folded)
    known = recognise(source)
    if known.graph.input.shape != model.graph.input.shape:
        raise ConversionError(
            f"the source takes {known.graph.input.shape}, the model {model.graph.input.shape}"
        )
    layouts = known.layouts
    theirs_in = to_source(x, layouts.get(source.input))
    theirs = simulate(folded, theirs_in)
    ours = _observed(model, x, backend)
    for name, own in zip(source.outputs, model.graph.outputs, strict=False):
        ours[name] = ours[own]
    nodes = [n for n in found.nodes if n.operation == "sign" and n.name in ours]
    given = {n.name: theirs[n.name] for n in found.nodes if n.operation == "sign"}
    rounded = simulate(folded, theirs_in, dtype=np.float32, given=given)
    if not nodes and any(n.operation == "sign" for n in found.nodes):
        raise ConversionError("the model has none of the source's signs: it is another network")
    counts = np.ones(len(x), bool)
    checks: list[SignCheck] = []
    first: Difference | None = None
    equal: list[str] = []
    for node in nodes:
        is_equal, is_tie = _compare_signs(node, theirs, rounded, ours, layouts)
        differs = ~is_equal & ~is_tie & _column(counts, is_equal)
        checks.append(_check(found, node, is_equal, is_tie, counts))
        if differs.any():
            first = _difference(found, node.name, equal, theirs, ours, layouts, differs)
            break
        counts &= (is_equal | ~is_tie).reshape(len(x), -1).all(axis=1)
        equal.append(node.name)
    largest, scale, same = 0.0, 0.0, len(x)
    for name in source.outputs:
        wanted = _flat(to_own(theirs[name], layouts.get(name)))
        result = _flat(ours[name])
        if wanted.shape != result.shape:
            raise ConversionError(f"the output {name} has {wanted.shape}, of {result.shape} here")
        same = min(same, int((wanted.argmax(1) == result.argmax(1)).sum()))
        scale = max(scale, float(np.abs(wanted).max(initial=0)))
        differences = np.abs(wanted - result)[counts]
        largest = max(largest, float(differences.max(initial=0)))
        if first is None and not largest <= CLOSE * max(scale, 1):
            where = np.abs(wanted - result) > CLOSE * max(scale, 1)
            where = (where & _column(counts, where)).reshape(ours[name].shape)
            first = _difference(found, name, equal, theirs, ours, layouts, where)
    if first is not None:
        few = np.flatnonzero(counts)[:4]
        fitting = explain(
            found, first, theirs_in[few], {k: v[few] for k, v in ours.items()}, layouts
        )
        first = dataclasses.replace(first, explanations=fitting)
    left_out = len(x) - int(counts.sum())
    return Verification(len(x), left_out, tuple(checks), largest, scale, same, first)


def _flat(x: Array) -> Array:
    return x.reshape(len(x), -1)


def _column(counts: Array, like: Array) -> Array:
    return counts.reshape(-1, *(1,) * (like.ndim - 1))


def _observed(model: Model, x: Array, backend: str) -> dict[str, Array]:
    """Return what the model's values are behind all passes, by the names of imported ones."""
    checked = passes.optimise(model.checked)
    plan = observe(lower(checked))
    outputs = new_outputs(plan, len(x))
    select(backend).bind(plan).run(np.ascontiguousarray(x, np.float32), outputs)
    same_as = checked.lineage.same_as
    result = {}
    for name, value in named(plan, outputs).items():
        result[same_as.get(name, name)] = value
    return result


def _compare_signs(
    node: ForeignNode,
    theirs: dict[str, Array],
    rounded: dict[str, Array],
    ours: dict[str, Array],
    layouts: Any,
) -> tuple[Array, Array]:
    """Return where the signs are equal, and where the source's value is at the threshold."""
    own = ours[node.name]
    root = theirs[node.inputs[0]]
    limit = ROUNDING * np.abs(root).max(axis=tuple(range(1, root.ndim)), keepdims=True)
    limit = np.maximum(limit, OTHER_ORDER * np.abs(root - rounded[node.inputs[0]]))
    layout = layouts.get(node.name)
    wanted = to_own(source_signs(node, theirs[node.name]), layout)
    is_tie = to_own(np.abs(root) <= limit, layout)
    if wanted.size != own.size:
        raise ConversionError(f"{node.name} has {wanted.shape} values, here {own.shape}")
    is_equal, is_tie = wanted.reshape(own.shape) == own, is_tie.reshape(own.shape)
    is_zero = to_own(root == 0, layout).reshape(own.shape)
    if np.count_nonzero(is_zero & ~is_equal) > FEW_ZEROS * own.size:
        is_tie &= ~is_zero
    return is_equal, is_tie


def _check(
    found: Foreign, node: ForeignNode, is_equal: Array, is_tie: Array, counts: Array
) -> SignCheck:
    column = _column(counts, is_equal) & np.ones_like(is_equal)
    return SignCheck(
        name=node.name,
        layer=_reader(found, node.name),
        compared=int(column.sum()),
        differing=int((~is_equal & ~is_tie & column).sum()),
        ties=int((is_tie & column).sum()),
        ties_differing=int((~is_equal & is_tie & column).sum()),
    )


def _reader(found: Foreign, name: str) -> str:
    """Return the first layer that reads a value, over pools and the like."""
    names = {name}
    for node in found.nodes:
        if names & set(node.inputs):
            if node.operation in ("conv", "dense"):
                return node.name
            names.add(node.name)
    return ""


def _difference(
    found: Foreign,
    name: str,
    equal: list[str],
    theirs: dict[str, Array],
    ours: dict[str, Array],
    layouts: Any,
    where: Array,
) -> Difference:
    """Describe the first difference; its sample is the one with the most of it."""
    sample = int(where.reshape(len(where), -1).sum(axis=1).argmax())
    node = next((n for n in found.nodes if n.name == name), None)
    value = theirs[name]
    if node is not None and node.operation == "sign":
        value = source_signs(node, value)
    wanted = to_own(value, layouts.get(name))[sample].reshape(ours[name].shape[1:])
    return Difference(name, _between(found, name, equal), (), wanted, ours[name][sample])


def _between(found: Foreign, name: str, equal: list[str]) -> tuple[str, ...]:
    """Return the layers that ``name`` follows from, behind the signs that are equal."""
    makers = {node.name: node for node in found.nodes}
    names, seen = [name], set()
    while names:
        node = makers.get(names.pop())
        if node is None or node.name in seen or (node.name in equal and node.name != name):
            continue
        seen.add(node.name)
        names += node.inputs
    kinds = ("conv", "dense", "batch_norm")
    return tuple(n.name for n in found.nodes if n.name in seen and n.operation in kinds)

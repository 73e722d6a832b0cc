"""What an exported network consists of, for every kind of CPU: kernels, constants, places, sizes.

A layer's weight is stored once for a target.  Where all kernels that the layer may get there take
the same bytes, it is stored so, and costs no RAM; else it is stored in canonical form, and kernels
that want another re-lay it into RAM when the network is prepared.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping, Sequence

import numpy as np

from bitinfer import numerics
from bitinfer.backends.native.placing import Placement, place_plan
from bitinfer.backends.native.records import Array, Record, records
from bitinfer.backends.native.structs import STEP_BYTES
from bitinfer.backends.native.targets import Choice, choices, targets
from bitinfer.errors import UsageError
from bitinfer.graph import passes
from bitinfer.model import Model
from bitinfer.names import unknown
from bitinfer.plan import lower, share_joins
from bitinfer.plan.steps import Plan

_ALIGNMENT = 64
PREPARED_BYTES = -(-(STEP_BYTES + 8) // _ALIGNMENT) * _ALIGNMENT
"""Of a step in RAM: the struct and its kernel, where pointers have 8 bytes; else less."""

Kernel = tuple[str, str, str]
"""Operation, method and instruction set."""


@dataclasses.dataclass(frozen=True)
class Stored:
    """A layer's weight as it is stored for one target.

    Attributes:
        data: an array, of bytes if it is re-laid.
        in_place: the kernels that take it so.
    """

    data: Array
    in_place: frozenset[tuple[str, str]]


@dataclasses.dataclass(frozen=True)
class Target:
    """The network on one kind of CPU (backends.native.targets).

    Attributes:
        name: of the kind.
        isas: instruction sets that the kernels are for, poorest first.
        choices: the kernels that each step may get.
        stored: each step's weight, None where it has none.
        scratch: bytes of each step's scratch.
        placement: where buffers lie.
        network_bytes: RAM that a prepared network takes.
        arena_bytes: RAM that a call takes.
        constant_bytes: ROM of all constants.
    """

    name: str
    isas: tuple[str, ...]
    choices: tuple[tuple[Choice, ...], ...]
    stored: tuple[Stored | None, ...]
    scratch: tuple[int, ...]
    placement: Placement
    network_bytes: int
    arena_bytes: int
    constant_bytes: int


@dataclasses.dataclass(frozen=True)
class Network:
    """A network as it is exported.

    Attributes:
        name: a C identifier.
        title: what a person calls it.
        origin: SHA-256 of its graph and tensors, as the model file holds it.
        takes_pixels: the input is uint8, else float32.
        plan, records: its steps.
        targets: those that have kernels of the wanted instruction sets.
    """

    name: str
    title: str
    origin: str
    takes_pixels: bool
    plan: Plan
    records: tuple[Record, ...]
    targets: tuple[Target, ...]

    @property
    def kernels(self) -> frozenset[Kernel]:
        """Every kernel that a step may get somewhere."""
        return frozenset(
            (record.operation, choice.method, choice.isa)
            for target in self.targets
            for record, of_step in zip(self.records, target.choices, strict=True)
            for choice in of_step
        )


def instruction_sets() -> tuple[str, ...]:
    """Return the instruction sets of all targets, each once."""
    return tuple(dict.fromkeys(isa for isas in targets().values() for isa in isas))


def describe(model: Model, name: str, isas: Collection[str] = ()) -> Network:
    """Return what is exported of a model, with kernels of these instruction sets (none: of all).

    Raises:
        UsageError: an instruction set has no kernels that are known here.
    """
    known = instruction_sets()
    for isa in isas:
        if isa not in known:
            raise unknown("instruction set", isa, known)
    pixels_only = model.graph.input.kind == "uint8"
    table = None
    if not pixels_only and (p := model.preprocessing) is not None:
        table = numerics.normalization_table(p.scale, p.mean, p.std)
    plan = share_joins(lower(passes.optimise(model.checked), table))
    steps = records(plan)
    described = []
    for target, of_target in targets().items():
        wanted = tuple(isa for isa in of_target if not isas or isa in isas)
        if wanted:
            described.append(_describe_target(target, wanted, plan, steps))
    if not described:
        raise UsageError("no instruction set is left to export for")
    return Network(
        name=name,
        title=model.graph.name,
        origin=model.sha256,
        takes_pixels=pixels_only or table is not None,
        plan=plan,
        records=steps,
        targets=tuple(described),
    )


def _describe_target(
    name: str, isas: tuple[str, ...], plan: Plan, steps: Sequence[Record]
) -> Target:
    of_steps = choices(plan, isas)
    stored = tuple(
        None if record.weight is None else _store(record.weight, of_step)
        for record, of_step in zip(steps, of_steps, strict=True)
    )
    scratch = tuple(max(choice.scratch_bytes for choice in of_step) for of_step in of_steps)
    placement = place_plan(plan, scratch, 1, {})
    relaid = (
        max(_relaid_bytes(choice, kept) for choice in of_step)
        for of_step, kept in zip(of_steps, stored, strict=True)
        if kept is not None
    )
    constants = [array for record in steps for array in record.arrays.values()]
    constants += [kept.data for kept in stored if kept is not None]
    return Target(
        name=name,
        isas=isas,
        choices=of_steps,
        stored=stored,
        scratch=scratch,
        placement=placement,
        network_bytes=len(steps) * PREPARED_BYTES + sum(relaid),
        arena_bytes=max(placement.arena_bytes, _ALIGNMENT),
        constant_bytes=sum(_by_content(constants).values()),
    )


def _store(weight: Array, of_step: Sequence[Choice]) -> Stored:
    """Choose the form that a weight is stored in."""
    canonical = np.ascontiguousarray(weight)
    forms: dict[bytes | None, set[tuple[str, str]]] = {}
    for choice in of_step:
        form = canonical.tobytes() if choice.weight_bytes == 0 else choice.packed
        forms.setdefault(form, set()).add((choice.method, choice.isa))
    if None not in forms and len(forms) == 1:
        (form,) = forms
        assert form is not None
        data = canonical if form == canonical.tobytes() else np.frombuffer(form, np.uint8)
        return Stored(data, frozenset(forms[form]))
    return Stored(canonical, frozenset(forms.get(canonical.tobytes(), ())))


def _relaid_bytes(choice: Choice, kept: Stored) -> int:
    if (choice.method, choice.isa) in kept.in_place:
        return 0
    return -(-choice.weight_bytes // _ALIGNMENT) * _ALIGNMENT


def _by_content(arrays: Sequence[Array]) -> Mapping[tuple[str, bytes], int]:
    return {(array.dtype.str, array.tobytes()): array.nbytes for array in arrays}

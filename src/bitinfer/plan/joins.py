"""Joined maps and slices of them share one buffer, so that what lies there already is not copied.

    plan = share_joins(lower(checked))

A value that is a part of the channels of another one gets no buffer of its own where all that touch
it can find a part: binary convolutions write and add one, signs are packed of one, and copies are
made from and to one.  A network that appends channels block by block (DenseNet, MeliusNet) then
writes them all into the buffer of the last one.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from bitinfer.plan import steps
from bitinfer.plan.steps import BinaryConv2d, CopyChannels, PackSigns, Plan, Step


@dataclasses.dataclass(frozen=True)
class _Place:
    """Where a buffer's first channel lies: channel ``begin`` of the buffer ``root``."""

    root: int
    begin: int


def share_joins(plan: Plan) -> Plan:
    """Return the plan with as few copies of channels as there can be; it computes the same.

    ``values`` names only those that have a buffer of their own.
    """
    copies = [step for step in plan.steps if isinstance(step, CopyChannels)]
    if not copies:
        return plan
    joins = _Joins(plan)
    for step in copies:
        joins.unite(step)
    return joins.rewritten()


class _Joins:
    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.places = [_Place(number, 0) for number in range(len(plan.buffers))]
        self.touching: list[list[int]] = [[] for _ in plan.buffers]
        for index, step in enumerate(plan.steps):
            for buffer in {*step.sources, *step.targets}:
                self.touching[buffer].append(index)

    def unite(self, copy: CopyChannels) -> None:
        """Let source and target of a copy share a buffer, if that changes no value."""
        source, target = self.places[copy.source], self.places[copy.target]
        if source.root == target.root:
            return
        # Where the target's root begins in the source's, for the copied channels to coincide.
        begin = source.begin + copy.begin - target.begin - copy.to
        wide, narrow = source.root, target.root
        if begin < 0 or self._channels(narrow) > self._channels(wide):
            wide, narrow, begin = narrow, wide, -begin
        if begin < 0 or begin + self._channels(narrow) > self._channels(wide):
            return
        places = [
            _Place(wide, begin + place.begin) if place.root == narrow else place
            for place in self.places
        ]
        members = [number for number, place in enumerate(places) if place.root == wide]
        if all(self._can_be_part(b, places[b]) for b in members) and self._is_same(places, members):
            self.places = places

    def rewritten(self) -> Plan:
        """Return the plan with every buffer where it has been placed."""
        made = [new for step in self.plan.steps if (new := self._placed(step)) is not None]
        values = {name: b for name, b in self.plan.values.items() if self.places[b].root == b}
        return dataclasses.replace(self.plan, steps=tuple(made), values=values)

    def _channels(self, buffer: int) -> int:
        return self.plan.buffers[buffer].shape[-1]

    def _can_be_part(self, buffer: int, place: _Place) -> bool:
        """Whether all that touch a buffer find it at that place; the caller's arrays stay whole."""
        if buffer in (self.plan.input, *self.plan.outputs):
            return False
        if self._channels(buffer) == self._channels(place.root):
            return True
        touching = (self.plan.steps[index] for index in self.touching[buffer])
        return all(_finds_part(step, buffer) for step in touching)

    def _is_same(self, places: list[_Place], members: list[int]) -> bool:
        """Whether every step reads of ``members`` at ``places`` what it reads where each is alone.

        All steps that touch them are followed in order, channel by channel, in both plans at once.
        """
        root = places[members[0]].root
        inside = frozenset(members)
        alone = {b: np.full(self._channels(b), -1, np.int64) for b in members}
        shared = np.full(self._channels(root), -1, np.int64)
        views = {b: shared[places[b].begin : places[b].begin + self._channels(b)] for b in members}
        made = 0
        for index in sorted({index for b in members for index in self.touching[b]}):
            step = self.plan.steps[index]
            if isinstance(step, CopyChannels):
                source, to = _part(step.begin, step.count), _part(step.to, step.count)
                if {step.source, step.target} <= inside:
                    if 0 < abs(self._shift(step, places)) < step.count:
                        return False  # onto a part of itself
                    alone[step.target][to] = alone[step.source][source]
                    views[step.target][to] = views[step.source][source].copy()
                elif step.target in inside:
                    alone[step.target][to] = views[step.target][to] = np.arange(step.count) + made
                    made += step.count
                elif (alone[step.source][source] != views[step.source][source]).any():
                    return False
                continue
            sources, targets = inside.intersection(step.sources), inside.intersection(step.targets)
            if sources and targets and not _adds_in_place(step, places):
                return False  # kernels do not write over what they read
            if any((alone[b] != views[b]).any() for b in sources):
                return False
            for b in targets:
                alone[b][:] = views[b][:] = np.arange(len(alone[b])) + made
                made += len(alone[b])
        return True

    def _shift(self, copy: CopyChannels, places: list[_Place]) -> int:
        """Return how far a copy within one buffer moves channels."""
        source, target = places[copy.source], places[copy.target]
        return target.begin + copy.to - source.begin - copy.begin

    def _placed(self, step: Step) -> Step | None:
        """Return a step with its buffers where they have been placed; None: it does nothing."""
        source, target = self.places[step.source], self.places[step.target]
        if isinstance(step, CopyChannels):
            if source.root == target.root and self._shift(step, self.places) == 0:
                return None
            return dataclasses.replace(
                step,
                source=source.root,
                begin=source.begin + step.begin,
                target=target.root,
                to=target.begin + step.to,
            )
        if isinstance(step, PackSigns):
            begin = source.begin + step.begin
            return dataclasses.replace(step, source=source.root, begin=begin)
        moved = self._renamed(step)
        if isinstance(step, BinaryConv2d) and isinstance(moved, BinaryConv2d):
            moved = dataclasses.replace(moved, to=target.begin + step.to)
            if step.epilogue.residual is not None:
                begin = self.places[step.epilogue.residual].begin + step.residual_begin
                moved = dataclasses.replace(moved, residual_begin=begin)
        return moved

    def _renamed(self, step: Step) -> Step:
        """Return a step that reads and writes whole buffers with the roots of these."""
        roots = [place.root for place in self.places]
        if all(roots[b] == b for b in (*step.sources, *step.targets)):
            return step
        changes: dict[str, Any] = {"source": roots[step.source], "target": roots[step.target]}
        if isinstance(step, steps.NodeStep):
            changes["others"] = {field: roots[b] for field, b in step.others.items()}
        if isinstance(step, steps.Layer):
            e = step.epilogue
            buffers = {"beta": e.beta, "residual": e.residual, "signs": e.signs}
            moved: dict[str, Any] = {f: roots[b] for f, b in buffers.items() if b is not None}
            changes["epilogue"] = dataclasses.replace(e, **moved)
        return dataclasses.replace(step, **changes)


def _finds_part(step: Step, buffer: int) -> bool:
    """Whether a step that touches a buffer can find it as a part of the channels of another one."""
    if isinstance(step, CopyChannels):
        return True
    if isinstance(step, PackSigns):
        return buffer == step.source
    # Of its values only target and residual are floats with channels: which is to be checked.
    return isinstance(step, BinaryConv2d) and buffer not in (
        step.source,
        step.epilogue.beta,
        step.epilogue.signs,
    )


def _adds_in_place(step: Step, places: Sequence[_Place]) -> bool:
    """Whether all that a step reads of the buffer that it writes is a residual, in a fit place."""
    if not isinstance(step, BinaryConv2d) or step.epilogue.residual is None:
        return False
    target, residual = places[step.target], places[step.epilogue.residual]
    others = (places[b].root for b in (step.source, step.epilogue.beta) if b is not None)
    apart = abs(target.begin + step.to - residual.begin - step.residual_begin)
    return target.root not in others and (apart == 0 or apart >= step.outputs)


def _part(begin: int, count: int) -> slice:
    return slice(begin, begin + count)

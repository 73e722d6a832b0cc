"""Where the buffers of a plan lie: in the arena of a call, or in the caller's arrays."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence

from bitinfer.plan import steps
from bitinfer.plan.bands import Band
from bitinfer.plan.memory import Request, place
from bitinfer.plan.steps import Plan

MAX_BATCH_VALUE_BYTES = 1 << 17
"""Of a value that every sample of a chunk keeps in the arena at the same time."""


@dataclasses.dataclass(frozen=True)
class Placement:
    """Places as of ``bi_place`` in bitinfer.h: offsets in the arena, or -1 - number of an external.

    Attributes:
        buffers: place of every buffer of the plan.
        scratch: place of every step's scratch.
        shared_bytes, sample_bytes, chunk, batch_from: as of ``bi_plan``.
    """

    buffers: Mapping[int, int]
    scratch: tuple[int, ...]
    shared_bytes: int
    sample_bytes: int
    chunk: int
    batch_from: int

    @property
    def arena_bytes(self) -> int:
        """Bytes of the arena of one thread."""
        return self.shared_bytes + self.chunk * self.sample_bytes


def place_plan(
    plan: Plan, scratch_bytes: Sequence[int], chunk_limit: int, bands: Mapping[int, Band]
) -> Placement:
    """Give every buffer, and the scratch of every step, a place.

    The input is external 0, the outputs are those behind it.  Values of the last steps, through
    which up to ``chunk_limit`` samples go together, have a part for each of these samples.  Of a
    map with ``bands`` there is a buffer for one; what a convolution and a pool that take turns
    touch lives as long as both.
    """
    turns = [(index, index) for index in range(len(plan.steps))]
    for index in bands:
        turns[index] = turns[index + 1] = (index, index + 1)
    spans = {b: (turns[i][0], turns[j][1]) for b, (i, j) in plan.lifetimes().items()}
    sizes = {b: plan.buffers[b].size_bytes for b in spans}
    for index, band in bands.items():
        buffer = plan.buffers[plan.steps[index].target]
        row_bytes = math.prod(buffer.shape[1:]) * buffer.dtype.itemsize
        sizes[plan.steps[index].target] = band.map_rows * row_bytes
    first = _first_of_batch(plan)
    per_sample = [b for b in spans if spans[b][1] >= first]
    inner = [b for b in spans if spans[b][1] < first]
    requests = [Request(sizes[b], *spans[b]) for b in inner]
    requests += [Request(size, *turns[index]) for index, size in enumerate(scratch_bytes)]
    offsets, shared = place(requests)
    own_requests = [Request(sizes[b], *spans[b]) for b in per_sample]
    own_offsets, own = place(own_requests)
    places = dict(zip(inner, offsets, strict=False))
    places |= {b: shared + at for b, at in zip(per_sample, own_offsets, strict=True)}
    places |= {b: -1 - number for number, b in enumerate((plan.input, *plan.outputs))}
    chunk = chunk_limit if first < len(plan.steps) else 1
    return Placement(places, tuple(offsets[len(inner) :]), shared, own, chunk, first)


def _first_of_batch(plan: Plan) -> int:
    """Return the first of the last steps, which a chunk of samples goes through together.

    They are those behind the last map: their values are small, and if there is a dense layer among
    them, its weights are large, so that reading them once for all samples pays.
    """
    first = len(plan.steps)
    for index in reversed(range(len(plan.steps))):
        step = plan.steps[index]
        buffers = [plan.buffers[b] for b in (*step.sources, *step.targets)]
        if any(len(b.shape) > 1 or b.size_bytes > MAX_BATCH_VALUE_BYTES for b in buffers):
            break
        if isinstance(step, steps.Dense | steps.BinaryDense):
            first = index
    return first

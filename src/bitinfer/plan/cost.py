"""What a plan costs: multiply-accumulates of its steps, bytes of its arena."""

from __future__ import annotations

import math

from bitinfer.plan import steps
from bitinfer.plan.memory import Request, place
from bitinfer.plan.steps import Plan, Step

WORK_AT_ONCE = 1 << 27
"""What is done before anybody asks whether to go on (:func:`work`): a tenth of a second where
kernels are slow, a hundredth of that where they are quick."""


def macs(step: Step, plan: Plan) -> int:
    """Return the multiply-accumulates of a convolution or dense step of one sample, else 0.

    Padded taps count: this is the nominal number that engines are compared by.
    """
    source, target = plan.buffers[step.source], plan.buffers[step.target]
    match step:
        case steps.BinaryConv2d() | steps.Conv2d():
            outputs = math.prod(target.shape[:-1]) * len(step.weight)
            channels = source.shape[-1] // step.window.groups
            return outputs * math.prod(step.window.kernel) * channels
        case steps.BinaryDense() | steps.Dense():
            return math.prod(target.shape) * source.shape[-1]
        case _:
            return 0


def work(step: Step, plan: Plan) -> int:
    """Return what a step of one sample costs at most, in plain additions: an upper estimate.

    A window is counted tap by tap, an operation on 64 signs as 4, an exponential as 16.
    """
    source, target = plan.buffers[step.source], plan.buffers[step.target]
    elements = max(math.prod(source.shape), math.prod(target.shape))
    match step:
        case steps.BinaryConv2d() | steps.BinaryDense():
            return macs(step, plan) // 16 + elements
        case steps.Layer():
            return macs(step, plan) + elements
        case steps.MaxPool2d() | steps.AvgPool2d():
            return math.prod(target.shape) * math.prod(step.window.kernel) + elements
        case steps.BetaMap():
            return math.prod(target.shape[:2]) * math.prod(step.window.kernel) + elements
        case _:
            return 16 * elements


def place_buffers(plan: Plan) -> tuple[dict[int, int], int]:
    """Return the offset of every inner buffer in an arena, and the size of the arena in bytes."""
    spans = plan.lifetimes()
    requests = [Request(plan.buffers[b].size_bytes, *span) for b, span in spans.items()]
    offsets, total = place(requests)
    return dict(zip(spans, offsets, strict=True)), total

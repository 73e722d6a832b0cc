"""Every value of a network as an output: to see where two of them part.

    plan = observe(lower(checked))
    outputs = new_outputs(plan, samples=1)
    backend.bind(plan).run(x, outputs)
    for name, value in named(plan, outputs).items(): ...

This works behind all passes too; CheckedGraph.lineage says which imported values these are.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bitinfer import bits
from bitinfer.plan.steps import Plan


def observe(plan: Plan) -> Plan:
    """Return the plan with every value that its steps make as an output, in order of execution.

    No value shares memory with another then, and those that are signs are handed out packed.
    """
    made = {buffer for step in plan.steps for buffer in step.targets}
    names = {name: buffer for name, buffer in plan.values.items() if buffer in made}
    return dataclasses.replace(
        plan, outputs=tuple(names.values()), output_names=tuple(names), values=names
    )


def new_outputs(plan: Plan, samples: int) -> list[NDArray[Any]]:
    """Return arrays for the outputs of a plan, as they are stored, with ``samples`` in front."""
    buffers = [plan.buffers[number] for number in plan.outputs]
    return [np.empty((samples, *b.stored_shape), b.dtype) for b in buffers]


def named(plan: Plan, outputs: Sequence[NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """Return outputs by the names of their values; packed signs as int8 -1 and +1."""
    result = {}
    for name, number, output in zip(plan.output_names, plan.outputs, outputs, strict=True):
        buffer = plan.buffers[number]
        is_bits = buffer.kind == "bits"
        signs = bits.unpack(output, buffer.shape[-1]) if is_bits else output
        result[name] = signs.astype(np.int8) if is_bits else signs
    return result

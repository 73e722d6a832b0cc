"""What the steps of a network take: measured in rounds, summed up for each step."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import threading
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from bitinfer.backends import Check, Executor, clock_hz
from bitinfer.graph import nodes
from bitinfer.plan import steps
from bitinfer.plan.cost import macs
from bitinfer.plan.steps import Plan, Step

_WARM_UP_ROUNDS = 3

LARGE_SHARE = 0.05
"""Of the time: above it, a step that is no convolution, or a slow one, says why."""

_TYPES = {"float": "float", "bits": "uint64", "pixels": "uint8", "int8": "int8"}


@dataclasses.dataclass(frozen=True)
class StepTime:
    """One step of the plan; times are of one sample, ``share`` (0..1) is of the medians.

    ``macs`` are multiply-accumulates of a convolution or dense step, else 0.  ``mac_per_cycle`` is
    by the minimum and the measured clock; None without multiplications or where the clock is not
    known.  ``reason`` says, of a step that takes more than LARGE_SHARE, what takes the time if it
    is no convolution, and, if it is one at less than half the MAC/cycle of another with the same
    kernel, how they differ; else it is None.
    """

    name: str
    operation: str
    kernel: str
    ns_min: float
    ns_median: float
    share: float
    macs: int
    mac_per_cycle: float | None
    reason: str | None = None


class Measurement(NamedTuple):
    """Nanoseconds (rounds, steps) of one sample, and what they are of."""

    executor: Executor
    ns: NDArray[np.float64]
    clock_hz: float | None


def measure(
    executor: Executor,
    batch: NDArray[Any],
    outputs: Sequence[NDArray[Any]],
    rounds: int,
    check: Check | None = None,
) -> Measurement:
    """Run a batch ``rounds`` times, after a few that do not count."""
    executor.profile(batch, outputs, _WARM_UP_ROUNDS, check)
    clocks = [clock_hz()]
    ns = executor.profile(batch, outputs, rounds, check) / len(batch)
    clocks.append(clock_hz())
    known = [clock for clock in clocks if clock]
    return Measurement(executor, ns, max(known) if known else None)


def summarize(
    executor: Executor, ns: NDArray[np.float64], clock_hz: float | None
) -> list[StepTime]:
    """Return a line for each step, in the order of the plan."""
    least, median = ns.min(axis=0), np.median(ns, axis=0)
    total = float(median.sum()) or 1.0
    lines = []
    for i, (step, kernel) in enumerate(zip(executor.plan.steps, executor.kernels, strict=True)):
        work = macs(step, executor.plan)
        cycles = float(least[i]) * 1e-9 * (clock_hz or 0.0)
        lines.append(
            StepTime(
                name=step.name,
                operation=step.operation,
                kernel=kernel,
                ns_min=float(least[i]),
                ns_median=float(median[i]),
                share=float(median[i]) / total,
                macs=work,
                mac_per_cycle=work / cycles if work and cycles else None,
            )
        )
    return [
        dataclasses.replace(line, reason=_reason(i, lines, executor.plan))
        if line.share > LARGE_SHARE
        else line
        for i, line in enumerate(lines)
    ]


def share_outside_convolutions(times: Sequence[StepTime]) -> float:
    """Return the share (0..1) of the time that steps other than convolutions take."""
    return sum(step.share for step in times if not _is_convolution(step.operation))


def _is_convolution(operation: str) -> bool:
    return "conv2d" in operation


def _reason(index: int, lines: Sequence[StepTime], plan: Plan) -> str | None:
    line, step = lines[index], plan.steps[index]
    if not _is_convolution(line.operation):
        return _what_it_does(step, plan, line.ns_min)
    rivals = [i for i, other in enumerate(lines) if _is_same_kernel(line, other)]
    best = max(rivals, key=lambda i: lines[i].mac_per_cycle or 0.0)
    own, its = line.mac_per_cycle or 0.0, lines[best].mac_per_cycle or 0.0
    others = _layer_sizes(plan.steps[best], plan)
    differences = [
        f"{size} {what} instead of {others[what]}"
        for what, size in _layer_sizes(step, plan).items()
        if 2 * size <= others[what]
    ]
    if 2 * own >= its or not differences:
        return None
    where = f"{own:.0f} MAC/cycle where {lines[best].name} has {its:.0f} with this kernel"
    return f"{where}: {', '.join(differences)}"


def _is_same_kernel(line: StepTime, other: StepTime) -> bool:
    return (line.operation, line.kernel) == (other.operation, other.kernel)


def _layer_sizes(step: Step, plan: Plan) -> dict[str, int]:
    """Return of what a kernel is the faster the more there is of it, of a convolution."""
    assert isinstance(step, steps.Conv2d | steps.BinaryConv2d)
    channels, groups = plan.buffers[step.source].shape[-1], step.window.groups
    return {
        "pixels": math.prod(plan.buffers[step.target].shape[:-1]),
        "outputs": len(step.weight) // groups,
        "products a sum": math.prod(step.window.kernel) * channels // groups,
    }


def _what_it_does(step: Step, plan: Plan, ns: float) -> str:
    """Return what a step that is no convolution does in its ``ns``, of one sample."""
    source, target = plan.buffers[step.source], plan.buffers[step.target]
    made = math.prod(target.shape)
    touched = sum(plan.buffers[b].size_bytes for b in (*step.sources, *step.targets))
    weights = _constant_bytes(step)
    match step:
        case steps.Dense() | steps.BinaryDense():
            does = f"each weight serves one product of a sample, {_size(weights)} of them"
        case steps.Normalize():
            does = f"a look-up in a table for each of {made} numbers"
        case steps.MaxPool2d() | steps.AvgPool2d():
            height, width = step.window.kernel
            kind = "signs" if source.kind == "bits" else "numbers"
            does = f"a window of {height}x{width} for each of {made} {kind}, {_size(touched)}"
        case steps.Flatten(channels_first=True):
            does = f"another order of {made} elements, one by one"
        case steps.Activate(activation=steps.Activation(kind="sigmoid")):
            does = f"an exponential for each of {made} numbers"
        case steps.NodeStep(node=nodes.Softmax()):
            does = f"an exponential for each of {made} numbers"
        case _:
            does = f"little arithmetic for each of {made} elements, {_size(touched)}"
    return f"{does}: {(weights + touched) / max(ns, 1.0):.1f} GB/s a sample"


def _size(count: int) -> str:
    return f"{count / 1e6:.1f} MB" if count >= 10**5 else f"{count / 1e3:.1f} KB"


def chrome_trace(measured: Measurement, provider: str) -> bytes:
    """Return the fastest round as Chrome-trace JSON, for chrome://tracing or Perfetto.

    The fields are those of ONNX Runtime's profiles, so that scripts written for them find an event
    of the category ``Node`` for each step.  Times are in microseconds.
    """
    plan, kernels = measured.executor.plan, measured.executor.kernels
    ns = measured.ns[measured.ns.sum(axis=1).argmin()]
    common = {"pid": os.getpid(), "tid": threading.get_native_id(), "ph": "X"}
    whole = {"cat": "Session", **common, "dur": round(float(ns.sum()) / 1e3, 3), "ts": 0.0}
    events: list[dict[str, Any]] = []
    start = 0.0
    for index, (step, kernel) in enumerate(zip(plan.steps, kernels, strict=True)):
        took = float(ns[index]) / 1e3
        events.append(
            {
                "cat": "Node",
                **common,
                "dur": round(took, 3),
                "ts": round(start, 3),
                "name": f"{step.name}_kernel_time",
                "args": {
                    "op_name": step.operation,
                    "provider": provider,
                    "kernel": kernel,
                    "node_index": str(index),
                    **_sizes(step, plan),
                },
            }
        )
        start += took
    events.append({**whole, "name": "model_run", "args": {}})
    lines = ",\n".join(json.dumps(event, allow_nan=False) for event in events)
    return f"[\n{lines}\n]\n".encode()


def _sizes(step: Step, plan: Plan) -> dict[str, Any]:
    """Return bytes and shapes of what a step reads and writes, as ONNX Runtime writes them."""
    sources = [plan.buffers[b] for b in step.sources]
    targets = [plan.buffers[b] for b in step.targets]
    return {
        "parameter_size": str(_constant_bytes(step)),
        "activation_size": str(sum(buffer.size_bytes for buffer in sources)),
        "output_size": str(sum(buffer.size_bytes for buffer in targets)),
        "input_type_shape": [{_TYPES[b.kind]: [1, *b.stored_shape]} for b in sources],
        "output_type_shape": [{_TYPES[b.kind]: [1, *b.stored_shape]} for b in targets],
    }


def _constant_bytes(part: Any) -> int:
    """Return the bytes of all arrays in a step, in its epilogue and in its activation."""
    if isinstance(part, np.ndarray):
        return part.nbytes
    if dataclasses.is_dataclass(part):
        return sum(_constant_bytes(getattr(part, f.name)) for f in dataclasses.fields(part))
    return 0

"""backends/native/records.py: what C is told of a step, as data."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bitinfer import zoo
from bitinfer.graph import check, passes
from bitinfer.plan import Plan, lower, operations
from bitinfer.plan.bands import find_bands
from graph_examples import every_node, only_integers

records = pytest.importorskip(
    "bitinfer.backends.native.records", reason="there is no compiled extension"
)
native = pytest.importorskip(
    "bitinfer.backends.native._native", reason="there is no compiled extension"
)
CSRC = Path(__file__).parents[2] / "csrc"

C_TYPES = {
    "float32": "float",
    "float64": "double",
    "int32": "int32_t",
    "uint8": "uint8_t",
    "uint64": "uint64_t",
}


def plans() -> Iterator[tuple[str, Plan]]:
    for make in (every_node, only_integers):
        checked = check(*make())
        yield make.__name__, lower(checked)
        yield f"{make.__name__} behind all passes", lower(passes.optimise(checked))
    for name in ("xnor-lenet5", "bireal18", "quicknet-small"):
        graph, tensors = zoo.build(name, zoo.RandomParameters(1))
        table = np.zeros((256, graph.input.shape[-1]), np.float32)
        yield name, lower(passes.optimise(check(graph, tensors)), table)


PLANS = dict(plans())


def test_the_plans_here_have_every_operation() -> None:
    found = {step.operation for plan in PLANS.values() for step in plan.steps}
    assert found == set(operations()) - {"normalize"}


@pytest.mark.parametrize("name", PLANS)
def test_a_bound_plan_holds_what_its_records_say(name: str) -> None:
    from bitinfer.backends import select

    plan = PLANS[name]
    executor: Any = select("native").bind(plan)
    ffi, lib = native.ffi, native.lib
    fields = dict(ffi.typeof("bi_step").fields)
    bands = find_bands(plan)
    for index, (struct, record) in enumerate(
        zip(executor._steps, records.records(plan), strict=True)
    ):
        assert struct.band == (bands[index].rows if index in bands else 0)
        for field, kind in fields.items():
            got = getattr(struct, field)
            if field in record.numbers:
                assert got == pytest.approx(record.numbers[field], rel=1e-7)
            elif field in record.constants:
                assert got == sum(getattr(lib, c) for c in record.constants[field])
            elif field in record.arrays:
                array = np.ascontiguousarray(record.arrays[field])
                assert bytes(ffi.buffer(ffi.cast("char *", got), array.nbytes)) == array.tobytes()
            elif kind.type.kind == "pointer" and field != "weight":
                assert got == ffi.NULL, field
            elif field not in ("kernel", "parts", "band", "scratch", "weight", *record.buffers):
                assert got == 0, field


def initialisers(plan: Plan) -> str:
    """Print a plan as a C file: an array for each constant, a designated initialiser for a step."""
    lines = ['#include "bitinfer.h"', "#include <math.h>"]
    steps = []
    for number, record in enumerate(records.records(plan)):
        fields = [f".{name} = {_number(value)}" for name, value in record.numbers.items()]
        fields += [f".{name} = {' | '.join(c)}" for name, c in record.constants.items()]
        fields += [f".{name} = {buffer}" for name, buffer in record.buffers.items()]
        for name, array in record.arrays.items():
            flat = np.ascontiguousarray(array).reshape(-1)[:8]
            values = ", ".join(_number(v) for v in flat.tolist())
            kind = C_TYPES[array.dtype.name]
            lines.append(f"static const {kind} {name}_{number}[] = {{{values}}};")
            fields.append(f".{name} = {name}_{number}")
        steps.append(f"    {{ /* {record.operation} */ {', '.join(fields)}}},")
    return "\n".join([*lines, "const bi_step steps[] = {", *steps, "};", ""])


def _number(value: float) -> str:
    if isinstance(value, int):
        return f"{value}ull" if value >= 1 << 31 else str(value)
    if not np.isfinite(value):
        return "NAN" if np.isnan(value) else f"{'-' if value < 0 else ''}INFINITY"
    return f"{float(value).hex()}f"


@pytest.mark.parametrize("name", PLANS)
def test_records_can_be_printed_as_initialisers_that_a_c_compiler_takes(
    name: str, tmp_path: Path
) -> None:
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None or not CSRC.is_dir():
        pytest.skip("no C compiler, or no sources")
    source = tmp_path / "plan.c"
    source.write_text(initialisers(PLANS[name]))
    flags = ["-std=c11", "-Wall", "-Wextra", "-Werror", "-Woverride-init", "-fsyntax-only"]
    # What an initialiser leaves out is 0, as in a record.
    command = [compiler, *flags, "-Wno-missing-field-initializers", f"-I{CSRC}", str(source)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_records_hold_no_more_than_numbers_names_and_arrays() -> None:
    for plan in PLANS.values():
        for record in records.records(plan):
            assert all(type(v) in (int, float) for v in record.numbers.values())
            assert all(isinstance(c, str) for names in record.constants.values() for c in names)
            assert all(isinstance(a, np.ndarray) for a in record.arrays.values())
            assert set(record.buffers.values()) <= set(range(len(plan.buffers)))

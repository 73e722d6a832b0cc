"""Every kernel of the list, by force: exact at the sizes of its own block, and really reached."""

from __future__ import annotations

import numpy as np
import pytest

import kernel_suites
from bitinfer.backends import cpu_features, select
from bitinfer.graph import GraphBuilder, check
from bitinfer.plan import lower, share_joins
from kernel_list import LIST, Kernel, lines_of, listed_kernels


def kernel_params() -> list[object]:
    """Return the kernels of the loaded library, as parameters."""
    return [
        pytest.param(
            kernel,
            marks=[pytest.mark.skip(reason=f"this CPU has no {kernel.isa}")]
            * (not kernel.runs_here),
            id="-".join(kernel[:3]),
        )
        for kernel in listed_kernels()
    ]


@pytest.mark.parametrize("kernel", kernel_params())
def test_a_kernel_is_exact_at_the_sizes_of_its_own_block(kernel: Kernel) -> None:
    assert kernel_suites.run(kernel) > 0


@pytest.mark.parametrize(
    ("isa", "channels", "size", "outputs", "kernel"),
    [
        ("avx2", 16, 32, 16, "pixels4 avx2"),
        ("avx2", 48, 16, 48, "pixels4 avx2"),
        ("avx2", 8, 8, 8, "pixels4 avx2"),
        ("avx2", 32, 4, 32, "lookup4 avx2"),  # 16 pixels, which leave half of a vector empty
        ("avx2", 64, 8, 64, "lookup4 avx2"),  # vectors of outputs are full
        ("avx2", 64, 32, 65, "lookup4 avx2"),
        ("avx2", 128, 16, 16, "lookup4 avx2"),  # a window is more than two parts
        ("avx512bw", 16, 32, 16, "pixels4 avx512bw"),
        ("avx512bw", 48, 16, 48, "pixels4 avx512bw"),
        ("avx512bw", 64, 32, 64, "pixels4 avx512bw"),
        ("avx512bw", 64, 8, 64, "lookup4 avx512bw"),  # vectors of outputs are full
        ("avx512bw", 64, 32, 65, "lookup4 avx512bw"),
        ("avx512bw", 32, 4, 32, "lookup4 avx2"),  # neither vectors of 64 are
    ],
)
def test_layers_of_few_outputs_get_the_kernel_that_costs_less(
    isa: str, channels: int, size: int, outputs: int, kernel: str
) -> None:
    if not cpu_features().get(isa, False):
        pytest.skip(f"this CPU has no {isa}")
    b = GraphBuilder("narrow", (size, size, channels))
    y = b.bconv2d(b.sign(b.input), np.ones((outputs, 3, 3, channels)), padding=1)
    executor = select(f"native:{isa}").bind(lower(check(*b.build(y))))
    assert executor.kernels[-1] == kernel


@pytest.mark.parametrize("isa", ["avx2", "avx512bw", "avx512vbmi"])
def test_layers_whose_maps_are_joined_get_the_kernel_they_have_alone(isa: str) -> None:
    if not cpu_features().get(isa, False):
        pytest.skip(f"this CPU has no {isa}")
    kernels = {}
    for is_joined in (False, True):
        b = GraphBuilder("joined", (16, 16, 64))
        y = b.bconv2d(b.sign(b.input), np.ones((64, 3, 3, 64)), padding=1)
        if is_joined:
            y = b.relu(b.concat(b.input, y))
        plan = share_joins(lower(check(*b.build(y))))
        executor = select(f"native:{isa}").bind(plan)
        kernels[is_joined] = [
            kernel
            for step, kernel in zip(plan.steps, executor.kernels, strict=True)
            if step.operation == "bconv2d"
        ]
        target = next(s for s in plan.steps if s.operation == "bconv2d").target
        assert plan.buffers[target].shape[-1] == (128 if is_joined else 64)
    assert kernels[True] == kernels[False]


@pytest.mark.skipif(not LIST.exists(), reason="there are no C sources beside the tests")
@pytest.mark.parametrize("architecture", ["x86_64", "aarch64"])
def test_every_line_of_the_list_has_a_suite(architecture: str) -> None:
    lines = lines_of(architecture)
    assert {operation for operation, *_ in lines} == set(kernel_suites.SUITES)
    assert len(set(lines)) == len(lines)
    assert all(
        isa == "neon" for *_, isa in lines if architecture == "aarch64" and isa != "portable"
    )


def test_the_sources_are_where_the_library_is_installed() -> None:
    from bitinfer.backends.native import source_dir

    if not LIST.exists():
        assert (source_dir() / "kernels" / "kernels.inc").is_file()
    else:
        assert (source_dir() / "kernels" / "kernels.inc").read_text() == LIST.read_text()

"""Every kernel of the list, by force: exact at the sizes of its own block, and really reached."""

from __future__ import annotations

import pytest

import kernel_suites
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
